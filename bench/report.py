"""The figures of one run of the bench: printed as they come, kept in target/bench.json."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "target/bench.json"


class Report:
    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.machine = machine()

    def note(self, workload: str, system: str, unit: str, values: list[float], floor: bool = False) -> None:
        """One figure of one system; a floor is what the machine itself needs for the same work."""
        values = sorted(values)
        row = {
            "workload": workload, "system": system, "unit": unit, "n": len(values),
            "min": values[0], "median": statistics.median(values), "max": values[-1],
            "p99": values[(len(values) - 1) * 99 // 100], "machine": self.machine,
        }
        if floor:
            row["floor"] = True
        self.rows.append(row)
        print(f"{workload:<52} {system:<24} {number(row['median']):>10} {unit:<8} (min {number(row['min'])}, "
              f"max {number(row['max'])}, n {row['n']})", flush=True)

    def lines(self, system: str, output: str) -> None:
        """Figures as kobza-bench prints them: a line of JSON each."""
        for line in output.splitlines():
            figure = json.loads(line)
            self.note(figure["workload"], figure.get("system", system), figure["unit"], figure["values"])

    def keep(self) -> None:
        """Into target/bench.json, in place of older figures of the same workload and system."""
        PLACE.parent.mkdir(exist_ok=True)
        try:
            older = json.loads(PLACE.read_text())
        except (OSError, ValueError):
            older = []
        new = {(row["workload"], row["system"]) for row in self.rows}
        kept = [row for row in older if (row["workload"], row["system"]) not in new]
        PLACE.write_text(json.dumps(kept + self.rows, indent=1) + "\n")

    def table(self) -> None:
        """The comparison: for each workload all medians, and each as a multiple of Kobza's best."""
        print()
        for line in table(self.rows):
            print(line)


def number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def better_is_more(unit: str) -> bool:
    return unit.endswith("/s")


def ours(system: str) -> bool:
    return system.startswith("Kobza")


def groups(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """Rows by workload and unit, the best first, in the order in which workloads first came."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["workload"], row["unit"]), []).append(row)
    for (_, unit), of in found.items():
        of.sort(key=lambda row: row["median"], reverse=better_is_more(unit))
    return found


def table(rows: list[dict]) -> list[str]:
    """Markdown: the ratio says how many times worse than Kobza's best a system is."""
    lines = ["| workload | system | median | min to max (n) | times Kobza's best |", "|---|---|---|---|---|"]
    for (workload, unit), of in groups(rows).items():
        own = [row["median"] for row in of if ours(row["system"]) and row["median"]]
        best = (max(own) if better_is_more(unit) else min(own)) if own else None
        for row in of:
            ratio = ""
            if best and row["median"] and len(of) > 1:
                times = best / row["median"] if better_is_more(unit) else row["median"] / best
                ratio = f"{times:.2g}" if times < 100 else f"{times:,.0f}"
            name = f"*{row['system']}* (floor)" if row.get("floor") else row["system"]
            lines.append(f"| {workload} | {name} | {number(row['median'])} {unit} | "
                         f"{number(row['min'])} to {number(row['max'])} ({row['n']}) | {ratio} |")
    return lines


def machine() -> str:
    """What the figures were taken on, in one line."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "?")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return (f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, "
            f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}, "
            f"{time.strftime('%Y-%m-%d')}, commit {commit.stdout.strip() or '?'}")
