"""Drawing workflows, and the documents they become."""

from __future__ import annotations

import enum
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import pytest

import kobza
from kobza import GraphError, Param, asset, assets, task, unmapped, when, workflow
from kobza.document import template
from kobza.options import seconds, text

HERE = str(Path(__file__).resolve())


@task
def nop(x=None):
    return x


@task(retries=3, retry_delay="10s", pool="db", timeout="5m", cache="1d", produces="warehouse/rows")
def load(rows: list[int], region: str = "eu") -> int:
    return len(rows)


def test_outside_of_a_workflow_a_task_is_a_function():
    assert nop(3) == 3
    assert nop.map([1, 2]) == [1, 2]
    assert load([1]) == 1


def test_a_chain():
    @workflow
    def chain():
        x = nop()
        x = nop(x)

    assert chain.document() == {
        "name": "chain",
        "tasks": {
            "nop": {"python": {"file": HERE, "function": "nop"}},
            "nop_2": {
                "python": {"file": HERE, "function": "nop"},
                "with": {"x": "{{ tasks.nop.result }}"},
                "needs": ["nop"],
            },
        },
    }


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


def test_options_and_parameters():
    @workflow(name="nightly", schedule="0 2 * * *", tags=["etl"], timeout="1h", max_active_runs=1)
    def flow(
        region: Literal["eu", "us"] = "eu",
        day: date | None = None,
        limit: Annotated[int, Param(ge=1, description="rows at most")] = 10,
        size: Size = Size.SMALL,
    ):
        """Loads it all."""
        return load(nop(limit), region=region)

    document = flow.document()
    tasks = document.pop("tasks")
    assert document == {
        "name": "nightly",
        "description": "Loads it all.",
        "tags": ["etl"],
        "params": {
            "region": {"enum": ["eu", "us"], "default": "eu"},
            "day": {
                "anyOf": [{"type": "string", "format": "date"}, {"type": "null"}],
                "default": None,
            },
            "limit": {
                "type": "integer",
                "minimum": 1,
                "description": "rows at most",
                "default": 10,
            },
            "size": {"enum": ["s", "l"], "default": "s"},
        },
        "triggers": [{"cron": "0 2 * * *"}],
        "timeout": "1h",
        "max_active_runs": 1,
    }
    cache = tasks["load"].pop("cache")
    assert cache["ttl"] == "1d"
    assert re.fullmatch(
        r"load/[0-9a-f]{16}/\{\{ \(\{\"region\": params.region, \"rows\": tasks.nop.result\}\)"
        r" \| tojson \}\}",
        cache["key"],
    )
    assert tasks["load"] == {
        "python": {"file": HERE, "function": "load"},
        "with": {"rows": "{{ tasks.nop.result }}", "region": "{{ params.region }}"},
        "needs": ["nop"],
        "retries": {"limit": 3, "delay": "10s"},
        "timeout": "5m",
        "limits": ["db"],
        "produces": ["warehouse/rows"],
    }


def test_mapping():
    @workflow
    def flow(xs: list[int]):
        rows = nop.map([1, 2, 3])
        load.map(rows, region=unmapped("us"))
        load.map(rows, xs)
        load.map([[1], [2]], ["eu", "us"])
        load.product([[1], [2]], ["eu", "us"])

    tasks = flow.document()["tasks"]
    assert tasks["nop"]["map"] == [1, 2, 3]
    assert tasks["nop"]["with"] == {"x": "{{ item }}"}
    assert tasks["load"]["map"] == {"over": "tasks.nop.result"}
    assert tasks["load"]["with"] == {"region": "us", "rows": "{{ item }}"}
    assert tasks["load_2"]["map"] == {"over": "(tasks.nop.result) | zip(params.xs)"}
    assert tasks["load_2"]["with"] == {"rows": "{{ item[0] }}", "region": "{{ item[1] }}"}
    assert tasks["load_3"]["map"] == [{"rows": [1], "region": "eu"}, {"rows": [2], "region": "us"}]
    assert tasks["load_3"]["with"] == {"rows": "{{ item.rows }}", "region": "{{ item.region }}"}
    assert len(tasks["load_4"]["map"]) == 4

    @workflow
    def unknown(xs: list[int]):
        load.product(xs, ["eu", "us"])

    with pytest.raises(GraphError, match="let a task make the list of combinations"):
        unknown.document()


