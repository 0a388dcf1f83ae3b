"""Targets as assets, by the hook in the workers; the Kobza side of a Luigi run."""

import json
import urllib.parse
import urllib.request

import pytest
from conftest import post, wait

HOOK = "[worker]\ntask_process_context = kobza.luigi.Targets\n"


def api(server, path, body=None):
    kind = {"Content-Type": "application/yaml" if path.startswith("/workflows") else "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/api/v1{path}", body, kind)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def asset(server, name):
    return api(server, "/assets/" + urllib.parse.quote(name, safe=""))


@pytest.mark.parametrize("workers", [1, 2])
def test_targets_are_assets_with_lineage(server, jobs, workers):
    orders, report = f"file:{jobs.folder}/orders/{{day}}.csv", f"file:{jobs.folder}/report_{{day}}.txt"
    readers = f"name: reader\ntriggers:\n  - {{name: new, assets: ['{report}']}}\ntasks:\n  a: {{noop: true}}\n"
    assert api(server, "/workflows", readers.encode())["name"] == "reader"
    for day in ("2026-03-01", "2026-03-02"):
        output = jobs.run("Report", "--day", day, workers=workers, config=HOOK)
        assert "looks :)" in output and "was not told" not in output, output
    made = asset(server, orders)
    assert made["producers"] == ["luigi"] and made["downstream"] == [
        f"file:{jobs.folder}/report_{{day}}.png", report]
    assert made["last"]["partition"] == "2026-03-02" and made["last"]["task"]
    assert made["metadata"]["address"] == f"file:{jobs.folder}/orders/2026-03-02.csv"
    assert made["metadata"]["target"] == "LocalTarget"
    partitions = api(server, f"/assets/{urllib.parse.quote(report, safe='')}/partitions")
    assert {"2026-03-01", "2026-03-02"} <= {part["key"] for part in partitions["items"]}
    # Where the list comes from is known as well, though it has no partitions.
    assert asset(server, report)["upstream"] == [f"file:{jobs.folder}/A_{{num}}.txt", orders]
    graph = api(server, "/assets-graph?focus=" + urllib.parse.quote(orders, safe=""))
    edges = {(edge["from"], edge["to"], edge["workflow"]) for edge in graph["edges"]}
    assert (orders, report, "luigi") in edges
    # A workflow of Kobza's goes on from Luigi's target.
    wait(lambda: len(api(server, "/runs?workflow=reader")["items"]) == 2)
    server.kill()
    server.start()
    assert asset(server, orders)["downstream"] == made["downstream"]


def test_without_the_hook_there_are_none(server, jobs):
    assert "looks :)" in jobs.run("D")
    assert api(server, "/assets")["items"] == []


def test_reports_that_are_wrong(server):
    call = server.url + "/api/report_targets"

    def report(**fields):
        return post(call, urllib.parse.urlencode({"data": json.dumps(fields)}).encode())

    good = {"asset": "s3://bucket/key"}
    assert report(task_id="t", targets=[good]) == 400
    server.call("add_task", worker="w", task_id="t", family="t")
    for target in ({}, {"asset": "/etc/passwd"}, {"asset": "a/../b"}, {"asset": "a\nb"}, {"asset": "n" * 10_000},
                   {"asset": "a", "partition": "a\0b"}, {"asset": ["a"]}, "a", None):
        assert report(task_id="t", targets=[good, target]) == 400, target
    assert report(task_id="t", targets=good) == 400
    assert report(task_id="t", targets=[good] * 101) == 400
    assert report(task_id="t", targets=[good], inputs=["/x"]) == 400
    assert api(server, "/assets")["items"] == []
    assert report(task_id="t", targets=[good], inputs=["raw"]) == 200
    assert [item["key"] for item in api(server, "/assets")["items"]] == ["raw", "s3://bucket/key"]


def test_the_run_shows_workers_and_resources(server, jobs):
    worker = jobs.start("Long", workers=2)
    wait(lambda: list(jobs.folder.glob("started_1_*")))
    [run] = api(server, "/runs?workflow=luigi")["items"]
    shown = api(server, f"/runs/{run['id']}/workers")
    [one] = shown["workers"]
    assert one["processes"] == 2 and len(one["running"]) == 1 and one["running"][0].startswith("Long_1")
    assert not one["disabled"] and one["seen_at"] >= one["started_at"]
    assert shown["resources"] == [{"name": "db", "total": 2.0, "used": 0.0, "tasks": 0}]
    server.call("add_task", worker="w", task_id="needs", family="needs", resources={"db": 1})
    assert server.call("get_work", worker="w", host="h")["task_id"] == "needs"
    shown = api(server, f"/runs/{run['id']}/workers")
    assert shown["resources"] == [{"name": "db", "total": 2.0, "used": 1.0, "tasks": 1}]
    assert [w["running"] for w in shown["workers"] if w["name"] == "w"] == [["needs"]]
    server.call("pause")
    assert api(server, f"/runs/{run['id']}/workers")["paused"]
    (jobs.folder / "go").touch()
    jobs.finish(worker)
