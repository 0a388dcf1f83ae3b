"""Times the warm worker alone, without the engine: ``python bench/worker.py``.

Prints one line per row. The driver is Python too, so the figures are upper bounds of the cost.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from host import Host, become_subreaper  # noqa: E402

SAMPLE = str(Path(__file__).resolve().parent.parent / "tests" / "sample.py")


def row(name: str, value: float, unit: str) -> None:
    print(f"{name:<58} {value:10.2f} {unit}", flush=True)


def task(function: str = "nop", **more):
    return {"function": function, "file": SAMPLE, **more}


def chain(host: Host, count: int, standby: int) -> float:
    """One task after another; ``standby`` workers are forked ahead."""
    ready = host.workers(standby) if standby else []
    began = time.perf_counter()
    for _ in range(count):
        if standby:
            worker = ready.pop(0)
            ready += host.workers(1)
        else:
            worker = host.workers(1)[0]
        assert worker.run(task()).code == 0
    seconds = time.perf_counter() - began
    for worker in ready:
        worker.channel.close()
        os.waitpid(worker.pid, 0)
    return seconds / count * 1e3


def fan_out(host: Host, count: int, width: int) -> float:
    began = time.perf_counter()
    started = 0
    running: dict[int, object] = {}
    null = os.open(os.devnull, os.O_WRONLY)
    while started < count or running:
        while started < count and len(running) < width:
            for worker in host.workers(min(width // 2 or 1, count - started)):
                worker.channel.send({"op": "run", "task": task()}, [null, null])
                running[worker.pid] = worker
                started += 1
        pid, status = os.waitpid(-1, 0)
        assert status == 0
        worker = running.pop(pid)
        worker.channel.receive()
        worker.channel.close()
    os.close(null)
    return count / (time.perf_counter() - began)


def reuse(host: Host, count: int, width: int) -> float:
    workers = host.workers(width, tasks=count)
    null = os.open(os.devnull, os.O_WRONLY)
    by_fd = {worker.channel.fileno(): worker for worker in workers}
    began = time.perf_counter()
    sent = done = 0
    poll = select.poll()
    for worker in workers:
        poll.register(worker.channel.fileno(), select.POLLIN)
        worker.channel.send({"op": "run", "task": task()}, [null, null])
        sent += 1
    while done < count:
        for fd, _ in poll.poll():
            worker = by_fd[fd]
            worker.channel.receive()
            done += 1
            if sent < count:
                worker.channel.send({"op": "run", "task": task()}, [null, null])
                sent += 1
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.channel.close()
        os.waitpid(worker.pid, 0)
    os.close(null)
    return count / seconds


def fork_cost(host: Host, count: int) -> float:
    host.workers(1)[0].run(task())
    began = time.perf_counter()
    workers = host.workers(count)
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.channel.close()
        os.waitpid(worker.pid, 0)
    return seconds / count * 1e3


def main() -> None:
    become_subreaper()
    adapters = {"nothing": None, "the SDK": "kobza.runner"}
    for name, adapter in adapters.items():
        try:
            host = Host([{"file": SAMPLE}], adapter=adapter)
        except Exception as error:
            print(f"{name}: {error}")
            continue
        with host:
            if host.ready["event"] != "ready":
                print(name, host.ready["error"]["message"])
                continue
            row(f"import {name}", host.ready["import_ms"], "ms")
            row("  parent's memory", host.ready["rss"] / 2**20, "MiB")
            row("  fork alone", fork_cost(host, 50), "ms")
            row("  chain of 50, forked on demand", chain(host, 50, 0), "ms/task")
            row("  chain of 50, one worker in stand-by", chain(host, 50, 1), "ms/task")
            row("  fan-out of 1000 by fork, 8 at once", fan_out(host, 1000, 8), "tasks/s")
            row("  reuse, 1 worker", reuse(host, 3000, 1), "tasks/s")
            row("  reuse, 2 workers", reuse(host, 5000, 2), "tasks/s")
    heavy = Path("/tmp") / f"heavy_{os.getpid()}.py"
    heavy.write_text("ballast = [bytes(1000) for _ in range(100 * 1024)]\n")
    try:
        with Host([{"file": str(heavy)}, {"file": SAMPLE}]) as host:
            row("a parent of", host.ready["rss"] / 2**20, "MiB")
            row("  fork alone", fork_cost(host, 50), "ms")
            row("  chain of 50, forked on demand", chain(host, 50, 0), "ms/task")
            row("  chain of 50, one worker in stand-by", chain(host, 50, 1), "ms/task")
    finally:
        heavy.unlink()
    began = time.perf_counter()
    for _ in range(20):
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    row("python -c pass, for comparison", (time.perf_counter() - began) / 20 * 1e3, "ms/task")
    import multiprocessing

    context = multiprocessing.get_context("fork")
    began = time.perf_counter()
    for _ in range(50):
        process = context.Process(target=int)
        process.start()
        process.join()
    row(
        "multiprocessing.Process by fork, for comparison",
        (time.perf_counter() - began) * 20,
        "ms/task",
    )


if __name__ == "__main__":
    main()
