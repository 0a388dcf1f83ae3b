"""How values are kept and come back."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest

from kobza import Artifact, ArtifactError, Format, NotStorable, Pickle, formats, register
from kobza.decoding import decode
from kobza.values import encode


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    folder = tmp_path / "artifacts"
    monkeypatch.setenv("KOBZA_ARTIFACTS", str(folder))
    return folder


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Order:
    id: int
    day: dt.date
    price: Decimal = Decimal(0)


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, None),
        (True, bool),
        (1, int),
        (2.5, float),
        ("text", str),
        ([1, [2]], list),
        ({"a": None}, dict),
        (dt.date(2024, 2, 29), dt.date),
        (dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc), dt.datetime),
        (dt.timedelta(seconds=1.5), dt.timedelta),
        (Decimal("1.10"), Decimal),
        (UUID(int=5), UUID),
        (Path("a/b"), Path),
        ({3, 1}, set[int]),
        ((1, 2), tuple[int, ...]),
        (Colour.RED, Colour),
        (Order(1, dt.date(2024, 1, 1), Decimal("2")), Order),
        (Point(1, 2), Point),
        ([Order(1, dt.date(2024, 1, 1))], list[Order]),
        ({"a": dt.date(2024, 1, 1)}, dict[str, dt.date]),
        (dt.date(2024, 1, 1), dt.date | None),
        (math.inf, float),
    ],
)
def test_plain_values_come_back(value, kind, store):
    encoded = json.loads(json.dumps(encode(value), allow_nan=False))
    assert decode(encoded, kind) == value
    assert not store.exists()


def test_not_a_number():
    assert math.isnan(decode(json.loads(json.dumps(encode(math.nan), allow_nan=False))))


def test_large_json_and_bytes_become_artifacts(store):
    large = ["x" * 100] * 1000
    encoded = encode(large)
    body = encoded["$artifact"]
    assert body["type"] == "json" and body["bytes"] > 100_000
    assert decode(encoded) == large
    assert decode(encode(b"\0\1")) == b"\0\1"
    digest = body["digest"]
    assert (store / digest[:2] / digest).stat().st_size == body["bytes"]
    assert not list((store / "incoming-tasks").iterdir())


def test_equal_content_is_kept_once(store):
    assert encode(b"same") == encode(b"same")
    assert len([path for path in store.rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames(library):
    module = pytest.importorskip(library)
    pytest.importorskip("pyarrow")
    data = {"id": [1, 2, 3], "name": ["a", None, "c"]}
    frame = module.table(data) if library == "pyarrow" else module.DataFrame(data)
    encoded = json.loads(json.dumps(encode({"rows": frame}), allow_nan=False))
    body = encoded["rows"]["$artifact"]
    assert body["rows"] == 3 and [column["name"] for column in body["schema"]] == ["id", "name"]
    assert body["preview"]["columns"] == ["id", "name"]
    assert body["preview"]["rows"][0] == [1, "a"]
    back = decode(encoded)["rows"]
    assert type(back) is type(frame)
    if library == "pandas":
        module.testing.assert_frame_equal(back, frame)
    else:
        assert back.equals(frame)


def test_a_frame_longer_than_one_piece(monkeypatch):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(formats, "ROWS_AT_ONCE", 10)
    frame = pandas.DataFrame({"n": range(35), "sparse": [None] * 34 + [1.5]})
    pandas.testing.assert_frame_equal(decode(encode(frame)), frame)
    pandas.testing.assert_frame_equal(decode(encode(frame[:0])), frame[:0])


def test_a_frame_as_the_annotation_says():
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    encoded = encode(pandas.DataFrame({"n": [1]}))
    assert isinstance(decode(encoded, polars.DataFrame), polars.DataFrame)


def test_arrays():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(12.0).reshape(3, 4)
    encoded = encode({"a": array, "one": numpy.float64(2), "n": numpy.int32(3)})
    assert encoded["one"] == 2.0 and encoded["n"] == 3
    assert encoded["a"]["$artifact"]["shape"] == [3, 4]
    assert (decode(encoded)["a"] == array).all()


class Model:
    def __init__(self, weight):
        self.weight = weight


def test_what_has_no_format_is_refused_unless_pickled():
    with pytest.raises(NotStorable, match="return JSON values, a data frame, an array"):
        encode(Model(1))
    encoded = encode(Model(1), pickled=True, workflow="train")
    assert encoded == encode(Pickle(Model(1)), workflow="train")
    assert decode(encoded, workflow="train").weight == 1
    for other in ("another", None):
        with pytest.raises(ArtifactError, match="only tasks of that workflow load it"):
            decode(encoded, workflow=other)
    with pytest.raises(NotStorable, match="cannot be pickled"):
        encode(lambda: None, pickled=True)


def test_a_format_of_ones_own():
    register(
        Model,
        Format(
            "model",
            "text/plain",
            lambda model, path: path.write_text(str(model.weight)),
            lambda path, _wanted: Model(int(path.read_text())),
        ),
    )
    assert decode(encode(Model(7))).weight == 7
    formats._by_type.pop(0)


def test_files(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("<p>")
    encoded = encode(Artifact.file(file))
    assert encoded["$artifact"]["media_type"] == "text/html"
    artifact = decode(encoded)
    assert artifact.name == "page.html" and artifact.open().read() == b"<p>"


def test_references_that_are_false(store):
    for digest in ("../../etc/passwd", "A" * 64, "", "0" * 63):
        with pytest.raises(ArtifactError):
            decode({"$artifact": {"digest": digest, "type": "bytes", "bytes": 1}})
    with pytest.raises(ArtifactError, match="is not in the store"):
        decode({"$artifact": {"digest": "0" * 64, "type": "bytes", "bytes": 1}})
    with pytest.raises(ArtifactError, match="without 'digest'"):
        decode({"$artifact": {}})
    reference = encode(b"x")
    reference["$artifact"]["type"] = "weird"
    with pytest.raises(ArtifactError, match="nothing here reads"):
        decode(reference)


def test_values_without_an_end():
    loop = []
    loop.append(loop)
    with pytest.raises(NotStorable, match="contains itself"):
        encode(loop)
    deep = current = []
    for _ in range(500):
        current.append([])
        current = current[0]
    with pytest.raises(NotStorable, match="nested more than 200 deep"):
        encode(deep)


def test_without_a_store(monkeypatch):
    monkeypatch.delenv("KOBZA_ARTIFACTS")
    with pytest.raises(ArtifactError, match="KOBZA_ARTIFACTS"):
        encode(b"x")


def test_wrong_arguments_say_so():
    with pytest.raises(ValueError, match="'soon' is not a date"):
        decode("soon", dt.date)
    with pytest.raises(ValueError, match="is not a Order"):
        decode({"price": 1}, Order)


@pytest.mark.parametrize("bad", [{(1, 2): 3}, {b"k": 1}])
def test_keys(bad):
    with pytest.raises(NotStorable, match="key"):
        encode(bad)
