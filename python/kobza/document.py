"""From drawn graphs to native workflow documents: the one place that knows their form."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import options
from .asset import Asset, AssetCheck
from .errors import GraphError
from .expression import Expression, Item, Name, lift, literal
from .graph import Mapped, Node
from .task import combinations
from .values import plain

if TYPE_CHECKING:
    from .workflow import Workflow


def of_workflow(workflow: Workflow[Any, Any]) -> dict[str, Any]:
    graph, _ = workflow.draw()
    document: dict[str, Any] = {"name": workflow.name}
    if workflow.description:
        document["description"] = workflow.description
    if workflow.tags:
        document["tags"] = workflow.tags
    if params := workflow.parameters():
        document["params"] = params
    if workflow.triggers:
        document["triggers"] = [trigger.document() for trigger in workflow.triggers]
    if workflow.timeout is not None:
        document["timeout"] = options.text(workflow.timeout)
    if workflow.max_active_runs is not None:
        document["max_active_runs"] = workflow.max_active_runs
    if workflow.partitions is not None:
        document["partitions"] = workflow.partitions.document()
    checks: dict[str, list[dict[str, Any]]] = {}
    names: dict[str, str] = {}
    for node in graph.nodes.values():
        if isinstance(node.call, AssetCheck):
            owner = next(n.name for n in graph.nodes.values() if _makes(n, node.call.asset))
            checks.setdefault(owner, []).append(_of_check(node, node.call, workflow))
            names[node.name] = owner
    tasks: dict[str, Any] = {}
    for node in graph.nodes.values():
        if node.name in names:
            continue
        tasks[node.name] = task = _of_node(node, workflow)
        # Readers of an asset wait for its checks by themselves.
        if needs := [name for name in task.pop("needs", []) if name not in names]:
            task["needs"] = needs
        if node.name in checks:
            task["checks"] = checks[node.name]
    document["tasks"] = tasks
    return document


def _makes(node: Node, asset: Asset) -> bool:
    return isinstance(node.call, Asset) and node.call.asset_name == asset.asset_name


def _of_check(node: Node, check: AssetCheck, workflow: Workflow[Any, Any]) -> dict[str, Any]:
    """A check belongs to the task whose asset it judges."""
    task = _of_node(node, workflow)
    kept = ("python", "with", "env", "timeout", "retries")
    found = {"name": node.name, **{key: task[key] for key in kept if key in task}}
    if not check.block:
        found["block"] = False
    return found


def _of_node(node: Node, workflow: Workflow[Any, Any]) -> dict[str, Any]:
    chosen = node.options
    spec: Any = template(node.spec)
    task: dict[str, Any] = {}
    if node.kind == "python":
        task["python"] = {**spec, **_environment(node, workflow)}
    elif node.kind == "workflow":
        task["workflow"] = spec["workflow"]
    elif node.kind == "sql":
        task["sql"] = spec["query"]
        task["connection"] = spec["connection"]
    else:
        task[node.kind] = spec
    arguments = dict(node.arguments)
    if node.mapped is not None:
        over, elements = _map(node.name, node.mapped)
        task["map"] = over
        arguments.update(elements)
    if arguments:
        task["with"] = {name: template(value) for name, value in arguments.items()}
    if upstream := node.upstream():
        task["needs"] = upstream
    if node.when is not None:
        task["when"] = node.when.render()
    task.update(_of_options(chosen))
    if chosen.cache is not None:
        task["cache"] = _cache(node, chosen.cache, arguments)
    return task


def _environment(node: Node, workflow: Workflow[Any, Any]) -> dict[str, Any]:
    """What runs the function."""
    found: dict[str, Any] = {}
    if workflow.python is not None:
        # A folder is a virtual environment, anything else a program.
        found["venv" if os.path.isdir(workflow.python) else "interpreter"] = workflow.python
    if workflow.requirements is not None:
        listed = workflow.requirements
        found["requirements"] = listed if isinstance(listed, str) else list(listed)
    mode = node.options.mode or workflow.mode
    if mode is not None:
        found["mode"] = mode
    return found


def _map(name: str, mapped: Mapped) -> tuple[Any, dict[str, Any]]:
    """The field `map`, and the arguments that come from the element at hand."""
    item = Name("item")
    if not any(isinstance(value, Expression) for value in mapped.over.values()):
        if len(mapped.over) == 1:
            [(only, values)] = mapped.over.items()
            return [template(value) for value in values], {only: item}
        items = [template(one) for one in combinations(mapped.over, mapped.product)]
        return items, {key: Item(item, key) for key in mapped.over}
    if len(mapped.over) == 1:
        [(only, value)] = mapped.over.items()
        return {"over": value.render()}, {only: item}
    if mapped.product:
        raise GraphError(
            f"{name}: the combinations of a result that is not known yet cannot be drawn;"
            " let a task make the list of combinations and map over that"
        )
    first, *others = (lift(value).render() for value in mapped.over.values())
    zipped = f"({first}) | zip({', '.join(others)})"
    return {"over": zipped}, {key: Item(item, at) for at, key in enumerate(mapped.over)}


def _cache(node: Node, cache: options.Cache, arguments: dict[str, Any]) -> dict[str, Any]:
    """The key holds what the result depends on: the function's source, its inputs, the version."""
    parts = [node.name if node.kind != "python" else node.spec["function"]]
    if cache.version is not None:
        parts.append(cache.version)
    function = getattr(node.call, "function", None)
    if function is not None:
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):
            source = ""
        parts.append(hashlib.sha256(source.encode()).hexdigest()[:16])
    if cache.key is not None:
        inputs = _one_expression(cache.key)
    else:
        inputs = _one_expression({name: arguments[name] for name in sorted(arguments)})
    found: dict[str, Any] = {"key": "/".join(parts) + "/{{ (" + inputs + ") | tojson }}"}
    if cache.expires is not None:
        found["ttl"] = options.text(cache.expires)
    return found


