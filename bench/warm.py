"""Rows of Python tasks, with what the same costs without Kobza beside them. Called by run.py."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BENCH = Path(sys.argv[1]).resolve().with_name("kobza-bench")
REPEATS = 5

FIRST_LINE = """
import time

def first_line():
    return time.time()
"""


def nothing(_=None) -> None:
    return None


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def kobza(server: Any, note: Any, folder: str) -> None:
    sys.path.insert(0, str(ROOT / "python"))
    sys.path.insert(0, str(ROOT / "python/bench"))
    import flow

    from kobza import Client

    client = Client(f"http://127.0.0.1:{server.port}")
    for name in ("chain", "rechain", "fan", "refan", "light40", "three", "heavy10"):
        client.put_workflow(getattr(flow, name))

    def runs(name: str) -> list[float]:
        took = []
        for _ in range(REPEATS + 1):
            state, seconds = server.run(name)
            assert state == "succeeded", (name, state)
            took.append(seconds)
        return took[1:]  # The first imports.

    def each(name: str, count: int) -> list[float]:
        return [seconds * 1e3 / count for seconds in runs(name)]

    def rate(name: str, count: int) -> list[float]:
        return [count / seconds for seconds in runs(name)]

    note("chain of 50 no-op Python tasks, forked", "kobza", "ms/task", each("chain", 50))
    note("the same, reused process", "kobza", "ms/task", each("rechain", 50))
    note("1,000 mapped no-ops, forked", "kobza", "tasks/s", rate("fan", 1000))
    note("the same, reused processes", "kobza", "tasks/s", rate("refan", 1000))
    note("40 light tasks in a row (fibonacci 10)", "kobza", "s", runs("light40"))
    note("three steps, reused process", "kobza", "ms", each("three", 1))
    note("10 heavy tasks (fibonacci 33)", "kobza", "s", runs("heavy10"))

    # By the server's own times: a client in Python would be what is measured.
    many = 2000
    seen = {run.id for run in client.runs(workflow="three")}
    load = [BENCH, "starts", f"127.0.0.1:{server.port}", "three", str(many), "64"]
    subprocess.run(load, check=True, stdout=subprocess.DEVNULL)
    while any(client.runs(workflow="three", state="running")):
        time.sleep(0.05)
    made = [run for run in client.runs(workflow="three") if run.id not in seen]
    assert len(made) == many and all(run.state == "succeeded" for run in made)
    took = max(run.ended_at for run in made) - min(run.created_at for run in made)
    note("three steps, reused: runs at once", "kobza", "runs/s", [many / took.total_seconds()])

    Path(folder, "first.py").write_text(FIRST_LINE)
    client.put_workflow(
        f"name: first\ntasks: {{t: {{python: {{function: first_line, file: {folder}/first.py}}}}}}\n"
    )
    late = []
    for _ in range(60):
        called = time.time()
        run = client.start("first")
        client.wait(run.id)
        late.append((client.result(run.id, "t") - called) * 1e3)
    note("API call to the function's first line", "kobza", "ms", late[10:])


def plain(note: Any) -> None:
    python = [sys.executable, "-c", "pass"]
    starts = [timed(lambda: subprocess.run(python, check=True)) * 1e3 for _ in range(20)]
    note("a task in a row", "python -c", "ms/task", starts)

    def forked(target: Callable[..., Any], *args: Any) -> None:
        process = context.Process(target=target, args=args)
        process.start()
        process.join()

    context = multiprocessing.get_context("fork")
    chain = lambda: [forked(nothing) for _ in range(50)]  # noqa: E731
    note("chain of 50 no-ops, forked", "multiproc.", "ms/task", [timed(chain) * 20 for _ in range(REPEATS)])

    def fan() -> None:
        left, running = 1000, []
        while left or running:
            while left and len(running) < 8:
                process = context.Process(target=nothing)
                process.start()
                running.append(process)
                left -= 1
            running.pop(0).join()

    note("1,000 no-ops, forked, 8 at once", "multiproc.", "tasks/s", [1000 / timed(fan) for _ in range(REPEATS)])
    with context.Pool(2) as pool:
        mapped = lambda: pool.map(nothing, range(1000), chunksize=1)  # noqa: E731
        mapped()
        note("1,000 no-ops, pool of 2", "multiproc.", "tasks/s", [1000 / timed(mapped) for _ in range(REPEATS)])
        heavy = lambda: pool.map(fib, [33] * 10, chunksize=1)  # noqa: E731
        note("10 heavy tasks (fibonacci 33), pool of 2", "multiproc.", "s", [timed(heavy) for _ in range(REPEATS)])


def rows(start_server: Callable[[str], Any], note: Any) -> None:
    plain(note)
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(folder)
        try:
            kobza(server, note, folder)
        finally:
            server.stop()
