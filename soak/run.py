"""The soak: the real server under work and injury, then an audit of what must be true.

    python3 soak/run.py KOBZA

From the environment: SOAK_SEED (told in the report; chosen by the clock when absent), SOAK_SECONDS of
injury for each store (180) or SOAK_HOURS, SOAK_STORES ("sqlite postgres"), SOAK_KINDS ("python argo luigi
airflow", beside native YAML), SOAK_PAUSE seconds between wounds (1.5), SOAK_LUIGI (Luigi's command),
SOAK_AIRFLOW (an interpreter that has Airflow), SOAK_KEEP (a folder for what is left after a failure).
The same seed asks for the same work and the same wounds; when each comes is the machine's business.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "python")]

import definitions  # noqa: E402
from audit import Audit  # noqa: E402
from client import Client  # noqa: E402
from driver import Driver, Ledger  # noqa: E402
from machine import Machine  # noqa: E402
from nemesis import Nemesis  # noqa: E402

LUIGI = "[core]\nno_configure_logging=false\nrpc-retry-attempts=200\nrpc-retry-wait=1\n" \
        "[worker]\nkeep_alive=true\nwait_interval=0.2\nmax_keep_alive_idle_duration=600\n"


def soak(kobza: str, store: str, seed: int, seconds: float, kinds: set[str]) -> list[str]:
    luigi = os.environ.get("SOAK_LUIGI") if "luigi" in kinds else None
    airflow = os.environ.get("SOAK_AIRFLOW") if "airflow" in kinds else None
    kinds = kinds - {"luigi", "airflow"} | ({"airflow"} if airflow else set())
    folder = Path(tempfile.mkdtemp(prefix="kobza-soak-"))
    (folder / "body.sh").write_text(definitions.BODY)
    (folder / "luigi").mkdir()
    (folder / "luigi-worker.cfg").write_text(LUIGI)
    (folder / "luigi.cfg").write_text("[scheduler]\nretry_delay=1\n")
    more = ["--luigi-config", str(folder / "luigi.cfg")]
    if airflow:
        more += ["--airflow-dags", str(HERE / "dags"), "--airflow-python", airflow]
    machine = Machine(kobza, folder, store, more)
    ledger, over = Ledger(), threading.Event()
    wrong: list[str] = []
    audit: Audit | None = None
    nemesis: Nemesis | None = None
    try:
        client = Client(machine.port, random.Random(seed), "soak")
        prepare(machine, client, ledger, kinds)
        drivers = [Driver(n, seed, machine, ledger, kinds, Path(luigi) if luigi else None, over) for n in range(3)]
        nemesis = Nemesis(seed, machine, over, float(os.environ.get("SOAK_PAUSE", "1.5")))
        for thread in [*drivers, nemesis]:
            thread.start()
        over.wait(seconds)
        over.set()
        nemesis.join(60)
        machine.heal()
        for driver in drivers:
            driver.join(240)
            if driver.is_alive():
                ledger.fail(f"driver {driver.number} hangs")
        machine.heal()
        audit = Audit(machine, client, ledger, nemesis.full)
        audit.settle(float(os.environ.get("SOAK_PATIENCE", "120")))
        audit.all()
        machine.stop_server()
        audit.doctor()
        wrong = [*ledger.wrong, *nemesis.wrong, *audit.wrong]
        report(store, machine, ledger, drivers, nemesis, audit)
    except Exception as error:
        wrong = [*ledger.wrong, *(nemesis.wrong if nemesis else []), *(audit.wrong if audit else []), "".join(traceback.format_exception(error)[-3:])]
    finally:
        keep = os.environ.get("SOAK_KEEP")
        if wrong and keep:
            machine.heal()
            shutil.copytree(folder, Path(keep) / f"{store}-{seed}", ignore=shutil.ignore_patterns("*.sock", "work"),
                            dirs_exist_ok=True, ignore_dangling_symlinks=True)
        machine.close()
        shutil.rmtree(folder, ignore_errors=True)
    return wrong


def prepare(machine: Machine, client: Client, ledger: Ledger, kinds: set[str]) -> None:
    documents = {**definitions.native(machine.folder), "quick": definitions.edited(machine.folder, 0)}
    for text in documents.values():
        put(client, text)
    if "python" in kinds:
        sys.path.insert(0, str(HERE))
        status, answer = client.call("POST", "/api/v1/workflows", definitions.python(), calm=True)
        assert status == 201, answer
    if "argo" in kinds:
        put(client, definitions.argo())
    if "airflow" in kinds:
        end = time.monotonic() + 60
        while client.call("GET", "/api/v1/workflows/soak_dag")[0] != 200:
            assert time.monotonic() < end, "the DAG is not read"
            time.sleep(0.2)


def put(client: Client, text: str) -> None:
    status, answer = client.call("POST", "/api/v1/workflows", text, "application/yaml", calm=True)
    assert status == 201, answer


def report(store: str, machine: Machine, ledger: Ledger, drivers: list[Driver], nemesis: Nemesis, audit: Audit) -> None:
    told = lambda counts: ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))  # noqa: E731
    print(f"{store}: {machine.starts} lives of the server")
    print(f"  asked:    {told(ledger.counts)}; {sum(d.client.abandoned for d in drivers)} calls abandoned after they were sent")
    wounds = dict(nemesis.counts)
    if machine.database:
        wounds["answers to commits lost"] = machine.database.proxy.lost
    print(f"  injured:  {told(wounds)}")
    print(f"  audited:  {told(audit.checked)}", flush=True)
    for missing, have in (("the disk is not filled: nothing can be mounted here", machine.mounted),
                          ("the clock is not stepped: libfaketime is not installed", machine.faketime)):
        if not have:
            print(f"  left out: {missing}")


def main() -> None:
    kobza = os.path.abspath(sys.argv[1])
    seed = int(os.environ.get("SOAK_SEED") or time.time_ns() // 1000 % 1_000_000_000)
    hours = os.environ.get("SOAK_HOURS")
    seconds = float(hours) * 3600 if hours else float(os.environ.get("SOAK_SECONDS") or 180)
    kinds = set(os.environ.get("SOAK_KINDS", "python argo luigi airflow").split())
    failed = False
    print(f"soak: seed {seed}, {seconds:.0f} s of injury for each store", flush=True)
    for store in os.environ.get("SOAK_STORES", "sqlite postgres").split():
        began = time.monotonic()
        wrong = soak(kobza, store, seed, seconds, kinds)
        for text in wrong[:30]:
            print(f"  WRONG: {text}")
        print(f"  {store}: {len(wrong)} things are wrong, {time.monotonic() - began:.0f} s", flush=True)
        failed |= bool(wrong)
    print(f"soak: seed {seed}: {'0 passed, 1 failed' if failed else '1 passed, 0 failed'}")
    if failed:
        sys.exit(f"repeat it with SOAK_SEED={seed}")


if __name__ == "__main__":
    main()
