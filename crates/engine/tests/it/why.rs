//! "Why is this waiting?", in exact words.

use kobza_engine::{Command, ReportBody};
use kobza_model::*;

use crate::harness::*;

#[test]
pub(crate) fn every_wait_has_its_answer() {
    let late = Retry {
        backoff: Backoff { delay_ms: 2_500, factor: 1.0, ..Backoff::default() },
        ..retry(1).unwrap()
    };
    let pool = vec![LimitUse { limit: "pool".to_owned(), weight: 1, while_waiting: false }];
    let nodes = vec![
        Node { retry: Some(late), ..node("a") },
        Node { expansion: mapped(3), ..node("m") },
        needs("z", &[0, 1]),
        Node {
            gate: Gate::Logical(Tree::Not(Box::new(Tree::Is(Predicate {
                node: NodeNo(0),
                quantifier: Quantifier::Summary,
                outcomes: vec![Outcome::Failed],
                causes: vec![],
                except_causes: vec![],
                or_daemon: false,
            })))),
            ..node("l")
        },
        Node { limits: pool.clone(), ..node("holder") },
        Node { limits: pool, ..node("waiter") },
    ];
    let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
    bench.go();
    bench.limit("pool", 1, false);
    bench.start(workflow(nodes, vec![]), 2);
    assert_eq!(bench.why("a"), ["handed to an executor, which has not started it yet"]);
    bench.started("a");
    assert!(bench.why("a").is_empty());
    bench.ends("m[1]", Outcome::Succeeded);
    assert_eq!(bench.why("z"), ["upstream: a (running), m (running, 1 of 3 done)"]);
    assert_eq!(bench.why("l"), ["upstream: a (running)"]);
    let holder = bench.id("holder");
    assert_eq!(bench.why("waiter"), [format!("limit pool, held by holder ({holder})")]);
    bench.ends("a", Outcome::Failed);
    assert_eq!(bench.why("a"), ["attempt 2 follows in 2.5 s"]);
    bench.now.engine = bench.now.engine.after_millis(1_000);
    bench.apply(Command::Tick);
    assert_eq!(bench.why("a"), ["attempt 2 follows in 1.5 s"]);
    bench.after(1_500);
    let id = bench.launch_of("a");
    bench.report(id, ReportBody::Deferred { until: None, carry: Json::Null });
    assert_eq!(bench.why("a"), ["deferred; wakes when it is told to"]);
    let task = bench.id("a");
    bench.apply(Command::ResumeTask { task, outputs: None, carry: None });
    let id = bench.launch_of("a");
    let until = Some(bench.now.engine.after_millis(60_000));
    bench.report(id, ReportBody::Deferred { until, carry: Json::Null });
    assert_eq!(bench.why("a"), ["deferred; wakes in 60.0 s"]);
    bench.after(60_000);
    let id = bench.launch_of("a");
    let until = bench.now.engine.after_millis(30_000);
    bench.report(
        id,
        ReportBody::Rescheduled { until, carry: serde_json::json!({"waits_for": "/in/x"}) },
    );
    assert_eq!(bench.why("a"), ["rescheduled, waits for /in/x; looks again in 30.0 s"]);
    bench.after(30_000);
    let id = bench.launch_of("a");
    bench.report(id, ReportBody::Suspended { carry: Json::Null });
    assert_eq!(bench.why("a"), ["waits for a person or a call to resume it"]);
    bench.apply(Command::ResumeTask { task, outputs: None, carry: None });
    bench.started("a");
    bench.apply(Command::PauseRun { run: bench.run });
    assert_eq!(
        bench.why("z"),
        ["its run is paused", "upstream: a (running), m (running, 1 of 3 done)"]
    );
    bench.apply(Command::ResumeRun { run: bench.run });
    bench.apply(Command::StopTask { task, reason: String::new() });
    assert_eq!(bench.why("a"), ["its body is being killed"]);
    let nobody = TaskId { run: bench.run, task: TaskNo(999) };
    assert!(bench.engine.why(nobody).is_err());
}

