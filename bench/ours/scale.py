"""Rows of Kobza alone at sizes that matter: many schedules, followers, runs, lines."""

from __future__ import annotations

import http.client
import os
import selectors
import socket
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

from ours.core import NAME, bench_binary
from ours.server import Server
from process import pss_mib
from report import Report


def cron(report: Report, kobza: str, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kobza, folder)
        for number in range(100):
            lines = "\n".join(f"  - {{name: t{n}, cron: '* * * * *'}}" for n in range(100))
            server.put(f"name: w{number}\ntriggers:\n{lines}\ntasks: {{a: {{noop: true}}}}\n")
        # The first minute that begins after all are there.
        minute = (int(time.time()) // 60 + 1) * 60
        time.sleep(minute + 30 - time.time())
        late = lags(f"{folder}/data", minute)
        assert len(late) == 10_000, len(late)
        report.note("10,000 cron triggers due at once: the last start", NAME, "s", [max(late)])
        server.stop()


def follow(report: Report, kobza: str, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kobza, folder)
        server.put("name: one\ntasks: {a: {noop: true}}\n")
        report.note("1,000 followers: a run's start to the last one told", NAME, "ms", followers(server, 1000, 20))
        report.note("memory with 1,000 followers", NAME, "MiB", [pss_mib([server.process.pid])])
        server.stop()


def logs(report: Report, kobza: str, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kobza, folder)
        mib = 128 if quick else 512
        line = "0123456789" * 6
        server.put(f"name: loud\ntasks:\n  t: {{shell: 'yes {line} | head -c {mib}M', log_limit: 1GiB}}\n")
        rates = []
        for _ in range(3):
            state, took = server.run("loud")
            assert state == "succeeded", state
            rates.append(mib / took)
        report.note("log to disk", NAME, "MiB/s", rates)
        run = server.call("GET", "/api/v1/runs?workflow=loud&limit=1")[1]["items"][0]["id"]
        task = server.call("GET", f"/api/v1/runs/{run}/tasks")[1]["items"][0]["id"]
        rates = []
        for _ in range(3):
            rates.append(followed(server, task))
        report.note("log to a follower", NAME, "MiB/s", rates)
        server.stop()


def followed(server: Server, task: str) -> float:
    started, size = time.perf_counter(), 0
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    link.request("GET", f"/api/v1/tasks/{task}/attempts/1/log/stream")
    answer = link.getresponse()
    assert answer.status == 200, answer.status
    while size < 64 << 20 and (part := answer.read1(1 << 20)):
        size += len(part)
    link.close()
    return size / 2**20 / (time.perf_counter() - started)


def lags(data: str, minute: int) -> list[float]:
    """Seconds from a slot to each of its runs' start, by the store's own times."""
    store = sqlite3.connect(f"file:{data}/kobza.db?mode=ro", uri=True)
    rows = store.execute("select created_at from run where created_at between ? and ?",
                         (minute * 1_000_000, (minute + 59) * 1_000_000))
    return [at / 1e6 - minute for (at,) in rows]


def followers(server: Server, count: int, rounds: int) -> list[float]:
    """Milliseconds from the call that starts a run until every follower was told something."""
    links = []
    for _ in range(count):
        link = socket.create_connection(("127.0.0.1", server.port))
        link.sendall(b"GET /api/v1/events/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        links.append(link)
    watch = selectors.DefaultSelector()
    for link in links:
        link.recv(65536)
        link.setblocking(False)
        watch.register(link, selectors.EVENT_READ)
    times = []
    for _ in range(rounds):
        for key, _ in watch.select(0):
            while drained(key.fileobj):
                pass
        waiting = set(links)
        started = time.perf_counter()
        server.call("POST", "/api/v1/workflows/one/runs", "{}")
        while waiting:
            for key, _ in watch.select(60):
                if drained(key.fileobj):
                    waiting.discard(key.fileobj)
        times.append((time.perf_counter() - started) * 1000)
        time.sleep(0.2)
    for link in links:
        link.close()
    return times


def drained(link: socket.socket) -> bool:
    try:
        return bool(link.recv(65536))
    except BlockingIOError:
        return False


def million(report: Report, kobza: str, quick: bool) -> None:
    """Lists and details over a million finished runs, made by the core's own bench."""
    with tempfile.TemporaryDirectory() as folder:
        filled(report, kobza, folder)


def filled(report: Report, kobza: str, folder: str) -> None:
    environment = {**os.environ, "KOBZA_BENCH_DATA": f"{folder}/data"}
    output = subprocess.run([bench_binary(kobza), "fill"], check=True, env=environment, stdout=subprocess.PIPE, text=True)
    report.lines("Kobza core", output.stdout)
    server = Server(kobza, folder)
    first = server.call("GET", "/api/v1/runs?limit=50")[1]
    run = first["items"][0]["id"]
    task = server.call("GET", f"/api/v1/runs/{run}/tasks")[1]["items"][0]["id"]
    workflow = first["items"][0]["workflow"]
    for path in ("/runs?limit=50", f"/runs?limit=50&cursor={first['next']}", "/runs?limit=50&state=failed",
                 "/runs?limit=50&state=succeeded", f"/runs?limit=50&workflow={workflow}", f"/runs/{run}", f"/runs/{run}/tasks",
                 f"/runs/{run}/graph", f"/runs/{run}/timeline", f"/tasks/{task}", f"/tasks/{task}/why",
                 "/workflows", f"/workflows/{workflow}", f"/workflows/{workflow}/grid", "/summary", "/events?limit=50",
                 "/assets", "/triggers", "/backfills"):
        times = []
        for _ in range(20):
            started = time.perf_counter()
            status, answer = server.call("GET", f"/api/v1{path}")
            times.append((time.perf_counter() - started) * 1000)
            assert status == 200, (path, answer)
        shown = path.replace(run, "ID").replace(task, "ID").split("&cursor")[0]
        report.note(f"1,000,000 runs: {shown}" + (" (next)" if "cursor" in path else ""), NAME, "ms", times)
    server.stop()


def postgres(report: Report, kobza: str, quick: bool) -> None:
    """Whole lives of tasks on a throwaway PostgreSQL, by the core's own bench."""
    cluster = Path(__file__).resolve().parents[2] / ".ci" / "postgres"
    started = subprocess.run([cluster], stdout=subprocess.PIPE, text=True, check=True)
    url = started.stdout.strip()
    folder = url.split("@")[1].removesuffix("/postgres").replace("%2F", "/")
    environment = {**os.environ, "KOBZA_BENCH_POSTGRES": url}
    try:
        output = subprocess.run([bench_binary(kobza), "postgres"], check=True, env=environment,
                                stdout=subprocess.PIPE, text=True).stdout
        report.lines(NAME, output)
    finally:
        subprocess.run([cluster, "stop", folder], check=False)
