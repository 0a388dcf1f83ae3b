//! Real Airflow tasks through the real binary. They need the environment that `tests/airflow-venv`
//! makes; where it is absent these tests say so and pass.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::machine::{Folder, Server, kill, processes, until};

const DAGS: &str = include_str!("airflow/run.py");
fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("KOBZA_CACHE").map(PathBuf::from);
    let cache =
        cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/kobza")));
    let python = cache?.join("venvs/airflow/bin/python");
    if python.exists() {
        return Some(python);
    }
    eprintln!("skipped: there is no {}; tests/airflow-venv makes it", python.display());
    None
}

/// A folder with the DAGs, and the environment that runs them.
pub(crate) struct Dags {
    pub(crate) folder: Folder,
    pub(crate) python: String,
}

pub(crate) fn dags() -> Option<Dags> {
    let python = python()?.display().to_string();
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path().join("dags")).unwrap();
    folder.write("dags/run.py", DAGS);
    Some(Dags { folder, python })
}

impl Dags {
    pub(crate) fn server(&self, environment: &[(&str, &str)]) -> Server {
        let home = self.folder.path().join("home");
        let home = home.to_string_lossy();
        let mut environment = environment.to_vec();
        environment.push(("AIRFLOW_HOME", &home));
        let more = ["--airflow-dags", "dags", "--airflow-python", &self.python];
        Server::start_fully(&self.folder, &more, &environment)
    }
}

