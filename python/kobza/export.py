"""``python -m kobza.export FILE``: prints a file's workflows as a JSON list of native documents.

Exit code 2 and ``{"errors": [{"message", "file", "line", "traceback"}]}`` when the file cannot be
loaded or a graph cannot be drawn. What the file itself prints goes to the standard error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from .asset import Asset, assets
from .workflow import Workflow


def workflows_of(module: ModuleType) -> list[Workflow[Any, Any]]:
    """The workflows that a module defines; assets that are in none of them make one together."""
    found = list(
        dict.fromkeys(
            value
            for value in vars(module).values()
            if isinstance(value, Workflow) and _is_of(module, value.function)
        )
    )
    used: set[str] = set()
    for flow in found:
        for node in flow.draw()[0].nodes.values():
            used.update(node.options.produces)
    loose = list(
        dict.fromkeys(
            value
            for value in vars(module).values()
            if isinstance(value, Asset)
            and value.asset_name not in used
            and _is_of(module, value.function)
        )
    )
    if loose:
        stem = Path(getattr(module, "__file__", None) or module.__name__).stem
        found.append(assets(stem.replace("_", "-"), loose))
    return found


def _is_of(module: ModuleType, function: Any) -> bool:
    return function.__module__ in (module.__name__, "kobza.asset")


def documents(path: str) -> list[dict[str, Any]]:
    """The documents of a file. Raises what the file raises, or ``GraphError``."""
    from kobza_worker import loading

    module = loading.load_file(path)
    found = workflows_of(module)
    names = [flow.name for flow in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two workflows of {path} are called {name!r}")
    if not found:
        raise ValueError(f"{path} defines no workflow: mark a function with @workflow")
    return [flow.document() for flow in found]


def main(arguments: list[str]) -> int:
    from kobza_worker import failure

    if len(arguments) != 1:
        print("usage: python -m kobza.export FILE", file=sys.stderr)
        return 64
    failure.MACHINERY.append(os.path.dirname(os.path.abspath(__file__)))
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        answer: Any = documents(arguments[0])
        code = 0
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        report = failure.describe(error)
        where = report["where"] or {}
        answer = {
            "errors": [
                {
                    "message": report["message"],
                    "file": where.get("file") or arguments[0],
                    "line": where.get("line"),
                    "traceback": failure.render(error),
                }
            ]
        }
        code = 2
    sys.stdout.flush()
    with os.fdopen(out, "w", encoding="utf-8") as file:
        json.dump(answer, file, ensure_ascii=False, allow_nan=False)
        file.write("\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
