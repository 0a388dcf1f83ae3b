"""The graph that a workflow function draws."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .errors import GraphError
from .expression import Expression, Name, Not, Result, lift, walk
from .options import Options


@dataclass
class Mapped:
    """One instance for each element of what is mapped over; several are walked side by side."""

    over: dict[str, Any]
    product: bool = False


@dataclass
class Node:
    """One call of a task."""

    name: str
    kind: str
    spec: dict[str, Any]
    arguments: dict[str, Any]
    options: Options
    mapped: Mapped | None = None
    when: Expression | None = None
    after: list[str] = field(default_factory=list)
    #: What runs it in process; absent for kinds that only the server knows.
    call: Any = None

    def upstream(self) -> list[str]:
        """Names of the nodes that must come before, in the order of their drawing."""
        names = walk(self.arguments) | walk(self.spec) | set(self.after)
        if self.mapped is not None:
            names |= walk(self.mapped.over)
        if self.when is not None:
            names |= self.when.tasks()
        return sorted(names)


class Graph:
    """The nodes drawn so far."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._conditions: list[Expression] = []
        self._groups: list[str] = []

    def fresh_name(self, wanted: str) -> str:
        base = "_".join([*self._groups, wanted])
        name, number = base, 1
        while name in self.nodes:
            number += 1
            name = f"{base}_{number}"
        return name

    def add(self, node: Node) -> Handle:
        for condition in self._conditions:
            node.when = condition if node.when is None else node.when & condition
        for upstream in node.upstream():
            if upstream not in self.nodes:
                raise GraphError(
                    f"{node.name} reads the result of {upstream!r}, which is no task of this workflow"
                )
        self.nodes[node.name] = node
        return Handle(node)


class Handle(Result):
    """The result of a node of the graph being drawn."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        super().__init__(node.name)
        self.node = node

    def output(self, name: str) -> Result:
        """Another output of the task, by its name."""
        return Result(self.node.name, name)

    def after(self, *others: Any) -> Handle:
        """Runs after these, though it reads nothing of them."""
        for other in others:
            names = walk(other)
            if not names:
                raise GraphError("`after` takes results of tasks")
            self.node.after += sorted(names - {self.node.name})
        return self

    def __rshift__(self, other: Any) -> Any:
        """``a >> b`` runs b after a."""
        for item in other if isinstance(other, (list, tuple)) else [other]:
            if not isinstance(item, Handle):
                raise GraphError("`>>` stands between results of tasks")
            item.after(self)
        return other


_current: contextvars.ContextVar[Graph | None] = contextvars.ContextVar("kobza_graph", default=None)


def current() -> Graph | None:
    """The graph being drawn, if one is."""
    return _current.get()


@contextmanager
def drawing(graph: Graph | None) -> Iterator[Graph | None]:
    token = _current.set(graph)
    try:
        yield graph
    finally:
        _current.reset(token)


class when:  # lower case: reads as a statement
    """``with when(condition):`` – what is drawn inside runs only if it holds, else it is skipped.

    ``with condition.otherwise():`` is the other side::

        with when(count > 0) as some:
            publish(rows)
        with some.otherwise():
            complain()
    """

    def __init__(self, condition: Any) -> None:
        self.condition = condition

    def __enter__(self) -> when:
        graph = _need_graph("when")
        graph._conditions.append(lift(self.condition))
        return self

    def __exit__(self, *_: object) -> None:
        _need_graph("when")._conditions.pop()

    def otherwise(self) -> when:
        return when(Not(lift(self.condition)))


@contextmanager
def group(name: str) -> Iterator[None]:
    """Tasks drawn inside get the group's name in front of theirs."""
    graph = _need_graph("group")
    graph._groups.append(name)
    try:
        yield
    finally:
        graph._groups.pop()


def _need_graph(what: str) -> Graph:
    graph = current()
    if graph is None:
        raise GraphError(f"`{what}` belongs into a function marked @workflow")
    return graph


#: The run at hand, in templates: ``run.id``, ``run.key``, ...
run = Name("run")
#: The data interval of the run: ``interval.start``, ``interval.end``.
interval = Name("interval")
#: The partition of the run.
partition = Name("partition")
