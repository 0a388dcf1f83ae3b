"""A real luigid behind its own HTTP server, with a clock that the caller sets.

`python reference.py [PORT]` prints its address. `POST /ctl/new {config, resources}` makes a
scheduler under `/s/<id>/api/*`; the header `X-Now` is the time of a call.

Two things are changed in luigi. Where it leaves an order to the hash values of strings or objects,
which differ from process to process, what was seen first comes first, as in Kobza. That concerns
ties of (priority, time), and the order of dependencies. And a task that is removed is also removed
from its workers' own sets: luigid forgets that, and then counts it or not, or hands it out and
fails, depending on which of two sets happens to be smaller.
"""

import collections.abc
import itertools
import json
import sys
import types

import luigi.scheduler
import luigi.server
import tornado.httpserver
import tornado.ioloop
import tornado.netutil
import tornado.web

NOW = [0.0]
luigi.scheduler.time = types.SimpleNamespace(time=lambda: NOW[0])



class FirstSeen(collections.abc.MutableSet):
    """A set in the order of insertion."""

    def __init__(self, items=()):
        self.items = dict.fromkeys(items)

    def __contains__(self, item):
        return item in self.items

    def __iter__(self):
        return iter(self.items)

    def __len__(self):
        return len(self.items)

    def add(self, item):
        self.items[item] = None

    def discard(self, item):
        self.items.pop(item, None)

    def update(self, items):
        for item in items:
            self.add(item)

    def difference_update(self, items):
        for item in items:
            self.discard(item)


luigi.scheduler.set = FirstSeen

SEQ = itertools.count()
make_task = luigi.scheduler.Task.__init__


def numbered(self, *args, **kwargs):
    make_task(self, *args, **kwargs)
    self.seq = next(SEQ)


luigi.scheduler.Task.__init__ = numbered
luigi.scheduler.Scheduler._rank = lambda self, task: (task.priority, -task.time, -task.seq)

inactivate_tasks = luigi.scheduler.SimpleTaskState.inactivate_tasks


def remove_everywhere(self, tasks):
    gone = [self._tasks[task] for task in tasks]
    inactivate_tasks(self, tasks)
    for worker in self._active_workers.values():
        worker.tasks.difference_update(gone)


luigi.scheduler.SimpleTaskState.inactivate_tasks = remove_everywhere

SCHEDULERS = {}


class Handler(luigi.server.RPCHandler):
    def initialize(self):
        pass

    def log_exception(self, *args):
        pass

    def get(self, number, method):
        NOW[0] = float(self.request.headers.get("X-Now", "0"))
        self._scheduler = SCHEDULERS[number]
        super().get(method)

    post = get


class New(tornado.web.RequestHandler):
    def post(self):
        settings = json.loads(self.request.body or b"{}")
        NOW[0] = 0.0
        scheduler = luigi.scheduler.Scheduler(
            resources=settings.get("resources") or {"_": 1}, **(settings.get("config") or {})
        )
        number = str(len(SCHEDULERS) + 1)
        for old in list(SCHEDULERS)[:-8]:
            SCHEDULERS[old] = None
        SCHEDULERS[number] = scheduler
        self.write({"id": number, "url": f"/s/{number}"})


def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    app = tornado.web.Application([(r"/ctl/new", New), (r"/s/(\d+)/api/(.*)", Handler)])
    app.settings["log_function"] = lambda handler: None
    sockets = tornado.netutil.bind_sockets(port, address="127.0.0.1")
    tornado.httpserver.HTTPServer(app).add_sockets(sockets)
    print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)
    tornado.ioloop.IOLoop.current().start()


if __name__ == "__main__":
    main()
