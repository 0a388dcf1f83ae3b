"""A client of the server's API, for scripts and notebooks.

``Client`` blocks; ``AsyncClient`` has the same methods as coroutines. Address and token come from
the arguments or from ``KOBZA_API_URL`` and ``KOBZA_API_TOKEN``.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from .context import instant
from .errors import ApiError

T = TypeVar("T")
#: The server's default address.
DEFAULT_URL = "http://127.0.0.1:8470"
#: Seconds to wait for an answer; followers wait longer, between the server's signs of life.
TIMEOUT_S = 30.0
FOLLOW_TIMEOUT_S = 120.0
FINISHED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class Run:
    id: str
    state: str
    workflow: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    message: str | None = None

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Run:
        return cls(
            str(data["id"]),
            str(data["state"]),
            data.get("workflow"),
            _time(data, "created_at"),
            _time(data, "started_at"),
            _time(data, "ended_at"),
            data.get("message"),
        )


@dataclass(frozen=True)
class TaskState:
    id: str
    name: str
    state: str
    map_index: int | None = None
    attempt: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> TaskState:
        return cls(
            str(data["id"]),
            data["name"],
            data["state"],
            data.get("map_index"),
            data.get("attempt") or 0,
        )


@dataclass(frozen=True)
class Event:
    """An event of the log. ``sequence`` grows without gaps; following goes on after it."""

    sequence: int
    kind: str
    data: Any


def _time(data: Mapping[str, Any], name: str) -> datetime | None:
    value = data.get(name)
    return instant(value) if isinstance(value, str) else None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the token elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Client:
    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        namespace: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = (url or os.environ.get("KOBZA_API_URL") or DEFAULT_URL).rstrip("/")
        if urllib.parse.urlsplit(self._url).scheme not in ("http", "https"):
            raise ValueError(f"{self._url!r} is not an http or https address")
        self._token = token or os.environ.get("KOBZA_API_TOKEN")
        self._namespace = namespace or os.environ.get("KOBZA_NAMESPACE")
        self._timeout_s = timeout_s
        # A proxy has no business between a script and its own control plane on loopback.
        host = urllib.parse.urlsplit(self._url).hostname
        handlers: list[Any] = [_NoRedirect()]
        if host in ("127.0.0.1", "localhost", "::1"):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def __repr__(self) -> str:
        return f"<Client {self._url}>"

    # Workflows and runs
    def put_workflow(self, document: Any) -> dict[str, Any]:
        """Stores a workflow: a ``Workflow``, a document, or the text of a YAML file."""
        if hasattr(document, "document"):
            document = document.document()
        if isinstance(document, str):
            return dict(
                self._call("POST", "/workflows", raw=document.encode(), content="application/yaml")
            )
        return dict(self._call("POST", "/workflows", body=document))

    def workflows(self) -> Iterator[dict[str, Any]]:
        return self._list("/workflows")

    def start(
        self,
        workflow: Any,
        params: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Run:
        """Starts a run. Repeated with the same key it answers the first run again."""
        from .values import plain

        name = getattr(workflow, "name", workflow)
        key = idempotency_key or str(uuid.uuid4())
        return Run.of(
            self._call(
                "POST",
                f"/workflows/{_quote(name)}/runs",
                body={"params": plain(dict(params or {}))},
                headers={"Idempotency-Key": key},
            )
        )

    def run(self, run_id: str) -> Run:
        return Run.of(self._call("GET", f"/runs/{_quote(run_id)}"))

    def runs(self, **filters: Any) -> Iterator[Run]:
        return (Run.of(item) for item in self._list("/runs", filters))

    def tasks(self, run_id: str) -> Iterator[TaskState]:
        return (TaskState.of(item) for item in self._list(f"/runs/{_quote(run_id)}/tasks"))

    def cancel(self, run_id: str) -> None:
        self._call("POST", f"/runs/{_quote(run_id)}/cancel", body={})

    def wait(self, run_id: str, *, timeout_s: float | None = None, poll_s: float = 0.2) -> Run:
        """Waits for a run's end. Raises ``TimeoutError``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            found = self.run(run_id)
            if found.finished:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"run {run_id} is still {found.state} after {timeout_s} s")
            time.sleep(poll_s)

    def events(
        self, *, after: int = 0, run: str | None = None, follow: bool = True
    ) -> Iterator[Event]:
        """The events after a sequence number. With ``follow`` it goes on for ever, over lost
        connections too: nothing is missed, nothing comes twice."""
        delay = 0.2
        while True:
            try:
                for event in self._stream(after, run, follow):
                    delay = 0.2
                    if event.sequence > after:
                        after = event.sequence
                        yield event
                if not follow:
                    return
            except ApiError as error:
                if not follow or 400 <= error.status < 500:
                    raise
            time.sleep(delay)
            delay = min(delay * 2, 5.0)

    def _stream(self, after: int, run: str | None, follow: bool) -> Iterator[Event]:
        query = {"after": after, "run": run, "follow": "true" if follow else "false"}
        headers = {"Accept": "text/event-stream"}
        if after:
            headers["Last-Event-ID"] = str(after)
        response = self._open(
            "GET", "/events", query=query, headers=headers, timeout_s=FOLLOW_TIMEOUT_S
        )
        try:
            with response:
                yield from parse_events(line.decode("utf-8", "replace") for line in response)
        except (OSError, ValueError) as error:
            raise ApiError(f"the stream of events broke: {error}") from None

    # The wire
    def _list(self, path: str, filters: Mapping[str, Any] | None = None) -> Iterator[Any]:
        cursor = None
        while True:
            page = self._call("GET", path, query={**(filters or {}), "cursor": cursor})
            yield from page.get("items", [])
            cursor = page.get("next")
            if not cursor:
                return

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        raw: bytes | None = None,
        content: str = "application/json",
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = dict(headers or {})
        if data is not None:
            sent["Content-Type"] = content
        with self._open(method, path, data=data, query=query, headers=sent) as response:
            text = response.read()
        if not text:
            return {}
        try:
            return json.loads(text)
        except ValueError:
            raise ApiError(f"{method} {path} answered something that is not JSON") from None

    def _open(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        named = {key: value for key, value in (query or {}).items() if value is not None}
        if self._namespace:
            named.setdefault("namespace", self._namespace)
        url = f"{self._url}/api/v1{path}" + (f"?{urllib.parse.urlencode(named)}" if named else "")
        request = urllib.request.Request(url, data=data, method=method, headers=dict(headers or {}))
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            return self._opener.open(request, timeout=timeout_s or self._timeout_s)
        except urllib.error.HTTPError as error:
            raise _refusal(method, path, error) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ApiError(
                f"{self._url} cannot be reached: {reason}", hint="is `kobza server` running there?"
            ) from None


def _refusal(method: str, path: str, error: urllib.error.HTTPError) -> ApiError:
    words, hint = f"{method} {path} was answered with {error.code}", None
    try:
        body = json.loads(error.read(1 << 20))
        problem = body.get("error", body) if isinstance(body, dict) else {}
        if isinstance(problem, str):
            words += f": {problem}"
        elif isinstance(problem, dict):
            text = problem.get("message") or problem.get("detail") or problem.get("title")
            words += f": {text}" if text else ""
            hint = problem.get("hint")
    except (ValueError, OSError):
        pass
    finally:
        error.close()
    return ApiError(words, error.code, hint)


def _quote(name: Any) -> str:
    return urllib.parse.quote(str(name), safe="")


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events from their lines."""
    kind, sequence = "message", 0
    data: list[str] = []
    for line in lines:
        line = line.rstrip("\r\n")
        if not line:
            if data:
                text = "\n".join(data)
                try:
                    body = json.loads(text)
                except ValueError:
                    body = text
                yield Event(sequence, kind, body)
            kind, data = "message", []
            continue
        if line.startswith(":"):
            continue  # A sign of life.
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "data":
            data.append(value)
        elif field == "event":
            kind = value
        elif field == "id" and value.isdigit():
            sequence = int(value)


class AsyncClient:
    """The same for asyncio. Requests run in threads of their own."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        namespace: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._client = Client(url, token, namespace=namespace, timeout_s=timeout_s)

    async def put_workflow(self, document: Any) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.put_workflow, document)

    async def start(
        self,
        workflow: Any,
        params: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Run:
        return await asyncio.to_thread(
            lambda: self._client.start(workflow, params, idempotency_key=idempotency_key)
        )

    async def run(self, run_id: str) -> Run:
        return await asyncio.to_thread(self._client.run, run_id)

    async def cancel(self, run_id: str) -> None:
        await asyncio.to_thread(self._client.cancel, run_id)

    async def wait(
        self, run_id: str, *, timeout_s: float | None = None, poll_s: float = 0.2
    ) -> Run:
        async def poll() -> Run:
            while not (found := await self.run(run_id)).finished:
                await asyncio.sleep(poll_s)
            return found

        return await asyncio.wait_for(poll(), timeout_s)

    def workflows(self) -> AsyncIterator[dict[str, Any]]:
        return _in_thread(self._client.workflows)

    def runs(self, **filters: Any) -> AsyncIterator[Run]:
        return _in_thread(lambda: self._client.runs(**filters))

    def tasks(self, run_id: str) -> AsyncIterator[TaskState]:
        return _in_thread(lambda: self._client.tasks(run_id))

    def events(
        self, *, after: int = 0, run: str | None = None, follow: bool = True
    ) -> AsyncIterator[Event]:
        return _in_thread(lambda: self._client.events(after=after, run=run, follow=follow))


async def _in_thread(make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """Iterates a blocking iterator in a thread, a few elements ahead of its reader."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    room = threading.Semaphore(64)
    stopped = threading.Event()
    end = object()

    def put(value: Any) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, value)
        except RuntimeError:
            stopped.set()  # The loop has gone.

    def work() -> None:
        try:
            for element in make():
                room.acquire()
                if stopped.is_set():
                    return
                put(element)
        except BaseException as error:
            put((end, error))
        else:
            put((end, None))

    threading.Thread(target=work, name="kobza-client", daemon=True).start()
    try:
        while True:
            element = await queue.get()
            if isinstance(element, tuple) and element and element[0] is end:
                if element[1] is not None:
                    raise element[1]
                return
            room.release()
            yield element
    finally:
        stopped.set()
        room.release()
