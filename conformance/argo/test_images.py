"""Images by policy: the host's commands, an unpacked root file system, a container engine (here one
that only this test has), and nothing at all."""

import http.server
import io
import json
import os
import pathlib
import shutil
import socketserver
import subprocess
import tarfile
import threading

import pytest


def rootfs(folder):
    """A root file system with a shell, `cat` and what they need of the host's libraries."""
    folder = pathlib.Path(folder)
    wanted = {shutil.which("sh"), shutil.which("cat")}
    for program in list(wanted):
        listed = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True).stdout
        wanted |= {word for word in listed.split() if word.startswith("/")}
    for path in wanted:
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), target)
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "etc/whose").write_text("the image's\n")
    return folder


def workflow(image, **container):
    return {"kind": "Workflow", "metadata": {"generateName": "image-"}, "spec": {"entrypoint": "main", "templates": [
        {"name": "main", "steps": [
            [{"name": "one", "template": "one"}],
            [{"name": "two", "template": "two", "arguments": {"parameters": [
                {"name": "said", "value": "{{steps.one.outputs.result}}"}]}}]]},
        {"name": "one", "container": {"image": image, **container}},
        {"name": "two", "inputs": {"parameters": [{"name": "said"}]},
         "container": {"image": "busybox", "command": ["test", "-e", "/etc/whose"]}},
    ]}}


def said(server, made, phase):
    ended = server.wait(server.submit(made))
    assert ended["status"]["phase"] == phase, ended["status"]
    one = next(n for n in ended["status"]["nodes"].values() if n["displayName"] == "one")
    return one.get("outputs", {}).get("result"), one


def test_an_unpacked_root_file_system(own_server, tmp_path):
    folder = rootfs(tmp_path / "root")
    server = own_server("--argo-images", f"mine={folder},other=host")
    made = workflow("registry.example/team/mine:1.2", command=["sh", "-c", "cat /etc/whose; echo x > /etc/new"])
    # The second step runs on the host, which has no such file.
    assert said(server, made, "Failed")[0] == "the image's"
    assert not (folder / "etc/new").exists(), "what a task writes is its own"


class Engine(socketserver.ThreadingUnixStreamServer):
    pulled = False


@pytest.fixture
def engine(tmp_path):
    root = rootfs(tmp_path / "engine-root")

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, status, body):
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path.endswith("/export"):
                out = io.BytesIO()
                with tarfile.open(fileobj=out, mode="w") as packed:
                    packed.add(root, arcname=".")
                self.answer(200, out.getvalue())
            elif self.path.startswith("/images/team/tool:7/json") and self.server.pulled:
                self.answer(200, {"Id": "sha256:" + "ab" * 32, "Config": {
                    "Entrypoint": ["sh", "-c"], "Cmd": ["echo $OWN $PWD; cat whose"], "Env": ["OWN=set"],
                    "WorkingDir": "/etc"}})
            else:
                self.answer(404, {"message": "no such image"})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.startswith("/images/create?fromImage=team/tool:7"):
                self.server.pulled = True
                self.answer(200, b'{"status":"Pulling"}\n{"status":"Done"}\n')
            elif self.path.startswith("/images/create"):
                self.answer(404, {"message": "pull access denied"})
            else:
                self.answer(201, {"Id": "c1"})

        def do_DELETE(self):
            self.answer(204, b"")

        def address_string(self):
            return "unix"

        def log_message(self, *_):
            pass

    serving = Engine(str(tmp_path / "engine.sock"), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield tmp_path / "engine.sock"
    serving.shutdown()


def test_a_container_engine(own_server, engine):
    server = own_server("--argo-images", f"*=engine:{engine},busybox=host")
    # Entry point, command, environment and folder are the image's.
    assert said(server, workflow("team/tool:7"), "Failed")[0] == "set /etc\nthe image's"
    assert said(server, workflow("team/tool:7", args=["echo args"]), "Failed")[0] == "args"
    _, node = said(server, workflow("team/none:1", command=["true"]), "Failed")
    assert node["phase"] == "Error"
    assert 'image "team/none:1": it cannot be pulled: pull access denied' in node["message"]
    assert len(os.listdir(f"{server.data}/argo/images")) == 2, "unpacked once, and its lock"


def test_no_container_engine(own_server, tmp_path):
    server = own_server("--argo-images", f"tool=engine:{tmp_path}/none.sock")
    _, node = said(server, workflow("tool", command=["true"]), "Failed")
    assert "no container engine answers at" in node["message"] and "argo.images" in node["message"]


def test_nothing_at_all(own_server):
    server = own_server("--argo-images", "*=nothing")
    made = workflow("anything", command=["false"])
    result, node = said(server, made, "Succeeded")
    assert result == "" and node["type"] == "Pod" and node["phase"] == "Succeeded"
