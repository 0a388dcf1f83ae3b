"""Dagster: `dagster dev`, its executor that starts a process for each step (the default), and the one
that runs all steps in the run's own process.
"""

from __future__ import annotations

import json
import time
import urllib.request

import process
from systems import HERE, ByApi, Peer

LAUNCH = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status endTime } } }"
READY = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"


class Dagster(Peer, ByApi):
    key = "dagster"
    name = "Dagster (default)"
    packages = ["dagster==1.13.27", "dagster-webserver==1.13.27"]
    multiprocess = True
    full = True

    def start(self) -> None:
        self.port = process.free_port()
        home = self.folder / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        environment = {"DAGSTER_HOME": str(home), "BENCH_FIRST": str(self.first),
                       "BENCH_MULTIPROCESS": "1" if self.multiprocess else "",
                       "PATH": f"{self.environment}/bin:/usr/bin:/bin"}
        began = time.perf_counter()
        self.spawn([self.program("dagster"), "dev", "-f", HERE / "work/dagster_jobs.py", "-h", "127.0.0.1",
                    "-p", str(self.port)], environment)
        process.until(lambda: process.answers(f"http://127.0.0.1:{self.port}/server_info"), "Dagster is healthy", 180, 0.05)
        self.healthy_after = time.perf_counter() - began
        nodes = process.until(lambda: self.query(READY)["repositoriesOrError"]["nodes"], "the jobs are read", 120, 0.2)
        self.repository = nodes[0]  # type: ignore[index]

    def query(self, query: str, **variables: object) -> dict:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", headers={"Content-Type": "application/json"},
            data=json.dumps({"query": query, "variables": variables}).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def start_run(self, workflow: str) -> str:
        selector = {"repositoryName": self.repository["name"],
                    "repositoryLocationName": self.repository["location"]["name"], "jobName": workflow}
        answer = self.query(LAUNCH, p={"selector": selector, "mode": "default", "runConfigData": {}})["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def ended(self, run: str) -> float | None:
        found = self.query(STATUS, id=run)["runOrError"]
        assert found["status"] not in ("FAILURE", "CANCELED"), found
        return float(found["endTime"]) if found["status"] == "SUCCESS" else None


class DagsterInProcess(Dagster):
    key = "dagster-inprocess"
    name = "Dagster (in process)"
    multiprocess = False
    full = False

    place = "bench-dagster"
    own_footprint = False
