"""What a task tells people beside its result: shown with the task and on the run's page."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .context import context
from .artifacts import Artifact
from .values import encode, plain

#: Most notes of one task: a loop that notes each row is a mistake.
NOTES_MAX = 1000
#: Most rows of a table note.
TABLE_ROWS_MAX = 1000


def _add(kind: str, name: str | None, body: dict[str, Any]) -> None:
    notes = context().notes
    if len(notes) >= NOTES_MAX:
        raise ValueError(f"a task makes at most {NOTES_MAX} notes")
    notes.append({"kind": kind, "name": name, **body})


def markdown(text: str, *, name: str | None = None) -> None:
    _add("markdown", name, {"text": str(text)})


def table(rows: Any, *, columns: Sequence[str] | None = None, name: str | None = None) -> None:
    """Rows as mappings or sequences, or a data frame (of which the first rows are shown)."""
    if hasattr(rows, "columns") and hasattr(rows, "head"):
        reference = encode(rows)["$artifact"]
        preview = reference["preview"]
        _add(
            "table",
            name,
            {"columns": preview["columns"], "rows": preview["rows"], "total": reference["rows"]},
        )
        return
    listed = list(rows)
    shown = listed[:TABLE_ROWS_MAX]
    if shown and isinstance(shown[0], Mapping):
        columns = list(columns or dict.fromkeys(key for row in shown for key in row))
        body = [[plain(row.get(column)) for column in columns] for row in shown]
    else:
        body = [[plain(cell) for cell in row] for row in shown]
    _add("table", name, {"columns": list(columns or []), "rows": body, "total": len(listed)})


def image(source: Any, *, name: str | None = None, media_type: str | None = None) -> None:
    """A file's path, the bytes of a picture, or a matplotlib figure."""
    if hasattr(source, "savefig"):
        import io

        buffer = io.BytesIO()
        source.savefig(buffer, format="png")
        artifact = Artifact.of_bytes(buffer.getvalue(), media_type="image/png", type="file")
    elif isinstance(source, (bytes, bytearray)):
        artifact = Artifact.of_bytes(
            bytes(source), media_type=media_type or "image/png", type="file"
        )
    else:
        artifact = Artifact.file(os.fspath(source), media_type=media_type)
    _add("image", name, {"artifact": artifact.reference()})


def metric(name: str, value: float, *, step: int | None = None) -> None:
    """A number to compare between runs; with steps, a curve."""
    body: dict[str, Any] = {"value": plain(float(value))}
    if step is not None:
        body["step"] = int(step)
    _add("metric", name, body)


def plot(
    x: Sequence[Any],
    y: Sequence[Any] | Mapping[str, Sequence[Any]],
    *,
    kind: str = "line",
    name: str | None = None,
) -> None:
    """A ``line``, ``bar`` or ``scatter`` plot of one or several named series."""
    if kind not in ("line", "bar", "scatter"):
        raise ValueError(f"a plot is line, bar or scatter, not {kind!r}")
    series = dict(y) if isinstance(y, Mapping) else {"y": y}
    places = [plain(place) for place in x]
    for key, values in series.items():
        if len(values) != len(places):
            raise ValueError(f"the series {key!r} has {len(values)} points, x has {len(places)}")
    _add(
        "plot",
        name,
        {
            "plot": kind,
            "x": places,
            "series": {str(k): [plain(v) for v in vs] for k, vs in series.items()},
        },
    )
