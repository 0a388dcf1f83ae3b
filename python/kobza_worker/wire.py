"""Frames: four bytes of length (big-endian), then JSON. File descriptors travel beside a frame.

A frame that brings descriptors says how many in its field ``fds``. They are sent with the frame's
first byte, so whoever has the whole frame has them too, and frames keep their order.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
from typing import Any

#: Longest frame accepted, in bytes. A task's arguments are small; large values are artifacts.
FRAME_BYTES_MAX = 64 << 20
#: Most descriptors with one frame; the kernel allows 253.
FDS_MAX = 64


class Closed(Exception):
    """The other side has gone."""


class BadFrame(Exception):
    """What came is not a frame: the two sides do not speak the same protocol."""


class Channel:
    """One end of a socket, blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()
        self._fds: list[int] = []

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd))

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Sends one frame. Raises ``Closed`` when nobody reads any more."""
        if fds:
            message = {**message, "fds": len(fds)}
        body = json.dumps(message, separators=(",", ":")).encode()
        data = memoryview(len(body).to_bytes(4, "big") + body)
        try:
            if fds:
                rights = array.array("i", fds)
                sent = self.sock.sendmsg(
                    [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights.tobytes())]
                )
                data = data[sent:]
            if data:
                self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """The next frame with its descriptors. Raises ``Closed`` at the end of the stream."""
        buffer = self._buffer
        self._fill(4)
        length = int.from_bytes(buffer[:4], "big")
        if length > FRAME_BYTES_MAX:
            raise BadFrame(f"a frame of {length} bytes; the limit is {FRAME_BYTES_MAX}")
        self._fill(4 + length)
        # Only a whole frame is taken: an exception of a signal's handler must not cut one in two.
        body = bytes(buffer[4 : 4 + length])
        del buffer[: 4 + length]
        try:
            message = json.loads(body)
        except ValueError as error:
            raise BadFrame(f"a frame that is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise BadFrame("a frame that is not a JSON object")
        count = message.get("fds", 0)
        if not isinstance(count, int) or not 0 <= count <= len(self._fds):
            raise BadFrame(
                f"a frame that should bring {count} descriptors brought {len(self._fds)}"
            )
        fds, self._fds = self._fds[:count], self._fds[count:]
        return message, fds

    def _fill(self, count: int) -> None:
        buffer = self._buffer
        while len(buffer) < count:
            try:
                data, ancillary, _flags, _ = self.sock.recvmsg(
                    1 << 16, socket.CMSG_SPACE(FDS_MAX * 4), socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionResetError as error:
                raise Closed from error
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    rights = array.array("i")
                    rights.frombytes(payload[: len(payload) - len(payload) % rights.itemsize])
                    self._fds.extend(rights)
            if not data:
                raise Closed
            buffer += data


def own_channel(fd: int) -> int:
    """Takes over the descriptor of a channel. A host may pass it as the standard input: then it
    moves away, and the standard input becomes empty."""
    if fd > 2:
        os.set_inheritable(fd, False)
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)
    return moved
