"""A running task asks the control plane, and waits for the answer.

The worker's own channel carries the question to the host, which keeps it until a server has
answered: a server may go and come back meanwhile. What a question means is the business of the
task's system; this module only carries it.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from .wire import BadFrame, Channel, Closed


class Refused(Exception):
    """There is no answer. The message says why."""


_channel: Channel | None = None
_pid = 0
_number = 0
_lock = threading.Lock()


def attach(channel: Channel | None) -> None:
    """Makes ``ask`` use this channel; None: there is nobody to ask any more."""
    global _channel, _pid
    _channel, _pid = channel, os.getpid()


def available() -> bool:
    """Whether a task runs here that can ask."""
    return _channel is not None


def ask(body: dict[str, Any]) -> Any:
    """The answer to ``body``. Raises ``Refused``. Several threads may ask, one after another."""
    global _number
    if _channel is not None and _pid != os.getpid():
        raise Refused(
            "only the task's own process can ask the server; ask before starting processes"
        )
    with _lock:
        channel = _channel
        if channel is None:
            raise Refused("there is no server to ask")
        _number += 1
        number = _number
        try:
            channel.send({"event": "ask", "number": number, "body": body})
            while True:
                message, fds = channel.receive()
                for fd in fds:
                    os.close(fd)
                # An answer to a question that was given up (by an exception of a signal's handler).
                if message.get("op") == "answer" and message.get("number") == number:
                    break
        except (Closed, BadFrame) as error:
            raise Refused("the server cannot be asked: the task's host has gone") from error
    if "refused" in message:
        raise Refused(str(message["refused"]))
    return message.get("value")
