"""Everything is killed at every stage, by the real binary: nothing is lost, nothing runs twice at
once. Skipped where KOBZA_BIN names none."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from test_server import KOBZA, PATIENCE_S, Server

from kobza import Client

pytestmark = pytest.mark.skipif(not KOBZA, reason="KOBZA_BIN names no binary")

FLOW = """
name: storm
tasks:
  work: {python: {function: work, file: %(folder)s/work.py, mode: %(mode)s}, map: "{{ range(12) }}",
         with: {n: "{{ item }}"}, retries: {limit: 100}}
  after: {python: {function: after, file: %(folder)s/work.py, mode: %(mode)s},
          with: {all: "{{ tasks.work.result }}"}, needs: work, retries: {limit: 100}}
"""
WORK = """
import fcntl, os, time
import kobza
HERE = os.path.dirname(__file__)
time.sleep(0.2)  # So that imports are met too.
def told(text):
    file = os.open(HERE + "/told", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, (text + "\\n").encode())
    os.close(file)
def work(n):
    name = f"{kobza.context().run_id}-{n}"
    lock = os.open(HERE + f"/lock-{name}", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        told(f"twice at once {name}")
    told(f"begin {n}")
    time.sleep(0.15)
    told(f"end {n}")
    os.close(lock)
    return n
def after(all):
    return sum(all)
"""


def of_folder(folder: Path) -> dict[str, list[int]]:
    """The processes of a store: its shims, warm parents, and what they forked."""
    found: dict[str, list[int]] = {"shim": [], "parent": [], "child": []}
    parents = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if str(folder) in line or "kobza_worker" in line:
            parents[int(entry.name)] = (line, int(status[1]))
    shims = {pid for pid, (line, _) in parents.items() if " shim" in line and str(folder) in line}
    found["shim"] = sorted(shims)
    ours = [pid for pid, (line, above) in parents.items() if above in shims]
    # A warm parent and a worker that it forked have one command line; the parent is the older.
    found["parent"], found["child"] = ours[:1], ours[1:]
    return found


@pytest.mark.parametrize("mode", ["fork", "reuse", "spawn"])
def test_a_storm_of_kills(tmp_path, mode):
    (tmp_path / "work.py").write_text(WORK)
    server = Server(tmp_path)
    client = Client(server.url)
    client.put_workflow(FLOW % {"folder": tmp_path, "mode": mode})
    chance = random.Random(4)
    runs = []
    try:
        for blow in range(12):
            runs.append(client.start("storm", idempotency_key=f"storm-{blow}").id)
            time.sleep(chance.random() * 0.5)
            victims = of_folder(tmp_path)
            kind = ("child", "parent", "server", "shim")[blow % 4]
            if kind == "server":
                server.kill()
                server.start()
            for pid in victims.get(kind, [])[: 3 if kind == "child" else 1]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        for run in runs:
            ended = client.wait(run, timeout_s=4 * PATIENCE_S)
            assert ended.state == "succeeded", json.dumps(client.tasks(run), default=str)
            assert client.result(run, "after") == sum(range(12))
            assert client.result(run, "work") == list(range(12))
        told = (tmp_path / "told").read_text().splitlines()
        assert [line for line in told if line.startswith("twice")] == []
        # Accepted once each, however often it had to run.
        assert len([line for line in told if line.startswith("end")]) >= 12 * len(runs)
    finally:
        server.kill()
