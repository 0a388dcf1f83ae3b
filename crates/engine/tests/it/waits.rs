//! Time-outs, deferral, lost bodies, stale reports, pause, priorities, limits.

use kobza_engine::{Command, Decision, EngineOptions, Report, ReportBody, StopMode};
use kobza_model::*;

use crate::harness::*;

fn one(node: Node) -> Bench {
    Bench::new(workflow(vec![node], vec![]))
}

#[test]
pub(crate) fn an_attempt_that_runs_too_long_is_killed_and_retried() {
    let mut bench = one(Node { attempt_timeout_ms: Some(10_000), retry: retry(1), ..node("a") });
    assert_eq!(bench.launched[0].timeout_ms, Some(10_000));
    bench.after(60_000);
    assert_eq!(bench.states()["a"], TaskState::Queued, "time in a queue does not count");
    bench.started("a");
    // The executor enforces it; the engine steps in a little later.
    bench.after(14_999);
    assert_eq!(bench.states()["a"], TaskState::Running);
    bench.after(1);
    assert_eq!(bench.states()["a"], TaskState::Cancelling);
    let id = bench.killed.remove(0);
    bench.end(id, Outcome::Cancelled, Cause::Hand);
    assert_eq!(
        (bench.named("a").state, bench.named("a").cause),
        (TaskState::RetryWait, Cause::Timeout)
    );
    bench.after(0);
    bench.started("a");
    let id = bench.launch_of("a");
    bench.end(id, Outcome::Failed, Cause::Timeout);
    assert_eq!(
        (bench.named("a").state, bench.named("a").cause),
        (TaskState::Failed, Cause::Timeout)
    );
}

#[test]
pub(crate) fn a_tasks_total_time_spans_its_attempts() {
    let mut bench = one(Node {
        attempt_timeout_ms: Some(8_000),
        timeout_ms: Some(10_000),
        retry: retry(9),
        ..node("a")
    });
    bench.started("a");
    bench.after(4_000);
    bench.ends("a", Outcome::Failed);
    bench.after(0);
    assert_eq!(bench.launched[0].timeout_ms, Some(6_000));
    bench.started("a");
    bench.after(6_000);
    bench.ends("a", Outcome::Failed);
    assert_eq!(
        (bench.named("a").state, bench.named("a").cause),
        (TaskState::Failed, Cause::Timeout)
    );
    assert_eq!(bench.named("a").message.as_deref(), Some("out of time for another attempt"));
    assert_eq!(bench.named("a").attempt, 2);
}

#[test]
pub(crate) fn a_tasks_total_time_also_ends_its_waits() {
    type Wait = fn() -> ReportBody;
    let waits: [(TaskState, Wait); 3] = [
        (TaskState::Deferred, || ReportBody::Deferred { until: None, carry: Json::Null }),
        (TaskState::Rescheduled, || ReportBody::Rescheduled {
            until: EngineTime(90_000_000),
            carry: Json::Null,
        }),
        (TaskState::Suspended, || ReportBody::Suspended { carry: Json::Null }),
    ];
    for (state, wait) in waits {
        let a = Node { timeout_ms: Some(10_000), retry: retry(5), ..node("a") };
        let definition = workflow(vec![a], vec![]);
        let mut bench = Bench::new(definition.clone());
        bench.started("a");
        let id = bench.launch_of("a");
        bench.report(id, wait());
        bench.restart(&definition, EngineOptions::default());
        bench.after(9_999);
        assert_eq!(bench.states()["a"], state);
        bench.after(1);
        assert_eq!(
            (bench.named("a").state, bench.named("a").cause),
            (TaskState::Failed, Cause::Timeout)
        );
        assert_eq!(bench.state(), RunState::Failed);
    }
}

