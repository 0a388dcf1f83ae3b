"""Stands between the server and its database, and can lose the answer to a commit."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from pathlib import Path

#: The tag of a completed commit, as PostgreSQL's protocol has it.
COMMITTED = b"COMMIT\0"


class Proxy:
    def __init__(self, target: Path) -> None:
        self.target = target
        self._folder = tempfile.TemporaryDirectory(prefix="kobza-proxy-")
        self.folder = Path(self._folder.name)
        self._armed = threading.Event()
        #: Answers that were lost.
        self.lost = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / target.name))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_next_commit(self) -> None:
        self._armed.set()

    def disarm(self) -> None:
        self._armed.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self.target))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                if answers and COMMITTED in part and self._armed.is_set():
                    self._armed.clear()
                    self.lost += 1
                    break
                sink.sendall(part)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.folder / self.target.name)
        self._folder.cleanup()
