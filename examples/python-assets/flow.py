"""Assets in daily partitions: ``kobza run flow.py --partition 2013-01-05``.

Three assets, each made from the one before; a check stands between the second and the third, so
that a bad day is never published.
"""

import random
from datetime import date

import kobza
from kobza import CheckResult, asset, assets, daily

DAYS = daily("2013-01-01", timezone="America/New_York")


@asset(name="shop/visits", partitions=DAYS)
def visits(partition: str) -> list[dict]:
    """Visits of a day, drawn so that the same day always gives the same ones."""
    draw = random.Random(date.fromisoformat(partition).toordinal())
    return [{"customer": draw.randrange(20), "cents": draw.randrange(100, 5000)} for _ in range(100)]


@asset(name="shop/customers", partitions=DAYS, retries=2)
def customers(visits: list[dict]) -> dict[str, int]:
    """What each customer has spent on that day, in cents."""
    spent: dict[str, int] = {}
    for visit in visits:
        key = str(visit["customer"])
        spent[key] = spent.get(key, 0) + visit["cents"]
    kobza.notes.metric("customers", len(spent))
    return spent


@customers.check
def nobody_spends_less_than_nothing(customers: dict[str, int]) -> CheckResult:
    bad = {name: cents for name, cents in customers.items() if cents < 0}
    return CheckResult(not bad, f"{len(bad)} customers have a negative sum" if bad else None)


@asset(name="shop/report", partitions=DAYS)
def report(customers: dict[str, int], partition: str) -> str:
    best = max(customers, key=customers.__getitem__)
    rows = [{"customer": name, "cents": cents} for name, cents in sorted(customers.items())]
    kobza.notes.table(rows, name="spent")
    return f"{partition}: {len(customers)} customers, customer {best} spent most"


shop = assets("shop", [visits, customers, report])
