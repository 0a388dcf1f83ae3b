"""Artifacts in an S3 server: as a namespace's repository, and named one by one."""

import io
import json
import os
import subprocess
import tarfile
import time
import urllib.request

import boto3
import pytest
import yaml

from conftest import free_port

KEYS = {"aws_access_key_id": "AKIAKOBZA", "aws_secret_access_key": "hunter2hunter2", "region_name": "us-east-1"}


@pytest.fixture(scope="module")
def s3():
    port = free_port()
    moto = subprocess.Popen(
        [os.environ["MOTO_SERVER"], "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **KEYS)
    for _ in range(200):
        try:
            client.create_bucket(Bucket="artifacts")
            break
        except Exception:
            time.sleep(0.1)
    client.create_bucket(Bucket="other")
    client.endpoint = f"127.0.0.1:{port}"
    yield client
    moto.kill()
    moto.wait()


def repository(s3, **more):
    place = {
        "bucket": "artifacts", "endpoint": s3.endpoint, "insecure": True, "region": "us-east-1",
        "accessKeySecret": {"name": "s3-keys", "key": "who"},
        "secretKeySecret": {"name": "s3-keys", "key": "secret"},
        **more,
    }
    return place


def keep(server, s3, namespace, **more):
    server.keep({"kind": "Secret", "metadata": {"name": "s3-keys"},
                 "stringData": {"who": "AKIAKOBZA", "secret": "hunter2hunter2"}}, namespace)
    server.keep({
        "kind": "ConfigMap",
        "metadata": {"name": "artifact-repositories", "annotations": {
            "workflows.argoproj.io/default-artifact-repository": "main"}},
        "data": {"main": json.dumps({"s3": repository(s3, **more)}),
                 "logs": json.dumps({"archiveLogs": True, "s3": repository(s3, keyFormat="logs/{{workflow.name}}/{{pod.name}}")})},
    }, namespace)


PASSES = yaml.safe_load("""
kind: Workflow
metadata: {generateName: passes-}
spec:
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {name: make, template: make}
    - - {name: read, template: read, arguments: {artifacts: [{name: in, from: "{{steps.make.outputs.artifacts.out}}"}, {name: folder, from: "{{steps.make.outputs.artifacts.folder}}"}, {name: plain, from: "{{steps.make.outputs.artifacts.plain}}"}]}}
  - name: make
    container: {image: busybox, command: [sh, -c, "mkdir -p /tmp/d/e; echo content > /tmp/f; echo inner > /tmp/d/e/g; cp /tmp/f /tmp/p"]}
    outputs:
      artifacts:
      - {name: out, path: /tmp/f}
      - {name: folder, path: /tmp/d, archive: {none: {}}}
      - {name: plain, path: /tmp/p, archive: {none: {}}, s3: {key: "by/{{workflow.name}}/plain"}}
  - name: read
    inputs: {artifacts: [{name: in, path: /tmp/in}, {name: folder, path: /tmp/folder}, {name: plain, path: /tmp/plain}]}
    container:
      image: busybox
      command: [sh, -ec]
      args: ["test $(cat /tmp/in /tmp/folder/e/g /tmp/plain | tr '\\n' -) = content-inner-content-"]
""")


def keys(s3, bucket, prefix=""):
    return [o["Key"] for o in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]


def test_a_namespaces_repository(server, s3):
    keep(server, s3, "s3")
    name = server.submit(PASSES, "s3")
    ended = server.wait(name, "s3")
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    shown = ended["status"]["artifactRepositoryRef"]
    assert shown["key"] == "main" and shown["artifactRepository"]["s3"]["bucket"] == "artifacts"
    found = keys(s3, "artifacts", name) + keys(s3, "artifacts", f"by/{name}")
    make = next(n for n in ended["status"]["nodes"].values() if n["displayName"] == "make")
    assert [k for k in found if k.endswith("/out.tgz")] and f"by/{name}/plain" in found
    assert [k for k in found if k.endswith("/d/e/g")]
    artifacts = {a["name"]: a for a in make["outputs"]["artifacts"]}
    assert set(artifacts["out"]["s3"]) == {"key"}, "a key alone means the repository"
    body = s3.get_object(Bucket="artifacts", Key=artifacts["out"]["s3"]["key"])["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as packed:
        assert packed.extractfile(packed.getnames()[0]).read() == b"content\n"
    path = f"{server.argo_host}/artifacts/s3/{name}/{make['id']}/plain"
    assert urllib.request.urlopen(path, timeout=30).read() == b"content\n"
    # Nothing of it was kept by the server, and no log holds the keys.
    assert not os.path.exists(f"{server.data}/argo/artifacts/s3")
    assert "hunter2hunter2" not in open(f"{server.data}/server.log").read()


def test_an_artifact_with_a_place_of_its_own(server, s3):
    keep(server, s3, "s3")
    s3.put_object(Bucket="other", Key="in/data.txt", Body=b"from outside")
    place = repository(s3, bucket="other")
    workflow = {
        "kind": "Workflow", "metadata": {"generateName": "own-"},
        "spec": {"entrypoint": "main", "templates": [{
            "name": "main",
            "inputs": {"artifacts": [
                {"name": "in", "path": "/tmp/in", "s3": {**place, "key": "in/data.txt"}},
                {"name": "maybe", "path": "/tmp/maybe", "optional": True, "s3": {**place, "key": "no/such"}},
            ]},
            "container": {"image": "busybox", "command": [
                "sh", "-ec", "test ! -e /tmp/maybe; tr a-z A-Z < /tmp/in > /tmp/out"]},
            "outputs": {"artifacts": [
                {"name": "out", "path": "/tmp/out", "archive": {"none": {}}, "s3": {**place, "key": "out/data.txt"}}]},
        }]},
    }
    ended = server.wait(server.submit(workflow, "s3"), "s3")
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    assert s3.get_object(Bucket="other", Key="out/data.txt")["Body"].read() == b"FROM OUTSIDE"
    (node,) = ended["status"]["nodes"].values()
    shown = node["outputs"]["artifacts"][0]["s3"]
    assert shown["bucket"] == "other" and shown["key"] == "out/data.txt"


def test_mistakes_are_told(server, s3):
    keep(server, s3, "s3")
    missing = {**repository(s3, bucket="other"), "key": "no/such"}
    no_secret = {**missing, "accessKeySecret": {"name": "none", "key": "who"}}
    no_bucket = {**missing, "bucket": "none", "key": "x"}
    for place, part in [
        (missing, "there is no no/such"), (no_secret, 'secret "none" with key "who" not found'),
        (no_bucket, "none"),
    ]:
        workflow = {"kind": "Workflow", "metadata": {"generateName": "bad-"}, "spec": {
            "entrypoint": "main", "templates": [{
                "name": "main", "inputs": {"artifacts": [{"name": "in", "path": "/tmp/in", "s3": place}]},
                "container": {"image": "busybox", "command": ["true"]}}]}}
        ended = server.wait(server.submit(workflow, "s3"), "s3")
        assert ended["status"]["phase"] == "Error", ended["status"]
        assert part in ended["status"]["message"], ended["status"]["message"]
        assert "hunter2hunter2" not in json.dumps(ended)


def test_logs_are_archived_and_keys_listed(server, s3):
    keep(server, s3, "s3")
    workflow = yaml.safe_load("""
    kind: Workflow
    metadata: {generateName: logs-}
    spec:
      entrypoint: main
      artifactRepositoryRef: {key: logs}
      templates:
      - name: main
        steps:
        - - {name: say, template: say}
        - - {name: list, template: list}
        - - {name: count, template: count, arguments: {parameters: [{name: n, value: "{{steps.list.outputs.result}}"}]}}
      - {name: say, container: {image: busybox, command: [sh, -c, "echo to stdout; echo to stderr >&2"]}}
      - name: list
        data:
          source: {artifactPaths: {name: logs, s3: {key: "logs/{{workflow.name}}"}}}
          transformation: [{expression: "filter(data, {# endsWith '.log'})"}]
      - {name: count, inputs: {parameters: [{name: n}]}, container: {image: busybox, command: [echo, "{{inputs.parameters.n}}"]}}
    """)
    name = server.submit(workflow, "s3")
    ended = server.wait(name, "s3")
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    say = next(n for n in ended["status"]["nodes"].values() if n["displayName"] == "say")
    (log,) = say["outputs"]["artifacts"]
    assert log["name"] == "main-logs" and log["s3"]["key"].startswith(f"logs/{name}/{name}-say-")
    body = s3.get_object(Bucket="artifacts", Key=log["s3"]["key"])["Body"].read()
    assert sorted(body.splitlines()) == [b"to stderr", b"to stdout"]
    listed = next(n for n in ended["status"]["nodes"].values() if n["displayName"] == "list")
    assert json.loads(listed["outputs"]["result"]) == [log["s3"]["key"]]


def test_artifacts_go_when_their_workflow_says_so(server, s3):
    keep(server, s3, "s3")
    workflow = {**PASSES, "spec": {**PASSES["spec"], "artifactGC": {"strategy": "OnWorkflowDeletion"}}}
    name = server.submit(workflow, "s3")
    assert server.wait(name, "s3")["status"]["phase"] == "Succeeded"
    assert keys(s3, "artifacts", f"{name}/")
    server.good("DELETE", f"/api/v1/workflows/s3/{name}")
    assert not keys(s3, "artifacts", f"{name}/") and not keys(s3, "artifacts", f"by/{name}")
    workflow = {**PASSES, "spec": {**PASSES["spec"], "artifactGC": {"strategy": "OnWorkflowCompletion"}}}
    name = server.submit(workflow, "s3")
    assert server.wait(name, "s3")["status"]["phase"] == "Succeeded"
    until = time.monotonic() + 30
    while keys(s3, "artifacts", f"{name}/") or keys(s3, "artifacts", f"by/{name}"):
        assert time.monotonic() < until
        time.sleep(0.1)
    until = time.monotonic() + 30
    while True:
        nodes = server.get(name, "s3")["status"]["nodes"].values()
        if all(a.get("deleted") for n in nodes for a in n.get("outputs", {}).get("artifacts", [])):
            break
        assert time.monotonic() < until
        time.sleep(0.1)
