"""Tasks of the SDK in the warm worker."""

from __future__ import annotations

import pytest
from host import Host, become_subreaper

FLOW = """
import asyncio
import kobza
from datetime import date
from kobza import task

@task
def day_of(day: date, n: int = 1):
    return day.year + n

@task
async def slowly():
    await asyncio.sleep(0)
    return kobza.context().run_id

@task(result="pickle")
def model():
    return Model()

class Model:
    weight = 7

@task
def weight(m):
    return m.weight

@task
def talks():
    kobza.notes.metric("loss", 0.5, step=1)
    kobza.notes.table([{"a": 1}, {"b": 2}])
    kobza.emit("done")
    kobza.add_task(day_of, "2024-01-01", name="more")
    kobza.context().output("count", 3)
    kobza.context().logger.info("logged")
    return kobza.Output([1], metadata={"rejected": 2})

@task
def adds(which):
    first = kobza.add_task(weight, 1, name="first")
    if which == "taken":
        kobza.add_task(weight, 1, name=first)
    elif which == "unknown":
        kobza.add_task(weight, 1, after=["later"])
    else:
        for n in range(1000):
            kobza.add_task(weight, n)

@task
def skips():
    raise kobza.Skip("nothing new")

@task
def socket():
    import socket
    return socket.socket()

def plain(a, /, *, b):
    return [a, b]

@kobza.asset
def rows(): return [1]

@rows.check
def empty(rows):
    return kobza.CheckResult(not rows, "there are rows")

def rows_generator():
    yield from range(3)
"""


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    file = tmp_path_factory.mktemp("sdk") / "flow.py"
    file.write_text(FLOW)
    become_subreaper()
    with Host([{"file": str(file)}], adapter="kobza.runner") as host:
        assert host.ready["mode"] == "fork" and host.ready["direct"], host.ready
        folder = str(file.parent / "artifacts")

        def run(function, args=None, **more):
            return host.run(
                function,
                args,
                file=str(file),
                runner="kobza.runner:run",
                env={"KOBZA_ARTIFACTS": folder},
                context={"run_id": "r1", "workflow": "flow", "task": function},
                **more,
            )

        yield run


def test_arguments_by_annotation(flow):
    assert flow("day_of", {"day": "2024-05-06"}).outputs == {"result": 2025}
    assert flow("day_of", ["2024-05-06", 6]).outputs == {"result": 2030}


def test_wrong_arguments(flow):
    result = flow("day_of", {"da": "2024-05-06"})
    assert result.code == 1
    assert "day_of(day: " in result.error["message"]
    assert "does not take 'da' and needs 'day'" in result.error["message"]
    assert "'soon' is not a date" in flow("day_of", ["soon"]).error["message"]


def test_coroutines_generators_and_plain_functions(flow):
    assert flow("slowly").outputs == {"result": "r1"}
    assert flow("rows_generator").outputs == {"result": [0, 1, 2]}
    assert flow("plain", {"a": 1, "b": 2}).outputs == {"result": [1, 2]}


def test_pickles_between_tasks(flow):
    reference = flow("model").outputs["result"]
    assert reference["$artifact"]["type"] == "pickle"
    assert flow("weight", {"m": reference}).outputs == {"result": 7}


@pytest.mark.parametrize(
    ("which", "words"),
    [("taken", "added already"), ("unknown", "'later'"), ("many", "at most 1000")],
)
def test_tasks_that_cannot_be_added(flow, which, words):
    result = flow("adds", {"which": which})
    assert result.code == 1
    assert words in result.error["message"]


def test_what_a_task_says_beside_its_result(flow):
    result = flow("talks")
    assert result.outputs == {
        "result": [1],
        "count": 3,
        "$notes": [
            {"kind": "metric", "name": "loss", "value": 0.5, "step": 1},
            {
                "kind": "table",
                "name": None,
                "columns": ["a", "b"],
                "rows": [[1, None], [None, 2]],
                "total": 2,
            },
            {"kind": "metadata", "name": None, "values": {"rejected": 2}},
        ],
        "$events": [{"name": "done", "payload": None}],
        "$tasks": [
            {
                "name": "more",
                "upstream": [],
                "python": result.outputs["$tasks"][0]["python"],
                "with": {"day": "2024-01-01"},
            }
        ],
    }
    assert result.err == b"INFO kobza.task: logged\n"


def test_skip(flow):
    result = flow("skips")
    assert result.code == 0 and result.outputs == {"$skip": "nothing new"}


def test_unstorable(flow):
    result = flow("socket")
    assert result.code == 1 and result.error["cause"] == "storage"
    assert "the result of socket cannot be kept" in result.error["message"]
    assert "socket.socket" in result.error["message"]


def test_a_check(flow):
    result = flow("empty", {"rows": [1]})
    assert result.code == 1 and result.error["cause"] == "check"
    assert "the check empty of rows did not hold: there are rows" in result.error["message"]
    assert flow("empty", {"rows": []}).outputs["result"]["passed"] is True
