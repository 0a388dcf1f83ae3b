"""The soak's tasks of Luigi: each adds a line to its own file, so that a second run is seen."""

import os

import luigi

OUT = os.environ["SOAK"]


class Base(luigi.Task):
    name = luigi.Parameter()

    def output(self):
        return luigi.LocalTarget(f"{OUT}/luigi/{self.task_id}")

    def run(self):
        with open(f"{OUT}/luigi-ran", "a") as log:
            log.write(f"{self.task_id}\n")
        with self.output().open("w") as target:
            target.write(self.name)


class Leaf(Base):
    number = luigi.IntParameter()


class Top(Base):
    def requires(self):
        return [Leaf(name=self.name, number=number) for number in range(3)]
