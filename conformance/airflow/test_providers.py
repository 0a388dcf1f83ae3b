"""Providers beside the standard one, unmodified, against real servers of this machine: HTTP and SQLite."""

import http.server
import json
import sqlite3
import threading
from pathlib import Path

import pytest
from test_examples import Kobza

DAGS = """
from datetime import datetime, timezone

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.providers.sqlite.hooks.sqlite import SqliteHook
from airflow.sdk import DAG, task

START = datetime(2024, 1, 1, tzinfo=timezone.utc)

with DAG("over_http", schedule=None, start_date=START):
    ready = HttpSensor(
        task_id="ready", http_conn_id="shop", endpoint="ready", poke_interval=0.2, mode="reschedule", timeout=60
    )
    orders = HttpOperator(
        task_id="orders",
        http_conn_id="shop",
        endpoint="orders",
        method="POST",
        data='{"day": "{{ ds }}"}',
        headers={"Content-Type": "application/json"},
        response_filter=lambda response: response.json()["rows"],
        log_response=True,
    )
    later = HttpOperator(
        task_id="later", http_conn_id="shop", endpoint="orders", method="POST", data="{}", deferrable=True
    )
    ready >> orders >> later

with DAG("in_sqlite", schedule=None, start_date=START):
    create = SQLExecuteQueryOperator(
        task_id="create", conn_id="ledger", sql="create table if not exists t (day text, n int)"
    )
    insert = SQLExecuteQueryOperator(
        task_id="insert", conn_id="ledger", sql="insert into t values (?, ?)", parameters=["{{ ds }}", 7]
    )
    read = SQLExecuteQueryOperator(task_id="read", conn_id="ledger", sql="select day, n from t")

    @task
    def hook():
        return SqliteHook("ledger").get_first("select sum(n) from t")[0]

    create >> insert >> read >> hook()
"""


class Shop(http.server.BaseHTTPRequestHandler):
    looks = 0
    bodies: list = []

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        Shop.looks += 1
        self.answer(200 if Shop.looks > 2 else 404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Shop.bodies.append((self.headers.get("Authorization"), json.loads(body)))
        self.answer(200, {"rows": 3})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kobza(tmp_path):
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "providers.py").write_text(DAGS)
    kobza = Kobza(tmp_path, tmp_path / "dags")
    try:
        kobza.until("loaded", lambda: len(list(kobza.pages("/workflows"))) == 2 or None)
        yield kobza
    finally:
        kobza.stop()


def connect(kobza: Kobza, name: str, fields: dict, secrets: dict) -> None:
    import urllib.request

    body = {"kind": fields.pop("kind"), "fields": fields, "secrets": secrets}
    request = urllib.request.Request(
        f"http://127.0.0.1:{kobza.port}/api/v1/connections/{name}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
        method="PUT",
    )
    urllib.request.urlopen(request).close()


def returned(kobza: Kobza, dag_id: str) -> dict:
    run = kobza.call(
        f"/workflows/{dag_id}/runs",
        {"interval_start": "2024-01-02T00:00:00Z", "interval_end": "2024-01-02T00:00:00Z"},
    )

    def ended():
        state = kobza.call(f"/runs/{run['id']}")["state"]
        return state if state in ("succeeded", "failed", "cancelled") else None

    state = kobza.until("ended", ended)
    tasks = list(kobza.pages(f"/runs/{run['id']}/tasks"))
    assert state == "succeeded", [(task["name"], task["state"], task["message"]) for task in tasks]
    outputs = {task["name"]: kobza.call(f"/tasks/{task['id']}/outputs") for task in tasks}
    return {name: values.get("return_value") for name, values in outputs.items()}


def test_http(kobza):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fields = {"kind": "http", "host": "http://127.0.0.1", "port": server.server_port, "user": "olena"}
    connect(kobza, "shop", fields, {"password": "a-long-password"})
    values = returned(kobza, "over_http")
    server.shutdown()
    assert values["orders"] == 3
    assert json.loads(values["later"]) == {"rows": 3}
    assert [body for _, body in Shop.bodies] == [{"day": "2024-01-02"}, {}]
    assert all(authorization.startswith("Basic ") for authorization, _ in Shop.bodies)
    assert Shop.looks == 3


def test_sqlite(kobza, tmp_path):
    file: Path = tmp_path / "ledger.db"
    connect(kobza, "ledger", {"kind": "sqlite", "host": str(file)}, {})
    values = returned(kobza, "in_sqlite")
    assert values["hook"] == 7
    assert "2024-01-02" in json.dumps(values["read"])
    with sqlite3.connect(file) as store:
        assert store.execute("select day, n from t").fetchall() == [("2024-01-02", 7)]
