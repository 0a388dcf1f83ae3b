"""What stands for a value while a workflow is drawn: a small expression tree.

Every expression knows two things: how it is written in the workflow's template language, and how it
is computed in process (for ``kobza.testing``). Nothing is known of its value when the graph is
drawn, so using it as a condition, a list or a number is an error that says what to do instead.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .errors import GraphError

_TASK_IN_TEXT = re.compile(r"""\btasks(?:\.(\w+)|\["([^"]+)"\])""")
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "in": lambda item, group: item in group,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
}


class Expression:
    """A value that will be known when the workflow runs."""

    __slots__ = ()

    def render(self) -> str:
        """The expression in the template language, without braces."""
        raise NotImplementedError

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        """Its value, where ``names`` holds ``tasks``, ``params``, ``run``, ``interval``, ..."""
        raise NotImplementedError

    def parts(self) -> Iterator[Expression]:
        """The expressions that it is made of."""
        return iter(())

    def tasks(self) -> set[str]:
        """Names of the tasks whose results it reads."""
        found: set[str] = set()
        for part in self.parts():
            found |= part.tasks()
        return found

    # What a drawing cannot know.
    def __bool__(self) -> bool:
        raise GraphError(
            f"the value of `{self.render()}` is not known while the graph is drawn;"
            " use `with kobza.when(...)` instead of `if`"
        )

    def __iter__(self) -> Iterator[Any]:
        raise GraphError(
            f"the value of `{self.render()}` is not known while the graph is drawn;"
            " use `task.map(...)` instead of a loop, or index it"
        )

    def __len__(self) -> int:
        raise GraphError(f"the length of `{self.render()}` is not known while the graph is drawn")

    def __contains__(self, item: object) -> bool:
        raise GraphError("`in` is not known while the graph is drawn; write `value.contains(item)`")

    # What it can.
    def __getitem__(self, key: Any) -> Expression:
        return Item(self, key)

    def __getattr__(self, name: str) -> Expression:
        if name.startswith("_"):
            raise AttributeError(name)
        return Item(self, name)

    def contains(self, item: Any) -> Expression:
        return Binary("in", lift(item), self)

    def __eq__(self, other: object) -> Expression:  # type: ignore[override]
        return Binary("==", self, lift(other))

    def __ne__(self, other: object) -> Expression:  # type: ignore[override]
        return Binary("!=", self, lift(other))

    def __lt__(self, other: Any) -> Expression:
        return Binary("<", self, lift(other))

    def __le__(self, other: Any) -> Expression:
        return Binary("<=", self, lift(other))

    def __gt__(self, other: Any) -> Expression:
        return Binary(">", self, lift(other))

    def __ge__(self, other: Any) -> Expression:
        return Binary(">=", self, lift(other))

    def __add__(self, other: Any) -> Expression:
        return Binary("+", self, lift(other))

    def __radd__(self, other: Any) -> Expression:
        return Binary("+", lift(other), self)

    def __sub__(self, other: Any) -> Expression:
        return Binary("-", self, lift(other))

    def __rsub__(self, other: Any) -> Expression:
        return Binary("-", lift(other), self)

    def __mul__(self, other: Any) -> Expression:
        return Binary("*", self, lift(other))

    def __rmul__(self, other: Any) -> Expression:
        return Binary("*", lift(other), self)

    def __truediv__(self, other: Any) -> Expression:
        return Binary("/", self, lift(other))

    def __mod__(self, other: Any) -> Expression:
        return Binary("%", self, lift(other))

    def __and__(self, other: Any) -> Expression:
        return Binary("and", self, lift(other))

    def __or__(self, other: Any) -> Expression:
        return Binary("or", self, lift(other))

    def __invert__(self) -> Expression:
        return Not(self)

    __hash__ = object.__hash__

    def __str__(self) -> str:
        """In an f-string it becomes a template."""
        return "{{ " + self.render() + " }}"

    def __format__(self, spec: str) -> str:
        if spec:
            raise GraphError(
                f"`{self.render()}` cannot be formatted with {spec!r}: its value is not known yet"
            )
        return str(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.render()}>"


