//! Clear, mark, rerun.

use kobza_engine::{Command, Decision, ReportBody};
use kobza_model::*;

use crate::harness::*;

fn diamond() -> Workflow {
    workflow(vec![node("a"), needs("b", &[0]), needs("c", &[0]), needs("d", &[1, 2])], vec![])
}

fn attempts(bench: &Bench, names: &[&str]) -> Vec<u32> {
    names.iter().map(|n| bench.named(n).attempt).collect()
}

#[test]
pub(crate) fn one_task_runs_again_alone() {
    let mut bench = Bench::new(diamond());
    bench.go();
    bench.clear(&["b"], false, false);
    assert_eq!(bench.state(), RunState::Running);
    assert_eq!(bench.engine.run_row(bench.run).unwrap().generation, 1);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(attempts(&bench, &["a", "b", "c", "d"]), [1, 2, 1, 1]);
}

#[test]
pub(crate) fn downstream_runs_again_too() {
    let mut bench = Bench::new(diamond());
    bench.go();
    bench.clear(&["b"], true, false);
    assert_eq!(bench.states()["d"], TaskState::Pending);
    bench.go();
    assert_eq!(attempts(&bench, &["a", "b", "c", "d"]), [1, 2, 1, 2]);
    let history: usize = bench.batches.iter().map(|b| b.attempts.len()).sum();
    assert_eq!(history, 2);
    let dropped: usize = bench.batches.iter().map(|b| b.dropped_outputs.len()).sum();
    assert_eq!(dropped, 2);
}

#[test]
pub(crate) fn only_failed_takes_what_failed_and_what_followed() {
    let mut bench = Bench::new(diamond());
    bench.script = fails(&["c"]);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    bench.script = fails(&[]);
    bench.clear(&[], false, true);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(attempts(&bench, &["a", "b", "c", "d"]), [1, 1, 2, 1]);
}

#[test]
pub(crate) fn clearing_gives_the_retries_back() {
    let a = Node { retry: retry(1), ..node("a") };
    let mut bench = Bench::new(workflow(vec![a], vec![]));
    bench.script = fails(&["a"]);
    bench.go();
    assert_eq!(attempts(&bench, &["a"]), [2]);
    bench.clear(&["a"], false, false);
    bench.go();
    assert_eq!(attempts(&bench, &["a"]), [4]);
    assert_eq!(bench.state(), RunState::Failed);
}

#[test]
pub(crate) fn one_instance_of_a_map_runs_again() {
    let m = Node { expansion: mapped(3), ..node("m") };
    let mut bench = Bench::new(workflow(vec![m, needs("z", &[0])], vec![]));
    bench.go();
    bench.clear(&["m[1]"], true, false);
    assert_eq!(bench.states()["m"], TaskState::Running);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded, "{:?}", bench.states());
    assert_eq!(attempts(&bench, &["m[0]", "m[1]", "m[2]", "z"]), [1, 2, 1, 2]);
}

#[test]
pub(crate) fn a_cleared_map_may_shrink_or_grow() {
    for (first, second) in [(3, 1), (1, 4), (3, 0), (2, 2)] {
        let m = Node {
            expansion: Some(Expansion {
                by: ExpansionBy::Ask,
                zero: ZeroLength::Succeeded,
                ..mapped(0).unwrap()
            }),
            ..node("m")
        };
        let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
        let mut asked = 0;
        bench.decide = Box::new(move |_, _| {
            asked += 1;
            let length = if asked == 1 { first } else { second };
            kobza_engine::Decision::Expand { length, items: None, inputs: Json::Null }
        });
        bench.start(workflow(vec![m, needs("z", &[0])], vec![]), 2);
        bench.go();
        bench.clear(&["m"], true, false);
        bench.go();
        assert_eq!(bench.state(), RunState::Succeeded, "{first} {second}: {:?}", bench.states());
        for index in 0..first.max(second) {
            let task = bench.named(&format!("m[{index}]"));
            if index < second {
                assert_eq!(task.state, TaskState::Succeeded);
                assert_eq!(task.attempt, if index < first { 2 } else { 1 });
            } else {
                assert_eq!(task.state, TaskState::Removed);
            }
        }
        let counts = &bench.engine.run_row(bench.run).unwrap().counts;
        assert_eq!(counts[TaskState::Pending as usize], 0);
        assert_eq!(counts[TaskState::Succeeded as usize], second + 1, "{first} {second}");
    }
}

