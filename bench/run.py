"""Measures the whole binary from outside, and prints a table.

    python3 bench/run.py target/release/kobza [ROW...]

Rows: processes, latency, idle, startup, size. Each row that has a physical floor measures it in the
same run. Results also go to target/bench.json. Standard library only; nothing is asserted.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KOBZA = os.path.abspath(sys.argv[1])
WANTED = set(sys.argv[2:])
ROWS: list[dict] = []


def wanted(row: str) -> bool:
    return not WANTED or row in WANTED


def note(workload: str, system: str, unit: str, values: list[float]) -> None:
    values = sorted(values)
    row = {
        "workload": workload, "system": system, "unit": unit, "n": len(values),
        "min": values[0], "median": statistics.median(values), "max": values[-1],
    }
    ROWS.append(row)
    print(f"{workload:<44} {system:<10} {row['median']:>12.2f} {unit:<10}"
          f" (min {row['min']:.2f}, max {row['max']:.2f}, n {row['n']})", flush=True)


class Server:
    def __init__(self, folder: str, *args: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [KOBZA, "server", "--listen", f"127.0.0.1:{self.port}", "--data", f"{folder}/data", *args],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                if self.call("GET", "/ready")[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.002)
        self.ready = time.perf_counter() - started

    def call(self, method: str, path: str, body: str | None = None, kind: str = "application/json"):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        link.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = link.getresponse()
        text = answer.read()
        link.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def run(self, workflow: str) -> tuple[str, float]:
        """Starts a run and follows it; seconds from the call to its end by the server's own times."""
        _, run = self.call("POST", f"/api/v1/workflows/{workflow}/runs", "{}")
        while True:
            _, run = self.call("GET", f"/api/v1/runs/{run['id']}")
            if run["state"] in ("succeeded", "failed", "cancelled"):
                return run["state"], seconds(run["created_at"], run["ended_at"])
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def seconds(start: str, end: str) -> float:
    from datetime import datetime
    parse = lambda t: datetime.fromisoformat(t.replace("Z", "+00:00"))
    return (parse(end) - parse(start)).total_seconds()


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def floor_processes(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        goals = " ".join(f"t{i}" for i in range(count))
        Path(folder, "Makefile").write_text(f"all: {goals}\n{goals}:\n\t@/bin/true\n")
        started = time.perf_counter()
        subprocess.run(["make", "-s", "-j8", "-C", folder], check=True)
        return count / (time.perf_counter() - started)


def main() -> None:
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {KOBZA}")
    if wanted("size"):
        note("size of the binary", "kobza", "MiB", [os.path.getsize(KOBZA) / 2**20])
    if wanted("startup"):
        times = []
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                server = Server(folder)
                times.append(server.ready * 1000)
                server.stop()
        note("start to ready", "kobza", "ms", times)
    if wanted("idle"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            time.sleep(5)
            note("idle memory (proportional)", "kobza", "MiB", [pss_mib(server.process.pid)])
            server.stop()
    if wanted("processes"):
        count = 4000
        note(f"{count} x true", "make -j8", "tasks/s", [floor_processes(count) for _ in range(3)])
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            server.call("POST", "/api/v1/workflows",
                        f"name: trues\ntasks:\n  t: {{shell: 'true', map: {{range: {count}}}}}\n", "application/yaml")
            rates = []
            for _ in range(3):
                state, took = server.run("trues")
                assert state == "succeeded", state
                rates.append(count / took)
            note(f"{count} x true", "kobza", "tasks/s", rates)
            server.stop()
    if wanted("latency"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            server.call("POST", "/api/v1/workflows",
                        "name: three\ntasks:\n  a: {noop: true}\n  b: {noop: true, needs: a}\n  c: {noop: true, needs: b}\n",
                        "application/yaml")
            link = http.client.HTTPConnection("127.0.0.1", server.port)
            times = []
            for _ in range(300):
                started = time.perf_counter()
                link.request("POST", "/api/v1/workflows/three/runs", "{}", {"Content-Type": "application/json"})
                link.getresponse().read()
                times.append((time.perf_counter() - started) * 1000)
            note("three-step no-op run, HTTP call to answer", "kobza", "ms", times)
            server.stop()
    Path("target").mkdir(exist_ok=True)
    Path("target/bench.json").write_text(json.dumps(ROWS, indent=1) + "\n")


if __name__ == "__main__":
    main()
