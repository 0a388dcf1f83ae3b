"""DAGs whose tasks ask for everything that a supervisor and a server must answer."""

from datetime import datetime, timedelta, timezone

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.providers.standard.operators.python import (
    BranchPythonOperator,
    PythonOperator,
    ShortCircuitOperator,
)
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.sensors.external_task import ExternalTaskSensor
from airflow.providers.standard.sensors.python import PythonSensor
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, Asset, BaseOperator, Variable, get_current_context, task
from airflow.sdk.bases.hook import BaseHook
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import StartTriggerArgs

START = datetime(2024, 1, 1, tzinfo=timezone.utc)
LOGICAL = datetime(2024, 5, 1, tzinfo=timezone.utc)
NEWS = Asset("news", uri="s3://news/today")


class FromStart(BaseOperator):
    """No worker ever has it."""

    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(
        trigger_cls="airflow.providers.standard.triggers.temporal.DateTimeTrigger",
        trigger_kwargs={"moment": START, "end_from_trigger": True},
        next_method="never",
        next_kwargs=None,
        timeout=None,
    )


with DAG("values", schedule=None, start_date=START, params={"x": 3}) as values:
    BashOperator(task_id="bash", bash_command="echo {{ params.x }} {{ ti.try_number }}")

    @task
    def produce():
        return [1, 2, 3]

    @task
    def double(n):
        return n * 2

    @task
    def total(numbers):
        return [len(numbers), list(numbers)[::-1], sum(numbers), numbers[1]]

    @task
    def consume(numbers):
        return sum(numbers)

    numbers = produce()
    consume(numbers)
    total(double.expand(n=numbers))

    @task
    def ask():
        Variable.set("made", "by a task", description="words")
        connection = BaseHook.get_connection("shop")
        print("the password is", connection.password)
        context = get_current_context()
        ti = context["ti"]
        ti.xcom_push("first", 1)
        ti.xcom_push("second", 2)
        XCom.delete(key="second", dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id)
        return {
            "greeting": Variable.get("greeting"),
            "missing": Variable.get("missing", default="nothing"),
            "made": Variable.get("made"),
            "connection": [connection.host, connection.login, connection.port],
            "extra": connection.extra_dejson,
            "own": [ti.xcom_pull(task_ids="ask", key=key) for key in ("first", "second")],
            "runs": ti.get_dr_count("values"),
            "here": ti.get_ti_count("values", task_ids=["ask"], run_ids=[ti.run_id]),
            "states": ti.get_task_states("values", task_ids=["ask"], run_ids=[ti.run_id])[ti.run_id],
            "state": ti.get_dagrun_state("values", ti.run_id),
            "previous": str(context["prev_start_date_success"]),
        }

    ask()

    @task(outlets=[NEWS])
    def publish(*, outlet_events):
        outlet_events[NEWS].extra = {"rows": 3}

    @task(inlets=[NEWS])
    def read(*, inlet_events):
        return [event.extra for event in inlet_events[NEWS]]

    publish() >> read()

with DAG("paths", schedule=None, start_date=START):
    branch = BranchPythonOperator(task_id="branch", python_callable=lambda: "left")
    branch >> [EmptyOperator(task_id="left"), EmptyOperator(task_id="right")]
    short = ShortCircuitOperator(task_id="short", python_callable=lambda: False)
    short >> EmptyOperator(task_id="after_short") >> EmptyOperator(task_id="far")
    LatestOnlyOperator(task_id="latest") >> EmptyOperator(task_id="after_latest")

    @task
    def skip():
        from airflow.sdk.exceptions import AirflowSkipException

        raise AirflowSkipException("not today")

    skip()

with DAG("waits", schedule=None, start_date=START):
    def third_time():
        import os

        path = os.environ["POKES"]
        with open(path, "a") as file:
            file.write("x")
        return os.path.getsize(path) >= 3

    PythonSensor(
        task_id="poke", python_callable=third_time, mode="reschedule", poke_interval=0.3, timeout=60
    )
    TimeDeltaSensor(task_id="defer", delta=timedelta(seconds=1), deferrable=True)
    FromStart(task_id="from_start")

with DAG("retries", schedule=None, start_date=START):

    def boom(ti):
        if ti.try_number < 3:
            raise ValueError(f"boom {ti.try_number}")

    def final():
        from airflow.sdk.exceptions import AirflowFailException

        raise AirflowFailException("never again")

    def told(context):
        import os

        with open(os.environ["TOLD"], "a") as file:
            file.write(f"{context['ti'].task_id} {context['ti'].try_number}\n")

    delay = timedelta(seconds=0.2)
    PythonOperator(
        task_id="third", python_callable=boom, retries=3, retry_delay=delay, on_retry_callback=told
    )
    PythonOperator(
        task_id="final", python_callable=final, retries=3, retry_delay=delay, on_failure_callback=told
    )

    @task(retries=1, retry_delay=delay)
    def dies(ti=None):
        import os

        if ti.try_number == 1:
            os.kill(os.getpid(), 9)

    dies()

    @task
    def nonsense():
        import os

        os.write(0, b"\xff\xff\xff\xffnonsense")
        import time

        time.sleep(60)

    nonsense()

with DAG("calls", schedule=None, start_date=START):
    call = TriggerDagRunOperator(
        task_id="call", trigger_dag_id="called", trigger_run_id="one", conf={"n": 7}, poke_interval=1,
        wait_for_completion=True, logical_date=LOGICAL,
    )
    again = TriggerDagRunOperator(task_id="again", trigger_dag_id="called", trigger_run_id="one")
    external = ExternalTaskSensor(
        task_id="external",
        external_dag_id="called",
        external_task_id="answer",
        execution_date_fn=lambda *_: LOGICAL,
        poke_interval=1,
        timeout=20,
    )
    call >> [again, external]

with DAG("called", schedule=None, start_date=START):

    @task
    def answer(dag_run=None):
        return dag_run.conf["n"]

    answer()
