"""The soak's workflow of Python functions."""

import fcntl
import os

import kobza
from kobza import task, workflow


def alone():
    """Holds the task's lock as long as this process lives."""
    place = os.environ["SOAK"]
    own = kobza.context()
    name = f"{own.run_id}.{own.task}.{own.map_index}"
    file = open(f"{place}/locks/{name}", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        with open(f"{place}/violations", "a") as told:
            told.write(f"two bodies of {name} at once\n")
    return file


@task(retries=1000, retry_delay="200ms")
def numbers() -> list:
    held = alone()
    # No sleep: a clock that is stepped under an interpreter by libfaketime makes it fail.
    sum(range(1_000_000))
    held.close()
    return [1, 2, 3]


@task(retries=1000, retry_delay="200ms")
def double(n: int) -> int:
    held = alone()
    for line in range(20):
        print("line", line)
    held.close()
    return 2 * n


@task(retries=1000, retry_delay="200ms")
def total(doubled: list) -> int:
    return sum(doubled)


@workflow
def functions():
    return total(double.map(numbers()))
