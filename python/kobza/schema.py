"""JSON Schema of a workflow's parameters, from the annotations of its function."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

from .errors import GraphError


@dataclasses.dataclass(frozen=True)
class Param:
    """More about a parameter: ``region: Annotated[str, Param(description="...")]``."""

    description: str | None = None
    title: str | None = None
    ge: float | None = None
    le: float | None = None
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None

    def apply(self, schema: dict[str, Any]) -> None:
        names = {
            "description": "description",
            "title": "title",
            "ge": "minimum",
            "le": "maximum",
            "pattern": "pattern",
            "min_length": "minLength",
            "max_length": "maxLength",
        }
        for ours, theirs in names.items():
            value = getattr(self, ours)
            if value is not None:
                schema[theirs] = value


_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
    inspect.Parameter.empty: {},
    date: {"type": "string", "format": "date"},
    datetime: {"type": "string", "format": "date-time"},
    time: {"type": "string", "format": "time"},
    timedelta: {"type": "number"},
    Decimal: {"type": "string"},
    UUID: {"type": "string", "format": "uuid"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    set: {"type": "array"},
    dict: {"type": "object"},
    object: {},
}


def of_type(annotation: Any) -> dict[str, Any]:
    """The schema of one annotation."""
    try:
        if annotation in _PLAIN:
            return dict(_PLAIN[annotation])
    except TypeError:
        pass
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        schema = of_type(arguments[0])
        for extra in arguments[1:]:
            if isinstance(extra, Param):
                extra.apply(schema)
        return schema
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is Union or origin is types.UnionType:
        return {"anyOf": [of_type(argument) for argument in arguments]}
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": of_type(arguments[0])}
        return {
            "type": "array",
            "prefixItems": [of_type(argument) for argument in arguments],
            "minItems": len(arguments),
            "maxItems": len(arguments),
        }
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": of_type(arguments[1])}
    if isinstance(origin, type) and issubclass(origin, (Sequence, set, frozenset)):
        return {"type": "array", "items": of_type(arguments[0])}
    if isinstance(annotation, type):
        if issubclass(annotation, enum.Enum):
            return {"enum": [member.value for member in annotation]}
        if dataclasses.is_dataclass(annotation):
            return _of_dataclass(annotation)
        if hasattr(annotation, "model_json_schema"):
            schema = annotation.model_json_schema()
            return dict(schema)
    raise GraphError(f"there is no JSON Schema for the annotation {annotation!r}")


def _of_dataclass(annotation: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(annotation, include_extras=True)
    fields = dataclasses.fields(annotation)
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {field.name: of_type(hints[field.name]) for field in fields},
        "additionalProperties": False,
    }
    if required:
        schema["required"] = required
    return schema


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a function, as objects where they can be found."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:
        pass
    # Names that exist only for the type checker, or in the function around: those parameters
    # accept anything, the others keep their types.
    found: dict[str, Any] = {}
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for name, value in getattr(function, "__annotations__", {}).items():
        try:
            found[name] = eval(value, names) if isinstance(value, str) else value
        except Exception:
            continue
    return found


def of_function(function: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """One schema per parameter; those without a default are the required ones."""
    hints = hints_of(function)
    found: dict[str, dict[str, Any]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise GraphError(f"a workflow's parameters have names; *{name} has none")
        schema = of_type(hints.get(name, inspect.Parameter.empty))
        if parameter.default is not parameter.empty:
            from .values import plain

            schema["default"] = plain(parameter.default)
        found[name] = schema
    return found
