"""The workloads as Dagster jobs. BENCH_MULTIPROCESS chooses the executor."""

import os
import time

from dagster import Definitions, In, Nothing, in_process_executor, job, multiprocess_executor, op

EXECUTOR = multiprocess_executor.configured({"max_concurrent": 8}) if os.environ.get("BENCH_MULTIPROCESS") \
    else in_process_executor


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@op(ins={"after": In(Nothing)})
def nop():
    pass


@op(ins={"after": In(Nothing)})
def light_op():
    fib(10)


@op
def heavy_op():
    fib(33)


@op
def first_op():
    now = time.time()
    place = os.environ["BENCH_FIRST"]
    with open(f"{place}.new", "w") as file:
        file.write(str(now))
    os.rename(f"{place}.new", place)


def chain(name, length, body=nop):
    @job(name=name, executor_def=EXECUTOR)
    def made():
        last = body.alias("t0")()
        for number in range(1, length):
            last = body.alias(f"t{number}")(after=last)

    return made


def fan(width):
    @job(name=f"fan{width}", executor_def=EXECUTOR)
    def made():
        first = nop.alias("first")()
        nop.alias("last")(after=[nop.alias(f"t{number}")(after=first) for number in range(width)])

    return made


@job(executor_def=EXECUTOR)
def heavy():
    for number in range(10):
        heavy_op.alias(f"t{number}")()


@job(executor_def=EXECUTOR)
def first():
    first_op()


defs = Definitions(jobs=[
    chain("chain50", 50), chain("chain5", 5), chain("three", 3), chain("light", 40, light_op),
    fan(200), fan(1000), heavy, first,
])