#[test]
pub(crate) fn open_questions_and_slots() {
    let mut bench = Bench::with(
        workflow(vec![node("a"), node("b")], vec![]),
        kobza_engine::EngineOptions { slots: 1, ..kobza_engine::EngineOptions::default() },
    );
    let a = bench.id("a");
    assert_eq!(bench.why("b"), [format!("limit worker slots, held by a ({a})")]);
    bench.go();
    // A question that nobody has answered yet.
    let mut nodes = vec![Node { guard: true, ..node("g") }];
    nodes[0].retry = Some(Retry { ask: true, ..retry(1).unwrap() });
    let definition = workflow(nodes, vec![]);
    let start = kobza_engine::StartRun {
        run: RunId(uuid::Uuid::from_u128(9)),
        namespace: "default".to_owned(),
        workflow: std::sync::Arc::new(definition),
        version: "v9".to_owned(),
        params: Json::Null,
        key: None,
        trigger: "test".to_owned(),
        interval: None,
        partition: None,
        labels: Json::Null,
        parent: None,
        priority: 0,
        extra: Json::Null,
    };
    bench.run = start.run;
    bench.engine.apply(Command::StartRun(Box::new(start)), bench.now).unwrap();
    while bench.engine.work(64) {}
    assert_eq!(
        bench.why("g"),
        ["its guard's question is open: the condition or the length of its map is being computed"]
    );
    bench.settle();
    let id = bench.launch_of("g");
    let report = kobza_engine::Report {
        launch: id,
        at: bench.now.wall,
        body: finished(Outcome::Failed, Cause::Code),
    };
    bench.engine.apply(Command::Report(report), bench.now).unwrap();
    assert_eq!(bench.why("g"), ["whether to retry is being decided"]);
}

#[test]
pub(crate) fn a_timed_suspension_says_when_it_goes_on() {
    let mut definition =
        workflow(vec![Node { call: TemplateNo(3), guard: true, ..node("w") }], vec![]);
    definition.templates.push(leaf("suspend"));
    let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
    bench.decide = Box::new(|_, _| kobza_engine::Decision::Run {
        inputs: serde_json::json!({ "duration_ms": 1500 }),
    });
    bench.start(definition, 2);
    assert_eq!(bench.why("w"), ["suspended; goes on by itself in 1.5 s"]);
}

#[test]
pub(crate) fn what_an_instance_and_a_group_wait_for() {
    let nodes = vec![
        Node { expansion: mapped(3), ..node("m") },
        Node {
            expansion: Some(Expansion {
                at: ExpansionAt::Upstream(vec![]),
                by: ExpansionBy::Like(NodeNo(0)),
                ..mapped(3).unwrap()
            }),
            edges: vec![Edge { instances: Instances::Aligned, ..Edge::on(NodeNo(0)) }],
            ..node("follows")
        },
    ];
    let mut bench = Bench::new(workflow(nodes, vec![]));
    bench.ends("m[1]", Outcome::Succeeded);
    assert_eq!(bench.why("m"), ["its instances: 1 of 3 have ended"]);
    assert_eq!(bench.why("follows[2]"), ["upstream: m[2] (queued)"]);
    bench.ends("m[2]", Outcome::Failed);
    assert_eq!(bench.why("follows[2]"), ["upstream: m[2] (failed)"], "what its gate saw");
}

#[test]
pub(crate) fn who_comes_first_and_what_never_fits() {
    let uses = |weight| vec![LimitUse { limit: "pool".to_owned(), weight, while_waiting: false }];
    let nodes = vec![
        Node { limits: uses(2), ..node("holder") },
        Node { limits: uses(2), ..node("first") },
        Node { limits: uses(1), ..node("second") },
        Node { limits: uses(4), ..node("never") },
    ];
    let mut bench = Bench::new(workflow(vec![node("idle")], vec![]));
    bench.go();
    bench.limit("pool", 3, true);
    bench.start(workflow(nodes, vec![]), 2);
    let (holder, first) = (bench.id("holder"), bench.id("first"));
    let held = format!("limit pool, held by holder ({holder})");
    assert_eq!(bench.why("first"), [format!("{held}, of which it needs 2 and 1 are free")]);
    assert_eq!(bench.why("second"), [format!("{held}, where first ({first}) comes first")]);
    assert_eq!(bench.why("never"), [format!("{held}, of which it needs 4 and there are 3")]);
}

#[test]
pub(crate) fn a_run_in_its_queue() {
    let mut definition = workflow(vec![node("a")], vec![]);
    definition.max_active_runs = Some(1);
    let mut bench = Bench::new(definition.clone());
    bench.start(definition.clone(), 2);
    let waits = TaskId { run: bench.run, task: TaskNo(1) };
    let text = format!("its run waits: 1 runs of {} are active, at most 1 may be", definition.name);
    assert_eq!(bench.engine.why(waits).unwrap(), [text]);
}
