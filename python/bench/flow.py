"""Workflows whose speed is measured: ``kobza run flow.py --workflow chain``, twice: the second is warm."""

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
