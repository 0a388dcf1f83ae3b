use kobza_engine::{
    ClearOptions, Command, Decision, Engine, EngineOptions, Question, QuestionKind, StopMode,
};
use kobza_model::*;

use crate::harness::*;

#[test]
pub(crate) fn chain_of_no_ops_ends_in_one_go() {
    let nodes = (0..1000u32)
        .map(|i| Node {
            call: TemplateNo(1),
            ..needs(&format!("t{i}"), &if i == 0 { vec![] } else { vec![i - 1] })
        })
        .collect();
    let bench = Bench::new(workflow(nodes, vec![]));
    assert_eq!(bench.state(), RunState::Succeeded);
    assert!(bench.states().values().all(|s| *s == TaskState::Succeeded));
}

#[test]
pub(crate) fn failure_travels_down_and_the_run_fails() {
    let mut bench =
        Bench::new(workflow(vec![node("a"), needs("b", &[0]), needs("c", &[1])], vec![]));
    bench.script = fails(&["b"]);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    let states = bench.states();
    assert_eq!(states["b"], TaskState::Failed);
    assert_eq!(states["c"], TaskState::UpstreamFailed);
    assert_eq!(bench.engine.run_row(bench.run).unwrap().message.as_deref(), Some("b failed"));
}

#[test]
pub(crate) fn retries_then_succeeds() {
    let retry = Retry {
        limit: 2,
        backoff: Backoff { delay_ms: 1000, factor: 2.0, ..Backoff::default() },
        causes: vec![],
        exit_codes: vec![],
        ask: false,
    };
    let mut bench = Bench::new(workflow(vec![Node { retry: Some(retry), ..node("a") }], vec![]));
    bench.script = Box::new(|_, attempt| {
        if attempt < 3 { (Outcome::Failed, Cause::Code) } else { (Outcome::Succeeded, Cause::None) }
    });
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(bench.task("a").attempt, 3);
    assert_eq!(bench.now.engine, EngineTime(3_000_000));
}

#[test]
pub(crate) fn map_expands_in_windows_and_joins() {
    let map = Node {
        expansion: Some(Expansion {
            at: ExpansionAt::Gate,
            by: ExpansionBy::Static(5000),
            zero: ZeroLength::Skipped,
            window: Some(100),
            fail_fast: false,
        }),
        ..needs("m", &[0])
    };
    let mut bench = Bench::new(workflow(vec![node("a"), map, needs("z", &[1])], vec![]));
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(bench.states().len(), 5003);
    assert_eq!(
        bench.engine.run_row(bench.run).unwrap().counts[TaskState::Succeeded as usize],
        5002
    );
}

#[test]
pub(crate) fn map_with_a_failure_fails_its_reader() {
    let map = Node {
        expansion: Some(Expansion {
            at: ExpansionAt::Gate,
            by: ExpansionBy::Ask,
            zero: ZeroLength::Skipped,
            window: None,
            fail_fast: false,
        }),
        ..node("m")
    };
    let mut bench = Bench::new(workflow(
        vec![map, needs("z", &[0]), Node { gate: Gate::all_done(), ..needs("d", &[0]) }],
        vec![],
    ));
    let mut n = 0;
    bench.script = Box::new(move |name, _| {
        if name == "m" {
            n += 1;
        }
        if name == "m" && n == 2 {
            (Outcome::Failed, Cause::Code)
        } else {
            (Outcome::Succeeded, Cause::None)
        }
    });
    bench.go();
    let states = bench.states();
    assert_eq!(states["z"], TaskState::UpstreamFailed);
    assert_eq!(states["d"], TaskState::Succeeded);
    assert_eq!(states["m"], TaskState::Failed);
    assert_eq!(bench.state(), RunState::Failed);
    // Clearing only what failed runs the one instance again, and what depends on it.
    bench.script = fails(&[]);
    bench.apply(Command::Clear {
        run: bench.run,
        tasks: vec![],
        options: ClearOptions { downstream: false, only_failed: true },
    });
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded, "{:?}", bench.states());
}

#[test]
pub(crate) fn empty_map_is_skipped_or_empty() {
    for (zero, reader) in
        [(ZeroLength::Skipped, TaskState::Skipped), (ZeroLength::Succeeded, TaskState::Succeeded)]
    {
        let map = Node {
            expansion: Some(Expansion {
                at: ExpansionAt::Gate,
                by: ExpansionBy::Static(0),
                zero,
                window: None,
                fail_fast: false,
            }),
            ..node("m")
        };
        let mut bench = Bench::new(workflow(vec![map, needs("z", &[0])], vec![]));
        bench.go();
        assert_eq!(bench.states()["z"], reader);
        assert_eq!(bench.state(), RunState::Succeeded);
    }
}