def test_conditions_groups_and_order():
    @workflow
    def flow():
        first = nop(1)
        with when(first > 3) as large:
            second = nop(first["rows"][0])
        with large.otherwise():
            third = kobza.shell(f"echo {first.name}", name="say")
        with kobza.group("late"):
            last = nop(2).after(second, third)
        first >> last

    tasks = flow.document()["tasks"]
    assert tasks["nop_2"]["when"] == "(tasks.nop.result > 3)"
    assert tasks["nop_2"]["with"] == {"x": "{{ tasks.nop.result.rows[0] }}"}
    assert tasks["say"] == {
        "shell": "echo {{ tasks.nop.result.name }}",
        "needs": ["nop"],
        "when": "(not (tasks.nop.result > 3))",
    }
    assert tasks["late_nop"]["needs"] == ["nop", "nop_2", "say"]


def test_what_cannot_be_drawn_says_what_to_do():
    def drawn(body):
        with pytest.raises(GraphError) as caught:
            workflow(body).document()
        return str(caught.value)

    def branches(n: int = 1):
        if nop(n):
            nop()

    assert "use `with kobza.when(...)`" in drawn(branches)

    def loops():
        for _ in nop():
            pass

    assert "use `task.map(...)`" in drawn(loops)

    def known():
        nop(object())

    assert "cannot be part of a workflow's definition" in drawn(known)

    def nothing_to_map():
        nop.map(3)

    assert "needs an argument to map over" in drawn(nothing_to_map)

    def local():
        @task
        def inside():
            pass

        inside()

    assert "move it to the top of its module" in drawn(local)

    other = {}

    def first():
        other["x"] = nop()

    workflow(first).document()

    def stranger():
        nop(other["x"])

    assert "which is no task of this workflow" in drawn(stranger)


def test_wrong_options_are_refused_at_once():
    with pytest.raises(TypeError, match="did you mean 'retries'"):
        task(retrys=3)(lambda: None)
    with pytest.raises(ValueError, match="is not a duration"):
        task(timeout="soon")(lambda: None)
    with pytest.raises(ValueError, match="fork, spawn or reuse"):
        task(mode="thread")(lambda: None)
    with pytest.raises(ValueError, match="not a cron expression"):
        kobza.cron("every night")


def test_durations():
    assert seconds("1h30m") == 5400
    assert text("90s") == "90s" and text(3600) == "1h" and text(0.25) == "250ms" and text(0) == "0s"
    for bad in ("", "5", "m", "-1s", "1y"):
        with pytest.raises(ValueError):
            seconds(bad)


def test_templates_of_values():
    x = kobza.expression.Name("x")
    assert template({"a": [x.b, x["a b"]], "d": date(2024, 1, 2)}) == {
        "a": ["{{ x.b }}", '{{ x["a b"] }}'],
        "d": "2024-01-02",
    }
    assert f"{x.b}/{x[0]}" == "{{ x.b }}/{{ x[0] }}"
    assert (x.a.contains('"') & ~(x.b == 0)).render() == '(("\\"" in x.a) and (not (x.b == 0)))'


def test_a_workflow_in_a_workflow():
    @workflow
    def inner(n: int):
        nop(n)

    @workflow
    def outer():
        inner(nop(1))

    assert outer.document()["tasks"]["inner"] == {
        "workflow": "inner",
        "with": {"n": "{{ tasks.nop.result }}"},
        "needs": ["nop"],
    }


@dataclass
class Order:
    id: int
    price: float = 0.0


def test_a_dataclass_as_a_parameter():
    @workflow
    def flow(order: Order):
        nop(order.id)

    assert flow.document()["params"]["order"] == {
        "type": "object",
        "properties": {"id": {"type": "integer"}, "price": {"type": "number"}},
        "additionalProperties": False,
        "required": ["id"],
    }


@asset(partitions=kobza.daily("2024-01-01", timezone="Europe/Kyiv"))
def raw(partition: str) -> list[int]:
    return [1, 2]


@asset(name="warehouse/orders", partitions=kobza.daily("2024-01-01", timezone="Europe/Kyiv"))
def orders(raw: list[int]) -> list[int]:
    return raw


