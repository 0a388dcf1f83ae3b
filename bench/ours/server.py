"""Kobza's server, as the bench starts it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from process import free_port
from systems import instant


class Server:
    def __init__(self, kobza: str, folder: str | Path, *args: str, environment: dict[str, str] | None = None) -> None:
        self.port = free_port()
        started = time.perf_counter()
        with open(f"{folder}/server.log", "ab") as log:
            self.process = subprocess.Popen(
                [kobza, "server", "--listen", f"127.0.0.1:{self.port}", "--data", f"{folder}/data", *args],
                stdout=log, stderr=log, env={**os.environ, **(environment or {})})
        while True:
            try:
                if self.call("GET", "/ready")[0] == 200:
                    break
            except OSError:
                pass
            if self.process.poll() is not None:
                raise RuntimeError(f"the server has ended: {Path(folder, 'server.log').read_text()[-2000:]}")
            time.sleep(0.002)
        self.ready = time.perf_counter() - started

    def call(self, method: str, path: str, body: str | None = None, kind: str = "application/json"):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        link.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = link.getresponse()
        text = answer.read()
        link.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def put(self, yaml: str) -> None:
        status, answer = self.call("POST", "/api/v1/workflows", yaml, "application/yaml")
        assert status == 201, answer

    def run(self, workflow: str) -> tuple[str, float]:
        """Starts a run and follows it; seconds from the call to its end by the server's own times."""
        _, run = self.call("POST", f"/api/v1/workflows/{workflow}/runs", "{}")
        while True:
            _, run = self.call("GET", f"/api/v1/runs/{run['id']}")
            if run["state"] in ("succeeded", "failed", "cancelled"):
                return run["state"], instant(run["ended_at"]) - instant(run["created_at"])
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
