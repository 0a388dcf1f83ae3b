import kobza
from kobza import task, workflow


@task
def part(n: int, name: str = "") -> int:
    kobza.notes.metric("size", n)
    return n * 10


@task
def bad() -> None:
    raise ValueError("this one fails")


@task
def plan(count: int, fail: bool) -> int:
    names = [kobza.add_task(part, n, name=f"part-{n}") for n in range(count)]
    kobza.add_task(part, 99, name="together", after=names)
    if fail:
        kobza.add_task(bad, name="bad")
        kobza.add_task(part, 1, name="behind", after=["bad"])
    kobza.emit("planned", {"count": count})
    return count


@task
def after(count: int) -> int:
    return count + 1


@workflow
def grows(count: int = 3, fail: bool = False):
    return after(plan(count, fail))
