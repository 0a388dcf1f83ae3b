"""The HTTP calls that the argo command line makes (ARGO_HTTP1=true), replayed: what it sends, and
the fields that it reads of the answers. Success is 200 and nothing else."""

import json
import subprocess
import time
import urllib.parse

import pytest
import yaml

HELLO = {
    "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
    "metadata": {"generateName": "hello-", "labels": {"team": "cli"}},
    "spec": {
        "entrypoint": "main",
        "arguments": {"parameters": [{"name": "text", "value": "hello"}]},
        "templates": [{
            "name": "main", "inputs": {"parameters": [{"name": "text"}]},
            "container": {"image": "busybox", "command": ["echo", "{{inputs.parameters.text}}"]},
        }],
    },
}
WAITS = yaml.safe_load("""
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: waits-}
spec:
  entrypoint: main
  onExit: bye
  templates:
  - name: main
    steps:
    - - {name: approve, template: approve}
    - - {name: say, template: say, arguments: {parameters: [{name: m, value: "{{steps.approve.outputs.parameters.who}}"}]}}
  - {name: approve, suspend: {}, outputs: {parameters: [{name: who, valueFrom: {supplied: {}}}]}}
  - {name: say, inputs: {parameters: [{name: m}]}, container: {image: busybox, command: [echo, "{{inputs.parameters.m}}"]}}
  - {name: bye, container: {image: busybox, command: [echo, bye]}}
""")
SLEEPS = yaml.safe_load("""
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: sleeps-}
spec:
  entrypoint: main
  onExit: bye
  templates:
  - {name: main, container: {image: busybox, command: [sleep, "60"]}}
  - {name: bye, container: {image: busybox, command: [echo, bye]}}
""")


def query(**options):
    return "?" + urllib.parse.urlencode({k.replace("__", "."): v for k, v in options.items()})


def test_submit_get_list_and_delete(server):
    created = server.good("POST", "/api/v1/workflows/cli", {
        "namespace": "cli", "workflow": HELLO, "createOptions": {},
    })
    name = created["metadata"]["name"]
    assert created["metadata"]["uid"] and created["metadata"]["creationTimestamp"]
    ended = server.wait(name, "cli")
    assert ended["status"]["phase"] == "Succeeded"
    assert ended["status"]["progress"] == "1/1"
    (node,) = ended["status"]["nodes"].values()
    assert node["id"] == name and node["type"] == "Pod" and node["templateName"] == "main"
    fields = "items.metadata.name,items.status.phase,items.status.startedAt"
    selector = "workflows.argoproj.io/phase in (Succeeded),team=cli"
    found = server.good("GET", "/api/v1/workflows/cli" + query(
        listOptions__labelSelector=selector, fields=fields, listOptions__limit=500))
    assert [w["metadata"] for w in found["items"]] == [{"name": name}]
    assert set(found["items"][0]["status"]) == {"phase", "startedAt"}
    found = server.good("GET", "/api/v1/workflows/cli" + query(
        listOptions__fieldSelector=f"metadata.name={name}"))
    assert len(found["items"]) == 1
    found = server.good("GET", "/api/v1/workflows/cli" + query(
        listOptions__labelSelector="workflows.argoproj.io/completed!=true"))
    assert found["items"] == []
    assert "nodes" not in server.good(
        "GET", f"/api/v1/workflows/cli/{name}" + query(fields="-status.nodes"))["status"]
    assert server.good("GET", "/api/v1/workflows/cli/@latest")["metadata"]["name"] == name
    status, again = server.call("POST", "/api/v1/workflows/cli", {
        "workflow": {**HELLO, "metadata": {"name": name}},
    })
    assert (status, again["code"]) == (409, 6)
    assert server.good("DELETE", f"/api/v1/workflows/cli/{name}") == {}
    status, gone = server.call("GET", f"/api/v1/workflows/cli/{name}")
    assert (status, gone["code"]) == (404, 5) and "not found" in gone["message"]


def test_dry_run_starts_nothing(server):
    answer = server.good("POST", "/api/v1/workflows/dry", {"workflow": HELLO, "serverDryRun": True})
    assert answer["metadata"]["name"].startswith("hello-")
    assert server.good("GET", "/api/v1/workflows/dry")["items"] == []


