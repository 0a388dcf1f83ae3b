"""The workloads as Prefect flows. Reads commands, a line each, and answers with seconds."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@task
def nop(*_):
    return None


@task
def light_task(*_):
    return fib(10)


@task
def heavy_task(_):
    return fib(33)


@flow
def chain(length):
    last = None
    for _ in range(length):
        last = nop(last)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def fan(width):
    first = nop.submit()
    middle = [nop.submit(first) for _ in range(width)]
    nop.submit(middle).wait()


@flow
def light():
    last = None
    for _ in range(40):
        last = light_task(last)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def heavy():
    for future in heavy_task.map(range(10)):
        future.wait()


@flow
def first():
    now = time.time()
    place = os.environ["BENCH_FIRST"]
    with open(f"{place}.new", "w") as file:
        file.write(str(now))
    os.rename(f"{place}.new", place)


def many(count, length):
    with ThreadPoolExecutor(8) as callers:
        list(callers.map(lambda _: chain(length), range(count)))


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        what, *arguments = line.split()
        began = time.perf_counter()
        globals()[what](*map(int, arguments))
        print(time.perf_counter() - began, flush=True)
