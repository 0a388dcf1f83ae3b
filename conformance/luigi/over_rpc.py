"""A pytest plugin: luigi's own tests with a scheduler of Kobza's instead of luigi's.

    KOBZA_LUIGI_URL=http://127.0.0.1:PORT/luigi PYTHONPATH=conformance/luigi \
        pytest -p over_rpc SDIST/test/scheduler_api_test.py ...

Every `luigi.scheduler.Scheduler` that a test (or a local worker) makes becomes an isolated scheduler
behind Kobza's test hooks, driven by luigi's own RPC client; its clock is the test's `time.time()`,
which many tests set. What a test reads from the inside of luigi's class it does not find.
"""

import json
import os
import sys
import time
import unittest.mock

import luigi.configuration
import luigi.rpc
import luigi.scheduler
import requests

URL = os.environ["KOBZA_LUIGI_URL"]

# The tests name the package that became this module.
sys.modules.setdefault("mock", unittest.mock)


class Fetcher:
    """Calls once: a refusal is a failure of the test, not something to wait for."""

    raises = requests.RequestException

    def __init__(self):
        self.pid = None

    def fetch(self, url, body, timeout):
        if self.pid != os.getpid():
            self.pid, self.session = os.getpid(), requests.Session()
        reply = self.session.post(url, data=body, timeout=30, headers={"X-Now": repr(float(time.time()))})
        reply.raise_for_status()
        return reply.text

    def close(self):
        pass


class OverRpc(luigi.rpc.RemoteScheduler):
    """Made and called as luigi's own class is."""

    def __init__(self, config=None, resources=None, task_history_impl=None, **kwargs):
        self._config = config or luigi.scheduler.scheduler(**kwargs)
        if resources is None:
            resources = luigi.configuration.get_config().getintdict("resources")
        plain = (bool, int, float, str)
        settings = {name: value for name, value in self._config.to_str_params().items()
                    if isinstance(value, plain)}
        reply = requests.post(URL + "/ctl/new", json={"config": settings, "resources": resources}, timeout=30)
        assert reply.status_code == 200, reply.text
        super().__init__(URL + json.loads(reply.text)["url"])
        self._fetcher = Fetcher()
        self._rpc_retry_attempts, self._rpc_retry_wait = 1, 0

    # Of a local scheduler these are called beside the RPC methods.
    def load(self):
        pass

    def dump(self):
        pass

    def _set_task_history(self, _history):
        pass


luigi.scheduler.Scheduler = OverRpc
