"""Kobza's SDK: tasks, workflows and assets in plain Python functions.

::

    from kobza import task, workflow

    @task(retries=3)
    def extract(day: date) -> list[dict]: ...

    @workflow(schedule="0 2 * * *")
    def etl(region: str = "eu"):
        load(extract(kobza.interval.start))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import notes
from .artifacts import Artifact
from .asset import (
    Asset,
    CheckResult,
    Partitions,
    asset,
    assets,
    daily,
    hourly,
    monthly,
    static,
    weekly,
)
from .context import Context, add_task, connection, context, emit, secret, variable
from .errors import (
    ApiError,
    ArtifactError,
    CheckFailed,
    GraphError,
    KobzaError,
    NoContext,
    NotStorable,
    Skip,
)
from .expression import Raw as template
from .formats import Format, register
from .graph import group, interval, partition, run, when
from .options import Cache, Retry
from .schema import Param
from .task import Task, approval, http, item, noop, shell, sql, step, task, unmapped
from .triggers import Trigger, cron, every, on_asset, on_event, on_file, on_run, webhook
from .values import Output, Outputs, Pickle
from .workflow import Workflow, workflow

if TYPE_CHECKING:
    from . import testing
    from .client import AsyncClient, Client

__version__ = "0.1.0"

__all__ = [
    "ApiError",
    "Artifact",
    "ArtifactError",
    "Asset",
    "AsyncClient",
    "Cache",
    "CheckFailed",
    "CheckResult",
    "Client",
    "Context",
    "Format",
    "GraphError",
    "KobzaError",
    "NoContext",
    "NotStorable",
    "Output",
    "Outputs",
    "Param",
    "Partitions",
    "Pickle",
    "Retry",
    "Skip",
    "Task",
    "Trigger",
    "Workflow",
    "add_task",
    "approval",
    "asset",
    "assets",
    "connection",
    "context",
    "cron",
    "daily",
    "emit",
    "every",
    "group",
    "hourly",
    "http",
    "interval",
    "item",
    "monthly",
    "noop",
    "notes",
    "on_asset",
    "on_event",
    "on_file",
    "on_run",
    "partition",
    "register",
    "run",
    "secret",
    "shell",
    "sql",
    "static",
    "step",
    "task",
    "template",
    "testing",
    "unmapped",
    "variable",
    "webhook",
    "weekly",
    "when",
    "workflow",
]


def __getattr__(name: str) -> Any:
    # What few tasks need is not part of every worker's memory.
    if name in ("Client", "AsyncClient"):
        from . import client

        return getattr(client, name)
    if name == "testing":
        import importlib

        return importlib.import_module("kobza.testing")
    raise AttributeError(f"module 'kobza' has no attribute {name!r}")