#[test]
pub(crate) fn a_composite_runs_out_of_time_with_all_in_it() {
    let inner = graph("inner", vec![node("x"), needs("y", &[0])]);
    let mut bench = Bench::new(workflow(
        vec![Node { call: TemplateNo(3), timeout_ms: Some(1_000), ..node("c") }],
        vec![inner],
    ));
    bench.started("x");
    bench.after(1_000);
    assert_eq!(bench.states()["x"], TaskState::Cancelling);
    assert_eq!(bench.states()["y"], TaskState::Cancelled);
    bench.go();
    assert_eq!(
        (bench.named("c").state, bench.named("c").cause),
        (TaskState::Failed, Cause::Timeout)
    );
    assert_eq!(bench.state(), RunState::Failed);
}

#[test]
pub(crate) fn a_run_out_of_time_fails() {
    let mut definition = workflow(vec![node("a"), needs("b", &[0])], vec![]);
    definition.timeout_ms = Some(1_000);
    let mut bench = Bench::new(definition);
    bench.started("a");
    bench.after(999);
    assert_eq!(bench.state(), RunState::Running);
    bench.after(1);
    assert_eq!(bench.state(), RunState::Cancelling);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    assert_eq!(bench.engine.run_row(bench.run).unwrap().cause, Cause::Timeout);
}

#[test]
pub(crate) fn a_deferred_task_goes_on_as_the_same_attempt() {
    for by_call in [true, false] {
        let mut bench = one(node("a"));
        bench.started("a");
        let first = bench.launch_of("a");
        let until = (!by_call).then_some(EngineTime(5_000_000));
        bench.report(first, ReportBody::Deferred { until, carry: Json::from("half") });
        assert_eq!(bench.states()["a"], TaskState::Deferred);
        assert_eq!(bench.engine.limits()[0].used, 0, "it holds no worker");
        if by_call {
            let task = bench.id("a");
            bench.apply(Command::ResumeTask { task, outputs: None, carry: Some(Json::from("x")) });
        } else {
            bench.after(5_000);
        }
        let again = bench.launched.last().unwrap().clone();
        assert_eq!(again.id.launch, first.launch + 1);
        assert_eq!(again.attempt, 1);
        assert_eq!(again.carry, Json::from(if by_call { "x" } else { "half" }));
        bench.ends("a", Outcome::Succeeded);
        assert_eq!(bench.state(), RunState::Succeeded);
    }
}

#[test]
pub(crate) fn waiting_tasks_end_with_a_result() {
    for body in [
        ReportBody::Deferred { until: None, carry: Json::Null },
        ReportBody::Rescheduled { until: EngineTime(1_000_000), carry: Json::Null },
        ReportBody::Suspended { carry: Json::Null },
    ] {
        for started in [true, false] {
            let mut bench = one(node("a"));
            if started {
                bench.started("a");
            }
            let id = bench.launch_of("a");
            bench.report(id, body.clone());
            let task = bench.id("a");
            bench.apply(Command::ResumeTask { task, outputs: Some(vec![]), carry: None });
            assert_eq!(bench.state(), RunState::Succeeded);
            let text = bench.refuse(Command::ResumeTask { task, outputs: None, carry: None });
            assert!(text.ends_with("only a suspended or deferred task can be resumed"), "{text}");
        }
    }
}

#[test]
pub(crate) fn a_killed_body_may_end_in_any_way() {
    for (outcome, state) in [
        (Outcome::Succeeded, TaskState::Succeeded),
        (Outcome::Skipped, TaskState::Skipped),
        (Outcome::Failed, TaskState::Cancelled),
        (Outcome::Cancelled, TaskState::Cancelled),
    ] {
        for started in [true, false] {
            let mut bench = one(node("a"));
            if started {
                bench.started("a");
            }
            let task = bench.id("a");
            bench.apply(Command::StopTask { task, reason: "by hand".to_owned() });
            assert_eq!(bench.states()["a"], TaskState::Cancelling);
            let text = bench.refuse(Command::StopTask { task, reason: String::new() });
            assert!(text.contains("is cancelling"), "{text}");
            bench.ends("a", outcome);
            assert_eq!(bench.states()["a"], state);
        }
    }
    // Its time is up and it fails by itself: that is a time-out.
    let mut bench = one(Node { attempt_timeout_ms: Some(1), ..node("a") });
    bench.started("a");
    bench.after(10_000);
    bench.ends("a", Outcome::Failed);
    assert_eq!(
        (bench.named("a").state, bench.named("a").cause),
        (TaskState::Failed, Cause::Timeout)
    );
}

