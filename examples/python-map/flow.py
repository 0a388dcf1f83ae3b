"""A map over many items: ``kobza run flow.py -p count=1000``.

Each number gets a task of its own; one task sums the results up. The tasks are pure, so one process
may run many of them (``mode="reuse"``).
"""

from kobza import task, workflow


@task
def numbers(count: int) -> list[int]:
    return list(range(count))


@task(mode="reuse")
def square(n: int) -> int:
    return n * n


@task
def total(squares: list[int]) -> int:
    print(f"the sum of {len(squares)} squares is {sum(squares)}")
    return sum(squares)


@workflow
def squares(count: int = 1000):
    """Squares the numbers below `count`, each in a task of its own."""
    return total(square.map(numbers(count)))
