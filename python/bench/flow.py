"""Workflows whose speed is measured: ``kobza run flow.py --workflow chain``, twice: the second is warm."""

import os
import time

from kobza import task, workflow


@task
def nop(x=None):
    return None


@task(mode="reuse")
def renop(x=None):
    return None


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@task
def light(x=None):
    return fib(10)


@task(mode="reuse")
def rlight(x=None):
    return fib(10)


@task
def heavy(i: int):
    return fib(33)


def note_first_line():
    """The time, into the file that BENCH_FIRST names, at once or not at all."""
    now = time.time()
    place = os.environ["BENCH_FIRST"]
    with open(f"{place}.new", "w") as file:
        file.write(str(now))
    os.rename(f"{place}.new", place)


@task
def first_line():
    note_first_line()


@task(mode="reuse")
def refirst_line():
    note_first_line()


@workflow
def first():
    first_line()


@workflow
def refirst():
    refirst_line()


@workflow
def chain():
    x = nop()
    for _ in range(49):
        x = nop(x)


@workflow
def rechain():
    x = renop()
    for _ in range(49):
        x = renop(x)


@workflow
def fan():
    nop.map(list(range(1000)))


@workflow
def refan():
    renop.map(list(range(1000)))


def around(body, width):
    """One, then so many side by side, then one."""
    middle = body.map(list(range(width)))
    middle.after(body())
    body().after(middle)


@workflow
def fan200():
    around(nop, 200)


@workflow
def fan1000():
    around(nop, 1000)


@workflow
def refan200():
    around(renop, 200)


@workflow
def refan1000():
    around(renop, 1000)


@workflow
def five():
    nop(nop(nop(nop(nop()))))


@workflow
def refive():
    renop(renop(renop(renop(renop()))))


@workflow
def forked_three():
    nop(nop(nop()))


@workflow
def relight40():
    x = rlight()
    for _ in range(39):
        x = rlight(x)


@workflow
def light40():
    x = light()
    for _ in range(39):
        x = light(x)


@workflow
def three():
    renop(renop(renop()))


@workflow
def heavy10():
    heavy.map(list(range(10)))
