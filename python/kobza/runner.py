"""Makes the call of a task inside a worker: arguments in, function, outputs out.

Outputs that are for the control plane begin with ``$``:

========== ================================================================================
``$notes``  list of notes (see ``notes``)
``$events`` list of ``{"name", "payload"}``
``$tasks``  list of tasks to add to the run: ``{"name", "upstream", "python", "with"}``
``$skip``   the reason why the task ends as skipped
``$error``  written by the worker: ``{"type", "message", "cause", "where"}``
========== ================================================================================
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from typing import Any

from . import decoding, schema, values
from .context import Context, running
from .errors import CheckFailed, NotStorable, Skip
from .options import Options


def run(task: dict[str, Any]) -> dict[str, Any]:
    """The runner named in tasks: finds the function and calls it."""
    from kobza_worker import loading

    function = loading.resolve(task["function"], task.get("file"))
    own = getattr(function, "__kobza_run__", None)
    if own is not None:
        outputs: dict[str, Any] = own(task)
        return outputs
    if not callable(function):
        raise loading.LoadError(
            f"{task['function']} is a {type(function).__name__}, not a function"
        )
    return run_function(function, task, Options())


def run_function(
    function: Callable[..., Any], task: dict[str, Any], options: Options
) -> dict[str, Any]:
    _log_to_stderr()
    given = task.get("context")
    with running(Context.of(given if isinstance(given, dict) else {})) as context:
        positional, named = _arguments(function, task, context)
        try:
            result = function(*positional, **named)
            if inspect.iscoroutine(result):
                import asyncio

                result = asyncio.run(result)
            elif inspect.isgenerator(result):
                result = list(result)
        except Skip as skip:
            return {"$skip": str(skip), **_beside(context)}
        if task.get("check") and result is False:
            name = getattr(function, "__name__", "the check")
            raise CheckFailed(f"the check {name} did not hold")
        return collect(function, result, context, options, task.get("result"))


def nothing(x: Any = None) -> None:
    """Rehearsed by warm parents."""


def rehearsal() -> dict[str, Any]:
    """A task without effects, of the form that most have."""
    context = {
        "run_id": "rehearsal",
        "namespace": "default",
        "workflow": "rehearsal",
        "task": "rehearsal",
        "attempt": 1,
        "params": {},
    }
    return {"function": f"{__name__}:nothing", "args": {}, "context": context}


#: Parameters and annotations of functions, which do not change.
_shapes: dict[Any, tuple[dict[str, inspect.Parameter], dict[str, Any]]] = {}


def _shape(function: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    try:
        known = _shapes.get(function)
    except TypeError:
        known = None  # A callable without a hash.
    if known is not None:
        return known
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = {}  # A built-in function has no signature.
    return parameters, schema.hints_of(function)


def prepare(modules: list[Any]) -> None:
    """Does ahead, in a warm parent, what every worker of these modules would do anew."""
    from .task import Task

    _log_to_stderr()
    functions = [nothing]
    for module in modules:
        functions += [v.function for v in vars(module).values() if isinstance(v, Task)]
    for function in functions:
        try:
            _shapes[function] = _shape(function)
        except Exception:
            pass  # Then the call itself says what is wrong.


def _arguments(
    function: Callable[..., Any], task: dict[str, Any], context: Context
) -> tuple[list[Any], dict[str, Any]]:
    given = task.get("args")
    parameters, hints = _shape(function)
    workflow = context.workflow
    if isinstance(given, list):
        names = list(parameters)
        wanted = [hints.get(names[i]) if i < len(names) else None for i in range(len(given))]
        return [decoding.decode(v, w, workflow=workflow) for v, w in zip(given, wanted)], {}
    if given is not None and not isinstance(given, dict):
        raise TypeError(f"the arguments must be a list or an object, not {type(given).__name__}")
    named = dict(given or {})
    if parameters:
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        unknown = [] if takes_any else [name for name in named if name not in parameters]
        missing = [
            name
            for name, p in parameters.items()
            if name not in named
            and p.default is p.empty
            and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if unknown or missing:
            name = getattr(function, "__name__", "the function")
            words = [f"does not take {', '.join(map(repr, unknown))}"] if unknown else []
            words += [f"needs {', '.join(map(repr, missing))}"] if missing else []
            raise TypeError(f"{name}{inspect.signature(function)} {' and '.join(words)}")
    decoded = {
        name: decoding.decode(value, hints.get(name), workflow=workflow)
        for name, value in named.items()
    }
    first = [
        decoded.pop(name)
        for name, p in parameters.items()
        if p.kind is p.POSITIONAL_ONLY and name in decoded
    ]
    return first, decoded


def collect(
    function: Callable[..., Any],
    result: Any,
    context: Context,
    options: Options,
    how: str | None = None,
) -> dict[str, Any]:
    """Outputs of a call that came back."""
    pickled = "pickle" in (options.result, how)
    outputs: dict[str, Any] = {}
    if isinstance(result, values.Output):
        if result.metadata:
            metadata = {str(name): values.encode(value) for name, value in result.metadata.items()}
            context.notes.append({"kind": "metadata", "name": None, "values": metadata})
        pickled = pickled or result.pickled
        result = result.value
    try:
        if isinstance(result, values.Outputs):
            for name, value in result.items():
                outputs[name] = values.encode(value, pickled=pickled, workflow=context.workflow)
            outputs.setdefault("result", None)
        else:
            outputs["result"] = values.encode(result, pickled=pickled, workflow=context.workflow)
        for name, value in context.outputs.items():
            outputs[name] = values.encode(value, workflow=context.workflow)
    except NotStorable as error:
        name = getattr(function, "__qualname__", "the task")
        raise NotStorable(f"the result of {name} cannot be kept: {error}") from None
    return {**outputs, **_beside(context)}


def _beside(context: Context) -> dict[str, Any]:
    beside: dict[str, Any] = {}
    if context.notes:
        beside["$notes"] = context.notes
    if context.events:
        beside["$events"] = [
            {**event, "payload": values.encode(event["payload"])} for event in context.events
        ]
    if context.added:
        beside["$tasks"] = [
            {**added, "with": {name: values.encode(value) for name, value in added["with"].items()}}
            for added in context.added
        ]
    return beside


def _log_to_stderr() -> None:
    """The loggers of a task write to its log, unless the user's code has set them up otherwise."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
