"""What must be true in the end, whatever happened: read through the API, and from what bodies left."""

from __future__ import annotations

import collections
import subprocess
import time
from datetime import datetime
from pathlib import Path

import definitions
from client import Client
from driver import Ledger
from machine import Machine

#: Nothing happens for so long: then nothing will.
QUIET_S = 3
ENDED = ("succeeded", "failed", "cancelled")


def instant(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Audit:
    def __init__(self, machine: Machine, client: Client, ledger: Ledger, full: list[tuple[float, float]]) -> None:
        self.machine, self.client, self.ledger, self.full = machine, client, ledger, full
        self.wrong: list[str] = []
        self.checked: collections.Counter[str] = collections.Counter()

    def fail(self, text: str) -> None:
        self.wrong.append(text[:1000])

    def settle(self, patience_s: float) -> None:
        """Waits until everything that can end has ended; what has not must say why it waits."""
        for trigger in self.client.all("/api/v1/triggers?limit=200"):
            if trigger["workflow"] == "tick":
                self.client.call("PATCH", f"/api/v1/triggers/{trigger['id']}", {"paused": True}, calm=True)
        end = time.monotonic() + patience_s
        last, since = -1, time.monotonic()
        while True:
            runs = self.runs()
            live = [run for run in runs if run["state"] not in ENDED and run["workflow"] not in ("asks", "luigi")]
            arrived = sum(run["workflow"] == "arrival" for run in runs)
            open_ones = [b for b in self.client.all("/api/v1/backfills?limit=200") if b["state"] in ("running", "paused")]
            # What an end sets off comes a little later.
            newest = self.newest_event()
            if newest != last:
                last, since = newest, time.monotonic()
            if not live and not open_ones and arrived >= self.ledger.files and time.monotonic() - since > QUIET_S:
                return
            if time.monotonic() > end:
                break
            time.sleep(0.3)
        for run in live[:10]:
            self.fail(f"run {run['id']} of {run['workflow']} is still {run['state']}: {self.reasons(run['id'])}")
        for backfill in open_ones:
            self.fail(f"backfill {backfill['id']} is still {backfill['state']}: {backfill['counts']}")

    def newest_event(self) -> int:
        page = self.client.get("/api/v1/events?order=desc&limit=1")
        return page["items"][0]["seq"] if page["items"] else 0  # type: ignore[index]

    def runs(self) -> list[dict]:
        return self.client.all("/api/v1/runs?limit=200")

    def reasons(self, run: str) -> list[str]:
        told = []
        for task in self.client.all(f"/api/v1/runs/{run}/tasks?limit=200"):
            if task["state"] not in (*ENDED, "skipped", "upstream_failed"):
                why = self.client.get(f"/api/v1/tasks/{task['id']}/why")
                told.append(f"{why['summary']}; {[reason['text'] for reason in why['reasons']]}; {task['message']}")  # type: ignore[index]
        return told

    def all(self) -> None:
        runs = {run["id"]: run for run in self.runs()}
        events = self.events()
        self.promises(runs, events)
        self.slots(runs)
        self.triggers(runs, events)
        self.backfills(runs)
        self.definitions_and_variables()
        self.limits()
        self.outputs(runs)
        self.logs(runs)
        self.luigi()
        self.left_behind()

    # What was acknowledged
    def promises(self, runs: dict[str, dict], events: list[dict]) -> None:
        labels = collections.Counter(run["labels"].get("soak") for run in runs.values())
        for label, count in labels.items():
            if label and count > 1:
                same = [r["id"] for r in runs.values() if r["labels"].get("soak") == label]
                self.fail(f"one call (label {label}) started {count} runs: {same}")
        clears = collections.Counter(e["run"] for e in events if e["kind"] == "cleared")
        for promise in self.ledger.runs.values():
            self.checked["acknowledged runs"] += 1
            run = runs.get(promise.id)
            if promise.deleted:
                if run:
                    self.fail(f"run {promise.id} was deleted and is there")
                continue
            if run is None:
                self.fail(f"acknowledged run {promise.id} of {promise.workflow} is lost")
                continue
            if promise.workflow == "asks":
                why = self.reasons(promise.id)
                if not promise.cancelled and (run["state"] in ENDED or not why):
                    self.fail(f"run {promise.id} should wait for a person, and say so: {run['state']} {why}")
                continue
            wanted = ["cancelled"] if promise.cancelled else ["succeeded", *(["cancelled"] if promise.unsure else [])]
            if run["state"] not in wanted:
                self.fail(f"run {promise.id} of {promise.workflow} is {run['state']}, not {wanted}: {run['message']}")
            if not promise.cleared <= clears[promise.id] <= promise.clears_sent:
                self.fail(f"run {promise.id} was cleared {promise.cleared} times by {promise.clears_sent} calls, and the log "
                          f"tells {clears[promise.id]}")

    def events(self) -> list[dict]:
        """The whole log: no number is missing, and no result was taken twice."""
        events = self.client.all("/api/v1/events?after=0&order=asc&limit=500")
        numbers = [event["seq"] for event in events]
        expected = list(range(numbers[0], numbers[0] + len(numbers))) if numbers else []
        if numbers != expected:
            holes = [(a, b) for a, b in zip(numbers, numbers[1:]) if b != a + 1]
            self.fail(f"the event log has gaps or repeats: {holes[:5]}")
        self.checked["events"] += len(events)
        done: set[str] = set()
        for event in events:
            if event["kind"] == "cleared":
                done = {task for task in done if not task.startswith(f"{event['run']}.")}
            elif event["kind"] == "task" and event["state"] == "succeeded":
                if event["task"] in done:
                    self.fail(f"task {event['task']} succeeded twice")
                done.add(event["task"])
        return events

    # Triggers
    def slots(self, runs: dict[str, dict]) -> None:
        """From the first slot to the last, each has one run or a record that says why not."""
        trigger = next(t for t in self.client.all("/api/v1/triggers?limit=200") if t["workflow"] == "tick")
        covered: collections.Counter[int] = collections.Counter()
        for decision in self.client.all(f"/api/v1/triggers/{trigger['id']}/decisions?limit=200"):
            first = round(instant(decision["slot"]))
            last = round(instant(decision["through"])) if decision["through"] else first
            for slot in range(first, last + 1, definitions.TICK_S):
                covered[slot] += 1
            if decision["decision"] == "started" and decision["run"] not in runs:
                self.fail(f"slot {decision['slot']} started run {decision['run']}, which is not there")
        self.checked["slots"] += len(covered)
        if covered:
            span = range(min(covered), max(covered) + 1, definitions.TICK_S)
            missing = [slot for slot in span if not covered[slot]]
            twice = [slot for slot, count in covered.items() if count > 1]
            if missing or twice:
                self.fail(f"slots without a decision: {missing[:5]}; decided twice: {twice[:5]}")
        own = [run["interval_end"] for run in runs.values() if run["workflow"] == "tick"]
        double = [slot for slot, count in collections.Counter(own).items() if count > 1]
        if double:
            self.fail(f"slots with two runs: {double[:5]}")

    def triggers(self, runs: dict[str, dict], events: list[dict]) -> None:
        count = collections.Counter(run["workflow"] for run in runs.values())
        if count["arrival"] != self.ledger.files:
            self.fail(f"{self.ledger.files} files arrived, and {count['arrival']} runs were started")
        trigger = next(t for t in self.client.all("/api/v1/triggers?limit=200") if t["workflow"] == "follower")
        decisions = self.client.all(f"/api/v1/triggers/{trigger['id']}/decisions?limit=200")
        decided = collections.Counter(d["reason"].split()[1] for d in decisions if d["decision"] == "started")
        ended = collections.Counter(e["run"] for e in events
                                    if e["kind"] == "run" and e["state"] == "succeeded" and e["workflow"] == "slow")
        for run, times in ended.items():
            # A run that is deleted at once may be gone before anybody could react.
            gone = run in self.ledger.runs and self.ledger.runs[run].deleted
            if decided[run] != times and not gone:
                self.fail(f"run {run} of slow succeeded {times} times, and set off {decided[run]} followers: "
                          f"{[(e['seq'], e['kind'], e['state']) for e in events if e['run'] == run and not e['task']]}, "
                          f"{[d for d in decisions if run in d['reason']]}")
        self.checked["events of triggers"] += count["arrival"] + count["follower"]

    def backfills(self, runs: dict[str, dict]) -> None:
        for key, days in self.ledger.backfills.items():
            self.checked["backfills"] += 1
            found = self.client.get(f"/api/v1/backfills/{key}")
            slots = self.client.all(f"/api/v1/backfills/{key}/slots?limit=500")
            own = [r for r in runs.values() if r["backfill"] == key]
            states = collections.Counter(slot["state"] for slot in slots)
            if found["state"] != "succeeded" or states != {"succeeded": days}:  # type: ignore[index]
                self.fail(f"backfill {key} of {days} days: {found['state']}, {dict(states)}")  # type: ignore[index]
            if len({r["interval_start"] for r in own}) != len(own) or len(own) != days:
                self.fail(f"backfill {key} of {days} days has {len(own)} runs")

    def definitions_and_variables(self) -> None:
        stored = {v["version"] for v in self.client.all("/api/v1/workflows/quick/versions?limit=500")}
        lost = self.ledger.versions.get("quick", set()) - stored
        if lost:
            self.fail(f"acknowledged versions are lost: {sorted(lost)[:3]}")
        self.checked["edits"] += len(stored)
        found = {v["key"]: v["value"] for v in self.client.all("/api/v1/variables?limit=500")}
        for name, value in self.ledger.variables.items():
            if found.get(name) != value:
                self.fail(f"variable {name} was set to {value}, and is {found.get(name)}")

    def limits(self) -> None:
        for limit in self.client.all("/api/v1/limits"):
            if limit["used"] or limit["waiting"]:
                self.fail(f"limit {limit['name']}: {limit['used']} units were not given back, {limit['waiting']} wait")

    # What bodies did
    def undisturbed(self, runs: dict[str, dict], workflow: str) -> list[str]:
        return [p.id for p in self.ledger.runs.values()
                if p.workflow == workflow and not p.deleted and not p.cleared and not p.cancelled and not p.unsure
                and runs.get(p.id, {}).get("state") == "succeeded"]

    def outputs(self, runs: dict[str, dict]) -> None:
        """The output of a task is one that one of its bodies made, and its reader got that one."""
        made = set((self.machine.folder / "nonces").read_text().split())
        got = collections.defaultdict(set)
        place = self.machine.folder / "got"
        for line in place.read_text().splitlines() if place.exists() else []:
            run, _, nonce = line.partition(" ")
            got[run].add(nonce)
        for run in self.undisturbed(runs, "quick"):
            tasks = {t["name"]: t for t in self.client.all(f"/api/v1/runs/{run}/tasks?limit=200") if t["map_index"] is None}
            outputs = self.client.get(f"/api/v1/tasks/{tasks['a']['id']}/outputs")
            nonce = outputs.get("nonce")  # type: ignore[attr-defined]
            self.checked["outputs"] += 1
            if nonce not in made:
                self.fail(f"the output of {tasks['a']['id']} was made by no body: {nonce}")
            if got[run] != {nonce}:
                self.fail(f"run {run}: the output is {nonce}, and its reader got {got[run]}")
        for run in self.undisturbed(runs, "functions"):
            tasks = self.client.all(f"/api/v1/runs/{run}/tasks?limit=200")
            total = next(t for t in tasks if t["name"] == "total")
            outputs = self.client.get(f"/api/v1/tasks/{total['id']}/outputs")
            value = outputs.get("result")  # type: ignore[attr-defined]
            self.checked["outputs"] += 1
            if value != 12:
                self.fail(f"run {run} of Python functions has the result {value}, and not 12")

    def logs(self, runs: dict[str, dict]) -> None:
        wanted = [f"line {n}" for n in range(definitions.LINES)]
        # The server's clock may have been wrong while the disk was full.
        skew = self.machine.farthest + 2
        for run in self.undisturbed(runs, "quick") + self.undisturbed(runs, "slow"):
            for task in self.client.all(f"/api/v1/runs/{run}/tasks?limit=200"):
                began, ended = instant(task["started_at"]) - skew, instant(task["ended_at"]) + skew
                if any(began <= end and ended >= begin for begin, end in self.full):
                    continue
                log = self.client.get(f"/api/v1/tasks/{task['id']}/attempts/{task['attempt']}/log?limit=500")
                lines = [line["text"] for line in log["lines"] if line["stream"] == "out"]  # type: ignore[index]
                self.checked["logs"] += 1
                # A launch that was sent, and whose shim died before anybody heard of it, is sent again: what
                # its first body said comes first.
                if lines[-len(wanted):] != wanted:
                    self.fail(f"the log of {task['id']} ({task['name']}, attempt {task['attempt']}) has {len(lines)} lines: "
                              f"{lines[:2]} ... {lines[-2:]}")

    def luigi(self) -> None:
        place = self.machine.folder / "luigi-ran"
        ran = collections.Counter(place.read_text().split()) if place.exists() else {}
        double = [task for task, count in ran.items() if count > 1]
        if double:
            self.fail(f"tasks of Luigi ran twice: {double[:5]}")
        written = collections.Counter(path.read_text() for path in (self.machine.folder / "luigi").glob("*")
                                      if path.is_file())
        for name in self.ledger.luigi:
            self.checked["Luigi commands"] += 1
            if written[name] != 4:
                self.fail(f"luigi {name} has {written[name]} of 4 targets")

    def left_behind(self) -> None:
        told = self.machine.folder / "violations"
        if told.exists():
            self.wrong += told.read_text().splitlines()
        self.wrong += self.machine.wrong_ends
        for path in [self.machine.folder / "server.log", *self.machine.data.rglob("*.log")]:
            text = path.read_text(errors="replace") if path.is_file() else ""
            for line in text.splitlines():
                if "panicked at" in line:
                    self.fail(f"{Path(path).name}: {line}")

    def doctor(self) -> None:
        """After the server has ended. It looks at the embedded store only."""
        if self.machine.database:
            return
        done = subprocess.run([self.machine.kobza, "doctor", "--data", self.machine.data], capture_output=True, text=True,
                              env=self.machine.environment())
        if "sound" not in done.stdout:
            self.fail(f"doctor: {done.stdout[-500:]} {done.stderr[-500:]}")
