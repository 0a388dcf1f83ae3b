"""From drawn graphs to native workflow documents: the one place that knows their form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import options
from .errors import GraphError
from .expression import Expression, literal
from .graph import Node
from .values import plain

if TYPE_CHECKING:
    from .workflow import Workflow


def of_workflow(workflow: Workflow[Any, Any]) -> dict[str, Any]:
    graph, returned = workflow.draw()
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
    environment: dict[str, Any] = {
        key: value
        for key, value in (("interpreter", workflow.python), ("mode", workflow.mode))
        if value is not None
    }
    if workflow.requirements is not None:
        listed = workflow.requirements
        environment["requirements"] = listed if isinstance(listed, str) else list(listed)
    document["tasks"] = {node.name: _of_node(node, environment) for node in graph.nodes.values()}
    if returned is not None:
        document["outputs"] = (
            {str(key): template(value) for key, value in returned.items()}
            if isinstance(returned, Mapping) and not isinstance(returned, Expression)
            else {"result": template(returned)}
        )
    return document


def _of_node(node: Node, environment: dict[str, Any]) -> dict[str, Any]:
    chosen = node.options
    spec: Any = template(node.spec)
    task: dict[str, Any] = {}
    if node.kind == "python":
        spec = {**spec, **environment}
        if chosen.mode is not None:
            spec["mode"] = chosen.mode
        if chosen.result is not None:
            spec["result"] = chosen.result
        task["python"] = spec
    elif node.kind == "workflow":
        task["workflow"] = spec["workflow"]
    elif node.kind == "sql":
        task["sql"] = spec["query"]
        task["connection"] = spec["connection"]
    else:
        task[node.kind] = spec
    arguments = dict(node.arguments)
    if node.mapped is not None:
        task["map"] = _map(node)
        for name in node.mapped.over:
            arguments[name] = _Element(name)
    if arguments:
        task["with"] = {name: template(value) for name, value in arguments.items()}
    if upstream := node.upstream():
        task["needs"] = upstream
    if node.when is not None:
        task["when"] = node.when.render()
    task.update(_of_options(chosen))
    return task


class _Element(Expression):
    """The element of one mapped argument."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def render(self) -> str:
        return f"item.{self.name}"


def _map(node: Node) -> dict[str, Any]:
    assert node.mapped is not None
    over = {name: template(value) for name, value in node.mapped.over.items()}
    return {"product": over} if node.mapped.product else {"zip": over}


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
            retries["max_delay"] = options.text(chosen.retries.max_delay)
        if chosen.retries.jitter:
            retries["jitter"] = chosen.retries.jitter
        task["retries"] = retries
    if chosen.timeout is not None:
        task["timeout"] = options.text(chosen.timeout)
    if chosen.pools:
        task["pool"] = list(chosen.pools) if len(chosen.pools) > 1 else chosen.pools[0]
    if chosen.priority:
        task["priority"] = chosen.priority
    if chosen.cache is not None:
        cache: dict[str, Any] = {}
        if chosen.cache.key is not None:
            cache["key"] = template(chosen.cache.key)
        if chosen.cache.expires is not None:
            cache["expires"] = options.text(chosen.cache.expires)
        if chosen.cache.version is not None:
            cache["version"] = chosen.cache.version
        task["cache"] = cache or True
    for name in ("tags", "produces", "consumes"):
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


__all__ = ["literal", "of_workflow", "template"]