#[test]
pub(crate) fn a_composite_is_activated_anew() {
    let inner = graph("inner", vec![node("x"), needs("y", &[0])]);
    let call = Node { call: TemplateNo(3), ..node("c") };
    let mut bench = Bench::new(workflow(vec![call, needs("z", &[0])], vec![inner]));
    bench.go();
    bench.clear(&["c"], true, false);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(bench.engine.task_rows(bench.run).len(), 1 + 2 + 2 + 2);
    assert_eq!(attempts(&bench, &["c", "z"]), [2, 2]);
}

#[test]
pub(crate) fn a_task_inside_a_composite_reopens_what_owns_it() {
    let inner = graph("inner", vec![node("x"), needs("y", &[0])]);
    let call = Node { call: TemplateNo(3), ..node("c") };
    let mut bench = Bench::new(workflow(vec![call, needs("z", &[0])], vec![inner]));
    bench.script = fails(&["y"]);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    bench.script = fails(&[]);
    bench.clear(&["y"], false, false);
    assert_eq!(bench.states()["c"], TaskState::Running);
    bench.clear(&["z"], false, false);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded, "{:?}", bench.states());
    assert_eq!(attempts(&bench, &["c", "x", "y", "z"]), [1, 1, 2, 1]);
}

#[test]
pub(crate) fn a_running_task_is_killed_and_runs_again() {
    let mut bench = Bench::new(diamond());
    bench.started("a");
    let first = bench.launch_of("a");
    bench.clear(&["a"], false, false);
    assert_eq!(bench.killed, vec![first]);
    assert_eq!(bench.states()["a"], TaskState::Cancelling);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(attempts(&bench, &["a", "b"]), [2, 1]);
}

#[test]
pub(crate) fn waiting_tasks_can_be_cleared() {
    let a = Node {
        retry: Some(Retry {
            backoff: Backoff { delay_ms: 60_000, factor: 1.0, ..Backoff::default() },
            ..retry(1).unwrap()
        }),
        ..node("a")
    };
    type Wait = fn() -> ReportBody;
    let waits: [(TaskState, Wait); 4] = [
        (TaskState::RetryWait, || finished(Outcome::Failed, Cause::Code)),
        (TaskState::Deferred, || ReportBody::Deferred { until: None, carry: Json::from(1) }),
        (TaskState::Rescheduled, || ReportBody::Rescheduled {
            until: EngineTime(9_000_000),
            carry: Json::from(1),
        }),
        (TaskState::Suspended, || ReportBody::Suspended { carry: Json::from(1) }),
    ];
    for (state, wait) in waits {
        for with_clear in [true, false] {
            let mut bench = Bench::new(workflow(vec![a.clone()], vec![]));
            let id = bench.launch_of("a");
            bench.launched.clear();
            bench.report(id, wait());
            assert_eq!(bench.states()["a"], state);
            if with_clear {
                bench.clear(&["a"], false, false);
                assert_eq!(bench.launched.len(), 1, "{state}");
                assert_eq!(bench.launched[0].carry, Json::Null);
                bench.go();
                assert_eq!(bench.state(), RunState::Succeeded);
            } else {
                let task = bench.id("a");
                bench.apply(Command::StopTask { task, reason: "enough".to_owned() });
                assert_eq!(bench.named("a").state, TaskState::Cancelled);
                assert_eq!(bench.state(), RunState::Cancelled);
            }
        }
    }
    // Ready, behind a limit.
    let limited = Node {
        limits: vec![LimitUse { limit: "none".to_owned(), weight: 1, while_waiting: false }],
        ..node("a")
    };
    let mut bench = Bench::new(workflow(vec![limited], vec![]));
    assert_eq!(bench.states()["a"], TaskState::Ready);
    bench.clear(&["a"], false, false);
    assert_eq!(bench.states()["a"], TaskState::Ready);
    let task = bench.id("a");
    bench.apply(Command::StopTask { task, reason: String::new() });
    assert_eq!(bench.state(), RunState::Cancelled);
}

