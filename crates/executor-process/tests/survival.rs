//! Deaths of server and shim.

mod harness;

use harness::{World, launch, pid_in, runs, shell, until};
use kobza_engine::KillReason;
use kobza_model::{Cause, Outcome};
use kobza_runtime::Executor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Writes its process id, then waits for a file named `go`.
fn waiter(world: &World, name: &str) -> String {
    format!(
        "echo $$ > {0}.pid; while ! test -e {0}.go; do sleep 0.01; done; echo went",
        world.path(name).display()
    )
}

#[test]
fn a_task_outlives_the_server() {
    let world = World::new();
    let server = world.server();
    server.executor.launch(launch(1), shell(&waiter(&world, "a")));
    server.sink.started(launch(1));
    let pid = pid_in(&world.path("a.pid"));
    drop(server);
    assert!(runs(pid));

    let server = world.server();
    server.executor.adopt(vec![launch(1)]);
    std::fs::write(world.path("a.go"), "").unwrap();
    assert_eq!(server.sink.finished(launch(1)).outcome, Outcome::Succeeded);
    assert_eq!(world.log_text(launch(1)), "went\n");
    assert_eq!(world.shims().len(), 1);
}

#[test]
fn its_end_is_not_missed_while_no_server_runs() {
    let world = World::new();
    let server = world.server();
    server.executor.launch(launch(1), shell(&waiter(&world, "a")));
    let pid = pid_in(&world.path("a.pid"));
    drop(server);
    std::fs::write(world.path("a.go"), "").unwrap();
    until("the task ends", || !runs(pid));
    let server = world.server();
    server.executor.adopt(vec![launch(1)]);
    assert_eq!(server.sink.finished(launch(1)).outcome, Outcome::Succeeded);
}

#[test]
fn a_timeout_holds_while_no_server_runs() {
    let world = World::new();
    let server = world.server();
    let mut spec = shell(&waiter(&world, "a"));
    spec.timeout_ms = Some(500);
    server.executor.launch(launch(1), spec);
    let pid = pid_in(&world.path("a.pid"));
    drop(server);
    until("the task is killed", || !runs(pid));
    let server = world.server();
    assert_eq!(server.sink.finished(launch(1)).cause, Cause::Timeout);
}

#[test]
fn unconfirmed_reports_are_repeated_until_confirmed() {
    let world = World::new();
    let server = world.server_without_commits();
    assert_eq!(server.shell(1, "exit 7").exit_code, Some(7));
    drop(server);
    let server = world.server_without_commits();
    assert_eq!(server.sink.finished(launch(1)).exit_code, Some(7));
    server.sink.started(launch(1));
    server.sink.confirm_held();
    drop(server);
    // All is confirmed: the shim has nothing to live for.
    until("the shim leaves", || world.shims().is_empty());
}

#[test]
fn a_repeated_launch_runs_once() {
    let world = World::new();
    let server = world.server();
    let script = format!("echo x >> {}", world.path("count").display());
    server.executor.launch(launch(1), shell(&script));
    server.executor.launch(launch(1), shell(&script));
    server.sink.finished(launch(1));
    drop(server);
    // Unconfirmed as far as the next server knows.
    let server = world.server_without_commits();
    server.executor.launch(launch(2), shell(&script));
    server.sink.finished(launch(2));
    drop(server);
    let server = world.server();
    server.executor.launch(launch(2), shell(&script));
    server.sink.finished(launch(2));
    // A third launch behind it shows that the repetition was passed over, not only late.
    server.shell(3, "true");
    assert_eq!(std::fs::read_to_string(world.path("count")).unwrap(), "x\nx\n");
    assert_eq!(server.sink.count(launch(2)), 1);
}

