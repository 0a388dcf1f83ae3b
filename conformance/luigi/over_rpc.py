"""A pytest plugin: luigi's own tests with a scheduler of Kobza's instead of luigi's.

    KOBZA_LUIGI_URL=http://127.0.0.1:PORT/luigi conformance/luigi/own_tests PYTHON

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
import pytest
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

# What fails, and why; one that passes after all fails the run, so that the list stays true.
INSIDE = "looks into the scheduler's object, which is in another process"
MAILS = "luigid's own mails are notifications of Kobza"
NO_JSON = "luigi gives its scheduler an exception object, which no remote one can be sent"
OTHER = "starts luigi's own server"
KNOWN = {
    "SchedulerApiTest::test_batch_disable_email_with_owner": MAILS,
    "SchedulerApiTest::test_batch_disable_emails": MAILS,
    "SchedulerApiTest::test_batch_disable_emails_with_task_batcher": MAILS,
    "SchedulerApiTest::test_batch_failure_email_with_owner": MAILS,
    "SchedulerApiTest::test_batch_failure_emails": MAILS,
    "SchedulerApiTest::test_batch_failure_emails_with_task_batcher": MAILS,
    "SchedulerApiTest::test_handle_bad_expl_in_failure_emails": MAILS,
    "SchedulerApiTest::test_scheduling_failure": MAILS,
    "SchedulerApiTest::test_scheduling_failure_with_task_batcher": MAILS,
    "SchedulerApiTest::test_send_batch_email_on_dump": MAILS,
    "SchedulerApiTest::test_send_normal_disable_email": MAILS,
    "SchedulerApiTest::test_update_batcher_on_prune": MAILS,
    "WorkerEmailTest::test_complete_error_email_batch": MAILS,
    "WorkerEmailTest::test_complete_error_email_batch_to_owner": MAILS,
    "WorkerEmailTest::test_complete_return_value_email_batch": MAILS,
    "WorkerEmailTest::test_requires_error_email_batch": MAILS,
    "WorkerEmailTest::test_run_error_batch_email_string": MAILS,
    "WorkerEmailTest::test_run_error_email_batch": MAILS,
    "SchedulerApiTest::test_collector_metrics_on_task_disabled": INSIDE,
    "SchedulerApiTest::test_collector_metrics_on_task_done": INSIDE,
    "SchedulerApiTest::test_collector_metrics_on_task_failed": INSIDE,
    "SchedulerApiTest::test_collector_metrics_on_task_started": INSIDE,
    "SchedulerApiTest::test_task_first_failure_time": INSIDE,
    "SchedulerApiTest::test_task_first_failure_time_remains_constant": INSIDE,
    "SchedulerApiTest::test_task_has_excessive_failures": INSIDE,
    "SchedulerParameterVisibilitiesTest::test_public_and_hidden_params": INSIDE,
    "SchedulerVisualisationTest::test_task_list_upstream_status": INSIDE,
    "WorkerSchedulerCommunicationTest::test_dispatch_invalid_message": INSIDE,
    "WorkerSchedulerCommunicationTest::test_dispatch_unregistered_message": INSIDE,
    "WorkerSchedulerCommunicationTest::test_dispatch_valid_message": INSIDE,
    "WorkerSchedulerCommunicationTest::test_message_handling": INSIDE,
    "WorkerSchedulerCommunicationTest::test_ping_content": INSIDE,
    "DynamicDependenciesWithMultipleWorkersTest::test_dynamic_dependencies_other_module": INSIDE,
    "PerTaskRetryPolicyBehaviorTest::test_per_task_disable_persist_with_single_worker": INSIDE,
    "PerTaskRetryPolicyBehaviorTest::test_with_all_disabled_with_multiple_worker": INSIDE,
    "PerTaskRetryPolicyBehaviorTest::test_with_all_disabled_with_single_worker": INSIDE,
    "PerTaskRetryPolicyBehaviorTest::test_with_dynamic_dependencies_with_multiple_workers": INSIDE,
    "PerTaskRetryPolicyBehaviorTest::test_with_dynamic_dependencies_with_single_worker": INSIDE,
    "PerTaskRetryPolicyBehaviorTest::test_with_includes_success_with_multiple_worker": INSIDE,
    "PerTaskRetryPolicyBehaviorTest::test_with_includes_success_with_single_worker": INSIDE,
    "WorkerTest::test_gracefully_handle_batch_method_failure": NO_JSON,
    "WorkerTest::test_post_error_message_for_failed_batch_methods": NO_JSON,
    "AssistantTest::test_bad_job_type": NO_JSON,
    "AssistantTest::test_unimported_job_sends_failure_message": NO_JSON,
    "AssistantTest::test_unimported_job_type": NO_JSON,
    "RemoteSchedulerParameterVisibilitiesTest::test_public_params": OTHER,
}
# Not run.
LEFT_OUT = {
    "test_get_work_speed": "200,000 calls, one by one; `make bench` measures the same",
    "test_cleanup_children_on_terminate": "of processes only, which it wants to end within a second",
    "test_quadratic_behavior": "30,000 calls, one by one; `make bench` measures the same",
}


def pytest_collection_modifyitems(items):
    for item in items:
        name = item.nodeid.split("::", 1)[1]
        for wanted, reason in KNOWN.items():
            if name == wanted or name.startswith(wanted + "::"):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
        if item.name in LEFT_OUT:
            item.add_marker(pytest.mark.skip(reason=LEFT_OUT[item.name]))
