"""Warm parents by the real binary: how many there are, and what becomes of one that grows. Skipped where
KOBZA_BIN names none."""

from __future__ import annotations

import pytest
from test_store import KOBZA, run, task, with_our_python

pytestmark = pytest.mark.skipif(not KOBZA, reason="KOBZA_BIN names no binary")

ONE = """
import os
PARENT = os.getpid()
def whose():
    return PARENT
"""
COUNT = """
import os, time
def alive(pids):
    deadline = time.monotonic() + 20
    while True:
        there = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        if len(there) <= 16 or time.monotonic() > deadline:
            return [len(set(pids)), len(there)]
        time.sleep(0.05)
"""


def test_parents_are_limited_in_number(tmp_path):
    (tmp_path / "count.py").write_text(COUNT)
    tasks, asked = "", []
    for n in range(20):
        (tmp_path / f"f{n}.py").write_text(ONE)
        needs = f", needs: t{n - 1}" if n else ""
        tasks += f"  t{n}: {{python: {{function: whose, file: f{n}.py}}{needs}}}\n"
        asked.append(f'"{{{{ tasks.t{n}.result }}}}"')
    needed = ", ".join(f"t{n}" for n in range(20))
    tasks += (
        "  count: {python: {function: alive, file: count.py},"
        f" with: {{pids: [{', '.join(asked)}]}}, needs: [{needed}]}}\n"
    )
    (tmp_path / "many.yaml").write_text(f"name: many\ntasks:\n{tasks}")
    done = run(tmp_path, "many.yaml", **with_our_python())
    assert done["state"] == "succeeded", done
    different, alive = task(done, "count")["outputs"]["result"]
    # One for each file; the 16 used last live, and that of the counting task is among them.
    assert different == 20 and alive <= 16, (different, alive)


# A timer goes on in the parent after its import, by the processor's time, and holds 8 MiB more each
# time.
GROWING = """
import os, signal
PARENT, HELD = os.getpid(), []
def more(*_):
    if os.getpid() == PARENT and len(HELD) < 64:
        HELD.append(b"x" * (8 << 20))
signal.signal(signal.SIGPROF, more)
signal.setitimer(signal.ITIMER_PROF, 0.004, 0.004)
def whose():
    return PARENT
"""


def test_a_parent_that_grows_is_replaced(tmp_path):
    (tmp_path / "growing.py").write_text(GROWING)
    tasks = "".join(
        f"  t{n}: {{python: {{function: whose, file: growing.py}}"
        + (f", needs: t{n - 1}" if n else "")
        + "}\n"
        for n in range(80)
    )
    (tmp_path / "growing.yaml").write_text(f"name: growing\ntasks:\n{tasks}")
    done = run(tmp_path, "growing.yaml", **with_our_python())
    assert done["state"] == "succeeded", done
    parents = {task(done, f"t{n}")["outputs"]["result"] for n in range(80)}
    assert len(parents) > 1, parents
