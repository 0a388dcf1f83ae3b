"""Artifacts in a bucket, and environments built by uv: by the real binary. Skipped where KOBZA_BIN
names none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import buckets
import pytest

KOBZA = os.environ.get("KOBZA_BIN")
pytestmark = pytest.mark.skipif(not KOBZA, reason="KOBZA_BIN names no binary")
#: Only a guard against a test that hangs.
PATIENCE_S = 60.0
BIN = Path(sys.executable).parent

FRAMES = """
import numpy
import pandas
from kobza import task, workflow


@task
def make() -> pandas.DataFrame:
    # More than two parts of an upload.
    return pandas.DataFrame({name: numpy.random.default_rng(7).random(1 << 20) for name in "abc"})


@task
def total(frame: pandas.DataFrame) -> float:
    return round(float(frame["c"].sum()), 3)


@workflow
def frames():
    return total(make())
"""


def run(folder: Path, *args: str, **environment: str) -> dict:
    done = subprocess.run(
        [KOBZA, "run", *args, "-o", "json"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def task(run: dict, name: str) -> dict:
    return next(one for one in run["tasks"] if one["name"] == name)


@pytest.fixture(params=["s3", "azure", "google"])
def bucket(request):
    """An empty bucket of each kind of cloud."""
    if request.param == "azure" and "AZURITE" not in os.environ:
        pytest.skip("AZURITE does not name Azurite's program")
    with getattr(buckets, request.param)() as made:
        yield made


def with_our_python() -> dict[str, str]:
    return {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def test_artifacts_in_a_bucket(tmp_path, bucket):
    (tmp_path / "frames.py").write_text(FRAMES)
    environment = {**bucket.environment, **with_our_python()}
    address = f"{bucket.address}/team/one"
    first = run(tmp_path, "frames.py", "--artifacts", address, **environment)
    assert first["state"] == "succeeded", first
    about = task(first, "make")["outputs"]["result"]["$artifact"]
    assert about["bytes"] > 16 << 20 and about["rows"] == 1 << 20
    digest = about["digest"]
    assert bucket.keys() == [f"team/one/{digest[:2]}/{digest}"]

    # What this machine has of it goes: it is fetched. Without the flag too, since the folder knows.
    shutil.rmtree(tmp_path / ".kobza/artifacts" / digest[:2])
    (tmp_path / "again.yaml").write_text(
        "name: again\ntasks:\n  total: {python: {function: total, file: frames.py},"
        " with: {frame: %s}}\n" % json.dumps({"$artifact": about})
    )
    again = run(tmp_path, "again.yaml", **environment)
    assert again["state"] == "succeeded", again
    assert task(again, "total")["outputs"] == task(first, "total")["outputs"]

    # Kept in the bucket and here under one name: nothing is stored twice.
    assert run(tmp_path, "frames.py", "--new", **environment)["state"] == "succeeded"
    assert len(bucket.keys()) == 1
    assert not list((tmp_path / ".kobza/artifacts/incoming-tasks").iterdir())

    # The bucket lost it as well: a task that needs it says so.
    shutil.rmtree(tmp_path / ".kobza/artifacts" / digest[:2])
    bucket.delete(bucket.keys()[0])
    gone = run(tmp_path, "again.yaml", "--new", **environment)
    assert f"artifact {digest} does not exist" in task(gone, "total")["message"]


NOTED = """
from kobza import Artifact, task, workflow

@task
def note(text: str) -> Artifact:
    return Artifact.of_bytes(text.encode() * 50_000, media_type="text/plain", name="note.txt")

@workflow
def notes(text: str = ""):
    return note(text)
"""


def test_artifacts_go_with_their_runs(tmp_path, bucket):
    """Old runs are deleted, and with them the artifacts that no other run has; in the bucket too."""
    (tmp_path / "notes.py").write_text(NOTED)
    environment = {**bucket.environment, **with_our_python()}
    address = f"{bucket.address}/team"
    digests = {}

    def note(text: str) -> None:
        done = run(
            tmp_path, "notes.py", "--new", "-p", f"text={text}", "--artifacts", address,
            **environment,
        )
        digests[text] = task(done, "note")["outputs"]["result"]["$artifact"]["digest"]

    note("old")
    note("shared")
    between = time.time() + 2
    time.sleep(12)
    note("shared")
    note("new")
    key = {text: f"team/{digest[:2]}/{digest}" for text, digest in digests.items()}
    assert sorted(bucket.keys()) == sorted(key.values())
    folder = tmp_path / ".kobza/artifacts"
    here = {text: folder / digest[:2] / digest for text, digest in digests.items()}
    # Here it looks old; a young run has it all the same.
    os.utime(here["shared"], (0, 0))
    port = buckets.free_port()
    keep = int(time.time() - between)
    server = subprocess.Popen(
        [KOBZA, "server", "--listen", f"127.0.0.1:{port}", "--data", ".kobza", "--keep", f"{keep}s"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while key["old"] in bucket.keys() or here["old"].exists():
            assert time.monotonic() < deadline, "the artifact of a deleted run is still there"
            time.sleep(0.1)
    finally:
        server.terminate()
        server.wait()
    assert sorted(bucket.keys()) == sorted([key["shared"], key["new"]])
    assert here["shared"].exists() and here["new"].exists()


def test_buckets_that_cannot_be_used(tmp_path, bucket):
    (tmp_path / "w.yaml").write_text("name: w\ntasks: {a: {noop: true}}\n")
    scheme = bucket.address.split(":")[0]
    for address, words in [
        (f"{scheme}://absent/x", f"artifact store {scheme}://absent/x"),
        ("ftp://x/y", "is not the address of an artifact store"),
        (f"{scheme}://key:hunter2000@bucket/x", "credentials belong into the environment"),
    ]:
        done = subprocess.run(
            [KOBZA, "run", "w.yaml", "--artifacts", address],
            cwd=tmp_path,
            env={**os.environ, **bucket.environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert "hunter2000" not in done.stderr + done.stdout
        assert not (tmp_path / ".kobza/artifacts/remote").exists()


FILE = """
import pandas
from kobza import Artifact, task, workflow