#[test]
pub(crate) fn every_finished_state_can_be_cleared() {
    let nodes = vec![
        node("a"),
        Node { gate: says(GateVerdict::Skip), ..node("skipped") },
        Node { gate: says(GateVerdict::UpstreamFail), ..node("upstream failed") },
        Node { gate: says(GateVerdict::Remove), ..node("removed") },
        node("stopped"),
        node("failed"),
    ];
    let mut bench = Bench::new(workflow(nodes, vec![]));
    let task = bench.id("stopped");
    bench.apply(Command::StopTask { task, reason: String::new() });
    bench.script = fails(&["failed"]);
    bench.go();
    let before = bench.states();
    bench.clear(&[], false, false);
    bench.go();
    let after = bench.states();
    assert_eq!(after["stopped"], TaskState::Succeeded);
    for name in ["a", "skipped", "upstream failed", "removed", "failed"] {
        assert_eq!(before[name], after[name]);
    }
    assert_eq!(bench.state(), RunState::Failed);
}

#[test]
pub(crate) fn every_outcome_of_a_composite_can_be_reopened() {
    for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Skipped, Outcome::Cancelled] {
        let mut inner = graph("inner", vec![node("x"), node("w")]);
        if let (TemplateBody::Graph(graph), true) = (&mut inner.body, outcome == Outcome::Skipped) {
            let when = Condition::any_of(&[Outcome::Skipped]);
            graph.verdict.rows = vec![VerdictRow { when, then: Outcome::Skipped }];
        }
        let call = Node { call: TemplateNo(3), ..node("c") };
        let mut bench = Bench::new(workflow(vec![call], vec![inner]));
        bench.ends("w", Outcome::Succeeded);
        if outcome == Outcome::Cancelled {
            bench.launched.clear();
            let task = bench.id("x");
            bench.apply(Command::StopTask { task, reason: String::new() });
            bench.go();
        } else {
            bench.ends("x", outcome);
        }
        assert_eq!(bench.states()["c"], outcome.state());
        bench.clear(&["w"], false, false);
        assert_eq!(bench.states()["c"], TaskState::Running);
        bench.go();
        assert_eq!(bench.states()["c"], outcome.state());
    }
}

#[test]
pub(crate) fn mapped_summaries_of_every_outcome_go_on() {
    for (outcome, gate) in [
        (Outcome::Succeeded, Gate::always()),
        (Outcome::Skipped, says(GateVerdict::Skip)),
        (Outcome::UpstreamFailed, says(GateVerdict::UpstreamFail)),
    ] {
        let m = Node {
            gate,
            call: TemplateNo(1),
            expansion: Some(Expansion {
                at: ExpansionAt::Upstream(Vec::new()),
                ..mapped(2).unwrap()
            }),
            ..node("m")
        };
        let mut bench = Bench::new(workflow(vec![m], vec![]));
        assert_eq!(bench.states()["m"], outcome.state());
        bench.clear(&["m[0]"], false, false);
        assert_eq!(bench.states()["m"], outcome.state());
        assert!(bench.state().is_finished());
    }
}

#[test]
pub(crate) fn a_mark_lets_readers_go_on() {
    let mut bench = Bench::new(diamond());
    let task = bench.id("a");
    let body = bench.launch_of("a");
    bench.started("a");
    bench.apply(Command::Mark { task, outcome: Outcome::Succeeded, by: "ann".to_owned() });
    assert_eq!(bench.killed, vec![body]);
    bench.killed.clear();
    let stale = Command::Report(kobza_engine::Report {
        launch: body,
        at: bench.now.wall,
        body: finished(Outcome::Failed, Cause::Code),
    });
    assert_eq!(bench.refuse(stale), "the launch is no longer current");
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(
        (bench.named("a").state, bench.named("a").cause),
        (TaskState::Succeeded, Cause::Hand)
    );
}

