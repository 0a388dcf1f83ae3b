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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
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
    """An event of the log. ``sequence`` grows; following goes on after it."""

    sequence: int
    #: ``run``, ``task``, ``expanded``, ``cleared``, ``marked``, ``materialized``, ``checked`` or
    #: ``note``.
    kind: str
    at: datetime | None = None
    #: What happened, as a sentence.
    text: str = ""
    run: str | None = None
    workflow: str | None = None
    task: str | None = None
    task_name: str | None = None
    map_index: int | None = None
    state: str | None = None
    cause: str | None = None
    attempt: int | None = None
    detail: Any = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Event:
        known = {name: data.get(name) for name in _EVENT_FIELDS}
        return cls(
            int(data["seq"]),
            str(data["kind"]),
            _time(data, "at"),
            str(data.get("text") or ""),
            **known,
        )


_EVENT_FIELDS = (
    "run",
    "workflow",
    "task",
    "task_name",
    "map_index",
    "state",
    "cause",
    "attempt",
    "detail",
)
EVENT_KINDS = (
    "run",
    "task",
    "expanded",
    "cleared",
    "marked",
    "materialized",
    "checked",
    "note",
)


def _rfc3339(at: datetime) -> str:
    return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).isoformat()


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
        partition: str | None = None,
        interval: tuple[datetime, datetime] | None = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        """Starts a run. Repeated with the same key it answers the first run again."""
        from .values import plain

        name = getattr(workflow, "name", workflow)
        key = idempotency_key or str(uuid.uuid4())
        body: dict[str, Any] = {"params": plain(dict(params or {}))}
        if partition is not None:
            body["partition"] = partition
        if interval is not None:
            body["interval_start"], body["interval_end"] = (_rfc3339(at) for at in interval)
        if labels is not None:
            body["labels"] = dict(labels)
        return Run.of(
            self._call(
                "POST",
                f"/workflows/{_quote(name)}/runs",
                body=body,
                headers={"Idempotency-Key": key},
            )
        )

    def run(self, run_id: str) -> Run:
        return Run.of(self._call("GET", f"/runs/{_quote(run_id)}"))

    def runs(self, **filters: Any) -> Iterator[Run]:
        return (Run.of(item) for item in self._list("/runs", filters))

    def tasks(self, run_id: str) -> Iterator[TaskState]:
        return (TaskState.of(item) for item in self._list(f"/runs/{_quote(run_id)}/tasks"))

    def outputs(self, task_id: str) -> dict[str, Any]:
        """What a task has put out: by name, large values as references to artifacts."""
        return dict(self._call("GET", f"/tasks/{_quote(task_id)}/outputs"))

    def result(self, run_id: str, task: str) -> Any:
        """The result of a task by its name; a list for a mapped one. Raises ``KeyError``."""
        found = [one for one in self.tasks(run_id) if one.name == task]
        if not found:
            raise KeyError(f"run {run_id} has no task {task!r}")
        parts = [one for one in found if one.map_index is not None]
        if not parts:
            return self.outputs(found[0].id).get("result")
        parts.sort(key=lambda one: one.map_index or 0)
        return [self.outputs(one.id).get("result") for one in parts]

    def cancel(self, run_id: str) -> None:
        self._call("POST", f"/runs/{_quote(run_id)}/cancel", body={})

    def wait(self, run_id: str, *, timeout_s: float | None = None) -> Run:
        """Waits for a run's end, told by the server as it happens. Raises ``TimeoutError``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s

        def left() -> float:
            return FOLLOW_TIMEOUT_S if deadline is None else deadline - time.monotonic()

        query = {"run": run_id, "kind": "run"}
        while True:
            # The stream begins before the run is looked at: no end falls in between.
            try:
                with self._stream(query, max(0.05, min(left(), FOLLOW_TIMEOUT_S))) as response:
                    found = self.run(run_id)
                    if found.finished:
                        return found
                    for line in response:
                        if line.startswith(b"event: events") or left() <= 0:
                            break
            except ApiError as error:
                # A server that is not there, or begins: it comes back.
                if 400 <= error.status < 500 or left() <= 0:
                    raise
                time.sleep(0.2)
                continue
            except OSError:
                pass  # Broken, or silent for too long: looked at anew below.
            if left() <= 0:
                found = self.run(run_id)
                if found.finished:
                    return found
                raise TimeoutError(f"run {run_id} is still {found.state} after {timeout_s} s")

    def events(
        self,
        *,
        after: int = 0,
        run: str | None = None,
        workflow: str | None = None,
        kinds: Sequence[str] = EVENT_KINDS,
        follow: bool = True,
    ) -> Iterator[Event]:
        """The events after a sequence number, in order. With ``follow`` it goes on for ever, over
        lost connections too: nothing is missed, nothing comes twice. What retention has deleted is
        passed over."""
        unknown = [kind for kind in kinds if kind not in EVENT_KINDS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a kind of event: {', '.join(EVENT_KINDS)}")
        filters = {"run": run, "workflow": workflow, "kind": ",".join(kinds)}
        delay = 0.2
        while True:
            try:
                for event in self._pages(after, filters):
                    after = event.sequence
                    yield event
                if not follow:
                    return
                for kind, body in self._frames(after, filters):
                    delay = 0.2
                    if kind == "events":
                        for event in map(Event.of, body):
                            if event.sequence > after and workflow in (None, event.workflow):
                                after = event.sequence
                                yield event
                    elif kind == "skipped":
                        break  # Too much for the stream: by pages again.
                else:
                    time.sleep(delay)
                continue
            except ApiError as error:
                if not follow or 400 <= error.status < 500:
                    raise
            time.sleep(delay)
            delay = min(delay * 2, 5.0)

    def _pages(self, after: int, filters: Mapping[str, Any]) -> Iterator[Event]:
        cursor: Any = None
        while True:
            query = {**filters, "after": after, "order": "asc", "limit": 500, "cursor": cursor}
            page = self._call("GET", "/events", query=query)
            for item in page.get("items", []):
                yield Event.of(item)
            cursor = page.get("next")
            if not cursor:
                return

    def _frames(self, after: int, filters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        query = {"after": after, "run": filters["run"], "kind": filters["kind"]}
        try:
            with self._stream(query, FOLLOW_TIMEOUT_S) as response:
                yield from parse_frames(line.decode("utf-8", "replace") for line in response)
        except (OSError, ValueError) as error:
            raise ApiError(f"the stream of events broke: {error}") from None

    def _stream(self, query: Mapping[str, Any], timeout_s: float) -> Any:
        headers = {"Accept": "text/event-stream"}
        return self._open(
            "GET", "/events/stream", query=query, headers=headers, timeout_s=timeout_s
        )

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


def parse_frames(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Name and JSON of server-sent events, from their lines."""
    kind = "message"
    data: list[str] = []
    for line in lines:
        line = line.rstrip("\r\n")
        if not line:
            if data:
                yield kind, json.loads("\n".join(data))
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
        partition: str | None = None,
        interval: tuple[datetime, datetime] | None = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Run:
        return await asyncio.to_thread(
            lambda: self._client.start(
                workflow,
                params,
                partition=partition,
                interval=interval,
                labels=labels,
                idempotency_key=idempotency_key,
            )
        )

    async def run(self, run_id: str) -> Run:
        return await asyncio.to_thread(self._client.run, run_id)

    async def cancel(self, run_id: str) -> None:
        await asyncio.to_thread(self._client.cancel, run_id)

    async def wait(self, run_id: str, *, timeout_s: float | None = None) -> Run:
        return await asyncio.to_thread(self._client.wait, run_id, timeout_s=timeout_s)

    async def result(self, run_id: str, task: str) -> Any:
        return await asyncio.to_thread(self._client.result, run_id, task)

    async def outputs(self, task_id: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._client.outputs, task_id)

    def workflows(self) -> AsyncIterator[dict[str, Any]]:
        return _in_thread(self._client.workflows)

    def runs(self, **filters: Any) -> AsyncIterator[Run]:
        return _in_thread(lambda: self._client.runs(**filters))

    def tasks(self, run_id: str) -> AsyncIterator[TaskState]:
        return _in_thread(lambda: self._client.tasks(run_id))

    def events(
        self,
        *,
        after: int = 0,
        run: str | None = None,
        workflow: str | None = None,
        kinds: Sequence[str] = EVENT_KINDS,
        follow: bool = True,
    ) -> AsyncIterator[Event]:
        return _in_thread(
            lambda: self._client.events(
                after=after, run=run, workflow=workflow, kinds=kinds, follow=follow
            )
        )


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