@task
def keep() -> Artifact:
    pandas.DataFrame({"id": [1, 2, 3], "name": ["a", "b", "c"]}).to_parquet("three.parquet")
    return Artifact.file("three.parquet")

@workflow
def keeps():
    return keep()
"""


def test_a_parquet_file_tells_what_it_holds(tmp_path):
    (tmp_path / "keeps.py").write_text(FILE)
    done = run(tmp_path, "keeps.py", **with_our_python())
    about = task(done, "keep")["outputs"]["result"]["$artifact"]
    assert about["media_type"] == "application/vnd.apache.parquet" and about["rows"] == 3
    assert [column["name"] for column in about["schema"]] == ["id", "name"]
    assert about["preview"] == {"columns": ["id", "name"], "rows": [[1, "a"], [2, "b"], [3, "c"]]}


NEEDS = """
def version():
    import small_thing
    return small_thing.NAME
"""


@pytest.fixture
def package(tmp_path):
    """A package without dependencies, to be installed from its folder: no registry is asked."""
    folder = tmp_path / "small-thing"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "small-thing"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    # The smallest backend there can be: a wheel is a zip file.
    (folder / "backend.py").write_text(BACKEND)
    return folder


BACKEND = '''
import os, time, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    with open(os.path.join(os.environ["BUILDS"]), "a") as file:
        file.write("built\\n")
    time.sleep(0.3)
    name = "small_thing-1.0-py3-none-any.whl"
    about = "small_thing-1.0.dist-info/"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("small_thing.py", "NAME = 'small'\\n")
        wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\\nName: small-thing\\nVersion: 1.0\\n")
        wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(about + "RECORD", "")
    return name
'''


def test_environments_are_built_once_for_a_hundred_tasks(tmp_path, package):
    (tmp_path / "needs.py").write_text(NEEDS)
    (tmp_path / "requirements.txt").write_text("./small-thing\n")
    tasks = "".join(
        f"  t{n}: {{python: {{function: version, file: needs.py,"
        " requirements: requirements.txt}}\n"
        for n in range(100)
    )
    (tmp_path / "many.yaml").write_text(f"name: many\ntasks:\n{tasks}")
    environment = {
        "KOBZA_UV": str(BIN / "uv"),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_OFFLINE": "1",
        "BUILDS": str(tmp_path / "builds"),
    }
    done = run(tmp_path, "many.yaml", **environment)
    assert done["state"] == "succeeded", done["message"]
    assert {one["outputs"]["result"] for one in done["tasks"]} == {"small"}
    environments = [p for p in (tmp_path / ".kobza/envs").iterdir() if p.is_dir()]
    assert len(environments) == 1
    assert (tmp_path / "builds").read_text() == "built\n"
    log = subprocess.run(
        [KOBZA, "logs", "t0"], cwd=tmp_path, capture_output=True, text=True
    ).stdout
    assert "environment: " in log, "the build's progress is in the log"

    # Another process asks for the same: nothing is built.
    assert run(tmp_path, "many.yaml", "--new", **environment)["state"] == "succeeded"
    assert (tmp_path / "builds").read_text() == "built\n"


def test_scripts_and_projects_name_what_they_need(tmp_path, package):
    script = f'# /// script\n# dependencies = ["small-thing @ {package.as_uri()}"]\n# ///\n'
    (tmp_path / "script.py").write_text(
        script + "from kobza import task, workflow\nimport small_thing\n\n@task\ndef name():\n"
        "    return small_thing.NAME\n\n@workflow\ndef flow():\n    return name()\n"
    )
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "p"\nversion = "0"\n'
        f'dependencies = ["small-thing @ {package.as_uri()}"]\n'
    )
    (tmp_path / "needs.py").write_text(NEEDS)
    (tmp_path / "project.yaml").write_text(
        "name: p\ntasks:\n  t: {python: {function: version, file: needs.py,"
        " requirements: project/pyproject.toml}}\n"
    )
    environment = {
        # Found by PATH, as after `pip install uv`.
        **with_our_python(),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_OFFLINE": "1",
        "BUILDS": str(tmp_path / "builds"),
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
    }
    for file, name in [("script.py", "name"), ("project.yaml", "t")]:
        done = run(tmp_path, file, **environment)
        assert done["state"] == "succeeded", done
        assert task(done, name)["outputs"]["result"] == "small"


def test_environments_that_cannot_be_built(tmp_path):
    (tmp_path / "needs.py").write_text(NEEDS)
    for requirements, environment, words in [
        ('["nothing-like-this==1"]', {"KOBZA_UV": str(BIN / "uv")}, "nothing-like-this"),
        ('["nothing-like-this==1"]', {"KOBZA_UV": "/no/such/uv"}, "`pip install uv`"),
        ("absent.txt", {"KOBZA_UV": str(BIN / "uv")}, "absent.txt: No such file"),
    ]:
        (tmp_path / "w.yaml").write_text(
            "name: w\ntasks:\n  t: {python: {function: version, file: needs.py,"
            f" requirements: {requirements}}}}}\n"
        )
        done = run(tmp_path, "w.yaml", "--new", "--data", f"d{len(words)}", UV_OFFLINE="1", **environment)
        assert done["state"] == "failed"
        assert words in task(done, "t")["message"], task(done, "t")["message"]
