"""Processes of the systems that are measured: started in a session of their own, ended by their ids."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                pass
    return found


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    above, found = parents(), [root]
    for pid in found:
        found.extend(child for child, parent in above.items() if parent == pid)
    return found


def pss_mib(pids: list[int]) -> float:
    """Proportional memory: what several share is counted once in all."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def start(command: list[str | Path], log: Path, environment: dict[str, str] | None = None,
          cwd: str | Path | None = None) -> subprocess.Popen:
    with log.open("ab") as out:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd,
                                env={**os.environ, **(environment or {})}, start_new_session=True)


def stop(process: subprocess.Popen, patience: float = 20) -> None:
    """Ends it and everything that it started."""
    everything = tree(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pid in everything:
        end(pid)


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def until(holds: Callable[[], object], what: str, seconds: float = 180, pause: float = 0.02) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := holds():
                return found
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(pause)
    raise TimeoutError(f"waited {seconds:.0f} s for: {what}")


def answers(url: str) -> bool:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status == 200