@raw.check
def not_empty(raw):
    return bool(raw)


@asset(deps=[orders, "elsewhere/rates"])
def report():
    return None


def test_assets():
    flow = assets("nightly", [report, orders, raw])
    document = flow.document()
    assert document["partitions"] == {
        "type": "daily",
        "start": "2024-01-01",
        "timezone": "Europe/Kyiv",
    }
    tasks = document["tasks"]
    assert tasks["raw"]["with"] == {"partition": "{{ partition }}"}
    assert tasks["raw"]["produces"] == ["raw"]
    assert tasks["orders"]["consumes"] == ["raw"]
    assert tasks["orders"]["produces"] == ["warehouse/orders"]
    assert tasks["orders"]["needs"] == ["raw"], "readers wait for the checks by themselves"
    [check] = tasks["raw"]["checks"]
    assert (check["name"], check["with"]) == ("not_empty", {"raw": "{{ tasks.raw.result }}"})
    assert "not_empty" not in tasks
    assert tasks["report"]["consumes"] == ["warehouse/orders", "elsewhere/rates"]
    assert tasks["report"]["needs"] == ["orders"]


def test_assets_in_a_circle():
    @asset
    def one(two):
        pass

    @asset
    def two(one):
        pass

    with pytest.raises(GraphError, match="one -> two -> one"):
        assets("circle", [one, two]).document()


def export(path):
    done = subprocess.run(
        [sys.executable, "-m", "kobza.export", str(path)],
        capture_output=True,
        cwd=Path(kobza.__file__).parent.parent,
    )
    return done.returncode, json.loads(done.stdout), done.stderr.decode()


def test_export(tmp_path):
    flow = tmp_path / "flow.py"
    flow.write_text(
        "from kobza import *\n"
        "import kobza\n"
        "print('hello')\n"
        "@kobza.task\n"
        "def go(n): return n\n"
        "@kobza.workflow\n"
        "def main_flow(n: int = 1): go(n)\n"
        "@kobza.asset\n"
        "def numbers(): return [1]\n"
    )
    code, documents, messages = export(flow)
    assert code == 0 and messages == "hello\n"
    assert [document["name"] for document in documents] == ["main-flow", "flow"]
    assert documents[0]["tasks"]["go"]["python"] == {"file": str(flow), "function": "go"}
    assert documents[1]["tasks"]["numbers"]["produces"] == ["numbers"]


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("x = 1\n", None, "defines no workflow"),
        ("import nothing_like_it\n", 1, "No module named"),
        ("def f(:\n", 1, "invalid syntax"),
        (
            "import kobza\n@kobza.workflow\ndef w(n: int):\n  if n: pass\n",
            4,
            "use `with kobza.when",
        ),
        ("raise SystemExit(0)\n", 1, "SystemExit"),
    ],
)
def test_export_of_a_bad_file(tmp_path, source, line, words):
    flow = tmp_path / "flow.py"
    flow.write_text(source)
    code, answer, _ = export(flow)
    assert code == 2
    assert words in answer["errors"][0]["message"]
    assert answer["errors"][0]["line"] == line


def test_export_of_nothing(tmp_path):
    code, answer, _ = export(tmp_path / "none.py")
    assert code == 2 and "there is no file" in answer["errors"][0]["message"]


def test_triggers():
    documents = [
        kobza.every("1h", catchup="last").document(),
        kobza.on_asset(orders, "rates", all=False, params={"x": "{{ event.asset }}"}).document(),
        kobza.on_run("nightly").document(),
        kobza.webhook("hook", secret="hook-secret", scheme="github").document(),
        kobza.on_file("/data/*.csv").document(),
        kobza.on_event("placed", filter="event.payload.n > 1").document(),
    ]
    assert documents == [
        {"every": "1h", "catchup": "last"},
        {
            "assets": {"any": ["warehouse/orders", "rates"]},
            "params": {"x": "{{ event.asset }}"},
        },
        {"run": {"workflow": "nightly", "states": ["succeeded"]}},
        {"webhook": {"path": "hook", "secret": "hook-secret", "scheme": "github"}},
        {"file": "/data/*.csv"},
        {"event": "placed", "filter": "event.payload.n > 1"},
    ]
