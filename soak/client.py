"""Calls that survive the server's death: each write is repeated under its idempotency key until it is
answered for good. Some are abandoned on purpose after they were sent.
"""

from __future__ import annotations

import http.client
import json
import random
import time

#: Longest wait for an answer, over all deaths of the server.
PATIENCE_S = 120


class Unanswered(Exception):
    pass


class Client:
    def __init__(self, port: int, rng: random.Random, name: str) -> None:
        self.port, self.rng, self.name = port, rng, name
        self.writes = 0
        #: How often a write was sent and its answer not read.
        self.abandoned = 0
        #: How often the last call was sent.
        self.sent = 0

    def once(self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None,
             abandon: bool = False) -> tuple[int, object]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            link.request(method, path, body, headers or {})
            if abandon:
                self.abandoned += 1
                time.sleep(self.rng.random() * 0.02)
                raise ConnectionError("abandoned")
            answer = link.getresponse()
            text = answer.read()
        finally:
            link.close()
        try:
            return answer.status, json.loads(text) if text else None
        except ValueError:
            return answer.status, text.decode(errors="replace")

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json",
             calm: bool = False) -> tuple[int, object]:
        """Until an answer is for good. 409 under our own key means that it is being worked on."""
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        headers = {"Content-Type": kind} if text is not None else {}
        if method != "GET":
            self.writes += 1
            headers["Idempotency-Key"] = f"{self.name}-{self.writes}"
        end = time.monotonic() + PATIENCE_S
        last: object = None
        self.sent = 0
        while time.monotonic() < end:
            abandon = method != "GET" and not calm and self.rng.random() < 0.05
            self.sent += 1
            try:
                status, answer = self.once(method, path, text, headers, abandon)
            except (OSError, http.client.HTTPException) as error:
                last = error
            else:
                busy = status == 409 and "being worked on" in json.dumps(answer)
                if status < 500 and not busy:
                    return status, answer
                last = (status, answer)
            time.sleep(0.05)
        raise Unanswered(f"{method} {path} was not answered for {PATIENCE_S} s: {last}")

    def get(self, path: str) -> object:
        status, answer = self.call("GET", path)
        if status != 200:
            raise Unanswered(f"GET {path}: {status} {answer}")
        return answer

    def all(self, path: str) -> list[dict]:
        """Every item of a list."""
        items: list[dict] = []
        cursor = None
        while True:
            more = f"{'&' if '?' in path else '?'}cursor={cursor}" if cursor else ""
            page = self.get(path + more)
            assert isinstance(page, dict)
            items += page["items"]
            cursor = page["next"]
            if not cursor:
                return items
