"""Reads DAG files for the server: ``python -m kobza_airflow.parse``.

The process imports Airflow once and forks a child for each file, which runs Airflow's own entry point
for parsing. It speaks JSON lines on its standard input and output:

``{"id": 1, "op": "hello"}`` → ``{"id": 1, "airflow": "3.3.2", "sdk": "1.3.2", "paused_at_creation": true,
"file_seconds": 50, "max_map_length": 1024}``

``{"id": 2, "op": "list", "folder": PATH}`` → ``{"id": 2, "files": [PATH, ...]}`` by Airflow's own rules
(``.airflowignore``, zip files, safe mode).

``{"id": 3, "op": "parse", "file": PATH, "bundle_path": PATH, "bundle_name": NAME, "timeout": SECONDS}``
→ ``{"id": 3, "dags": [...], "import_errors": {FILE: TEXT}, "warnings": [...]}``, or
``{"id": 3, "error": TEXT, "output": TAIL}`` when the child ended, or was ended, without a result. With
``"callbacks": [...]`` the child runs callbacks instead.

``{"id": 4, "op": "ask", "question": {...}, "timeout": SECONDS}`` → ``{"id": 4, "answer": ...}`` or an error,
by :mod:`kobza_airflow.answer` in a child of its own.

While it parses, a file may ask for variables and the like: ``{"ask": 7, "id": 3, "request": {...}}``, to
be answered by ``{"answer": 7, "body": {...}}``, with the models of the task SDK's protocol as JSON.

It ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

#: Bytes kept of what a child prints.
OUTPUT_TAIL = 16_384
#: Seconds for one file where the request does not say; Airflow's own default.
TIMEOUT_DEFAULT = 50.0
#: A message of a child may not be longer, in bytes.
FRAME_MAX = 256 << 20

_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Child:
    """A forked process at work on one file."""

    def __init__(self, number: int, pid: int, channel: socket.socket, output: int, until: float):
        self.number = number
        self.pid = pid
        self.channel = channel
        self.output = output
        self.until = until
        self.bytes = bytearray()
        self.tail = bytearray()


class Host:
    def __init__(self, requests: int, answers: int) -> None:
        import msgspec

        self.encode = msgspec.msgpack.Encoder().encode
        self.decode = msgspec.msgpack.Decoder().decode
        self.requests = requests
        self.answers = answers
        self.selector = selectors.DefaultSelector()
        self.children: dict[int, Child] = {}
        #: Questions on their way: the child's number and its own id of the question.
        self.asked: dict[int, tuple[int, int]] = {}
        self.asks = 0
        self.lines = bytearray()

    def say(self, message: dict[str, Any]) -> None:
        data = json.dumps(message, default=str).encode() + b"\n"
        view = memoryview(data)
        while view:
            view = view[os.write(self.answers, view) :]

    def run(self) -> None:
        self.selector.register(self.requests, selectors.EVENT_READ, ("requests", None))
        while True:
            for key, _ in self.selector.select(self._pause()):
                kind, child = key.data
                if kind == "requests":
                    data = os.read(self.requests, 1 << 16)
                    if not data:
                        return
                    self.lines += data
                    self._requests()
                elif kind == "output":
                    self._output(child)
                elif child.number in self.children:
                    self._message(child)
            self._overdue()

    def _pause(self) -> float | None:
        if not self.children:
            return None
        return max(0.0, min(c.until for c in self.children.values()) - time.monotonic())

    def _requests(self) -> None:
        while (end := self.lines.find(b"\n")) >= 0:
            line = bytes(self.lines[:end])
            del self.lines[: end + 1]
            request = json.loads(line)
            if "answer" in request:
                self._answered(request)
                continue
            try:
                self._request(request)
            except Exception as error:
                self.say({"id": request.get("id"), "error": f"{type(error).__name__}: {error}"})

    def _request(self, request: dict[str, Any]) -> None:
        number = request["id"]
        if request["op"] == "hello":
            from airflow import __version__ as core
            from airflow.sdk import __version__ as sdk

            from airflow.configuration import conf

            self.say(
                {
                    "id": number,
                    "airflow": core,
                    "sdk": sdk,
                    "paused_at_creation": conf.getboolean("core", "dags_are_paused_at_creation", fallback=True),
                    "file_seconds": conf.getfloat("dag_processor", "dag_file_processor_timeout", fallback=50),
                    "max_map_length": conf.getint("core", "max_map_length", fallback=1024),
                }
            )
        elif request["op"] == "list":
            from airflow.utils.file import list_py_file_paths

            self.say({"id": number, "files": sorted(list_py_file_paths(request["folder"]))})
        elif request["op"] == "parse":
            channel = self._start(request, _child)
            self._send(
                channel,
                0,
                {
                    "type": "DagFileParseRequest",
                    "file": request["file"],
                    "bundle_path": request["bundle_path"],
                    "bundle_name": request["bundle_name"],
                    "callback_requests": request.get("callbacks") or [],
                },
            )
        elif request["op"] == "ask":
            question, encode = request["question"], self.encode
            self._start(request, lambda: _answer(question, encode))
        else:
            self.say({"id": number, "error": f"there is no operation {request['op']!r}"})

    def _start(self, request: dict[str, Any], work: Callable[[], int]) -> Child:
        """Forks a child for a request. Its channel is its descriptor 0."""
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _die_with_parent()
                os.setsid()
                os.dup2(theirs.fileno(), 0)
                os.dup2(write_end, 1)
                os.dup2(write_end, 2)
                os.closerange(3, 1024)
                code = work()
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        theirs.close()
        os.close(write_end)
        ours.setblocking(False)
        until = time.monotonic() + float(request.get("timeout") or TIMEOUT_DEFAULT)
        child = Child(request["id"], pid, ours, read_end, until)
        self.children[child.number] = child
        self.selector.register(ours, selectors.EVENT_READ, ("message", child))
        self.selector.register(read_end, selectors.EVENT_READ, ("output", child))
        return child

    def _send(self, child: Child, number: int, body: Any, error: Any = None) -> None:
        frame = self.encode([number, body] if error is None else [number, body, error])
        child.channel.setblocking(True)
        with contextlib.suppress(OSError):
            child.channel.sendall(len(frame).to_bytes(4, "big") + frame)
        child.channel.setblocking(False)

    def _answered(self, request: dict[str, Any]) -> None:
        number, own = self.asked.pop(request["answer"], (None, None))
        child = self.children.get(number) if number is not None else None
        if child is not None and own is not None:
            self._send(child, own, request.get("body"), request.get("error"))

    def _output(self, child: Child) -> None:
        data = os.read(child.output, 1 << 16)
        if not data:
            self.selector.unregister(child.output)
            os.close(child.output)
            child.output = -1
            return
        child.tail += data
        del child.tail[:-OUTPUT_TAIL]

    def _message(self, child: Child) -> None:
        try:
            data = child.channel.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(child, "its process ended without a result")
            return
        child.bytes += data
        while len(child.bytes) >= 4:
            length = int.from_bytes(child.bytes[:4], "big")
            if length > FRAME_MAX:
                self._end(child, "its process sent a message that is too long")
                return
            if len(child.bytes) < 4 + length:
                return
            try:
                number, body, *_ = self.decode(bytes(child.bytes[4 : 4 + length]))
            except Exception:
                self._end(child, "its process sent a message that cannot be read")
                return
            del child.bytes[: 4 + length]
            if not isinstance(body, dict):
                continue
            if body.get("type") == "DagFileParsingResult":
                self._result(child, body)
                return
            if body.get("type") == "Answer":
                self._close(child)
                body.pop("type")
                self.say({"id": child.number, **body})
                return
            if body.get("type") == "MaskSecret":
                self._send(child, number, None)
                continue
            self.asks += 1
            self.asked[self.asks] = (child.number, number)
            self.say({"ask": self.asks, "id": child.number, "request": body})

    def _result(self, child: Child, body: dict[str, Any]) -> None:
        dags = [dag.get("data", dag) for dag in body.get("serialized_dags") or []]
        self._close(child)
        self.say(
            {
                "id": child.number,
                "dags": dags,
                "import_errors": body.get("import_errors") or {},
                "warnings": body.get("warnings") or [],
            }
        )

    def _end(self, child: Child, words: str) -> None:
        # What it printed last may still be in the pipe.
        if child.output >= 0:
            os.set_blocking(child.output, False)
            with contextlib.suppress(OSError):
                child.tail += os.read(child.output, 1 << 16)
        tail = bytes(child.tail[-OUTPUT_TAIL:]).decode("utf-8", "replace")
        self._close(child)
        self.say({"id": child.number, "error": words, "output": tail})

    def _close(self, child: Child) -> None:
        """Ends the child and whatever it started."""
        del self.children[child.number]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child.pid, 0)
        self.selector.unregister(child.channel)
        child.channel.close()
        if child.output >= 0:
            self.selector.unregister(child.output)
            os.close(child.output)

    def _overdue(self) -> None:
        now = time.monotonic()
        for child in [c for c in self.children.values() if c.until <= now]:
            self._end(child, "it took longer than its time limit")


def _child() -> int:
    from airflow.dag_processing.processor import _parse_file_entrypoint

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _parse_file_entrypoint()
    return 0


def _answer(question: dict[str, Any], encode: Callable[[Any], bytes]) -> int:
    from .answer import answer

    try:
        body = {"answer": answer(question)}
    except Exception as error:
        import traceback

        traceback.print_exc()
        body = {"error": f"{type(error).__name__}: {error}"}
    frame = encode([0, {"type": "Answer", **body}])
    with socket.socket(fileno=os.dup(0)) as channel:
        channel.sendall(len(frame).to_bytes(4, "big") + frame)
    return 0


def serve(name: str) -> None:
    """In a child of a process that has Airflow imported: reads files for the server at the other end of
    the abstract socket of this name, as long as that lives."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect("\0" + name)
        Host(server.fileno(), server.fileno()).run()


def main() -> int:
    _die_with_parent()
    # Only answers go to the standard output; whatever prints there goes to the standard error.
    answers = os.dup(1)
    os.dup2(2, 1)
    os.set_inheritable(answers, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import airflow.dag_processing.dagbag
    import airflow.dag_processing.processor
    import airflow.sdk.execution_time.task_runner
    import airflow.serialization.serialized_objects  # noqa: F401

    gc.collect()
    gc.freeze()
    Host(0, answers).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
