"""Airflow: `airflow standalone` on PostgreSQL, settings as documented, but for no examples and no log-in."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request

import process
from systems import HERE, ROOT, ByApi, Peer, instant

DAGS = ("chain50", "chain5", "fan200", "fan1000", "light", "heavy", "three", "first")


class Airflow(Peer, ByApi):
    key = "airflow"
    name = "Airflow (PostgreSQL)"
    packages = ["apache-airflow==3.3.2", "psycopg2-binary", "asyncpg", "-c", "tests/airflow-packages"]

    def start(self) -> None:
        made = subprocess.run([ROOT / ".ci/postgres"], check=True, capture_output=True, text=True)
        self.database = made.stdout.strip()
        self.postgres = made.stderr.rsplit(" ", 1)[-1].strip()
        self.port = process.free_port()
        home = self.folder / "home"
        environment = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "work/dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{self.port}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN":
                f"postgresql+psycopg2://kobza@/postgres?host={self.postgres}",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC":
                f"postgresql+asyncpg://kobza@/postgres?host={self.postgres}",
            "PATH": f"{self.environment}/bin:/usr/bin:/bin",
        }
        subprocess.run([self.program("airflow"), "db", "migrate"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, env=environment)
        began = time.perf_counter()
        self.spawn([self.program("airflow"), "standalone"], environment)
        url = f"http://127.0.0.1:{self.port}/api/v2/monitor/health"
        process.until(lambda: healthy(url), "Airflow is healthy", 300, 0.1)
        self.healthy_after = time.perf_counter() - began
        self.token = json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.port}/auth/token"))["access_token"]
        for dag in DAGS:
            process.until(lambda dag=dag: self.call("GET", f"/dags/{dag}")["dag_id"], f"the DAG {dag} is read", 300, 0.5)

    def stop(self) -> None:
        super().stop()
        subprocess.run([ROOT / ".ci/postgres", "stop", self.postgres], check=False, capture_output=True)

    def memory(self) -> float:
        leader = int((process.Path(self.postgres) / "data/postmaster.pid").read_text().split()[0])
        return super().memory() + process.pss_mib(process.tree(leader))

    def call(self, method: str, path: str, body: dict | None = None) -> dict:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v2{path}", method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def start_run(self, workflow: str) -> str:
        run = self.call("POST", f"/dags/{workflow}/dagRuns", {"logical_date": None})
        return f"/dags/{workflow}/dagRuns/{run['dag_run_id']}"

    def ended(self, run: str) -> float | None:
        found = self.call("GET", run)
        assert found["state"] != "failed", found
        return instant(found["end_date"]) if found["state"] == "success" else None


def healthy(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as answer:
        parts = json.load(answer)
    return all(parts[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))
