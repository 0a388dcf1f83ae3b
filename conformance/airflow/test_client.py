"""Airflow's public REST API, driven by Airflow's own client (``apache-airflow-client``) against the
real binary with a small folder of DAGs.

``KOBZA_BIN`` is the binary.
"""

import datetime
import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import airflow_client.client as client
import pytest
import yaml
from airflow_client.client import api, models
from airflow_client.client.exceptions import ApiException
from server import Kobza

UTC = datetime.timezone.utc
DAGS = {
    "pipeline",
    "flaky",
    "guarded",
    "long",
    "daily",
    "makes_orders",
    "reads_orders",
    "people",
    "asks_ann",
    "no_pool",
}


class Airflow:
    """The client's APIs over one server."""

    def __init__(self, kobza: Kobza, token: str = "any") -> None:
        self.kobza = kobza
        self.base = f"http://127.0.0.1:{kobza.port}/airflow"
        self.client = client.ApiClient(client.Configuration(host=self.base, access_token=token))
        for name in (
            "DAGApi DagRunApi TaskInstanceApi XComApi VariableApi ConnectionApi PoolApi AssetApi "
            "BackfillApi ImportErrorApi DagVersionApi DagSourceApi DagWarningApi MonitorApi "
            "VersionApi TaskApi ExtraLinksApi DagStatsApi"
        ).split():
            setattr(self, name, getattr(api, name)(self.client))

    def trigger(self, dag_id: str, **fields):
        fields.setdefault("logical_date", None)
        body = models.TriggerDAGRunPostBody(**fields)
        return self.DagRunApi.trigger_dag_run(dag_id, body)

    def wait(self, dag_id: str, run_id: str, *states: str, seconds: float = 90.0):
        wanted = states or ("success", "failed")

        def look():
            run = self.DagRunApi.get_dag_run(dag_id, run_id)
            return run if run.state.value in wanted else None

        return self.kobza.until(f"{dag_id} {run_id} is {wanted}", look, seconds)

    def states(self, dag_id: str, run_id: str) -> dict:
        found = self.TaskInstanceApi.get_task_instances(dag_id, run_id)
        return {
            (t.task_id, t.map_index): t.state.value if t.state else None
            for t in found.task_instances
        }

    def wait_task(self, dag_id: str, run_id: str, task_id: str, state: str):
        def look():
            task = self.TaskInstanceApi.get_task_instance(dag_id, run_id, task_id)
            return task if task.state and task.state.value == state else None

        return self.kobza.until(f"{task_id} is {state}", look, 60.0)

    def raw(self, method: str, path: str, body=None, token: str | None = None):
        headers = {"content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        request = urllib.request.Request(
            f"{self.base}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text.strip() else None
        except urllib.error.HTTPError as error:
            text = error.read()
            return error.code, json.loads(text) if text.strip() else None


def refused(status: int, call, *arguments, **named) -> str:
    with pytest.raises(ApiException) as error:
        call(*arguments, **named)
    assert error.value.status == status, error.value.body
    return json.loads(error.value.body)["detail"]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    dags = folder / "dags"
    shutil.copytree(Path(__file__).parent / "client_dags", dags)
    kobza = Kobza(folder, dags)
    try:
        airflow = Airflow(kobza)

        def loaded():
            try:
                found = {d.dag_id for d in airflow.DAGApi.get_dags().dags}
                errors = airflow.ImportErrorApi.get_import_errors().total_entries
            except Exception:
                return None
            return True if found == DAGS and errors else None

        kobza.until("loaded", loaded)
        yield airflow
    finally:
        kobza.stop()


def test_health_and_version(airflow):
    health = airflow.MonitorApi.get_health()
    assert health.metadatabase.status == health.scheduler.status == "healthy"
    assert health.dag_processor.status == health.triggerer.status == "healthy"
    assert airflow.VersionApi.get_version().version.startswith("3.3")
    status, body = airflow.raw("POST", "/auth/token", {"username": "a", "password": "b"})
    assert status == 201 and body["access_token"]


def test_dags(airflow):
    page = airflow.DAGApi.get_dags(limit=2, offset=1, order_by=["-dag_id"])
    assert page.total_entries == len(DAGS)
    assert [d.dag_id for d in page.dags] == sorted(DAGS, reverse=True)[1:3]
    assert [d.dag_id for d in airflow.DAGApi.get_dags(tags=["shop"]).dags] == ["pipeline"]
    assert [d.dag_id for d in airflow.DAGApi.get_dags(dag_id_pattern="ORDERS").dags] == [
        "makes_orders",
        "reads_orders",
    ]
    assert [d.dag_id for d in airflow.DAGApi.get_dags(owners=["maria"]).dags] == ["pipeline"]
    dag = airflow.DAGApi.get_dag("pipeline")
    assert dag.description == "takes, doubles, adds" and dag.owners == ["maria"]
    assert sorted(t.name for t in dag.tags) == ["daily", "shop"]
    assert dag.fileloc.endswith("pipeline.py") and dag.relative_fileloc == "pipeline.py"
    details = airflow.DAGApi.get_dag_details("pipeline")
    assert details.doc_md == "# Pipeline" and details.params["size"]["value"] == 3
    assert details.latest_dag_version.version_number == 1
    assert details.start_date == datetime.datetime(2024, 1, 1, tzinfo=UTC)
    assert refused(404, airflow.DAGApi.get_dag, "nowhere").startswith("The Dag with ID")
    # New DAGs begin paused, as Airflow's own setting says.
    assert airflow.DAGApi.get_dag("daily").is_paused
    body = models.DAGPatchBody(is_paused=False)
    assert not airflow.DAGApi.patch_dag("daily", body).is_paused
    daily = airflow.DAGApi.get_dag("daily")
    assert not daily.is_paused and daily.timetable_summary == "0 0 * * *"
    assert daily.next_dagrun_run_after is not None
    airflow.DAGApi.patch_dag("daily", models.DAGPatchBody(is_paused=True))
    many = airflow.DAGApi.patch_dags(models.DAGPatchBody(is_paused=False), dag_id_pattern="reads_")
    assert [d.dag_id for d in many.dags] == ["reads_orders"]
    tags = airflow.DAGApi.get_dag_tags()
    assert tags.tags == ["daily", "shop"]
    assert "'colour' is disallowed" in refused(400, airflow.DAGApi.get_dags, order_by=["colour"])
    details = airflow.DAGApi.get_dag_details("reads_orders")
    assert details.asset_expression["all"][0]["asset"]["uri"] == "s3://shop/orders"


def test_tasks_versions_sources(airflow):
    tasks = airflow.TaskApi.get_tasks("pipeline")
    assert [t.task_id for t in tasks.tasks] == ["double", "numbers", "shout", "total"]
    double = airflow.TaskApi.get_task("pipeline", "double")
    assert double.is_mapped and double.owner == "maria"
    shout = airflow.TaskApi.get_task("pipeline", "shout")
    assert shout.class_ref["class_name"] == "BashOperator" and "bash_command" in shout.template_fields
    assert refused(404, airflow.TaskApi.get_task, "pipeline", "nothing")
    versions = airflow.DagVersionApi.get_dag_versions("pipeline")
    assert [v.version_number for v in versions.dag_versions] == [1]
    assert airflow.DagVersionApi.get_dag_version("pipeline", 1).bundle_name == "dags-folder"
    assert refused(404, airflow.DagVersionApi.get_dag_version, "pipeline", 2)
    source = airflow.DagSourceApi.get_dag_source("pipeline")
    assert "takes, doubles, adds" in source.content and source.version_number == 1
    warnings = airflow.DagWarningApi.list_dag_warnings()
    assert [(w.dag_id, w.warning_type.value) for w in warnings.dag_warnings] == [
        ("no_pool", "non-existent pool")
    ]


def test_import_errors(airflow):
    errors = airflow.ImportErrorApi.get_import_errors()
    assert [e.filename for e in errors.import_errors] == ["broken.py"]
    error = airflow.ImportErrorApi.get_import_error(errors.import_errors[0].import_error_id)
    assert "no_such_module_anywhere" in error.stack_trace and error.bundle_name == "dags-folder"
    assert refused(404, airflow.ImportErrorApi.get_import_error, 1)


def test_a_run_from_its_start_to_its_end(airflow):
    date = datetime.datetime(2024, 3, 1, tzinfo=UTC)
    run = airflow.trigger(
        "pipeline", logical_date=date, conf={"size": 2, "mood": "merry"}, note="by hand"
    )
    assert run.run_type.value == "manual" and run.triggered_by.value == "rest_api"
    assert run.logical_date == date and run.note == "by hand"
    run_id = run.dag_run_id
    assert run_id.startswith("manual__")
    assert airflow.wait("pipeline", run_id).state.value == "success"
    assert airflow.states("pipeline", run_id) == {
        ("numbers", -1): "success",
        ("double", 0): "success",
        ("double", 1): "success",
        ("total", -1): "success",
        ("shout", -1): "success",
    }
    refused(409, airflow.trigger, "pipeline", logical_date=date)
    refused(409, airflow.trigger, "pipeline", dag_run_id=run_id)
    refused(400, airflow.trigger, "pipeline", conf={"size": 0})
    refused(404, airflow.trigger, "nowhere")
    # Mapped instances have their own addresses.
    mapped = airflow.TaskInstanceApi.get_mapped_task_instances("pipeline", run_id, "double")
    assert [t.map_index for t in mapped.task_instances] == [0, 1]
    one = airflow.TaskInstanceApi.get_mapped_task_instance("pipeline", run_id, "double", 1)
    assert one.map_index == 1 and one.rendered_map_index == "1"
    assert "map_index" in refused(
        404, airflow.TaskInstanceApi.get_task_instance, "pipeline", run_id, "double"
    )
    shout = airflow.TaskInstanceApi.get_task_instance("pipeline", run_id, "shout")
    assert shout.rendered_fields["bash_command"] == "echo merry 2024-03-01"
    assert shout.operator == "BashOperator" and shout.try_number == 1
    assert shout.dag_version.version_number == 1
    # What it ran is on the task's page too.
    runs = [r for r in airflow.kobza.pages("/runs?workflow=pipeline") if r["key"] == run_id]
    tasks = list(airflow.kobza.pages(f"/runs/{runs[0]['id']}/tasks"))
    page = next(t for t in tasks if t["name"] == "shout")
    rendered = airflow.kobza.call(f"/tasks/{page['id']}/rendered")
    assert (rendered["language"], rendered["text"]) == ("bash", "echo merry 2024-03-01")
    assert rendered["inputs"]["bash_command"] == "echo merry 2024-03-01"
    outputs = airflow.kobza.call(f"/tasks/{page['id']}")["outputs"]
    assert [(o["key"], o["value"]) for o in outputs] == [("return_value", "merry 2024-03-01")]
    # XComs.
    entry = airflow.XComApi.get_xcom_entry("pipeline", "total", run_id, "return_value")
    assert entry.actual_instance.value == 2
    entry = airflow.XComApi.get_xcom_entry("pipeline", "double", run_id, "return_value", map_index=1)
    assert entry.actual_instance.value == 2
    entries = airflow.XComApi.get_xcom_entries("pipeline", run_id, "~")
    keys = {(e.task_id, e.map_index, e.key) for e in entries.xcom_entries}
    assert ("shout", -1, "return_value") in keys and not any(k[2].startswith("$") for k in keys)
    made = airflow.XComApi.create_xcom_entry(
        "pipeline", "total", run_id, models.XComCreateBody(key="by/hand", value={"a": [1, None]})
    )
    assert made.value == {"a": [1, None]}
    changed = airflow.XComApi.update_xcom_entry(
        "pipeline", "total", run_id, "by/hand", models.XComUpdateBody(value="new")
    )
    assert changed.value == "new"
    airflow.XComApi.delete_xcom_entry("pipeline", "total", run_id, "by/hand")
    refused(404, airflow.XComApi.get_xcom_entry, "pipeline", "total", run_id, "by/hand")
    # The log.
    log = airflow.TaskInstanceApi.get_log("pipeline", run_id, "numbers", 1)
    lines = [m.event for m in log.content.actual_instance]
    assert any("numbers are made" in line for line in lines), lines
    assert log.continuation_token is None
    refused(404, airflow.TaskInstanceApi.get_log, "pipeline", run_id, "numbers", 7)
    # Lists of runs, and what they are filtered by.
    runs = airflow.DagRunApi.get_dag_runs("pipeline", logical_date_gte=date, state=["success"])
    assert [r.dag_run_id for r in runs.dag_runs] == [run_id]
    assert airflow.DagRunApi.get_dag_runs("pipeline", state=["failed"]).total_entries == 0
    assert airflow.DagRunApi.get_dag_runs("~", run_id_pattern=run_id[:20]).total_entries == 1
    batch = airflow.DagRunApi.get_list_dag_runs_batch(
        "~", models.DAGRunsBatchBody(dag_ids=["pipeline"], states=["success"])
    )
    assert [r.dag_run_id for r in batch.dag_runs] == [run_id]
    tasks = airflow.TaskInstanceApi.get_task_instances_batch(
        "~", "~", models.TaskInstancesBatchBody(dag_ids=["pipeline"], task_ids=["shout"])
    )
    assert tasks.total_entries == 1
    tasks = airflow.TaskInstanceApi.get_task_instances("~", "~", task_id="shout", order_by=["-start_date"])
    assert [t.dag_run_id for t in tasks.task_instances] == [run_id]
    # Notes, and the end.
    run = airflow.DagRunApi.patch_dag_run("pipeline", run_id, models.DAGRunPatchBody(note="better"))
    assert run.note == "better"
    body = models.PatchTaskInstanceBody(note="look here")
    noted = airflow.TaskInstanceApi.patch_task_instance("pipeline", run_id, "total", body)
    assert [(t.task_id, t.note) for t in noted.task_instances] == [("total", "look here")]
    assert airflow.TaskInstanceApi.get_task_instance("pipeline", run_id, "total").note == "look here"
    stats = {s.dag_id: s.stats for s in airflow.DagStatsApi.get_dag_stats(dag_ids=["pipeline"]).dags}
    assert {s.state.value: s.count for s in stats["pipeline"]}["success"] == 1
    airflow.DagRunApi.delete_dag_run("pipeline", run_id)
    refused(404, airflow.DagRunApi.get_dag_run, "pipeline", run_id)


def test_waiting_for_a_run(airflow):
    date = datetime.datetime(2024, 3, 2, tzinfo=UTC)
    run = airflow.trigger("pipeline", logical_date=date, conf={"size": 4})
    path = f"/api/v2/dags/pipeline/dagRuns/{run.dag_run_id}/wait?interval=1&result=total&result=double"
    url = airflow.base + path.replace("+", "%2B")
    with urllib.request.urlopen(url, timeout=90) as answer:
        lines = [json.loads(line) for line in answer.read().splitlines()]
    assert lines[-1] == {"state": "success", "results": {"total": 12, "double": [0, 2, 4, 6]}}


def test_tries(airflow):
    run = airflow.trigger("flaky")
    assert airflow.wait("flaky", run.dag_run_id).state.value == "success"
    tries = airflow.TaskInstanceApi.get_task_instance_tries("flaky", run.dag_run_id, "second_time")
    assert [(t.try_number, t.state.value) for t in tries.task_instances] == [
        (1, "failed"),
        (2, "success"),
    ]
    first = airflow.TaskInstanceApi.get_task_instance_try_details(
        "flaky", run.dag_run_id, "second_time", 1
    )
    assert first.try_number == 1 and first.max_tries == 1
    log = airflow.TaskInstanceApi.get_log("flaky", run.dag_run_id, "second_time", 1)
    assert any("not the first time" in m.event for m in log.content.actual_instance)


def test_clearing(airflow):
    run_id = airflow.trigger("guarded").dag_run_id
    assert airflow.wait("guarded", run_id).state.value == "failed"
    assert airflow.states("guarded", run_id) == {("check", -1): "failed", ("after", -1): "upstream_failed"}
    body = models.ClearTaskInstancesBody(
        dag_run_id=run_id,
        task_ids=[models.ClearTaskInstancesBodyTaskIdsInner("check")],
        include_downstream=True,
    )
    dry = airflow.TaskInstanceApi.post_clear_task_instances("guarded", body)
    assert {t.task_id for t in dry.task_instances} == {"check", "after"}
    assert airflow.DagRunApi.get_dag_run("guarded", run_id).state.value == "failed"
    airflow.VariableApi.post_variable(models.VariableBody(key="mended", value="yes"))
    body.dry_run = False
    airflow.TaskInstanceApi.post_clear_task_instances("guarded", body)
    assert airflow.wait("guarded", run_id).state.value == "success"
    task = airflow.TaskInstanceApi.get_task_instance("guarded", run_id, "check")
    assert task.try_number == 2
    # The run as a whole.
    # (The client cannot read the answer to a dry run: two of its models fit every item.)
    path = f"/api/v2/dags/guarded/dagRuns/{urllib.parse.quote(run_id, safe='')}/clear"
    status, dry = airflow.raw("POST", path, {"dry_run": True})
    assert status == 200 and {t["task_id"] for t in dry["task_instances"]} == {"check", "after"}
    airflow.DagRunApi.clear_dag_run("guarded", run_id, models.DAGRunClearBody(dry_run=False))
    airflow.wait("guarded", run_id)
    assert airflow.TaskInstanceApi.get_task_instance("guarded", run_id, "check").try_number == 3
    airflow.VariableApi.delete_variable("mended")


def test_states_by_hand(airflow):
    run_id = airflow.trigger("long").dag_run_id
    airflow.wait_task("long", run_id, "first", "running")
    refused(409, airflow.DagRunApi.delete_dag_run, "long", run_id)
    body = models.PatchTaskInstanceBody(new_state="success")
    dry = airflow.TaskInstanceApi.patch_task_instance_dry_run("long", run_id, "first", body)
    assert [(t.task_id, t.state.value) for t in dry.task_instances] == [("first", "success")]
    airflow.TaskInstanceApi.patch_task_instance("long", run_id, "first", body)
    assert airflow.wait("long", run_id).state.value == "success"
    assert airflow.states("long", run_id) == {("first", -1): "success", ("then", -1): "success"}
    # A run set to failed ends so, what had not begun is skipped.
    run_id = airflow.trigger("long").dag_run_id
    airflow.wait_task("long", run_id, "first", "running")
    airflow.DagRunApi.patch_dag_run("long", run_id, models.DAGRunPatchBody(state="failed"))
    assert airflow.wait("long", run_id).state.value == "failed"
    assert airflow.states("long", run_id) == {("first", -1): "failed", ("then", -1): "skipped"}
    # And to success.
    run_id = airflow.trigger("long").dag_run_id
    airflow.wait_task("long", run_id, "first", "running")
    airflow.DagRunApi.patch_dag_run("long", run_id, models.DAGRunPatchBody(state="success"))
    assert airflow.wait("long", run_id).state.value == "success"
    assert airflow.states("long", run_id) == {("first", -1): "success", ("then", -1): "skipped"}
    # Many at once.
    entity = models.BulkDAGRunBody(dag_run_id=run_id, note="done")
    action = models.BulkUpdateActionBulkDAGRunBody(action="update", entities=[entity])
    inner = models.ActionsInner(action)
    done = airflow.DagRunApi.bulk_dag_runs("long", models.BulkBodyBulkDAGRunBody(actions=[inner]))
    assert done.update.errors == [] and len(done.update.success) == 1
    assert airflow.DagRunApi.get_dag_run("long", run_id).note == "done"


def test_variables(airflow):
    made = airflow.VariableApi.post_variable(
        models.VariableBody(key="region", value="eu", description="where")
    )
    assert (made.value, made.description, made.is_encrypted) == ("eu", "where", False)
    refused(409, airflow.VariableApi.post_variable, models.VariableBody(key="region", value="us"))
    assert airflow.VariableApi.get_variable("region").value == "eu"
    changed = airflow.VariableApi.patch_variable("region", models.VariableBody(key="region", value="us"))
    assert changed.value == "us"
    airflow.VariableApi.post_variable(models.VariableBody(key="db_password", value="hunter2-hunter2"))
    secret = airflow.VariableApi.get_variable("db_password")
    assert secret.value == "***" and secret.is_encrypted
    keys = airflow.VariableApi.get_variables(variable_key_pattern="e", order_by=["-key"])
    assert [v.key for v in keys.variables] == ["region"]
    bulk = models.BulkBodyVariableBody(
        actions=[
            models.ActionsInner4(
                models.BulkCreateActionVariableBody(
                    action="create", entities=[models.VariableBody(key="a/b", value={"n": 1})]
                )
            )
        ]
    )
    assert airflow.VariableApi.bulk_variables(bulk).create.success == ["a/b"]
    assert json.loads(airflow.VariableApi.get_variable("a/b").value) == {"n": 1}
    for key in ("region", "db_password", "a/b"):
        airflow.VariableApi.delete_variable(key)
    refused(404, airflow.VariableApi.get_variable, "region")
    refused(404, airflow.VariableApi.delete_variable, "region")


def test_connections(airflow):
    body = models.ConnectionBody(
        connection_id="shop",
        conn_type="postgres",
        host="db",
        login="maria",
        password="hunter2-hunter2",
        schema="sales",
        port=5432,
        extra='{"sslmode": "require", "token": "swordfish-1"}',
        description="the shop",
    )
    made = airflow.ConnectionApi.post_connection(body)
    assert (made.host, made.login, made.port, made.password) == ("db", "maria", 5432, "***")
    assert "swordfish" not in made.extra and "hunter2" not in str(made.to_dict())
    refused(409, airflow.ConnectionApi.post_connection, body)
    changed = airflow.ConnectionApi.patch_connection(
        "shop",
        models.ConnectionBody(connection_id="shop", conn_type="postgres", host="db2"),
        update_mask=["host"],
    )
    assert (changed.host, changed.login, changed.password) == ("db2", "maria", "***")
    # Nothing secret is in the store in the clear.
    data = airflow.kobza.folder / "data"
    found = [p for p in data.rglob("*") if p.is_file() and b"hunter2-hunter2" in p.read_bytes()]
    assert found == []
    listed = airflow.ConnectionApi.get_connections(connection_id_pattern="SHOP")
    assert [c.connection_id for c in listed.connections] == ["shop"]
    airflow.ConnectionApi.delete_connection("shop")
    refused(404, airflow.ConnectionApi.get_connection, "shop")


def test_pools(airflow):
    assert {p.name for p in airflow.PoolApi.get_pools().pools} == {"default_pool"}
    made = airflow.PoolApi.post_pool(models.PoolBody(name="narrow", slots=2, description="few"))
    assert (made.slots, made.open_slots, made.occupied_slots) == (2, 2, 0)
    changed = airflow.PoolApi.patch_pool("narrow", models.PoolPatchBody(slots=-1), update_mask=["slots"])
    assert (changed.slots, changed.open_slots, changed.description) == (-1, -1, "few")
    assert "Default" in refused(400, airflow.PoolApi.delete_pool, "default_pool")
    airflow.PoolApi.delete_pool("narrow")
    refused(404, airflow.PoolApi.get_pool, "narrow")
    refused(409, airflow.PoolApi.post_pool, models.PoolBody(name="default_pool", slots=1))


def test_assets(airflow):
    found = airflow.AssetApi.get_assets()
    assert [(a.name, a.uri) for a in found.assets] == [("orders", "s3://shop/orders")]
    asset = airflow.AssetApi.get_asset(found.assets[0].id)
    assert asset.extra == {"owner": "shop"}
    assert [d.dag_id for d in asset.scheduled_dags] == ["reads_orders"]
    assert [(t.dag_id, t.task_id) for t in asset.producing_tasks] == [("makes_orders", "make")]
    refused(404, airflow.AssetApi.get_asset, 1)
    run_id = airflow.trigger("makes_orders").dag_run_id
    assert airflow.wait("makes_orders", run_id).state.value == "success"
    events = airflow.AssetApi.get_asset_events(asset_id=asset.id)
    assert [(e.extra, e.source_dag_id, e.source_task_id) for e in events.asset_events] == [
        ({"rows": 7}, "makes_orders", "make")
    ]
    # The event has started the DAG that is scheduled by it.
    def consumer(runs: int):
        def look():
            found = airflow.DagRunApi.get_dag_runs("reads_orders", order_by=["run_after"])
            return found.dag_runs if found.total_entries == runs else None

        return airflow.kobza.until(f"{runs} runs of reads_orders", look, 60.0)

    run = consumer(1)[0]
    assert run.run_type.value == "asset_triggered" and run.logical_date is None
    assert airflow.wait("reads_orders", run.dag_run_id).state.value == "success"
    upstream = airflow.DagRunApi.get_upstream_asset_events("reads_orders", run.dag_run_id)
    assert [e.id for e in upstream.asset_events] == [events.asset_events[0].id]
    value = airflow.XComApi.get_xcom_entry("reads_orders", "read", run.dag_run_id, "return_value")
    assert value.actual_instance.value == [{"rows": 7}]
    told = airflow.AssetApi.get_asset_events(asset_id=asset.id).asset_events[0]
    assert [r.run_id for r in told.created_dagruns] == [run.dag_run_id]
    made = airflow.AssetApi.create_asset_event(
        models.CreateAssetEventsBody(asset_id=asset.id, extra={"from": "outside"})
    )
    assert made.extra["from"] == "outside" and made.source_dag_id is None
    assert airflow.AssetApi.get_asset_events(asset_id=asset.id).total_entries == 2
    run = consumer(2)[1]
    assert airflow.wait("reads_orders", run.dag_run_id).state.value == "success"
    last = airflow.AssetApi.get_asset(asset.id).last_asset_event
    assert last.id == made.id
    run = airflow.AssetApi.materialize_asset(asset.id)
    assert run.run_type.value == "asset_materialization" and run.dag_id == "makes_orders"
    assert airflow.wait("makes_orders", run.dag_run_id).state.value == "success"
    refused(404, airflow.AssetApi.get_dag_asset_queued_events, "makes_orders")


def test_backfills(airflow):
    def body(**fields):
        fields.setdefault("from_date", datetime.datetime(2024, 1, 1, tzinfo=UTC))
        fields.setdefault("to_date", datetime.datetime(2024, 1, 4, tzinfo=UTC))
        return models.BackfillPostBody(dag_id=fields.pop("dag_id", "daily"), **fields)

    days = [datetime.datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
    dry = airflow.BackfillApi.create_backfill_dry_run(body(run_backwards=True))
    assert [d.logical_date for d in dry.backfills] == days[::-1]
    made = airflow.BackfillApi.create_backfill(body(max_active_runs=2))
    assert made.dag_id == "daily" and not made.is_paused and made.max_active_runs == 2
    assert (made.from_date, made.to_date) == (days[0], days[3])

    def ended():
        found = airflow.BackfillApi.get_backfill(made.id)
        return found if found.completed_at else None

    airflow.kobza.until("the backfill ends", ended, 90.0)
    runs = airflow.DagRunApi.get_dag_runs("daily", run_type=["backfill"], order_by=["logical_date"])
    assert [(r.logical_date, r.state.value) for r in runs.dag_runs] == [(d, "success") for d in days]
    assert airflow.BackfillApi.list_backfills("daily").total_entries == 1
    refused(409, airflow.BackfillApi.pause_backfill, made.id)
    refused(409, airflow.BackfillApi.cancel_backfill, made.id)
    # What has a run is left out, unless it is to run again.
    dry = airflow.BackfillApi.create_backfill_dry_run(body())
    assert dry.total_entries == 0
    dry = airflow.BackfillApi.create_backfill_dry_run(body(reprocess_behavior="completed"))
    assert dry.total_entries == 4
    # Pause, go on, cancel.
    later = datetime.datetime(2024, 3, 1, tzinfo=UTC)
    made = airflow.BackfillApi.create_backfill(
        body(from_date=days[3], to_date=later, max_active_runs=1)
    )
    assert airflow.BackfillApi.pause_backfill(made.id).is_paused
    refused(409, airflow.BackfillApi.create_backfill, body())
    assert not airflow.BackfillApi.unpause_backfill(made.id).is_paused
    airflow.BackfillApi.cancel_backfill(made.id)
    airflow.kobza.until("the backfill is over", ended, 60.0)
    refused(404, airflow.BackfillApi.get_backfill, 1)
    refused(404, airflow.BackfillApi.create_backfill, body(dag_id="nothing"))
    refused(422, airflow.BackfillApi.create_backfill, body(dag_id="pipeline"))


def wait_for_question(airflow, run_id: str, task_id: str):
    task = airflow.wait_task("people", run_id, task_id, "awaiting_input")
    return task


def test_people_answer_by_the_rest_api(airflow):
    run_id = airflow.trigger("people").dag_run_id
    wait_for_question(airflow, run_id, "approve")
    details = airflow.TaskInstanceApi.get_hitl_details("people", run_id)
    assert [(d.subject, d.response_received) for d in details.hitl_details] == [("May it go on?", False)]
    detail = airflow.TaskInstanceApi.get_hitl_detail("people", run_id, "approve", -1)
    assert detail.options == ["Approve", "Reject"] and detail.task_instance.task_id == "approve"
    answer = models.UpdateHITLDetailPayload
    update = airflow.TaskInstanceApi.update_hitl_detail
    assert "Invalid options" in refused(
        400, update, "people", run_id, "approve", -1, answer(chosen_options=["Maybe"])
    )
    said = update("people", run_id, "approve", -1, answer(chosen_options=["Approve"]))
    assert said.responded_by.name == "local" and said.chosen_options == ["Approve"]
    refused(409, update, "people", run_id, "approve", -1, answer(chosen_options=["Approve"]))
    wait_for_question(airflow, run_id, "details")
    update("people", run_id, "details", -1, answer(chosen_options=["OK"], params_input={"count": 7}))
    wait_for_question(airflow, run_id, "branch")
    update("people", run_id, "branch", -1, answer(chosen_options=["right"]))
    assert airflow.wait("people", run_id).state.value == "success"
    states = airflow.states("people", run_id)
    assert (states["left", -1], states["right", -1]) == ("skipped", "success")
    value = airflow.XComApi.get_xcom_entry("people", "details", run_id, "return_value")
    assert value.actual_instance.value["params_input"] == {"count": 7}
    open_ones = airflow.TaskInstanceApi.get_hitl_details("~", "~", response_received=False)
    assert open_ones.total_entries == 0


def test_people_answer_by_kobzas_own_api(airflow):
    run_id = airflow.trigger("people").dag_run_id
    kobza = airflow.kobza

    def suspended(name: str):
        def look():
            for task in tasks():
                if task["name"] == name and task["state"] == "suspended":
                    return kobza.call(f"/tasks/{task['id']}")
            return None

        return kobza.until(f"{name} is suspended", look, 60.0)

    def tasks():
        runs = [r for r in kobza.pages("/runs?workflow=people") if r["key"] == run_id]
        return kobza.pages(f"/runs/{runs[0]['id']}/tasks") if runs else []

    task = suspended("approve")
    assert task["approval"]["prompt"] == "May it go on?\n\nIt is *late*."
    kobza.call(f"/tasks/{task['id']}/approve", {"approved": True})
    task = suspended("details")
    fields = task["approval"]["fields"]["properties"]
    assert fields["chosen_options"]["enum"] == ["OK"] and fields["count"]["default"] == 1
    values = {"chosen_options": "OK", "count": 3}
    kobza.call(f"/tasks/{task['id']}/approve", {"approved": True, "values": values})
    task = suspended("branch")
    with pytest.raises(urllib.error.HTTPError) as error:
        kobza.call(f"/tasks/{task['id']}/approve", {"approved": False})
    assert error.value.code == 400
    kobza.call(
        f"/tasks/{task['id']}/approve", {"approved": True, "values": {"chosen_options": "left"}}
    )
    assert airflow.wait("people", run_id).state.value == "success"
    assert airflow.states("people", run_id)["left", -1] == "success"
    shown = {o["key"] for o in task["outputs"]}
    assert not any(key.startswith("$") for key in shown)
    # A refusal skips what comes after.
    run_id = airflow.trigger("people").dag_run_id
    task = suspended("approve")
    kobza.call(f"/tasks/{task['id']}/approve", {"approved": False})
    airflow.wait("people", run_id)
    assert airflow.states("people", run_id)["details", -1] == "skipped"


def test_what_is_not_served_says_so_by_name(airflow):
    import airflow.api_fastapi.core_api.openapi as openapi

    document = Path(openapi.__path__[0]) / "v2-rest-api-generated.yaml"
    paths = yaml.safe_load(document.read_text())["paths"]
    unserved, served = [], 0
    for path, operations in paths.items():
        for method in operations:
            if method not in ("get", "post", "put", "patch", "delete"):
                continue
            # Numbers where numbers are wanted, and nothing that is there.
            filled = path
            for name in ("asset_id", "asset_alias_id", "backfill_id", "import_error_id", "map_index"):
                filled = filled.replace("{%s}" % name, "1")
            for name in ("try_number", "task_try_number", "version_number", "event_log_id"):
                filled = filled.replace("{%s}" % name, "1")
            while "{" in filled:
                filled = filled[: filled.index("{")] + "nothing" + filled[filled.index("}") + 1 :]
            if method == "get" and filled.endswith("/wait"):
                filled += "?interval=1"
            body = {} if method in ("post", "put", "patch") else None
            status, said = airflow.raw(method.upper(), filled, body)
            if status == 501:
                unserved.append(f"{method.upper()} {path}")
                assert filled in said["detail"], said
            else:
                served += 1
                assert status != 405 and said != {"detail": "Not Found"}, (method, path, status, said)
    print(f"{served} of {served + len(unserved)} operations are served; not served:")
    print("\n".join(unserved))
    assert served >= 85
    assert airflow.raw("GET", "/api/v2/nothing") == (404, {"detail": "Not Found"})
    status, said = airflow.raw("GET", "/api/v2/dags/%ff%fe")
    assert status == 400 and "UTF-8" in said["detail"]
    status, said = airflow.raw("GET", "/api/v2/dags?limit=many")
    assert status == 422 and said["detail"][0]["loc"] == ["query", "limit"]
    # A body that is not as it must be is told with its place.
    status, said = airflow.raw("POST", "/api/v2/pools", {"name": "x", "slots": "many"})
    assert status == 422 and said["detail"][0]["loc"] == ["body"]
    status, said = airflow.raw("POST", "/api/v2/dags/pipeline/dagRuns", {"colour": "red", "logical_date": None})
    assert status == 422 and "colour" in said["detail"][0]["msg"]