#[test]
fn a_dead_shim_loses_its_tasks_and_leaves_no_strays() {
    let world = World::new();
    let server = world.server();
    server.executor.launch(launch(1), shell(&waiter(&world, "a")));
    server.executor.launch(launch(2), shell(&format!("setsid {}", "sleep 1000 & wait")));
    server.sink.started(launch(2));
    let task = pid_in(&world.path("a.pid"));
    kill(Pid::from_raw(world.shim_pid()), Signal::SIGKILL).unwrap();
    assert_eq!(server.sink.lost(launch(1)), "the shim that held it died");
    server.sink.lost(launch(2));
    assert!(!runs(task));
    // The next launch gets a new shim.
    assert_eq!(server.shell(3, "true").outcome, Outcome::Succeeded);
    until("the dead shim's folder is removed", || world.shims().len() == 1);
}

#[test]
fn a_shim_that_died_with_the_server_is_buried_by_the_next() {
    let world = World::new();
    let server = world.server_without_commits();
    server.executor.launch(launch(1), shell(&waiter(&world, "a")));
    server.shell(2, "exit 7");
    let task = pid_in(&world.path("a.pid"));
    let shim = world.shim_pid();
    drop(server);
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    until("the shim dies", || !runs(shim));
    assert!(runs(task), "it outlives the shim, until somebody looks");

    let server = world.server();
    server.executor.adopt(vec![launch(1), launch(2)]);
    assert_eq!(server.sink.finished(launch(2)).exit_code, Some(7));
    server.sink.lost(launch(1));
    assert!(!runs(task));
    until("the dead shim's folder is removed", || world.shims().is_empty());
}

#[test]
fn killing() {
    let world = World::new();
    let server = world.server();
    server.executor.launch(launch(1), shell(&waiter(&world, "a")));
    let pid = pid_in(&world.path("a.pid"));
    server.executor.kill(launch(1), KillReason::Stopped);
    let finished = server.sink.finished(launch(1));
    assert_eq!((finished.outcome, finished.cause), (Outcome::Cancelled, Cause::Hand));
    assert!(!runs(pid));
    server.executor.launch(launch(2), shell("sleep 1000"));
    server.executor.kill(launch(2), KillReason::Timeout);
    let finished = server.sink.finished(launch(2));
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Timeout));
    // Of one that nobody knows, a report is due all the same.
    server.executor.kill(launch(3), KillReason::Superseded);
    server.sink.lost(launch(3));
}

#[test]
fn a_shim_told_to_end_ends_its_tasks() {
    let world = World::new();
    let server = world.server();
    server.executor.launch(launch(1), shell(&waiter(&world, "a")));
    pid_in(&world.path("a.pid"));
    kill(Pid::from_raw(world.shim_pid()), Signal::SIGTERM).unwrap();
    let finished = server.sink.finished(launch(1));
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Infrastructure));
    until("the shim leaves", || world.shims().is_empty());
}

#[test]
fn a_deep_data_folder() {
    let mut world = World::new();
    let deep = world.folder.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    world.folder = tempfile::tempdir_in(&deep).unwrap();
    let server = world.server();
    assert_eq!(server.shell(1, "true").outcome, Outcome::Succeeded);
    std::fs::remove_dir_all(deep.parent().unwrap()).unwrap();
}

#[test]
fn without_a_shim_launches_fail_with_a_reason() {
    let world = World::new();
    let sink = std::sync::Arc::new(harness::Sink::default());
    let options = kobza_executor_process::ProcessOptions {
        data_dir: world.folder.path().to_path_buf(),
        shim_command: vec!["/no/such/binary".into()],
        logs: world.logs.clone(),
    };
    let executor = kobza_executor_process::ProcessExecutor::start(
        options,
        std::sync::Arc::clone(&sink) as std::sync::Arc<dyn kobza_runtime::ReportSink>,
    )
    .unwrap();
    executor.launch(launch(1), shell("true"));
    let finished = sink.finished(launch(1));
    assert_eq!((finished.outcome, finished.cause), (Outcome::Failed, Cause::Infrastructure));
    assert!(finished.message.starts_with("cannot start a shim"), "{}", finished.message);
}
