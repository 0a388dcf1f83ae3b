"""``@asset``: a function that makes a piece of data, perhaps in partitions, with checks."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from .context import Context
from .context import context as current_context
from .errors import CheckFailed, GraphError
from .graph import current
from .options import Options
from .task import Task
from .values import plain
from .workflow import Workflow


@dataclasses.dataclass(frozen=True)
class Partitions:
    """How an asset is divided; made by ``daily``, ``hourly``, ``weekly``, ``monthly``, ``static``."""

    kind: str
    settings: dict[str, Any]

    def document(self) -> dict[str, Any]:
        return {"type": self.kind, **self.settings}


def _by_time(kind: str, start: str | date, timezone: str, end: str | date | None) -> Partitions:
    text = start if isinstance(start, str) else start.isoformat()
    date.fromisoformat(text[:10])
    settings: dict[str, Any] = {"start": text, "timezone": timezone}
    if end is not None:
        settings["end"] = end if isinstance(end, str) else end.isoformat()
    return Partitions(kind, settings)


def daily(start: str | date, *, timezone: str = "UTC", end: str | date | None = None) -> Partitions:
    return _by_time("daily", start, timezone, end)


def hourly(
    start: str | date, *, timezone: str = "UTC", end: str | date | None = None
) -> Partitions:
    return _by_time("hourly", start, timezone, end)


def weekly(
    start: str | date, *, timezone: str = "UTC", end: str | date | None = None
) -> Partitions:
    return _by_time("weekly", start, timezone, end)


def monthly(
    start: str | date, *, timezone: str = "UTC", end: str | date | None = None
) -> Partitions:
    return _by_time("monthly", start, timezone, end)


def static(keys: Sequence[str]) -> Partitions:
    if not keys or len(set(keys)) != len(keys):
        raise ValueError("static partitions are a list of keys, each once")
    return Partitions("static", {"keys": list(keys)})


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What a check found."""

    passed: bool
    description: str | None = None
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


class Asset(Task[..., Any]):
    """A task that makes an asset. Parameters named like other assets receive their values."""

    def __init__(
        self,
        function: Callable[..., Any],
        options: Options,
        asset_name: str,
        partitions: Partitions | None,
        deps: Sequence[Any],
    ) -> None:
        produced = dataclasses.replace(
            options,
            produces=(asset_name, *options.produces),
            description=options.description or inspect.getdoc(function),
        )
        super().__init__(function, produced)
        self.asset_name = asset_name
        self.partitions = partitions
        self.deps = list(deps)
        self.checks: list[AssetCheck] = []

    def with_consumes(self, consumes: tuple[str, ...]) -> Asset:
        copy = Asset.__new__(Asset)
        copy.__dict__.update(self.__dict__)
        copy.options = dataclasses.replace(self.options, consumes=consumes)
        return copy

    def check(
        self, function: Callable[..., Any] | None = None, *, block: bool = True, **options: Any
    ) -> Any:
        """Marks a function that judges the asset: it gets the value, and answers True or False or
        a ``CheckResult``. A check that blocks fails its task, so nothing downstream runs."""

        def mark(real: Callable[..., Any]) -> AssetCheck:
            found = AssetCheck(real, Options(**Options.collect(options)), self, block)
            self.checks.append(found)
            return found

        return mark if function is None else mark(function)


class AssetCheck(Task[..., Any]):
    def __init__(
        self, function: Callable[..., Any], options: Options, asset: Asset, block: bool
    ) -> None:
        super().__init__(function, options)
        self.asset = asset
        self.block = block

    def __kobza_run__(self, task: dict[str, Any]) -> dict[str, Any]:
        from .runner import run_function

        def judged(*args: Any, **kwargs: Any) -> Any:
            found = self.judge(self.function(*args, **kwargs), current_context())
            if not found["passed"]:
                # It holds nobody back, but it has not held.
                raise CheckFailed(self._words(found["description"]))
            return found

        judged.__signature__ = self.signature  # type: ignore[attr-defined]
        judged.__annotations__ = getattr(self.function, "__annotations__", {})
        judged.__qualname__ = self.function.__qualname__
        return run_function(judged, task, self.options)

    def _words(self, description: str | None) -> str:
        words = f"the check {self.name} of {self.asset.asset_name} did not hold"
        return words + (f": {description}" if description else "")

    def judge(self, answer: Any, context: Context) -> dict[str, Any]:
        if isinstance(answer, bool):
            answer = CheckResult(answer)
        if not isinstance(answer, CheckResult):
            raise TypeError(
                f"the check {self.name} must answer True, False or a CheckResult,"
                f" not {type(answer).__name__}"
            )
        found = {
            "name": self.name,
            "asset": self.asset.asset_name,
            "passed": answer.passed,
            "severity": "block" if self.block else "warn",
            "description": answer.description,
            "metadata": plain(answer.metadata),
        }
        if not answer.passed:
            words = self._words(answer.description)
            if self.block:
                raise CheckFailed(words)
            context.logger.warning(words)
        return found


