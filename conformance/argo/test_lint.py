"""Mistakes in workflows: each is refused with the path of its field, a known message, and a hint."""

import subprocess

import os

import pytest
import yaml

BODY = {"image": "busybox", "command": ["echo"]}


def workflow(spec=None, **template):
    """A workflow whose first template is `main`."""
    main = {"name": "main", **(template or {"container": BODY})}
    base = {"entrypoint": "main", "templates": [main]}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
            "metadata": {"generateName": "lint-"}, "spec": {**base, **(spec or {})}}


def steps(*groups, spec=None, **more):
    leaf = {"name": "leaf", "inputs": {"parameters": [{"name": "p", "value": "v"}]}, "container": BODY,
            "outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}}
    made = workflow(spec, steps=[list(group) for group in groups], **more)
    made["spec"]["templates"].append(leaf)
    return made


def dag(*tasks, **more):
    made = steps()
    del made["spec"]["templates"][0]["steps"]
    made["spec"]["templates"][0]["dag"] = {"tasks": list(tasks), **more}
    return made


def call(name="a", **more):
    return {"name": name, "template": "leaf", **more}


def argument(value):
    return {"parameters": [{"name": "p", "value": value}]}


def twice(item):
    return [item, dict(item)]


PARAMETER = {"name": "x", "value": "1"}
METRIC = {"name": "m", "help": "h", "counter": {"value": "1"}}
CASES = {
    "unknown field": (
        workflow(container={**BODY, "unknown_field": ""}), "container.unknown_field", "unknown field"),
    "no entrypoint": (workflow({"entrypoint": ""}), "spec.entrypoint", "is required"),
    "undefined entrypoint": (workflow({"entrypoint": "no"}), "spec.entrypoint", "template name 'no' undefined"),
    "duplicate template": (
        workflow({"templates": twice({"name": "main", "container": BODY})}), "spec.templates[1].name", "not unique"),
    "template without name": (
        workflow({"templates": [{"container": BODY}]}), "spec.templates[0].name", "name is required"),
    "bad template name": (
        workflow({"entrypoint": "a_b", "templates": [{"name": "a_b", "container": BODY}]}),
        "spec.templates[0].name", "is invalid"),
    "duplicate input": (
        workflow(inputs={"parameters": twice(PARAMETER)}, container=BODY), "inputs.parameters[1].name", "not unique"),
    "input without name": (
        workflow(inputs={"parameters": [{"name": "", "value": "1"}]}, container=BODY),
        "inputs.parameters[0].name", "name is required"),
    "bad input name": (
        workflow(inputs={"parameters": [{"name": "a+b", "default": "1"}]}, container=BODY),
        "inputs.parameters[0].name", "is invalid"),
    "bad input artifact name": (
        workflow(inputs={"artifacts": [{"name": "a(b", "path": "/a", "raw": {"data": ""}}]}, container=BODY),
        "inputs.artifacts[0].name", "is invalid"),
    "bad argument name": (
        workflow({"arguments": {"parameters": [{"name": "p#1", "value": "v"}]}}),
        "spec.arguments.parameters[0].name", "is invalid"),
    "bad argument artifact": (
        workflow({"arguments": {"artifacts": [{"name": "&a", "raw": {"data": ""}}]}}),
        "spec.arguments.artifacts[0].name", "is invalid"),
    "bad output artifact name": (
        workflow(container=BODY, outputs={"artifacts": [{"name": "!1", "path": "/a"}]}),
        "outputs.artifacts[0].name", "is invalid"),
    "bad output name": (
        workflow(container=BODY, outputs={"parameters": [{"name": "a}", "valueFrom": {"path": "/a"}}]}),
        "outputs.parameters[0].name", "is invalid"),
    "bad step name": (steps([call("a.b")]), "steps[0]", "is invalid"),
    "step without name": (steps([{"template": "leaf"}]), "steps[0]", "name is required"),
    "duplicate step": (steps([call()], [call()]), "steps[1]", "not unique"),
    "no body": (workflow({"templates": [{"name": "main"}]}), "templates.main", "template type is unspecified"),
    "two bodies": (
        workflow(container=BODY, script={**BODY, "source": "x"}), "templates.main", "multiple template types specified"),
    "unresolved input": (
        workflow(container={**BODY, "args": ["{{inputs.parameters.no}}"]}), "container.args[0]", "failed to resolve"),
    "unresolved input of a step": (
        steps([call(arguments=argument("{{inputs.parameters.no}}"))]),
        "steps[0][0].arguments.parameters[0].value", "failed to resolve"),
    "unresolved output": (
        steps([call()], outputs={"parameters": [
            {"name": "o", "valueFrom": {"parameter": "{{steps.a.outputs.parameters.no}}"}}]}),
        "outputs.parameters[0].valueFrom.parameter", "failed to resolve {{steps.a.outputs.parameters.no}}"),
    "reference to the future": (
        steps([call("a", arguments=argument("{{steps.b.status}}"))], [call("b")]),
        "steps[0][0].arguments", "failed to resolve {{steps.b.status}}"),
    "reference to no ancestor": (
        dag(call("a"), call("b", arguments=argument("{{tasks.a.outputs.parameters.o}}"))),
        "dag.tasks[1].arguments", "failed to resolve {{tasks.a.outputs.parameters.o}}"),
    "undeclared workflow parameter": (
        workflow(container={**BODY, "args": ["{{workflow.parameters.no}}"]}), "container.args[0]", "failed to resolve"),
    "the end before the end": (
        workflow(container={**BODY, "args": ["{{workflow.status}}"]}), "container.args[0]", "failed to resolve"),
    "unsatisfied entry": (
        workflow(inputs={"parameters": [{"name": "need"}]}, container=BODY), "spec.arguments.parameters",
        "inputs.parameters.need was not supplied"),
    "unsatisfied step": (
        {**(w := steps([call()])), "spec": {**w["spec"], "templates": [
            w["spec"]["templates"][0],
            {"name": "leaf", "inputs": {"parameters": [{"name": "need"}]}, "container": BODY}]}},
        "steps[0][0].arguments.parameters", "inputs.parameters.need was not supplied"),
    "argument without value": (
        steps([call(arguments={"parameters": [{"name": "p"}]})]),
        "steps[0][0].arguments.parameters[0].value", ".value is required"),
    "artifact from nowhere": (
        steps([call(arguments={"artifacts": [{"name": "art"}]})]),
        "steps[0][0].arguments.artifacts[0]", "from, artifact location, or key is required"),
    "artifact from nowhere in a dag": (
        dag(call(arguments={"artifacts": [{"name": "art"}]})),
        "dag.tasks[0].arguments.artifacts[0]", "from, artifact location, or key is required"),
    "output without source": (
        workflow(container=BODY, outputs={"parameters": [{"name": "o"}]}),
        "outputs.parameters[0]", "does not have valueFrom or value specified"),
    "output with two sources": (
        workflow(container=BODY, outputs={"parameters": [
            {"name": "o", "valueFrom": {"path": "/a", "jqFilter": "a"}}]}),
        "outputs.parameters[0].valueFrom", "multiple valueFrom"),
    "output of a container without path": (
        workflow(container=BODY, outputs={"parameters": [{"name": "o", "valueFrom": {"parameter": "a"}}]}),
        "outputs.parameters[0].valueFrom", ".path must be specified for Container templates"),
    "output of steps with a path": (
        steps([call()], outputs={"parameters": [{"name": "o", "valueFrom": {"path": "/a"}}]}),
        "outputs.parameters[0].valueFrom", ".parameter or expression must be specified for Steps"),
    "a path used twice": (
        workflow({"volumes": [{"name": "v", "emptyDir": {}}]},
                 inputs={"artifacts": [{"name": "a", "path": "/src", "raw": {"data": ""}}]},
                 container={**BODY, "volumeMounts": [{"name": "v", "mountPath": "/src"}]}),
        "container.volumeMounts[0].mountPath", "already mounted"),
    "deadline": (
        workflow(activeDeadlineSeconds=-1, container=BODY), "activeDeadlineSeconds",
        "activeDeadlineSeconds must be a positive integer > 0"),
    "parallelism of a leaf": (workflow(parallelism=2, container=BODY), "parallelism", "is only valid"),
    "sequence with count and end": (
        steps([call(withSequence={"count": "10", "end": "10"})]), "steps[0][0].withSequence", "count and end"),
    "two loops": (
        steps([call(withItems=[1], withParam="[1]")]), "steps[0]", "only one of withItems, withParam may be used"),
    "no image": (workflow(container={"command": ["x"]}), "container.image", "may not be empty"),
    "no image of a script": (workflow(script={"source": "x"}), "script.image", "may not be empty"),
    "undefined template": (steps([{"name": "a", "template": "no"}]), "steps[0].a", "template name 'no' undefined"),
    "undefined templateRef": (
        steps([{"name": "a", "templateRef": {"name": "no", "template": "x"}}]), "steps[0].a", "not found"),
    "undefined workflowTemplateRef": (
        {**workflow(), "spec": {"workflowTemplateRef": {"name": "no"}}}, "spec.workflowTemplateRef", "not found"),
    "templates beside workflowTemplateRef": (
        workflow({"workflowTemplateRef": {"name": "no"}}), "spec.templates", "is not allowed beside workflowTemplateRef"),
    "manifest": (
        workflow(resource={"action": "apply", "manifest": "bad-line\nkind: ConfigMap\n"}),
        "resource.manifest", "must be a valid yaml"),
    "action": (
        workflow(resource={"action": "foo", "manifest": "kind: ConfigMap"}),
        "resource.action", "must be one of: get, create, apply, delete, replace, patch"),
    "pod gc": (workflow({"podGC": {"strategy": "Foo"}}), "podGC.strategy", "unknown strategy 'Foo'"),
    "account": (
        workflow({"automountServiceAccountToken": False}), "executor.serviceAccountName",
        "must not be empty if automountServiceAccountToken is false"),
    "metric name": (
        workflow(container=BODY, metrics={"prometheus": [{**METRIC, "name": "a.b"}]}),
        "metrics.prometheus[0].name", "metric name 'a.b' is invalid"),
    "metric label": (
        workflow(container=BODY, metrics={"prometheus": [{**METRIC, "labels": [{"key": "a.b", "value": "x"}]}]}),
        "metrics.prometheus[0].labels[0].key", "metric label 'a.b' is invalid"),
    "metric help": (
        workflow(container=BODY, metrics={"prometheus": [{"name": "m", "counter": {"value": "1"}}]}),
        "metrics.prometheus[0].help", "must contain a help string"),
    "empty enum": (
        workflow({"arguments": {"parameters": [{"name": "p", "value": "one", "enum": []}]}}),
        "spec.arguments.parameters[0].enum", "should contain at least one value"),
    "value not of its enum": (
        workflow({"arguments": {"parameters": [{"name": "p", "value": "one", "enum": ["two"]}]}}),
        "spec.arguments.parameters[0].value", "spec.arguments.p.value should be present in spec.arguments.p.enum list"),
    "cycle": (
        dag(call("a", dependencies=["c"]), call("b", dependencies=["a"]), call("c", dependencies=["b"])),
        "templates.main.tasks", "dependency cycle detected"),
    "undefined dependency": (dag(call("a", dependencies=["no"])), "tasks.a", "no"),
    "bad depends": (dag(call("a"), call("b", depends="a.Succeded")), "tasks.b", "Succeded"),
    "depends and dependencies": (
        dag(call("a"), call("b", depends="a", dependencies=["a"])), "tasks.b",
        "cannot use both 'depends' and 'dependencies'"),
    "depends and continueOn": (
        dag(call("a"), call("b", depends="a", continueOn={"failed": True})),
        "dag.tasks[1].continueOn", "cannot be used with depends"),
    "duplicate task": (dag(call("a"), call("a")), "tasks.a", "not unique"),
    "undefined target": (dag(call("a"), target="no"), "targets", "target 'no' is not defined"),
    "hook without expression": (
        steps([call(hooks={"running": {"template": "leaf"}})]), "hooks.running", "Expression required"),
    "semaphore without size": (
        workflow({"synchronization": {"semaphores": [{}]}}), "synchronization.semaphores", "needs configMapKeyRef"),
    "retry policy": (
        workflow(container=BODY, retryStrategy={"retryPolicy": "Sometimes"}), "retryStrategy.retryPolicy",
        "'Sometimes' is not a valid RetryPolicy"),
    "container set": (
        workflow(containerSet={"containers": [{"name": "a", **BODY, "dependencies": ["no"]}]}),
        "containerSet.containers[0].dependencies[0]", "is not defined"),
    "looped daemon": (
        {**(d := steps([call(withItems=[1])])), "spec": {**d["spec"], "templates": [
            d["spec"]["templates"][0], {"name": "leaf", "daemon": True, "container": BODY}]}},
        "steps[0].a", "a daemon cannot be looped over"),
    "steps of no lists": (
        workflow({"templates": [{"name": "main", "steps": ["a"]}]}), "spec.templates[0].steps[0]", "must be a list"),
    "parameter that is a list": (
        workflow({"arguments": {"parameters": [{"name": "p", "value": [1]}]}}),
        "spec.arguments.parameters[0].value", "must be a string"),
}


@pytest.mark.parametrize("name", CASES)
def test_mistakes(server, name):
    made, path, message = CASES[name]
    status, answer = server.call("POST", "/api/v1/workflows/lint/lint", {"workflow": made})
    assert (status, answer["code"]) == (400, 3), answer
    text = answer["message"]
    assert path in text and message in text and "; hint: " in text, text


def test_a_file_tells_line_and_column(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(CASES["reference to the future"][0]))
    done = subprocess.run(
        [os.environ["KOBZA_BIN"], "check", str(file)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode != 0
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "steps.b.status" in text)
    assert f"wrong.yaml:{line}:" in done.stdout, done.stdout
    assert "failed to resolve {{steps.b.status}}" in done.stdout and "has not run by then" in done.stdout


def test_what_is_good_passes(server):
    for made in [
        workflow(), steps([call()], [call("b", arguments=argument("{{steps.a.outputs.parameters.o}}"))]),
        dag(call("a"), call("b", depends="a.Succeeded || a.Failed", arguments=argument("{{tasks.a.status}}"))),
        workflow({"onExit": "bye", "templates": [
            {"name": "main", "container": BODY},
            {"name": "bye", "container": {**BODY, "args": ["{{workflow.status}} {{workflow.failures}}"]}}]}),
    ]:
        server.good("POST", "/api/v1/workflows/lint/lint", {"workflow": made})
