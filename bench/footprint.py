"""What a system costs before it does anything: its installation, its start."""

from __future__ import annotations

from report import Report
from systems import System

#: These, and `memory`, which is read from the server that then does the work.
FOOTPRINT = ("install", "start", "memory")


def footprint(system: System, sizes: list[str], report: Report, quick: bool) -> None:
    if "install" in sizes:
        seconds, mib = system.installed()
        if seconds is not None:
            report.note("installation", system.name, "s", [seconds])
        if mib is not None:
            report.note("size when installed", system.name, "MiB", [mib])
    if "start" in sizes:
        times = []
        for _ in range(1 if quick else 3):
            fresh = type(system)(system.kobza)
            fresh.install()
            try:
                fresh.start()
                if fresh.healthy_after is not None:
                    times.append(fresh.healthy_after)
            finally:
                fresh.stop()
        if times:
            report.note("start to healthy", system.name, "s", times)