def _one_expression(value: Any) -> str:
    """A value with expressions inside as one expression."""
    if isinstance(value, Expression):
        return value.render()
    if isinstance(value, Mapping):
        items = (f"{literal(str(key))}: {_one_expression(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_one_expression(item) for item in value) + "]"
    return literal(template(value))


def _of_options(chosen: options.Options) -> dict[str, Any]:
    task: dict[str, Any] = {}
    if chosen.description:
        task["description"] = chosen.description
    if chosen.retries is not None and chosen.retries.limit > 0:
        retries: dict[str, Any] = {"limit": chosen.retries.limit}
        if options.seconds(chosen.retries.delay):
            retries["delay"] = options.text(chosen.retries.delay)
        if chosen.retries.backoff != "fixed":
            retries["backoff"] = chosen.retries.backoff
        if chosen.retries.max_delay is not None:
            retries["max"] = options.text(chosen.retries.max_delay)
        if chosen.retries.jitter:
            retries["jitter"] = chosen.retries.jitter
        task["retries"] = retries
    if chosen.timeout is not None:
        task["timeout"] = options.text(chosen.timeout)
    if chosen.pools:
        task["limits"] = list(chosen.pools)
    if chosen.priority:
        task["priority"] = chosen.priority
    for name in ("produces", "consumes"):
        words = getattr(chosen, name)
        if words:
            task[name] = list(words)
    if chosen.env:
        task["env"] = dict(chosen.env)
    if chosen.memory is not None:
        task["memory"] = chosen.memory
    if chosen.rule is not None:
        task["rule"] = chosen.rule
    return task


def template(value: Any) -> Any:
    """A value of a document: expressions become templates, the rest stays as it is."""
    if isinstance(value, Expression):
        return "{{ " + value.render() + " }}"
    if isinstance(value, Mapping):
        return {str(key): template(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [template(item) for item in value]
    if isinstance(value, str):
        # Text with braces that came from no expression must not become a template.
        return value
    try:
        return plain(value)
    except Exception:
        raise GraphError(
            f"a {type(value).__name__} cannot be part of a workflow's definition: arguments known"
            " while the graph is drawn must be JSON values; let a task make it instead"
        ) from None


__all__ = ["of_workflow", "template"]
