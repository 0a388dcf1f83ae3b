"""Classes of the user's own, registered as a plugin."""

import pendulum
from airflow.plugins_manager import AirflowPlugin
from airflow.task.priority_strategy import PriorityWeightStrategy
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable


class Eighths(Timetable):
    """Every ``step`` hours of January 1, 2024, and never again."""

    def __init__(self, step):
        self.step = step

    def serialize(self):
        return {"step": self.step}

    @classmethod
    def deserialize(cls, data):
        return cls(data["step"])

    def infer_manual_data_interval(self, *, run_after):
        return DataInterval(run_after.subtract(minutes=self.step), run_after)

    def next_dagrun_info(self, *, last_automated_data_interval, restriction):
        if last_automated_data_interval is None:
            start = pendulum.instance(restriction.earliest)
        else:
            start = last_automated_data_interval.end
        if start >= pendulum.datetime(2024, 1, 2) or (restriction.latest and start > restriction.latest):
            return None
        return DagRunInfo.interval(start, start.add(hours=self.step))


class Heavy(PriorityWeightStrategy):
    def get_weight(self, ti):
        return 40 + len(ti.task_id)


class Own(AirflowPlugin):
    name = "own"
    timetables = [Eighths]
    priority_weight_strategies = [Heavy]
