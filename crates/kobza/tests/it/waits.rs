//! Waits for events, assets, requests and statements: none holds a worker, none is lost.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::machine::{Folder, Server, until};
use crate::sink::Sink;

fn deploy(server: &Server, yaml: &str) {
    let (status, answer) = server.post("/api/v1/workflows", "application/yaml", yaml);
    assert_eq!(status, 201, "{answer}");
}

fn start_with(server: &Server, name: &str, body: &Value) -> String {
    let path = format!("/api/v1/workflows/{name}/runs");
    let (status, run) = server.post(&path, "application/json", &body.to_string());
    assert_eq!(status, 201, "{run}");
    run["id"].as_str().unwrap().to_owned()
}

fn start(server: &Server, name: &str) -> String {
    start_with(server, name, &json!({}))
}

fn task(server: &Server, run: &str, name: &str) -> Value {
    let (_, page) = server.get(&format!("/api/v1/runs/{run}/tasks"));
    let all = page["items"].as_array().unwrap();
    all.iter().find(|t| t["name"] == name).cloned().unwrap_or_default()
}

fn send(server: &Server, name: &str, payload: &Value) {
    let body = json!({"name": name, "payload": payload}).to_string();
    assert_eq!(server.post("/api/v1/events", "application/json", &body).0, 204);
}

fn waits(server: &Server, run: &str, name: &str) {
    until(name, || {
        let state = task(server, run, name)["state"].clone();
        state == "deferred" || state == "rescheduled"
    });
}

const WAITS: &str = "
name: waits
connections: {db: {url: 'sqlite://OUT/look.db'}}
tasks:
  sent: {wait: {event: placed, filter: 'event.payload.n > 3'}}
  made: {wait: {asset: lake/orders, partition: eu}}
  page: {wait: {http: {url: 'URL/page'}, every: 200ms}}
  rows: {wait: {sql: 'select count(*) from orders', expect: 2, connection: db, every: 200ms}}
  after: {needs: sent, shell: 'echo {{ tasks.sent.output.event.payload.n }} >> OUT/lines'}
";
const TABLE: &str = "
name: table
connections: {db: {url: 'sqlite://OUT/look.db'}}
tasks:
  make: {sql: 'create table if not exists orders (n)', connection: db}
  fill: {needs: make, sql: 'insert into orders values (1)', connection: db, produces: lake/orders}
";

#[test]
fn nothing_is_held_and_a_dead_server_misses_nothing() {
    let folder = Folder::new();
    let sink = Sink::start(404);
    let server = Server::start_with(&folder, &["--slots", "1"]);
    let here = |yaml: &str| {
        yaml.replace("OUT", &folder.path().to_string_lossy()).replace("URL", &sink.url(""))
    };
    deploy(&server, &here(TABLE));
    deploy(&server, &here(WAITS));
    // Another partition than the one that is waited for, and one row too few.
    let first = start_with(&server, "table", &json!({"partition": "us"}));
    assert_eq!(server.wait_run(&first), "succeeded");
    let run = start(&server, "waits");
    for name in ["sent", "made", "page", "rows"] {
        waits(&server, &run, name);
    }
    let why = server.get(&format!("/api/v1/tasks/{run}.1/why")).1.to_string();
    assert!(why.contains("waits for the event placed"), "{why}");
    until("the page was looked at", || sink.at("/page", false).len() >= 2);
    send(&server, "placed", &json!({"n": 3}));
    send(&server, "other", &json!({"n": 4}));
    // There is one worker, and it is free.
    let second = start_with(&server, "table", &json!({"partition": "eu"}));
    assert_eq!(server.wait_run(&second), "succeeded");
    until("the data is there", || task(&server, &run, "made")["state"] == "succeeded");
    until("the rows are there", || task(&server, &run, "rows")["state"] == "succeeded");
    assert_ne!(task(&server, &run, "sent")["state"], "succeeded");
    // What is acknowledged is durable, whether or not the wait was woken before the death.
    send(&server, "placed", &json!({"n": 4}));
    server.kill_9();
    sink.status.store(200, Ordering::SeqCst);
    let server = Server::start_with(&folder, &["--slots", "1"]);
    assert_eq!(server.wait_run(&run), "succeeded");
    assert_eq!(folder.read("lines"), "4\n");
    let output = server.get(&format!("/api/v1/tasks/{run}.1/outputs")).1.to_string();
    assert!(output.contains("\"placed\""), "{output}");
}

