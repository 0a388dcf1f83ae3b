"""The real luigi package drives Kobza: workers, assistants, keep-alive, deaths of either side.

    KOBZA_LUIGI_SERVER="/path/to/server PORT FOLDER" pytest test_real_client.py

starts a server for each test: `PORT` and `FOLDER` in the command are replaced, and the address
`http://127.0.0.1:PORT/luigi` must answer. Settings (a short disconnect delay, retries) go to it by
`LUIGI_CFG`.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
COMMAND = os.environ.get("KOBZA_LUIGI_SERVER")
pytestmark = pytest.mark.skipif(not COMMAND, reason="KOBZA_LUIGI_SERVER is not set")

CONFIG = """
[scheduler]
retry_delay = 1
worker_disconnect_delay = 4
[resources]
db = 2
"""


def wait(what, seconds=60):
    """Waits until `what()` is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


class Server:
    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = str(folder)
        self.url = f"http://127.0.0.1:{self.port}/luigi"
        self.start()

    def start(self):
        command = [
            {"PORT": str(self.port), "FOLDER": self.folder}.get(word, word)
            for word in shlex.split(COMMAND)
        ]
        env = dict(os.environ, LUIGI_CFG=CONFIG)
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        wait(self.answers)

    def answers(self):
        try:
            self.call("is_paused")
            return True
        except (urllib.error.URLError, ConnectionError):
            assert self.process.poll() is None, "the server ended"
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def call(self, method, **args):
        data = urllib.parse.urlencode({"data": json.dumps(args)}).encode()
        with urllib.request.urlopen(f"{self.url}/api/{method}", data, timeout=30) as reply:
            return json.load(reply)["response"]

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as reply:
            return reply.read().decode()

    def statuses(self):
        return {task: node["status"] for task, node in self.call("task_list", limit=False).items()}


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "data")
    yield server
    server.kill()


class Jobs:
    def __init__(self, server, folder):
        self.server, self.folder, self.all = server, folder, []

    def start(self, *args, workers=2, **settings):
        """Starts a luigi process; settings are `core` or `worker` keys such as `worker_keep_alive`."""
        command = [sys.executable, "-m", "luigi", "--module", "jobs", *args,
                   "--scheduler-url", self.server.url, "--workers", str(workers)]
        for key, value in settings.items():
            command += [f"--{key.replace('_', '-')}"] + ([] if value is True else [str(value)])
        env = dict(os.environ, PYTHONPATH=HERE, OUT=str(self.folder), LUIGI_CONFIG_PATH=os.devnull)
        config = self.folder / "luigi.cfg"
        config.write_text("[core]\nrpc-retry-wait = 1\nrpc-retry-attempts = 30\n")
        env["LUIGI_CONFIG_PATH"] = str(config)
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.all.append(process)
        return process

    def run(self, *args, **settings):
        return self.finish(self.start(*args, **settings))

    def finish(self, process):
        output, _ = process.communicate(timeout=120)
        return output

    def log(self):
        path = self.folder / "log.jsonl"
        return [json.loads(line)["task"] for line in path.read_text().splitlines()] if path.exists() else []

    def kill(self, process):
        """Kills a worker with the processes of its tasks."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def jobs(server, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    jobs = Jobs(server, folder)
    yield jobs
    for process in jobs.all:
        if process.poll() is None:
            jobs.kill(process)


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


def post(url, body, headers=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=60) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def test_odd_input(server):
    call = server.url + "/api/"
    assert post(call + "no_such_method", b"data={}") == 404
    assert post(call + "$tick", b"data={}") == 404
    assert post(call + "add_task", b"data=garbage") == 400
    assert post(call + "add_task", b"data={}") == 400
    assert post(call + "is_paused", b"") == 200
    assert post(call + "is_paused?data={}", None) == 200
    assert post(call + "pause", b"", {"Origin": "http://evil.example"}) == 403
    assert post(call + "pause", b"", {"Sec-Fetch-Site": "cross-site"}) == 403
    assert post(call + "is_paused", b"", {"Origin": f"http://127.0.0.1:{server.port}"}) == 200
    deps = [f"T_{i}" for i in range(100_000)]
    server.call("add_task", worker="w", task_id="wide", family="wide", deps=deps)
    server.call("add_task", worker="w", task_id="a", family="a", deps=["b"], unknown=1)
    server.call("add_task", worker="w", task_id="b", family="b", deps=["a"])
    server.call("add_task", worker="w", task_id="not a hash (at all) / \u0000 é", family="x")
    reply = server.call("get_work", worker="w", host="h")
    assert reply["task_id"] == "not a hash (at all) / \u0000 é"
    assert reply["n_pending_tasks"] == 4
    assert len(server.call("dep_graph", task_id="wide")) == 100_000
    assert server.call("add_task_batcher", worker="w", task_family="x", batched_args=["a"],
                       max_batch_size=float("inf")) is None


def test_huge_body_is_refused(server):
    try:
        status = post(server.url + "/api/add_task", b"data=" + b"x" * (100 << 20))
    except (urllib.error.URLError, ConnectionError):
        status = 413  # refused while it was still being sent
    assert status == 413
    assert server.call("is_paused") == {"paused": False}
