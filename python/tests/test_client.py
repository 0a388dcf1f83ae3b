"""The API client against a small server."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from kobza import ApiError, AsyncClient, Client
from kobza.client import parse_frames


def event(number):
    return {"seq": number, "kind": "task", "at": "2024-01-01T00:00:00Z", "text": f"t{number}"}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.command, self.path, dict(self.headers), None))
        self.answer()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.command, self.path, dict(self.headers), json.loads(body)))
        self.answer()

    def answer(self):
        path, _, query = self.path.partition("?")
        status, body = 200, {}
        if path == "/api/v1/workflows/my%20flow/runs":
            status, body = 201, {"id": "r1", "state": "queued"}
        elif path == "/api/v1/runs/r1":
            self.server.polls += 1
            body = {
                "id": "r1",
                "state": "succeeded" if self.server.polls > 2 else "running",
                "created_at": "2024-01-01T00:00:00Z",
            }
        elif path == "/api/v1/runs/r1/tasks":
            first = "cursor" not in query
            body = {
                "items": [{"id": "r1.1" if first else "r1.2", "name": "a", "state": "running"}],
                "next": "c2" if first else None,
            }
        elif path == "/api/v1/events":
            after = int(parse_qs(query)["after"][0])
            # What a page holds; later ones are told by the stream.
            body = {"items": [event(after + 1)] if after == 5 else [], "next": None}
        elif path == "/api/v1/events/stream":
            after = int(parse_qs(query).get("after", ["0"])[0])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'event: hello\ndata: {"seq": 0}\n\n: alive\n\n')
            # The first is repeated: a stream that resumed too early must not count twice.
            told = json.dumps([event(after), event(after + 1), event(after + 2)])
            self.wfile.write(b"id: %d\nevent: events\ndata: %s\n\n" % (after + 2, told.encode()))
            return
        elif path == "/api/v1/runs/moved":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            return
        else:
            status, body = 404, {"error": {"message": "no such run", "hint": "look again"}}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.polls = [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


def test_start_and_wait(server):
    client = Client(server.url, "secret-token", namespace="team")
    run = client.start("my flow", {"n": 1})
    assert (run.id, run.state, run.finished) == ("r1", "queued", False)
    method, path, headers, body = server.requests[0]
    assert body == {"params": {"n": 1}} and path.endswith("?namespace=team")
    assert headers["Authorization"] == "Bearer secret-token" and "idempotency-key" in {
        name.lower() for name in headers
    }
    assert client.wait("r1").state == "succeeded"
    assert [task.id for task in client.tasks("r1")] == ["r1.1", "r1.2"]
    assert "secret-token" not in repr(client)


def test_errors(server):
    client = Client(server.url)
    with pytest.raises(ApiError, match=r"404: no such run \(hint: look again\)") as caught:
        client.run("other")
    assert caught.value.status == 404
    with pytest.raises(ApiError, match="302"):
        client.run("moved")
    with pytest.raises(ApiError, match="cannot be reached"):
        Client("http://127.0.0.1:1").run("r1")
    with pytest.raises(ValueError):
        Client("file:///etc/passwd")
    with pytest.raises(TimeoutError):
        client.wait("r1", timeout_s=0)


def test_events_go_on_over_lost_connections(server):
    events = Client(server.url).events(after=5)
    got = [next(events) for _ in range(5)]
    assert [event.sequence for event in got] == [6, 7, 8, 9, 10]
    assert (got[0].kind, got[0].text, got[0].at.year) == ("task", "t6", 2024)
    with pytest.raises(ValueError, match="not a kind"):
        next(Client(server.url).events(kinds=["tusk"]))


def test_async(server):
    async def go():
        client = AsyncClient(server.url)
        run = await client.start("my flow")
        assert (await client.wait(run.id)).finished
        assert [task.id async for task in client.tasks(run.id)] == ["r1.1", "r1.2"]
        got = []
        async for event in client.events(after=1):
            got.append(event.sequence)
            if len(got) == 3:
                break
        assert got == [2, 3, 4]
        with pytest.raises(ApiError):
            await client.run("other")

    asyncio.run(go())


def test_frames():
    lines = ["id: 3\r\n", "event: a\n", "data: [1,\n", "data: 2]\n", "\n", ": ping\n", "data: 4\n"]
    lines += ["\n", "data: cut off\n"]
    assert list(parse_frames(iter(lines))) == [("a", [1, 2]), ("message", 4)]
