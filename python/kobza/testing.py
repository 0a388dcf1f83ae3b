"""Runs workflows in process, for tests: no server, a clock that only moves when told, stub tasks.

::

    result = kobza.testing.run(etl, params={"region": "eu"}, stubs={"extract": [1, 2, 3]})
    assert result.succeeded and result["load"].result == 3
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from . import decoding, schema, values
from .context import Context, Interval, running
from .errors import GraphError, Skip
from .expression import evaluate
from .graph import Graph, Node, drawing
from .task import Task, combinations
from .workflow import Workflow


class Clock:
    """A clock that stands still until somebody moves it."""

    def __init__(self, now: datetime) -> None:
        self.now = now if now.tzinfo else now.replace(tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by_seconds: float) -> None:
        self.now += timedelta(seconds=by_seconds)


@dataclasses.dataclass
class TaskResult:
    """How one task ended."""

    name: str
    state: str
    result: Any = None
    outputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: BaseException | None = None
    attempts: int = 0
    message: str | None = None
    notes: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    events: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    instances: list[TaskResult] = dataclasses.field(default_factory=list)
    #: How the tasks ended that it has added, in their order.
    added: list[TaskResult] = dataclasses.field(default_factory=list)

    def view(self) -> dict[str, Any]:
        """What expressions see of it."""
        return {**self.outputs, "result": self.result, "state": self.state}


@dataclasses.dataclass
class RunResult:
    """How a run ended."""

    state: str
    tasks: dict[str, TaskResult]
    result: Any
    clock: Clock

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"

    def __getitem__(self, name: str) -> TaskResult:
        try:
            return self.tasks[name]
        except KeyError:
            raise KeyError(
                f"there is no task {name!r}; there are {', '.join(self.tasks)}"
            ) from None

    def raise_for_failure(self) -> RunResult:
        """Raises the first task's error, if the run failed."""
        if self.state == "failed":
            for task in self.tasks.values():
                if task.error is not None:
                    raise task.error
        return self


@dataclasses.dataclass
class _Run:
    workflow: Workflow[Any, Any]
    names: dict[str, Any]
    stubs: Mapping[str, Any]
    clock: Clock
    context: Context


def run(
    workflow: Workflow[Any, Any],
    params: Mapping[str, Any] | None = None,
    *,
    stubs: Mapping[str, Any] | None = None,
    now: datetime | None = None,
    interval: tuple[datetime, datetime] | None = None,
    partition: str | None = None,
    variables: Mapping[str, Any] | None = None,
    connections: Mapping[str, Any] | None = None,
    secrets: Mapping[str, Any] | None = None,
) -> RunResult:
    """Runs a workflow to its end in this process.

    ``stubs`` replaces tasks by name: with a value, an exception to raise, or a function that takes
    the task's arguments. Retries move the clock by their delay instead of waiting.
    """
    clock = Clock(now or datetime(2000, 1, 1, tzinfo=timezone.utc))
    graph, returned = workflow.draw()
    unknown = sorted(set(stubs or {}) - set(graph.nodes))
    if unknown:
        raise GraphError(f"a stub for {unknown[0]!r}, but the tasks are {', '.join(graph.nodes)}")
    given = _params(workflow, params or {})
    lookups = {
        "variable": dict(variables or {}),
        "connection": dict(connections or {}),
        "secret": dict(secrets or {}),
    }
    span = Interval(*interval) if interval else None
    context = Context(
        run_id="test",
        workflow=workflow.name,
        params=given,
        interval=span,
        partition=partition,
        lookups=lookups,
        clock=clock,
    )
    results: dict[str, TaskResult] = {}
    views: dict[str, dict[str, Any]] = {}
    names: dict[str, Any] = {
        "params": given,
        "tasks": views,
        "interval": span,
        "partition": partition,
        "run": {"id": "test", "partition": partition},
        "var": lookups["variable"],
        "secret": lookups["secret"],
    }
    state = _Run(workflow, names, stubs or {}, clock, context)
    with drawing(None):
        for node in _ordered(graph):
            results[node.name] = _task(node, results, state)
            views[node.name] = results[node.name].view()
    for found in list(results.values()):
        for one in (found, *found.instances):
            results.update((added.name, added) for added in one.added)
    failed = any(task.state in ("failed", "upstream_failed") for task in results.values())
    result = None
    if not failed and returned is not None:
        result = evaluate(returned, names)
    return RunResult("failed" if failed else "succeeded", results, result, clock)


