"""Exceptions of the SDK, and those by which a task says how it wants to end."""

from __future__ import annotations


class KobzaError(Exception):
    """Base of all errors raised by this package."""


class GraphError(KobzaError):
    """A workflow function does something that cannot be drawn as a graph."""


class NotStorable(KobzaError):
    """A value cannot be kept: it is neither JSON, nor a frame, an array or an artifact."""

    kobza_cause = "storage"


class ArtifactError(KobzaError):
    """An artifact cannot be written, found or trusted."""

    kobza_cause = "infrastructure"


class Skip(KobzaError):
    """Raised by a task to end as skipped, with a reason."""


class CheckFailed(KobzaError):
    """A check over data did not hold."""

    kobza_cause = "check"


class NoContext(KobzaError):
    """Something was asked for that only a running task has."""


class ApiError(KobzaError):
    """The server refused a request. ``status`` is the HTTP status, 0 when it was not reached."""

    def __init__(self, message: str, status: int = 0, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message} (hint: {hint})")
        self.status = status
        self.hint = hint