def test_pages(server):
    for _ in range(3):
        server.submit(HELLO, "pages")
    first = server.good("GET", "/api/v1/workflows/pages" + query(listOptions__limit=2))
    assert len(first["items"]) == 2
    rest = server.good("GET", "/api/v1/workflows/pages" + query(
        listOptions__limit=2, listOptions__continue=first["metadata"]["continue"]))
    assert len(rest["items"]) == 1 and "continue" not in rest["metadata"]


def test_logs_and_watch(server):
    name = server.submit(HELLO, "cli")
    server.wait(name, "cli")
    lines = server.stream(f"/api/v1/workflows/cli/{name}/log" + query(
        logOptions__container="main", logOptions__follow="true"))
    assert {"content": "hello", "podName": name} in lines
    lines = server.stream(f"/api/v1/workflows/cli/{name}/{name}/log" + query(
        logOptions__container="main", grep="nothing"))
    assert lines == []
    other = server.submit(WAITS, "cli")
    watched = subprocess.Popen(
        ["curl", "-sN", server.argo_host + "/api/v1/workflow-events/cli" + query(
            listOptions__fieldSelector=f"metadata.name={other}")],
        stdout=subprocess.PIPE,
    )
    kinds = []
    try:
        for line in watched.stdout:
            if len(line) <= 6:
                continue
            event = json.loads(line.removeprefix(b"data: "))["result"]
            kinds.append(event["type"])
            assert event["object"]["metadata"]["name"] == other
            if len(kinds) == 1:
                server.good("PUT", f"/api/v1/workflows/cli/{other}/terminate", {"name": other})
            if event["object"]["status"]["phase"] == "Failed":
                break
    finally:
        watched.kill()
        watched.wait()
    assert kinds[0] == "ADDED" and "MODIFIED" in kinds


def test_suspended_nodes_are_set_and_resumed(server):
    name = server.submit(WAITS, "cli")
    until = time.monotonic() + 30
    while not any(
        n["type"] == "Suspend" and n["phase"] == "Running"
        for n in server.get(name, "cli")["status"].get("nodes", {}).values()
    ):
        assert time.monotonic() < until
        time.sleep(0.05)
    path = f"/api/v1/workflows/cli/{name}"
    status, refused = server.call("PUT", f"{path}/resume", {"name": name, "namespace": "cli"})
    assert status == 400 and "has not been set" in refused["message"]
    server.good("PUT", f"{path}/set", {
        "name": name, "namespace": "cli", "nodeFieldSelector": "displayName=approve",
        "phase": "Succeeded", "outputParameters": json.dumps({"who": "me"}),
    })
    ended = server.wait(name, "cli")
    assert ended["status"]["phase"] == "Succeeded"
    said = [n["outputs"]["exitCode"] for n in ended["status"]["nodes"].values() if n["displayName"] == "say"]
    assert said == ["0"]


@pytest.mark.parametrize("action,handled", [("stop", True), ("terminate", False)])
def test_stop_runs_exit_handlers_and_terminate_does_not(server, action, handled):
    name = server.submit(SLEEPS, "cli")
    server.wait(name, "cli", ("Running",))
    server.good("PUT", f"/api/v1/workflows/cli/{name}/{action}", {"name": name, "namespace": "cli"})
    ended = server.wait(name, "cli")
    assert ended["status"]["phase"] == "Failed"
    assert ended["status"]["message"].startswith("Stopped with strategy")
    exits = [n for n in ended["status"]["nodes"].values() if n["name"].endswith(".onExit")]
    assert bool(exits) == handled


def test_workflow_is_suspended_and_resumed(server):
    name = server.submit(WAITS, "cli")
    path = f"/api/v1/workflows/cli/{name}"
    assert server.good("PUT", f"{path}/suspend", {"name": name})["spec"]["suspend"] is True
    server.good("PUT", f"{path}/terminate", {"name": name})
    server.wait(name, "cli")


