"""Luigi: one command line per workload, one luigid for all. Its tasks write their targets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import process
from systems import HERE, Peer

PACKAGES = ["luigi==3.8.1"]


class Luigi(Peer):
    key = "luigi"
    name = "Luigi (luigid)"
    packages = PACKAGES

    def start(self) -> None:
        port = process.free_port()
        began = time.perf_counter()
        self.spawn([self.program("luigid"), "--address", "127.0.0.1", "--port", str(port),
                    "--logdir", str(self.folder), "--state-path", str(self.folder / "state.pickle")])
        process.until(lambda: socket.create_connection(("127.0.0.1", port)).close() or True, "luigid", 30, 0.01)
        self.healthy_after = time.perf_counter() - began
        self.scheduler = f"http://127.0.0.1:{port}"

    def job(self, family: str, workers: int = 1, out: str = "out", **parameters: int) -> float:
        """Seconds of the whole command: its interpreter, its tasks."""
        place = self.folder / out
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        given = [text for name, value in parameters.items() for text in (f"--{name}", str(value))]
        began = time.perf_counter()
        done = subprocess.run(
            [self.program("luigi"), "--module", "luigi_jobs", family, "--scheduler-url", self.scheduler,
             "--workers", str(workers), "--log-level", "WARNING", *given],
            env={**os.environ, "PYTHONPATH": str(HERE / "work"), "BENCH_OUT": str(place), "BENCH_FIRST": str(self.first)},
            capture_output=True, text=True)
        assert done.returncode == 0 and (place / "done").exists(), done.stderr[-2000:]
        return time.perf_counter() - began

    def chain(self, length: int) -> float:
        return self.job("Chain", length=length, salt=self.salt())

    def fan(self, width: int) -> float:
        return self.job("Fan", width=width, salt=self.salt())

    def light(self) -> float:
        return self.job("Chain", length=40, fib=10, salt=self.salt())

    def heavy(self) -> float:
        return self.job("Heavy", workers=2, salt=self.salt())

    def three(self) -> float:
        return self.job("Chain", length=3, salt=self.salt())

    def at_once(self, count: int) -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(8) as callers:
            list(callers.map(lambda n: self.job("Chain", out=f"out{n}", length=5, salt=self.salt(n)), range(count)))
        return time.perf_counter() - began

    def throughput(self, count: int) -> float:
        began = time.perf_counter()
        with ThreadPoolExecutor(8) as callers:
            list(callers.map(lambda n: self.job("Chain", out=f"out{n}", length=3, salt=self.salt(n)), range(count)))
        return time.perf_counter() - began

    def trigger(self) -> float:
        """No server starts tasks of Luigi: from the start of the command."""
        began = time.time()
        self.job("First", salt=self.salt())
        return self.written(began)

    @staticmethod
    def salt(more: int = 0) -> int:
        """A parameter that makes the tasks new."""
        return time.time_ns() + more