def _params(workflow: Workflow[Any, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    hints = schema.hints_of(workflow.function)
    found: dict[str, Any] = {}
    parameters = inspect.signature(workflow.function).parameters
    for name in given:
        if name not in parameters:
            raise TypeError(f"{workflow.name} has no parameter {name!r}")
    for name, parameter in parameters.items():
        if name in given:
            found[name] = decoding.decode(given[name], hints.get(name))
        elif parameter.default is not parameter.empty:
            found[name] = parameter.default
        else:
            raise TypeError(f"{workflow.name} needs the parameter {name!r}")
    return found


def _ordered(graph: Graph) -> list[Node]:
    """Upstream first; ``after`` may point to nodes drawn later."""
    done: dict[str, Node] = {}
    path: list[str] = []

    def visit(node: Node) -> None:
        if node.name in done:
            return
        if node.name in path:
            raise GraphError(
                "tasks depend on each other in a circle: " + " -> ".join([*path, node.name])
            )
        path.append(node.name)
        for upstream in node.upstream():
            visit(graph.nodes[upstream])
        path.pop()
        done[node.name] = node

    for node in graph.nodes.values():
        visit(node)
    return list(done.values())


def _task(node: Node, results: dict[str, TaskResult], run: _Run) -> TaskResult:
    states = {name: results[name].state for name in node.upstream()}
    rule = node.options.rule or "all_succeeded"
    if rule not in ("all_succeeded", "all_done", "always"):
        raise GraphError(f"{node.name} has the rule {rule}, which only the server decides")
    if rule == "all_succeeded":
        bad = [name for name, state in states.items() if state in ("failed", "upstream_failed")]
        if bad:
            return TaskResult(node.name, "upstream_failed", message=f"{bad[0]} failed")
        skipped = [name for name, state in states.items() if state == "skipped"]
        if skipped:
            return TaskResult(node.name, "skipped", message=f"{skipped[0]} was skipped")
    if node.when is not None and not node.when.evaluate(run.names):
        return TaskResult(node.name, "skipped", message=f"{node.when.render()} is false")
    try:
        arguments = evaluate(node.arguments, run.names)
        if node.mapped is None:
            return _attempts(node, arguments, None, run)
        over = {name: list(evaluate(value, run.names)) for name, value in node.mapped.over.items()}
        items = combinations(over, node.mapped.product)
    except Exception as error:
        return TaskResult(node.name, "failed", error=error)
    if not items:
        return TaskResult(node.name, "succeeded", result=[], message="nothing to map over")
    instances = [
        _attempts(node, {**arguments, **item}, index, run) for index, item in enumerate(items)
    ]
    worst = "succeeded"
    for state in ("skipped", "failed"):
        if any(instance.state == state for instance in instances):
            worst = state
    if worst == "skipped" and any(instance.state == "succeeded" for instance in instances):
        worst = "succeeded"
    return TaskResult(
        node.name,
        worst,
        result=[instance.result for instance in instances],
        instances=instances,
        error=next((instance.error for instance in instances if instance.error is not None), None),
        attempts=max(instance.attempts for instance in instances),
        notes=[note for instance in instances for note in instance.notes],
        events=[event for instance in instances for event in instance.events],
    )


def _attempts(node: Node, arguments: dict[str, Any], index: int | None, run: _Run) -> TaskResult:
    retry = node.options.retries
    limit = retry.limit if retry is not None else 0
    attempt = 1
    while True:
        result = _attempt(node, arguments, index, attempt, run)
        if result.state != "failed" or attempt > limit or retry is None:
            return result
        run.clock.advance(retry.delay_s(attempt))
        attempt += 1


def _attempt(
    node: Node, arguments: dict[str, Any], index: int | None, attempt: int, run: _Run
) -> TaskResult:
    found = TaskResult(node.name, "succeeded", attempts=attempt)
    context = dataclasses.replace(
        run.context,
        task=node.name,
        map_index=index,
        attempt=attempt,
        notes=[],
        outputs={},
        events=[],
        added=[],
        calls={},
    )
    with running(context):
        try:
            value = _body(node, run)(**arguments)
            if inspect.iscoroutine(value):
                import asyncio

                value = asyncio.run(value)
            elif inspect.isgenerator(value):
                value = list(value)
            if isinstance(value, values.Output):
                value = value.value
            if isinstance(value, values.Outputs):
                found.outputs.update(value)
            else:
                found.result = value
        except Skip as skip:
            found.state, found.message = "skipped", str(skip)
        except Exception as error:
            found.state, found.error = "failed", error
    found.outputs.update(context.outputs)
    found.notes, found.events = context.notes, context.events
    if found.state == "succeeded":
        _run_added(found, context, run)
    return found


def _run_added(adder: TaskResult, context: Context, run: _Run) -> None:
    """Runs what a task has added; its failure is the adder's own."""
    states: dict[str, str] = {}
    for entry in context.added:
        name, task = entry["name"], context.calls[entry["name"]]
        bad = next((up for up in entry["upstream"] if states[up] != "succeeded"), None)
        if bad is not None:
            result = TaskResult(name, "upstream_failed", message=f"{bad} is {states[bad]}")
        else:
            node = Node(name, "python", {}, {}, task.options, call=task)
            result = _attempts(node, dict(entry["with"]), None, run)
        states[name] = result.state
        adder.added.append(result)
        if result.state in ("failed", "upstream_failed") and adder.state == "succeeded":
            adder.state, adder.error = "failed", result.error
            adder.message = f"{name}, which it added, failed"


def _body(node: Node, run: _Run) -> Callable[..., Any]:
    if node.name in run.stubs:
        stub = run.stubs[node.name]
        if (
            isinstance(stub, BaseException)
            or isinstance(stub, type)
            and issubclass(stub, BaseException)
        ):

            def fail(**_arguments: Any) -> Any:
                raise stub

            return fail
        if callable(stub):
            return stub  # type: ignore[no-any-return]
        return lambda **_arguments: stub
    if isinstance(node.call, Workflow):
        inner = node.call

        def call(**arguments: Any) -> Any:
            return run_nested(inner, arguments, run)

        return call
    judge = getattr(node.call, "judge", None)
    if judge is not None:
        function = node.call.function

        def judged(**arguments: Any) -> Any:
            from .context import context

            return judge(function(**arguments), context())

        return judged
    if isinstance(node.call, Task):
        return node.call.function
    if node.kind == "noop":
        return lambda **_arguments: None
    raise GraphError(
        f"{node.name} is a {node.kind} task, which only the server runs; give a stub for it"
    )


def run_nested(workflow: Workflow[Any, Any], params: Mapping[str, Any], outer: _Run) -> Any:
    """Runs a workflow that another one calls."""
    prefix = workflow.name.replace("-", "_") + "."
    stubs = {
        name[len(prefix) :]: stub for name, stub in outer.stubs.items() if name.startswith(prefix)
    }
    result = run(workflow, params, stubs=stubs, now=outer.clock.now)
    outer.clock.now = result.clock.now
    return result.raise_for_failure().result
