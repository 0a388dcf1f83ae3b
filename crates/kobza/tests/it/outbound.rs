//! Notifications, traces and lineage reach a receiver, also when it was away and the server killed.

use std::sync::atomic::Ordering;

use kobza_model::{RunId, run_span_id, trace_id};
use kobza_triggers::{WebhookScheme, webhook};
use serde_json::Value;

use crate::machine::{Folder, Server, text, until};
use crate::sink::{Received, Sink};

const SECRET: &str = "whsec_c2VjcmV0LW9mLXRoZS1yZWNlaXZlcg==";

fn connect(server: &Server, sink: &Sink) {
    let body = serde_json::json!({
        "kind": "webhook", "fields": {"url": sink.url("/hook")}, "secrets": {"secret": SECRET},
    });
    assert_eq!(server.put("/api/v1/connections/hook", &body.to_string()).0, 200);
    let body = serde_json::json!({"kind": "slack", "secrets": {"url": sink.url("/slack")}});
    assert_eq!(server.put("/api/v1/connections/chat", &body.to_string()).0, 200);
}

fn begin(server: &Server, yaml: &str, name: &str) -> String {
    let (status, answer) = server.post("/api/v1/workflows", "application/yaml", yaml);
    assert_eq!(status, 201, "{answer}");
    let path = format!("/api/v1/workflows/{name}/runs");
    let (_, run) = server.post(&path, "application/json", "{}");
    run["id"].as_str().unwrap().to_owned()
}

const RULES: &str = "
[[notify]]
name = 'failures'
on = ['failure', 'check_failed', 'retry']
connection = 'hook'
text = '{{ event.workflow }}: {{ event.on }}'

[[notify]]
name = 'chat'
on = ['success']
workflow = 'good'
connection = 'chat'
";

#[test]
fn notifications_outlive_the_server_and_the_receiver() {
    let folder = Folder::new();
    let sink = Sink::start(503);
    folder.write("out.toml", RULES);
    let server = Server::start_with(&folder, &["--config", "out.toml"]);
    connect(&server, &sink);
    let bad = "name: bad\ntasks:\n  a: {shell: exit 3, retries: {limit: 1}}\n";
    let run = begin(&server, bad, "bad");
    assert_eq!(server.wait_run(&run), "failed");
    until("the receiver has been tried", || !sink.at("/hook", false).is_empty());
    server.kill_9();
    sink.status.store(200, Ordering::SeqCst);
    let server = Server::start_with(&folder, &["--config", "out.toml"]);
    let good = "
name: good
tasks:
  make:
    shell: 'true'
    produces: numbers
    checks: [{name: broken, shell: exit 3, block: false}]
";
    let run = begin(&server, good, "good");
    assert_eq!(server.wait_run(&run), "succeeded");
    until("all were delivered", || sink.at("/hook", true).len() >= 3);
    let hooks = sink.at("/hook", true);
    let mut ids: Vec<String> =
        hooks.iter().map(|r| r.header("webhook-id").unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    let mut texts: Vec<String> =
        hooks.iter().map(|r| r.json()["text"].as_str().unwrap().to_owned()).collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts, ["bad: failure", "bad: retry", "good: check_failed"]);
    for received in &hooks {
        let (name, now) = (WebhookScheme::Standard, kobza_runtime::wall_now());
        let header = |name: &str| received.header(name);
        let id =
            webhook::verify(Some(name), SECRET.as_bytes(), header, received.body.as_bytes(), now);
        assert_eq!(id.unwrap(), received.json()["id"].as_str().unwrap());
    }
    // What was tried before the kill came again under the same id.
    for before in sink.at("/hook", false) {
        assert!(ids.iter().any(|id| Some(id.as_str()) == before.header("webhook-id")));
    }
    until("the chat was told", || !sink.at("/slack", true).is_empty());
    assert!(sink.at("/slack", true)[0].body.contains("succeeded"));
    until("nothing is left", || {
        server.get("/api/v1/notifications").1["items"].as_array().is_some_and(Vec::is_empty)
    });
}

#[test]
fn what_a_receiver_refuses_is_a_dead_letter() {
    let folder = Folder::new();
    let sink = Sink::start(410);
    folder.write("out.toml", RULES);
    let server = Server::start_with(&folder, &["--config", "out.toml"]);
    connect(&server, &sink);
    let run = begin(&server, "name: bad\ntasks: {a: {shell: exit 3}}\n", "bad");
    server.wait_run(&run);
    until("it is dead", || {
        let (_, page) = server.get("/api/v1/notifications");
        page["items"][0]["state"] == "dead"
    });
    let (_, page) = server.get("/api/v1/notifications");
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["items"][0]["error"], "the receiver answered 410");
    assert!(!page.to_string().contains("c2VjcmV0"));
}

