"""Argo workflows: nodes that only the loop counts, nodes that are processes, whole workflows, and one
of 100,000 nodes looked at."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time

from ours.core import NAME, bench_binary
from ours.server import Server
from report import Report

PATH = "/argo/api/v1/workflows/argo"
#: Its image stands for nothing: the loop does all but run it.
NOOP = {"script": {"image": "noop", "command": ["sh"], "source": "true"}}
SHELL = {"script": {"image": "alpine", "command": ["sh"], "source": "true"}}


def workflow(leaf: dict, count: int | None = None) -> str:
    """A workflow of one step, or of a loop over so many."""
    templates = [{"name": "leaf", **leaf}]
    if count is not None:
        each = {"name": "each", "template": "leaf", "withSequence": {"count": str(count)}}
        templates.append({"name": "main", "steps": [[each]]})
    spec = {"entrypoint": "leaf" if count is None else "main", "templates": templates}
    return json.dumps({"workflow": {"metadata": {"generateName": "bench-"}, "spec": spec}})


def run(server: Server, body: str) -> tuple[str, float]:
    """Name of a workflow that has ended, and seconds from the call to its end as its caller sees it:
    a small one is one batch of the loop, and has one time in the store."""
    started = time.perf_counter()
    status, made = server.call("POST", PATH, body)
    assert status == 200, made
    while True:
        seen = server.call("GET", f"/api/v1/runs/{made['metadata']['uid']}")[1]
        if seen["state"] in ("succeeded", "failed", "cancelled"):
            assert seen["state"] == "succeeded", seen
            return made["metadata"]["name"], time.perf_counter() - started
        time.sleep(0.002)


def workflows(report: Report, kobza: str, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kobza, folder, "--argo-images", "noop=nothing")
        name = ""
        for count in (100, 1000, 10_000, 100_000):
            rates = []
            for _ in range(3 if count < 100_000 else 1):
                name, took = run(server, workflow(NOOP, count))
                rates.append(count / took)
            report.note(f"Argo: a loop of {count:,} no-op scripts", NAME, "nodes/s", rates)
        for what, path in (("opened", f"{PATH}/{name}"),
                           ("without its nodes", f"{PATH}/{name}?fields=-status.nodes"),
                           ("listed", f"{PATH}?fields=items.metadata.name,items.status.phase")):
            started = time.perf_counter()
            status, answer = server.call("GET", path)
            assert status == 200, answer
            took = (time.perf_counter() - started) * 1000
            report.note(f"Argo: the workflow of 100,000 nodes {what}", NAME, "ms", [took])
        count = 1000
        rates = [count / run(server, workflow(SHELL, count))[1] for _ in range(1 if quick else 3)]
        report.note(f"Argo: a loop of {count:,} sh scripts", NAME, "nodes/s", rates)
        load = [bench_binary(kobza), "starts", f"127.0.0.1:{server.port}", PATH, "5000", "64", workflow(NOOP)]
        rates = []
        for _ in range(1 if quick else 3):
            output = subprocess.run(load, check=True, stdout=subprocess.PIPE, text=True).stdout
            rates += json.loads(output)["values"]
        report.note("Argo: one-step no-op workflows, 64 clients", NAME, "workflows/s", rates)
        server.stop()
