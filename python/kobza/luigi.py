"""Luigi's targets among Kobza's assets: an optional hook in Luigi's workers.

Luigi's protocol says nothing of targets: a worker tells its scheduler a task's family and
parameters, never what its ``output()`` is. One setting of the workers changes that::

    [worker]
    task_process_context = kobza.luigi.Targets

Each task that succeeds then tells Kobza, over the scheduler's own connection, which targets it made
and which targets of its requirements it made them from. They are assets in the lineage graph, and
workflows of Kobza can be started by them.

A target's address gives the asset's name. Where the address holds the value of one of the task's
parameters, the parameter's name stands in its place and the value is the partition: the target
``/data/orders/2026-03-01.csv`` of ``Orders(day=2026-03-01)`` is the partition ``2026-03-01`` of the
asset ``file:/data/orders/{day}.csv``. So a year of days is one asset, not 365.

A task never fails for this: what goes wrong is a warning in the worker's log. With another scheduler
than Kobza's the hook does nothing.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import luigi
from luigi.task import flatten

logger = logging.getLogger("luigi-interface")

#: What one report may hold.
MAX_TARGETS = 100
MAX_INPUTS = 500
#: Characters of an asset's name and of a partition's.
MAX_NAME = 500

#: How dates are written in addresses, the longest first.
_TIMES = ("%Y-%m-%dT%H%M", "%Y-%m-%dT%H", "%Y-%m-%d/%H", "%Y%m%d%H", "%Y/%m/%d/%H")
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "year=%Y/month=%m/day=%d")


class Targets:
    """Luigi enters this around the run of each task, in the process that runs it."""

    current: Any = None

    def __init__(self, process: Any) -> None:
        self.process = process

    def __enter__(self) -> None:
        Targets.current = self.process

    def __exit__(self, *_: object) -> None:
        Targets.current = None


@luigi.Task.event_handler(luigi.Event.SUCCESS)  # type: ignore[untyped-decorator]
def _succeeded(task: Any) -> None:
    process = Targets.current
    if process is None or process.task is not task:
        return
    try:
        targets = list(_targets(task))
        if len(targets) > MAX_TARGETS:
            logger.warning("Kobza is told of %s targets of %s only", MAX_TARGETS, task)
            targets = targets[:MAX_TARGETS]
        scheduler = process.status_reporter._scheduler
        if not targets or not isinstance(scheduler, luigi.rpc.RemoteScheduler):
            return
        report = {"task_id": task.task_id, "targets": targets, "inputs": _inputs(task)}
        scheduler._request("/api/report_targets", report, attempts=1)
    except Exception as error:
        logger.warning("Kobza was not told of the targets of %s: %s", task, error)


def _targets(task: Any) -> Iterator[dict[str, str | None]]:
    for target in flatten(task.output()):
        address = address_of(target)
        named = name_of(address, task) if address else None
        if named:
            asset, partition = named
            kind = type(target).__name__
            yield {"asset": asset, "partition": partition, "address": address, "kind": kind}


def _inputs(task: Any) -> list[str]:
    """Assets of the targets of what a task requires."""
    found: dict[str, None] = {}
    for upstream in flatten(task.requires()):
        for target in _targets_through(upstream):
            found.setdefault(target)
    return list(found)[:MAX_INPUTS]


def _targets_through(task: Any) -> Iterable[str]:
    """A wrapper has no targets of its own: those of what it wraps stand for it."""
    own = [str(target["asset"]) for target in _targets(task)]
    if own or not isinstance(task, luigi.WrapperTask):
        return own
    return [name for inner in flatten(task.requires()) for name in _targets_through(inner)]


def address_of(target: Any) -> str | None:
    """Where a target is, as a URL where its kind is known."""
    for name in ("uri", "url"):
        value = getattr(target, name, None)
        if isinstance(value, str) and value:
            return value
    path = getattr(target, "path", None)
    if path is not None and str(path):
        path = str(path)
        if "://" in path:
            return path
        if isinstance(target, luigi.LocalTarget):
            return f"file:{os.path.abspath(path)}"
        return f"{type(target).__name__.removesuffix('Target').lower()}:{path}"
    table = getattr(target, "table", None) or getattr(target, "target_table", None)
    if table:
        parts = (getattr(target, "database", None), table)
        kind = type(target).__name__.removesuffix("Target").lower()
        return f"{kind}:{'/'.join(str(part) for part in parts if part)}"
    return None


def name_of(address: str, task: Any) -> tuple[str, str | None] | None:
    """The asset that an address stands for, and its partition. None if no asset is named so."""
    asset, values = address, []
    for name, parameter in task.get_params():
        if not parameter.significant:
            continue
        value = getattr(task, name)
        for text in _spellings(value, parameter):
            replaced = _without(text, "{" + name + "}", asset, isinstance(value, datetime.date))
            if replaced != asset:
                asset = replaced
                values.append(parameter.serialize(value))
                break
    asset = asset.strip().rstrip("/")
    partition = "|".join(values) or None
    if not _usable(asset) or "\\" in asset or asset.startswith("/"):
        return None
    if partition is not None and not _usable(partition):
        return None
    return asset, partition


def _without(text: str, word: str, address: str, dated: bool) -> str:
    """The address with a word in place of a parameter's text."""
    # 1 is not the 1 of 2021.
    bounded = rf"(?<![0-9A-Za-z]){re.escape(text)}(?![0-9A-Za-z])"
    if dated:
        return re.sub(bounded, word, address)
    # Within a folder's name it says nothing: 1 is not the 1 of `disk-1` either.
    *folders, last = address.split("/")
    folders = [word if f == text else re.sub(f"={re.escape(text)}$", f"={word}", f) for f in folders]
    return "/".join([*folders, re.sub(bounded, word, last)])


def _usable(name: str) -> bool:
    return (
        0 < len(name) <= MAX_NAME
        and name == name.strip()
        and ".." not in name
        and name.isprintable()
    )


def _spellings(value: Any, parameter: Any) -> Iterator[str]:
    if isinstance(value, datetime.datetime):
        yield from (value.strftime(form) for form in _TIMES)
    if isinstance(value, datetime.date):
        yield from (value.strftime(form) for form in _DATES)
    elif isinstance(value, bool) or value is None:
        return
    text = parameter.serialize(value)
    if text:
        yield text
