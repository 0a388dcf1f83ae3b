"""Peak memory of keeping and of loading a frame of 1 GiB: ``python bench/frame.py``.

Each side runs in a process of its own, as tasks do. Needs numpy, pandas, polars and pyarrow.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

COLUMNS = 16
ROWS = (1 << 30) // 8 // COLUMNS


def gib(name: str) -> float:
    with open("/proc/self/status") as file:
        kib = next(line.split()[1] for line in file if line.startswith(name))
    return int(kib) / 2**20


def made(kind: str):
    import numpy

    if kind == "numpy":
        return numpy.random.default_rng(0).random(ROWS * COLUMNS)
    columns = {f"c{i}": numpy.random.default_rng(i).random(ROWS) for i in range(COLUMNS)}
    if kind == "pandas":
        import pandas

        return pandas.DataFrame(columns, copy=False)
    if kind == "polars":
        import polars

        return polars.DataFrame(columns)
    import pyarrow

    return pyarrow.table(columns)


def side(kind: str, what: str) -> None:
    from kobza import decoding, values

    reference = Path(os.environ["KOBZA_ARTIFACTS"], f"{kind}.json")
    if kind != "numpy":
        __import__({"arrow": "pyarrow.parquet"}.get(kind, kind))
    frame = made(kind) if what == "keep" else None
    if kind == "pandas":
        import pyarrow.parquet  # noqa: F401
    before = gib("VmRSS")
    # The peak counts from here.
    Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter()
    if what == "keep":
        reference.write_text(json.dumps(values.encode(frame)))
    else:
        frame = decoding.decode(json.loads(reference.read_text()))
    seconds = time.perf_counter() - began
    print(
        f"{kind:<8} {what:<5} before {before:5.2f} GiB, after {gib('VmRSS'):5.2f},"
        f" peak {gib('VmHWM'):5.2f}, {seconds:5.1f} s",
        flush=True,
    )


def main() -> None:
    if len(sys.argv) > 1:
        return side(sys.argv[1], sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("pandas", "polars", "arrow", "numpy"):
            for what in ("keep", "load"):
                subprocess.run(
                    [sys.executable, __file__, kind, what],
                    env={**os.environ, "KOBZA_ARTIFACTS": folder},
                    check=True,
                )


if __name__ == "__main__":
    main()
