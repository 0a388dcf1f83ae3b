"""Servers and jobs for the tests: `KOBZA_LUIGI_SERVER="/path/to/server PORT FOLDER" pytest`

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
        self.url = server.url

    def start(self, *args, workers=2, env=None, config="", **settings):
        """Starts a luigi process; settings are `core` or `worker` keys such as `worker_keep_alive`."""
        command = [sys.executable, "-m", "luigi", "--module", "jobs", *args,
                   "--scheduler-url", self.url, "--workers", str(workers)]
        for key, value in settings.items():
            command += [f"--{key.replace('_', '-')}"] + ([] if value is True else [str(value)])
        path = self.folder / "luigi.cfg"
        path.write_text(f"[core]\nrpc-retry-wait = 1\nrpc-retry-attempts = 30\n{config}")
        python = f"{HERE}:{os.path.join(HERE, '..', '..', 'python')}"
        env = {**os.environ, "PYTHONPATH": python, "OUT": str(self.folder),
               "LUIGI_CONFIG_PATH": str(path), **(env or {})}
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


def get(url, method, arguments):
    """As the visualiser calls: GET, with the arguments in the query; without any for `pause`."""
    query = "" if arguments is None else "?" + urllib.parse.urlencode({"data": json.dumps(arguments)})
    with urllib.request.urlopen(f"{url}/api/{method}{query}", timeout=30) as reply:
        return json.load(reply)["response"]


def post(url, body, headers=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=60) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def pytest_collection_modifyitems(items):
    if not COMMAND:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="KOBZA_LUIGI_SERVER is not set"))
