"""How results are kept: small ones as JSON, large ones as artifacts named by their content.

A reference to an artifact is ``{"$artifact": {...}}`` with the digest, the type, the number of bytes
and, for frames, rows, schema and a preview. It travels wherever JSON does; whoever gets it as an
argument gets the value.

Frames become Parquet and arrays npy, written and read in pieces: neither side holds two copies.
Pickle happens only when the task asks for it, only tasks of the same workflow load it, and the server
never does.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import os
import pickle
from collections.abc import Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from .artifacts import KEY, Artifact, incoming, keep
from .errors import ArtifactError, NotStorable
from .formats import format_of

#: JSON longer than this, in bytes, becomes an artifact of its own.
INLINE_BYTES_MAX = 64 << 10


@dataclasses.dataclass(frozen=True)
class Pickle:
    """Wraps a result that is to be kept by pickle."""

    value: Any


class Outputs(dict[str, Any]):
    """Several named results: ``return Outputs(rows=rows, model=model)``."""


@dataclasses.dataclass(frozen=True)
class Output:
    """A result with something to say of it: ``return Output(frame, metadata={"rejected": 3})``.

    ``pickled`` keeps the value by pickle, for this result alone.
    """

    value: Any
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pickled: bool = False


def plain(value: Any) -> Any:
    """A value as JSON without artifacts. Raises ``NotStorable``."""
    return _json(value, artifacts=False, seen=())


def encode(value: Any, *, pickled: bool = False, workflow: str | None = None) -> Any:
    """A result as JSON, with what is large or has a format of its own put into the store."""
    if pickled:
        value = Pickle(value)
    encoded = _json(value, artifacts=True, seen=(), workflow=workflow)
    if isinstance(encoded, (str, list, dict)) and not (
        isinstance(encoded, dict) and KEY in encoded
    ):
        data = json.dumps(encoded, ensure_ascii=False, allow_nan=False).encode(
            "utf-8", "surrogatepass"
        )
        if len(data) > INLINE_BYTES_MAX and os.environ.get("KOBZA_ARTIFACTS"):
            return Artifact.of_bytes(data, media_type="application/json", type="json").reference()
    return encoded


def _json(value: Any, artifacts: bool, seen: tuple[int, ...], workflow: str | None = None) -> Any:
    if value is None or isinstance(value, (bool, int, str)) and type(value) in (bool, int, str):
        return value
    if type(value) is float:
        if math.isfinite(value):
            return value
        return {"$float": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    if id(value) in seen:
        raise NotStorable(f"a {type(value).__qualname__} that contains itself cannot be kept")
    inner = (*seen, id(value))
    if len(inner) > 200:
        raise NotStorable("a value nested more than 200 deep cannot be kept as JSON")

    def go(item: Any) -> Any:
        return _json(item, artifacts, inner, workflow)

    if isinstance(value, Mapping):
        return {_key(key): go(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: go(item) for key, item in value._asdict().items()}
    if isinstance(value, (list, tuple)):
        return [go(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(
            (go(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True)
        )
    if isinstance(value, enum.Enum):
        return go(value.value)
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, (Decimal, UUID, PurePath)):
        return str(value)
    if isinstance(value, (str, int, float)):
        return go(_unwrapped(value))
    if isinstance(value, Artifact):
        return value.reference()
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Pickle)):
        return {field.name: go(getattr(value, field.name)) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return go(dump(mode="json"))
    if (
        type(value).__module__ == "numpy"
        and hasattr(value, "item")
        and getattr(value, "shape", 1) == ()
    ):
        return go(value.item())
    if artifacts:
        return _artifact(value, workflow)
    raise NotStorable(f"a {_type_name(value)} is not a JSON value")


def _unwrapped(value: Any) -> Any:
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str(key)
    if key is None or isinstance(key, (bool, int, float, dt.date, enum.Enum, UUID)):
        text = plain(key)
        return text if isinstance(text, str) else json.dumps(text)
    raise NotStorable(f"a mapping's key must be text or a number, not a {_type_name(key)}")


def _type_name(value: Any) -> str:
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _artifact(value: Any, workflow: str | None) -> dict[str, Any]:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Artifact.of_bytes(bytes(value)).reference()
    if isinstance(value, Pickle):
        return _pickle(value.value, workflow)
    form = format_of(value)
    if form is None:
        raise NotStorable(
            f"a value of type {_type_name(value)} cannot be kept; return JSON values, a data frame,"
            ' an array or a kobza.Artifact, or ask for pickle with @task(result="pickle")'
        )
    try:
        with incoming() as temporary:
            form.save(value, temporary)
            digest, length = keep(temporary)
    except (NotStorable, ArtifactError):
        raise
    except OSError as error:
        raise ArtifactError(f"the artifact could not be written: {error}") from error
    except Exception as error:
        raise NotStorable(
            f"a {_type_name(value)} cannot be kept as {form.name}: {error}"
        ) from error
    return Artifact(
        digest, form.name, length, form.media_type, None, form.describe(value)
    ).reference()


def _pickle(value: Any, workflow: str | None) -> dict[str, Any]:
    with incoming() as temporary:
        try:
            with open(temporary, "wb") as file:
                pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)
        except OSError as error:
            raise ArtifactError(f"the artifact could not be written: {error}") from error
        except Exception as error:
            raise NotStorable(f"a {_type_name(value)} cannot be pickled: {error}") from error
        digest, length = keep(temporary)
    more = {"python_type": _type_name(value), "workflow": workflow}
    return Artifact(digest, "pickle", length, "application/x-python-pickle", None, more).reference()
