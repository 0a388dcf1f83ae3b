"""The adapter for Airflow's stock task runner (see ``kobza_worker``).

A parent has Airflow imported and one DAG file parsed; its children inherit both. A child runs the
stock task runner, which speaks with its supervisor in the shim over descriptor 0, and writes its log
records to a socket of their own.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

#: What the environment of a task runner must say before Airflow is imported.
_ENVIRONMENT = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # Nothing here may reach a metadata database: there is none.
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nonexistent/kobza.db",
    "_AIRFLOW_PROCESS_CONTEXT": "client",
}

#: Modules that every task needs.
_MODULES = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.dag_processing.dagbag",
    "airflow.dag_processing.bundles.local",
    "airflow.serialization.serialized_objects",
    "airflow.sdk.definitions.asset.metadata",
    "encodings.idna",
    "setproctitle",
    "airflow.sdk._shared.logging.factory",
    "airflow.sdk._shared.logging.remote",
    "jinja2.ext",
)

#: DAG files that this process, or the one that it was forked from, has parsed: by path.
_parsed: dict[str, Any] = {}


class Unusable(Exception):
    """The environment has no Airflow, or one that is not supported."""


def load(entry: dict[str, Any]) -> Any:
    """For a parent: imports Airflow; with ``file``, parses that DAG file of ``bundle``."""
    # It was for this interpreter, not for those that tasks start.
    os.environ.pop("PYTHONHASHSEED", None)
    os.environ.update(_ENVIRONMENT)
    os.environ.update(entry.get("env") or {})
    _import()
    if entry.get("file"):
        return _parse(entry["bundle"], entry["file"])
    return None


def _import() -> None:
    import importlib

    try:
        for name in _MODULES:
            importlib.import_module(name)
    except ImportError as error:
        raise Unusable(
            f"{sys.executable} cannot import {error.name or 'Airflow'}: {error}; Kobza runs DAGs with"
            " apache-airflow-core 3.3 and apache-airflow-task-sdk 1.3"
        ) from error
    from airflow.sdk.execution_time import supervisor

    supervisor.ensure_secrets_backend_loaded()
    _share_validators()


def _share_validators() -> None:
    """Builds here, once, the validators of messages that the task runner would build anew in each
    process: they are most of what it does before the task's own code."""
    from airflow.sdk.execution_time import comms, task_runner
    from pydantic import JsonValue, TypeAdapter

    built: dict[Any, Any] = {}

    def shared(kind: Any, *args: Any, **options: Any) -> Any:
        if args or options:
            return TypeAdapter(kind, *args, **options)
        try:
            found = built.get(kind)
        except TypeError:
            return TypeAdapter(kind)
        if found is None:
            found = built[kind] = TypeAdapter(kind)
        return found

    for kind in (comms.ToTask, JsonValue):
        shared(kind)
    for module in (comms, task_runner):
        module.TypeAdapter = shared  # type: ignore[attr-defined]
    # The interpreter remembers it too.
    comms.CommsDecoder[comms.ToTask, comms.ToSupervisor]


def _parse(bundle: dict[str, Any], file: str) -> Any:
    from airflow.dag_processing import dagbag

    path = os.path.join(bundle["path"], file)
    stock = dagbag.BundleDagBag
    bag = stock(
        dag_folder=path,
        safe_mode=False,
        load_op_links=False,
        bundle_path=bundle["path"],
        bundle_name=bundle["name"],
    )
    _parsed[path] = bag

    def inherited(*args: Any, **options: Any) -> Any:
        """The bag that is there already, to whoever would parse the same file once more."""
        found = _parsed.get(os.fspath(options.get("dag_folder") or ""))
        return found if found is not None else stock(*args, **options)

    # The task runner looks it up there for each task.
    dagbag.BundleDagBag = inherited  # type: ignore[assignment,misc]
    return bag


class _Descriptor:
    """A stream that is in its place already, for those who expect a socket."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number


def run(task: dict[str, Any]) -> dict[str, Any]:
    """In a child: the stock task runner, until its process ends; or the process that reads DAG files."""
    if task["function"] == "$parse":
        from .parse import serve

        serve(task["args"]["socket"])
        return {}
    from airflow.sdk.execution_time import supervisor, task_runner

    requests, logs = task["channels"]
    supervisor._fork_main(
        socket.socket(fileno=requests),
        _Descriptor(1),  # type: ignore[arg-type]
        _Descriptor(2),  # type: ignore[arg-type]
        logs,
        task_runner.main,
    )
    raise AssertionError("the task runner ends its process")
