//! A secret goes through every kind of task, also those that fail, and is then looked for: in the
//! server's log, in every file of the data folder (the store, the logs, spools), in every answer of
//! the API, and in the command lines of all processes while the tasks run.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::machine::{Folder, agent, answer, text, until};

const CANARY: &str = "canary-7f3a9c-tweets";

const NATIVE: &str = r#"
name: native
connections: {own: {url: "sqlite:DB"}}
tasks:
  shell: {shell: "printf %s {{ secret.canary }} > OUT/shell; echo it is {{ secret.canary }}; sleep 0.3"}
  fails: {shell: "echo about to fail with {{ secret.canary }} >&2; sleep 0.2; exit 3", rule: always}
  missing: {shell: "/no/such/{{ secret.canary }}/program", rule: always}
  python: {python: {function: use, file: OUT/use.py}}
  raises: {python: {function: raises, file: OUT/use.py}}
  sql: {sql: "select length({{ secret.canary }}) as n", connection: own}
  bad: {sql: "select nonsense from {{ secret.canary }} where", connection: own}
  page: {http: {url: "HTTP/health", headers: {X-Key: "{{ secret.canary }}"}, expect: [200]}}
  lost: {http: {url: "http://127.0.0.1:1/{{ secret.canary }}"}}
"#;

const USE: &str = "
import kobza

def use():
    value = kobza.secret('canary')
    open('OUT/python', 'w').write(value)
    print('python has', value)
    return len(value)

def raises():
    raise ValueError('no use for ' + kobza.secret('canary'))
";

/// Files that hold it, below a folder.
fn holding(folder: &Path, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            holding(&path, out);
        } else if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()) {
                out.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn a_secret_is_nowhere() {
    let folder = Folder::new();
    let out = folder.path().display().to_string();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let log = std::fs::File::create(folder.path().join("server.log")).unwrap();
    // At its most talkative.
    let mut server = folder
        .command(&["server", "--listen", &format!("127.0.0.1:{port}"), "--data", "data"])
        .env("KOBZA_LOG", "debug")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    until("the server is ready", || agent().get(format!("{url}/ready")).call().is_ok());
    let get = |path: &str| answer(agent().get(format!("{url}{path}")).call());
    let post = |path: &str, kind: &str, body: &str| {
        answer(agent().post(format!("{url}{path}")).header("content-type", kind).send(body))
    };
    let put = |path: &str, body: Value| answer(agent().put(format!("{url}{path}")).send_json(body));
    let fill =
        |t: &str| t.replace("OUT", &out).replace("DB", &format!("{out}/db")).replace("HTTP", &url);
    assert_eq!(put("/api/v1/variables/canary", json!({"value": CANARY, "secret": true})).0, 200);
    let connection =
        json!({"kind": "http", "fields": {"host": "h"}, "secrets": {"password": CANARY}});
    assert_eq!(put("/api/v1/connections/hidden", connection).0, 200);
    folder.write("use.py", fill(USE));
    let (status, told) = post("/api/v1/workflows", "application/yaml", &fill(NATIVE));
    assert_eq!(status, 201, "{told}");

    // Every command line, as long as anything runs.
    let over = Arc::new(AtomicBool::new(false));
    let watch = {
        let over = over.clone();
        std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                    let mut line = Vec::new();
                    if let Ok(mut file) = std::fs::File::open(entry.path().join("cmdline")) {
                        let _gone = file.read_to_end(&mut line);
                    }
                    if line.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()) {
                        seen.insert(text(&line).replace('\0', " "));
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            seen
        })
    };
    let (_, run) = post("/api/v1/workflows/native/runs", "application/json", "{}");
    let run = run["id"].as_str().unwrap().to_owned();
    until("the run ends", || get(&format!("/api/v1/runs/{run}")).1["ended_at"].is_string());
    over.store(true, Ordering::Relaxed);
    let lines = watch.join().unwrap();
    assert!(lines.is_empty(), "on a command line: {lines:?}");
    // The tasks had it.
    assert_eq!((folder.read("shell"), folder.read("python")), (CANARY.into(), CANARY.into()));

    let (_, tasks) = get(&format!("/api/v1/runs/{run}/tasks?limit=100"));
    let tasks: Vec<String> = tasks["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(tasks.len(), 9);
    let mut asked = 0;
    for route in kobza_api::access() {
        if route.method != "GET" || route.path.ends_with("/stream") {
            continue;
        }
        for task in &tasks {
            let first = if route.path.contains("/tasks/") { task.as_str() } else { run.as_str() };
            let name = if route.path.contains("connections") { "hidden" } else { "native" };
            let path =
                route.path.replace("{id}", first).replace("{attempt}", "1").replace("{name}", name);
            let path = path
                .replace("{key}", "canary")
                .replace("{artifact}", "x")
                .replace("{version}", "1");
            let (status, told) = get(&path);
            let told = told.to_string();
            if let Some(at) = told.find(CANARY) {
                let begin = told.floor_char_boundary(at.saturating_sub(200));
                panic!("{path} ({status}): ...{}", &told[begin..at + CANARY.len()]);
            }
            asked += 1;
            if !route.path.contains("/tasks/") {
                break;
            }
        }
    }
    assert!(asked > 100, "{asked}");
    for path in
        ["/metrics", "/api/v1/runs?q=canary", "/argo/api/v1/workflows/", "/luigi/api/task_list"]
    {
        assert!(!get(path).1.to_string().contains(CANARY), "{path}");
    }
    let dump = folder.kobza(&["backup", "copy.db", "--data", "data"]);
    assert!(dump.status.success(), "{}", text(&dump.stderr));
    server.kill().unwrap();
    server.wait().unwrap();
    for pid in folder.shims() {
        crate::machine::kill(pid, "-TERM");
    }
    let mut found = Vec::new();
    holding(&folder.path().join("data"), &mut found);
    assert!(found.is_empty(), "in files: {found:?}");
    for file in ["server.log", "copy.db"] {
        let bytes = std::fs::read(folder.path().join(file)).unwrap();
        assert!(!bytes.is_empty(), "{file}");
        assert!(!bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes()), "in {file}");
    }
}
