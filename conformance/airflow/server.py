"""A server of Kobza's with a folder of DAGs. ``KOBZA_BIN`` is the binary."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Kobza:
    def __init__(self, folder: Path, dags: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = open(folder / "server.log", "w")
        environment = dict(os.environ, AIRFLOW_HOME=str(folder / "home"))
        self.process = subprocess.Popen(
            [
                os.environ["KOBZA_BIN"],
                "server",
                "--listen",
                f"127.0.0.1:{self.port}",
                "--data",
                str(folder / "data"),
                "--airflow-dags",
                str(dags),
                "--airflow-python",
                sys.executable,
            ],
            stderr=self.log,
            env=environment,
        )

    def call(self, path: str, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def until(self, words: str, look, seconds: float = 120.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if (found := look()) is not None:
                    return found
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.2)
        raise AssertionError(f"not {words} within {seconds} s")

    def pages(self, path: str):
        cursor = ""
        while True:
            page = self.call(f"{path}{'&' if '?' in path else '?'}limit=200{cursor}")
            yield from page["items"]
            if not page.get("next"):
                return
            cursor = f"&cursor={page['next']}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
