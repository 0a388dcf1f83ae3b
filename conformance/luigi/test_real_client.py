"""The real luigi package drives Kobza: workers, assistants, keep-alive, deaths of either side.

How to run it: see conftest.py.
"""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error

import luigi
import pytest
from conftest import CONFIG, Jobs, get, wait


def test_diamond(server, jobs):
    output = jobs.run("D")
    assert "This progress looks :)" in output, output
    log = jobs.log()
    assert sorted(log) == ["A_1", "B_1", "C_1", "D_1"]
    assert log[0] == "A_1" and log[-1] == "D_1"
    assert set(server.statuses().values()) == {"DONE"}
    nodes = server.call("task_list")
    c = next(node for node in nodes.values() if node["name"] == "C")
    assert (c["status_message"], c["progress_percentage"]) == ("half", 50)
    assert c["tracking_url"] == "http://example.com/1"
    assert "secret" not in c["params"]


def test_two_workers_share_one_graph(server, jobs):
    first, second = jobs.start("Many", "--count", "12"), jobs.start("Many", "--count", "12")
    for process in (first, second):
        # A worker whose tasks another one runs says `:|`, not `:)`.
        assert "looks :(" not in jobs.finish(process)
    log = jobs.log()
    assert len(log) == 48 and len(set(log)) == 48, "a task ran twice"


def test_dynamic_dependencies(server, jobs):
    output = jobs.run("ns.Dynamic")
    assert "looks :)" in output, output
    assert jobs.log().count("ns.Dynamic_1") == 1
    assert {"A_101", "B_201", "B_202", "A_201", "A_202"} <= set(jobs.log())
    graph = server.call("dep_graph", task_id=next(t for t in server.statuses() if t.startswith("ns.")))
    assert len(graph) == 6


def test_batch(server, jobs):
    output = jobs.run("AllBatched", workers=1)
    assert "looks :)" in output, output
    assert jobs.log() == ["Batched_2"], "three tasks are one run"
    assert set(server.statuses().values()) == {"DONE"}


def test_failure_and_disabling(server, jobs):
    output = jobs.run("Boom", worker_keep_alive=True)
    assert "looks :(" in output, output
    [(task, status)] = server.statuses().items()
    assert status == "DISABLED"
    assert "ValueError: boom" in server.call("fetch_error", task_id=task)["error"]
    assert server.call("retry", task_id=task)["status"] == "PENDING"


def test_failed_task_is_retried_by_a_worker_that_stays(server, jobs):
    output = jobs.run("Flaky", worker_keep_alive=True)
    assert "looks :)" in output, output
    [task] = server.statuses()
    events = json.loads(server.get("/history/by_task_id/" + task))["tasks"][0]["events"]
    assert [event["event_name"] for event in events][:1] == ["DONE"]
    assert "FAILED" in [event["event_name"] for event in events]


def test_assistant_runs_tasks_that_others_scheduled(server, jobs):
    owner = jobs.start("Long", "--num", "1", worker_keep_alive=True, workers=1)
    wait(lambda: "RUNNING" in server.statuses().values())
    second = jobs.start("Long", "--num", "2", worker_keep_alive=True, workers=0)
    wait(lambda: "PENDING" in server.statuses().values())
    helper = jobs.start("Writes", "--num", "9", assistant=True, workers=1)
    wait(lambda: list(server.statuses().values()).count("RUNNING") == 2)
    (jobs.folder / "go").touch()
    for process in (owner, second):
        assert "looks :(" not in jobs.finish(process)
    wait(lambda: "RUNNING" not in server.statuses().values())
    jobs.kill(helper)
    assert set(jobs.log()) >= {"Long_1", "Long_2"}
    nodes = {node["display_name"]: node for node in server.call("task_list").values()}
    assert nodes["Long(num=1)"]["worker_running"] != nodes["Long(num=2)"]["worker_running"]


def test_worker_killed_in_the_middle(server, jobs):
    victim = jobs.start("Long", workers=2)
    wait(lambda: list(jobs.folder.glob("started_1_*")))
    jobs.kill(victim)
    # Its silence is noticed, and the task fails; whoever wants it again gets it.
    wait(lambda: server.call("prune") is None and set(server.statuses().values()) == {"FAILED"})
    assert server.call("worker_list") == []
    heir = jobs.start("Long", workers=2)
    wait(lambda: len(list(jobs.folder.glob("started_1_*"))) == 2)
    (jobs.folder / "go").touch()
    assert "looks :)" in jobs.finish(heir)
    assert set(server.statuses().values()) == {"DONE"}


def test_server_killed_in_the_middle(server, jobs):
    """Three times, while a graph of 120 tasks is under way."""
    worker = jobs.start("Many", "--count", "30", workers=2)
    for done in (5, 25, 60):
        wait(lambda: len(jobs.log()) >= done)
        server.kill()
        server.start()
    output = jobs.finish(worker)
    assert "looks :)" in output, output
    log = jobs.log()
    assert len(log) == 120 and len(set(log)) == 120, "a task ran twice or never"
    assert set(server.statuses().values()) == {"DONE"}


