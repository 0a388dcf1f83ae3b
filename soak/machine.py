"""The system under injury: the real server, its shims, its database, and the ways to hurt each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

from proxy import Proxy

ROOT = Path(__file__).resolve().parent.parent
FAKETIME = [f"{folder}/faketime/libfaketime.so.1"
            for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/lib64")]
#: Seconds of a lease of the shared store, and some more.
LEASE_S = 7


def send(pid: int, what: signal.Signals) -> bool:
    try:
        os.kill(pid, what)
        return True
    except ProcessLookupError:
        return False


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def processes() -> dict[int, int]:
    """All processes with their parents."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                found[int(entry.name)] = int(fields[1])
    return found


class Postgres:
    """A throwaway database of our own, reached through a proxy that can lose answers."""

    def __init__(self) -> None:
        made = subprocess.run([ROOT / ".ci/postgres"], check=True, capture_output=True, text=True)
        self.folder = Path(made.stderr.rsplit(" ", 1)[-1].strip())
        self.proxy = Proxy(self.folder / ".s.PGSQL.5432")
        self.url = f"postgres://kobza@{str(self.proxy.folder).replace('/', '%2F')}/postgres?schema=soak"

    def leader(self) -> int:
        """Its first process, which left its number in a file."""
        return int((self.folder / "data/postmaster.pid").read_text().split()[0])

    def all(self) -> list[int]:
        leader = self.leader()
        return [leader, *(pid for pid, parent in processes().items() if parent == leader)]

    def kill(self) -> None:
        """As a crash: nothing is written down. It comes back by itself from its log."""
        killed = self.all()
        for pid in killed:
            send(pid, signal.SIGKILL)
        # It does not start while one of the old processes has its memory.
        while set(killed) & set(processes()):
            time.sleep(0.02)
        # Where nobody takes their ends, the dead still have their numbers, and look alive to it.
        for name in ("data/postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
            (self.folder / name).unlink(missing_ok=True)
        self.start()

    def start(self) -> None:
        binary = subprocess.run(["bash", "-c", "dirname $(command -v initdb || ls /usr/lib/postgresql/*/bin/initdb)"],
                                check=True, capture_output=True, text=True).stdout.strip()
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        options = f"-c listen_addresses='' -k {self.folder} -c max_connections=200"
        subprocess.run([*user, f"{binary}/pg_ctl", "-D", self.folder / "data", "-l", self.folder / "server.log", "-w",
                        "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       cwd=self.folder)

    def stop(self) -> None:
        self.proxy.close()
        subprocess.run([ROOT / ".ci/postgres", "stop", self.folder], check=False, capture_output=True)


class Machine:
    """A folder with everything of one soak in it. `data` may be a small file system of its own."""

    def __init__(self, kobza: str, folder: Path, store: str, more: list[str]) -> None:
        self.kobza, self.folder, self.more = kobza, folder, more
        for name in ("data", "locks", "slots", "in"):
            (folder / name).mkdir()
        self.data = folder / "data"
        mount = ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", self.data]
        self.mounted = subprocess.run(mount, capture_output=True).returncode == 0
        self.database = Postgres() if store == "postgres" else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.faketime = next((path for path in FAKETIME if os.path.exists(path)), None)
        self.offset = self.farthest = 0
        self.set_clock(0)
        #: What ended a server without our doing.
        self.wrong_ends: list[str] = []
        self.starts = 0
        self._wanted: set[int] = set()
        self._lock = threading.RLock()
        self._over = threading.Event()
        self.server = self._spawn()
        threading.Thread(target=self._watch, daemon=True).start()

    # The server
    def environment(self) -> dict[str, str]:
        own = {"SOAK": str(self.folder), "RUST_BACKTRACE": "1", "KOBZA_LOG": os.environ.get("SOAK_LOG", "info")}
        if self.database:
            own["KOBZA_STORE"] = self.database.url
        if self.faketime:
            own |= {"LD_PRELOAD": self.faketime, "FAKETIME_TIMESTAMP_FILE": str(self.folder / "offset"),
                    "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return {**{k: v for k, v in os.environ.items() if not k.startswith("KOBZA_")}, **own}

    def _spawn(self) -> subprocess.Popen:
        self.starts += 1
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                [self.kobza, "server", "--listen", f"127.0.0.1:{self.port}", "--data", str(self.data), *self.more],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(), cwd=self.folder,
                start_new_session=True)

    def _watch(self) -> None:
        """Starts it again, as a service manager does."""
        while not self._over.wait(0.05):
            with self._lock:
                code = self.server.poll()
                # The end may have come while this waited for its turn.
                if code is None or self._over.is_set():
                    continue
                # 2: it found itself replaced, or its store locked or full: it says so and ends.
                if self.server.pid not in self._wanted and code != 2:
                    self.wrong_ends.append(f"the server ended by itself with {code}")
                if not self._over.wait(0.2 if code == 2 else 0):
                    self.server = self._spawn()

    def end_server(self, how: signal.Signals) -> None:
        with self._lock:
            self._wanted.add(self.server.pid)
            send(self.server.pid, how)

    def stop_server(self) -> None:
        """For good."""
        self._over.set()
        with self._lock:
            send(self.server.pid, signal.SIGTERM)
            self.server.wait(60)

    def freeze(self, pid: int, seconds: float) -> None:
        if send(pid, signal.SIGSTOP):
            time.sleep(seconds)
            send(pid, signal.SIGCONT)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    # What lives below it
    def shims(self) -> list[int]:
        here = str(self.data)
        return [pid for pid in processes() if " shim " in (line := command_line(pid)) and here in line]

    def bodies(self) -> list[int]:
        """What shims have started: tasks, and the warm parents of Python tasks."""
        above = processes()
        found = list(self.shims())
        roots = set(found)
        for pid in found:
            found.extend(child for child, parent in above.items() if parent == pid and child not in found)
        return sorted(set(found) - roots)

    # The disk and the clock
    def fill(self) -> None:
        with (self.data / "ballast").open("wb", buffering=0) as file:
            size = 1 << 20
            while size:
                try:
                    while file.write(b"\0" * size) == size:
                        pass
                except OSError:
                    pass
                size //= 2

    def free(self) -> None:
        (self.data / "ballast").unlink(missing_ok=True)

    def set_clock(self, offset: int) -> None:
        """Seconds by which the server's wall clock is wrong from now on."""
        self.offset, self.farthest = offset, max(self.farthest, abs(offset))
        # Renamed, since a half-written file is no time.
        (self.folder / "offset.new").write_text(f"{offset:+d}")
        os.rename(self.folder / "offset.new", self.folder / "offset")

    def heal(self) -> None:
        self.free()
        pids = [self.server.pid, *self.shims(), *self.bodies(), *(self.database.all() if self.database else [])]
        for pid in pids:
            send(pid, signal.SIGCONT)

    def close(self) -> None:
        self._over.set()
        with self._lock:
            if self.server.poll() is None:
                send(self.server.pid, signal.SIGKILL)
                self.server.wait()
        for pid in [*self.shims(), *self.bodies()]:
            send(pid, signal.SIGKILL)
        if self.database:
            self.database.stop()
        if self.mounted:
            subprocess.run(["umount", "-l", self.data], check=False)
