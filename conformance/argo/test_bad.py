"""Bad input on a real server: each ends quickly with a clear message, and the server goes on."""

import gzip
import http.server
import io
import json
import os
import subprocess
import tarfile
import threading
import time
import urllib.request
import zipfile
import zlib

import pytest
import yaml


def one(command, **more):
    return {"kind": "Workflow", "metadata": {"generateName": "bad-"}, "spec": {
        "entrypoint": "main", "templates": [{
            "name": "main", "container": {"image": "busybox", "command": command}, **more}]}}


def ends(server, workflow, phase, seconds=60):
    ended = server.wait(server.submit(workflow, "bad"), "bad", seconds=seconds)
    assert ended["status"]["phase"] == phase, ended["status"]
    return ended


def test_a_yaml_bomb(server, tmp_path):
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    bomb = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n" + "\n".join(lines) + "\n"
    file = tmp_path / "bomb.yaml"
    file.write_text(bomb)
    started = time.monotonic()
    done = subprocess.run(
        [os.environ["KOBZA_BIN"], "check", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode != 0 and "bomb.yaml" in done.stdout, done.stdout
    request = urllib.request.Request(
        f"{server.host}/api/v1/workflows", method="POST", data=bomb.encode(),
        headers={"content-type": "application/yaml"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code in (400, 422)
    assert time.monotonic() - started < 20
    deep = "[" * 100_000
    file.write_text(f"apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {deep}")
    done = subprocess.run(
        [os.environ["KOBZA_BIN"], "check", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode not in (0, -11, -6), done.stdout


def test_recursion_without_end(server):
    ended = ends(server, {"kind": "Workflow", "metadata": {"generateName": "deep-"}, "spec": {
        "entrypoint": "main", "templates": [
            {"name": "main", "steps": [[{"name": "again", "template": "main"}]]}]}}, "Failed")
    deepest = [n for n in ended["status"]["nodes"].values() if "recursion" in n.get("message", "")]
    assert deepest and "Maximum recursion depth exceeded (100)" in deepest[0]["message"]
    assert len(ended["status"]["nodes"]) < 310


def test_a_sequence_of_a_billion(server):
    started = time.monotonic()
    ended = ends(server, {"kind": "Workflow", "metadata": {"generateName": "many-"}, "spec": {
        "entrypoint": "main", "templates": [
            {"name": "main", "steps": [[{"name": "each", "template": "leaf", "withSequence": {"count": "1000000000"}}]]},
            {"name": "leaf", "container": {"image": "busybox", "command": ["true"]}}]}}, "Failed")
    assert time.monotonic() - started < 20
    assert any("at most 1000000 items" in n.get("message", "") for n in ended["status"]["nodes"].values())


NASTY = 'a"b\'c\n{{workflow.name}} {{=1+1}} $(touch /tmp/kobza-evil) `id` ; \\ %s }} {{'


def test_values_are_never_expanded_again(server):
    workflow = yaml.safe_load("""
    kind: Workflow
    metadata: {generateName: nasty-}
    spec:
      entrypoint: main
      arguments: {parameters: [{name: p}]}
      templates:
      - name: main
        inputs: {parameters: [{name: p}]}
        steps:
        - - {name: env, template: env, arguments: {parameters: [{name: p, value: "{{inputs.parameters.p}}"}]}}
        - - {name: args, template: args, arguments: {parameters: [{name: p, value: "{{steps.env.outputs.parameters.same}}"}]}}
        - - {name: again, template: args, arguments: {parameters: [{name: p, value: "{{=steps.args.outputs.result}}"}]}}
      - name: env
        inputs: {parameters: [{name: p}]}
        container: {image: busybox, command: [sh, -c, 'printf %s "$P" > /tmp/same'], env: [{name: P, value: "{{inputs.parameters.p}}"}]}
        outputs: {parameters: [{name: same, valueFrom: {path: /tmp/same}}]}
      - name: args
        inputs: {parameters: [{name: p}]}
        container: {image: busybox, command: [printf, "%s", "{{inputs.parameters.p}}"]}
    """)
    workflow["spec"]["arguments"]["parameters"][0]["value"] = NASTY
    ended = ends(server, workflow, "Succeeded")
    nodes = {n["displayName"]: n for n in ended["status"]["nodes"].values()}
    for name in ("env", "args", "again"):
        assert nodes[name]["inputs"]["parameters"][0]["value"] == NASTY, name
    assert nodes["args"]["outputs"]["result"] == NASTY
    assert not os.path.exists("/tmp/kobza-evil")


def tar(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = content
                packed.addfile(info)
            else:
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()


def zipped(*entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            packed.writestr(info, content)
    return out.getvalue()


def bomb():
    """A gzip of a tar of 2 GiB of zeros, made of one compressed MiB again and again."""
    size, block = 2 << 30, bytes(1 << 20)
    info = tarfile.TarInfo("zeros")
    info.size = size
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(info.tobuf()) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    tail = packer.compress(bytes(1024)) + packer.flush()
    return gzip.compress(b"")[:10] + head + again * (size >> 20) + tail + bytes(8)


FILES = {
    "dots.tgz": (tar(("../evil", tarfile.REGTYPE, "x")), "leads out of its folder"),
    "absolute.tgz": (tar(("/tmp/evil", tarfile.REGTYPE, "x")), "leads out of its folder"),
    "link.tgz": (tar(("l", tarfile.SYMTYPE, "/etc"), ("l/passwd", tarfile.REGTYPE, "x")), "leads out of its folder"),
    "hard.tgz": (tar(("l", tarfile.LNKTYPE, "/etc/passwd")), "neither file nor folder"),
    "dots.zip": (zipped(("../evil", "x", 0o644)), "leads out of its folder"),
    "link.zip": (zipped(("l", "/etc", 0o120777)), "neither file nor folder"),
    "cut.tgz": (tar(("a", tarfile.REGTYPE, os.urandom(40_000).hex()))[:30_000], "cannot be read"),
    "bomb.tgz": (None, "more than"),
}


@pytest.fixture(scope="module")
def files():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = FILES[self.path[1:]][0]
            content = bomb() if content is None else content
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()


@pytest.mark.parametrize("name", FILES)
def test_hostile_archives(server, files, name):
    artifact = {"name": "in", "path": "/tmp/in", "http": {"url": f"{files}/{name}"}}
    ended = ends(server, one(["true"], inputs={"artifacts": [artifact]}), "Error", seconds=120)
    assert "failed to load artifact in" in ended["status"]["message"], ended["status"]["message"]
    assert FILES[name][1] in ended["status"]["message"], ended["status"]["message"]
    assert not os.path.exists("/tmp/evil")


def test_an_artifact_over_the_limit(server):
    artifact = {"name": "out", "path": "/tmp/out"}
    command = ["sh", "-c", "truncate -s 70G /tmp/out"]
    started = time.monotonic()
    ended = ends(server, one(command, outputs={"artifacts": [artifact]}), "Error")
    assert "outputs.artifacts.out: it is larger than 64 GiB" in ended["status"]["message"]
    assert time.monotonic() - started < 30


def test_a_parameter_over_the_limit(server):
    parameter = {"name": "out", "valueFrom": {"path": "/tmp/out"}}
    command = ["sh", "-c", "head -c 20000000 /dev/zero > /tmp/out"]
    ended = ends(server, one(command, outputs={"parameters": [parameter]}), "Error")
    assert "it is larger than 16 MiB" in ended["status"]["message"]


def test_outputs_that_would_never_end(server):
    """Pipes and devices are no files: nothing waits for them."""
    for make in ("mkfifo /tmp/out", "ln -s /dev/zero /tmp/out", "ln -s /proc/self/mem /tmp/out"):
        parameter = {"name": "out", "valueFrom": {"path": "/tmp/out"}}
        ended = ends(server, one(["sh", "-c", make], outputs={"parameters": [parameter]}), "Error")
        assert "/tmp/out" in ended["status"]["message"]
    artifact = {"name": "out", "path": "/tmp/d", "archive": {"none": {}}}
    ended = ends(server, one(["sh", "-c", "mkdir /tmp/d; mkfifo /tmp/d/p"], outputs={"artifacts": [artifact]}), "Error")
    assert "neither a file nor a folder" in ended["status"]["message"]


def test_a_template_that_deletes_its_own_folder(server):
    # Only what is its own: where nothing can be mounted, these are the host's paths.
    command = ["sh", "-c", 'test -n "$KOBZA_FOLDER"; cd /; rm -rf "$KOBZA_FOLDER" /argo; echo gone']
    ended = ends(server, one(command), "Succeeded")
    ended = ends(server, one(command, outputs={"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}), "Error")
    assert "/tmp/o" in ended["status"]["message"]
    # The server goes on.
    ends(server, one(["true"]), "Succeeded")


def test_requests_that_are_no_workflows(server):
    for body in ({}, {"workflow": None}, {"workflow": []}, {"workflow": {"kind": "Pod"}}, {"workflow": {"spec": 1}},
                 {"workflow": {"spec": {"templates": 1}}}, {"workflow": {"metadata": {"name": "../x"}, "spec": {}}}):
        status, answer = server.call("POST", "/api/v1/workflows/bad", body)
        assert status == 400 and answer["message"], (body, answer)
    request = urllib.request.Request(
        f"{server.argo_host}/api/v1/workflows/bad", method="POST", data=b"{", headers={"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 400
    assert server.call("POST", "/api/v1/workflows/bad", {"workflow": json.loads("[" * 100 + "]" * 100)})[0] == 400
