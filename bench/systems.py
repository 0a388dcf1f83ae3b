"""What a system is to the bench, and how runs of those that have an API are timed."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path

import process

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


class System:
    #: How it is chosen on the command line, and what it is called in the table.
    key = ""
    name = ""
    #: Left out with BENCH=quick.
    full = False
    #: Whether its installation, start and idle memory are its own figures.
    own_footprint = True

    def __init__(self, kobza: str) -> None:
        self.kobza = kobza
        self.processes: list[subprocess.Popen] = []
        #: Seconds from the start of the first process until it was healthy.
        self.healthy_after: float | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name)
        #: Where a body writes the time of its first line.
        self.first = self.folder / "first"

    def install(self) -> None:
        """Makes what it needs, once: its virtual environment."""

    def installed(self) -> tuple[float | None, float | None]:
        """Seconds that the installation took, and its size in MiB."""
        return None, None

    def start(self) -> None:
        """Until it is healthy."""

    def stop(self) -> None:
        for one in reversed(self.processes):
            process.stop(one)
        self.processes.clear()
        self._folder.cleanup()

    def spawn(self, command: list[str | Path], environment: dict[str, str] | None = None) -> subprocess.Popen:
        own = {"BENCH_FIRST": str(self.first), **(environment or {})}
        started = process.start(command, self.folder / f"{Path(command[0]).name}.log", own, self.folder)
        self.processes.append(started)
        return started

    def log(self) -> str:
        """The ends of what its processes wrote, for the message of a failure."""
        return "\n".join(f"{path}: {path.read_text(errors='replace')[-1500:]}" for path in self.folder.glob("*.log"))

    def memory(self) -> float:
        return process.pss_mib([pid for one in self.processes for pid in process.tree(one.pid)])

    def written(self, began: float) -> float:
        """Seconds until the body's first line, which wrote its time."""
        text = process.until(lambda: self.first.exists() and self.first.read_text().strip(), "the first line")
        self.first.unlink()
        return float(str(text)) - began


class Peer(System):
    """Another system, in a virtual environment of its own."""

    packages: list[str] = []
    #: The name of its virtual environment, where that is another system's too.
    place = ""

    def install(self) -> None:
        self.environment, self.seconds = venv(self.place or f"bench-{self.key}", self.packages)

    def installed(self) -> tuple[float | None, float | None]:
        return self.seconds, folder_mib(self.environment)

    def program(self, name: str) -> Path:
        return self.environment / "bin" / name


class ByApi(System):
    """A system whose runs are started by a call and end at a time that it tells."""

    #: Between two looks at a run. The end is the system's own time, so that this adds nothing.
    pause = 0.1
    #: Calls that start runs at once.
    callers = 8

    def start_run(self, workflow: str) -> str:
        raise NotImplementedError

    def ended(self, run: str) -> float | None:
        """When it ended, in Unix seconds; an error unless it succeeded."""
        raise NotImplementedError

    def run(self, workflow: str) -> float:
        began = time.time()
        run = self.start_run(workflow)
        return float(str(process.until(lambda: self.ended(run), workflow, 1800, self.pause))) - began

    def runs(self, workflow: str, count: int) -> float:
        began = time.time()
        with concurrent.futures.ThreadPoolExecutor(self.callers) as callers:
            started = list(callers.map(lambda _: self.start_run(workflow), range(count)))
        ends = [process.until(lambda run=run: self.ended(run), workflow, 1800, self.pause) for run in started]
        return max(map(float, map(str, ends))) - began

    # The workloads: each a definition of that name.
    def chain(self, length: int) -> float:
        return self.run(f"chain{length}")

    def fan(self, width: int) -> float:
        return self.run(f"fan{width}")

    def light(self) -> float:
        return self.run("light")

    def heavy(self) -> float:
        return self.run("heavy")

    def three(self) -> float:
        return self.run("three")

    def throughput(self, count: int) -> float:
        return self.runs("three", count)

    def at_once(self, count: int) -> float:
        return self.runs("chain5", count)

    def trigger(self) -> float:
        began = time.time()
        run = self.start_run("first")
        took = self.written(began)
        process.until(lambda: self.ended(run), "first", 600, self.pause)
        return took


def instant(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def venv(name: str, packages: list[str]) -> tuple[Path, float | None]:
    """A cached virtual environment of these packages, and the seconds that installing them took.

    The same cache as the tests': `tests/venv` makes it.
    """
    quoted = " ".join(f"'{package}'" for package in packages)
    began = time.perf_counter()
    made = subprocess.run(["bash", "-c", f". tests/venv; venv {name} {quoted}"], cwd=ROOT, check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()
    took = time.perf_counter() - began
    record = Path(made, ".seconds")
    # A cached one is found within a moment.
    if took > 0.5 or not record.exists():
        record.write_text(str(took) if took > 0.5 else "")
    text = record.read_text()
    return Path(made), float(text) if text else None


def folder_mib(folder: Path) -> float:
    total = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_symlink())
    return total / 2**20
