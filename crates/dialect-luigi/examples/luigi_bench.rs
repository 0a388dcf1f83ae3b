//! Speed of the scheduler itself, in one process without HTTP: `luigi_bench [TASKS]`.
//!
//! Pending tasks with resources (50,000 where nothing is said), scheduled by fifty workers that all
//! can run all of them, then: get_work; the three calls that a task costs; a page of a task list.

use std::time::{Duration, Instant};

use kobza_dialect_luigi::{LuigiConfig, LuigiMachine};
use kobza_engine::{Machine as _, MachineOutput, MachineRequest};
use kobza_model::{EngineTime, Json, Now, RunId, Timestamp};
use serde_json::json;

struct Bench {
    machine: LuigiMachine,
    now: i64,
}

impl Bench {
    fn call(&mut self, method: &str, arguments: &Json) -> (Json, Duration) {
        self.now += 1000;
        let now = Now { wall: Timestamp(self.now), engine: EngineTime(self.now) };
        let arguments = Json::String(arguments.to_string());
        let mut out = MachineOutput::default();
        let start = Instant::now();
        let reply =
            self.machine.call(MachineRequest { now, method, arguments: &arguments }, &mut out);
        let took = start.elapsed();
        let Ok(Json::String(text)) = reply else { return (Json::Null, took) };
        (serde_json::from_str(&text).unwrap_or_default(), took)
    }
}

fn show(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    let sum: Duration = times.iter().sum();
    println!(
        "{what}: {} calls, median {:?}, p99 {:?}, max {:?}, {:.0}/s",
        times.len(),
        at(50),
        at(99),
        at(100),
        times.len() as f64 / sum.as_secs_f64()
    );
}

fn main() {
    let tasks: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(50_000);
    let mut config = LuigiConfig::default();
    config.resources.insert("db".to_owned(), 40.0);
    config.resources.insert("gpu".to_owned(), 2.0);
    let machine = LuigiMachine::new(RunId(uuid::Uuid::nil()), config);
    let mut bench = Bench { machine, now: 1_700_000_000_000_000 };
    let workers: Vec<String> = (0..50).map(|i| format!("Worker(salt={i}, workers=2)")).collect();
    let mut add = Vec::new();
    for worker in &workers {
        bench.call("add_worker", &json!({"worker": worker, "info": [["workers", 2]]}));
        for i in 0..tasks {
            let resources = match i % 4 {
                0 => json!({"gpu": 1}),
                1 => json!({"db": 1, "gpu": 1}),
                _ => json!({"db": 1}),
            };
            let deps = if i % 10 == 9 { json!([format!("T_{}", i - 1)]) } else { json!([]) };
            let (_, took) = bench.call(
                "add_task",
                &json!({"worker": worker, "task_id": format!("T_{i}"), "family": "T",
                    "params": {"n": i.to_string()}, "resources": resources, "deps": deps,
                    "priority": i % 7, "status": "PENDING", "runnable": true}),
            );
            add.push(took);
        }
    }
    show("add_task of a pending task", &mut add);
    let mut given = Vec::new();
    let (mut work, mut done, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..2000 {
        let worker = &workers[round % workers.len()];
        let (reply, took) = bench.call(
            "get_work",
            &json!({"worker": worker, "host": "h", "assistant": false, "current_tasks": Json::Null}),
        );
        match reply.get("task_id").and_then(Json::as_str) {
            Some(task) => {
                work.push(took);
                given.push((worker.clone(), task.to_owned()));
            }
            None => idle.push(took),
        }
        if given.len() > 30 {
            let (worker, task) = given.remove(0);
            let (_, took) = bench.call(
                "add_task",
                &json!({"worker": worker, "task_id": task, "status": "DONE", "family": "T",
                    "resources": {}, "runnable": Json::Null, "new_deps": []}),
            );
            done.push(took);
        }
    }
    show("get_work that gives a task", &mut work);
    if !idle.is_empty() {
        show("get_work that gives none", &mut idle);
    }
    show("add_task of a done task", &mut done);
    let mut ping: Vec<Duration> = (0..2000)
        .map(|i| bench.call("ping", &json!({"worker": workers[i % workers.len()]})).1)
        .collect();
    show("ping", &mut ping);
    let mut pages = Vec::new();
    let data = json!({"status": "PENDING", "upstream_status": "UPSTREAM_RUNNING"}).to_string();
    let mut arguments = json!({"method": "task_list", "data": data});
    loop {
        let now = Now { wall: Timestamp(bench.now), engine: EngineTime(bench.now) };
        let mut out = MachineOutput::default();
        let start = Instant::now();
        let request = MachineRequest { now, method: "$read", arguments: &arguments };
        let Ok(reply) = bench.machine.call(request, &mut out) else { break };
        pages.push(start.elapsed());
        if reply["session"].is_null() {
            break;
        }
        arguments = json!({"session": reply["session"]});
    }
    show("pieces of a filtered task list", &mut pages);
}