/// What luigid mails about, from a scheduler whose run has no end.
#[test]
fn failures_of_luigis_tasks_are_told() {
    let folder = Folder::new();
    let sink = Sink::start(200);
    folder.write(
        "out.toml",
        "[[notify]]
name = 'luigi'
on = ['task_failure']
workflow = 'luigi'
connection = 'hook'
text = '{{ event.what }}: {{ event.task }} ({{ event.cause }}): {{ event.message }}'
",
    );
    let server = Server::start_with(&folder, &["--config", "out.toml"]);
    connect(&server, &sink);
    let call = |method: &str, data: Value| {
        let path = format!("/luigi/api/{method}");
        assert_eq!(server.post(&path, "application/json", &data.to_string()).0, 200);
    };
    let task = |status: &str| {
        let expl = "\"Traceback:\\n  line 1\\nValueError: no orders\"";
        let policy = serde_json::json!({"retry_count": 2});
        call(
            "add_task",
            serde_json::json!({
                "worker": "w", "task_id": "Load_1", "family": "Load", "status": status,
                "expl": expl, "retry_policy_dict": policy,
            }),
        );
    };
    for _ in 0..2 {
        task("PENDING");
        call("get_work", serde_json::json!({"worker": "w", "host": "h"}));
        task("FAILED");
    }
    call(
        "announce_scheduling_failure",
        serde_json::json!({
            "worker": "w", "task_name": "Odd(x=1)", "family": "Odd", "params": {},
            "expl": "Traceback:\nKeyError: 'x'", "owners": [],
        }),
    );
    until("all were delivered", || sink.at("/hook", true).len() >= 3);
    let texts: Vec<String> = sink
        .at("/hook", true)
        .iter()
        .map(|r| r.json()["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        texts,
        [
            "a task failed: Load_1 (code): ValueError: no orders",
            "a task failed: Load_1 (limit): ValueError: no orders",
            "a task could not be scheduled: Odd(x=1) (scheduling): KeyError: 'x'",
        ]
    );
}

fn spans(sink: &Sink) -> Vec<Value> {
    let all = sink.at("/v1/traces", true);
    all.iter()
        .flat_map(|r| r.json()["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().cloned())
        .flatten()
        .collect()
}

#[test]
fn traces_and_lineage_outlive_the_server_and_the_receiver() {
    let folder = Folder::new();
    let sink = Sink::start(503);
    let config = format!(
        "[traces]\nurl = '{}'\n[lineage]\nurl = '{}'\n",
        sink.url("/v1/traces"),
        sink.url("/lineage")
    );
    folder.write("out.toml", config);
    let server = Server::start_with(&folder, &["--config", "out.toml"]);
    let yaml = format!(
        "
name: w
tasks:
  make:
    shell: 'echo $TRACEPARENT >> {}/parents; test $KOBZA_ATTEMPT = 2'
    retries: {{limit: 1}}
    produces: ['s3://bucket/table']
    consumes: [source]
",
        folder.path().display()
    );
    let run = begin(&server, &yaml, "w");
    assert_eq!(server.wait_run(&run), "succeeded");
    until("the receiver has been tried", || {
        !sink.at("/v1/traces", false).is_empty() && !sink.at("/lineage", false).is_empty()
    });
    server.kill_9();
    sink.status.store(200, Ordering::SeqCst);
    let _server = Server::start_with(&folder, &["--config", "out.toml"]);
    until("the spans came", || spans(&sink).len() >= 3);
    let all = spans(&sink);
    let id: RunId = run.parse().unwrap();
    assert!(all.iter().all(|span| span["traceId"] == trace_id(id).as_str()), "{all:?}");
    let root = all.iter().find(|s| s["spanId"] == run_span_id(id).as_str()).unwrap();
    assert_eq!((&root["name"], &root["status"]["code"]), (&"w".into(), &1.into()));
    let parents = folder.read("parents");
    let told: Vec<&str> = parents.lines().map(|l| l.split('-').nth(2).unwrap()).collect();
    assert_eq!(told.len(), 2);
    for (span, code) in told.iter().zip([2, 1]) {
        let own = all.iter().find(|s| s["spanId"] == *span).unwrap();
        assert_eq!(own["parentSpanId"], root["spanId"]);
        assert_eq!(own["status"]["code"], code);
    }
    let lineage =
        || -> Vec<Value> { sink.at("/lineage", true).iter().map(Received::json).collect() };
    until("the run's end came", || {
        lineage().iter().any(|e| e["eventType"] == "COMPLETE" && e["job"]["name"] == "w")
    });
    let all = lineage();
    let of = |kind: &str, job: &str| {
        all.iter().find(|e| e["eventType"] == kind && e["job"]["name"] == job).unwrap().clone()
    };
    assert_eq!(of("START", "w")["run"]["runId"], run.as_str());
    let (failed, done) = (of("FAIL", "w.make"), of("COMPLETE", "w.make"));
    assert_ne!(failed["run"]["runId"], done["run"]["runId"], "attempts are runs of their own");
    assert_eq!(done["run"]["facets"]["parent"]["run"]["runId"], run.as_str());
    assert_eq!(done["outputs"][0]["namespace"], "s3://bucket");
    assert_eq!(done["outputs"][0]["name"], "table");
    assert_eq!(done["inputs"][0]["name"], "source");
}

#[test]
fn a_wrong_file_stops_the_server() {
    let folder = Folder::new();
    folder.write("out.toml", "[traces]\nurl = 'ftp://x'\n");
    let output = folder.kobza(&[
        "server",
        "--data",
        "data",
        "--listen",
        "127.0.0.1:0",
        "--config",
        "out.toml",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("out.toml"), "{}", text(&output.stderr));
}
