"""The workloads as Luigi tasks. BENCH_OUT is the folder of the targets, BENCH_FIRST a file for a time."""

import os
import time

import luigi

OUT = os.environ["BENCH_OUT"]


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


class Base(luigi.Task):
    salt = luigi.IntParameter()

    def output(self):
        return luigi.LocalTarget(f"{OUT}/{self.task_id}")

    def run(self):
        self.body()
        with self.output().open("w") as target:
            target.write("x")

    def body(self):
        pass


class Last(Base):
    def output(self):
        return luigi.LocalTarget(f"{OUT}/done")


class Link(Base):
    number = luigi.IntParameter()
    fib = luigi.IntParameter(default=0)

    def requires(self):
        return [Link(number=self.number - 1, fib=self.fib, salt=self.salt)] if self.number else []

    def body(self):
        fib(self.fib)


class Chain(Last):
    length = luigi.IntParameter()
    fib = luigi.IntParameter(default=0)

    def requires(self):
        # With this one the chain is as long as said.
        return Link(number=self.length - 2, fib=self.fib, salt=self.salt)

    def body(self):
        fib(self.fib)


class Root(Base):
    pass


class Leaf(Base):
    number = luigi.IntParameter()

    def requires(self):
        return Root(salt=self.salt)


class Fan(Last):
    width = luigi.IntParameter()

    def requires(self):
        return [Leaf(number=number, salt=self.salt) for number in range(self.width)]


class Hard(Base):
    number = luigi.IntParameter()

    def body(self):
        fib(33)


class Heavy(Last):
    def requires(self):
        return [Hard(number=number, salt=self.salt) for number in range(10)]


class First(Last):
    def body(self):
        now = time.time()
        place = os.environ["BENCH_FIRST"]
        with open(f"{place}.new", "w") as file:
            file.write(str(now))
        os.rename(f"{place}.new", place)
