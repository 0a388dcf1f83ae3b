"""The bodies of the nightly ETL: plain functions on SQLite (standard library only) or PostgreSQL
(psycopg)."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import sqlite3
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

SCHEMA = """
create table if not exists staging_flights (day text, carrier text, flight int, origin text,
    dest text, hour int, dep_delay double precision, distance double precision);
create table if not exists staging_weather (day text, origin text, hour int, temp double precision,
    wind_speed double precision, precip double precision, visib double precision);
create table if not exists staging_movies (day text, id int, title text, year int, rating double precision);
create table if not exists staging_delays (day text, origin text, hour int, flights int,
    mean_delay double precision, wind_speed double precision, visib double precision);
create table if not exists flights (day text, carrier text, flight int, origin text, dest text,
    hour int, dep_delay double precision, distance double precision);
create table if not exists weather (day text, origin text, hour int, temp double precision, wind_speed double precision,
    precip double precision, visib double precision);
create table if not exists movies (day text, id int, title text, year int, rating double precision);
create table if not exists delays (day text, origin text, hour int, flights int, mean_delay double precision,
    wind_speed double precision, visib double precision);
create index if not exists staging_flights_day on staging_flights (day);
create index if not exists flights_day on flights (day);
"""

TABLES = ("flights", "weather", "movies", "delays")


POSTGRES = ("postgres://", "postgresql://")


class Database:
    """One connection, the same for both kinds of database; values are marked with `?`."""

    def __init__(self, connection: Any, mark: str) -> None:
        self.cursor = connection.cursor()
        self.mark = mark

    def execute(self, sql: str, values: tuple = ()) -> Any:
        self.cursor.execute(sql.replace("?", self.mark), values)
        return self.cursor

    def insert(self, table: str, rows: list[tuple]) -> None:
        if rows:
            marks = ", ".join([self.mark] * len(rows[0]))
            self.cursor.executemany(f"insert into {table} values ({marks})", rows)

    def script(self, sql: str) -> None:
        for statement in filter(str.strip, sql.split(";")):
            self.cursor.execute(statement)


@contextmanager
def transaction(url: str) -> Iterator[Database]:
    """All of it or nothing: committed at the end, undone by an error."""
    if url.startswith(POSTGRES):
        import psycopg

        with psycopg.connect(url, connect_timeout=60) as connection:
            yield Database(connection, "%s")
    else:
        path = Path(url.removeprefix("sqlite:"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
            connection.execute("begin immediate")
            yield Database(connection, "?")


def number(text: str) -> float | None:
    """Missing values are written NA in these files."""
    return None if text in ("", "NA") else float(text)


def replace(db: Database, table: str, day: str, rows: list[tuple]) -> int:
    """All rows of a day at once: running a task again gives the same table."""
    db.execute(f"delete from {table} where day = ?", (day,))
    db.insert(table, rows)
    return len(rows)


def prepare(warehouse: str, day: str) -> None:
    with transaction(warehouse) as db:
        if warehouse.startswith(POSTGRES):
            # Two runs that make the same table at once would be one too many.
            db.execute("select pg_advisory_xact_lock(20130310)")
        db.script(SCHEMA)
        db.execute("delete from staging_weather where day = ?", (day,))


def extract_flights(warehouse: str, day: str, source: str) -> int:
    year, month, date = (str(int(part)) for part in day.split("-"))
    rows = []
    with zipfile.ZipFile(source) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".csv"))
        with archive.open(name) as raw:
            for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
                if (row["year"], row["month"], row["day"]) == (year, month, date):
                    rows.append(
                        (day, row["carrier"], int(row["flight"]), row["origin"], row["dest"],
                         int(row["hour"]), number(row["dep_delay"]), number(row["distance"]))
                    )
    if os.environ.get("ETL_BAD_ROW") in ("1", day):
        rows.append((day, "XX", 1, "???", "nowhere", 0, None, -1.0))
    with transaction(warehouse) as db:
        count = replace(db, "staging_flights", day, rows)
    print(f"{count} flights on {day}")
    return count


def extract_weather(warehouse: str, day: str, url: str, page: int) -> int:
    query = urllib.parse.urlencode({"day": day, "page": page})
    with urllib.request.urlopen(f"{url}/observations?{query}", timeout=30) as answer:
        observations = json.load(answer)["items"]
    rows = [
        (day, o["origin"], o["hour"], o["temp"], o["wind_speed"], o["precip"], o["visib"])
        for o in observations
    ]
    with transaction(warehouse) as db:
        for row in rows:
            db.execute("delete from staging_weather where day = ? and origin = ? and hour = ?", row[:3])
        db.insert("staging_weather", rows)
    print(f"page {page}: {len(rows)} observations")
    return len(rows)


def extract_movies(warehouse: str, day: str, source: str) -> int:
    with transaction(source) as dump:
        sql = "select id, title, year, imdbrating from omdb"
        rows = [(day, *row) for row in dump.execute(sql).fetchall()]
    with transaction(warehouse) as db:
        count = replace(db, "staging_movies", day, rows)
    print(f"{count} movies in the dump")
    return count


def transform(warehouse: str, day: str) -> int:
    with transaction(warehouse) as db:
        db.execute("delete from staging_delays where day = ?", (day,))
        done = db.execute(
            """insert into staging_delays
               select f.day, f.origin, f.hour, count(*), avg(f.dep_delay),
                      max(w.wind_speed), min(w.visib)
               from staging_flights f
               left join staging_weather w on w.day = f.day and w.origin = f.origin and w.hour = f.hour
               where f.day = ? group by f.day, f.origin, f.hour""",
            (day,),
        )
        return done.rowcount


def publish(warehouse: str, day: str) -> dict[str, int]:
    """One transaction: readers see the day whole or not at all."""
    counts = {}
    with transaction(warehouse) as db:
        for table in TABLES:
            db.execute(f"delete from {table} where day = ?", (day,))
            done = db.execute(f"insert into {table} select * from staging_{table} where day = ?", (day,))
            counts[table] = done.rowcount
    print(json.dumps(counts))
    return counts


def totals(warehouse: str) -> dict[str, tuple[int, int]]:
    """Days and rows of each published table."""
    with transaction(warehouse) as db:
        sql = "select count(distinct day), count(*) from "
        return {table: tuple(db.execute(sql + table).fetchone()) for table in TABLES}


def report(warehouse: str, day: str, results: str) -> str:
    with transaction(warehouse) as db:
        counts = {
            t: db.execute(f"select count(*) from {t} where day = ?", (day,)).fetchone()[0] for t in TABLES
        }
        hours = db.execute(
            "select hour, sum(flights), sum(mean_delay * flights) / sum(flights) from delays"
            " where day = ? and mean_delay is not null group by hour order by hour",
            (day,),
        ).fetchall()
    path = Path(results) / f"report-{day}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"<tr><td>{html.escape(t)}<td>{n}" for t, n in counts.items())
    path.write_text(
        f"<!doctype html><meta charset=utf-8><title>{day}</title><h1>{day}</h1>"
        f"<table>{rows}</table>{chart(hours)}\n"
    )
    print(f"report: {path.resolve()}")
    return str(path.resolve())


def chart(hours: list[tuple[int, int, float]]) -> str:
    """Mean departure delay by hour, as an SVG of bars."""
    top = max((abs(delay) for _, _, delay in hours), default=1.0) or 1.0
    bars = []
    for place, (hour, flights, delay) in enumerate(hours):
        height = 160 * abs(delay) / top
        bars.append(
            f"<g><title>{hour}:00, {flights} flights, {delay:.1f} min</title>"
            f"<rect x='{20 + 28 * place}' y='{180 - height:.1f}' width='22' height='{height:.1f}'"
            f" fill='{'#c2410c' if delay > 0 else '#15803d'}'/>"
            f"<text x='{31 + 28 * place}' y='196' font-size='10' text-anchor='middle'>{hour}</text></g>"
        )
    width = 40 + 28 * max(len(hours), 1)
    return (
        "<p>Mean departure delay by hour</p>"
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='210'"
        f" font-family='sans-serif'>{''.join(bars)}</svg>"
    )
