"""Physical floors: what the machine itself needs for the work of a workload, measured in the same run."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from report import Report


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def forked(work: Callable[[], object]) -> None:
    """In a child of its own, which is waited for."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    os.waitpid(child, 0)


def nothing() -> None:
    return None


def many_forked(count: int, at_once: int = 8) -> None:
    alive = 0
    for _ in range(count):
        if alive == at_once:
            os.wait()
            alive -= 1
        if os.fork() == 0:
            os._exit(0)
        alive += 1
    while alive:
        os.wait()
        alive -= 1


class Commits:
    """Synced commits of a small row, as the embedded store makes them."""

    def __init__(self, folder: str) -> None:
        self.store = sqlite3.connect(f"{folder}/floor.db", isolation_level=None)
        self.store.execute("pragma journal_mode = wal")
        self.store.execute("pragma synchronous = full")
        self.store.execute("create table t (id integer primary key, v text)")

    def one(self) -> None:
        self.store.execute("begin")
        self.store.execute("insert into t (v) values ('a row of about a hundred bytes, as a task has it')")
        self.store.execute("commit")


def processes(count: int) -> float:
    """Seconds of `make -j8` for so many goals that run `true`."""
    with tempfile.TemporaryDirectory() as folder:
        goals = " ".join(f"t{i}" for i in range(count))
        Path(folder, "Makefile").write_text(f"all: {goals}\n{goals}:\n\t@/bin/true\n")
        return timed(lambda: subprocess.run(["make", "-s", "-j8", "-C", folder], check=True))


def fork_and_commit(length: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        commits = Commits(folder)

        def chain() -> None:
            for _ in range(length):
                forked(nothing)
                commits.one()

        return timed(chain)


def commits(report: Report, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Commits(folder)
        times = [500 / timed(lambda: [store.one() for _ in range(500)]) for _ in range(repeats)]
        report.note("synced commits of one row", "SQLite", "commits/s", times, floor=True)


def forks(report: Report, repeats: int) -> None:
    report.note("forks, 8 at once", "fork", "forks/s", [1000 / timed(lambda: many_forked(1000)) for _ in range(repeats)],
                floor=True)


def python_start(report: Report, repeats: int) -> None:
    bare = [sys.executable, "-c", "pass"]
    times = [timed(lambda: subprocess.run(bare, check=True)) * 1e3 for _ in range(4 * repeats)]
    report.note("start of an interpreter", "python -c pass", "ms", times, floor=True)


def compute(count: int, n: int) -> float:
    """Seconds of so many calls of fib(n), on all cores, in processes that are there already."""
    with multiprocessing.get_context("fork").Pool(os.cpu_count()) as pool:
        pool.map(fib, [1] * 8)
        return timed(lambda: pool.map(fib, [n] * count, chunksize=1))
