"""Injures the system, one wound at a time, as the seed says."""

from __future__ import annotations

import random
import signal
import threading
import time

from machine import LEASE_S, Machine


class Nemesis(threading.Thread):
    def __init__(self, seed: int, machine: Machine, over: threading.Event, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.rng = random.Random(f"{seed}/nemesis")
        self.machine, self.over, self.pause_s = machine, over, pause_s
        self.counts: dict[str, int] = {}
        self.wrong: list[str] = []
        #: Wall times between which the disk was full: logs of then may have holes.
        self.full: list[tuple[float, float]] = []
        acts = [
            (5, "kill the server", lambda: machine.end_server(signal.SIGKILL)),
            (2, "restart the server", lambda: machine.end_server(signal.SIGTERM)),
            (2, "freeze the server", lambda: machine.freeze(machine.server.pid, self.short())),
            (3, "kill a shim", lambda: self.one(machine.shims(), signal.SIGKILL)),
            (2, "freeze a shim", lambda: self.frozen(machine.shims())),
            (5, "kill a body", lambda: self.one(machine.bodies(), signal.SIGKILL)),
            (2, "freeze a body", lambda: self.frozen(machine.bodies())),
            (1, "kill the server and its shims", self.everything),
        ]
        if machine.mounted:
            acts.append((2, "fill the disk", self.fill))
        if machine.faketime:
            acts.append((2, "step the clock", self.step))
        if machine.database:
            database = machine.database
            acts += [
                (2, "kill the database", database.kill),
                (2, "freeze the database", self.freeze_database),
                (4, "lose the answer to a commit", database.proxy.lose_next_commit),
                (1, "freeze the server past its lease", lambda: machine.freeze(machine.server.pid, LEASE_S)),
            ]
        self.acts = acts

    def run(self) -> None:
        weights = [weight for weight, _, _ in self.acts]
        while not self.over.wait(self.pause_s * (0.5 + self.rng.random())):
            _, name, act = self.rng.choices(self.acts, weights)[0]
            self.counts[name] = self.counts.get(name, 0) + 1
            self.note(name)
            try:
                act()
            except Exception as error:
                self.wrong.append(f"could not {name}: {type(error).__name__}: {error}")

    def note(self, text: str) -> None:
        """When, in seconds since the boot, as bodies tell it too."""
        with (self.machine.folder / "wounds").open("a") as log:
            log.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME):.2f} {text}\n")

    def short(self) -> float:
        return 0.2 + 1.3 * self.rng.random()

    def one(self, pids: list[int], how: signal.Signals) -> None:
        from machine import send
        if pids:
            send(self.rng.choice(pids), how)

    def frozen(self, pids: list[int]) -> None:
        if pids:
            self.machine.freeze(self.rng.choice(pids), self.short())

    def everything(self) -> None:
        self.machine.end_server(signal.SIGKILL)
        for pid in self.machine.shims():
            self.one([pid], signal.SIGKILL)

    def fill(self) -> None:
        begin = time.time()
        self.machine.fill()
        time.sleep(self.short())
        self.machine.free()
        self.full.append((begin, time.time()))

    def step(self) -> None:
        """Forward and back, never for long; slots are made up for, and none comes twice."""
        self.machine.set_clock(self.machine.offset + self.rng.choice([-40, -20, 10, 20, 30]))

    def freeze_database(self) -> None:
        from machine import send
        pids = self.machine.database.all() if self.machine.database else []
        for pid in pids:
            send(pid, signal.SIGSTOP)
        time.sleep(self.short())
        for pid in pids:
            send(pid, signal.SIGCONT)