def test_messages_reach_a_running_task(server, jobs):
    worker = jobs.start("WithMessages", workers=2)
    wait(lambda: (jobs.folder / "listening").exists())
    [(task, node)] = server.call("task_list", status="RUNNING").items()
    sent = server.call("send_scheduler_message", worker=node["worker_running"], task=task, content="you")
    response = wait(lambda: server.call("get_scheduler_message_response", task_id=task,
                                        message_id=sent["message_id"])["response"])
    assert response == "heard you"
    assert "looks :)" in jobs.finish(worker)


@pytest.fixture
def luigid(tmp_path):
    """luigi's own server with the same settings."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "luigid.cfg"
    config.write_text(CONFIG.replace("[scheduler]", f"[scheduler]\nstate_path = {tmp_path}/state"))
    env = dict(os.environ, LUIGI_CONFIG_PATH=str(config))
    command = [sys.executable, "-c", "import luigi.cmdline; luigi.cmdline.luigid()",
               "--address", "127.0.0.1", "--port", str(port), "--logdir", str(tmp_path)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def answers():
        try:
            return get(url, "is_paused", {})
        except (urllib.error.URLError, ConnectionError):
            return None

    wait(answers)
    yield url
    process.kill()
    process.wait()


def shape(value):
    """A reply without times, numbers of processes and names of workers."""
    if isinstance(value, dict):
        return {key: "some" if key in ("pid", "salt") else shape(item) for key, item in value.items()}
    if isinstance(value, list):
        value = [shape(item) for item in value]
        # Dependencies: luigid's order is that of hash values.
        return sorted(value) if all(isinstance(item, str) for item in value) else value
    if isinstance(value, float):
        return "a time"
    if not isinstance(value, str):
        return value
    if value.startswith("Worker(") or (len(value) == 36 and value.count("-") == 4):
        return "some id"
    return "a traceback" if "Traceback" in value else value


def test_every_call_of_the_visualiser_is_answered_in_luigids_shape(server, jobs, luigid, tmp_path):
    script = os.path.join(os.path.dirname(luigi.__file__), "static", "visualiser", "js", "luigi.js")
    with open(script) as file:
        wanted = set(re.findall(r"urlRoot \+ ['\"]/(\w+)", file.read()))
    assert len(wanted) == 21
    replies = []
    for url in (server.url, luigid):
        folder = tmp_path / f"jobs{len(replies)}"
        folder.mkdir()
        own = Jobs(server, folder)
        own.url, own.all = url, jobs.all
        own.run("D")
        own.run("Boom", workers=1, worker_keep_alive=True)
        worker = own.start("WithMessages", workers=2, worker_keep_alive=True)
        wait(lambda: (folder / "listening").exists())
        wait(lambda: len(get(url, "worker_list", {})) == 1)
        [(running, node)] = get(url, "task_list", {"status": "RUNNING"}).items()
        tasks = {name.split("_")[0]: name for name in get(url, "task_search", {"task_str": "_"}).get("DONE", {})}
        [boom] = get(url, "task_search", {"task_str": "Boom"})["DISABLED"]
        done = tasks["D"]
        lists = [("FAILED", ""), ("PENDING", "UPSTREAM_FAILED"), ("DONE", ""), ("RUNNING", ""),
                 ("BATCH_RUNNING", ""), ("PENDING", ""), ("DISABLED", ""), ("PENDING", "UPSTREAM_DISABLED")]
        calls = [("task_list", {"status": status, "upstream_status": upstream, "search": search})
                 for status, upstream in lists for search in ("", "d num")]
        calls += [
            ("dep_graph", {"task_id": done, "include_done": True}),
            ("dep_graph", {"task_id": done, "include_done": False}),
            ("inverse_dep_graph", {"task_id": tasks["A"], "include_done": True}),
            ("fetch_error", {"task_id": boom}),
            ("get_task_status_message", {"task_id": running}),
            ("get_task_progress_percentage", {"task_id": running}),
            ("worker_list", {}), ("resource_list", {}), ("is_pause_enabled", {}), ("has_task_history", {}),
            ("pause", None), ("is_paused", {}), ("unpause", None), ("is_paused", {}),
            ("update_resource", {"resource": "db", "amount": 3}),
            ("set_worker_processes", {"worker": node["worker_running"], "n": 1}),
            ("send_scheduler_message", {"worker": node["worker_running"], "task": running, "content": "you"}),
            ("get_scheduler_message_response", {"task_id": running, "message_id": "none"}),
            ("re_enable_task", {"task_id": boom}), ("forgive_failures", {"task_id": boom}),
            ("mark_as_done", {"task_id": boom}),
            ("disable_worker", {"worker": node["worker_running"]}),
        ]
        assert {method for method, _ in calls} == wanted
        replies.append([(method, shape(get(url, method, arguments))) for method, arguments in calls])
        jobs.kill(worker)
    for ours, theirs in zip(*replies, strict=True):
        assert ours == theirs
