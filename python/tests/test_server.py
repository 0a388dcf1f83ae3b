"""The client against the real server; skipped where KOBZA_BIN names no binary."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import datetime, timezone

import pytest

from kobza import ApiError, AsyncClient, Client

KOBZA = os.environ.get("KOBZA_BIN")
pytestmark = pytest.mark.skipif(not KOBZA, reason="KOBZA_BIN names no binary")

FLOW = """
name: sums
tasks:
  numbers: {python: {function: numbers, file: %(folder)s/sums.py}}
  add: {python: {function: add, file: %(folder)s/sums.py}, map: "{{ tasks.numbers.result }}",
        with: {n: "{{ item }}"}, needs: numbers}
  waits: {python: {function: waits, file: %(folder)s/sums.py}, needs: add}
"""
SUMS = """
import os, time
HERE = os.path.dirname(__file__)
def numbers(): return [1, 2, 3]
def add(n): return n + 1
def waits():
    while not os.path.exists(HERE + "/go"): time.sleep(0.01)
    return "went"
"""
#: Only a guard against a test that hangs.
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Server:
    def __init__(self, folder) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        listen = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [KOBZA, "server", "--listen", listen, "--data", "data"],
            cwd=self.folder,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/ready", timeout=5).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "the server does not become ready"
                time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    (tmp_path / "sums.py").write_text(SUMS)
    server = Server(tmp_path)
    yield server
    (tmp_path / "go").touch()
    server.kill()


def test_a_run_from_a_script(server, tmp_path):
    client = Client(server.url)
    client.put_workflow(FLOW % {"folder": tmp_path})
    assert [w["name"] for w in client.workflows()] == ["sums"]
    span = (datetime(2024, 1, 1, tzinfo=timezone.utc), datetime(2024, 1, 2))
    run = client.start("sums", interval=span, labels={"a": "b"}, idempotency_key="k1")
    assert client.start("sums", interval=span, labels={"a": "b"}, idempotency_key="k1").id == run.id

    with pytest.raises(TimeoutError, match="still running"):
        client.wait(run.id, timeout_s=0.5)
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(client.wait(run.id)))
    waiting.start()

    # Followed over the server's death: each event once, in order.
    got = []
    for event in client.events(run=run.id):
        got.append(event)
        if event.task_name == "waits" and event.state == "running":
            server.kill()
            server.start()
            (tmp_path / "go").touch()
        if event.kind == "run" and event.state == "succeeded":
            break
    numbers = [event.sequence for event in got]
    assert numbers == sorted(set(numbers))
    assert numbers == [event.sequence for event in client.events(run=run.id, follow=False)]
    told = [(e.task_name, e.map_index, e.state) for e in got if e.kind == "task"]
    for index in range(3):
        assert told.count(("add", index, "succeeded")) == 1
    waiting.join(PATIENCE_S)
    assert ended and ended[0].state == "succeeded" and ended[0].started_at is not None

    assert client.result(run.id, "add") == [2, 3, 4]
    assert client.result(run.id, "waits") == "went"
    with pytest.raises(KeyError):
        client.result(run.id, "other")
    assert [r.id for r in client.runs(workflow="sums")] == [run.id]
    only = list(client.events(workflow="sums", kinds=["run"], follow=False))
    assert [event.state for event in only][-1] == "succeeded"
    assert {event.kind for event in only} == {"run"}


ASSETS = """
from kobza import CheckResult, asset, assets

@asset(name="shop/rows")
def rows() -> list[int]:
    return [1, -2, 3]

@rows.check
def some(rows):
    return len(rows) > 2

@rows.check(block=False)
def positive(rows):
    bad = [n for n in rows if n < 0]
    return CheckResult(not bad, f"{len(bad)} below zero")

@asset(name="shop/total")
def total(rows) -> int:
    return sum(rows)

@total.check
def large(total):
    return CheckResult(total > 100, "it is too small")

@asset(name="shop/report")
def report(total) -> str:
    return f"the total is {total}"

