"""What the installed Airflow's trigger rules say, exhaustively for few upstream tasks.

    python rules.py FILE

One JSON array a line: [rule, position, map index, direct, indirect, answer]. `direct` and `indirect`
are upstream task instances by letters: n not finished, s success, k skipped, f failed,
u upstream_failed, r removed; capitals are setups. The position says what `indirect` is: `plain`
(nothing), `setups` (setups that are relevant but not direct), `scope` (the task is a teardown, and
they are the tasks between its setups and itself). The answer is `run`, `wait`, or the state set.

The rule's own code runs, over task instances made up here: no database.
"""

import argparse
import itertools
import json
import types

from airflow.ti_deps.deps.trigger_rule_dep import TriggerRuleDep
from airflow.task.trigger_rule import TriggerRule
from airflow.utils.state import TaskInstanceState

STATES = {
    "n": None,
    "s": TaskInstanceState.SUCCESS,
    "k": TaskInstanceState.SKIPPED,
    "f": TaskInstanceState.FAILED,
    "u": TaskInstanceState.UPSTREAM_FAILED,
    "r": TaskInstanceState.REMOVED,
}


def tasks(letters, prefix):
    """A task of one instance for each letter, and the instances that have finished."""
    made, finished = {}, []
    for number, letter in enumerate(letters):
        task = types.SimpleNamespace(
            task_id=f"{prefix}{number}", is_setup=letter.isupper(), get_needs_expansion=lambda: False
        )
        made[task.task_id] = task
        if state := STATES[letter.lower()]:
            finished.append(types.SimpleNamespace(task_id=task.task_id, map_index=-1, state=state, task=task))
    return made, finished


def answer(rule, position, map_index, direct, indirect):
    direct_tasks, finished = tasks(direct, "d")
    indirect_tasks, more = tasks(indirect, "i")
    everything = direct_tasks | indirect_tasks
    for task in direct_tasks.values():
        task.get_flat_relative_ids = lambda upstream: set(indirect_tasks)
    setups = [task for task in direct_tasks.values() if task.is_setup]
    if position == "setups":
        setups += indirect_tasks.values()
    task = types.SimpleNamespace(
        task_id="t",
        trigger_rule=rule,
        upstream_task_ids=set(direct_tasks),
        upstream_list=list(direct_tasks.values()),
        is_teardown=position == "scope",
        get_upstreams_only_setups=lambda: setups,
        get_closest_mapped_task_group=lambda: None,
        get_flat_relative_ids=lambda upstream: set(everything),
        dag=types.SimpleNamespace(get_task=everything.__getitem__, dag_id="d"),
    )
    states = []
    instance = types.SimpleNamespace(
        task=task, task_id="t", map_index=map_index, dag_id="d", run_id="r",
        get_dagrun=lambda session: None,
        set_state=lambda state, session: states.append(state) or True,
    )
    context = types.SimpleNamespace(
        flag_upstream_failed=True,
        wait_for_past_depends_before_skipping=False,
        have_changed_ti_states=False,
        ensure_finished_tis=lambda dag_run, session: finished + more,
        upstream_task_id_counts={},
    )
    statuses = list(TriggerRuleDep()._get_dep_statuses(instance, context, session=None))
    if states:
        # The scheduler takes only what is not finished, so the first state is the last.
        return states[0].value
    return "run" if all(status.passed for status in statuses) else "wait"


def some(letters, most):
    for length in range(most + 1):
        for chosen in itertools.combinations_with_replacement(letters, length):
            yield "".join(chosen)


def cases():
    own, setups = "nskfur", "NSKFUR"
    rules = [rule.value for rule in TriggerRule]
    for rule in rules:
        for direct in some(own + setups, 4):
            for map_index in (-1, 0, 1, 3):
                yield rule, "plain", map_index, direct, ""
        for direct in some("nskfur", 2):
            # Without direct upstream tasks there is nothing that setups could be beyond.
            for indirect in some(setups, 3) if direct else ():
                for map_index in (-1, 0, 1, 2):
                    yield rule, "setups", map_index, direct, indirect
        for direct in some(own + setups, 3):
            # Only a direct setup brings a scope with it.
            for indirect in some(own, 2) if any(map(str.isupper, direct)) else ():
                yield rule, "scope", -1, direct, indirect


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=argparse.FileType("w"))
    file = parser.parse_args().file
    for case in cases():
        print(json.dumps([*case, answer(*case)]), file=file)


if __name__ == "__main__":
    main()
