"""What the installed Airflow's timetables answer, as JSON lines: one case a line.

    python timetables.py [--seed N] [--cases N] FILE

Instants are microseconds since 1970. The present is frozen at each question.
"""

import argparse
import calendar
import datetime
import json
import random
import sys
import time
import types

import pendulum
from croniter import croniter
from dateutil import relativedelta as rd

from airflow._shared.timezones import timezone as tz
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import (
    Asset,
    AssetAlias,
    AssetAll,
    AssetAny,
    CronDataIntervalTimetable,
    CronPartitionTimetable,
    CronTriggerTimetable,
    DeltaDataIntervalTimetable,
    DeltaTriggerTimetable,
    MultipleCronTriggerTimetable,
)
from airflow.sdk.definitions.timetables.assets import (
    AssetOrTimeSchedule,
    AssetTriggeredTimetable,
    PartitionedAssetTimetable,
    PartitionedAtRuntime,
)
from airflow.sdk.definitions.timetables.simple import ContinuousTimetable, NullTimetable, OnceTimetable
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables import interval as interval_module
from airflow.timetables import trigger as trigger_module
from airflow.timetables.events import EventsTimetable  # the SDK's own is not read back by 3.3.2
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.utils.types import DagRunType

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
MICRO = datetime.timedelta(microseconds=1)
ZONES = [
    "UTC",
    "Europe/Kyiv",
    "Europe/London",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Havana",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Pacific/Apia",
    "Pacific/Chatham",
    pendulum.FixedTimezone(19800),
    pendulum.FixedTimezone(-12600),
]
# Instants near which clocks jump, in some zone above.
JUMPS = [
    (2023, 3, 12, 7), (2023, 11, 5, 6), (2024, 3, 10, 7), (2024, 11, 3, 6), (2025, 3, 9, 7),
    (2023, 3, 26, 1), (2023, 10, 29, 1), (2024, 3, 31, 1), (2024, 10, 27, 1), (2026, 10, 25, 1),
    (2018, 2, 18, 2), (2018, 11, 4, 3), (2023, 4, 1, 15), (2023, 9, 30, 15), (2011, 12, 30, 10),
    (2024, 3, 10, 5), (2024, 11, 3, 5), (2024, 4, 14, 2), (2024, 3, 30, 22), (2024, 4, 6, 14),
]
CRONS = [
    "* * * * *", "*/5 * * * *", "0 * * * *", "30 * * * *", "15,45 * * * *", "*/7 * * * *",
    "0 */2 * * *", "0 */3 * * *", "30 1 * * *", "30 2 * * *", "0 2 * * *", "0 3 * * *", "59 1 * * *",
    "0 0 * * *", "0 0 * * 0", "0 0 1 * *", "0 0 1 1 *", "0 0 1 */3 *", "0 12 * * MON-FRI",
    "0 0 * * 5#2", "0 6 * * L5", "0 0 L * *", "30 23 L 2 *", "0 0 29 2 *", "0 0 13 * 5", "0 0 1,15 * 1",
    "0 0 15W * *", "0 0 1W * *", "0 0 31 * *", "0 0 30,31 * *", "0-30/10 8-18 * * *", "5/20 * * * *",
    "0 22-2 * * *", "0 0 * nov-feb *", "0 0 * * sat-mon", "0 0 * * 5-7", "0 0 * * 7", "0 0 * * 0-7",
    "0 0 ? * *", "0 0 */1 * 1", "0 0 1-31 * */2", "59/15 * * * *", "5-5 0 * * *", "0 0 * * mon#1,fri#3",
    "* * * * * */20", "0 0 * * * 30", "30 2 * * * 15,45", "0 */1 * * *", "0 0-23 * * *", "*,5 * * * *",
    "0 *,3 * * *", "0 0 31 4 1", "0 0 1 1 * 0 2026-2030", "0 0 1 1 * 0 */2", "0 0 L,10 * *", "0 0 10-L/5 * *",
]
KINDS = {
    "CronTrigger", "CronDataInterval", "DeltaTrigger", "DeltaDataInterval", "MultipleCron", "Events",
    "CronPartition", "Once", "Continuous", "AssetOrTime",
}


def micros(at):
    if at is None:
        return None
    # Not by subtraction: pendulum's intervals are not Python's.
    utc = at.astimezone(datetime.timezone.utc)
    return calendar.timegm(utc.timetuple()) * 10**6 + utc.microsecond


