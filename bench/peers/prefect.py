"""Prefect: its server on SQLite as installed, flows called in one process as its documentation begins.

The trigger goes the way of its deployments: an API call, a polling worker, a process for each run.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request

import process
from systems import HERE, Peer


class Prefect(Peer):
    key = "prefect"
    name = "Prefect (in process)"
    packages = ["prefect==3.9.1"]

    def start(self) -> None:
        port = process.free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self.settings = {"PREFECT_HOME": str(self.folder / "home"), "PREFECT_API_URL": self.api,
                         "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "BENCH_FIRST": str(self.first),
                         "PREFECT_LOGGING_LEVEL": "ERROR", "PATH": f"{self.environment}/bin:/usr/bin:/bin"}
        began = time.perf_counter()
        self.spawn([self.program("prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)], self.settings)
        process.until(lambda: process.answers(f"{self.api}/health"), "Prefect is healthy", 120, 0.05)
        self.healthy_after = time.perf_counter() - began
        self.caller: subprocess.Popen | None = None
        self.deployment = ""

    def stop(self) -> None:
        if self.caller:
            process.stop(self.caller)
        super().stop()

    def ask(self, what: str, *arguments: int) -> float:
        """Seconds of a workload, in the process that calls flows; it has imported everything before."""
        if self.caller is None:
            self.caller = subprocess.Popen(
                [self.program("python"), HERE / "work/prefect_flows.py"], env={**process.os.environ, **self.settings},
                cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=(self.folder / "flows.log").open("ab"), text=True, start_new_session=True)
            assert self.caller.stdout and self.caller.stdout.readline() == "ready\n", self.log()
        assert self.caller.stdin and self.caller.stdout
        self.caller.stdin.write(" ".join([what, *map(str, arguments)]) + "\n")
        self.caller.stdin.flush()
        answer = self.caller.stdout.readline()
        assert answer, self.log()
        return float(answer)

    def chain(self, length: int) -> float:
        return self.ask("chain", length)

    def fan(self, width: int) -> float:
        return self.ask("fan", width)

    def light(self) -> float:
        return self.ask("light")

    def heavy(self) -> float:
        return self.ask("heavy")

    def three(self) -> float:
        return self.ask("chain", 3)

    def throughput(self, count: int) -> float:
        return self.ask("many", count, 3)

    def at_once(self, count: int) -> float:
        return self.ask("many", count, 5)

    def call(self, method: str, path: str, body: dict | None = None) -> dict:
        request = urllib.request.Request(self.api + path, method=method, headers={"Content-Type": "application/json"},
                                         data=None if body is None else json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def deploy(self) -> None:
        subprocess.run([self.program("prefect"), "work-pool", "create", "bench", "--type", "process"], check=True,
                       env={**process.os.environ, **self.settings}, stdout=subprocess.DEVNULL)
        flow = self.call("POST", "/flows/", {"name": "first"})
        made = self.call("POST", "/deployments/", {
            "name": "first", "flow_id": flow["id"], "work_pool_name": "bench", "enforce_parameter_schema": False,
            "path": str(HERE / "work"), "entrypoint": "prefect_flows.py:first"})
        self.deployment = made["id"]
        self.spawn([self.program("prefect"), "worker", "start", "--pool", "bench"], self.settings)

    def trigger(self) -> float:
        if not self.deployment:
            self.deploy()
        began = time.time()
        run = self.call("POST", f"/deployments/{self.deployment}/create_flow_run", {})
        took = self.written(began)
        process.until(lambda: self.call("GET", f"/flow_runs/{run['id']}")["state_type"] == "COMPLETED", "first", 120, 0.5)
        return took