#[test]
pub(crate) fn a_mark_after_the_end_changes_how_the_run_ended() {
    let mut bench = Bench::new(diamond());
    bench.script = fails(&["d"]);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    let task = bench.id("d");
    bench.apply(Command::Mark { task, outcome: Outcome::Succeeded, by: "ann".to_owned() });
    assert_eq!(bench.state(), RunState::Succeeded);
    let text = bench.refuse(Command::Mark { task, outcome: Outcome::Removed, by: String::new() });
    assert_eq!(text, "a task cannot be marked removed; use succeeded, failed or skipped");
    let task = TaskId { run: bench.run, task: TaskNo(0) };
    let text = bench.refuse(Command::Mark { task, outcome: Outcome::Failed, by: String::new() });
    assert_eq!(text, "the run's own task cannot be marked; stop or clear the run");
}

#[test]
pub(crate) fn a_rerun_counts_against_max_active_runs() {
    let mut definition = workflow(vec![node("a")], vec![]);
    definition.max_active_runs = Some(1);
    let mut bench = Bench::new(definition.clone());
    bench.go();
    let first = bench.run;
    bench.clear(&["a"], false, false);
    assert_eq!(bench.state(), RunState::Running);
    // A new run waits for the one that runs again.
    bench.start(definition, 2);
    assert_eq!(bench.state(), RunState::Queued);
    let launch = bench.launched.remove(0).id;
    assert_eq!(launch.run, first);
    bench.end(launch, Outcome::Succeeded, Cause::None);
    assert_eq!(bench.state(), RunState::Running);
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn a_cleared_run_waits_when_its_workflow_is_full() {
    for restart in [false, true] {
        let mut definition = workflow(vec![node("a")], vec![]);
        definition.max_active_runs = Some(1);
        let mut bench = Bench::new(definition.clone());
        bench.go();
        let first = bench.run;
        bench.start(definition.clone(), 2);
        let second = bench.run;
        bench.run = first;
        bench.clear(&["a"], false, false);
        assert_eq!(bench.state(), RunState::Queued);
        assert!(bench.launched.iter().all(|l| l.id.run == second));
        if restart {
            let images = [first, second].map(|run| bench.engine.image(run).unwrap());
            bench.engine = kobza_engine::Engine::new(kobza_engine::EngineOptions::default());
            for image in images {
                let definition = std::sync::Arc::new(definition.clone());
                bench.engine.restore_run(image, definition, bench.now).unwrap();
            }
            bench.engine.take_up(bench.now);
            bench.launched.clear();
            bench.settle();
            assert_eq!(bench.state(), RunState::Queued);
        }
        let launch = bench.launched.remove(0).id;
        assert_eq!(launch.run, second);
        bench.end(launch, Outcome::Succeeded, Cause::None);
        assert_eq!(bench.state(), RunState::Running);
        bench.go();
        assert_eq!(bench.state(), RunState::Succeeded);
        assert_eq!(bench.task("a").attempt, 2);
    }
}

#[test]
pub(crate) fn clears_that_mean_nothing_are_refused() {
    let mut bench = Bench::new(diamond());
    let text = bench.refuse(Command::Clear {
        run: bench.run,
        tasks: vec![TaskNo(99)],
        options: kobza_engine::ClearOptions::default(),
    });
    assert!(text.ends_with("does not exist"), "{text}");
    bench.started("a");
    bench.apply(Command::StopRun {
        run: bench.run,
        mode: kobza_engine::StopMode::Cancel,
        reason: String::new(),
    });
    let text = bench.refuse(Command::Clear {
        run: bench.run,
        tasks: vec![],
        options: kobza_engine::ClearOptions::default(),
    });
    assert!(text.ends_with("is cancelling; wait until it has ended, then clear"), "{text}");
}

#[test]
pub(crate) fn a_task_inside_a_mapped_composite_reopens_all_above() {
    for only_failed in [true, false] {
        let inner = graph("inner", vec![node("x"), needs("y", &[0])]);
        let call = Node { call: TemplateNo(3), expansion: mapped(3), ..node("c") };
        let mut bench = Bench::new(workflow(vec![call, needs("z", &[0])], vec![inner]));
        let mut calls = 0;
        bench.script = Box::new(move |name, _| {
            calls += u32::from(name == "y");
            if name == "y" && calls == 2 {
                (Outcome::Failed, Cause::Code)
            } else {
                (Outcome::Succeeded, Cause::None)
            }
        });
        bench.go();
        assert_eq!(bench.state(), RunState::Failed);
        let rows = bench.engine.task_rows(bench.run);
        let count = rows.len();
        let failed =
            rows.iter().find(|t| t.name == "y" && t.state == TaskState::Failed).unwrap().task;
        if only_failed {
            bench.clear(&[], false, true);
        } else {
            let tasks = vec![failed, bench.named("z").task];
            bench.apply(Command::Clear {
                run: bench.run,
                tasks,
                options: kobza_engine::ClearOptions::default(),
            });
        }
        assert_eq!(bench.states()["c"], TaskState::Running);
        assert_eq!(bench.states()["z"], TaskState::Pending);
        bench.go();
        assert_eq!(bench.state(), RunState::Succeeded, "{:?}", bench.states());
        let rows = bench.engine.task_rows(bench.run);
        assert_eq!(rows.len(), count, "nothing was activated anew");
        assert_eq!(rows.iter().filter(|t| t.attempt == 2).count(), 1);
    }
}

#[test]
pub(crate) fn an_instance_that_a_map_no_longer_has_stays_removed() {
    let expansion = mapped(0).map(|e| Expansion { by: ExpansionBy::Ask, ..e });
    let mut bench = Bench::new(workflow(vec![Node { expansion, ..node("m") }], vec![]));
    bench.go();
    bench.decide = Box::new(|_, _| Decision::Expand { length: 2, items: None, inputs: Json::Null });
    bench.clear(&["m"], false, false);
    // While the shorter map runs, all of it is cleared again, and the one that is gone by name.
    bench.clear(&["m"], false, false);
    bench.clear(&["m[2]"], false, false);
    assert_eq!(bench.states()["m[2]"], TaskState::Removed);
    bench.go();
    assert_eq!(bench.states()["m[2]"], TaskState::Removed);
    assert_eq!(bench.states()["m[1]"], TaskState::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn a_run_that_is_cancelled_after_a_clear_leaves_nothing_pending() {
    let m = Node { expansion: mapped(2), ..needs("m", &[0]) };
    let mut bench = Bench::new(workflow(vec![node("a"), m], vec![]));
    bench.go();
    bench.clear(&["a"], true, false);
    assert_eq!(bench.states()["m[0]"], TaskState::Pending);
    bench.started("a");
    let (run, mode) = (bench.run, kobza_engine::StopMode::Cancel);
    bench.apply(Command::StopRun { run, mode, reason: String::new() });
    bench.ends("a", Outcome::Cancelled);
    assert_eq!(bench.state(), RunState::Cancelled);
    let open: Vec<_> = bench.states().into_iter().filter(|(_, s)| !s.is_finished()).collect();
    assert!(open.is_empty(), "{open:?}");
}

#[test]
pub(crate) fn what_lies_in_an_earlier_activation_is_not_cleared() {
    let inner = graph("inner", vec![node("x")]);
    let call = Node { call: TemplateNo(3), retry: retry(1), ..node("call") };
    let mut bench = Bench::new(workflow(vec![call], vec![inner]));
    let first = bench.named("x").task;
    bench.script = fails(&["x"]);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    let options = kobza_engine::ClearOptions::default();
    bench.apply(Command::Clear { run: bench.run, tasks: vec![first], options });
    assert_eq!(bench.state(), RunState::Failed);
    // An owner and a task inside of it: the owner begins anew, and the task with it.
    let tasks = vec![bench.named("call").task, bench.named("x").task];
    bench.script = fails(&[]);
    bench.apply(Command::Clear { run: bench.run, tasks, options });
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
}
