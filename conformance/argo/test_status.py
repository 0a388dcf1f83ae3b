"""What a workflow's status and metrics say, and what a retry or a resubmission may change."""

import time
import urllib.request

import yaml


def workflow(text):
    return yaml.safe_load(text)


def until(look, seconds=30):
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_who_holds_and_who_waits(server):
    server.keep({"kind": "ConfigMap", "metadata": {"name": "sizes"}, "data": {"two": "2"}}, "sync")
    made = workflow("""
    kind: Workflow
    metadata: {generateName: holds-}
    spec:
      entrypoint: main
      templates:
      - {name: main, steps: [[{name: each, template: leaf, withItems: [a, b, c]}]]}
      - name: leaf
        synchronization: {semaphores: [{configMapKeyRef: {name: sizes, key: two}}]}
        container: {image: busybox, command: [sleep, "3"]}
    """)
    name = server.submit(made, "sync")

    def holds():
        sync = server.get(name, "sync")["status"].get("synchronization", {}).get("semaphore", {})
        return sync if len(sync.get("holding", [{}])[0].get("holders", [])) == 2 and "waiting" in sync else None

    sync = until(holds)
    seen = server.get(name, "sync")
    holders = sync["holding"][0]["holders"]
    assert sync["holding"][0]["semaphore"] == "sync/ConfigMap/sizes/two"
    assert all(h.startswith(f"sync/{name}/{name}-") and h.split("/")[2] in seen["status"]["nodes"] for h in holders)
    assert sync["waiting"][0]["holders"] == holders
    waiting = [n for n in seen["status"]["nodes"].values() if "synchronizationStatus" in n]
    assert [n["synchronizationStatus"]["waiting"] for n in waiting] == ["sync/ConfigMap/sizes/two"]
    ended = server.wait(name, "sync")
    assert "synchronization" not in ended["status"]
    locked = workflow("""
    kind: Workflow
    metadata: {generateName: locked-}
    spec:
      entrypoint: main
      synchronization: {mutexes: [{name: door}]}
      templates: [{name: main, container: {image: busybox, command: [sleep, "2"]}}]
    """)
    first = server.submit(locked, "sync")
    until(lambda: "synchronization" in server.get(first, "sync")["status"])
    second = server.submit(locked, "sync")
    wanted = {"mutex": "sync/Mutex/door", "holder": f"sync/{first}"}
    waits = until(lambda: server.get(second, "sync")["status"].get("synchronization"))
    assert waits["mutex"]["waiting"] == [wanted]
    assert server.get(first, "sync")["status"]["synchronization"]["mutex"]["holding"] == [wanted]
    server.wait(first, "sync"), server.wait(second, "sync")


def test_estimates_and_resources(server):
    template = workflow("""
    kind: WorkflowTemplate
    metadata: {name: timed}
    spec:
      entrypoint: main
      templates:
      - {name: main, steps: [[{name: a, template: a}]]}
      - {name: a, container: {image: busybox, command: [sleep, "2"], resources: {requests: {cpu: "2", memory: 200Mi}}}}
    """)
    server.keep(template, "timed")
    submit = {"resourceKind": "WorkflowTemplate", "resourceName": "timed", "submitOptions": {}}
    first = server.good("POST", "/api/v1/workflows/timed/submit", submit)["metadata"]["name"]
    ended = server.wait(first, "timed")
    assert "estimatedDuration" not in ended["status"]
    (pod,) = (n for n in ended["status"]["nodes"].values() if n["type"] == "Pod")
    assert pod["resourcesDuration"]["cpu"] >= 4 and pod["resourcesDuration"]["memory"] >= 4
    assert ended["status"]["resourcesDuration"] == pod["resourcesDuration"]
    second = server.good("POST", "/api/v1/workflows/timed/submit", submit)["metadata"]["name"]
    ended = server.wait(second, "timed")
    assert ended["status"]["estimatedDuration"] >= 2
    nodes = {n["displayName"]: n for n in ended["status"]["nodes"].values()}
    assert nodes["a"]["estimatedDuration"] >= 2


FAILS = """
kind: Workflow
metadata: {generateName: fails-}
spec:
  entrypoint: main
  arguments: {parameters: [{name: code, value: "1"}]}
  templates:
  - name: main
    inputs: {parameters: [{name: code}]}
    steps:
    - - {name: good, template: good}
    - - {name: bad, template: bad, arguments: {parameters: [{name: code, value: "{{inputs.parameters.code}}"}, {name: text, value: "{{steps.good.outputs.result}}"}]}}
  - {name: good, container: {image: busybox, command: [date, "+%N"]}}
  - {name: bad, inputs: {parameters: [{name: code}, {name: text}]}, container: {image: busybox, command: [sh, -c, "exit {{inputs.parameters.code}}"]}}
"""


def results(seen):
    return {n["displayName"]: n for n in seen["status"]["nodes"].values()}


