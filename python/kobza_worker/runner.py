"""The plain runner: imports a function, calls it with JSON values, keeps its JSON result.

A runner is a function ``run(task) -> outputs``. ``task`` is the description that the host sent (see
``worker``), ``outputs`` a dictionary of JSON values; an exception fails the task. Another system's
runner is named in the task as ``module:function`` and may do whatever it likes instead.
"""

from __future__ import annotations

import json
from typing import Any

from . import loading


class NotStorable(Exception):
    """A task returned something that cannot be kept."""

    kobza_cause = "storage"


def arguments(task: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments of a task."""
    given = task.get("args")
    if given is None:
        return [], {}
    if isinstance(given, list):
        return given, {}
    if isinstance(given, dict):
        return [], given
    raise TypeError(f"the arguments must be a list or an object, not {type(given).__name__}")


def run(task: dict[str, Any]) -> dict[str, Any]:
    function = loading.resolve(task["function"], task.get("file"))
    own = getattr(function, "__kobza_run__", None)
    if own is not None:
        outputs: dict[str, Any] = own(task)
        return outputs
    if not callable(function):
        raise loading.LoadError(
            f"{task['function']} is a {type(function).__name__}, not a function"
        )
    positional, named = arguments(task)
    result = function(*positional, **named)
    try:
        json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotStorable(
            f"{task['function']} returned a {type(result).__qualname__} that cannot be kept as JSON:"
            f" {error}"
        ) from None
    return {"result": result}