def instant(value):
    return pendulum.instance(EPOCH + value * MICRO).in_timezone("UTC")


def freeze(value):
    """Makes the present this instant, for all that reads it in the timetables' modules."""
    now = EPOCH + value * MICRO
    now = datetime.datetime(
        now.year, now.month, now.day, now.hour, now.minute, now.second, now.microsecond, tzinfo=tz.utc
    )
    tz.utcnow = trigger_module.utcnow = interval_module.utcnow = lambda: now
    trigger_module.time = types.SimpleNamespace(time=lambda: value / 1e6)


def shown(info):
    if info is None:
        return None
    data = info.data_interval
    return {
        "run_after": micros(info.run_after),
        "start": micros(data.start) if data else None,
        "end": micros(data.end) if data else None,
        "logical_date": micros(info.logical_date),
        "partition_date": micros(info.partition_date),
        "partition_key": info.partition_key,
    }


def answer(function):
    try:
        return {"value": function()}
    except Exception as error:  # Airflow's scheduler logs it, whatever it is, and goes on
        return {"error": f"{type(error).__name__}: {error}"[:200]}


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def some_instant(self):
        roll = self.random.random()
        if roll < 0.6:
            year, month, day, hour = self.random.choice(JUMPS)
            at = datetime.datetime(year, month, day, hour, tzinfo=datetime.timezone.utc)
            at += datetime.timedelta(minutes=self.random.randint(-72 * 60, 72 * 60))
        else:
            at = datetime.datetime(2015, 1, 1, tzinfo=datetime.timezone.utc)
            at += datetime.timedelta(minutes=self.random.randint(0, 15 * 365 * 24 * 60))
        value = micros(at)
        if self.random.random() < 0.3:
            value += self.random.randint(0, 59_999_999)
        elif self.random.random() < 0.3:
            value -= value % 3_600_000_000
        return value

    def near(self, value):
        span = self.random.choice([3600, 86_400, 10 * 86_400, 200 * 86_400])
        return value + self.random.randint(-span * 10**6, span * 10**6)

    def interval(self):
        return self.random.choice([
            datetime.timedelta(),
            datetime.timedelta(),
            datetime.timedelta(hours=1),
            datetime.timedelta(days=1),
            datetime.timedelta(seconds=self.random.randint(1, 10**6), microseconds=self.random.randint(0, 999_999)),
            rd.relativedelta(months=1),
            rd.relativedelta(days=1, hours=3),
        ])

    def delta(self):
        choice = self.random.choice
        return choice([
            datetime.timedelta(minutes=choice([1, 5, 7, 30, 90])),
            datetime.timedelta(hours=choice([1, 2, 3, 5, 12])),
            datetime.timedelta(days=choice([1, 2, 7, 30])),
            datetime.timedelta(seconds=self.random.randint(1, 10**6), microseconds=self.random.randint(0, 999_999)),
            datetime.timedelta(milliseconds=choice([100, 250, 333])),
            rd.relativedelta(months=choice([1, 2, 3, 6, 13])),
            rd.relativedelta(years=1),
            rd.relativedelta(months=1, days=-1),
            rd.relativedelta(days=choice([1, 3]), hours=choice([0, 5])),
            rd.relativedelta(hours=36, minutes=90, seconds=4000, microseconds=2_500_000),
            rd.relativedelta(weeks=2),
            rd.relativedelta(months=1, day=31),
            rd.relativedelta(months=1, day=1, hour=6),
            rd.relativedelta(days=1, weekday=rd.FR),
            rd.relativedelta(days=1, weekday=rd.MO(2)),
            rd.relativedelta(months=1, day=31, weekday=rd.FR(-1)),
            rd.relativedelta(years=1, month=2, day=29),
            rd.relativedelta(years=1, leapdays=1, month=3, day=1),
            rd.relativedelta(days=0.5),
            rd.relativedelta(hours=1.25),
        ])

    def run_immediately(self):
        return self.random.choice([
            True, False, None, datetime.timedelta(minutes=self.random.choice([1, 10, 300])),
        ])

    def timetable(self, kind):
        zone = self.random.choice(ZONES)
        cron = self.random.choice(CRONS)
        match kind:
            case "CronTrigger":
                return CronTriggerTimetable(
                    cron, timezone=zone, interval=self.interval(), run_immediately=self.run_immediately()
                )
            case "CronDataInterval":
                return CronDataIntervalTimetable(cron, timezone=zone)
            case "DeltaTrigger":
                return DeltaTriggerTimetable(self.delta(), interval=self.interval())
            case "DeltaDataInterval":
                return DeltaDataIntervalTimetable(self.delta())
            case "MultipleCron":
                crons = self.random.sample(CRONS, self.random.randint(1, 4))
                return MultipleCronTriggerTimetable(
                    *crons, timezone=zone, interval=self.interval(), run_immediately=self.run_immediately()
                )
            case "Events":
                first = self.some_instant()
                dates = [instant(self.near(first)).in_timezone(zone) for _ in range(self.random.randint(0, 12))]
                return EventsTimetable(
                    dates,
                    restrict_to_events=self.random.random() < 0.5,
                    presorted=self.random.random() < 0.1,
                    description=self.random.choice([None, "events"]),
                )
            case "CronPartition":
                return CronPartitionTimetable(
                    cron,
                    timezone=zone,
                    run_offset=self.random.choice([None, 0, 1, -1, 3, -5]),
                    run_immediately=self.run_immediately(),
                    key_format=self.random.choice([
                        "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d", "%Y%m%d %H%M%S.%f", "%G-W%V-%u", "%j/%y %a %b %p%I %% %z",
                        "%A %B %e|%U %W %w", "%c", "%x %X %D %T %R %F",
                    ]),
                )
            case "Once":
                return OnceTimetable()
            case "Continuous":
                return ContinuousTimetable()
            case "AssetOrTime":
                inner = self.timetable(self.random.choice(sorted(KINDS - {"AssetOrTime", "Continuous"})))
                return AssetOrTimeSchedule(timetable=inner, assets=Asset("a") | Asset("b", uri="s3://b/c"))
        raise ValueError(kind)

    def restriction(self, near, catchup=None):
        maybe = lambda: self.near(near) if self.random.random() < 0.6 else None
        latest = self.near(near) if self.random.random() < 0.2 else None
        catchup = self.random.random() < 0.5 if catchup is None else catchup
        return {"earliest": maybe(), "latest": latest, "catchup": catchup}

    def walk(self, kind, length):
        """The answers to a scheduler that asks again after each run."""
        encoded = encoded_timetable(self.timetable(kind))
        timetable = decode_timetable(encoded)
        now = self.some_instant()
        restriction = self.restriction(now)
        last = None
        steps = []
        if self.random.random() < 0.2 and kind not in ("Once", "CronPartition"):
            end = self.near(now)
            start = end - self.random.choice([0, 3600 * 10**6, self.random.randint(0, 10**12)])
            last = DagRunInfo.interval(instant(start), instant(end))
        for _ in range(length):
            freeze(now)
            given = TimeRestriction(
                *(None if restriction[k] is None else instant(restriction[k]) for k in ("earliest", "latest")),
                restriction["catchup"],
            )
            result = answer(lambda: timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=given))
            info = result.get("value")
            step = {"now": now, "last": shown(last)}
            step["answer"] = {"value": shown(info)} if "value" in result else result
            steps.append(step)
            if info is None:
                break
            last = info
            # The scheduler is in time, late by a little or by much, or asks early.
            late = self.random.choice([0, 0, 1, 10**6, 3600 * 10**6, 86_400 * 10**6, 20 * 86_400 * 10**6, -60 * 10**6])
            now = max(now, micros(info.run_after)) + late
        return {"kind": "walk", "timetable": encoded, "restriction": restriction, "steps": steps}

    def manual(self, kind, count):
        encoded = encoded_timetable(self.timetable(kind))
        timetable = decode_timetable(encoded)
        cases = []
        for _ in range(count):
            at = self.some_instant()
            result = answer(lambda: timetable.infer_manual_data_interval(run_after=instant(at)))
            if "value" in result:
                result["value"] = [micros(result["value"].start), micros(result["value"].end)]
            cases.append({"at": at, "answer": result})
        return {"kind": "manual", "timetable": encoded, "cases": cases}

    def run_ids(self, kind):
        encoded = encoded_timetable(self.timetable(kind))
        timetable = decode_timetable(encoded)
        cases = []
        for run_type in DagRunType:
            at = self.some_instant()
            offset = self.random.choice([0, 0, 7200, -12600, 3723])
            zone = "UTC" if offset == 0 else pendulum.FixedTimezone(offset)
            run_after = instant(at).in_timezone(zone)
            key = self.random.choice([None, "2026-01-01"]) if kind == "CronPartition" else None
            trigger_module.get_random_string = lambda: "RANDOM12"
            run_id = timetable.generate_run_id(
                run_type=run_type, run_after=run_after, data_interval=None, **({"partition_key": key} if key else {})
            )
            cases.append({
                "type": run_type.value, "run_after": at, "offset": offset, "partition_key": key, "run_id": run_id,
            })
        return {"kind": "run_id", "timetable": encoded, "cases": cases}

    def partitions(self):
        encoded = encoded_timetable(self.timetable("CronPartition"))
        timetable = decode_timetable(encoded)
        earliest = self.some_instant()
        latest = earliest + self.random.randint(0, 3 * 86_400 * 10**6)
        freeze(earliest)

        def listed():
            infos = timetable.iter_partition_dagrun_infos(earliest=instant(earliest), latest=instant(latest))
            return [shown(info) for info, _ in zip(infos, range(50))]

        result = answer(listed)
        dates = []
        for info in result.get("value", [])[:3]:
            date = answer(lambda: timetable.resolve_partition_date(info["partition_key"]))
            dates.append({"value": micros(date["value"])} if "value" in date else date)
        return {
            "kind": "partitions", "timetable": encoded, "earliest": earliest, "latest": latest,
            "answer": result, "dates": dates,
        }

    def field(self, low, high, names=()):
        value = lambda: str(self.random.choice(list(names) or [0]) if names and self.random.random() < 0.3
                            else self.random.randint(low, high + (1 if self.random.random() < 0.03 else 0)))
        roll = self.random.random()
        step = lambda: f"/{self.random.randint(1, max(2, high // 2))}" if self.random.random() < 0.4 else ""
        if roll < 0.3:
            return "*" + step()
        if roll < 0.55:
            return value() + step()
        if roll < 0.75:
            return f"{value()}-{value()}{step()}"
        return ",".join(self.field(low, high, names) for _ in range(self.random.randint(2, 3)))

    def pattern(self):
        months = ["jan", "Feb", "MAR", "apr", "dec"]
        days = ["sun", "Mon", "tue", "FRI", "sat"]
        # Most fields as they are usually written, so that the odd ones are met by times.
        plain = lambda text, odd: text if self.random.random() < 0.6 else odd
        month_day = plain("*", self.field(1, 31))
        if self.random.random() < 0.1:
            month_day = self.random.choice(["L", "l,5", "15W", "w3", "31W", "10-L", "?", "1W,2", "L-3", "LW"])
        week_day = plain("*", self.field(0, 7, days))
        if self.random.random() < 0.15:
            week_day = self.random.choice([
                "5#1", "mon#5", "L5", "l0", "fri#2,tue#4", "mon-wed#2", "1-3#2", "?", "5L", "fri#6", "5,6#1", "*,5#2",
                "7#1", "sun-sat", "fri-mon", "5-5", "6/2",
            ])
        fields = [
            plain("0", self.field(0, 59)), plain("*", self.field(0, 23)), month_day,
            plain("*", self.field(1, 12, months)), week_day,
        ]
        if self.random.random() < 0.2:
            fields.append(self.field(0, 59))
            if self.random.random() < 0.3:
                fields.append(self.random.choice(["*", "2020-2040", "*/2", "2024", "2030,2028", "1970-2099"]))
        if self.random.random() < 0.05:
            fields[self.random.randrange(len(fields))] = self.random.choice([
                "", "x", "-5", "5-", "/5", "*/0", "*/", "5/x", "h", "H/5", "1-2-3", "1/2/3", "99", "*-5", "1,,2", "+1",
            ])
        return " ".join(fields)

    def cron(self, text, count):
        """What a pattern means, with nothing of Airflow or zones around it."""
        made = answer(lambda: croniter(text, datetime.datetime(2020, 1, 1)) and None)
        if "error" in made:
            return {"kind": "cron", "text": text, "answer": made}
        cases = []
        for _ in range(count):
            at = datetime.datetime(1995, 1, 1) + datetime.timedelta(seconds=self.random.randint(0, 45 * 365 * 86_400))
            if self.random.random() < 0.2:
                at = at.replace(day=1, hour=0, minute=0, second=0)
            if self.random.random() < 0.2:
                at = at.replace(microsecond=self.random.randint(0, 999_999))
            case = {"at": at.isoformat()}
            for name in ("get_next", "get_prev"):
                result = answer(lambda: getattr(croniter(text, at), name)(datetime.datetime).isoformat())
                case[name] = result
            cases.append(case)
        return {"kind": "cron", "text": text, "answer": made, "cases": cases}

    def retry(self):
        task = types.SimpleNamespace(
            retry_delay=self.random.choice([
                datetime.timedelta(0), datetime.timedelta(seconds=5), datetime.timedelta(minutes=5),
                datetime.timedelta(milliseconds=300), datetime.timedelta(hours=30),
            ]),
            retry_exponential_backoff=self.random.choice([0, 0, 1.0, 2.0, 2, 1.5, 3, 0.5, True, -1]),
            max_retry_delay=self.random.choice([
                None, None, datetime.timedelta(seconds=90), datetime.timedelta(hours=1), datetime.timedelta(0),
            ]),
        )
        logical_date = instant(self.some_instant()) if self.random.random() < 0.8 else None
        end = self.some_instant()
        instance = types.SimpleNamespace(
            retry_delay_override=None, end_date=instant(end), task=task, dag_id=self.random.choice(["d", "ДАГ", "a.b"]),
            task_id=self.random.choice(["t", "group.task"]), logical_date=logical_date,
            try_number=self.random.choice([1, 2, 3, 4, 5, 8, 20, 60, 1100]),
            log=types.SimpleNamespace(warning=lambda *_: None),
        )
        at = TaskInstance.next_retry_datetime(instance)
        return {
            "kind": "retry", "delay": task.retry_delay // MICRO, "backoff": float(task.retry_exponential_backoff),
            "max_delay": None if task.max_retry_delay is None else task.max_retry_delay // MICRO,
            "dag_id": instance.dag_id, "task_id": instance.task_id, "logical_date": micros(logical_date),
            "try_number": instance.try_number, "wait": micros(at) - end,
        }