class Constant(Expression):
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise GraphError(f"{type(value).__name__} cannot be part of an expression") from None
        self.value = value

    def render(self) -> str:
        return literal(self.value)

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        return self.value


class Name(Expression):
    """A name of the template's context, such as ``params`` or ``item``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def render(self) -> str:
        return self.name

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        try:
            return names[self.name]
        except KeyError:
            raise GraphError(f"there is no {self.name!r} here") from None


class Item(Expression):
    """A field or an element of another expression."""

    __slots__ = ("key", "owner")

    def __init__(self, owner: Expression, key: Any) -> None:
        if not isinstance(key, (str, int, Expression)):
            raise GraphError(f"{key!r} cannot index a value that is not known yet")
        self.owner = owner
        self.key = key

    def render(self) -> str:
        owner = self.owner.render()
        if isinstance(self.key, Expression):
            return f"{owner}[{self.key.render()}]"
        if isinstance(self.key, str) and self.key.isidentifier():
            return f"{owner}.{self.key}"
        return f"{owner}[{literal(self.key)}]"

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        owner = self.owner.evaluate(names)
        key = self.key.evaluate(names) if isinstance(self.key, Expression) else self.key
        if isinstance(key, str) and not isinstance(owner, Mapping):
            return getattr(owner, key)
        return owner[key]

    def parts(self) -> Iterator[Expression]:
        yield self.owner
        if isinstance(self.key, Expression):
            yield self.key


class Result(Item):
    """An output of a task."""

    __slots__ = ("task",)

    def __init__(self, task: str, output: str = "result") -> None:
        super().__init__(Item(Name("tasks"), task), output)
        self.task = task

    def tasks(self) -> set[str]:
        return {self.task}


class Binary(Expression):
    __slots__ = ("left", "right", "symbol")

    def __init__(self, symbol: str, left: Expression, right: Expression) -> None:
        self.symbol = symbol
        self.left = left
        self.right = right

    def render(self) -> str:
        return f"({self.left.render()} {self.symbol} {self.right.render()})"

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        left = self.left.evaluate(names)
        if self.symbol == "and" and not left:
            return left
        if self.symbol == "or" and left:
            return left
        return _BINARY[self.symbol](left, self.right.evaluate(names))

    def parts(self) -> Iterator[Expression]:
        yield self.left
        yield self.right


class Not(Expression):
    __slots__ = ("inner",)

    def __init__(self, inner: Expression) -> None:
        self.inner = inner

    def render(self) -> str:
        return f"(not {self.inner.render()})"

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        return not self.inner.evaluate(names)

    def parts(self) -> Iterator[Expression]:
        yield self.inner


class Raw(Expression):
    """A template written by hand, kept as it is."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def render(self) -> str:
        return self.text

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        raise GraphError(f"the template {self.text!r} can only be computed by the server")


def lift(value: Any) -> Expression:
    return value if isinstance(value, Expression) else Constant(value)


def literal(value: Any) -> str:
    """A JSON value as a literal of the template language."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(str(k))}: {literal(v)}" for k, v in value.items()) + "}"
    raise GraphError(f"{type(value).__name__} cannot be part of an expression")


def walk(value: Any, found: set[str] | None = None) -> set[str]:
    """Names of the tasks that a value with expressions inside reads."""
    found = set() if found is None else found
    if isinstance(value, Expression):
        found |= value.tasks()
    elif isinstance(value, str):
        # An f-string has turned its expressions into text.
        if "{{" in value:
            found |= {plain or quoted for plain, quoted in _TASK_IN_TEXT.findall(value)}
    elif isinstance(value, Mapping):
        for item in value.values():
            walk(item, found)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            walk(item, found)
    return found


def evaluate(value: Any, names: Mapping[str, Any]) -> Any:
    """A value with its expressions replaced by theirs."""
    if isinstance(value, Expression):
        return value.evaluate(names)
    if isinstance(value, Mapping):
        return {key: evaluate(item, names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [evaluate(item, names) for item in value]
    return value