def test_templates_crons_and_submit_from(server):
    spec = HELLO["spec"]
    shelf = {"kind": "WorkflowTemplate", "metadata": {"name": "cli-shelf"}, "spec": spec}
    made = server.good("POST", "/api/v1/workflow-templates/cli", {"namespace": "cli", "template": shelf})
    assert made["metadata"]["resourceVersion"] == "1"
    assert server.good("PUT", "/api/v1/workflow-templates/cli/cli-shelf", {
        "name": "cli-shelf", "namespace": "cli", "template": made})["metadata"]["resourceVersion"] == "2"
    listed = server.good("GET", "/api/v1/workflow-templates/cli" + query(namePattern="shelf"))
    assert [t["metadata"]["name"] for t in listed["items"]] == ["cli-shelf"]
    started = server.good("POST", "/api/v1/workflows/cli/submit", {
        "namespace": "cli", "resourceKind": "workflowtemplate", "resourceName": "cli-shelf",
        "submitOptions": {"generateName": "from-shelf-", "parameters": ["text=given"], "labels": "a=b,c=d"},
    })
    ended = server.wait(started["metadata"]["name"], "cli")
    assert ended["metadata"]["labels"]["a"] == "b"
    assert ended["spec"]["arguments"]["parameters"] == [{"name": "text", "value": "given"}]
    cron = {"kind": "CronWorkflow", "metadata": {"name": "cli-cron"},
            "spec": {"schedule": "@every 1s", "concurrencyPolicy": "Forbid",
                     "successfulJobsHistoryLimit": 2, "workflowSpec": spec}}
    server.good("POST", "/api/v1/cron-workflows/cli", {"namespace": "cli", "cronWorkflow": cron})
    started = server.good("POST", "/api/v1/workflows/cli/submit", {
        "namespace": "cli", "resourceKind": "CronWorkflow", "resourceName": "cli-cron", "submitOptions": {}})
    server.wait(started["metadata"]["name"], "cli")
    until = time.monotonic() + 60
    while (status := server.good("GET", "/api/v1/cron-workflows/cli/cli-cron")["status"])["succeeded"] < 4:
        assert time.monotonic() < until, status
        time.sleep(0.2)
    label = "workflows.argoproj.io/cron-workflow=cli-cron"
    made = server.good("GET", "/api/v1/workflows/cli" + query(
        listOptions__labelSelector=label, fields="items.metadata,items.status.phase"))["items"]
    assert all(w["metadata"]["name"].startswith("cli-cron-") for w in made)
    assert all("workflows.argoproj.io/scheduled-time" in w["metadata"]["annotations"] for w in made)
    assert len([w for w in made if w["status"]["phase"] == "Succeeded"]) <= 3
    assert server.good("PUT", "/api/v1/cron-workflows/cli/cli-cron/suspend", {})["spec"]["suspend"]
    last = server.good("GET", "/api/v1/cron-workflows/cli/cli-cron")["status"]["lastScheduledTime"]
    time.sleep(2.5)
    assert server.good("GET", "/api/v1/cron-workflows/cli/cli-cron")["status"]["lastScheduledTime"] == last
    assert server.good("DELETE", "/api/v1/cron-workflows/cli/cli-cron") == {}
    assert server.good("DELETE", "/api/v1/workflow-templates/cli/cli-shelf") == {}


def test_cluster_templates_lints_limits_and_the_server_itself(server):
    spec = HELLO["spec"]
    cluster = {"kind": "ClusterWorkflowTemplate", "metadata": {"name": "cli-cluster"}, "spec": spec}
    path = "/api/v1/cluster-workflow-templates"
    server.good("POST", f"{path}/lint", {"template": cluster})
    made = server.good("POST", path, {"template": cluster})
    assert server.good("GET", f"{path}/cli-cluster")["metadata"]["uid"] == made["metadata"]["uid"]
    assert server.good("PUT", f"{path}/cli-cluster", {"name": "cli-cluster", "template": made})["spec"] == spec
    assert "cli-cluster" in [t["metadata"]["name"] for t in server.good("GET", path)["items"]]
    started = server.good("POST", "/api/v1/workflows/cli/submit", {
        "namespace": "cli", "resourceKind": "clusterworkflowtemplate", "resourceName": "cli-cluster",
        "submitOptions": {"name": "from-cluster", "entryPoint": "main"}})
    assert started["metadata"]["name"] == "from-cluster"
    assert server.wait("from-cluster", "cli")["status"]["phase"] == "Succeeded"
    assert server.good("DELETE", f"{path}/cli-cluster") == {}
    assert server.call("GET", f"{path}/cli-cluster")[0] == 404
    template = {"kind": "WorkflowTemplate", "metadata": {"name": "linted"}, "spec": spec}
    server.good("POST", "/api/v1/workflow-templates/cli/lint", {"namespace": "cli", "template": template})
    cron = {"kind": "CronWorkflow", "metadata": {"name": "linted"}, "spec": {"schedules": ["0 3 * * *"], "workflowSpec": spec}}
    server.good("POST", "/api/v1/cron-workflows/cli/lint", {"namespace": "cli", "cronWorkflow": cron})
    cron["spec"]["schedules"] = ["nonsense"]
    status, answer = server.call("POST", "/api/v1/cron-workflows/cli/lint", {"cronWorkflow": cron})
    assert status == 400 and "malformed" in answer["message"] and "hint" in answer["message"]
    assert server.call("GET", "/api/v1/workflow-templates/cli/linted")[0] == 404, "a lint keeps nothing"
    sync = {"type": "DATABASE", "namespace": "cli", "key": "slots", "limit": 2}
    assert server.good("POST", "/api/v1/sync/cli", sync)["limit"] == 2
    assert server.good("PUT", "/api/v1/sync/cli/slots", {**sync, "limit": 3})["limit"] == 3
    assert server.good("GET", "/api/v1/sync/cli/slots")["limit"] == 3
    server.good("DELETE", "/api/v1/sync/cli/slots")
    assert server.call("GET", "/api/v1/sync/cli/slots")[0] == 404
    assert "links" in server.good("GET", "/api/v1/info")
    assert server.good("GET", "/api/v1/version")["version"].startswith("kobza-")
    assert "subject" in server.good("GET", "/api/v1/userinfo")
    assert server.good("POST", "/api/v1/tracking/event", {"name": "x"}) == {}


