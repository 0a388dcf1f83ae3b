"""Kobza as a system beside the others: the same work in each language that it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import process
from ours.core import bench_binary
from ours.server import Server
from systems import HERE, ROOT, ByApi, instant, venv


class Side(ByApi):
    """One server for one language."""

    pause = 0.005
    #: One server is as large as another until it has work.
    own_footprint = False
    arguments: tuple[str, ...] = ()

    def start(self) -> None:
        self.server = Server(self.kobza, self.folder, *self.arguments, environment={"BENCH_FIRST": str(self.first)})
        self.healthy_after = self.server.ready
        self.processes.append(self.server.process)
        self.define()

    def define(self) -> None:
        """Stores the workloads."""

    def installed(self) -> tuple[float | None, float | None]:
        """One file, put where programs are."""
        began = time.perf_counter()
        shutil.copy(self.kobza, self.folder / "kobza")
        subprocess.run([self.folder / "kobza", "--version"], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began, os.path.getsize(self.kobza) / 2**20

    def memory(self) -> float:
        # The shims live beside the server, not below it.
        here = str(self.folder)
        shims = [pid for pid in process.parents() if f"{here}/" in command_line(pid)]
        return process.pss_mib(sorted({*process.tree(self.server.process.pid), *shims}))

    def stop(self) -> None:
        super().stop()
        for pid in process.parents():
            if f"{self.folder}/" in command_line(pid):
                process.end(pid)

    def call(self, method: str, path: str, body: str | None = None):
        status, answer = self.server.call(method, path, body)
        assert status in (200, 201), answer
        return answer

    def start_run(self, workflow: str) -> str:
        return self.call("POST", f"/api/v1/workflows/{self.stored(workflow)}/runs", "{}")["id"]

    def ended(self, run: str) -> float | None:
        found = self.call("GET", f"/api/v1/runs/{run}")
        assert found["state"] not in ("failed", "cancelled"), found
        return instant(found["ended_at"]) if found["state"] == "succeeded" else None


    def throughput(self, count: int) -> float:
        """Started by a load of its own, which a client in Python would not be fast enough for, and timed
        by the server. More of them, since the first and the last are not told from the others."""
        workflow, many = self.stored("three"), 20 * count
        before = {run["id"] for run in self.all_runs(workflow)}
        load = [bench_binary(self.kobza), "starts", f"127.0.0.1:{self.server.port}", workflow, str(many), "64"]
        subprocess.run(load, check=True, stdout=subprocess.DEVNULL)
        live = f"/api/v1/runs?workflow={workflow}&state=queued,running&limit=1"
        process.until(lambda: not self.call("GET", live)["items"], "all runs have ended", 600, 0.05)
        made = [run for run in self.all_runs(workflow) if run["id"] not in before]
        assert len(made) == many and all(run["state"] == "succeeded" for run in made)
        took = max(instant(run["ended_at"]) for run in made) - min(instant(run["created_at"]) for run in made)
        return took * count / many

    def all_runs(self, workflow: str) -> list[dict]:
        found, cursor = [], ""
        while cursor is not None:
            page = self.call("GET", f"/api/v1/runs?workflow={workflow}&limit=500{cursor and '&cursor=' + cursor}")
            found += page["items"]
            cursor = page["next"]
        return found

    def stored(self, workflow: str) -> str:
        """The name under which a workload is stored."""
        return workflow


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def chain(name: str, length: int, body: str) -> str:
    lines = [f"  t{n}: {{{body}{f', needs: t{n - 1}' if n else ''}}}" for n in range(length)]
    return f"name: {name}\ntasks:\n" + "\n".join(lines) + "\n"


class Yaml(Side):
    """Bodies are processes (`true`, by the shell)."""

    own_footprint = True
    key = "kobza-yaml"
    name = "Kobza, YAML"

    def define(self) -> None:
        body = "shell: 'true'"
        fans = [f"name: fan{width}\ntasks:\n  a: {{{body}}}\n  m: {{{body}, needs: a, map: {{range: {width}}}}}\n"
                f"  z: {{{body}, needs: m}}\n" for width in (200, 1000)]
        first = "name: first\ntasks:\n  t: {shell: 'date +%s.%N > $BENCH_FIRST.new; mv $BENCH_FIRST.new $BENCH_FIRST'}\n"
        for text in [chain("chain50", 50, body), chain("chain5", 5, body), chain("three", 3, "noop: true"), first, *fans]:
            self.server.put(text)

    # A shell is not asked for Fibonacci numbers.
    light = heavy = None


class Forked(Side):
    """Bodies are Python functions, each in a process forked from a warm one."""

    key = "kobza-python"
    name = "Kobza, Python"
    flows = {"chain50": "chain", "chain5": "five", "fan200": "fan200", "fan1000": "fan1000", "light": "light40",
             "heavy": "heavy10", "three": "forked-three", "first": "first"}

    def define(self) -> None:
        sys.path[:0] = [str(ROOT / "python"), str(ROOT / "python/bench")]
        import flow
        import kobza

        client = kobza.Client(f"http://127.0.0.1:{self.server.port}")
        for own in self.flows.values():
            client.put_workflow(getattr(flow, own.replace("-", "_")))

    def stored(self, workflow: str) -> str:
        return self.flows[workflow]


class Reused(Forked):
    """Bodies are Python functions, one after the other in the same processes."""

    key = "kobza-reuse"
    name = "Kobza, Python reused"
    flows = {"chain50": "rechain", "chain5": "refive", "fan200": "refan200", "fan1000": "refan1000", "light": "relight40",
             "heavy": "heavy10", "three": "three", "first": "refirst"}

    heavy = None


class Airflow(Side):
    """The DAG file that Airflow runs, unmodified, in Airflow's own environment."""

    own_footprint = True
    key = "kobza-airflow"
    name = "Kobza, Airflow DAG"

    def install(self) -> None:
        # The one of the tests.
        pinned = [line for line in (ROOT / "tests/airflow-packages").read_text().split("\n") if line]
        self.environment, _ = venv("airflow", [line for line in pinned if not line.startswith("#")])

    def start(self) -> None:
        self.arguments = ("--airflow-dags", str(HERE / "work/dags"),
                          "--airflow-python", str(self.environment / "bin/python"))
        super().start()

    def define(self) -> None:
        def known() -> bool:
            found = self.call("GET", "/api/v1/workflows?limit=100")["items"]
            return {"chain50", "first"} <= {workflow["name"] for workflow in found}

        process.until(known, "the DAGs are read")


