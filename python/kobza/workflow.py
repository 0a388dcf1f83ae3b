"""``@workflow``: a function that draws a graph."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from . import schema
from .errors import GraphError
from .expression import Expression, Item, Name, walk
from .graph import Graph, Node, current, drawing
from .options import Duration, Options
from .triggers import Trigger, cron

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Generic[P, R]):
    """A function whose calls of tasks are its graph. Its parameters are the run's parameters."""

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        schedule: str | Trigger | None = None,
        triggers: Sequence[Trigger] = (),
        tags: Sequence[str] = (),
        timeout: Duration | None = None,
        max_active_runs: int | None = None,
        python: str | None = None,
        requirements: str | Sequence[str] | None = None,
        partitions: Any = None,
        mode: str | None = None,
    ) -> None:
        self.function = function
        self.name = name or function.__name__.replace("_", "-")
        self.description = description or inspect.getdoc(function)
        self.triggers = list(triggers)
        if isinstance(schedule, str):
            schedule = cron(schedule)
        if schedule is not None:
            self.triggers.insert(0, schedule)
        self.tags = list(tags)
        self.timeout = timeout
        self.max_active_runs = max_active_runs
        self.python = python
        self.requirements = requirements
        self.partitions = partitions
        self.mode = mode
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Inside another workflow it becomes a task that runs it; elsewhere it just runs."""
        graph = current()
        if graph is None:
            return self.function(*args, **kwargs)
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        return graph.add(
            Node(  # type: ignore[return-value]
                name=graph.fresh_name(self.name.replace("-", "_")),
                kind="workflow",
                spec={"workflow": self.name},
                arguments=dict(bound.arguments),
                options=Options(),
                call=self,
            )
        )

    def parameters(self) -> dict[str, dict[str, Any]]:
        return schema.of_function(self.function)

    def draw(self) -> tuple[Graph, Any]:
        """The graph, and what the function returned: expressions over it."""
        graph = Graph()
        params = {name: Item(Name("params"), name) for name in self.parameters()}
        with drawing(graph):
            returned = self.function(**params)  # type: ignore[arg-type, call-arg]
        for name in walk(returned):
            if name not in graph.nodes:
                raise GraphError(
                    f"{self.name} returns the result of {name!r}, which it does not call"
                )
        return graph, returned

    def document(self) -> dict[str, Any]:
        """The workflow as a native document."""
        from .document import of_workflow

        return of_workflow(self)

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    description: str | None = None,
    schedule: str | Trigger | None = None,
    triggers: Sequence[Trigger] = (),
    tags: Sequence[str] = (),
    timeout: Duration | None = None,
    max_active_runs: int | None = None,
    python: str | None = None,
    requirements: str | Sequence[str] | None = None,
    partitions: Any = None,
    mode: str | None = None,
) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...
def workflow(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Marks a function as a workflow. ``schedule`` is a cron expression or a trigger."""
    if function is not None:
        return Workflow(function, **options)
    return lambda real: Workflow(real, **options)


def is_known(value: Any) -> bool:
    """Whether a value is known now, not only when the workflow runs."""
    return not isinstance(value, Expression)
