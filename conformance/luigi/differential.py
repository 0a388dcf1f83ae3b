"""Random calls to a real luigid and to Kobza; replies must be equal.

    python differential.py [--calls N] [--seed S] [--kobza URL]

Kobza must run with its Luigi test hooks; `KOBZA_LUIGI_URL` (or `--kobza`) is the prefix they are
under, such as `http://127.0.0.1:8080/luigi`. luigid is started here (see reference.py).

Compared is everything but: the order of a worker's running tasks and of workers that started at the
same time, message ids (random in both), and calls that luigid answers with an internal error, after
which the sequence is given up. From time to time
Kobza's scheduler is made anew from its durable rows, which must change no reply.
"""

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))


class Server:
    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.prefix = parts.path.rstrip("/")
        self.connection = http.client.HTTPConnection(parts.netloc)

    def post(self, path, body, headers):
        self.connection.request("POST", self.prefix + path, body, headers)
        response = self.connection.getresponse()
        return response.status, response.read()

    def new(self, settings):
        status, body = self.post("/ctl/new", json.dumps(settings), {"Content-Type": "application/json"})
        assert status == 200, body
        self.scheduler = json.loads(body)["url"]

    def reload(self):
        status, body = self.post(self.scheduler + "/ctl/reload", b"", {})
        assert status == 204, (status, body)

    def call(self, now, method, args):
        body = urllib.parse.urlencode({"data": json.dumps(args)})
        headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Now": repr(now)}
        status, text = self.post(f"{self.scheduler}/api/{method}", body, headers)
        if status != 200:
            return status, text
        return 200, json.loads(text)["response"]


def plain(value):
    """The reply without what luigid leaves to chance."""
    if isinstance(value, dict):
        out = {}
        for key, item in value.items():
            if key == "running_tasks":
                item = sorted(item, key=lambda entry: entry["task_id"])
            elif key == "message_id" and item is not None:
                item = "some id"
            out[key] = plain(item)
        return out
    if isinstance(value, list):
        value = [plain(item) for item in value]
        if value and isinstance(value[0], dict) and "started" in value[0]:
            value.sort(key=lambda worker: (-worker["started"], worker["name"]))
        return value
    return value


