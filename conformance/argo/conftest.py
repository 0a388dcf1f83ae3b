"""A real server for each test session, and what tests do with it."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import pytest
import yaml

HERE = pathlib.Path(__file__).parent
ENDED = ("Succeeded", "Failed", "Error")
ROUTES = {
    "WorkflowTemplate": ("/api/v1/workflow-templates/{namespace}", "template"),
    "ClusterWorkflowTemplate": ("/api/v1/cluster-workflow-templates", "template"),
    "CronWorkflow": ("/api/v1/cron-workflows/{namespace}", "cronWorkflow"),
}
PLAIN = {"ConfigMap": "configmaps", "Secret": "secrets"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`kobza server` on free ports, Argo's API on one of its own."""

    def __init__(self, *arguments, data=None):
        self.port, self.argo_port = free_port(), free_port()
        self.host = f"http://127.0.0.1:{self.port}"
        self.argo_host = f"http://127.0.0.1:{self.argo_port}"
        self.data = data or tempfile.mkdtemp(prefix="kobza-argo-")
        self.arguments = arguments
        self.start()

    def start(self):
        self.log = open(f"{self.data}/server.log", "a")
        self.process = subprocess.Popen(
            [
                os.environ["KOBZA_BIN"], "server", "--data", self.data,
                "--listen", f"127.0.0.1:{self.port}",
                "--argo-listen", f"127.0.0.1:{self.argo_port}", *self.arguments,
            ],
            stderr=self.log,
        )
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.host}/ready", timeout=5)
                return
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, "the server has ended"
                time.sleep(0.05)
        raise AssertionError("the server is not ready")

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def call(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", **(headers or {})}
        request = urllib.request.Request(
            self.argo_host + path, method=method, data=data, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def good(self, method, path, body=None):
        status, answer = self.call(method, path, body)
        assert status == 200, answer
        return answer

    def stream(self, path, seconds=30):
        """The messages of a stream until it ends."""
        found = []
        with urllib.request.urlopen(self.argo_host + path, timeout=seconds) as answer:
            for line in answer:
                if len(line) > 6:
                    found.append(json.loads(line.removeprefix(b"data: "))["result"])
        return found

    def submit(self, workflow, namespace="argo"):
        path = f"/api/v1/workflows/{namespace}"
        return self.good("POST", path, {"workflow": workflow})["metadata"]["name"]

    def get(self, name, namespace="argo"):
        return self.good("GET", f"/api/v1/workflows/{namespace}/{name}")

    def wait(self, name, namespace="argo", phases=ENDED, seconds=90):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            seen = self.get(name, namespace)
            if seen["status"].get("phase") in phases:
                return seen
            time.sleep(0.05)
        raise AssertionError(f"{name} is {seen['status'].get('phase')}: {seen['status']}")

    def keep(self, document, namespace="argo"):
        """Stores an object that is no workflow."""
        kind, name = document["kind"], document["metadata"]["name"]
        if kind in PLAIN:
            path = f"/api/v1/namespaces/{namespace}/{PLAIN[kind]}/{name}"
            return self.good("PUT", path, document)
        path, field = ROUTES[kind]
        path = path.format(namespace=namespace)
        self.call("DELETE", f"{path}/{name}")
        return self.good("POST", path, {field: document})

    def run(self, text, namespace="argo", parameters=()):
        """Runs a file as its user would; the workflow at its end."""
        documents = [d for d in yaml.safe_load_all(text) if d]
        order = ["ConfigMap", "Secret", "ClusterWorkflowTemplate", "WorkflowTemplate", "CronWorkflow"]
        for kind in order:
            for document in documents:
                if document["kind"] == kind:
                    self.keep(document, namespace)
        for document in documents:
            if document["kind"] == "Workflow":
                own = document["metadata"].get("name")
                if own:
                    self.call("DELETE", f"/api/v1/workflows/{namespace}/{own}")
                return self.wait(self.submit(document, namespace), namespace)
        first = next(d for d in documents if d["kind"] in ROUTES)
        request = {
            "resourceKind": first["kind"], "resourceName": first["metadata"]["name"],
            "submitOptions": {"parameters": list(parameters)},
        }
        submitted = self.good("POST", f"/api/v1/workflows/{namespace}/submit", request)
        return self.wait(submitted["metadata"]["name"], namespace)


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    running.stop()
    shutil.rmtree(running.data, ignore_errors=True)


@pytest.fixture
def own_server():
    """Makes servers for one test alone."""
    made = []

    def make(*arguments, data=None):
        made.append(Server(*arguments, data=data))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.stop()
        shutil.rmtree(one.data, ignore_errors=True)
