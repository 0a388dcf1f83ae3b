//! A database that goes away for a while in the middle of everything: nothing is lost, nothing
//! happens twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::machine::{Folder, Server, agent, answer, until};

/// Longer than the lease.
const AWAY: Duration = Duration::from_secs(9);

const CALLED: &str = "
name: called
tasks:
  a: {shell: 'echo $KOBZA_RUN_ID a >> OUT/lines; sleep 0.3'}
  b: {needs: a, shell: 'echo $KOBZA_RUN_ID b >> OUT/lines', retries: {limit: 2}}
";
const TICKING: &str = "
name: ticking
schedule: {every: 1s, catchup: true}
tasks: {t: {shell: 'echo $KOBZA_RUN_ID t >> OUT/lines'}}
";

/// Starts runs, each under a key of its own, until told to stop; each is asked for until it is
/// answered. Answers the keys.
fn caller(url: String, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut keys = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let key = format!("k{}", keys.len());
            let body = json!({"key": key}).to_string();
            loop {
                let asked = agent()
                    .post(format!("{url}/api/v1/workflows/called/runs"))
                    .header("content-type", "application/json")
                    .send(&body);
                // 409: the first time was heard after all.
                match answer(asked).0 {
                    201 | 409 => break,
                    503 => std::thread::sleep(Duration::from_millis(100)),
                    other => panic!("the call was answered with {other}"),
                }
            }
            keys.push(key);
            std::thread::sleep(Duration::from_millis(50));
        }
        keys
    })
}

fn all(server: &Server, workflow: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/runs?workflow={workflow}&limit=200{cursor}");
        let page = server.get(&path).1;
        found.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[test]
fn the_database_goes_away_in_the_middle_of_everything() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = Folder::new();
    let store = cluster.url("127.0.0.1", "sslmode=prefer");
    let server = Server::start_under(&folder, &[("KOBZA_STORE", &store)]);
    for yaml in [CALLED, TICKING] {
        let yaml = yaml.replace("OUT", &folder.path().to_string_lossy());
        let (status, told) = server.post("/api/v1/workflows", "application/yaml", &yaml);
        assert_eq!(status, 201, "{told}");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let calls = caller(server.url.clone(), stop.clone());
    until("runs are under way", || folder.read("lines").lines().count() > 20);
    cluster.end();
    std::thread::sleep(AWAY / 2);
    assert_eq!(server.get("/api/v1/health").1["status"], "degraded");
    std::thread::sleep(AWAY / 2);
    cluster.begin();
    until("the server has its store", || server.get("/ready").0 == 200);
    std::thread::sleep(Duration::from_secs(2));
    stop.store(true, Ordering::SeqCst);
    let keys = calls.join().unwrap();
    let (_, triggers) = server.get("/api/v1/triggers?workflow=ticking");
    let trigger = triggers["items"][0]["id"].as_str().unwrap().to_owned();
    let pause = agent()
        .patch(format!("{}/api/v1/triggers/{trigger}", server.url))
        .header("content-type", "application/json")
        .send(r#"{"paused": true}"#);
    assert_eq!(answer(pause).0, 200);
    until("all runs end", || {
        let open = server.get("/api/v1/runs?state=queued,running&limit=1").1;
        open["items"].as_array().is_some_and(Vec::is_empty)
    });
    let called = all(&server, "called");
    let mut by_key: BTreeMap<&str, u32> = BTreeMap::new();
    for run in &called {
        *by_key.entry(run["key"].as_str().unwrap()).or_default() += 1;
        assert_eq!(run["state"], "succeeded", "{run}");
    }
    assert_eq!(by_key.len(), keys.len());
    assert!(keys.iter().all(|key| by_key[key.as_str()] == 1), "{by_key:?}");
    // Each second has its run, those without a database too.
    let mut slots: Vec<i64> = all(&server, "ticking")
        .iter()
        .map(|run| seconds(run["interval_end"].as_str().unwrap()))
        .collect();
    slots.sort_unstable();
    let whole: Vec<i64> = (slots[0]..=slots[slots.len() - 1]).collect();
    assert_eq!(slots, whole, "a slot is missing or was used twice");
    assert!(slots.len() as u64 > AWAY.as_secs());
    // Each body ran once, in its order.
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in folder.read("lines").lines() {
        let (run, task) = line.split_once(' ').unwrap();
        lines.entry(run.to_owned()).or_default().push(task.to_owned());
    }
    for run in &called {
        assert_eq!(lines[run["id"].as_str().unwrap()], ["a", "b"], "{run}");
    }
    assert_eq!(lines.len(), called.len() + slots.len());
}

/// Seconds since 1970 of a time such as `2026-01-31T02:00:00Z`.
fn seconds(text: &str) -> i64 {
    text.parse::<kobza_model::Timestamp>().unwrap().0 / 1_000_000
}