class Sequence:
    """One scheduler's life."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        pick = self.random.choice
        self.config = {
            "retry_delay": pick([0, 5, 40, 900, -1]),
            "remove_delay": pick([5, 60, 600]),
            "worker_disconnect_delay": pick([10, 60]),
            "disable_window": pick([20, 3600]),
            "retry_count": pick([1, 2, 3, 999999999]),
            "disable_hard_timeout": pick([30, 999999999]),
            "disable_persist": pick([30, 300]),
            "max_shown_tasks": pick([3, 10, 100000]),
            "max_graph_nodes": pick([4, 100000]),
            "record_task_history": False,
            "prune_on_get_work": pick([False, False, True]),
            "pause_enabled": pick([True, True, False]),
            "send_messages": pick([True, True, False]),
            "stable_done_cooldown_secs": pick([0, 10]),
        }
        self.resources = {"r1": pick([0, 1, 2]), "r2": pick([1, 3, 5])}
        self.now = 1_000_000.0 + self.random.randrange(1000)
        self.workers = [f"Worker(salt={i}, workers={1 + i % 3}, host=h{i}, username=u, pid={i})"
                        for i in range(self.random.randint(1, 6))]
        self.assistants = {w for w in self.workers[1:] if self.random.random() < 0.15}
        self.tasks = [self.task(i) for i in range(self.random.choice([6, 15, 40]))]
        self.running = {w: [] for w in self.workers}
        self.handed = set()
        self.messages = []
        self.batches = []
        self.heads = 0

    def task(self, number):
        family = f"F{number % 4}"
        return {
            "task_id": f"{family}_{number}",
            "number": number,
            "family": family,
            "module": "m",
            "params": {"a": str(number % 3), "b": str(number)},
            "batchable": number % 4 < 2,
        }

    def advance(self):
        pick = self.random.random()
        if pick < 0.9:
            step = self.random.randint(1, 256) / 64
        elif pick < 0.98:
            step = self.random.randint(5, 40)
        else:
            step = self.random.randint(50, 1000)
        self.now += step
        return self.now

    def deps(self, task):
        """Of tasks with lower numbers: no cycles."""
        lower = self.tasks[: task["number"]]
        count = min(len(lower), self.random.choice([0, 0, 1, 1, 2, 3]))
        return [t["task_id"] for t in self.random.sample(lower, count)]

    def wanted(self):
        return self.random.choice([{}, {}, None, {"r1": 1}, {"r2": 1}, {"r2": 2}, {"r1": 1, "r2": 1},
                                   {"other": 1}, {"r2": 1.5}])

    def policy(self):
        return self.random.choice([
            None, {}, {"retry_count": None, "disable_hard_timeout": None, "disable_window": None},
            {"retry_count": 2, "disable_hard_timeout": None, "disable_window": 50},
            {"retry_count": 1, "disable_hard_timeout": 3, "disable_window": None}])

    def add(self, task, worker, **more):
        assistant = worker in self.assistants
        args = {
            "task_id": task["task_id"], "worker": worker, "status": "PENDING", "runnable": True,
            "deps": None, "new_deps": None, "expl": None, "resources": self.wanted(),
            "priority": self.random.choice([0, 0, 0, 1, 2, 5, -1, 2.5, 1000.0]),
            "family": task["family"], "module": task["module"], "params": task["params"],
            "param_visibilities": {"b": self.random.choice([0, 0, 1])},
            "accepts_messages": self.random.choice([False, True, None]),
            "assistant": assistant, "tracking_url": None, "batchable": task["batchable"],
            "batch_id": None, "retry_policy_dict": self.policy(), "owners": [],
        }
        if assistant:
            args["runnable"] = None
        args.update(more)
        return "add_task", args

    def any_task(self):
        return self.random.choice(self.tasks)

    def any_id(self):
        if self.random.random() < 0.03:
            return self.random.choice(["nothing", "No_thing_1", "(odd"])
        return self.any_task()["task_id"]

    def by_id(self, task_id):
        for task in self.tasks:
            if task["task_id"] == task_id:
                return task
        return None

    def next(self):
        rnd = self.random
        worker = rnd.choice(self.workers)
        pick = rnd.random() * 100
        if self.batches and rnd.random() < 0.5:
            return self.batch_step()
        if pick < 22:
            task = self.any_task()
            return self.add(task, worker, deps=self.deps(task))
        if pick < 42:
            current = rnd.choice([None, self.running[worker], self.running[worker], self.running[worker],
                                  self.running[worker][1:]])
            return "get_work", {"worker": worker, "host": "h", "assistant": worker in self.assistants,
                                "current_tasks": current}
        if pick < 60:
            return self.finish(worker)
        return self.minor(pick, worker)

    def finish(self, worker):
        rnd = self.random
        if not self.running[worker] or rnd.random() < 0.1:
            task = self.any_task()
            status = rnd.choice(["DONE", "FAILED", "RUNNING", "DISABLED", "SUSPENDED", "PENDING"])
            return self.add(task, worker, status=status, runnable=rnd.choice([True, None, False]),
                            expl=rnd.choice([None, json.dumps("Traceback")]))
        task_id = self.running[worker][0]
        task = self.by_id(task_id) or dict(self.tasks[0], task_id=task_id)
        pick = rnd.random()
        if pick < 0.15:
            return self.add(task, worker, status="RUNNING", tracking_url="http://x/1", family="",
                            resources=None, retry_policy_dict=None, params=None)
        self.running[worker].pop(0)
        if pick < 0.25:
            deps = self.deps(task) if self.by_id(task_id) else []
            return self.add(task, worker, new_deps=deps, runnable=None, expl="\"\"")
        status = "DONE" if pick < 0.65 else "FAILED"
        return self.add(task, worker, status=status, new_deps=[], runnable=None, expl=json.dumps("why"))

    def batch_step(self):
        """The combined task is declared as running; then it ends like any other."""
        worker, reply = self.batches.pop()
        if self.random.random() < 0.15:
            return "get_work", {"worker": worker, "host": "h", "assistant": worker in self.assistants,
                                "current_tasks": list(self.running[worker])}
        if self.random.random() < 0.5:
            task_id = self.random.choice(reply["batch_task_ids"])
            task = self.by_id(task_id)
            batchable = True
        else:
            self.heads += 1
            task = dict(self.task(0), task_id=f"{reply['task_family']}_head_{self.heads}",
                        family=reply["task_family"])
            batchable = False
        if task is None:
            return "ping", {"worker": worker}
        self.running[worker].append(task["task_id"])
        return self.add(task, worker, status="RUNNING", batch_id=reply["batch_id"], batchable=batchable)

    def minor(self, pick, worker):
        rnd = self.random
        calls = [
            (6, lambda: ("ping", {"worker": worker})),
            (3, lambda: ("add_worker", {"worker": worker, "info": rnd.choice([
                [["workers", rnd.randint(1, 4)], ["first_task", self.any_id()]], {"workers": 2}])})),
            (3, lambda: ("add_task_batcher", {
                "worker": worker, "task_family": rnd.choice(["F0", "F1"]), "batched_args": ["b"],
                "max_batch_size": rnd.choice([float("inf"), 2, 3])})),
            (2, lambda: ("count_pending", {"worker": worker})),
            (2, lambda: ("set_task_status_message", {"task_id": self.any_id(), "status_message": "m"})),
            (1, lambda: ("get_task_status_message", {"task_id": self.any_id()})),
            (2, lambda: ("set_task_progress_percentage", {
                "task_id": self.any_id(), "progress_percentage": rnd.choice([1, 50.5, float("inf")])})),
            (1, lambda: ("get_task_progress_percentage", {"task_id": self.any_id()})),
            (1, lambda: ("get_running_task_resources", {"task_id": self.any_id()})),
            (1, lambda: ("decrease_running_task_resources", {
                "task_id": rnd.choice(sorted(self.handed)), "decrease_resources": {"r2": rnd.choice([1, 0.5, 9])}})
                if self.handed else ("ping", {"worker": worker})),
            (1, lambda: ("send_scheduler_message", {"worker": worker, "task": self.any_id(), "content": "c"})),
            (1, lambda: ("add_scheduler_message_response", {
                "task_id": self.any_id(), "message_id": rnd.choice("xyz"), "response": "r"})),
            (1, lambda: ("get_scheduler_message_response", {
                "task_id": self.any_id(), "message_id": rnd.choice("xyz")})),
            (2, lambda: ("forgive_failures", {"task_id": self.any_id()})),
            (1, lambda: ("mark_as_done", {"task_id": self.any_id()})),
            (2, lambda: ("re_enable_task", {"task_id": self.any_id()})),
            (0.5, lambda: ("pause", {})),
            (2, lambda: ("unpause", {})),
            (0.5, lambda: ("is_paused", {})),
            (0.2, lambda: ("is_pause_enabled", {})),
            (0.2, lambda: ("has_task_history", {})),
            (0.5, lambda: ("update_resources", {"r1": rnd.randint(0, 3)})),
            (0.5, lambda: ("update_resource", {"resource": "r2", "amount": rnd.choice([-1, 0, 2, 1.5, "x", 5])})),
            (3, lambda: ("task_list", {
                "status": rnd.choice(["", "PENDING", "RUNNING", "DONE", "FAILED", "DISABLED", "UNKNOWN",
                                      "BATCH_RUNNING"]),
                "upstream_status": rnd.choice(["", "", "UPSTREAM_FAILED", "UPSTREAM_DISABLED",
                                               "UPSTREAM_RUNNING", "UPSTREAM_MISSING_INPUT"]),
                "limit": rnd.choice([True, True, False]),
                "search": rnd.choice([None, None, "", "f1", "b=1 F", "F2(A="]),
                "max_shown_tasks": rnd.choice([None, None, 2])})),
            (2, lambda: ("worker_list", rnd.choice([{}, {"include_running": False}]))),
            (2, lambda: ("resource_list", {})),
            (1, lambda: ("graph", {})),
            (2, lambda: ("dep_graph", {"task_id": self.any_id(), "include_done": rnd.choice([True, False])})),
            (2, lambda: ("inverse_dep_graph", {"task_id": self.any_id()})),
            (1, lambda: ("task_search", {"task_str": rnd.choice(["F", "_1", "F2", "zzz"])})),
            (1, lambda: ("fetch_error", {"task_id": self.any_id()})),
            (2, lambda: ("prune", {})),
            (0.3, lambda: ("disable_worker", {"worker": worker})),
            (0.5, lambda: ("set_worker_processes", {"worker": worker, "n": 3})),
            (0.3, lambda: ("announce_scheduling_failure", {
                "task_name": "t", "family": "F", "params": {}, "expl": "e", "owners": [], "worker": worker})),
        ]
        weights = [weight for weight, _ in calls]
        return rnd.choices([call for _, call in calls], weights)[0]()

    def learn(self, method, args, reply):
        if method != "get_work":
            return
        worker = args["worker"]
        if reply.get("batch_id"):
            self.batches.append((worker, reply))
        elif reply["task_id"] is not None:
            if reply["task_id"] not in self.running[worker]:
                self.running[worker].append(reply["task_id"])
            self.handed.add(reply["task_id"])


def show(value):
    return json.dumps(value, indent=1, sort_keys=True).splitlines()


def run(seed, length, luigid, kobza, log):
    import difflib

    sequence = Sequence(seed)
    settings = {"config": sequence.config, "resources": sequence.resources}
    luigid.new(settings)
    kobza.new(settings)
    calls = 0
    for step in range(length):
        if sequence.random.random() < 0.01:
            kobza.reload()
            log.append((seed, step, "reload"))
        method, args = sequence.next()
        now = sequence.advance()
        log.append((now, method, args))
        theirs = luigid.call(now, method, args)
        ours = kobza.call(now, method, args)
        if theirs[0] == 500:
            if ours[0] >= 500:
                raise SystemExit(f"seed {seed} step {step}: both answered an error: {ours}")
            return calls, f"{method} at step {step}"
        calls += 1
        if theirs[0] != ours[0] or plain(theirs[1]) != plain(ours[1]):
            for entry in log[-15:]:
                print("  ", *entry)
            print("\n".join(difflib.unified_diff(
                show(plain(theirs[1])) if theirs[0] == 200 else [str(theirs)],
                show(plain(ours[1])) if ours[0] == 200 else [str(ours)], "luigid", "kobza", n=4)))
            raise SystemExit(f"seed {seed} step {step}: replies to {method} differ")
        sequence.learn(method, args, theirs[1])
    return calls, None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--length", type=int, default=400, help="calls in one sequence")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kobza", default=os.environ.get("KOBZA_LUIGI_URL"))
    options = parser.parse_args()
    if not options.kobza:
        raise SystemExit("KOBZA_LUIGI_URL is not set")
    reference = subprocess.Popen([sys.executable, os.path.join(HERE, "reference.py")],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        luigid = Server(reference.stdout.readline().strip())
        kobza = Server(options.kobza)
        seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000_000
        first, total, given_up, started = seed, 0, {}, time.time()
        while total < options.calls:
            calls, error = run(seed, options.length, luigid, kobza, [])
            total += calls
            if error:
                method = error.split()[0]
                given_up[method] = given_up.get(method, 0) + 1
            seed += 1
        print(f"{total} calls, no difference; seeds {first} to {seed - 1}, {time.time() - started:.0f} s; "
              f"sequences that luigid ended with an internal error: {given_up or 'none'}")
    finally:
        reference.kill()


if __name__ == "__main__":
    main()
