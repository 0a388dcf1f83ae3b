"""The values behind JSON: references loaded, and brought to the annotated type."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import json
import pickle
import types
import typing
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from . import formats
from .artifacts import KEY, Artifact
from .errors import ArtifactError


def decode(value: Any, wanted: Any = None, *, workflow: str | None = None) -> Any:
    """The value behind JSON: references loaded, and brought to the annotated type."""
    if isinstance(value, dict):
        if KEY in value and len(value) == 1 and isinstance(value[KEY], dict):
            artifact = Artifact.of(value)
            if _bare(wanted) is Artifact:
                return artifact
            return _convert(load(artifact, _bare(wanted), workflow), wanted)
        if len(value) == 1 and "$float" in value:
            return float(value["$float"])
        inner = {
            key: decode(item, _value_type(wanted, key), workflow=workflow)
            for key, item in value.items()
        }
        return _convert(inner, wanted)
    if isinstance(value, list):
        element = _element_type(wanted)
        return _convert([decode(item, element, workflow=workflow) for item in value], wanted)
    return _convert(value, wanted)


def load(artifact: Artifact, wanted: Any, workflow: str | None = None) -> Any:
    path = artifact.path
    if artifact.type == "json":
        return decode(json.loads(path.read_bytes()), wanted, workflow=workflow)
    if artifact.type == "bytes":
        return path.read_bytes()
    if artifact.type == "file":
        return artifact
    if artifact.type == "pickle":
        origin = artifact.more.get("workflow")
        if workflow is None or origin != workflow:
            raise ArtifactError(
                f"the pickled artifact {artifact.digest[:12]} was made by the workflow {origin!r};"
                " only tasks of that workflow load it, since loading runs code"
            )
        with open(path, "rb") as file:
            return pickle.load(file)
    form = formats.BY_NAME.get(artifact.type)
    if form is None:
        raise ArtifactError(f"nothing here reads artifacts of the type {artifact.type!r}")
    return form.load(path, wanted)


def _bare(wanted: Any) -> Any:
    """The type itself: without Annotated and without None."""
    while typing.get_origin(wanted) is typing.Annotated:
        wanted = typing.get_args(wanted)[0]
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        rest = [one for one in typing.get_args(wanted) if one is not type(None)]
        return _bare(rest[0]) if len(rest) == 1 else None
    return wanted


def _element_type(wanted: Any) -> Any:
    wanted = _bare(wanted)
    if typing.get_origin(wanted) in (list, set, frozenset, tuple):
        arguments = typing.get_args(wanted)
        if arguments and (len(arguments) == 1 or arguments[1] is Ellipsis):
            return arguments[0]
    return None


def _value_type(wanted: Any, key: str) -> Any:
    wanted = _bare(wanted)
    if typing.get_origin(wanted) is dict:
        return typing.get_args(wanted)[1]
    if dataclasses.is_dataclass(wanted):
        try:
            return typing.get_type_hints(wanted, include_extras=True).get(key)
        except Exception:
            return None
    return None


_SIMPLE: dict[Any, Callable[[Any], Any]] = {
    dt.date: lambda v: dt.date.fromisoformat(v[:10]) if isinstance(v, str) else v,
    dt.time: lambda v: dt.time.fromisoformat(v) if isinstance(v, str) else v,
    dt.timedelta: lambda v: dt.timedelta(seconds=v) if isinstance(v, (int, float)) else v,
    Decimal: lambda v: Decimal(str(v)),
    UUID: lambda v: UUID(v) if isinstance(v, str) else v,
    Path: lambda v: Path(v) if isinstance(v, str) else v,
    float: lambda v: float(v) if isinstance(v, int) and not isinstance(v, bool) else v,
    set: lambda v: set(v) if isinstance(v, list) else v,
    frozenset: lambda v: frozenset(v) if isinstance(v, list) else v,
    tuple: lambda v: tuple(v) if isinstance(v, list) else v,
    bytes: lambda v: base64.b64decode(v) if isinstance(v, str) else v,
}


def _instant(value: Any) -> Any:
    from .context import instant

    return instant(value) if isinstance(value, str) else value


def _convert(value: Any, wanted: Any) -> Any:
    """Brings a JSON value to the annotated type where JSON has no such type."""
    kind = _bare(wanted)
    if value is None or kind is None or kind is Any:
        return value
    if kind is dt.datetime:
        return _instant(value)
    base = typing.get_origin(kind) or kind
    simple = _SIMPLE.get(base) if isinstance(base, type) else None
    try:
        if simple is not None:
            return simple(value)
        if isinstance(base, type):
            if issubclass(base, enum.Enum) and not isinstance(value, base):
                return base(value)
            if dataclasses.is_dataclass(base) and isinstance(value, dict):
                return base(**value)
            if hasattr(base, "model_validate") and isinstance(value, dict):
                return base.model_validate(value)
            if issubclass(base, tuple) and hasattr(base, "_fields") and isinstance(value, dict):
                return base(**value)
    except (ValueError, TypeError, ArithmeticError) as error:
        shown = repr(value)
        raise ValueError(f"{shown[:100]} is not a {base.__name__}: {error}") from None
    return value
