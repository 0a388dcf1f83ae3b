"""Durations, retries, caches: the options of tasks and workflows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

Duration = int | float | str | timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")


def seconds(duration: Duration) -> float:
    """A duration in seconds: a number of seconds, a timedelta, or words such as ``1h30m``."""
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, str):
        text = duration.strip()
        if not text or _PART.sub("", text).strip():
            raise ValueError(f"{duration!r} is not a duration; write for example 90s, 5m or 1h30m")
        value = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):
        value = float(duration)
    else:
        raise TypeError(
            f"a duration is seconds, text or a timedelta, not {type(duration).__name__}"
        )
    if not 0 <= value < float("inf"):
        raise ValueError(f"the duration {duration!r} must not be negative or endless")
    return value


def text(duration: Duration) -> str:
    """A duration as documents have it: whole milliseconds in the largest fitting unit."""
    milliseconds = round(seconds(duration) * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


#: When a task may run, by what became of the tasks before it.
RULES = (
    "all_succeeded",
    "all_done",
    "all_failed",
    "one_succeeded",
    "one_failed",
    "one_done",
    "none_failed",
    "none_failed_min_one_success",
    "none_skipped",
    "all_skipped",
    "always",
)


@dataclass(frozen=True)
class Retry:
    """Further attempts after a failed one.

    ``delay`` comes before the second attempt; with ``backoff="exponential"`` it doubles up to
    ``max_delay``; ``jitter`` adds up to that fraction of itself.
    """

    limit: int
    delay: Duration = 0
    backoff: Literal["fixed", "exponential"] = "fixed"
    max_delay: Duration | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError("a task cannot have a negative number of retries")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter is a fraction from 0 to 1")

    @classmethod
    def of(cls, value: int | Retry | None) -> Retry | None:
        return cls(value) if isinstance(value, int) else value

    def delay_s(self, attempt: int) -> float:
        """Seconds between attempt number ``attempt`` and the next, without jitter."""
        delay = seconds(self.delay)
        if self.backoff == "exponential":
            delay *= 2 ** (attempt - 1)
        return min(delay, seconds(self.max_delay)) if self.max_delay is not None else delay


@dataclass(frozen=True)
class Cache:
    """Reuse an earlier result of the same task with the same inputs.

    ``expires`` limits its age; ``version`` is changed by hand to void what is kept; ``key``
    replaces the inputs as what must be equal.
    """

    expires: Duration | None = None
    version: str | None = None
    key: Any = None

    @classmethod
    def of(cls, value: bool | Duration | Cache | None) -> Cache | None:
        if value is None or value is False:
            return None
        if value is True:
            return cls()
        return value if isinstance(value, Cache) else cls(expires=value)


@dataclass(frozen=True)
class Options:
    """Options of a task; all have a default, so that a call may override some of them."""

    name: str | None = None
    description: str | None = None
    retries: Retry | None = None
    timeout: Duration | None = None
    pools: tuple[str, ...] = ()
    priority: int = 0
    cache: Cache | None = None
    tags: tuple[str, ...] = ()
    produces: tuple[str, ...] = ()
    consumes: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    memory: int | str | None = None
    rule: str | None = None
    mode: Literal["fork", "spawn", "reuse"] | None = None
    result: str | None = None

    @staticmethod
    def collect(given: dict[str, Any]) -> dict[str, Any]:
        """Brings what users write into the forms kept here."""
        options = dict(given)
        if "retries" in options:
            retries = options["retries"]
            if not isinstance(retries, (int, Retry, type(None))) or isinstance(retries, bool):
                raise TypeError("retries is a number or a kobza.Retry")
            options["retries"] = Retry.of(retries)
        if "retry_delay" in options:
            delay = options.pop("retry_delay")
            retries = options.get("retries") or Retry(0)
            options["retries"] = Retry(
                retries.limit, delay, retries.backoff, retries.max_delay, retries.jitter
            )
        if "cache" in options:
            options["cache"] = Cache.of(options["cache"])
        if "timeout" in options and options["timeout"] is not None:
            seconds(options["timeout"])
        if "pool" in options:
            options["pools"] = options.pop("pool")
        for name in ("pools", "tags", "produces", "consumes"):
            if name in options:
                options[name] = _words(name, options[name])
        if isinstance(options.get("env"), dict):
            options["env"] = tuple((str(k), str(v)) for k, v in options["env"].items())
        if options.get("rule") not in (None, *RULES):
            raise ValueError(f"rule is one of {', '.join(RULES)}, not {options['rule']!r}")
        if options.get("mode") not in (None, "fork", "spawn", "reuse"):
            raise ValueError(f"mode is fork, spawn or reuse, not {options['mode']!r}")
        known = set(Options.__dataclass_fields__)
        unknown = sorted(set(options) - known)
        if unknown:
            import difflib

            close = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"a task has no option {unknown[0]!r}{hint}")
        return options


def _words(name: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, Sequence) or isinstance(value, (set, frozenset)):
        words = [getattr(item, "asset_name", item) for item in value]
        if all(isinstance(word, str) for word in words):
            return tuple(str(word) for word in words)
    single = getattr(value, "asset_name", None)
    if isinstance(single, str):
        return (single,)
    raise TypeError(f"{name} is a name or a list of names")
