"""How results are kept: small ones as JSON, large ones as artifacts named by their content.

A reference to an artifact is ``{"$artifact": {...}}`` with the digest, the type, the number of bytes
and, for frames, rows, schema and a preview. It travels wherever JSON does; whoever gets it as an
argument gets the value.

Frames become Parquet and arrays npy, written and read in pieces: neither side holds two copies.
Pickle happens only when the task asks for it, only tasks of the same workflow load it, and the server
never does.
"""

from __future__ import annotations

import base64
import builtins
import dataclasses
import datetime as dt
import enum
import hashlib
import json
import math
import os
import pickle
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path, PurePath
from typing import IO, Any
from uuid import UUID

from .errors import ArtifactError, NotStorable

#: JSON longer than this, in bytes, becomes an artifact of its own.
INLINE_BYTES_MAX = 64 << 10
#: Rows of a frame written at once, and rows of its preview.
ROWS_AT_ONCE = 100_000
PREVIEW_ROWS = 20
PREVIEW_COLUMNS = 50
PREVIEW_CELL_CHARS = 200
_CHUNK = 1 << 20
KEY = "$artifact"


# The store -------------------------------------------------------------------------------------


def store_folder() -> Path:
    folder = os.environ.get("KOBZA_ARTIFACTS")
    if not folder:
        raise ArtifactError(
            "there is no artifact store: the environment variable KOBZA_ARTIFACTS names no folder"
        )
    return Path(folder)


def path_of(digest: str) -> Path:
    """Where an artifact lies. Refuses what is not a digest, so that no name becomes a path."""
    if len(digest) != 64 or any(c not in "0123456789abcdef" for c in digest):
        raise ArtifactError(f"{digest[:80]!r} is not the digest of an artifact")
    return store_folder() / digest[:2] / digest


