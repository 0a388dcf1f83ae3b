"""What is asked of the system, chosen by the seed, and the ledger of what was promised."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import definitions
from client import Client, Unanswered
from machine import Machine


@dataclass
class Promise:
    """A run whose start was acknowledged."""

    id: str
    workflow: str
    #: Nobody else has this label.
    label: str
    cancelled: bool = False
    #: Whether it was cancelled was never said.
    unsure: bool = False
    #: Clears that were acknowledged.
    cleared: int = 0
    #: Calls that may have cleared it: a repetition after a death does it again.
    clears_sent: int = 0
    deleted: bool = False


@dataclass
class Ledger:
    runs: dict[str, Promise] = field(default_factory=dict)
    #: Version hashes that were stored, for each workflow.
    versions: dict[str, set[str]] = field(default_factory=dict)
    #: Backfills with the number of their slots.
    backfills: dict[str, int] = field(default_factory=dict)
    files: int = 0
    luigi: list[str] = field(default_factory=list)
    #: Variables by what they were last set to.
    variables: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def fail(self, text: str) -> None:
        with self.lock:
            self.wrong.append(text)


class Driver(threading.Thread):
    """One of several callers. What it does follows from the seed; when, from the machine."""

    def __init__(self, number: int, seed: int, machine: Machine, ledger: Ledger, kinds: set[str], luigi: Path | None,
                 over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number, self.machine, self.ledger, self.luigi, self.over = number, machine, ledger, luigi, over
        self.rng = random.Random(f"{seed}/driver/{number}")
        self.client = Client(machine.port, random.Random(f"{seed}/client/{number}"), f"soak-{number}")
        self.own: list[Promise] = []
        self.steps = 0
        self.acts = [
            (6, lambda: self.start_run("quick")), (4, lambda: self.start_run("slow")), (4, self.cancel), (3, self.clear),
            (2, self.edit), (1, self.backfill), (1, self.pause), (2, self.file), (1, lambda: self.start_run("asks")),
            (2, self.variable), (1, self.delete),
        ]
        if "python" in kinds:
            self.acts.append((4, lambda: self.start_run("functions")))
        if "argo" in kinds:
            self.acts.append((3, lambda: self.start_run("argo")))
        if "airflow" in kinds:
            self.acts.append((3, lambda: self.start_run("soak_dag")))
        if luigi and number == 0:
            self.acts.append((4, self.luigi_job))

    def run(self) -> None:
        weights = [weight for weight, _ in self.acts]
        while not self.over.is_set():
            self.steps += 1
            act = self.rng.choices(self.acts, weights)[0][1]
            try:
                act()
            except Unanswered as error:
                self.ledger.fail(str(error))
            except Exception as error:
                self.ledger.fail(f"driver {self.number}: {type(error).__name__}: {error}")
            self.over.wait(self.rng.random() * 0.3)

    def write(self, method: str, path: str, body: object = None, kind: str = "application/json",
              well: tuple[int, ...] = (200, 201, 204)) -> object:
        """An answer that promises something; None where the call was rightly refused."""
        status, answer = self.client.call(method, path, body, kind)
        if status in well:
            return answer if answer is not None else {}
        if status not in (404, 409):
            self.ledger.fail(f"{method} {path} was answered by {status}: {answer}")
        return None

    def start_run(self, workflow: str) -> None:
        label = f"{self.number}-{self.steps}"
        started = self.write("POST", f"/api/v1/workflows/{workflow}/runs", {"labels": {"soak": label}})
        if started:
            promise = Promise(started["id"], workflow, label)  # type: ignore[index]
            self.own.append(promise)
            self.ledger.runs[promise.id] = promise
        self.ledger.count(f"start {workflow}")

    def cancel(self) -> None:
        live = [p for p in self.own[-6:] if not p.cancelled and not p.unsure and not p.deleted and not p.cleared and p.workflow != "asks"]
        if live:
            promise = self.rng.choice(live)
            # As a person, who looks first: what has ended cannot be cancelled.
            if self.client.get(f"/api/v1/runs/{promise.id}")["state"] in ("queued", "running"):  # type: ignore[index]
                if self.write("POST", f"/api/v1/runs/{promise.id}/cancel", {"reason": "soak"}):
                    promise.cancelled = True
                elif self.client.sent > 1:
                    # It had ended when this was heard: by itself, or by the call that was not answered.
                    promise.unsure = True
                self.ledger.count("cancel")

    def clear(self) -> None:
        old = [p for p in self.own[:-3] if p.workflow in ("quick", "functions", "argo", "slow") and not p.deleted]
        if old:
            promise = self.rng.choice(old)
            if self.client.get(f"/api/v1/runs/{promise.id}")["state"] not in ("succeeded", "cancelled"):  # type: ignore[index]
                return
            done = self.write("POST", "/api/v1/tasks/bulk", {"action": "clear", "run": promise.id})
            promise.clears_sent += self.client.sent
            if done and done["count"]:  # type: ignore[index]
                promise.cleared += 1
                promise.cancelled = promise.unsure = False
            self.ledger.count("clear")

    def edit(self) -> None:
        text = definitions.edited(self.machine.folder, 1000 * self.number + self.steps)
        stored = self.write("POST", "/api/v1/workflows", text, "application/yaml")
        if stored:
            with self.ledger.lock:
                self.ledger.versions.setdefault("quick", set()).add(stored["version"])  # type: ignore[index]
        self.ledger.count("edit")

    def backfill(self) -> None:
        first, days = self.rng.randint(1, 20), self.rng.randint(1, 6)
        year = 1990 + len(self.ledger.backfills) % 30
        asked = {"workflow": "daily", "from": f"{year}-01-{first:02}", "to": f"{year}-01-{first + days - 1:02}",
                 "parallelism": self.rng.randint(1, 4)}
        made = self.write("POST", "/api/v1/backfills", asked)
        if made:
            self.ledger.backfills[made["id"]] = days  # type: ignore[index]
        self.ledger.count("backfill")

    def pause(self) -> None:
        live = [p for p in self.own[-4:] if not p.cancelled and not p.deleted]
        if live:
            promise = self.rng.choice(live)
            if self.write("POST", f"/api/v1/runs/{promise.id}/pause") is not None:
                time.sleep(self.rng.random() * 0.2)
                self.write("POST", f"/api/v1/runs/{promise.id}/resume")
            self.ledger.count("pause and resume")

    def file(self) -> None:
        with self.ledger.lock:
            self.ledger.files += 1
            place = self.machine.folder / f"in/{self.ledger.files}.csv"
        place.write_text(f"{self.steps}\n")
        self.ledger.count("file arrives")

    def variable(self) -> None:
        name, value = f"soak-{self.number}", str(self.steps)
        if self.write("PUT", f"/api/v1/variables/{name}", {"value": value}):
            self.ledger.variables[name] = value
        self.ledger.count("variable")

    def delete(self) -> None:
        old = [p for p in self.own[:-8] if not p.deleted]
        if old:
            promise = self.rng.choice(old)
            if self.write("DELETE", f"/api/v1/runs/{promise.id}") is not None:
                promise.deleted = True
            self.ledger.count("delete")

    def luigi_job(self) -> None:
        """The real client, against all that happens to the server meanwhile."""
        name = f"{self.number}-{self.steps}"
        done = subprocess.run(
            [self.luigi, "--module", "luigi_jobs", "Top", "--name", name, "--workers", "2", "--log-level", "WARNING",
             "--scheduler-url", f"http://127.0.0.1:{self.machine.port}/luigi"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "SOAK": str(self.machine.folder),
                 "LUIGI_CONFIG_PATH": str(self.machine.folder / "luigi-worker.cfg")},
            capture_output=True, text=True)
        if done.returncode == 0:
            self.ledger.luigi.append(name)
        else:
            self.ledger.fail(f"luigi {name}: {done.returncode}\n{done.stderr[-1500:]}")
        self.ledger.count("luigi command")
