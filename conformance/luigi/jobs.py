"""Jobs that the tests run with the real luigi package. `OUT` is the folder for their targets."""

import json
import os
import time

import luigi

OUT = os.environ.get("OUT", ".")
# Seconds by which the worker's clock is wrong.
SKEW = float(os.environ.get("SKEW", "0"))
if SKEW:
    right_time = time.time
    time.time = lambda: right_time() + SKEW


class Writes(luigi.Task):
    """Writes a line a run to its log, and its target."""

    num = luigi.IntParameter(default=1)

    def output(self):
        return luigi.LocalTarget(f"{OUT}/{self.task_family}_{self.num}.txt")

    def note(self):
        with open(f"{OUT}/log.jsonl", "a") as log:
            log.write(json.dumps({"task": f"{self.task_family}_{self.num}", "pid": os.getpid()}) + "\n")

    def run(self):
        self.note()
        time.sleep(0.05)
        with self.output().open("w") as target:
            target.write("x")


class A(Writes):
    resources = {"db": 1}


class B(Writes):
    priority = 5

    def requires(self):
        return A(num=self.num)


class C(Writes):
    secret = luigi.Parameter(default="s3cret", significant=False,
                             visibility=luigi.parameter.ParameterVisibility.PRIVATE)

    def requires(self):
        return A(num=self.num)

    def run(self):
        self.set_status_message("half")
        self.set_progress_percentage(50)
        self.set_tracking_url("http://example.com/1")
        super().run()


class D(Writes):
    def requires(self):
        return [B(num=self.num), C(num=self.num)]


class Dynamic(Writes):
    task_namespace = "ns"

    def run(self):
        yield A(num=100 + self.num)
        yield [B(num=200 + self.num), B(num=201 + self.num)]
        super().run()


class Batched(luigi.Task):
    day = luigi.IntParameter(batch_method=max)

    def output(self):
        return luigi.LocalTarget(f"{OUT}/Batched_{self.day}.txt")

    def run(self):
        with open(f"{OUT}/log.jsonl", "a") as log:
            log.write(json.dumps({"task": f"Batched_{self.day}"}) + "\n")
        for day in range(self.day + 1):
            with luigi.LocalTarget(f"{OUT}/Batched_{day}.txt").open("w") as target:
                target.write("x")


class AllBatched(luigi.WrapperTask):
    def requires(self):
        return [Batched(day=day) for day in range(3)]


class Boom(luigi.Task):
    retry_count = 2

    def run(self):
        raise ValueError("boom")


class Flaky(Writes):
    """Fails the first time."""

    def run(self):
        marker = f"{OUT}/flaky_{self.num}"
        if not os.path.exists(marker):
            open(marker, "w").close()
            raise ValueError("not yet")
        super().run()


class Long(Writes):
    """Runs until the file `go` is there."""

    def run(self):
        self.note()
        open(f"{OUT}/started_{self.num}_{os.getpid()}", "w").close()
        while not os.path.exists(f"{OUT}/go"):
            time.sleep(0.05)
        with self.output().open("w") as target:
            target.write("x")


class Many(luigi.WrapperTask):
    count = luigi.IntParameter(default=30)

    def requires(self):
        return [D(num=num) for num in range(self.count)]


class WithMessages(Writes):
    accepts_messages = True

    def run(self):
        open(f"{OUT}/listening", "w").close()
        message = self.scheduler_messages.get(timeout=60)
        message.respond(f"heard {message.content}")
        super().run()


class Orders(Writes):
    day = luigi.DateParameter()

    def output(self):
        return luigi.LocalTarget(f"{OUT}/orders/{self.day:%Y-%m-%d}.csv")


class AllOrders(luigi.WrapperTask):
    day = luigi.DateParameter()

    def requires(self):
        return Orders(day=self.day)


class Report(Writes):
    """Of a day; made from the orders of the day and from a list that has no day."""

    day = luigi.DateParameter()

    def requires(self):
        return [AllOrders(day=self.day), A(num=1)]

    def output(self):
        return [luigi.LocalTarget(f"{OUT}/report_{self.day:%Y%m%d}.{kind}") for kind in ("txt", "png")]

    def run(self):
        self.note()
        for target in self.output():
            with target.open("w") as file:
                file.write("x")