def test_a_retry_with_other_parameters(server):
    name = server.submit(workflow(FAILS), "again")
    before = server.wait(name, "again")
    assert before["status"]["phase"] == "Failed"
    path = f"/api/v1/workflows/again/{name}"
    server.good("PUT", f"{path}/retry", {"name": name, "namespace": "again", "parameters": ["code=0"]})
    ended = server.wait(name, "again", ("Succeeded",))
    assert ended["spec"]["arguments"]["parameters"] == [{"name": "code", "value": "0"}]
    kept = results(before)["good"]["outputs"]["result"]
    assert results(ended)["good"]["outputs"]["result"] == kept
    # What succeeded runs again only when it is asked for, and what depends on it then too.
    status, refused = server.call("PUT", f"{path}/retry", {"name": name, "restartSuccessful": True})
    assert status == 400 and "nodeFieldSelector" in refused["message"]
    server.good("PUT", f"{path}/retry", {
        "name": name, "restartSuccessful": True, "nodeFieldSelector": "displayName=good"})
    ended = until(lambda: (s := server.get(name, "again"))["status"]["phase"] == "Succeeded" and s)
    fresh = results(ended)["good"]["outputs"]["result"]
    assert fresh != kept
    assert {"name": "text", "value": fresh} in results(ended)["bad"]["inputs"]["parameters"]


def test_a_memoized_resubmission(server):
    name = server.submit(workflow(FAILS), "again")
    before = server.wait(name, "again")
    path = f"/api/v1/workflows/again/{name}/resubmit"
    again = server.good("PUT", path, {
        "name": name, "namespace": "again", "memoized": True, "parameters": ["code=0"]})["metadata"]["name"]
    assert again != name
    ended = server.wait(again, "again")
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    good = results(ended)["good"]
    assert good["type"] == "Pod" and good["phase"] == "Succeeded"
    assert good["outputs"]["result"] == results(before)["good"]["outputs"]["result"]
    status, refused = server.call("PUT", f"/api/v1/workflows/again/{again}/resubmit", {"name": again, "memoized": True})
    assert status == 400 and "must be Failed/Error" in refused["message"]


def test_the_archive_is_what_has_ended(server):
    name = server.submit(workflow(FAILS), "ended")
    uid = server.wait(name, "ended")["metadata"]["uid"]
    listed = server.good("GET", "/api/v1/archived-workflows?listOptions.fieldSelector=metadata.namespace%3Dended")
    assert [w["metadata"]["name"] for w in listed["items"]] == [name]
    assert "workflows.argoproj.io/phase" in server.good("GET", "/api/v1/archived-workflows-label-keys")["items"]
    values = server.good(
        "GET", "/api/v1/archived-workflows-label-values?listOptions.labelSelector=workflows.argoproj.io/phase")
    assert "Failed" in values["items"]
    one = f"/api/v1/archived-workflows/{uid}"
    assert results(server.good("GET", one))["bad"]["phase"] == "Failed"
    again = server.good("PUT", f"{one}/resubmit", {"uid": uid, "parameters": ["code=0"]})["metadata"]["name"]
    assert server.wait(again, "ended")["status"]["phase"] == "Succeeded"
    assert server.good("DELETE", one) == {}
    assert server.call("GET", one)[0] == 404
    assert server.call("GET", "/api/v1/archived-workflows/nonsense")[0] == 404


def test_custom_metrics(server):
    made = workflow("""
    kind: Workflow
    metadata: {generateName: metered-}
    spec:
      entrypoint: main
      metrics: {prometheus: [{name: conf_workflows, help: w, labels: [{key: status, value: "{{workflow.status}}"}], counter: {value: "1"}}]}
      templates:
      - {name: main, steps: [[{name: a, template: a, arguments: {parameters: [{name: n, value: "3"}]}}, {name: b, template: a, arguments: {parameters: [{name: n, value: "4"}]}}]]}
      - name: a
        inputs: {parameters: [{name: n}]}
        metrics:
          prometheus:
          - {name: conf_sum, help: s, counter: {value: "{{inputs.parameters.n}}"}}
          - {name: conf_made, help: m, labels: [{key: n, value: "{{inputs.parameters.n}}"}], gauge: {value: "{{outputs.parameters.made}}"}}
          - {name: conf_failed, help: f, when: "{{status}} == Failed", counter: {value: "1"}}
          - {name: conf_seconds, help: d, histogram: {value: "{{duration}}", buckets: [60, 600]}}
        container: {image: busybox, command: [sh, -c, "echo 1{{inputs.parameters.n}} > /tmp/made"]}
        outputs: {parameters: [{name: made, valueFrom: {path: /tmp/made}}]}
    """)
    assert server.wait(server.submit(made, "metered"), "metered")["status"]["phase"] == "Succeeded"

    def lines():
        with urllib.request.urlopen(f"{server.host}/metrics", timeout=30) as answer:
            text = answer.read().decode().splitlines()
        assert text[-1] == "# EOF"
        wanted = {
            'argo_workflows_conf_workflows{status="Succeeded"} 1.0', "argo_workflows_conf_sum 7.0",
            'argo_workflows_conf_made{n="3"} 13.0', 'argo_workflows_conf_made{n="4"} 14.0',
            'argo_workflows_conf_seconds_bucket{le="60.0"} 2', "argo_workflows_conf_seconds_count 2",
        }
        return wanted <= set(text) and not [t for t in text if t.startswith("argo_workflows_conf_failed")]

    until(lines)


def test_logs_go_with_the_pods(server):
    made = workflow("""
    kind: Workflow
    metadata: {generateName: pods-}
    spec:
      entrypoint: main
      podGC: {strategy: OnWorkflowCompletion, deleteDelayDuration: 1s}
      templates: [{name: main, container: {image: busybox, command: [echo, hello]}}]
    """)
    name = server.submit(made, "pods")
    server.wait(name, "pods")
    path = f"/api/v1/workflows/pods/{name}/log"
    assert [line["content"] for line in server.stream(path)] == ["hello"]
    until(lambda: server.stream(path) == [])
    assert server.get(name, "pods")["status"]["phase"] == "Succeeded"
