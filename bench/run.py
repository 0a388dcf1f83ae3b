"""Measures the whole binary from outside, and prints a table.

    python3 bench/run.py target/release/kobza [ROW...]

Rows: processes, latency, idle, startup, size, cron, followers, logs, python, million, luigi. Each row that
has a physical floor measures it in the same run; `luigi` also drives luigid, if LUIGID names its
program. Results also go to target/bench.json. Standard library only; nothing is asserted.
"""

from __future__ import annotations

import http.client
import json
import os
import selectors
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import warm

KOBZA = os.path.abspath(sys.argv[1])
WANTED = set(sys.argv[2:])
ROWS: list[dict] = []


def wanted(row: str) -> bool:
    return not WANTED or row in WANTED


def note(workload: str, system: str, unit: str, values: list[float]) -> None:
    values = sorted(values)
    row = {
        "workload": workload, "system": system, "unit": unit, "n": len(values),
        "min": values[0], "median": statistics.median(values), "max": values[-1],
        "p99": values[(len(values) - 1) * 99 // 100],
    }
    ROWS.append(row)
    print(f"{workload:<44} {system:<10} {row['median']:>12.2f} {unit:<10}"
          f" (min {row['min']:.2f}, p99 {row['p99']:.2f}, max {row['max']:.2f}, n {row['n']})", flush=True)


class Server:
    def __init__(self, folder: str, *args: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [KOBZA, "server", "--listen", f"127.0.0.1:{self.port}", "--data", f"{folder}/data", *args],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                if self.call("GET", "/ready")[0] == 200:
                    break
            except OSError:
                pass
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

    def run(self, workflow: str) -> tuple[str, float]:
        """Starts a run and follows it; seconds from the call to its end by the server's own times."""
        _, run = self.call("POST", f"/api/v1/workflows/{workflow}/runs", "{}")
        while True:
            _, run = self.call("GET", f"/api/v1/runs/{run['id']}")
            if run["state"] in ("succeeded", "failed", "cancelled"):
                return run["state"], seconds(run["created_at"], run["ended_at"])
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def seconds(start: str, end: str) -> float:
    from datetime import datetime
    parse = lambda t: datetime.fromisoformat(t.replace("Z", "+00:00"))
    return (parse(end) - parse(start)).total_seconds()


def pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def floor_processes(count: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        goals = " ".join(f"t{i}" for i in range(count))
        Path(folder, "Makefile").write_text(f"all: {goals}\n{goals}:\n\t@/bin/true\n")
        started = time.perf_counter()
        subprocess.run(["make", "-s", "-j8", "-C", folder], check=True)
        return count / (time.perf_counter() - started)


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


def million(folder: str) -> None:
    """Lists and details over a million finished runs, made by the core's own bench."""
    core = Path(KOBZA).with_name("kobza-bench")
    subprocess.run([core, "fill"], check=True, env={**os.environ, "KOBZA_BENCH_DATA": f"{folder}/data"})
    server = Server(folder)
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
        note(f"1,000,000 runs: {shown}" + (" (next)" if "cursor" in path else ""), "kobza", "ms", times)
    server.stop()


def load_luigi(system: str, address: str, scenario: str, *numbers: int) -> None:
    load = Path(KOBZA).with_name("kobza-bench")
    command = [load, "luigi", address, scenario, *map(str, numbers)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in output.splitlines():
        figure = json.loads(line)
        note(figure["workload"], system, figure["unit"], figure["values"])


def luigi() -> None:
    settings = "[scheduler]\nstate_path = {}/state.pickle\n[resources]\ndb = 40\ngpu = 2\n"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "luigi.cfg")
        config.write_text(settings.format(folder))
        server = Server(folder, "--luigi-config", str(config))
        address = f"127.0.0.1:{server.port}/luigi"
        load_luigi("kobza", address, "calls", 5, 64)
        for start, end in ((0, 1000), (1000, 10_000), (10_000, 50_000)):
            load_luigi("kobza", address, "pending", start, end, 500)
        load_luigi("kobza", address, "list", 10)
        server.stop()
        luigid = os.environ.get("LUIGID")
        if not luigid:
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [luigid, "--address", "127.0.0.1", "--port", str(port), "--logdir", folder],
            env=dict(os.environ, LUIGI_CONFIG_PATH=str(config)),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        address = f"127.0.0.1:{port}"
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        load_luigi("luigid", address, "calls", 5, 16)
        for start, end in ((0, 1000), (1000, 10_000), (10_000, 50_000)):
            load_luigi("luigid", address, "pending", start, end, 20)
        load_luigi("luigid", address, "list", 2)
        process.kill()
        process.wait()


def main() -> None:
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {KOBZA}")
    if wanted("size"):
        note("size of the binary", "kobza", "MiB", [os.path.getsize(KOBZA) / 2**20])
    if wanted("startup"):
        times = []
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                server = Server(folder)
                times.append(server.ready * 1000)
                server.stop()
        note("start to ready", "kobza", "ms", times)
    if wanted("idle"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            time.sleep(5)
            note("idle memory (proportional)", "kobza", "MiB", [pss_mib(server.process.pid)])
            server.stop()
    if wanted("processes"):
        count = 4000
        note(f"{count} x true", "make -j8", "tasks/s", [floor_processes(count) for _ in range(3)])
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            server.call("POST", "/api/v1/workflows",
                        f"name: trues\ntasks:\n  t: {{shell: 'true', map: {{range: {count}}}}}\n", "application/yaml")
            rates = []
            for _ in range(3):
                state, took = server.run("trues")
                assert state == "succeeded", state
                rates.append(count / took)
            note(f"{count} x true", "kobza", "tasks/s", rates)
            server.stop()
    if wanted("latency"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            server.call("POST", "/api/v1/workflows",
                        "name: three\ntasks:\n  a: {noop: true}\n  b: {noop: true, needs: a}\n  c: {noop: true, needs: b}\n",
                        "application/yaml")
            link = http.client.HTTPConnection("127.0.0.1", server.port)
            times = []
            for _ in range(300):
                started = time.perf_counter()
                link.request("POST", "/api/v1/workflows/three/runs", "{}", {"Content-Type": "application/json"})
                link.getresponse().read()
                times.append((time.perf_counter() - started) * 1000)
            note("three-step no-op run, HTTP call to answer", "kobza", "ms", times)
            server.stop()
    if wanted("starts"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            server.call("POST", "/api/v1/workflows",
                        "name: three\ntasks:\n  a: {noop: true}\n  b: {noop: true, needs: a}\n  c: {noop: true, needs: b}\n",
                        "application/yaml")
            load = [Path(KOBZA).with_name("kobza-bench"), "starts", f"127.0.0.1:{server.port}", "three", "5000", "64"]
            rates = []
            for _ in range(3):
                output = subprocess.run(load, check=True, stdout=subprocess.PIPE, text=True).stdout
                rates += json.loads(output)["values"]
            note("three-step no-op runs over HTTP, 64 clients", "kobza", "runs/s", rates)
            server.stop()
    if wanted("cron"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            for number in range(100):
                lines = "\n".join(f"  - {{name: t{n}, cron: '* * * * *'}}" for n in range(100))
                status, answer = server.call(
                    "POST", "/api/v1/workflows", f"name: w{number}\ntriggers:\n{lines}\ntasks: {{a: {{noop: true}}}}\n",
                    "application/yaml")
                assert status == 201, answer
            # The first minute that begins after all are there.
            minute = (int(time.time()) // 60 + 1) * 60
            time.sleep(minute + 30 - time.time())
            late = lags(f"{folder}/data", minute)
            assert len(late) == 10_000, len(late)
            note("10,000 cron triggers due at once: the last start", "kobza", "s", [max(late)])
            server.stop()
    if wanted("followers"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            server.call("POST", "/api/v1/workflows", "name: one\ntasks: {a: {noop: true}}\n", "application/yaml")
            note("1,000 followers: a run's start to the last one told", "kobza", "ms",
                 followers(server, 1000, 20))
            note("memory with 1,000 followers (proportional)", "kobza", "MiB", [pss_mib(server.process.pid)])
            server.stop()
    if wanted("logs"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(folder)
            mib = 512
            server.call("POST", "/api/v1/workflows",
                        f"name: loud\ntasks:\n  t: {{shell: 'yes 0123456789012345678901234567890123456789012345678901234567890 | head -c {mib}M', log_limit: 1GiB}}\n",
                        "application/yaml")
            rates = []
            for _ in range(3):
                state, took = server.run("loud")
                assert state == "succeeded", state
                rates.append(mib / took)
            note("log to disk", "kobza", "MiB/s", rates)
            run = server.call("GET", "/api/v1/runs?workflow=loud&limit=1")[1]["items"][0]["id"]
            task = server.call("GET", f"/api/v1/runs/{run}/tasks")[1]["items"][0]["id"]
            started, size = time.perf_counter(), 0
            link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            link.request("GET", f"/api/v1/tasks/{task}/attempts/1/log/stream")
            answer = link.getresponse()
            assert answer.status == 200, answer.status
            while size < 128 << 20 and (part := answer.read1(1 << 20)):
                size += len(part)
            note("log to a follower", "kobza", "MiB/s", [size / 2**20 / (time.perf_counter() - started)])
            link.close()
            server.stop()
    if wanted("python"):
        warm.rows(Server, note)
    if wanted("million"):
        with tempfile.TemporaryDirectory() as folder:
            million(folder)
    if wanted("luigi"):
        luigi()
    Path("target").mkdir(exist_ok=True)
    Path("target/bench.json").write_text(json.dumps(ROWS, indent=1) + "\n")


if __name__ == "__main__":
    main()
