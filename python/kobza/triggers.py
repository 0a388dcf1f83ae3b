"""What starts a workflow: schedules, assets, events, webhooks, other runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import options
from .options import Duration


@dataclass(frozen=True)
class Trigger:
    """One trigger of a workflow. ``params`` are templates over the event that fired it."""

    kind: str
    settings: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        settings = {key: value for key, value in self.settings.items() if value is not None}
        document: dict[str, Any] = dict(settings)
        if self.params:
            document["params"] = self.params
        return document


def cron(
    expression: str,
    *,
    timezone: str | None = None,
    catchup: bool | str | None = None,
    overlap: str | None = None,
    params: dict[str, Any] | None = None,
) -> Trigger:
    """At the times of a cron expression, by the clocks of a time zone (default UTC)."""
    if len(expression.split()) not in (5, 6, 7) and not expression.startswith("@"):
        raise ValueError(
            f"{expression!r} is not a cron expression: it has five fields, such as '0 2 * * *'"
        )
    return Trigger(
        "cron",
        {"cron": expression, "timezone": timezone, "catchup": catchup, "overlap": overlap},
        params or {},
    )


def every(
    interval: Duration,
    *,
    catchup: bool | str | None = None,
    overlap: str | None = None,
    params: dict[str, Any] | None = None,
) -> Trigger:
    """At a fixed interval."""
    if options.seconds(interval) <= 0:
        raise ValueError("an interval must be longer than nothing")
    return Trigger(
        "every",
        {"every": options.text(interval), "catchup": catchup, "overlap": overlap},
        params or {},
    )


def on_asset(*assets: Any, all: bool = True, params: dict[str, Any] | None = None) -> Trigger:
    """When assets were made anew: all of them since the last run, or any."""
    names = [getattr(asset, "asset_name", asset) for asset in assets]
    if not names or [name for name in names if not isinstance(name, str)]:
        raise TypeError("on_asset takes assets or their names")
    return Trigger("assets", {"assets": {"all" if all else "any": names}}, params or {})


def on_run(
    workflow: Any, *, state: str = "succeeded", params: dict[str, Any] | None = None
) -> Trigger:
    """When a run of another workflow ends."""
    return Trigger(
        "run",
        {"run": {"workflow": getattr(workflow, "name", workflow), "states": [state]}},
        params or {},
    )


def webhook(
    path: str,
    *,
    secret: str | None = None,
    scheme: str | None = None,
    params: dict[str, Any] | None = None,
) -> Trigger:
    """When somebody posts to the trigger's address, which ends in ``path``. ``secret`` names the
    secret that requests are signed with; ``scheme`` says how: ``standard``, ``github``, ``slack``
    or ``gitlab``."""
    settings = {"path": path, "secret": secret, "scheme": scheme}
    given = {name: value for name, value in settings.items() if value is not None}
    return Trigger("webhook", {"webhook": given}, params or {})


def on_event(
    name: str, *, filter: str | None = None, params: dict[str, Any] | None = None
) -> Trigger:
    """When a task of any workflow of the namespace emits an event of this name (``kobza.emit``).
    ``filter`` is an expression over ``event``, such as ``event.payload.order > 5``."""
    if not isinstance(name, str) or not name:
        raise ValueError("an event has a name")
    return Trigger("event", {"event": name, "filter": filter}, params or {})


def on_file(pattern: str, *, params: dict[str, Any] | None = None) -> Trigger:
    """When a file appears or changes; the last part of the absolute path may have wildcards."""
    return Trigger("file", {"file": pattern}, params or {})