#[test]
pub(crate) fn bodies_that_end_unannounced() {
    // Reports may overtake `Started`.
    for (outcome, state) in [
        (Outcome::Succeeded, TaskState::Succeeded),
        (Outcome::Failed, TaskState::Failed),
        (Outcome::Skipped, TaskState::Skipped),
        (Outcome::Cancelled, TaskState::Cancelled),
    ] {
        for started in [true, false] {
            let mut bench = one(node("a"));
            if started {
                bench.started("a");
            }
            bench.ends("a", outcome);
            assert_eq!(bench.states()["a"], state);
        }
    }
    let mut bench = one(Node { retry: retry(1), ..node("a") });
    bench.ends("a", Outcome::Failed);
    assert_eq!(bench.states()["a"], TaskState::RetryWait);
}

#[test]
pub(crate) fn lost_launches_are_sent_again_up_to_the_limit() {
    let mut bench = Bench::with(
        workflow(vec![Node { retry: retry(1), ..node("a") }], vec![]),
        EngineOptions { lost_limit: 2, ..EngineOptions::default() },
    );
    let mut seen = Vec::new();
    for _ in 0..6 {
        if bench.states()["a"] == TaskState::RetryWait {
            bench.after(0);
        }
        let task = bench.named("a");
        seen.push((task.attempt, task.launch, task.lost));
        bench.started("a");
        let id = bench.launch_of("a");
        bench.report(id, ReportBody::Lost { message: "its host is gone".to_owned() });
    }
    assert_eq!(seen, [(1, 1, 0), (1, 2, 1), (1, 3, 2), (2, 4, 0), (2, 5, 1), (2, 6, 2)]);
    assert_eq!((bench.named("a").state, bench.named("a").cause), (TaskState::Failed, Cause::Lost));
    assert_eq!(bench.named("a").message.as_deref(), Some("its host is gone"));
}