def test_a_stop_strategy_ends_a_cron_workflow(server):
    cron = {"kind": "CronWorkflow", "metadata": {"name": "fails"},
            "spec": {"schedules": ["@every 1s"], "stopStrategy": {"expression": "cronworkflow.failed >= 2"},
                     "failedJobsHistoryLimit": 5,
                     "workflowSpec": {"entrypoint": "m", "templates": [
                         {"name": "m", "container": {"image": "busybox", "command": ["false"]}}]}}}
    server.good("POST", "/api/v1/cron-workflows/cli", {"cronWorkflow": cron})
    until = time.monotonic() + 60
    while (seen := server.good("GET", "/api/v1/cron-workflows/cli/fails"))["status"]["phase"] != "Stopped":
        assert time.monotonic() < until, seen
        time.sleep(0.2)
    time.sleep(2)
    assert server.good("GET", "/api/v1/cron-workflows/cli/fails")["status"]["failed"] in (2, 3)
    server.good("DELETE", "/api/v1/cron-workflows/cli/fails")


def test_lint_says_where(server):
    good = server.good("POST", "/api/v1/workflows/cli/lint", {"namespace": "cli", "workflow": HELLO})
    assert good["spec"]["entrypoint"] == "main"
    for change, part in [
        ({"entrypoint": "nope"}, "template name 'nope' undefined"),
        ({"entryPoint": "main"}, 'unknown field "entryPoint"'),
        ({"templates": [{"name": "main"}]}, "template type is unspecified"),
        ({"arguments": {}, "templates": [{"name": "main", "container": {
            "image": "x", "command": ["echo", "{{workflow.parameters.text}}"]}}]},
         "failed to resolve {{workflow.parameters.text}}"),
    ]:
        wrong = {**HELLO, "spec": {**HELLO["spec"], **change}}
        status, answer = server.call("POST", "/api/v1/workflows/cli/lint", {"workflow": wrong})
        assert (status, answer["code"]) == (400, 3) and part in answer["message"], answer


def test_events_start_workflows(server):
    shelf = {"kind": "WorkflowTemplate", "metadata": {"name": "consumer"}, "spec": HELLO["spec"]}
    server.keep(shelf, "cli")
    binding = {"kind": "WorkflowEventBinding", "metadata": {"name": "consumer"}, "spec": {
        "event": {"selector": 'payload.message != "" && metadata["x-token"] == ["t"] && discriminator == "d"'},
        "submit": {"workflowTemplateRef": {"name": "consumer"}, "arguments": {"parameters": [
            {"name": "text", "valueFrom": {"event": "payload.message"}}]}}}}
    server.good("POST", "/api/v1/workflow-event-bindings/cli", {"workflowEventBinding": binding})
    assert len(server.good("GET", "/api/v1/workflow-event-bindings/cli")["items"]) == 1
    assert server.call("POST", "/api/v1/events/cli/d", {"message": "ev"}, {"X-Token": "t"})[0] == 200
    label = "workflows.argoproj.io/workflow-event-binding=consumer"
    found = server.good("GET", "/api/v1/workflows/cli" + query(listOptions__labelSelector=label))["items"]
    assert len(found) == 1
    assert found[0]["spec"]["arguments"]["parameters"] == [{"name": "text", "value": "ev"}]
    assert server.call("POST", "/api/v1/events/cli/other", {"message": "ev"}, {"X-Token": "t"})[0] == 200
    found = server.good("GET", "/api/v1/workflows/cli" + query(listOptions__labelSelector=label))["items"]
    assert len(found) == 1
    server.good("DELETE", "/api/v1/workflow-event-bindings/cli/consumer")


