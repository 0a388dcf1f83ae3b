"""DAGs that assets, timetables of their own and backfills start."""

from datetime import datetime, timezone

from airflow.sdk import (
    DAG,
    Asset,
    AssetAlias,
    AssetOrTimeSchedule,
    CronTriggerTimetable,
    IdentityMapper,
    PartitionedAssetTimetable,
    PartitionedAtRuntime,
    StartOfDayMapper,
    task,
)

from own import Eighths, Heavy

START = datetime(2024, 1, 1, tzinfo=timezone.utc)
END = datetime(2024, 3, 1, tzinfo=timezone.utc)
ORDERS = Asset("orders", uri="s3://shop/orders")
STOCK = Asset("stock", uri="s3://shop/stock")
SALES = Asset("sales", uri="s3://shop/sales")
HOURLY = Asset("hourly", uri="s3://shop/hourly")


def told(triggering_asset_events, dag_run):
    """What a run is told of the assets that started it."""
    events = []
    for key in triggering_asset_events:
        # One that came by an alias is there under both.
        events += [event for event in triggering_asset_events[key] if event not in events]
    return {
        "type": dag_run.run_type,
        "logical": str(dag_run.logical_date),
        "partition": dag_run.partition_key,
        "date": str(dag_run.partition_date),
        "events": list(
            [event.asset.uri, event.extra, event.source_dag_id, event.source_task_id] for event in events
        ),
    }


with DAG("makes_orders", schedule=None, start_date=START) as makes_orders:

    @task(outlets=[ORDERS])
    def make(*, outlet_events, dag_run):
        outlet_events[ORDERS].extra = {"rows": dag_run.conf.get("rows", 1)}

    make()

with DAG("makes_by_alias", schedule=None, start_date=START) as makes_by_alias:

    @task(outlets=[AssetAlias("daily")])
    def make_alias(*, outlet_events):
        outlet_events[AssetAlias("daily")].add(SALES, extra={"by": "alias"})

    make_alias()


with DAG("makes_by_name", schedule=None, start_date=START) as makes_by_name:

    @task(outlets=[Asset.ref(name="orders")])
    def by_reference():
        pass

    by_reference()


def listener(dag_id, schedule):
    with DAG(dag_id, schedule=schedule, start_date=START, catchup=False) as dag:

        @task
        def tell(triggering_asset_events=None, dag_run=None):
            return told(triggering_asset_events, dag_run)

        tell()
    return dag


both = listener("both", ORDERS & STOCK)
either = listener("either", ORDERS | SALES)
aliased = listener("aliased", AssetAlias("daily"))
by_name = listener("by_name", Asset.ref(name="orders"))
or_time = listener(
    "or_time", AssetOrTimeSchedule(timetable=CronTriggerTimetable("0 0 1 1 *", timezone="UTC"), assets=STOCK)
)

with DAG("makes_hours", schedule=PartitionedAtRuntime(), start_date=START) as makes_hours:

    @task(outlets=[HOURLY])
    def hours():
        pass

    hours()

same = listener(
    "same", PartitionedAssetTimetable(assets=HOURLY, default_partition_mapper=IdentityMapper())
)
days = listener(
    "days", PartitionedAssetTimetable(assets=HOURLY, default_partition_mapper=StartOfDayMapper())
)

with DAG("eighths", schedule=Eighths(step=8), start_date=START, catchup=True, max_active_runs=4) as eighths:

    @task(weight_rule=Heavy())
    def first(data_interval_start=None, data_interval_end=None):
        return [str(data_interval_start), str(data_interval_end)]

    first()

with DAG(
    "daily", schedule="0 0 * * *", start_date=START, end_date=END, catchup=False, max_active_runs=1
) as daily:

    @task
    def day(ti, dag_run, data_interval_start=None):
        if dag_run.conf.get("fail_on") == str(data_interval_start.date()) and ti.try_number == 1:
            raise ValueError("as asked")
        return [dag_run.run_type, dag_run.run_id, dag_run.conf.get("x")]

    day()
