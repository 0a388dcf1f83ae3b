"""Running workflows in process."""

from __future__ import annotations

from datetime import date, datetime, timezone

import pytest

import kobza
from kobza import (
    Outputs,
    Retry,
    Skip,
    asset,
    assets,
    context,
    notes,
    task,
    testing,
    unmapped,
    when,
    workflow,
)


@task
def double(x: int) -> int:
    return 2 * x


@task
def total(xs: list[int]) -> int:
    return sum(xs)


@workflow
def numbers(n: int = 3):
    doubled = double.map([1, 2, n])
    result = total(doubled)
    with when(result > 10) as large:
        said = say(result)
    with large.otherwise():
        say.with_options(name="whisper")(result)
    return {"sum": result, "said": said}


@task
def say(x):
    notes.markdown(f"it is {x}")
    kobza.emit("said", {"x": x})
    return f"{x}!"


def test_a_run():
    result = testing.run(numbers, {"n": 4})
    assert result.succeeded
    assert result["double"].result == [2, 4, 8]
    assert result["total"].result == 14
    assert result["whisper"].state == "skipped"
    assert result.result == {"sum": 14, "said": "14!"}
    assert result["say"].notes == [{"kind": "markdown", "name": None, "text": "it is 14"}]
    assert result["say"].events == [{"name": "said", "payload": {"x": 14}}]


def test_the_other_branch():
    result = testing.run(numbers, {"n": 1})
    assert (result["say"].state, result["whisper"].state) == ("skipped", "succeeded")


def test_stubs():
    result = testing.run(numbers, stubs={"double": lambda x: x, "total": 100})
    assert result["double"].result == [1, 2, 3] and result["say"].result == "100!"
    result = testing.run(numbers, stubs={"total": ValueError("no")})
    assert result.state == "failed"
    assert result["say"].state == "upstream_failed"
    with pytest.raises(ValueError, match="no"):
        result.raise_for_failure()
    with pytest.raises(kobza.GraphError, match="a stub for 'nothing'"):
        testing.run(numbers, stubs={"nothing": 1})


@task(retries=Retry(3, delay="1m", backoff="exponential"))
def flaky():
    if context().attempt < 3:
        raise OSError("not yet")
    return context().now()


def test_retries_move_the_clock():
    @workflow
    def flow():
        return flaky()

    result = testing.run(flow, now=datetime(2024, 1, 1, tzinfo=timezone.utc))
    assert result["flaky"].attempts == 3
    assert result.result == datetime(2024, 1, 1, 0, 3, tzinfo=timezone.utc)


@task
def several():
    context().output("count", 2)
    return Outputs(rows=[1, 2], ok=True)


@task
def skips():
    raise Skip("nothing new")


@task
def reads(day: date, table):
    return f"{day:%Y}/{table}"


def test_outputs_skips_and_lookups():
    @workflow
    def flow(day: date):
        made = several()
        reads(day, kobza.variable("table"))
        double(made.output("count"))
        double.with_options(name="after_skip")(1).after(skips())

    result = testing.run(flow, {"day": "2024-05-06"}, variables={"table": "t"})
    assert result["several"].outputs == {"rows": [1, 2], "ok": True, "count": 2}
    assert result["double"].result == 4
    assert result["reads"].result == "2024/t"
    assert result["skips"].message == "nothing new"
    assert result["after_skip"].state == "skipped"


def test_parameters_are_checked():
    with pytest.raises(TypeError, match="has no parameter 'm'"):
        testing.run(numbers, {"m": 1})


def test_mapping_over_nothing_and_over_unequal_lists():
    @task
    def add(a, b):
        return a + b

    @workflow
    def flow(xs: list[int]):
        double.map(xs)

    result = testing.run(flow, {"xs": []})
    assert result["double"].result == []

    @workflow
    def constants(xs: list[int], ys: list[int]):
        pair.map(xs, ys)
        pair.with_options(name="fixed").map(xs, unmapped([1]))

    result = testing.run(constants, {"xs": [1, 2], "ys": [1]})
    assert "a has 2, b has 1" in str(result["pair"].error)
    assert result["fixed"].result == [(1, [1]), (2, [1])]


@task
def pair(a, b):
    return (a, b)


@asset
def rows():
    return [1, -1]


@rows.check
def positive(rows):
    return kobza.CheckResult(all(row > 0 for row in rows), "a negative row")


@rows.check(block=False)
def many(rows):
    return len(rows) > 10


@asset
def published(rows):
    return rows


def test_a_check_that_blocks():
    flow = assets("flow", [rows, published])
    result = testing.run(flow)
    assert isinstance(result["positive"].error, kobza.CheckFailed)
    assert result["many"].result["passed"] is False
    assert result["published"].state == "upstream_failed"
    assert testing.run(flow, stubs={"rows": [1]}).succeeded


def test_context_outside_of_a_run():
    assert context().run_id is None
    with pytest.raises(kobza.NoContext, match="KOBZA_SECRET_API_KEY"):
        kobza.secret("api-key")


@task
def part(n: int) -> int:
    if n < 0:
        raise ValueError("below zero")
    return n * 10


@task
def plan(numbers: list[int]) -> int:
    names = [kobza.add_task(part, n, name=f"part-{n}") for n in numbers]
    kobza.add_task(part, 9, name="last", after=names)
    return len(numbers)


@task
def report(count: int) -> str:
    return f"{count} planned"


def test_added_tasks():
    @workflow
    def grows(numbers: list[int]):
        return report(plan(numbers))

    good = testing.run(grows, {"numbers": [1, 2]})
    assert good.result == "2 planned"
    assert [good[name].result for name in ("part-1", "part-2", "last")] == [10, 20, 90]
    bad = testing.run(grows, {"numbers": [1, -2]})
    states = {name: found.state for name, found in bad.tasks.items()}
    assert states == {
        "plan": "failed",
        "report": "upstream_failed",
        "part-1": "succeeded",
        "part--2": "failed",
        "last": "upstream_failed",
    }
    assert bad["plan"].message == "part--2, which it added, failed"
    stubbed = testing.run(grows, {"numbers": [1]}, stubs={"plan": 5})
    assert stubbed.result == "5 planned" and "part-1" not in stubbed.tasks
