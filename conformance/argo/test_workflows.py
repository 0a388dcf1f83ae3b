"""Workflows with known ends: our own (`workflows/`, what must hold is in their first lines), and
published ones where KOBZA_CONFORMANCE names a folder of them."""

import os
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).parent
OWN = sorted((HERE / "workflows").glob("*.yaml"))
PUBLISHED = pathlib.Path(os.environ.get("KOBZA_CONFORMANCE", "/nonexistent")) / "argo"
# Published cases that cannot end as they do on a cluster, and why.
EXCEPT = {
    "testdata/workflow-template-with-resource-expr.yaml": "creates a pod on a Kubernetes cluster",
    "functional/stop-terminate-2.yaml": "is stopped while it runs: see test_calls.py",
}
NODES_EXCEPT = {
    ("functional/steps-skipped-withparam-ref.yaml", "Omitted"):
        "no step comes after the failed one, so there is nothing to omit",
}


def expectations(text):
    found = {}
    for line in text.splitlines():
        match = re.match(r"# (\w+)(?: ([\w.-]+))?: (.*)", line)
        if match:
            word, argument, value = match.groups()
            found[word] = (argument, value)
    return found


def nodes_called(workflow, name):
    own = workflow["metadata"]["name"]
    return [
        n for n in workflow["status"].get("nodes", {}).values()
        if name in (n["name"], n["displayName"]) or n["name"] in (own + name, f"{own}.{name}")
        or n["name"].endswith(f".{name}")
    ]


@pytest.mark.parametrize("path", OWN, ids=lambda p: p.stem)
def test_own(server, path):
    text = path.read_text()
    wanted = expectations(text)
    workflow = server.run(text)
    status = workflow["status"]
    assert status["phase"] == wanted["phase"][1], status
    if "message" in wanted:
        assert status["message"] == wanted["message"][1]
    for item in wanted.get("nodes", ("", ""))[1].split():
        name, _, state = item.rpartition("=")
        phase, _, kind = state.partition("/")
        seen = [(n["phase"], n["type"]) for n in nodes_called(workflow, name)]
        assert any(p == phase and kind in ("", t) for p, t in seen), (item, seen)
    for name in wanted.get("absent", ("", ""))[1].split():
        assert not nodes_called(workflow, name)
    if "output" in wanted:
        name, start = wanted["output"]
        values = []
        for node in nodes_called(workflow, name):
            outputs = node.get("outputs", {})
            values.append(outputs.get("result", ""))
            values += [p.get("value") for p in outputs.get("parameters", [])]
        assert any((v or "").startswith(start) for v in values), values
    if "serial" in wanted:
        prefix = wanted["serial"][1] + "("
        spans = sorted(
            (n["startedAt"], n["finishedAt"]) for n in status["nodes"].values()
            if n["displayName"].startswith(prefix)
        )
        assert len(spans) == 3
        assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:])), spans
    if "memoized" in wanted:
        (node,) = nodes_called(workflow, wanted["memoized"][1])
        assert node["memoizationStatus"]["hit"] is True
    if "label" in wanted:
        key, value = wanted["label"][1].split("=")
        assert workflow["metadata"]["labels"][key] == value
    if "global" in wanted:
        name, value = wanted["global"][1].split("=")
        assert {"name": name, "value": value} in status["outputs"]["parameters"]


def published():
    for table, folder in (("expected.tsv", "examples"), ("expected_e2e.tsv", "e2e")):
        if not (PUBLISHED / table).exists():
            continue
        for line in (PUBLISHED / table).read_text().splitlines():
            if line and not line.startswith("#"):
                cells = line.split("\t")
                phases = cells[2] if len(cells) > 2 else ""
                yield pytest.param(PUBLISHED / folder / cells[0], cells[0], cells[1], phases, id=cells[0])


@pytest.mark.parametrize("path,name,phase,phases", list(published()))
def test_published(server, path, name, phase, phases):
    if name in EXCEPT:
        pytest.skip(EXCEPT[name])
    workflow = server.run(path.read_text())
    assert workflow["status"]["phase"] == phase, workflow["status"]
    have = [n["phase"] for n in workflow["status"]["nodes"].values()]
    for wanted in filter(None, phases.split(",")):
        if (name, wanted) not in NODES_EXCEPT:
            assert wanted in have, have
            have.remove(wanted)