class Argo(Side):
    """Workflow YAML of Argo; bodies are processes in file systems of their own."""

    key = "kobza-argo"
    name = "Kobza, Argo YAML"

    def define(self) -> None:
        fan = lambda width: [  # noqa: E731
            {"name": "a", "template": "body"},
            {"name": "m", "template": "body", "depends": "a", "withSequence": {"count": str(width)}},
            {"name": "z", "template": "body", "depends": "m"}]
        row = lambda length: [  # noqa: E731
            {"name": f"t{n}", "template": "body", **({"depends": f"t{n - 1}"} if n else {})} for n in range(length)]
        self.store("chain50", row(50))
        self.store("chain5", row(5))
        self.store("three", row(3))
        self.store("fan200", fan(200))
        self.store("fan1000", fan(1000))
        self.store("first", row(1), "date +%s.%N")

    def trigger(self) -> float:
        """Its file system is its own: the log tells the time."""
        began = time.time()
        run = self.start_run("first")
        process.until(lambda: self.ended(run), "first", 60, self.pause)
        tasks = self.call("GET", f"/api/v1/runs/{run}/tasks")["items"]
        task = next(task["id"] for task in tasks if task["name"].endswith("t0"))
        log = self.call("GET", f"/api/v1/tasks/{task}/attempts/1/log")
        return float(log["lines"][0]["text"]) - began

    def store(self, name: str, tasks: list[dict], body: str = "true") -> None:
        document = {
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
            "spec": {"entrypoint": "main", "templates": [
                {"name": "main", "dag": {"tasks": tasks}},
                {"name": "body", "container": {"image": "alpine", "command": ["sh", "-c", body]}}]},
        }
        self.server.put(json.dumps(document))

    light = heavy = None


SIDES = [Yaml, Forked, Reused, Airflow, Argo]
