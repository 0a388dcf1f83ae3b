"""Airflow's stock trigger runner for the server: ``python -m kobza_airflow.trigger``.

It speaks with the server over descriptor 0 as with Airflow's own supervisor, and writes its log
records, as JSON lines, to descriptor 1. Two things are other than in Airflow: it does not wait for its
next look around, once a second, when a trigger has fired or the server wakes it (``SIGUSR1``); and what
an event carries is encoded here, by the SDK, since only the SDK knows how.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

_ENVIRONMENT = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nonexistent/kobza.db",
    "_AIRFLOW_PROCESS_CONTEXT": "client",
}


class _Wake:
    """What the runner waits for between two looks around, as often as it is needed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event.clear()


def main() -> None:
    os.environ.update(_ENVIRONMENT)
    from airflow.jobs import triggerer_job_runner as stock
    from airflow.sdk.execution_time import supervisor
    from airflow.sdk.serde import serialize
    from airflow.triggers.base import BaseTaskEndEvent

    supervisor._configure_logs_over_json_channel(os.dup(1))
    # What triggers print is no log record.
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    class Anyio:
        """The module, with an event that can be waited for again."""

        Event = _Wake

        def __getattr__(self, name: str) -> Any:
            return getattr(anyio, name)

    anyio = stock.anyio
    stock.anyio = Anyio()

    class Events(type(stock.TriggerRunner().events)):  # type: ignore[misc]
        def __init__(self, runner: stock.TriggerRunner) -> None:
            super().__init__()
            self._runner = runner

        def append(self, item: Any) -> None:
            super().append(item)
            if self._runner._stop_event is not None:
                self._runner._stop_event.set()

    class Runner(stock.TriggerRunner):
        def __init__(self) -> None:
            super().__init__()
            self.events = Events(self)
            self.failed_triggers = Events(self)

        async def init_comms(self) -> None:
            await super().init_comms()
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, self._woken)

        def _woken(self) -> None:
            if self._stop_event is not None:
                self._stop_event.set()

        async def run_trigger(self, trigger_id: int, *args: Any, **options: Any) -> None:
            try:
                await super().run_trigger(trigger_id, *args, **options)
            finally:
                # Its end is seen at once as well.
                asyncio.get_running_loop().call_soon(self._woken)

        def process_trigger_events(self, finished_ids: list[int]) -> Any:
            message = super().process_trigger_events(finished_ids)
            for entry in message.events or []:
                if not isinstance(entry.event, BaseTaskEndEvent):
                    try:
                        entry.event.payload = serialize(entry.event.payload)
                    except Exception as error:
                        # Sent as it is, it fails its trigger where it cannot be.
                        words = "the event of trigger %s cannot be encoded: %s"
                        self.log.error(words, entry.trigger_id, error)
            return message

    # Before the loop is ready for it, a wake-up is no reason to end.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    Runner().run()


if __name__ == "__main__":
    main()