@contextmanager
def _incoming() -> Iterator[Path]:
    folder = store_folder() / "incoming-tasks"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder)
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _keep(path: Path) -> tuple[str, int]:
    """Moves a finished file into the store. Answers digest and length."""
    hasher = hashlib.sha256()
    length = 0
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            hasher.update(piece)
            length += len(piece)
        digest = hasher.hexdigest()
        target = path_of(digest)
        if not target.exists():
            os.fsync(file.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            os.chmod(path, 0o640)
            os.link(path, target) if not target.exists() else None
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    return digest, length


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A file in the store. A parameter annotated so gets this instead of the loaded value."""

    digest: str
    type: str
    bytes: int
    media_type: str = "application/octet-stream"
    name: str | None = None
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def file(
        cls, path: str | os.PathLike[str], *, media_type: str | None = None, name: str | None = None
    ) -> Artifact:
        """Stores a copy of a file."""
        import mimetypes
        import shutil

        source = Path(path)
        guessed = media_type or mimetypes.guess_type(source.name)[0] or "application/octet-stream"
        with _incoming() as temporary:
            shutil.copyfile(source, temporary)
            digest, length = _keep(temporary)
        return cls(digest, "file", length, guessed, name or source.name)

    @classmethod
    def of_bytes(
        cls,
        data: builtins.bytes,
        *,
        media_type: str = "application/octet-stream",
        name: str | None = None,
        type: str = "bytes",
    ) -> Artifact:
        with _incoming() as temporary:
            temporary.write_bytes(data)
            digest, length = _keep(temporary)
        return cls(digest, type, length, media_type, name)

    @property
    def path(self) -> Path:
        found = path_of(self.digest)
        if not found.exists():
            raise ArtifactError(f"the artifact {self.digest} is not in the store")
        return found

    def open(self) -> IO[builtins.bytes]:
        return open(self.path, "rb")

    def load(self) -> Any:
        """The value that it holds."""
        return _load(self, None)

    def reference(self) -> dict[str, Any]:
        body = {
            "digest": self.digest,
            "type": self.type,
            "bytes": self.bytes,
            "media_type": self.media_type,
            "name": self.name,
            **self.more,
        }
        return {KEY: {key: value for key, value in body.items() if value is not None}}

    @classmethod
    def of(cls, reference: Mapping[str, Any]) -> Artifact:
        body = dict(reference[KEY])
        try:
            digest, kind, length = body.pop("digest"), body.pop("type"), body.pop("bytes")
        except KeyError as error:
            raise ArtifactError(f"a reference to an artifact without {error}") from None
        return cls(
            digest,
            kind,
            length,
            body.pop("media_type", "application/octet-stream"),
            body.pop("name", None),
            body,
        )


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


# Types with a format of their own --------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Format:
    """How values of a type are kept. ``describe`` may add fields to the reference."""

    name: str
    media_type: str
    save: Callable[[Any, Path], None]
    load: Callable[[Path, Any], Any]
    describe: Callable[[Any], dict[str, Any]] = lambda _value: {}


_formats: dict[str, Format] = {}
_by_type: list[tuple[str, str, str]] = []


def register(kind: type, form: Format) -> None:
    """Keeps values of a type (and its subclasses) in a format of their own."""
    _formats[form.name] = form
    _by_type.insert(0, (kind.__module__.split(".")[0], kind.__qualname__, form.name))


def _format_of(value: Any) -> Format | None:
    for base in type(value).__mro__:
        for module, qualname, name in _by_type:
            if base.__qualname__ == qualname and base.__module__.split(".")[0] == module:
                return _formats[name]
    return None


def _need(module: str, why: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise NotStorable(
            f"{why} needs the package {module}, which is not installed here"
        ) from None


def _cell(value: Any) -> Any:
    try:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        cell = plain(value)
    except Exception:
        cell = str(value)
    return cell if not isinstance(cell, str) else cell[:PREVIEW_CELL_CHARS]


def _describe_arrow(table: Any) -> dict[str, Any]:
    head = table.slice(0, PREVIEW_ROWS).select(table.column_names[:PREVIEW_COLUMNS])
    return {
        "rows": table.num_rows,
        "schema": [{"name": field.name, "type": str(field.type)} for field in table.schema],
        "preview": {
            "columns": head.column_names,
            "rows": [[_cell(cell) for cell in row.values()] for row in head.to_pylist()],
        },
    }


def _save_arrow(table: Any, path: Path) -> None:
    _need("pyarrow.parquet", "a table").write_table(table, path, row_group_size=ROWS_AT_ONCE)


def _save_pandas(frame: Any, path: Path) -> None:
    arrow = _need("pyarrow", "a pandas data frame")
    parquet = _need("pyarrow.parquet", "a pandas data frame")
    if type(frame).__name__ == "Series":
        frame = frame.to_frame(name=frame.name if frame.name is not None else "0")
    schema = None
    writer: Any = None
    try:
        # Slice by slice: only one of them is held twice.
        for start in range(0, max(len(frame), 1), ROWS_AT_ONCE):
            piece = frame.iloc[start : start + ROWS_AT_ONCE]
            if schema is None:
                # The whole column decides its type, not its first rows.
                schema = (
                    arrow.Schema.from_pandas(frame)
                    if len(frame) > ROWS_AT_ONCE
                    else arrow.Table.from_pandas(piece).schema
                )
                writer = parquet.ParquetWriter(path, schema)
            writer.write_table(arrow.Table.from_pandas(piece, schema=schema))
    finally:
        if writer is not None:
            writer.close()


def _describe_pandas(frame: Any) -> dict[str, Any]:
    if type(frame).__name__ == "Series":
        frame = frame.to_frame(name=frame.name if frame.name is not None else "0")
    head = frame.iloc[:PREVIEW_ROWS, :PREVIEW_COLUMNS]
    return {
        "rows": len(frame),
        "schema": [
            {"name": str(name), "type": str(kind)}
            for name, kind in zip(frame.columns, frame.dtypes)
        ],
        "preview": {
            "columns": [str(name) for name in head.columns],
            "rows": [
                [_cell(cell) for cell in row] for row in head.itertuples(index=False, name=None)
            ],
        },
    }


def _describe_polars(frame: Any) -> dict[str, Any]:
    head = frame.head(PREVIEW_ROWS)
    return {
        "rows": frame.height,
        "schema": [{"name": name, "type": str(kind)} for name, kind in frame.schema.items()],
        "preview": {
            "columns": head.columns[:PREVIEW_COLUMNS],
            "rows": [[_cell(cell) for cell in row[:PREVIEW_COLUMNS]] for row in head.rows()],
        },
    }


def _load_parquet(path: Path, wanted: Any) -> Any:
    """As the annotation says; else by what is imported or installed."""
    module = (getattr(wanted, "__module__", "") or "").split(".")[0]
    if module == "polars":
        return _need("polars", "a Polars frame").read_parquet(path)
    parquet = _need("pyarrow.parquet", "a table")
    if module == "pyarrow":
        return parquet.read_table(path)
    # Buffers are freed as they are converted.
    return parquet.read_table(path).to_pandas(self_destruct=True, split_blocks=True)


def _load_as(module: str) -> Callable[[Path, Any], Any]:
    def load(path: Path, wanted: Any) -> Any:
        if (getattr(wanted, "__module__", "") or "").split(".")[0] in (
            "polars",
            "pyarrow",
            "pandas",
        ):
            return _load_parquet(path, wanted)
        return _load_parquet(path, types.SimpleNamespace(__module__=module))

    return load


def _load_series(path: Path, wanted: Any) -> Any:
    return _load_parquet(path, None).iloc[:, 0]


def _save_numpy(array: Any, path: Path) -> None:
    with open(path, "wb") as file:
        sys.modules["numpy"].save(file, array, allow_pickle=False)


def _load_numpy(path: Path, _wanted: Any) -> Any:
    return _need("numpy", "an array").load(path, allow_pickle=False)


def _describe_numpy(array: Any) -> dict[str, Any]:
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "preview": [_cell(cell) for cell in array.ravel()[:PREVIEW_ROWS].tolist()],
    }


_PARQUET = "application/vnd.apache.parquet"
for _name, _save, _load_one, _describe in (
    ("pandas", _save_pandas, _load_as("pandas"), _describe_pandas),
    ("pandas-series", _save_pandas, _load_series, _describe_pandas),
    ("polars", lambda frame, path: frame.write_parquet(path), _load_as("polars"), _describe_polars),
    ("arrow", _save_arrow, _load_as("pyarrow"), _describe_arrow),
):
    _formats[_name] = Format(_name, _PARQUET, _save, _load_one, _describe)
_formats["numpy"] = Format("numpy", "application/x-npy", _save_numpy, _load_numpy, _describe_numpy)
_by_type += [
    ("pandas", "DataFrame", "pandas"),
    ("pandas", "Series", "pandas-series"),
    ("polars", "DataFrame", "polars"),
    ("pyarrow", "Table", "arrow"),
    ("numpy", "ndarray", "numpy"),
]


# Encoding --------------------------------------------------------------------------------------


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
    form = _format_of(value)
    if form is None:
        raise NotStorable(
            f"a value of type {_type_name(value)} cannot be kept; return JSON values, a data frame,"
            ' an array or a kobza.Artifact, or ask for pickle with @task(result="pickle")'
        )
    try:
        with _incoming() as temporary:
            form.save(value, temporary)
            digest, length = _keep(temporary)
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
    with _incoming() as temporary:
        try:
            with open(temporary, "wb") as file:
                pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)
        except OSError as error:
            raise ArtifactError(f"the artifact could not be written: {error}") from error
        except Exception as error:
            raise NotStorable(f"a {_type_name(value)} cannot be pickled: {error}") from error
        digest, length = _keep(temporary)
    more = {"python_type": _type_name(value), "workflow": workflow}
    return Artifact(digest, "pickle", length, "application/x-python-pickle", None, more).reference()


# Decoding --------------------------------------------------------------------------------------


def decode(value: Any, wanted: Any = None, *, workflow: str | None = None) -> Any:
    """The value behind JSON: references loaded, and brought to the annotated type."""
    if isinstance(value, dict):
        if KEY in value and len(value) == 1 and isinstance(value[KEY], dict):
            artifact = Artifact.of(value)
            if _bare(wanted) is Artifact:
                return artifact
            return _convert(_load(artifact, _bare(wanted), workflow), wanted)
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


def _load(artifact: Artifact, wanted: Any, workflow: str | None = None) -> Any:
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
    form = _formats.get(artifact.type)
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
