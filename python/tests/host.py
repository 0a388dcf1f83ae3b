"""A small host for the warm worker: what the shim does, as a test needs it."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PACKAGES))

from kobza_worker.wire import Channel, Closed  # noqa: E402

WORKER = str(PACKAGES / "kobza_worker")
#: Only a guard against a test that hangs.
PATIENCE_S = 30.0


def become_subreaper() -> None:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


class Result:
    def __init__(self, status: int, out: bytes, err: bytes, done: dict[str, Any] | None) -> None:
        self.status = status
        self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        self.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        self.out = out
        self.err = err
        self.done = done

    @property
    def outputs(self) -> dict[str, Any]:
        assert self.done is not None, f"no outputs; log: {self.err.decode(errors='replace')}"
        return self.done["outputs"]

    @property
    def error(self) -> dict[str, Any]:
        return self.outputs["$error"]


class Worker:
    def __init__(self, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.channel = channel

    def send(self, task: dict[str, Any]) -> tuple[int, int]:
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self.channel.send({"op": "run", "task": task}, [out_write, err_write])
        os.close(out_write)
        os.close(err_write)
        return out_read, err_read

    def run(self, task: dict[str, Any], wait: bool = True) -> Result:
        out_fd, err_fd = self.send(task)
        out, err = drain([out_fd, err_fd])
        try:
            done, _ = self.channel.receive()
        except Closed:
            done = None
        status = 0
        if wait:
            _, status = os.waitpid(self.pid, 0)
            self.channel.close()
        return Result(status, out, err, done)


def drain(fds: list[int]) -> list[bytes]:
    """Reads descriptors to their ends."""
    data = {fd: b"" for fd in fds}
    open_fds = set(fds)
    deadline = time.monotonic() + PATIENCE_S
    while open_fds:
        ready, _, _ = select.select(list(open_fds), [], [], max(0, deadline - time.monotonic()))
        assert ready, f"no end of the log within {PATIENCE_S} s; so far: {data}"
        for fd in ready:
            piece = os.read(fd, 1 << 16)
            if piece:
                data[fd] += piece
            else:
                open_fds.discard(fd)
                os.close(fd)
    return [data[fd] for fd in fds]


class Host:
    def __init__(
        self,
        load: list[dict[str, str]],
        python: str = sys.executable,
        log: Any = subprocess.DEVNULL,
        **start: Any,
    ) -> None:
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [python, WORKER, "parent", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        theirs.close()
        self.channel = Channel(ours)
        self.channel.send({"op": "start", "load": load, **start})
        self.ready, _ = self.channel.receive()

    def workers(self, count: int = 1, tasks: int = 1) -> list[Worker]:
        pairs = [socket.socketpair() for _ in range(count)]
        self.channel.send({"op": "fork", "tasks": tasks}, [theirs.fileno() for _, theirs in pairs])
        for _, theirs in pairs:
            theirs.close()
        answer, _ = self.channel.receive()
        assert len(answer["pids"]) == count, answer
        return [Worker(pid, Channel(ours)) for pid, (ours, _) in zip(answer["pids"], pairs)]

    def run(self, function: str, args: Any = None, **task: Any) -> Result:
        return self.workers()[0].run({"function": function, "args": args, **task})

    def close(self) -> None:
        self.channel.close()
        self.process.wait(PATIENCE_S)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def spawn(task: dict[str, Any], python: str = sys.executable) -> Result:
    """Runs a task in a clean interpreter."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [python, WORKER, "worker", str(theirs.fileno()), "1"],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    worker = Worker(process.pid, Channel(ours))
    result = worker.run(task)
    process.returncode = 0
    return result
