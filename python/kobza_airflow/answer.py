"""What only the user's own classes know: custom timetables, weight rules and partition mappers.

Runs in a child of the process that reads DAG files (see :mod:`kobza_airflow.parse`), one for each question.
Instants travel as ISO 8601 texts.
"""

from __future__ import annotations

import datetime
from typing import Any

#: Runs that one question about a range may answer with.
BETWEEN_MAX = 100_001


def answer(request: dict[str, Any]) -> Any:
    """The answer to a request of :data:`QUESTIONS`, as JSON."""
    return QUESTIONS[request["op"]](request)


def _instant(text: str | None) -> Any:
    from airflow._shared.timezones import timezone

    return None if text is None else timezone.coerce_datetime(datetime.datetime.fromisoformat(text))


def _text(at: datetime.datetime | None) -> str | None:
    return None if at is None else at.astimezone(datetime.UTC).isoformat()


def _info(given: dict[str, Any] | None) -> Any:
    from airflow.timetables.base import DagRunInfo, DataInterval

    if given is None:
        return None
    interval = given.get("interval")
    return DagRunInfo(
        run_after=_instant(given["run_after"]),
        data_interval=DataInterval(*map(_instant, interval)) if interval else None,
        partition_date=_instant(given.get("partition_date")),
        partition_key=given.get("partition_key"),
    )


def _told(info: Any) -> dict[str, Any] | None:
    if info is None:
        return None
    interval = info.data_interval
    return {
        "run_after": _text(info.run_after),
        "interval": None if interval is None else [_text(interval.start), _text(interval.end)],
        "partition_date": _text(info.partition_date),
        "partition_key": info.partition_key,
    }


def _timetable(request: dict[str, Any]) -> Any:
    from airflow.serialization.decoders import decode_timetable

    return decode_timetable(request["timetable"])


def _restriction(request: dict[str, Any]) -> Any:
    from airflow.timetables.base import TimeRestriction

    return TimeRestriction(
        earliest=_instant(request["earliest"]),
        latest=_instant(request["latest"]),
        catchup=request["catchup"],
    )


def _next(request: dict[str, Any]) -> Any:
    timetable = _timetable(request)
    info = timetable.next_dagrun_info_v2(
        last_dagrun_info=_info(request["last"]), restriction=_restriction(request)
    )
    told = _told(info)
    if told is not None:
        told["run_id"] = _run_id_of(timetable, info, "scheduled")
    return told


def _run_id_of(timetable: Any, info: Any, run_type: str) -> str:
    from airflow.utils.types import DagRunType

    return timetable.generate_run_id(
        run_type=DagRunType(run_type),
        run_after=info.run_after,
        data_interval=info.data_interval,
        partition_key=info.partition_key,
    )


def _manual(request: dict[str, Any]) -> Any:
    interval = _timetable(request).infer_manual_data_interval(run_after=_instant(request["at"]))
    return [_text(interval.start), _text(interval.end)]


def _between(request: dict[str, Any]) -> Any:
    timetable = _timetable(request)
    if not timetable.periodic:
        return None
    earliest, latest = _instant(request["earliest"]), _instant(request["latest"])
    if timetable.partitioned:
        found = list(timetable.iter_partition_dagrun_infos(earliest=earliest, latest=latest))
        return [_told(info) for info in found]
    restriction = _restriction({**request, "catchup": True})
    found, info = [], None
    while len(found) < BETWEEN_MAX:
        info = timetable.next_dagrun_info_v2(last_dagrun_info=info, restriction=restriction)
        if info is None:
            break
        found.append(_told(info))
    return found


def _weights(request: dict[str, Any]) -> Any:
    """What each task with a weight rule of its own weighs at its first try."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.serialization.serialized_objects import DagSerialization

    dag = DagSerialization.from_dict(request["dag"])
    weights = {}
    for task_id in request["tasks"]:
        task = dag.get_task(task_id)
        instance = TaskInstance(task=task, run_id="manual__weights", map_index=-1, dag_version_id=None)
        weights[task_id] = int(task.weight_rule.get_weight(instance))
    return weights


def _partition(request: dict[str, Any]) -> Any:
    """Which partitions of a DAG an update of an asset's partition belongs to, and which of those are
    complete with it. ``held`` has the keys that came before, by partition and asset."""
    from airflow.configuration import conf
    from airflow.partition_mappers.base import is_rollup

    timetable = _timetable(request)
    name, uri, key = request["name"], request["uri"], request["key"]
    mapper = timetable.get_partition_mapper(name=name, uri=uri)
    targets = mapper.to_downstream(key)
    targets = [targets] if isinstance(targets, str) else list(targets)
    most = mapper.max_downstream_keys
    if most is None:
        most = conf.getint("scheduler", "partition_mapper_max_downstream_keys")
    if len(targets) > most:
        raise ValueError(f"the partition {key!r} maps to {len(targets)} partitions, more than {most}")
    carried = mapper.carry_partition_date(_instant(request.get("partition_date")))
    names = request["names"]
    found = []
    for target in targets:
        held = {asset: set(keys) for asset, keys in request["held"].get(target, {}).items()}
        held.setdefault(uri, set()).add(key)
        complete = set()
        for asset, keys in held.items():
            own = timetable.get_partition_mapper(name=names.get(asset, asset), uri=asset)
            if not is_rollup(own):
                complete.add(asset)
                continue
            wanted = own.to_upstream(target)
            if own.wait_policy.is_satisfied_by_keys(matched=keys, expected=wanted).satisfied:
                complete.add(asset)
        dates = {
            own
            for asset in held
            if (
                own := timetable.get_partition_mapper(
                    name=names.get(asset, asset), uri=asset
                ).to_partition_date(target)
            )
            is not None
        }
        date = carried if not dates else dates.pop() if len(dates) == 1 else None
        found.append({"key": target, "complete": sorted(complete), "date": _text(date)})
    return found


QUESTIONS = {
    "next": _next,
    "manual": _manual,
    "between": _between,
    "weights": _weights,
    "partition": _partition,
}