#[test]
pub(crate) fn stale_and_repeated_reports_change_nothing() {
    let mut bench = one(node("a"));
    let first = bench.launch_of("a");
    bench.started("a");
    // The same again is taken and changes nothing.
    bench.report(first, ReportBody::Started);
    assert_eq!(bench.batches.last().unwrap().events, vec![]);
    bench.report(first, ReportBody::Lost { message: String::new() });
    for body in [
        ReportBody::Started,
        finished(Outcome::Succeeded, Cause::None),
        ReportBody::Lost { message: String::new() },
        ReportBody::Outputs(vec![("x".to_owned(), Json::Null)]),
    ] {
        let report = Report { launch: first, at: bench.now.wall, body };
        assert_eq!(bench.refuse(Command::Report(report)), "the launch is no longer current");
    }
    let second = bench.launch_of("a");
    bench.ends("a", Outcome::Succeeded);
    let report =
        Report { launch: second, at: bench.now.wall, body: finished(Outcome::Failed, Cause::Code) };
    assert_eq!(bench.refuse(Command::Report(report)), "the launch is no longer current");
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn outputs_may_follow_an_end_and_data_is_published_before_it() {
    let mut bench = Bench::new(workflow(vec![node("a"), needs("b", &[0])], vec![]));
    bench.started("a");
    let a = bench.launch_of("a");
    let published = || ReportBody::Published {
        asset: "x".to_owned(),
        partition: None,
        metadata: "{}".to_owned(),
    };
    bench.report(a, published());
    let is_x = |event: &Event| matches!(&event.kind, EventKind::Materialized { asset, .. } if asset == "x");
    assert!(bench.batches.last().unwrap().events.iter().any(is_x));
    bench.ends("a", Outcome::Succeeded);
    bench.report(a, ReportBody::Outputs(vec![("late".to_owned(), Json::Null)]));
    assert_eq!(bench.batches.last().unwrap().outputs.len(), 1);
    let report = Report { launch: a, at: bench.now.wall, body: published() };
    assert_eq!(bench.refuse(Command::Report(report)), "the launch is no longer current");
}

#[test]
pub(crate) fn retries_look_at_the_cause_the_exit_code_and_the_dialect() {
    let by = |retry: Retry| one(Node { retry: Some(retry), ..node("a") });
    let fail = |bench: &mut Bench, cause, code| {
        let id = bench.launch_of("a");
        let mut body = finished(Outcome::Failed, cause);
        if let ReportBody::Finished { exit_code, .. } = &mut body {
            *exit_code = Some(code);
        }
        bench.report(id, body);
        bench.states()["a"]
    };
    let base = || retry(3).unwrap();
    let mut bench = by(Retry { causes: vec![Cause::Infrastructure], ..base() });
    assert_eq!(fail(&mut bench, Cause::Infrastructure, 1), TaskState::RetryWait);
    let mut bench = by(Retry { causes: vec![Cause::Infrastructure], ..base() });
    assert_eq!(fail(&mut bench, Cause::Code, 1), TaskState::Failed);
    let mut bench = by(Retry { exit_codes: vec![75], ..base() });
    assert_eq!(fail(&mut bench, Cause::Code, 75), TaskState::RetryWait);
    let mut bench = by(Retry { exit_codes: vec![75], ..base() });
    assert_eq!(fail(&mut bench, Cause::Code, 1), TaskState::Failed);
    for (decision, state) in [
        (Decision::Retry { delay_ms: Some(3_000), carry: Json::Null }, TaskState::RetryWait),
        (Decision::GiveUp { message: Some("hopeless".to_owned()) }, TaskState::Failed),
        (
            Decision::Fail { cause: Cause::Template, message: "hopeless".to_owned() },
            TaskState::Failed,
        ),
        (Decision::Run { inputs: Json::Null }, TaskState::Failed),
    ] {
        let mut bench = by(Retry { ask: true, ..base() });
        let answer = decision.clone();
        bench.decide = Box::new(move |_, _| answer.clone());
        assert_eq!(fail(&mut bench, Cause::Code, 1), state, "{decision:?}");
        if state == TaskState::RetryWait {
            bench.after(2_999);
            assert_eq!(bench.states()["a"], TaskState::RetryWait);
            bench.after(1);
            assert_eq!(bench.states()["a"], TaskState::Queued);
        }
    }
}

#[test]
pub(crate) fn guards_may_skip_succeed_or_fail() {
    for (decision, state, cause) in [
        (Decision::Skip { cause: Cause::Guard, message: None }, TaskState::Skipped, Cause::Guard),
        (
            Decision::Succeed { cause: Cause::Cache, outputs: vec![] },
            TaskState::Succeeded,
            Cause::Cache,
        ),
        (
            Decision::Fail { cause: Cause::Template, message: "no such parameter".to_owned() },
            TaskState::Failed,
            Cause::Template,
        ),
        (Decision::GiveUp { message: None }, TaskState::Failed, Cause::Infrastructure),
    ] {
        let mut bench = one(node("idle"));
        bench.decide = Box::new(move |_, _| decision.clone());
        bench.start(workflow(vec![Node { guard: true, ..node("a") }], vec![]), 2);
        assert_eq!((bench.named("a").state, bench.named("a").cause), (state, cause));
        assert!(bench.state().is_finished());
    }
}

#[test]
pub(crate) fn a_paused_run_starts_nothing_new() {
    let mut bench = Bench::new(workflow(vec![node("a"), needs("b", &[0])], vec![]));
    bench.started("a");
    bench.apply(Command::PauseRun { run: bench.run });
    bench.ends("a", Outcome::Succeeded);
    assert_eq!(bench.states()["b"], TaskState::Ready);
    assert!(bench.launched.is_empty());
    assert_eq!(bench.why("b"), ["its run is paused"]);
    let text = bench.refuse(Command::PauseRun { run: bench.run });
    assert!(text.ends_with("only a running run can be paused"), "{text}");
    bench.apply(Command::ResumeRun { run: bench.run });
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    let text = bench.refuse(Command::ResumeRun { run: bench.run });
    assert!(text.ends_with("only a paused run can be resumed"), "{text}");
    // A paused run can be stopped.
    let mut bench = Bench::new(workflow(vec![node("a"), needs("b", &[0])], vec![]));
    bench.apply(Command::PauseRun { run: bench.run });
    bench.apply(Command::StopRun { run: bench.run, mode: StopMode::Stop, reason: "x".to_owned() });
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
}

fn limited(name: &str, weight: u32, priority: i32) -> Node {
    let limits = vec![LimitUse { limit: "pool".to_owned(), weight, while_waiting: false }];
    Node { limits, priority, ..node(name) }
}

fn launched(bench: &Bench) -> Vec<String> {
    bench.launched.iter().map(|l| bench.engine.task_row(l.id.task_id()).unwrap().name).collect()
}

fn pool(capacity: u32, strict: bool, nodes: Vec<Node>) -> Bench {
    let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
    bench.go();
    bench.limit("pool", capacity, strict);
    bench.start(workflow(nodes, vec![]), 2);
    bench
}

#[test]
pub(crate) fn priorities_decide_who_is_next() {
    let mut bench = pool(
        1,
        false,
        vec![
            limited("first", 1, 0),
            limited("low", 1, 1),
            limited("high", 1, 9),
            limited("mid", 1, 5),
        ],
    );
    let mut order = Vec::new();
    while !bench.launched.is_empty() {
        let names = launched(&bench);
        assert_eq!(names.len(), 1);
        bench.ends(&names[0], Outcome::Succeeded);
        order.extend(names);
    }
    assert_eq!(order, ["first", "high", "mid", "low"]);
}

#[test]
pub(crate) fn a_strict_limit_lets_nobody_pass_and_a_loose_one_does() {
    for strict in [true, false] {
        let nodes = || vec![limited("two", 2, 9), limited("three", 3, 5), limited("one", 1, 1)];
        let mut bench = pool(3, strict, nodes());
        let expected: &[&str] = if strict { &["two"] } else { &["two", "one"] };
        assert_eq!(launched(&bench), expected);
        bench.ends("two", Outcome::Succeeded);
        if strict {
            assert_eq!(launched(&bench), ["three"]);
        } else {
            assert_eq!(launched(&bench), ["one"], "three does not fit beside it");
            bench.ends("one", Outcome::Succeeded);
            assert_eq!(launched(&bench), ["three"]);
        }
        bench.go();
        assert_eq!(bench.state(), RunState::Succeeded);
    }
}

#[test]
pub(crate) fn several_limits_are_taken_all_or_none() {
    let both = Node {
        limits: ["left", "right"]
            .map(|l| LimitUse { limit: l.to_owned(), weight: 1, while_waiting: false })
            .to_vec(),
        ..node("both")
    };
    let right = Node { limits: vec![both.limits[1].clone()], ..node("right") };
    let left = Node { limits: vec![both.limits[0].clone()], ..node("left") };
    let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
    bench.go();
    bench.limit("left", 1, false);
    bench.limit("right", 1, false);
    bench.start(workflow(vec![right, both, left], vec![]), 2);
    // `both` waits for the right one and holds nothing of the left one meanwhile.
    assert_eq!(launched(&bench), ["right", "left"]);
    bench.ends("right", Outcome::Succeeded);
    assert_eq!(bench.states()["both"], TaskState::Ready);
    bench.ends("left", Outcome::Succeeded);
    assert_eq!(launched(&bench), ["both"]);
}

#[test]
pub(crate) fn limits_held_while_waiting() {
    for held in [true, false] {
        let mut a = limited("a", 1, 9);
        a.limits[0].while_waiting = held;
        let definition = workflow(vec![a, limited("b", 1, 0)], vec![]);
        let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
        bench.go();
        bench.limit("pool", 1, false);
        bench.start(definition, 2);
        let id = bench.launch_of("a");
        bench.launched.clear();
        bench.report(id, ReportBody::Deferred { until: None, carry: Json::Null });
        let b = if held { TaskState::Ready } else { TaskState::Queued };
        assert_eq!(bench.states()["b"], b);
        let task = bench.id("a");
        bench.apply(Command::ResumeTask { task, outputs: None, carry: None });
        bench.go();
        assert_eq!(bench.state(), RunState::Succeeded);
        assert!(bench.engine.limits().iter().all(|l| l.used == 0));
    }
}

#[test]
pub(crate) fn parallelism_of_a_graph_counts_descendants() {
    let inner = graph("inner", vec![node("x"), node("y")]);
    let mut definition =
        workflow(vec![Node { call: TemplateNo(3), ..node("c") }, node("z")], vec![inner]);
    graph_of(&mut definition, 2).parallelism = Some(1);
    let mut bench = Bench::new(definition);
    let mut bodies = 0;
    while !bench.launched.is_empty() {
        assert_eq!(bench.launched.len(), 1);
        let name = launched(&bench).remove(0);
        bench.ends(&name, Outcome::Succeeded);
        bodies += 1;
    }
    assert_eq!(bodies, 3);
    assert_eq!(bench.state(), RunState::Succeeded);
    // Of a run that begins anew as well.
    let clear = Command::Clear {
        run: bench.run,
        tasks: Vec::new(),
        options: kobza_engine::ClearOptions::default(),
    };
    bench.apply(clear);
    while !bench.launched.is_empty() {
        assert_eq!(bench.launched.len(), 1);
        let name = launched(&bench).remove(0);
        bench.ends(&name, Outcome::Succeeded);
        bodies += 1;
    }
    assert_eq!((bodies, bench.state()), (6, RunState::Succeeded));
}

#[test]
pub(crate) fn a_run_stopped_in_its_queue_never_starts() {
    let mut definition = workflow(vec![node("a")], vec![]);
    definition.max_active_runs = Some(1);
    let mut bench = Bench::new(definition.clone());
    bench.start(definition, 2);
    assert_eq!(bench.state(), RunState::Queued);
    bench.apply(Command::StopRun { run: bench.run, mode: StopMode::Cancel, reason: String::new() });
    assert_eq!(bench.state(), RunState::Cancelled);
    bench.go();
    assert_eq!(bench.state(), RunState::Cancelled);
    assert_eq!(bench.engine.task_rows(bench.run).len(), 0);
}

#[test]
pub(crate) fn a_launch_lost_before_it_started_is_sent_again() {
    let mut bench = one(node("a"));
    let first = bench.launch_of("a");
    bench.report(first, ReportBody::Lost { message: "its host is gone".to_owned() });
    assert_eq!(bench.states()["a"], TaskState::Queued);
    assert_eq!(bench.launch_of("a").launch, first.launch + 1);
    bench.ends("a", Outcome::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);
}

/// A guard whose answer is not known yet, such as what becomes of an earlier run.
#[test]
pub(crate) fn a_question_may_stay_open_and_be_asked_again() {
    let mut bench = Bench::new(workflow(vec![], vec![]));
    let wf = workflow(vec![Node { guard: true, ..node("a") }, needs("b", &[0])], vec![]);
    bench.decide = Box::new(|_, _| Decision::Wait { reason: "the day before".to_owned() });
    bench.start(wf.clone(), 2);
    assert_eq!(bench.why("a"), ["the day before"]);
    assert_eq!(bench.named("a").state, TaskState::Pending);
    // Asked again, it still waits; and after a restart too.
    let ask = Command::Ask { task: bench.id("a") };
    bench.apply(ask.clone());
    assert_eq!(bench.why("a"), ["the day before"]);
    bench.restart(&wf, EngineOptions::default());
    assert_eq!(bench.why("a"), ["the day before"]);
    bench.decide = Box::new(|_, _| Decision::Run { inputs: Json::Null });
    bench.apply(ask.clone());
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(bench.named("a").message, None);
    // Nothing is open any more: nothing happens.
    bench.apply(ask);
    assert_eq!(bench.state(), RunState::Succeeded);
}