shop = assets("shop", [rows, total, report])
"""


def test_checks_of_assets(server, tmp_path):
    (tmp_path / "shop.py").write_text(ASSETS)
    sys.path.insert(0, str(tmp_path))
    try:
        import shop
    finally:
        sys.path.pop(0)
    client = Client(server.url)
    client.put_workflow(shop.shop)
    run = client.wait(client.start("shop").id, timeout_s=PATIENCE_S)
    assert run.state == "failed"
    states = {task.name: task.state for task in client.tasks(run.id)}
    assert states["total"] == "succeeded", "a check that does not block holds nobody back"
    assert states["report"] == "upstream_failed", "one that blocks does"
    told = {}
    for event in client.events(run=run.id, kinds=["checked"], follow=False):
        told[event.detail["check"]] = (event.detail["asset"], event.detail["passed"])
        if event.detail["check"] == "positive":
            assert "did not hold: 1 below zero" in event.detail["detail"]
    assert told == {
        "some": ("shop/rows", True),
        "positive": ("shop/rows", False),
        "large": ("shop/total", False),
    }


def test_async_and_all_runs(server, tmp_path):
    (tmp_path / "go").touch()

    async def go():
        client = AsyncClient(server.url)
        await client.put_workflow(FLOW % {"folder": tmp_path})
        # Followed before anything happens, over all runs: tasks are told too.
        seen = []

        async def follow():
            async for event in client.events():
                seen.append(event)
                if event.kind == "run" and event.state == "succeeded":
                    return

        following = asyncio.create_task(follow())
        run = await client.start("sums")
        assert (await client.wait(run.id, timeout_s=PATIENCE_S)).state == "succeeded"
        await asyncio.wait_for(following, PATIENCE_S)
        assert {"waits", "numbers"} <= {e.task_name for e in seen if e.kind == "task"}
        assert await client.result(run.id, "add") == [2, 3, 4]
        with pytest.raises(ApiError) as refused:
            await client.run("00000000-0000-7000-8000-000000000000")
        assert refused.value.status == 404

    asyncio.run(go())


EMITTER = """
import kobza

def place(fail):
    kobza.emit("order-placed", {"order": 7, "fail": fail})
    kobza.emit("nobody-waits-for-this")
    if fail:
        raise ValueError("no")
"""
EMITS = """
name: shop
params: {fail: {type: boolean, default: false}}
tasks:
  place: {python: {function: place, file: %(folder)s/emitter.py}, with: {fail: "{{ params.fail }}"}}
"""
WAITS = """
name: waits
params: {order: {type: integer, default: 0}, from: {type: string, default: ""}}
triggers: [{name: placed, event: order-placed, filter: "event.payload.order > 5",
            params: {order: "{{ event.payload.order }}", from: "{{ event.name }}"}}]
tasks: {a: {noop: true}}
"""


def test_what_a_task_emits_starts_runs(server, tmp_path):
    (tmp_path / "emitter.py").write_text(EMITTER)
    client = Client(server.url)
    client.put_workflow(EMITS % {"folder": tmp_path})
    client.put_workflow(WAITS)
    deadline = time.monotonic() + PATIENCE_S

    def shop(**params) -> str:
        return client.wait(client.start("shop", params).id, timeout_s=PATIENCE_S).state

    def started(number: int) -> list:
        while len(runs := list(client.runs(workflow="waits"))) < number:
            assert time.monotonic() < deadline, "the event starts nothing"
            time.sleep(0.05)
        return [client.wait(run.id, timeout_s=PATIENCE_S) for run in runs]

    # A task that fails has emitted nothing.
    assert shop(fail=True) == "failed"
    assert shop() == "succeeded"
    started(1)
    # Once, over a restart too: what was decided stays decided.
    server.kill()
    server.start()
    assert shop() == "succeeded"
    runs = started(2)
    assert len(runs) == 2 and {run.state for run in runs} == {"succeeded"}
    for run in runs:
        with urllib.request.urlopen(f"{server.url}/api/v1/runs/{run.id}", timeout=30) as answer:
            assert json.load(answer)["params"] == {"order": 7, "from": "order-placed"}
