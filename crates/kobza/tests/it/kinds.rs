//! Tasks that need no process, checks of data, and triggers that are refused.

use std::time::Instant;

use serde_json::Value;

use crate::machine::{Folder, Server, text, until};

fn deploy(server: &Server, yaml: &str) {
    let (status, answer) = server.post("/api/v1/workflows", "application/yaml", yaml);
    assert_eq!(status, 201, "{answer}");
}

fn start(server: &Server, name: &str) -> String {
    let path = format!("/api/v1/workflows/{name}/runs");
    let (status, run) = server.post(&path, "application/json", "{}");
    assert_eq!(status, 201, "{run}");
    run["id"].as_str().unwrap().to_owned()
}

fn runs_of(server: &Server, workflow: &str) -> Vec<Value> {
    let (_, page) = server.get("/api/v1/runs?limit=100");
    let all = page["items"].as_array().unwrap();
    all.iter().filter(|r| r["workflow"] == workflow).cloned().collect()
}

fn task(server: &Server, run: &str, name: &str) -> Value {
    let (_, page) = server.get(&format!("/api/v1/runs/{run}/tasks"));
    let all = page["items"].as_array().unwrap();
    all.iter().find(|t| t["name"] == name).cloned().unwrap_or_default()
}

const PARENT: &str = "
name: parent
tasks:
  call: {workflow: child, with: {n: 7}}
  after: {needs: call, shell: 'echo after >> OUT/lines'}
";
const CHILD: &str = "
name: child
params: {n: {type: integer}}
tasks:
  body:
    shell: |
      echo begin-{{ params.n }} >> OUT/lines
      while [ ! -e OUT/go ]; do sleep 0.05; done
";

fn here(folder: &Folder, yaml: &str) -> String {
    yaml.replace("OUT", &folder.path().to_string_lossy())
}

#[test]
fn a_called_workflow_survives_the_server() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    deploy(&server, &here(&folder, CHILD));
    deploy(&server, &here(&folder, PARENT));
    let parent = start(&server, "parent");
    until("the child runs", || folder.read("lines") == "begin-7\n");
    assert_eq!(task(&server, &parent, "call")["state"], "running");
    let port = server.port();
    server.kill_9();
    let server = Server::start_on(&folder, port);
    assert_eq!(server.run(&parent)["state"], "running");
    folder.write("go", "");
    assert_eq!(server.wait_run(&parent), "succeeded");
    assert_eq!(folder.read("lines"), "begin-7\nafter\n");
    let children = runs_of(&server, "child");
    assert_eq!(children.len(), 1, "{children:?}");
    assert_eq!(children[0]["state"], "succeeded");
    assert_eq!(children[0]["trigger"], "task");
}

#[test]
fn a_called_workflow_ends_with_its_caller() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    deploy(&server, &here(&folder, CHILD));
    deploy(&server, &here(&folder, PARENT));
    let parent = start(&server, "parent");
    until("the child runs", || folder.read("lines") == "begin-7\n");
    let (status, answer) =
        server.post(&format!("/api/v1/runs/{parent}/cancel"), "application/json", "{}");
    assert!(status < 300, "{status}: {answer}");
    assert_eq!(server.wait_run(&parent), "cancelled");
    assert_eq!(runs_of(&server, "child")[0]["state"], "cancelled");
}

#[test]
fn calls_that_cannot_be() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    deploy(&server, &here(&folder, CHILD));
    deploy(&server, "name: a\ntasks:\n  call: {workflow: nobody}\n");
    deploy(&server, "name: b\ntasks:\n  call: {workflow: child, with: {n: many}}\n");
    deploy(&server, "name: c\ntasks:\n  call: {workflow: c}\n");
    for (name, word) in [("a", "nobody"), ("b", "n"), ("c", "failed")] {
        let run = start(&server, name);
        assert_eq!(server.wait_run(&run), "failed", "{name}");
        let message = task(&server, &run, "call")["message"].to_string();
        assert!(message.contains(word), "{name}: {message}");
    }
    assert!(runs_of(&server, "child").is_empty());
    assert_eq!(runs_of(&server, "c").len(), 32);
}

#[test]
fn waits() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let yaml = "
name: waits
tasks:
  pause: {wait: 300ms}
  past: {wait: {until: '2001-01-01T00:00:00Z'}}
  file: {wait: {file: OUT/there, every: 100ms}}
  late: {wait: {file: OUT/never, every: 100ms}, timeout: 300ms, continue_on_failure: true}
";
    deploy(&server, &here(&folder, yaml));
    let began = Instant::now();
    let run = start(&server, "waits");
    until("the pause is over", || task(&server, &run, "pause")["state"] == "succeeded");
    assert!(began.elapsed().as_millis() >= 300);
    assert_ne!(task(&server, &run, "file")["state"], "succeeded");
    folder.write("there", "");
    assert_eq!(server.wait_run(&run), "succeeded");
    assert_eq!(task(&server, &run, "past")["state"], "succeeded");
    assert_eq!(task(&server, &run, "late")["cause"], "timeout");
}

#[test]
fn checks_are_events() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let yaml = "
name: checked
tasks:
  make:
    shell: 'true'
    produces: numbers
    checks:
      - {name: fine, shell: 'true'}
      - {name: broken, shell: 'exit 3', block: false}
";
    deploy(&server, yaml);
    let run = start(&server, "checked");
    server.wait_run(&run);
    let (_, page) = server.get(&format!("/api/v1/events?run={run}&limit=1000"));
    let found: Vec<String> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["kind"] == "checked")
        .map(Value::to_string)
        .collect();
    assert_eq!(found.len(), 2, "{page}");
    let of = |name: &str| found.iter().find(|e| e.contains(name)).unwrap();
    assert!(of("fine").contains("\"passed\":true"), "{}", of("fine"));
    assert!(of("broken").contains("\"passed\":false"), "{}", of("broken"));
}

#[test]
fn bad_triggers_are_refused() {
    let folder = Folder::new();
    for (source, place, word) in [
        ("name: w\nschedule: '61 * * * *'\ntasks: {a: {noop: true}}\n", "t.yaml:2:", "schedule"),
        (
            "name: w\nschedule: '@daily'\ntriggers:\n  - file: relative/*.csv\ntasks: {a: {noop: true}}\n",
            "t.yaml:4:",
            "triggers[0].file",
        ),
    ] {
        folder.write("t.yaml", source);
        let output = folder.kobza(&["check", "t.yaml"]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(place) && message.contains(word), "{message}");
    }
    let good =
        "name: w\ntriggers:\n  - run: other\n  - file: /in/*.csv\ntasks: {a: {noop: true}}\n";
    folder.write("t.yaml", good);
    let output = folder.kobza(&["check", "t.yaml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}
