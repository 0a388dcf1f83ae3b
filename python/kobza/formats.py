"""Types that are kept in a format of their own: frames as Parquet, arrays as npy.

Both are written and read in pieces: neither side holds two copies.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import NotStorable

PARQUET = "application/vnd.apache.parquet"
#: Rows of a frame written at once, and rows of its preview.
ROWS_AT_ONCE = 100_000
PREVIEW_ROWS = 20
PREVIEW_COLUMNS = 50
PREVIEW_CELL_CHARS = 200


@dataclasses.dataclass(frozen=True)
class Format:
    """How values of a type are kept. ``describe`` may add fields to the reference."""

    name: str
    media_type: str
    save: Callable[[Any, Path], None]
    load: Callable[[Path, Any], Any]
    describe: Callable[[Any], dict[str, Any]] = lambda _value: {}


BY_NAME: dict[str, Format] = {}
_by_type: list[tuple[str, str, str]] = []


def register(kind: type, form: Format) -> None:
    """Keeps values of a type (and its subclasses) in a format of their own."""
    BY_NAME[form.name] = form
    _by_type.insert(0, (kind.__module__.split(".")[0], kind.__qualname__, form.name))


def format_of(value: Any) -> Format | None:
    for base in type(value).__mro__:
        for module, qualname, name in _by_type:
            if base.__qualname__ == qualname and base.__module__.split(".")[0] == module:
                return BY_NAME[name]
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
        from .values import plain

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


def describe_parquet(path: Path) -> dict[str, Any]:
    """Schema, number of rows and first rows of a Parquet file, by what can read it here: nothing
    where nothing can, or where it is none."""
    try:
        if "polars" in sys.modules and "pyarrow" not in sys.modules:
            scanned = sys.modules["polars"].scan_parquet(path)
            about = _describe_polars(scanned.head(PREVIEW_ROWS).collect())
            count = sys.modules["polars"].len()
            return {**about, "rows": int(scanned.select(count).collect().item())}
        parquet = _need("pyarrow.parquet", "a Parquet file")
        with parquet.ParquetFile(path) as file:
            batch = next(file.iter_batches(batch_size=PREVIEW_ROWS), None)
            arrow = _need("pyarrow", "a Parquet file")
            head = (
                arrow.Table.from_batches([batch])
                if batch is not None
                else file.schema_arrow.empty_table()
            )
            return {**_describe_arrow(head), "rows": file.metadata.num_rows}
    except Exception:
        return {}


def _load_parquet(path: Path, wanted: Any) -> Any:
    """As the annotation says; else by what is imported or installed."""
    module = (getattr(wanted, "__module__", "") or "").split(".")[0]
    if module == "polars":
        return _need("polars", "a Polars frame").read_parquet(path)
    parquet = _need("pyarrow.parquet", "a table")
    # Without reading ahead, which would hold the file's bytes beside the values.
    with parquet.ParquetFile(path, pre_buffer=False) as file:
        return _read_arrow(file) if module == "pyarrow" else _read_pandas(file)


def _read_arrow(file: Any) -> Any:
    """A group of rows at a time: what is decoded is all that is held."""
    arrow = _need("pyarrow", "a table")
    groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
    return arrow.concat_tables(groups) if groups else file.schema_arrow.empty_table()


def _read_pandas(file: Any) -> Any:
    """A column at a time, since pandas wants each in one piece: only one is held twice."""
    pandas = _need("pandas", "a data frame")
    names = file.schema_arrow.names
    about = file.schema_arrow.pandas_metadata or {}
    counted = all(isinstance(index, dict) for index in about.get("index_columns", []))
    by_name = len(set(names)) == len(names) and not any("." in name for name in names)
    if len(names) < 2 or not counted or not by_name:
        # Buffers are freed as they are converted.
        return _read_arrow(file).to_pandas(self_destruct=True, split_blocks=True)
    columns = [
        file.read(columns=[name]).to_pandas(self_destruct=True, split_blocks=True) for name in names
    ]
    return pandas.concat(columns, axis=1, **_without_copy(pandas))


def _without_copy(pandas: Any) -> dict[str, Any]:
    # From pandas 3 on nothing is copied anyway, and the word is gone.
    return {"copy": False} if int(pandas.__version__.split(".")[0]) < 3 else {}


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


for _name, _save, _load_one, _describe in (
    ("pandas", _save_pandas, _load_as("pandas"), _describe_pandas),
    ("pandas-series", _save_pandas, _load_series, _describe_pandas),
    ("polars", lambda frame, path: frame.write_parquet(path), _load_as("polars"), _describe_polars),
    ("arrow", _save_arrow, _load_as("pyarrow"), _describe_arrow),
):
    BY_NAME[_name] = Format(_name, PARQUET, _save, _load_one, _describe)
BY_NAME["numpy"] = Format("numpy", "application/x-npy", _save_numpy, _load_numpy, _describe_numpy)
_by_type += [
    ("pandas", "DataFrame", "pandas"),
    ("pandas", "Series", "pandas-series"),
    ("polars", "DataFrame", "polars"),
    ("pyarrow", "Table", "arrow"),
    ("numpy", "ndarray", "numpy"),
]
