"""``kobza check`` on a folder of DAG files. ``KOBZA_BIN`` is the binary."""

import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "client_dags"
UNLIKE = """
import datetime
from airflow.sdk import DAG
from airflow.providers.standard.operators.bash import BashOperator

with DAG("unlike", schedule=None):
    BashOperator(task_id="far", bash_command="true", queue="gpu", pool="narrow")
"""


def check(folder: Path, *more: str, python: str | None = sys.executable):
    named = ["--airflow-python", python] if python else []
    command = [os.environ["KOBZA_BIN"], "check", str(folder), *named, *more]
    environment = dict(os.environ, XDG_CACHE_HOME=str(folder / ".cache"))
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)


def test_a_folder(tmp_path):
    for file in FOLDER.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "unlike.py").write_text(UNLIKE)
    (tmp_path / "double.py").write_text(UNLIKE)
    (tmp_path / "wants.py").write_text(
        "from airflow.sdk import DAG, Variable\nDAG(Variable.get('who'))\n"
    )
    said = check(tmp_path)
    assert said.returncode == 2, said.stderr
    assert f"{tmp_path}/pipeline.py: pipeline is good" in said.stdout
    wrong = said.stdout + said.stderr
    assert f"{tmp_path}/broken.py:3:1: ModuleNotFoundError" in wrong
    assert "hint: install it in the environment of --airflow-python" in wrong
    assert 'dag.tasks["far"].queue: there are no workers of a queue "gpu"' in wrong
    assert "kobza limits set narrow" in wrong
    assert "the DAG \"unlike\" is in" in wrong and "hint: give one of them another id" in wrong
    assert "AIRFLOW_VAR_<NAME>" in wrong, wrong


def test_good_files_are_good(tmp_path):
    (tmp_path / "one.py").write_text(UNLIKE)
    said = check(tmp_path, "--output", "json")
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert [(t["workflow"], t["ok"], len(t["warnings"])) for t in told] == [("unlike", True, 2)]


def test_without_airflow(tmp_path):
    (tmp_path / "one.py").write_text(UNLIKE)
    said = check(tmp_path, python=None)
    assert said.returncode == 2 and "--airflow-python" in said.stderr + said.stdout
    said = check(tmp_path, python="/usr/bin/python3")
    assert said.returncode == 2 and "has no Airflow that can be imported" in said.stderr + said.stdout
