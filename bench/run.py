"""Measures Kobza and its peers on the same work, in one run, and prints a table.

    BENCH=quick|full ROWS="..." python3 bench/run.py target/release/kobza

ROWS chooses by words: workloads (chain, fan200, fan1000, light, heavy, three, trigger, throughput,
runs100, memory, start, install), systems (kobza-yaml, kobza-python, ..., airflow, prefect, dagster, luigi),
and rows of Kobza alone (core, size, processes, latency, starts, idle, cron, followers, logs, million,
postgres, luigi-calls, argo, machine). Workloads and systems together mean these workloads on these systems; all when
absent. Each workload's physical floor is measured in the same run. Peers live in virtual environments of
their own, made once. Results also go to target/bench.json. Standard library only; nothing is asserted
about speed.
"""

from __future__ import annotations

import os
import sys
import time
import traceback

import workloads
from footprint import FOOTPRINT, footprint
from ours import argo, core, luigi_calls, scale
from ours.luigi import KobzaLuigi
from ours.sides import SIDES
from peers.airflow import Airflow
from peers.dagster import Dagster, DagsterInProcess
from peers.luigi import Luigi
from peers.prefect import Prefect
from report import Report
from systems import System

#: Kobza alone: the row, what measures it, and whether BENCH=quick leaves it out.
ALONE = {
    "machine": (core.machine, False),
    "size": (core.size, False),
    "idle": (core.idle, False),
    "core": (core.core, False),
    "processes": (core.processes, False),
    "latency": (core.latency, False),
    "starts": (core.starts, False),
    "cron": (scale.cron, True),
    "followers": (scale.follow, False),
    "logs": (scale.logs, False),
    "million": (scale.million, True),
    "postgres": (scale.postgres, False),
    "luigi-calls": (luigi_calls.calls, False),
    "argo": (argo.workflows, False),
}
SYSTEMS: list[type[System]] = [*SIDES, KobzaLuigi, Airflow, Prefect, Dagster, DagsterInProcess, Luigi]


def chosen(words: set[str], known: list[str]) -> set[str]:
    return words & set(known)


def main() -> None:
    kobza = os.path.abspath(sys.argv[1])
    quick = os.environ.get("BENCH") != "full"
    words = {*os.environ.get("ROWS", "").replace(",", " ").split(), *sys.argv[2:]}
    of_workloads = chosen(words, [w.key for w in workloads.ALL] + list(FOOTPRINT))
    of_systems = chosen(words, [s.key for s in SYSTEMS])
    alone = chosen(words, list(ALONE))
    unknown = words - of_workloads - of_systems - alone
    if unknown:
        sys.exit(f"no such row: {', '.join(sorted(unknown))}\n\n{__doc__}")

    report = Report()
    print(f"{report.machine}\n", flush=True)
    for key, (measure, full) in ALONE.items():
        if key in alone or not words and not (quick and full):
            guarded(key, lambda measure=measure: measure(report, kobza, quick))

    if not words or of_workloads or of_systems:
        # What was asked for by name is measured whatever the mode.
        wanted = [w for w in workloads.ALL if w.key in of_workloads or not of_workloads and not (quick and w.full)]
        sizes = [f for f in FOOTPRINT if f in of_workloads or not of_workloads]
        for workload in wanted:
            workloads.floor(workload, report)
        for system in SYSTEMS:
            if system.key in of_systems or not of_systems and not (quick and system.full):
                guarded(system.key, lambda system=system: one_system(system(kobza), wanted, sizes, report, quick))
    report.table()
    report.keep()


def one_system(system: System, wanted: list[workloads.Workload], sizes: list[str], report: Report, quick: bool) -> None:
    system.install()
    sizes = sizes if system.own_footprint else []
    try:
        footprint(system, sizes, report, quick)
        system.start()
        if "memory" in sizes:
            report.note("idle memory of all processes (proportional)", system.name, "MiB", [idle(system, quick)])
        for workload in wanted:
            guarded(f"{system.key} {workload.key}",
                    lambda workload=workload: workloads.measure(workload, system, report, 60 if quick else 240))
    finally:
        system.stop()


def idle(system: System, quick: bool) -> float:
    time.sleep(10 if quick else 60)
    return system.memory()


def guarded(what: str, work) -> None:
    """One that fails is told, and does not end the others."""
    try:
        work()
    except Exception:
        print(f"{what}: not measured\n{traceback.format_exc(limit=-3)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
