//! kill -9 of everything, at every stage: nothing lost, nothing run twice at once.

use crate::machine::{Folder, Server, kill, until};

/// A slow task between two quick ones; each body leaves a line.
const SLOW: &str = "
name: slow
tasks:
  first: {shell: 'echo first >> OUT/lines'}
  slow:
    needs: first
    shell: |
      echo slow-begin >> OUT/lines
      while [ ! -e OUT/go ]; do sleep 0.05; done
      echo slow-end >> OUT/lines
  last: {needs: slow, shell: 'echo last >> OUT/lines'}
";

pub(crate) fn slow(folder: &Folder) -> String {
    SLOW.replace("OUT", &folder.path().to_string_lossy())
}

pub(crate) fn lines(folder: &Folder) -> Vec<String> {
    folder.read("lines").lines().map(str::to_owned).collect()
}

pub(crate) const WHOLE: [&str; 4] = ["first", "slow-begin", "slow-end", "last"];

#[test]
fn an_interrupted_local_run_goes_on() {
    let folder = Folder::new();
    folder.write("slow.yaml", slow(&folder));
    let mut run = folder.start(&["run", "slow.yaml"]);
    until("the slow task runs", || lines(&folder).len() == 2);
    run.kill().unwrap();
    run.wait().unwrap();
    folder.write("go", "");
    let output = folder.kobza(&["run", "slow.yaml"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("taking up the interrupted run"));
    assert_eq!(lines(&folder), WHOLE);
    let runs = folder.json(&["runs", "-o", "json"]);
    assert_eq!(runs.as_array().unwrap().len(), 1);
}

#[test]
fn another_partition_is_another_run() {
    let folder = Folder::new();
    folder.write("slow.yaml", slow(&folder));
    let mut run = folder.start(&["run", "slow.yaml", "--partition", "one"]);
    until("the slow task runs", || lines(&folder).len() == 2);
    run.kill().unwrap();
    run.wait().unwrap();
    folder.write("go", "");
    for (partition, resumed) in [("other", false), ("one", true)] {
        let output = folder.kobza(&["run", "slow.yaml", "--partition", partition]);
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // It may have ended beside the other one.
        assert!(resumed || !told.contains("taking up"), "{told}");
    }
    assert!(folder.json(&["runs", "-o", "json"]).as_array().unwrap().len() >= 2);
}

#[test]
fn a_killed_server_takes_up_what_runs() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let (status, _) = server.post("/api/v1/workflows", "application/yaml", &slow(&folder));
    assert_eq!(status, 201);
    let (status, run) =
        server.post("/api/v1/workflows/slow/runs", "application/json", "{\"params\": {}}");
    assert_eq!(status, 201, "{run}");
    let id = run["id"].as_str().unwrap().to_owned();
    until("the slow task runs", || lines(&folder).len() == 2);
    let port = server.port();
    server.kill_9();
    // It ends while no server is there: the shim keeps the report.
    folder.write("go", "");
    until("the slow task ends", || lines(&folder).len() == 3);
    let server = Server::start_on(&folder, port);
    assert_eq!(server.wait_run(&id), "succeeded");
    assert_eq!(lines(&folder), WHOLE);
}

#[test]
fn a_killed_shim_loses_its_tasks_and_they_run_again() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    server.post("/api/v1/workflows", "application/yaml", &slow(&folder));
    let (_, run) = server.post("/api/v1/workflows/slow/runs", "application/json", "{}");
    let id = run["id"].as_str().unwrap().to_owned();
    until("the slow task runs", || lines(&folder).len() == 2);
    for pid in folder.shims() {
        kill(pid, "-9");
    }
    until("the slow task runs again", || lines(&folder).len() == 3);
    folder.write("go", "");
    assert_eq!(server.wait_run(&id), "succeeded");
    // Never two at once: the first body was dead before the second began, so it has no end.
    assert_eq!(lines(&folder), ["first", "slow-begin", "slow-begin", "slow-end", "last"]);
}

#[test]
fn a_killed_task_fails_and_says_so() {
    let folder = Folder::new();
    folder.write("t.yaml", "name: t\ntasks:\n  a: {shell: 'kill -9 $$'}\n");
    let output = folder.kobza(&["run", "t.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let why = folder.json(&["why", "a", "-o", "json"]);
    assert_eq!(why["state"], "failed");
    assert!(why["reasons"][0].as_str().unwrap().contains("SIGKILL"), "{why}");
}

#[test]
fn server_and_shim_die_together() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    server.post("/api/v1/workflows", "application/yaml", &slow(&folder));
    let (_, run) = server.post("/api/v1/workflows/slow/runs", "application/json", "{}");
    let id = run["id"].as_str().unwrap().to_owned();
    until("the slow task runs", || lines(&folder).len() == 2);
    let port = server.port();
    let shims = folder.shims();
    server.kill_9();
    for pid in shims {
        kill(pid, "-9");
    }
    folder.write("go", "");
    let server = Server::start_on(&folder, port);
    assert_eq!(server.wait_run(&id), "succeeded");
    let lines = lines(&folder);
    assert_eq!(lines.first().map(String::as_str), Some("first"));
    assert_eq!(lines.last().map(String::as_str), Some("last"));
    assert_eq!(lines.iter().filter(|l| *l == "last").count(), 1);
}

#[test]
fn acknowledged_runs_survive_a_storm_of_kills() {
    let folder = Folder::new();
    let mut server = Server::start(&folder);
    server.post(
        "/api/v1/workflows",
        "application/yaml",
        "name: quick\ntasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: a}\n",
    );
    let mut ids = Vec::new();
    for _ in 0..5 {
        for _ in 0..4 {
            let (status, run) =
                server.post("/api/v1/workflows/quick/runs", "application/json", "{}");
            assert_eq!(status, 201);
            ids.push(run["id"].as_str().unwrap().to_owned());
        }
        let port = server.port();
        server.kill_9();
        server = Server::start_on(&folder, port);
    }
    for id in &ids {
        assert_eq!(server.wait_run(id), "succeeded");
        let (_, tasks) = server.get(&format!("/api/v1/runs/{id}/tasks"));
        assert_eq!(tasks["items"].as_array().unwrap().len(), 2);
    }
}
