"""What a running task may know of itself."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .errors import GraphError, NoContext

# Most tasks that one attempt may add; the engine refuses more.
MOST_ADDED = 1000


@dataclass(frozen=True)
class Interval:
    """A span of time: from ``start`` up to, and without, ``end``."""

    start: datetime
    end: datetime


@dataclass
class Context:
    """The task at hand. Fields are None where the run has no such thing."""

    run_id: str | None = None
    namespace: str = "default"
    workflow: str | None = None
    task: str | None = None
    map_index: int | None = None
    attempt: int = 1
    params: dict[str, Any] = field(default_factory=dict)
    interval: Interval | None = None
    partition: str | None = None
    logger: logging.Logger = field(default_factory=lambda: logging.getLogger("kobza.task"))
    #: What the task has put out beside its result; see ``notes`` and ``emit``.
    notes: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    added: list[dict[str, Any]] = field(default_factory=list)
    #: The added tasks themselves, by name: for runs in process.
    calls: dict[str, Any] = field(default_factory=dict)
    lookups: dict[str, dict[str, Any]] = field(default_factory=dict)
    clock: Any = None

    def now(self) -> datetime:
        """The time, in UTC; the testing clock's in a test."""
        now: datetime = self.clock() if self.clock is not None else datetime.now(timezone.utc)
        return now

    def output(self, name: str, value: Any) -> None:
        """Puts out another value beside the result: ``tasks.NAME.<name>`` in templates."""
        if not name or name.startswith("$") or name == "result":
            raise ValueError(f"an output cannot be called {name!r}")
        self.outputs[name] = value

    @classmethod
    def of(cls, data: dict[str, Any]) -> Context:
        """From the description that comes with a task."""
        interval = data.get("interval")
        if isinstance(interval, dict) and interval.get("start") and interval.get("end"):
            span = Interval(instant(interval["start"]), instant(interval["end"]))
        else:
            span = None
        params, lookups = data.get("params"), data.get("lookups")
        return cls(
            run_id=data.get("run_id"),
            namespace=data.get("namespace") or "default",
            workflow=data.get("workflow"),
            task=data.get("task"),
            map_index=data.get("map_index"),
            attempt=int(data.get("attempt") or 1),
            params=params if isinstance(params, dict) else {},
            interval=span,
            partition=data.get("partition"),
            lookups=lookups if isinstance(lookups, dict) else {},
        )


def instant(value: str) -> datetime:
    """A time in RFC 3339."""
    text = value[:-1] + "+00:00" if value.endswith("Z") else value
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar(
    "kobza_context", default=None
)


def context() -> Context:
    """The running task's context. Outside of any task: an empty one, so that functions run in tests."""
    found = _current.get()
    if found is None:
        text = os.environ.get("KOBZA_CONTEXT")
        data = json.loads(text) if text else {}
        found = Context.of(data if isinstance(data, dict) else {})
        _current.set(found)
    return found


@contextmanager
def running(value: Context) -> Iterator[Context]:
    token = _current.set(value)
    try:
        yield value
    finally:
        _current.reset(token)


def emit(name: str, payload: Any = None) -> None:
    """Starts what waits for an event of this name, once the task has ended well."""
    context().events.append({"name": name, "payload": payload})


def add_task(
    task: Any, *args: Any, name: str | None = None, after: list[str] | None = None, **kwargs: Any
) -> str:
    """A running task adds a task to its run. Answers the new task's name.

    ``after`` names tasks that were added before it. Raises ``ValueError`` for a name that is taken,
    one in ``after`` that is not known, and beyond 1,000 tasks.
    """
    here = context()
    if here.run_id is None and here.clock is None:
        raise NoContext("add_task belongs into a running task")
    arguments = task._bind(args, kwargs)
    name = name or f"{task.name}-{len(here.added) + 1}"
    known = {added["name"] for added in here.added}
    if len(known) >= MOST_ADDED:
        raise ValueError(f"a task adds at most {MOST_ADDED} tasks; map over a list instead")
    if name in known:
        raise ValueError(f"a task named {name!r} was added already; give name=")
    if missing := [wanted for wanted in after or [] if wanted not in known]:
        raise ValueError(f"{name!r} waits for {missing[0]!r}, which was not added before it")
    here.calls[name] = task
    here.added.append(
        {"name": name, "upstream": list(after or []), "python": task.reference(), "with": arguments}
    )
    return name


def _lookup(kind: str, name: str) -> Any:
    from .expression import Item, Name
    from .graph import current

    if current() is not None:
        if kind == "connection":
            raise GraphError("a connection cannot be passed around; ask for it inside of the task")
        return Item(Name({"variable": "var"}.get(kind, kind)), name)
    given = context().lookups.get(kind, {})
    if name in given:
        return given[name]
    asking = sys.modules.get("kobza_worker.asking")
    if asking is not None and asking.available():
        # In a running task: through its host. The answer's secrets are masked in the log.
        try:
            return asking.ask({"lookup": kind, "name": name})
        except asking.Refused as refused:
            raise NoContext(str(refused)) from None
    variable_name = (
        f"KOBZA_{kind}_{name}".upper().replace("-", "_").replace(".", "_").replace("/", "_")
    )
    text = os.environ.get(variable_name)
    if text is not None:
        if kind == "secret":
            return text
        try:
            return json.loads(text)
        except ValueError:
            return text
    raise NoContext(
        f"there is no {kind} {name!r} here; outside of a server set the environment variable {variable_name}"
    )


def variable(name: str) -> Any:
    """A variable of the namespace. In a workflow function: a reference to it."""
    return _lookup("variable", name)


def connection(name: str) -> Any:
    """A connection of the namespace: a dictionary with its URL and what else it holds."""
    return _lookup("connection", name)


def secret(name: str) -> Any:
    """A secret of the namespace. It is masked in logs; do not print it all the same."""
    return _lookup("secret", name)