#[test]
pub(crate) fn nested_graphs_and_composite_retry() {
    let inner = graph("inner", vec![node("x"), needs("y", &[0])]);
    let retry = Retry {
        limit: 1,
        backoff: Backoff::default(),
        causes: vec![],
        exit_codes: vec![],
        ask: false,
    };
    let call = Node { call: TemplateNo(3), retry: Some(retry), ..node("c") };
    let mut bench = Bench::new(workflow(vec![call, needs("z", &[0])], vec![inner]));
    let mut n = 0;
    bench.script = Box::new(move |name, _| {
        if name == "y" {
            n += 1;
        }
        if name == "y" && n == 1 {
            (Outcome::Failed, Cause::Code)
        } else {
            (Outcome::Succeeded, Cause::None)
        }
    });
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(bench.task("c").attempt, 2);
    assert_eq!(bench.engine.task_rows(bench.run).len(), 1 + 2 + 2 + 2);
}

#[test]
pub(crate) fn limits_hold_back_and_say_so() {
    let limited = |name: &str, priority| Node {
        limits: vec![LimitUse { limit: "pool".to_owned(), weight: 1, while_waiting: false }],
        priority,
        ..node(name)
    };
    let mut bench =
        Bench::new(workflow(vec![limited("a", 0), limited("b", 5), limited("c", 9)], vec![]));
    assert!(bench.launched.is_empty());
    let why = bench.engine.why(TaskId { run: bench.run, task: bench.task("b").task }).unwrap();
    assert_eq!(why, vec!["limit pool, which is not defined".to_owned()]);
    bench.apply(Command::SetLimit {
        name: "pool".to_owned(),
        capacity: 1,
        strict: false,
        description: None,
    });
    assert_eq!(bench.launched.len(), 1);
    assert_eq!(bench.engine.task_row(bench.launched[0].id.task_id()).unwrap().name, "c");
    let why = bench.engine.why(TaskId { run: bench.run, task: bench.task("a").task }).unwrap();
    assert!(why[0].starts_with("limit pool, held by "), "{why:?}");
    bench.go();
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn stop_kills_and_cancels() {
    let mut bench = Bench::new(workflow(vec![node("a"), needs("b", &[0])], vec![]));
    let launch = bench.launched[0].id;
    bench.report(launch, kobza_engine::ReportBody::Started);
    bench.apply(Command::StopRun {
        run: bench.run,
        mode: StopMode::Cancel,
        reason: "enough".to_owned(),
    });
    assert_eq!(bench.state(), RunState::Cancelling);
    assert_eq!(bench.killed, vec![launch]);
    bench.go();
    assert_eq!(bench.state(), RunState::Cancelled);
    assert!(bench.states().values().all(|s| *s == TaskState::Cancelled));
}

#[test]
pub(crate) fn guard_skips() {
    let mut bench = Bench::new(workflow(
        vec![node("a"), Node { guard: true, ..needs("b", &[0]) }, needs("c", &[1])],
        vec![],
    ));
    bench.decide =
        Box::new(|_: &Question, _| Decision::Skip { cause: Cause::Guard, message: None });
    bench.go();
    assert_eq!(bench.states()["b"], TaskState::Skipped);
    assert_eq!(bench.states()["c"], TaskState::Skipped);
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn a_restored_run_goes_on() {
    let map = Node {
        expansion: Some(Expansion {
            at: ExpansionAt::Gate,
            by: ExpansionBy::Static(10),
            zero: ZeroLength::Skipped,
            window: Some(4),
            fail_fast: false,
        }),
        ..needs("m", &[0])
    };
    let definition = workflow(vec![node("a"), map, needs("z", &[1])], vec![]);
    let mut bench = Bench::new(definition.clone());
    let mut steps = 0;
    while bench.state() != RunState::Succeeded {
        let image = bench.engine.image(bench.run).unwrap();
        let mut engine = Engine::new(EngineOptions::default());
        engine.restore_run(image, std::sync::Arc::new(definition.clone()), bench.now).unwrap();
        engine.take_up(bench.now);
        bench.engine = engine;
        bench.launched.clear();
        bench.settle();
        bench.launched.sort_by_key(|l| l.id);
        let launch = bench.launched[0].id;
        bench.end(launch, Outcome::Succeeded, Cause::None);
        steps += 1;
        assert!(steps < 50);
    }
    assert_eq!(steps, 12);
    assert!(matches!(QuestionKind::Guard, QuestionKind::Guard));
}

#[test]
fn a_launch_that_is_lost_as_it_is_sent_again_is_not_sent() {
    let definition = workflow(vec![node("a")], vec![]);
    let mut bench = Bench::new(definition.clone());
    let first = bench.launched[0].id;
    // The commit of what was reported failed: the memory is read again, and the report with it.
    let image = bench.engine.image(bench.run).unwrap();
    let mut engine = Engine::new(EngineOptions::default());
    engine.restore_run(image, std::sync::Arc::new(definition), bench.now).unwrap();
    engine.take_up(bench.now);
    bench.engine = engine;
    bench.launched.clear();
    bench.report(first, kobza_engine::ReportBody::Lost { message: "its shim died".to_owned() });
    let launches: Vec<u32> = bench.launched.iter().map(|l| l.id.launch).collect();
    assert_eq!(launches, [first.launch + 1], "the lost one would be a second body");
}
