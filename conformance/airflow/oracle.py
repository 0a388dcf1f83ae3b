"""What Airflow itself makes of DAGs: ``dag.test()`` on an SQLite database, for the comparison.

``oracle.py FOLDER OUT DAG_ID...`` writes a JSON object ``{dag_id: {"state", "tasks", "xcoms"}}``.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

DATE = (2024, 1, 2)


def main() -> None:
    folder, out, *wanted = sys.argv[1:]
    home = tempfile.mkdtemp()
    os.environ.update(
        AIRFLOW_HOME=home,
        AIRFLOW__CORE__DAGS_FOLDER=folder,
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
        AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=json.dumps(
            [
                {
                    "name": "dags-folder",
                    "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                    "kwargs": {"path": folder},
                }
            ]
        ),
    )
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)

    import pendulum
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    DagBundlesManager().sync_bundles_to_db()
    found = {}
    for file in sorted(Path(folder).glob("*.py")):
        bag = BundleDagBag(
            dag_folder=str(file), bundle_path=Path(folder), bundle_name="dags-folder", load_op_links=False
        )
        if not any(dag_id in wanted for dag_id in bag.dags):
            continue
        sync_bag_to_db(bag, "dags-folder", None)
        for dag_id, dag in bag.dags.items():
            if dag_id not in wanted:
                continue
            try:
                run = dag.test(logical_date=pendulum.datetime(*DATE, tz="UTC"))
            except Exception as error:
                found[dag_id] = {"error": f"{type(error).__name__}: {error}"}
                continue
            with create_session() as session:
                where = (TaskInstance.dag_id == dag_id, TaskInstance.run_id == run.run_id)
                tasks = session.execute(
                    select(
                        TaskInstance.task_id,
                        TaskInstance.map_index,
                        TaskInstance.state,
                        TaskInstance.try_number,
                    ).where(*where)
                ).all()
                xcoms = session.execute(
                    select(XComModel.task_id, XComModel.map_index, XComModel.key, XComModel.value).where(
                        XComModel.dag_id == dag_id, XComModel.run_id == run.run_id
                    )
                ).all()
            found[dag_id] = {
                "state": str(run.state),
                "tasks": sorted([t, m, str(s) if s else None, n] for t, m, s, n in tasks),
                "xcoms": sorted(([t, m, k, v] for t, m, k, v in xcoms), key=json.dumps),
            }
    Path(out).write_text(json.dumps(found))


main()
