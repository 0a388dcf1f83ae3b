//! Tasks that a running task adds.

use kobza_engine::{Command, EngineOptions, NewTask, ReportBody, StopMode};
use kobza_model::*;

use crate::harness::*;

fn adds(bench: &mut Bench, adder: &str, tasks: &[(&str, &[&str])]) {
    let tasks = tasks
        .iter()
        .map(|(name, upstream)| NewTask {
            name: (*name).to_owned(),
            upstream: upstream.iter().map(|&u| u.to_owned()).collect(),
            state: TaskState::Pending,
            priority: 0,
            inputs: Json::Null,
            extra: Json::Null,
        })
        .collect();
    bench.started(adder);
    let launch = bench.launch_of(adder);
    bench.report(launch, ReportBody::AddTasks(tasks));
}

fn flow() -> Workflow {
    workflow(vec![node("a"), needs("b", &[0])], vec![])
}

#[test]
pub(crate) fn readers_wait_for_what_was_added() {
    let mut bench = Bench::new(flow());
    adds(&mut bench, "a", &[("x", &[]), ("y", &["x"])]);
    // A report that is repeated adds nothing.
    adds(&mut bench, "a", &[("x", &[]), ("y", &["x"])]);
    bench.ends("a", Outcome::Succeeded);
    assert_eq!(bench.states()["b"], TaskState::Pending);
    assert_eq!(bench.states()["y"], TaskState::Pending);
    bench.restart(&flow(), EngineOptions::default());
    bench.ends("x", Outcome::Succeeded);
    bench.restart(&flow(), EngineOptions::default());
    assert_eq!(bench.states()["b"], TaskState::Pending);
    bench.ends("y", Outcome::Succeeded);
    bench.ends("b", Outcome::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn what_was_added_fails_its_adder() {
    let mut bench = Bench::new(flow());
    adds(&mut bench, "a", &[("x", &[]), ("y", &["x"]), ("z", &["nobody"])]);
    bench.ends("a", Outcome::Succeeded);
    bench.ends("x", Outcome::Failed);
    let states = bench.states();
    assert_eq!(states["y"], TaskState::UpstreamFailed);
    assert_eq!(states["z"], TaskState::UpstreamFailed);
    assert_eq!(states["a"], TaskState::Failed);
    assert_eq!(states["b"], TaskState::UpstreamFailed);
    assert_eq!(bench.state(), RunState::Failed);
}

#[test]
pub(crate) fn a_stopped_run_ends_what_was_added() {
    let mut bench = Bench::new(flow());
    adds(&mut bench, "a", &[("x", &[]), ("y", &["x"])]);
    bench.ends("a", Outcome::Succeeded);
    bench.started("x");
    let stop = StopMode::Cancel;
    bench.apply(Command::StopRun { run: bench.run, mode: stop, reason: String::new() });
    assert_eq!(bench.states()["x"], TaskState::Cancelling);
    bench.ends("x", Outcome::Cancelled);
    assert_eq!(bench.states()["y"], TaskState::Cancelled);
    assert_eq!(bench.state(), RunState::Cancelled);
}

#[test]
pub(crate) fn a_cleared_adder_adds_anew() {
    let mut bench = Bench::new(flow());
    adds(&mut bench, "a", &[("x", &[])]);
    bench.ends("a", Outcome::Succeeded);
    bench.ends("x", Outcome::Failed);
    assert_eq!(bench.state(), RunState::Failed);
    bench.clear(&["a"], true, false);
    bench.restart(&flow(), EngineOptions::default());
    adds(&mut bench, "a", &[("x2", &[])]);
    bench.ends("a", Outcome::Succeeded);
    assert_eq!(bench.states()["b"], TaskState::Pending);
    bench.ends("x2", Outcome::Succeeded);
    bench.ends("b", Outcome::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn tasks_that_wait_for_each_other_are_refused() {
    let mut bench = Bench::new(flow());
    adds(&mut bench, "a", &[("x", &["y"]), ("y", &["x"]), ("z", &["z"])]);
    bench.ends("a", Outcome::Succeeded);
    for name in ["x", "y", "z"] {
        assert_eq!(bench.states()[name], TaskState::UpstreamFailed, "{name}");
    }
    assert_eq!(bench.state(), RunState::Failed);
}

#[test]
pub(crate) fn a_long_chain_of_added_tasks_runs_through() {
    let mut bench = Bench::new(flow());
    let names: Vec<String> = (0..1000).map(|i| format!("x{i}")).collect();
    let upstream: Vec<Vec<&str>> = (0..names.len())
        .map(|i| names[..i].last().map(String::as_str).into_iter().collect())
        .collect();
    let tasks: Vec<(&str, &[&str])> =
        names.iter().zip(&upstream).map(|(name, up)| (name.as_str(), up.as_slice())).collect();
    adds(&mut bench, "a", &tasks);
    // One more is refused, and what is there stays.
    adds(&mut bench, "a", &[("too many", &[])]);
    bench.ends("a", Outcome::Succeeded);
    for name in &names {
        bench.ends(name, Outcome::Succeeded);
    }
    assert!(!bench.states().contains_key("too many"));
    bench.ends("b", Outcome::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);
}
