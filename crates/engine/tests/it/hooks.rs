//! Hooks of nodes and of runs.

use kobza_engine::{Command, EngineOptions, ReportBody, StopMode};
use kobza_model::*;

use crate::harness::*;

fn stop(bench: &mut Bench, mode: StopMode) {
    bench.apply(Command::StopRun { run: bench.run, mode, reason: String::new() });
}

#[test]
pub(crate) fn exit_hooks_hold_readers_back() {
    let a = Node { hooks: vec![hook("tidy", HookOn::Exit, 0)], ..node("a") };
    let mut bench = Bench::new(workflow(vec![a, needs("b", &[0])], vec![]));
    bench.ends("a", Outcome::Succeeded);
    assert_eq!(bench.states()["a"], TaskState::Succeeded);
    assert_eq!(bench.states()["b"], TaskState::Pending);
    assert_eq!(bench.why("a"), ["its hooks still run"]);
    bench.ends("tidy", Outcome::Failed);
    assert_eq!(bench.states()["a"], TaskState::Succeeded, "this hook does not affect it");
    bench.ends("b", Outcome::Succeeded);
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn a_hook_that_affects_its_owner_fails_it() {
    let tidy = Hook { affects: true, ..hook("tidy", HookOn::Success, 0) };
    let a = Node { hooks: vec![tidy], ..node("a") };
    let mut bench = Bench::new(workflow(vec![a, needs("b", &[0])], vec![]));
    bench.script = fails(&["tidy"]);
    bench.go();
    assert_eq!(bench.states()["a"], TaskState::Failed);
    assert_eq!(bench.states()["b"], TaskState::UpstreamFailed);
    assert_eq!(bench.state(), RunState::Failed);
}

#[test]
pub(crate) fn hooks_follow_the_outcome_of_the_last_attempt() {
    let all = [HookOn::Start, HookOn::Exit, HookOn::Success, HookOn::Failure];
    let hooks = all.iter().map(|&on| hook(&format!("{on:?}"), on, 1)).collect::<Vec<_>>();
    for (failing, expected) in [
        (1, vec!["Exit", "Start", "Start", "Success"]),
        (9, vec!["Exit", "Failure", "Start", "Start"]),
    ] {
        let a = Node { hooks: hooks.clone(), retry: retry(1), ..node("a") };
        let mut bench = Bench::new(workflow(vec![a], vec![]));
        bench.script = Box::new(move |_, attempt| {
            let bad = attempt <= failing;
            if bad { (Outcome::Failed, Cause::Code) } else { (Outcome::Succeeded, Cause::None) }
        });
        bench.go();
        let mut called: Vec<String> = bench
            .engine
            .task_rows(bench.run)
            .into_iter()
            .filter(|t| t.hook.is_some())
            .map(|t| t.name)
            .collect();
        called.sort();
        assert_eq!(called, expected);
    }
}

#[test]
pub(crate) fn hooks_of_an_expansion_belong_to_its_instances() {
    let m = Node { expansion: mapped(3), hooks: vec![hook("h", HookOn::Exit, 0)], ..node("m") };
    let mut bench = Bench::new(workflow(vec![m, needs("z", &[0])], vec![]));
    bench.go();
    let hooks = bench.engine.task_rows(bench.run).iter().filter(|t| t.name == "h").count();
    assert_eq!(hooks, 3);
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn a_skipped_or_upstream_failed_task_has_no_hooks() {
    let b = Node { hooks: vec![hook("h", HookOn::Exit, 0)], ..needs("b", &[0]) };
    let mut bench = Bench::new(workflow(vec![node("a"), b], vec![]));
    bench.script = fails(&["a"]);
    bench.go();
    assert!(!bench.states().contains_key("h"));
}

fn with_run_hooks() -> Workflow {
    let mut definition = workflow(
        vec![Node { hooks: vec![hook("node exit", HookOn::Exit, 0)], ..node("a") }],
        vec![],
    );
    definition.hooks = vec![
        hook("exit", HookOn::Exit, 0),
        hook("success", HookOn::Success, 0),
        hook("failure", HookOn::Failure, 0),
        Hook { skip_on_cancel: true, ..hook("unless stopped", HookOn::Exit, 0) },
    ];
    definition
}

/// Names of the run's hooks that were called.
fn called(bench: &Bench) -> Vec<String> {
    let mut names: Vec<String> = bench
        .engine
        .task_rows(bench.run)
        .into_iter()
        .filter(|t| t.hook.is_some())
        .map(|t| t.name)
        .collect();
    names.sort();
    names
}

#[test]
pub(crate) fn run_hooks_on_success_failure_stop_and_terminate() {
    let mut bench = Bench::new(with_run_hooks());
    bench.go();
    assert_eq!(called(&bench), ["exit", "node exit", "success", "unless stopped"]);
    assert_eq!(bench.state(), RunState::Succeeded);

    let mut bench = Bench::new(with_run_hooks());
    bench.script = fails(&["a"]);
    bench.go();
    assert_eq!(called(&bench), ["exit", "failure", "node exit", "unless stopped"]);
    assert_eq!(bench.state(), RunState::Failed);

    for (mode, hooks, state) in [
        (StopMode::Cancel, &["exit", "failure", "node exit"][..], RunState::Cancelled),
        (StopMode::Stop, &["exit", "failure", "node exit"][..], RunState::Failed),
        (StopMode::Terminate, &[][..], RunState::Failed),
    ] {
        let mut bench = Bench::new(with_run_hooks());
        bench.started("a");
        stop(&mut bench, mode);
        bench.go();
        assert_eq!(called(&bench), hooks, "{mode:?}");
        assert_eq!(bench.state(), state, "{mode:?}");
    }
}

#[test]
pub(crate) fn terminate_ends_hooks_that_run() {
    let mut bench = Bench::new(with_run_hooks());
    bench.ends("a", Outcome::Succeeded);
    bench.started("node exit");
    stop(&mut bench, StopMode::Terminate);
    assert_eq!(bench.states()["node exit"], TaskState::Cancelling);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    assert_eq!(called(&bench), ["node exit"]);
}

#[test]
pub(crate) fn a_run_hook_that_affects_fails_the_run() {
    let mut definition = workflow(vec![node("a")], vec![]);
    definition.hooks = vec![Hook { affects: true, ..hook("exit", HookOn::Exit, 0) }];
    let mut bench = Bench::new(definition);
    bench.script = fails(&["exit"]);
    bench.go();
    assert_eq!(bench.state(), RunState::Failed);
    assert_eq!(
        bench.engine.run_row(bench.run).unwrap().message.as_deref(),
        Some("a hook of the run failed")
    );
}

#[test]
pub(crate) fn hooks_survive_a_restart() {
    let definition = with_run_hooks();
    let mut bench = Bench::new(definition.clone());
    for _ in 0..50 {
        if bench.state().is_finished() {
            break;
        }
        bench.restart(&definition, kobza_engine::EngineOptions::default());
        bench.launched.sort_by_key(|l| l.id);
        let id = bench.launched.remove(0).id;
        bench.report(id, ReportBody::Started);
        bench.end(id, Outcome::Succeeded, Cause::None);
    }
    assert_eq!(bench.state(), RunState::Succeeded);
    assert_eq!(called(&bench), ["exit", "node exit", "success", "unless stopped"]);
}

#[test]
pub(crate) fn a_rerun_calls_its_hooks_again() {
    let mut bench = Bench::new(with_run_hooks());
    bench.go();
    bench.clear(&["a"], false, false);
    bench.go();
    assert_eq!(called(&bench).len(), 8);
    assert_eq!(bench.state(), RunState::Succeeded);
}

#[test]
pub(crate) fn start_hooks_are_not_called_again_after_a_restart() {
    let a = Node { hooks: vec![hook("hello", HookOn::Start, 0)], ..node("a") };
    let workflow = workflow(vec![a], vec![]);
    let mut bench = Bench::new(workflow.clone());
    bench.started("a");
    let hooks = |bench: &Bench| {
        bench.engine.task_rows(bench.run).iter().filter(|t| t.name == "hello").count()
    };
    assert_eq!(hooks(&bench), 1);
    bench.restart(&workflow, EngineOptions::default());
    let launch = bench.launch_of("a");
    bench.report(launch, ReportBody::Lost { message: "gone with the machine".to_owned() });
    bench.started("a");
    assert_eq!(bench.states()["a"], TaskState::Running);
    assert_eq!(hooks(&bench), 1, "the attempt's hook has been called");
}

#[test]
pub(crate) fn callers_and_waits_hold_no_slot() {
    let mut workflow = workflow(vec![node("a"), node("b")], vec![]);
    for kind in ["workflow", "wait"] {
        for template in &mut workflow.templates {
            if let TemplateBody::Leaf(leaf) = &mut template.body {
                leaf.kind = kind.to_owned();
            }
        }
        let options = EngineOptions { slots: 1, ..EngineOptions::default() };
        let mut bench = Bench::with(workflow.clone(), options);
        bench.started("a");
        bench.started("b");
        assert_eq!(bench.states()["a"], TaskState::Running, "{kind}");
        assert_eq!(bench.states()["b"], TaskState::Running, "{kind}");
    }
}
