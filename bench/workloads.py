"""The work that every system gets, and how it is measured. A system answers with seconds; each title is
the workload's name in the table.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import floors
from floors import timed
from report import Report


@dataclass(frozen=True)
class Workload:
    key: str
    title: str
    unit: str
    #: Seconds of one repetition, by a system's method of that name and these arguments.
    method: str
    arguments: tuple[int, ...]
    #: From seconds to the unit.
    scale: Callable[[float], float]
    #: Seconds that the machine needs for it, and what that is.
    floor: tuple[str, Callable[[], float]] | None = None
    #: How often at most; slow systems are stopped by the budget of seconds.
    repeats: int = 5
    #: Left out with BENCH=quick.
    full: bool = False


def floor_commit() -> float:
    with tempfile.TemporaryDirectory() as folder:
        store = floors.Commits(folder)
        return timed(store.one)


def floor_light() -> float:
    return timed(lambda: [floors.forked(lambda: floors.fib(10)) for _ in range(40)])


ALL = [
    Workload("chain", "chain of 50 no-op tasks", "ms/task", "chain", (50,), lambda s: s * 1e3 / 50,
             ("fork and synced commit", lambda: floors.fork_and_commit(50))),
    Workload("fan200", "fan-out 1 to 200 to 1, no-ops", "tasks/s", "fan", (200,), lambda s: 202 / s,
             ("fork, 8 at once", lambda: timed(lambda: floors.many_forked(202)))),
    Workload("fan1000", "fan-out 1 to 1,000 to 1, no-ops", "tasks/s", "fan", (1000,), lambda s: 1002 / s,
             ("fork, 8 at once", lambda: timed(lambda: floors.many_forked(1002))), full=True),
    Workload("light", "forty light tasks in a row, fib(10)", "s", "light", (), lambda s: s,
             ("fork and compute", floor_light)),
    Workload("heavy", "ten heavy tasks, fib(33)", "s", "heavy", (), lambda s: s,
             ("pure compute on all cores", lambda: floors.compute(10, 33)), repeats=3),
    Workload("three", "three-step no-op run, call to end", "ms", "three", (), lambda s: s * 1e3,
             ("synced commit", floor_commit), repeats=30),
    Workload("trigger", "call to the body's first line", "ms", "trigger", (), lambda s: s * 1e3,
             ("fork", lambda: timed(lambda: floors.forked(floors.nothing))), repeats=20),
    Workload("throughput", "three-step no-op runs, as many as go", "runs/s", "throughput", (100,), lambda s: 100 / s,
             repeats=3),
    Workload("runs100", "100 runs of a chain of 5 at once", "s", "at_once", (100,), lambda s: s,
             ("fork, 8 at once", lambda: timed(lambda: floors.many_forked(500))), repeats=3, full=True),
]


def measure(workload: Workload, system: Any, report: Report, budget: float) -> None:
    """The first repetition warms up, and counts only where a second would break the budget."""
    method = getattr(system, workload.method, None)
    if method is None:
        return
    values: list[float] = []
    spent = timed(lambda: values.append(method(*workload.arguments)))
    if spent < budget / 3:
        values.clear()
        while len(values) < workload.repeats and spent < budget:
            spent += timed(lambda: values.append(method(*workload.arguments)))
    report.note(workload.title, system.name, workload.unit, [workload.scale(s) for s in values])


def floor(workload: Workload, report: Report) -> None:
    if workload.floor:
        name, work = workload.floor
        values = [work() for _ in range(max(3, workload.repeats))]
        report.note(workload.title, name, workload.unit, [workload.scale(s) for s in values], floor=True)
