"""DAGs that the API's test drives."""

import datetime

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.hitl import (
    ApprovalOperator,
    HITLBranchOperator,
    HITLEntryOperator,
)
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Asset, Param, Variable, get_current_context, task

START = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
ORDERS = Asset("orders", uri="s3://shop/orders", extra={"owner": "shop"})

with DAG(
    "pipeline",
    schedule=None,
    start_date=START,
    tags=["shop", "daily"],
    params={"size": Param(3, type="integer", minimum=1), "mood": "calm"},
    description="takes, doubles, adds",
    doc_md="# Pipeline",
    default_args={"owner": "maria"},
) as pipeline:

    @task
    def numbers(params=None):
        print("numbers are made")
        return list(range(int(params["size"])))

    @task
    def double(n):
        return 2 * n

    @task
    def total(values):
        return sum(values)

    shout = BashOperator(task_id="shout", bash_command="echo {{ params.mood }} {{ ds }}")
    total(double.expand(n=numbers())) >> shout

with DAG("flaky", schedule=None, start_date=START) as flaky:

    @task(retries=1, retry_delay=datetime.timedelta(seconds=0))
    def second_time():
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("not the first time")
        return "at last"

    second_time()

with DAG("guarded", schedule=None, start_date=START) as guarded:

    @task
    def check():
        if Variable.get("mended", default="no") != "yes":
            raise ValueError("it is not mended")

    @task
    def after():
        return "after"

    check() >> after()

with DAG("long", schedule=None, start_date=START) as long:
    first = BashOperator(task_id="first", bash_command="sleep 120")
    first >> BashOperator(task_id="then", bash_command="true")

with DAG("daily", schedule="@daily", start_date=START, catchup=False) as daily:
    BashOperator(task_id="say", bash_command="echo {{ ds }}")

with DAG("makes_orders", schedule=None, start_date=START) as makes_orders:

    @task(outlets=[ORDERS])
    def make(outlet_events=None):
        outlet_events[ORDERS].extra = {"rows": 7}

    make()

with DAG("reads_orders", schedule=[ORDERS], start_date=START) as reads_orders:

    @task
    def read(triggering_asset_events=None):
        return [e.extra for events in triggering_asset_events.values() for e in events]

    read()

with DAG("people", schedule=None, start_date=START) as people:
    approve = ApprovalOperator(task_id="approve", subject="May it go on?", body="It is *late*.")
    details = HITLEntryOperator(
        task_id="details", subject="How many?", params={"count": Param(1, type="integer")}
    )
    branch = HITLBranchOperator(task_id="branch", subject="Where to?", options=["left", "right"])
    approve >> details >> branch >> [
        BashOperator(task_id="left", bash_command="true"),
        BashOperator(task_id="right", bash_command="true"),
    ]

with DAG("asks_ann", schedule=None, start_date=START) as asks_ann:
    ApprovalOperator(
        task_id="approve", subject="Ann?", assigned_users={"id": "ann", "name": "Ann"}
    )

with DAG("no_pool", schedule=None, start_date=START) as no_pool:
    PythonOperator(task_id="never", python_callable=print, pool="nowhere")