#[test]
fn a_wait_of_before_goes_on_after_a_restart() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    deploy(&server, "name: w\ntasks:\n  a: {wait: {event: go}}\n  b: {wait: {asset: late/data}}\n");
    deploy(&server, "name: maker\ntasks:\n  m: {noop: true, produces: late/data}\n");
    let run = start(&server, "w");
    waits(&server, &run, "a");
    waits(&server, &run, "b");
    server.kill_9();
    let server = Server::start(&folder);
    send(&server, "go", &Value::Null);
    start(&server, "maker");
    assert_eq!(server.wait_run(&run), "succeeded");
    // An event of before the wait does not count; data of before does.
    let run = start(&server, "w");
    until("the data is seen", || task(&server, &run, "b")["state"] == "succeeded");
    waits(&server, &run, "a");
    let cancel = format!("/api/v1/runs/{run}/cancel");
    assert!(server.post(&cancel, "application/json", "{}").0 < 300);
    assert_eq!(server.wait_run(&run), "cancelled");
}

#[test]
fn waits_end_at_their_deadline_or_with_what_is_wrong() {
    let folder = Folder::new();
    let sink = Sink::start(503);
    let server = Server::start(&folder);
    let yaml = "
name: late
connections: {db: {url: 'sqlite://OUT/look.db'}}
tasks:
  sent: {wait: {event: never}, timeout: 400ms}
  made: {wait: {asset: never}, timeout: 400ms}
  page: {wait: {http: {url: 'URL/page'}, every: 100ms}, timeout: 1s}
  rows: {wait: {sql: 'select 0', connection: db, every: 100ms}, timeout: 1s}
  wrong: {wait: {sql: 'select nothing from nowhere', connection: db, every: 100ms}}
  filter: {wait: {event: odd, filter: 'event.payload.x.y'}}
  since: {wait: {asset: never, since: yesterday}}
";
    let yaml = yaml.replace("OUT", &folder.path().to_string_lossy()).replace("URL", &sink.url(""));
    deploy(&server, &yaml);
    let run = start(&server, "late");
    waits(&server, &run, "filter");
    send(&server, "odd", &Value::Null);
    server.wait_run(&run);
    for name in ["sent", "made", "page", "rows"] {
        let task = task(&server, &run, name);
        assert_eq!(
            (&task["state"], &task["cause"]),
            (&json!("failed"), &json!("timeout")),
            "{task}"
        );
    }
    let message = |name: &str| task(&server, &run, name)["message"].to_string();
    assert!(message("page").contains("503"), "{}", message("page"));
    assert!(message("wrong").contains("nowhere"), "{}", message("wrong"));
    assert!(message("filter").contains("wait.filter"), "{}", message("filter"));
    assert!(message("since").contains("yesterday"), "{}", message("since"));
}

#[test]
fn events_start_runs_and_are_on_record() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    deploy(
        &server,
        "name: w\nparams: {n: {type: integer}}\ntriggers:\n  - {event: placed, params: {n: '{{ event.payload.n }}'}}\ntasks: {a: {noop: true}}\n",
    );
    let output = folder.kobza(&[
        "triggers",
        "send",
        "placed",
        "--payload",
        "{\"n\": 7}",
        "--server",
        &server.url,
    ]);
    assert!(output.status.success(), "{output:?}");
    until("the run is there", || {
        server.get("/api/v1/runs?workflow=w").1["items"][0]["params"]["n"] == 7
    });
    let (_, page) = server.get("/api/v1/events?kind=sent");
    assert_eq!(page["items"][0]["detail"]["name"], "placed", "{page}");
    for (body, status) in [
        (json!({"name": "a/b"}), 422),
        (json!({"name": "a", "payload": "x".repeat(70_000)}), 413),
        (json!({"nam": "a"}), 400),
    ] {
        assert_eq!(server.post("/api/v1/events", "application/json", &body.to_string()).0, status);
    }
}