def test_secrets_are_used_and_not_told(server):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"k": "hunter2"}}
    kept = server.keep(secret, "cli")
    assert kept["keys"] == ["k"] and "hunter2" not in json.dumps(kept)
    listed = server.good("GET", "/api/v1/namespaces/cli/secrets")
    assert "hunter2" not in json.dumps(listed) and len(listed["items"]) == 1
    workflow = yaml.safe_load("""
    kind: Workflow
    metadata: {generateName: secret-}
    spec:
      entrypoint: main
      templates:
      - name: main
        container:
          image: busybox
          command: [sh, -ec, '[ "$K" = hunter2 ]; echo $K']
          env: [{name: K, valueFrom: {secretKeyRef: {name: key, key: k}}}]
    """)
    name = server.submit(workflow, "cli")
    assert server.wait(name, "cli")["status"]["phase"] == "Succeeded"
    lines = server.stream(f"/api/v1/workflows/cli/{name}/log")
    assert "hunter2" not in json.dumps(lines)


def test_artifact_files(server):
    workflow = yaml.safe_load("""
    kind: Workflow
    metadata: {generateName: art-}
    spec:
      entrypoint: main
      templates:
      - name: main
        container: {image: busybox, command: [sh, -c, "echo content > /tmp/f"]}
        outputs: {artifacts: [{name: f, path: /tmp/f, archive: {none: {}}}]}
    """)
    name = server.submit(workflow, "cli")
    uid = server.wait(name, "cli")["metadata"]["uid"]
    for path in (
        f"/artifacts/cli/{name}/{name}/f", f"/artifacts-by-uid/{uid}/{name}/f",
        f"/artifact-files/cli/workflows/{name}/{name}/outputs/f",
    ):
        got = subprocess.run(["curl", "-sf", server.argo_host + path], stdout=subprocess.PIPE, check=True)
        assert got.stdout == b"content\n"
    assert server.call("GET", f"/artifacts/cli/{name}/{name}/nope")[0] == 404


def test_a_killed_server_goes_on(own_server):
    """500 nodes; the server is killed in the middle, and started again."""
    one = own_server("--slots", "8")
    workflow = yaml.safe_load("""
    kind: Workflow
    metadata: {name: many}
    spec:
      entrypoint: main
      templates:
      - name: main
        steps:
        - - {name: each, template: one, withSequence: {count: "498"}}
      - {name: one, container: {image: busybox, command: ["true"]}}
    """)
    one.submit(workflow)
    until = time.monotonic() + 120
    while int(one.get("many")["status"]["progress"].split("/")[0]) < 100:
        assert time.monotonic() < until
        time.sleep(0.05)
    one.kill()
    one.start()
    ended = one.wait("many", seconds=300)
    assert ended["status"]["phase"] == "Succeeded"
    nodes = ended["status"]["nodes"].values()
    assert len(nodes) == 500 and len({n["name"] for n in nodes}) == 500
    assert all(n["phase"] == "Succeeded" for n in nodes)


def test_tokens(own_server):
    one = own_server()
    request = json.dumps({"name": "argo", "role": "operator"}).encode()
    made = subprocess.run(
        ["curl", "-sS", "-X", "POST", "-H", "content-type: application/json", "-d", request.decode(),
         f"{one.host}/api/v1/tokens"], stdout=subprocess.PIPE, check=True)
    token = json.loads(made.stdout).get("token")
    assert token, made.stdout
    good = {"Authorization": f"Bearer {token}"}
    assert one.call("GET", "/api/v1/workflows/argo", headers=good)[0] == 200
    status, refused = one.call("GET", "/api/v1/workflows/argo", headers={"Authorization": "Bearer no"})
    assert (status, refused["code"]) == (401, 16)