pub(crate) fn start(server: &Server, dag: &str) -> String {
    let path = format!("/api/v1/workflows/{dag}/runs");
    let mut body = Value::Null;
    until("the DAG is read", || {
        let (status, said) = server.post(&path, "application/json", "{}");
        body = said;
        status < 300
    });
    body["id"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

/// Tasks by name and index.
pub(crate) fn tasks(server: &Server, run: &str) -> BTreeMap<String, Value> {
    let (_, body) = server.get(&format!("/api/v1/runs/{run}/tasks?limit=500"));
    let items = body["items"].as_array().cloned().unwrap_or_default();
    items
        .into_iter()
        .map(|task| {
            let name = task["name"].as_str().unwrap().to_owned();
            match task["map_index"].as_u64() {
                Some(index) => (format!("{name}[{index}]"), task),
                None => (name, task),
            }
        })
        .collect()
}

pub(crate) fn states(server: &Server, run: &str) -> BTreeMap<String, String> {
    let state = |task: &Value| task["state"].as_str().unwrap().to_owned();
    tasks(server, run).iter().map(|(name, task)| (name.clone(), state(task))).collect()
}

fn id(server: &Server, run: &str, name: &str) -> String {
    tasks(server, run)[name]["id"].as_str().unwrap().to_owned()
}

pub(crate) fn outputs(server: &Server, run: &str, name: &str) -> Value {
    let body = server.get(&format!("/api/v1/tasks/{}/outputs", id(server, run, name))).1;
    body.get("outputs").cloned().unwrap_or(body)
}

fn log(server: &Server, run: &str, name: &str) -> String {
    server.get(&format!("/api/v1/tasks/{}/attempts/1/log", id(server, run, name))).1.to_string()
}

#[test]
fn values_of_all_kinds_reach_tasks() {
    let Some(dags) = dags() else { return };
    let server = dags.server(&[]);
    assert_eq!(server.put("/api/v1/variables/greeting", "{\"value\": \"hello\"}").0, 200);
    let connection = json!({
        "kind": "postgres",
        "fields": {"host": "db", "user": "maria", "port": 5432, "sslmode": "require"},
        "secrets": {"password": "hunter2-hunter2"},
    });
    assert_eq!(server.put("/api/v1/connections/shop", &connection.to_string()).0, 200);
    let run = start(&server, "values");
    let end = server.wait_run(&run);
    let all = tasks(&server, &run);
    assert_eq!(end, "succeeded", "{all:#?}");
    let value = |name: &str| outputs(&server, &run, name)["return_value"].clone();
    assert_eq!(value("bash"), "3 1");
    assert_eq!(value("consume"), 6);
    assert_eq!(value("total"), json!([3, [6, 4, 2], 12, 4]));
    let asked = value("ask");
    assert_eq!(asked["greeting"], "hello");
    assert_eq!((&asked["missing"], &asked["made"]), (&json!("nothing"), &json!("by a task")));
    assert_eq!(asked["connection"], json!(["db", "maria", 5432]));
    assert_eq!(asked["extra"], json!({"sslmode": "require"}));
    assert_eq!(asked["own"], json!([1, null]));
    assert_eq!((&asked["runs"], &asked["here"]), (&json!(1), &json!(1)));
    assert_eq!(asked["states"], json!({"ask": "running"}));
    assert_eq!((&asked["state"], &asked["previous"]), (&json!("running"), &json!("None")));
    assert_eq!(value("read"), json!([{"rows": 3}]));
    let log = log(&server, &run, "ask");
    assert!(log.contains("the password is") && !log.contains("hunter2-hunter2"), "{log}");
}

#[test]
fn decisions_skip_what_airflow_skips() {
    let Some(dags) = dags() else { return };
    let server = dags.server(&[]);
    let run = start(&server, "paths");
    server.wait_run(&run);
    let states = states(&server, &run);
    let of = |name: &str| states[name].as_str();
    assert_eq!((of("left"), of("right")), ("succeeded", "skipped"));
    assert_eq!((of("short"), of("after_short"), of("far")), ("succeeded", "skipped", "skipped"));
    // A manual run is the latest.
    assert_eq!((of("latest"), of("after_latest")), ("succeeded", "succeeded"));
    assert_eq!(of("skip"), "skipped");
}

#[test]
fn sensors_give_their_worker_back_and_triggers_wake_tasks() {
    let Some(dags) = dags() else { return };
    let pokes = dags.folder.path().join("pokes");
    let server = dags.server(&[("POKES", &*pokes.to_string_lossy())]);
    let run = start(&server, "waits");
    let end = server.wait_run(&run);
    assert_eq!(end, "succeeded", "{:#?}", tasks(&server, &run));
    assert_eq!(dags.folder.read("pokes"), "xxx");
}

#[test]
fn tries_end_as_airflow_says() {
    let Some(dags) = dags() else { return };
    let told = dags.folder.path().join("told");
    let server = dags.server(&[("TOLD", &*told.to_string_lossy())]);
    let run = start(&server, "retries");
    assert_eq!(server.wait_run(&run), "failed");
    let all = tasks(&server, &run);
    let of = |name: &str| (all[name]["state"].as_str().unwrap(), all[name]["attempt"].as_u64());
    assert_eq!(of("third"), ("succeeded", Some(3)));
    assert_eq!(of("final"), ("failed", Some(1)));
    assert_eq!(of("dies"), ("succeeded", Some(2)));
    assert_eq!(of("nonsense"), ("failed", Some(1)));
    let words = all["nonsense"]["message"].as_str().unwrap();
    assert!(words.contains("does not speak the supervisor's protocol"), "{words}");
    assert_eq!(all["final"]["message"], "AirflowFailException: never again");
    let mut lines: Vec<String> = dags.folder.read("told").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["final 1", "third 1", "third 2"]);
}

#[test]
fn a_task_starts_another_dag() {
    let Some(dags) = dags() else { return };
    let server = dags.server(&[]);
    let run = start(&server, "calls");
    server.wait_run(&run);
    let all = states(&server, &run);
    assert_eq!((&*all["call"], &*all["again"]), ("succeeded", "failed"), "{all:?}");
    assert_eq!(all["external"], "succeeded");
    let (_, runs) = server.get("/api/v1/runs?workflow=called");
    let runs = runs["items"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    let called = runs[0]["id"].as_str().or(runs[0]["run"].as_str()).unwrap();
    assert_eq!(outputs(&server, called, "answer")["return_value"], 7);
}

#[test]
fn deaths_of_server_parent_and_trigger_runner_lose_nothing() {
    let Some(dags) = dags() else { return };
    let pokes = dags.folder.path().join("pokes");
    let environment = [("POKES", &*pokes.to_string_lossy())];
    let server = dags.server(&environment);
    let run = start(&server, "waits");
    until("a task waits for its trigger", || {
        states(&server, &run).values().any(|state| state == "deferred")
    });
    let here = dags.folder.path().canonicalize().unwrap().display().to_string();
    let of_here =
        |word: &str| processes(|line| line.contains(word) && line.contains(here.as_str()));
    until("the trigger runner is there", || !of_here("kobza_airflow.trigger").is_empty());
    for pid in of_here("kobza_airflow.trigger") {
        kill(pid, "-KILL");
    }
    for pid in of_here("kobza_worker parent") {
        kill(pid, "-KILL");
    }
    server.kill_9();
    let server = dags.server(&environment);
    assert_eq!(server.wait_run(&run), "succeeded", "{:#?}", tasks(&server, &run));
}
