"""The calls of Luigi's workers, each by itself: Kobza's scheduler, then luigid."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from pathlib import Path

import process
from ours.core import NAME, bench_binary
from ours.server import Server
from peers import luigi
from report import Report
from systems import venv


def load(report: Report, kobza: str, system: str, address: str, scenario: str, *numbers: int) -> None:
    command = [bench_binary(kobza), "luigi", address, scenario, *map(str, numbers)]
    report.lines(system, subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def calls(report: Report, kobza: str, quick: bool) -> None:
    steps = ((0, 1000), (1000, 10_000)) if quick else ((0, 1000), (1000, 10_000), (10_000, 50_000))
    settings = "[scheduler]\nstate_path = {}/state.pickle\n[resources]\ndb = 40\ngpu = 2\n"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "luigi.cfg")
        config.write_text(settings.format(folder))
        server = Server(kobza, folder, "--luigi-config", str(config))
        address = f"127.0.0.1:{server.port}/luigi"
        load(report, kobza, NAME, address, "calls", 5, 64)
        for start, end in steps:
            load(report, kobza, NAME, address, "pending", start, end, 500)
        load(report, kobza, NAME, address, "list", 10)
        server.stop()
        made, _ = venv("bench-luigi", luigi.PACKAGES)
        port = process.free_port()
        luigid = process.start([made / "bin/luigid", "--address", "127.0.0.1", "--port", str(port), "--logdir", folder],
                               Path(folder, "luigid.log"), {"LUIGI_CONFIG_PATH": str(config)})
        address = f"127.0.0.1:{port}"
        process.until(lambda: socket.create_connection(("127.0.0.1", port)).close() or True, "luigid")
        load(report, kobza, "luigid", address, "calls", 5, 16)
        for start, end in steps:
            load(report, kobza, "luigid", address, "pending", start, end, 20)
        load(report, kobza, "luigid", address, "list", 2)
        process.stop(luigid)
