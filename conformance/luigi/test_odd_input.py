"""Input that no careful client sends: the server answers, goes on, and loses nothing."""

import json
import os
import subprocess
import sys
import time
import urllib.parse

import pytest
from conftest import HERE, post, wait
from luigi.scheduler import RPC_METHODS


def test_methods_and_pages_of_other_sites(server):
    call = server.url + "/api/"
    assert post(call + "no_such_method", b"data={}") == 404
    assert post(call + "$tick", b"data={}") == 404
    assert post(call + "is_paused", b"") == 200
    assert post(call + "is_paused?data={}", None) == 200
    assert post(call + "pause", b"", {"Origin": "http://evil.example"}) == 403
    assert post(call + "pause", b"", {"Sec-Fetch-Site": "cross-site"}) == 403
    assert post(call + "is_paused", b"", {"Origin": f"http://127.0.0.1:{server.port}"}) == 200


GARBAGE = [
    b"garbage", b"data=garbage", b"data=%ff%fe", b"data=[1,2]", b"data=null", b'data="x"', b"data=NaN",
    b"data={", b'data={"worker":{}}', b'data={"task_id":[[]],"worker":null}', b"data=" + b"[" * 100_000,
    b"data=" + b'{"a":' * 100_000, b"\0" * 1000, b"data={}&data=" + b"%" * 1000,
    b'data={"task_id":"' + b"x" * 1_000_000 + b'"}',
]


@pytest.mark.parametrize("method", sorted(RPC_METHODS))
def test_garbage(method, server):
    for garbage in GARBAGE:
        assert post(f"{server.url}/api/{method}", garbage) in (200, 400), garbage[:80]
    # The right names with wrong values.
    odd = [None, True, -1, 1e308, 10**400, "", "x", "\0", [], [[]], {}, {"a": {"b": [1]}}, ["a", 1, None]]
    names = ["worker", "task_id", "status", "deps", "new_deps", "params", "resources", "priority", "family",
             "info", "current_tasks", "retry_policy_dict", "max_batch_size", "batched_args", "runnable",
             "task_str", "resource", "amount", "message_id", "n", "progress_percentage", "targets", "inputs"]
    for value in odd:
        for name in [None, *names]:
            given = {other: value if name in (None, other) else "t" for other in names}
            data = urllib.parse.urlencode({"data": json.dumps(given)}).encode()
            assert post(f"{server.url}/api/{method}", data) in (200, 400), (name, value)
    assert isinstance(server.call("is_paused")["paused"], bool)
    assert "task_id" in server.call("get_work", worker="honest", host="h")


def test_a_task_id_that_is_no_hash(server):
    odd = "not a hash (at all) / \u0000 é"
    server.call("add_task", worker="w", task_id=odd, family="x")
    assert server.call("get_work", worker="w", host="h")["task_id"] == odd
    server.call("add_task", worker="w", task_id=odd, status="DONE")
    server.kill()
    server.start()
    assert server.statuses() == {odd: "DONE"}


def test_dependencies_in_a_cycle(server):
    ring = [f"ring_{i}" for i in range(1000)]
    for task, dep in zip(ring, ring[1:] + ring[:1]):
        server.call("add_task", worker="w", task_id=task, family="ring", deps=[dep])
    server.call("add_task", worker="w", task_id="own", family="own", deps=["own"])
    server.call("add_task", worker="w", task_id="free", family="free")
    work = server.call("get_work", worker="w", host="h")
    assert (work["task_id"], work["n_pending_tasks"]) == ("free", 1002)
    assert server.call("get_work", worker="w", host="h", current_tasks=["free"])["task_id"] is None
    assert len(server.call("dep_graph", task_id="ring_0")) == 1000
    assert len(server.call("inverse_dep_graph", task_id="ring_0")) == 1000
    blocked = server.call("task_list", status="PENDING", upstream_status="UPSTREAM_DISABLED")
    assert blocked == {}
    # One of them ends the cycle: then the next is free.
    server.call("add_task", worker="w", task_id="ring_0", status="DONE")
    assert server.call("get_work", worker="w", host="h", current_tasks=["free"])["task_id"] == "ring_999"


def test_a_hundred_thousand_dependencies(server):
    deps = [f"T_{i}" for i in range(100_000)]
    server.call("add_task", worker="w", task_id="wide", family="wide", deps=deps)
    server.call("add_task", worker="w", task_id="T_7", family="T", status="DONE")
    assert server.call("get_work", worker="w", host="h")["task_id"] is None
    assert len(server.call("dep_graph", task_id="wide")) == 100_000
    server.kill()
    server.start()
    assert server.statuses()["T_7"] == "DONE"
    assert server.call("count_pending", worker="w")["n_pending_tasks"] == 1


def test_a_huge_body_is_refused(server):
    # The client sends all of it before it reads the answer.
    assert post(server.url + "/api/add_task", b"data=" + b"x" * (100 << 20)) == 413
    assert server.call("is_paused") == {"paused": False}


def test_workers_with_a_wrong_clock(server, jobs):
    before = time.time()
    ahead, behind = (
        jobs.start("Many", "--count", "8", env={"SKEW": str(days * 86_400)})
        for days in (400, -400))
    for process in (ahead, behind):
        output = jobs.finish(process)
        assert "looks :(" not in output, output
    assert len(jobs.log()) == len(set(jobs.log())) == 32, "a task ran twice or never"
    # Times are the server's.
    for node in server.call("task_list").values():
        assert before - 1 <= node["start_time"] <= node["last_updated"] <= time.time() + 1


TWIN = """
import sys
import jobs, luigi
worker = luigi.worker.Worker(luigi.rpc.RemoteScheduler(sys.argv[1]), worker_id="twin", worker_processes=2)
with worker:
    worker.add(jobs.Many(count=8))
    sys.exit(0 if worker.run() else 1)
"""


def test_two_workers_with_one_name(server, jobs):
    env = dict(os.environ, PYTHONPATH=HERE, OUT=str(jobs.folder), LUIGI_CONFIG_PATH=os.devnull)
    twins = [subprocess.Popen([sys.executable, "-c", TWIN, server.url], env=env) for _ in range(2)]
    for twin in twins:
        twin.wait(timeout=120)
    # To the scheduler they are one, which lost the reply that the other got: a task may run twice, as
    # with luigid, but none is left out, and each is done.
    assert len(set(jobs.log())) == 32
    wait(lambda: set(server.statuses().values()) == {"DONE"})
    assert [worker["name"] for worker in server.call("worker_list")] in ([], ["twin"])