def asset(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    partitions: Partitions | None = None,
    deps: Sequence[Any] = (),
    **options: Any,
) -> Any:
    """Marks a function that makes an asset. ``name`` may have levels: ``warehouse/orders``.

    ``deps`` are assets (or names of foreign ones) that must exist but are not passed as arguments.
    The options of ``@task`` apply.
    """
    collected = Options(**Options.collect(options))

    def mark(real: Callable[..., Any]) -> Asset:
        return Asset(real, collected, name or real.__name__, partitions, deps)

    return mark if function is None else mark(function)


def assets(name: str, members: Sequence[Asset], **options: Any) -> Workflow[..., Any]:
    """A workflow that makes assets in the order of their dependencies. Options as ``@workflow``."""
    by_word: dict[str, Asset] = {}
    for member in members:
        for word in {member.name, member.asset_name, member.asset_name.rpartition("/")[2]}:
            if by_word.setdefault(word, member) is not member:
                raise GraphError(f"two assets of {name} are called {word!r}")
    ways = [member.partitions for member in members if member.partitions is not None]
    if any(way != ways[0] for way in ways):
        raise GraphError(
            f"the assets of {name} are partitioned in different ways; make a workflow for each"
        )
    if ways:
        options.setdefault("partitions", ways[0])

    def draw() -> None:
        drawn: dict[str, Any] = {}
        visiting: list[str] = []

        def visit(member: Asset) -> Any:
            if member.asset_name in drawn:
                return drawn[member.asset_name]
            if member.asset_name in visiting:
                raise GraphError(
                    "assets depend on each other in a circle: "
                    + " -> ".join([*visiting, member.asset_name])
                )
            visiting.append(member.asset_name)
            handle = _draw(member, by_word, visit)
            visiting.pop()
            drawn[member.asset_name] = handle
            return handle

        for member in members:
            visit(member)

    draw.__doc__ = f"Makes {', '.join(member.asset_name for member in members)}."
    return Workflow(draw, name=name, **options)


def _draw(member: Asset, by_word: dict[str, Asset], visit: Callable[[Asset], Any]) -> Any:
    from .graph import interval, partition

    graph = current()
    assert graph is not None
    arguments: dict[str, Any] = {}
    sources: list[Asset] = []
    foreign: list[str] = []
    for name, parameter in member.signature.parameters.items():
        source = by_word.get(name)
        if source is not None and source is not member:
            arguments[name] = visit(source)
            sources.append(source)
        elif name == "partition":
            arguments[name] = partition
        elif name == "interval":
            arguments[name] = interval
        elif parameter.default is parameter.empty:
            raise GraphError(
                f"{member.asset_name} needs {name!r}, which is no asset of this workflow"
            )
    after = []
    for dependency in member.deps:
        source = dependency if isinstance(dependency, Asset) else by_word.get(dependency)
        if source is None or source.asset_name not in {a.asset_name for a in by_word.values()}:
            foreign.append(getattr(dependency, "asset_name", dependency))
        else:
            after.append(visit(source))
            sources.append(source)
    consumes = dict.fromkeys([*member.options.consumes, *(s.asset_name for s in sources), *foreign])
    handle = member.with_consumes(tuple(consumes))._draw(graph, arguments, None)
    if after:
        handle.after(*after)
    for source in sources:
        for check in source.checks:
            if check.block:
                handle.after(_check_name(graph, check))
    for check in member.checks:
        first = next(iter(check.signature.parameters), None)
        check._draw(graph, {first: handle} if first else {}, None).after(handle)
    return handle


def _check_name(graph: Any, check: AssetCheck) -> Any:
    from .expression import Result

    for node in graph.nodes.values():
        if node.call is check:
            return Result(node.name)
    raise GraphError(f"the check {check.name} was not drawn")
