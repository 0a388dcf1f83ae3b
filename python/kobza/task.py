"""``@task``: a function that is a step of workflows."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from .errors import GraphError
from .expression import Expression, Name
from .graph import Graph, Mapped, Node, current
from .options import Options

P = ParamSpec("P")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class unmapped:  # lower case: reads as a word
    """An argument of ``map`` that every instance gets whole."""

    value: Any


class Task(Generic[P, R]):
    """A function that can be called as it is, and that draws a node inside a ``@workflow``."""

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        if not callable(function):
            raise TypeError(f"@task marks a function, not a {type(function).__name__}")
        self.function = function
        self.options = options
        self.signature = inspect.signature(function)
        functools.update_wrapper(self, function)

    @property
    def name(self) -> str:
        return self.options.name or self.function.__name__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        graph = current()
        if graph is None:
            return self.function(*args, **kwargs)
        # While drawing, an expression stands for the result.
        return cast(R, self._draw(graph, self._bind(args, kwargs), None))

    def map(self, *args: Any, **kwargs: Any) -> list[R]:
        """One instance for each element; lists of several arguments are walked side by side.

        An argument that is no list (or is wrapped in ``unmapped``) goes to every instance. Inside a
        workflow the answer stands for the list of the instances' results.
        """
        return self._map(args, kwargs, product=False)

    def product(self, *args: Any, **kwargs: Any) -> list[R]:
        """As ``map``, with one instance for each combination of elements."""
        return self._map(args, kwargs, product=True)

    def _map(self, args: tuple[Any, ...], kwargs: dict[str, Any], product: bool) -> list[R]:
        bound = self._bind(args, kwargs)
        over: dict[str, Any] = {}
        fixed: dict[str, Any] = {}
        for name, value in bound.items():
            if isinstance(value, unmapped):
                fixed[name] = value.value
            elif isinstance(value, Expression):
                over[name] = value
            elif isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict)):
                over[name] = list(value)
            else:
                fixed[name] = value
        if not over:
            raise GraphError(f"{self.name}.map needs an argument to map over: a list, or a result")
        graph = current()
        if graph is not None:
            return cast("list[R]", self._draw(graph, fixed, Mapped(over, product)))
        return [self.function(**fixed, **item) for item in combinations(over, product)]  # type: ignore[call-arg]

    def with_options(self, **given: Any) -> Task[P, R]:
        """The same function with some options changed."""
        options = dataclasses.replace(self.options, **Options.collect(given))
        return Task(self.function, options)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            elif kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
                if current() is not None:
                    raise GraphError(
                        f"{self.name}: positional-only and * parameters cannot be drawn;"
                        " give the parameter a name"
                    )
                named[name] = value
            else:
                named[name] = value
        return named

    def _draw(self, graph: Graph, arguments: dict[str, Any], mapped: Mapped | None) -> Any:
        node = Node(
            name=graph.fresh_name(self.name),
            kind="python",
            spec=self.reference(),
            arguments=arguments,
            options=self.options,
            mapped=mapped,
            call=self,
        )
        return graph.add(node)

    def reference(self) -> dict[str, Any]:
        """Where a worker finds the function."""
        return reference_of(self.function)

    def __kobza_run__(self, task: dict[str, Any]) -> dict[str, Any]:
        from .runner import run_function

        return run_function(self.function, task, self.options)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


def reference_of(function: Callable[..., Any]) -> dict[str, Any]:
    qualname = function.__qualname__
    if "<locals>" in qualname or "<lambda>" in qualname:
        raise GraphError(
            f"the task {qualname} is defined inside a function, where a worker cannot find it;"
            " move it to the top of its module"
        )
    module = sys.modules.get(function.__module__)
    file = getattr(module, "__file__", None)
    package = getattr(module, "__package__", None)
    if file and not package:
        # A file of its own, not part of a package: found by its path.
        return {"file": os.path.abspath(file), "function": qualname}
    if file and package:
        depth = function.__module__.count(".") + (os.path.basename(file) == "__init__.py")
        root = os.path.abspath(file)
        for _ in range(depth + 1):
            root = os.path.dirname(root)
        return {"function": f"{function.__module__}:{qualname}", "path": [root]}
    return {"function": f"{function.__module__}:{qualname}"}


def combinations(over: dict[str, list[Any]], product: bool) -> list[dict[str, Any]]:
    """The arguments of each instance of a map."""
    if product:
        items: list[dict[str, Any]] = [{}]
        for name, values in over.items():
            items = [{**item, name: value} for item in items for value in values]
        return items
    lengths = {name: len(values) for name, values in over.items()}
    if len(set(lengths.values())) > 1:
        words = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"lists that are mapped side by side must be equally long: {words}")
    return [dict(zip(over, values)) for values in zip(*over.values())]


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    """Marks a function as a task.

    Options: ``name``, ``description``, ``retries`` (a number or ``Retry``), ``retry_delay``,
    ``timeout``, ``pool``, ``priority``, ``cache`` (True, an age or ``Cache``), ``tags``,
    ``produces``, ``consumes``, ``env``, ``memory``, ``rule``, ``mode`` (``fork``, ``spawn``,
    ``reuse``), ``result`` (``pickle`` to keep what no other format holds).
    """
    collected = Options(**Options.collect(options))
    if function is not None:
        return Task(function, collected)
    return lambda real: Task(real, collected)


def step(
    kind: str, spec: Any, *, name: str, arguments: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Draws a task of a kind that is no Python function."""
    graph = current()
    if graph is None:
        raise GraphError(f"a {kind} task belongs into a function marked @workflow")
    return graph.add(
        Node(
            name=graph.fresh_name(name),
            kind=kind,
            spec=spec,
            arguments=arguments or {},
            options=Options(**Options.collect(options)),
        )
    )


def shell(script: str, *, name: str = "shell", **options: Any) -> Any:
    """Runs a shell script; expressions inside (by f-string) are quoted by the server."""
    return step("shell", script, name=name, **options)


def sql(query: str, *, connection: str, name: str = "sql", **options: Any) -> Any:
    """Runs a query on a connection; expressions inside are bound, not pasted."""
    return step("sql", {"query": query, "connection": connection}, name=name, **options)


def http(url: str, *, method: str = "GET", name: str = "http", **options: Any) -> Any:
    """Makes an HTTP request."""
    return step("http", {"url": url, "method": method}, name=name, **options)


def noop(*, name: str = "noop", **options: Any) -> Any:
    """Does nothing: a place for others to meet."""
    return step("noop", {}, name=name, **options)


def approval(message: str, *, name: str = "approval", **options: Any) -> Any:
    """Waits for a person."""
    return step("approval", {"message": message}, name=name, **options)


#: The element at hand, in the arguments of a mapped task.
item = Name("item")