def encoded_timetable(timetable):
    return json.loads(json.dumps(encode_timetable(timetable)))


def assets():
    """Timetables of assets, and those that never run by themselves."""
    one, two = Asset("one"), Asset("two", uri="file:///two", group="g", extra={"x": [1]})
    for timetable in [
        NullTimetable(),
        PartitionedAtRuntime(),
        AssetTriggeredTimetable(AssetAll(one, two)),
        AssetTriggeredTimetable(AssetAny(one, AssetAll(two, AssetAlias("alias")))),
        AssetTriggeredTimetable(Asset.ref(name="elsewhere") | Asset.ref(uri="file:///elsewhere")),
        PartitionedAssetTimetable(assets=one & two),
    ]:
        encoded = encoded_timetable(timetable)
        core = decode_timetable(encoded)
        names = sorted(key.name for key, _ in core.asset_condition.iter_assets())
        yield {"kind": "assets", "timetable": encoded, "assets": names, "scheduled": core.can_be_scheduled}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=3000)
    # Not to the standard output: Airflow's log goes there.
    parser.add_argument("file", type=argparse.FileType("w"))
    options = parser.parse_args()
    maker = Maker(options.seed)

    def cases():
        kinds = sorted(KINDS)
        yield from assets()
        for text in CRONS + ["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "@annually", "@midnight", "@quarterl"]:
            yield maker.cron(text, 20)
        left = options.cases
        for number in range(left):
            kind = kinds[number % len(kinds)]
            roll = number // len(kinds) % 10
            if roll < 5:
                yield maker.walk(kind, 12 if roll else 60)
            elif roll == 5:
                yield maker.manual(kind, 8)
            elif roll == 6:
                yield maker.run_ids(kind)
            elif roll == 7:
                yield maker.partitions()
            elif roll == 8:
                yield maker.cron(maker.pattern(), 6)
            else:
                yield maker.retry()

    for case in cases():
        print(json.dumps(case), file=options.file)


if __name__ == "__main__":
    sys.exit(main())
