"""Rows of Kobza alone: the loop and its store, processes, calls."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import floors
from ours.server import Server
from process import pss_mib
from report import Report

THREE = "name: three\ntasks:\n  a: {noop: true}\n  b: {noop: true, needs: a}\n  c: {noop: true, needs: b}\n"
NAME = "Kobza"


def bench_binary(kobza: str) -> Path:
    return Path(kobza).with_name("kobza-bench")


def core(report: Report, kobza: str, quick: bool) -> None:
    """Engine, loop and store in one process, without HTTP: the maps of up to a million among them."""
    rows = ["latency", "runs", "chain", "map10000", "map1000000"] + ([] if quick else ["map100000", "history"])
    output = subprocess.run([bench_binary(kobza), *rows], check=True, stdout=subprocess.PIPE, text=True).stdout
    report.lines("Kobza core", output)


def size(report: Report, kobza: str, quick: bool) -> None:
    report.note("size of the binary", NAME, "MiB", [os.path.getsize(kobza) / 2**20])


def processes(report: Report, kobza: str, quick: bool) -> None:
    count = 1000 if quick else 4000
    report.note(f"{count} x true", "make -j8", "tasks/s", [count / floors.processes(count) for _ in range(3)], floor=True)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kobza, folder)
        server.put(f"name: trues\ntasks:\n  t: {{shell: 'true', map: {{range: {count}}}}}\n")
        rates = []
        for _ in range(3):
            state, took = server.run("trues")
            assert state == "succeeded", state
            rates.append(count / took)
        report.note(f"{count} x true", NAME, "tasks/s", rates)
        server.stop()


def latency(report: Report, kobza: str, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kobza, folder)
        server.put(THREE)
        link = http.client.HTTPConnection("127.0.0.1", server.port)
        times = []
        for _ in range(300):
            started = time.perf_counter()
            link.request("POST", "/api/v1/workflows/three/runs", "{}", {"Content-Type": "application/json"})
            link.getresponse().read()
            times.append((time.perf_counter() - started) * 1000)
        report.note("three-step no-op run, HTTP call to answer", NAME, "ms", times)
        server.stop()


def starts(report: Report, kobza: str, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kobza, folder)
        server.put(THREE)
        load = [bench_binary(kobza), "starts", f"127.0.0.1:{server.port}", "three", "5000", "64"]
        rates = []
        for _ in range(3):
            output = subprocess.run(load, check=True, stdout=subprocess.PIPE, text=True).stdout
            rates += json.loads(output)["values"]
        report.note("three-step no-op runs over HTTP, 64 clients", NAME, "runs/s", rates)
        server.stop()


def idle(report: Report, kobza: str, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kobza, folder)
        time.sleep(5)
        report.note("memory of a server that never ran anything", NAME, "MiB", [pss_mib([server.process.pid])])
        server.stop()


def machine(report: Report, kobza: str, quick: bool) -> None:
    """What the machine can do at all."""
    floors.commits(report, 5)
    floors.forks(report, 5)
    floors.python_start(report, 5)
