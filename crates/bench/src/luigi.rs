//! Load for a Luigi scheduler over HTTP, Kobza's or luigid's: `kobza-bench luigi ADDRESS SCENARIO`.
//!
//! ADDRESS is `host:port` with an optional path (`127.0.0.1:8080/luigi`). Each figure is a line of
//! JSON: `{"workload", "unit", "values"}`. The scenarios build on each other's tasks:
//!
//! - `pending FROM TO SAMPLES`: fills up from FROM to TO pending tasks with resources, of 50 workers, and times
//!   `get_work` while all 50 workers ping once a second.
//! - `calls SECONDS CONNECTIONS`: what tasks cost (schedule, take, finish, ping), as fast as it goes.
//! - `list COUNT`: pings every 2 ms, alone and then while somebody reads the list of all tasks.
//! - `fill FROM TO`: finished tasks, for measuring memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::link::Link;

const WORKERS: usize = 50;

/// Calls of methods, as a worker makes them.
trait Calls {
    /// The reply's body.
    fn send(&mut self, method: &str, arguments: &Value) -> anyhow::Result<Vec<u8>>;

    fn call(&mut self, method: &str, arguments: &Value) -> anyhow::Result<Value> {
        let reply = self.send(method, arguments)?;
        Ok(serde_json::from_slice::<Value>(&reply)?["response"].take())
    }

    /// Milliseconds that a call took.
    fn time(&mut self, method: &str, arguments: &Value) -> anyhow::Result<f64> {
        let started = Instant::now();
        self.send(method, arguments)?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }
}

impl Calls for Link {
    fn send(&mut self, method: &str, arguments: &Value) -> anyhow::Result<Vec<u8>> {
        let mut body = String::from("data=");
        for byte in arguments.to_string().bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
                body.push(char::from(byte));
            } else {
                body.push_str(&format!("%{byte:02X}"));
            }
        }
        self.post(&format!("/api/{method}"), "application/x-www-form-urlencoded", &body)
    }
}

fn report(workload: &str, unit: &str, values: &[f64]) {
    println!("{}", json!({"workload": workload, "unit": unit, "values": values}));
}

fn worker(i: usize) -> String {
    format!("Worker(salt={i:09}, workers=2, host=bench, username=bench, pid={i})")
}

/// A task as the client announces it: a quarter wants a GPU, a quarter that and the database.
fn announced(i: usize) -> Value {
    let resources = match i % 4 {
        0 => json!({"gpu": 1}),
        1 => json!({"db": 1, "gpu": 1}),
        _ => json!({"db": 1}),
    };
    let deps = if i % 10 == 9 { json!([format!("T_{:06}", i - 1)]) } else { json!([]) };
    json!({
        "worker": worker(i % WORKERS), "task_id": format!("T_{i:06}"), "family": "T", "module": "bench",
        "params": {"n": i.to_string(), "day": "2026-01-01"}, "resources": resources, "deps": deps,
        "priority": i % 7, "status": "PENDING", "runnable": true,
    })
}

fn finished(worker: &str, task: &str) -> Value {
    json!({
        "worker": worker, "task_id": task, "status": "DONE", "family": "T", "module": "bench",
        "params": {"n": "1"}, "resources": {}, "runnable": null, "new_deps": [], "expl": "null",
    })
}

/// Does `job` for so many numbers from several connections; order does not matter.
fn spread(
    address: &str,
    numbers: std::ops::Range<usize>,
    job: impl Fn(&mut Link, usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    const CALLERS: usize = 32;
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|first| {
                let (numbers, job) = (numbers.clone(), &job);
                scope.spawn(move || -> anyhow::Result<()> {
                    let mut link = Link::open(address)?;
                    numbers.skip(first).step_by(CALLERS).try_for_each(|i| job(&mut link, i))
                })
            })
            .collect();
        for caller in callers {
            caller.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??;
        }
        Ok(())
    })
}

/// Runs `body` while all workers ping once a second.
fn with_pings<T>(address: &str, body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pinger = scope.spawn(|| -> anyhow::Result<()> {
            let mut links: Vec<Link> =
                (0..WORKERS).map(|_| Link::open(address)).collect::<anyhow::Result<_>>()?;
            while !over.load(Ordering::Relaxed) {
                for (i, link) in links.iter_mut().enumerate() {
                    link.send("ping", &json!({"worker": worker(i)}))?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Ok(())
        });
        let result = body();
        over.store(true, Ordering::Relaxed);
        pinger.join().map_err(|_| anyhow::anyhow!("the pinger panicked"))??;
        result
    })
}

fn pending(address: &str, known: usize, wanted: usize, samples: usize) -> anyhow::Result<()> {
    let mut link = Link::open(address)?;
    for i in 0..WORKERS {
        let info = json!([["workers", 2], ["host", "bench"]]);
        link.call("add_worker", &json!({"worker": worker(i), "info": info}))?;
    }
    let started = Instant::now();
    spread(address, known..wanted, |link, i| link.send("add_task", &announced(i)).map(drop))?;
    let rate = (wanted - known) as f64 / started.elapsed().as_secs_f64();
    report(&format!("add_task up to {wanted} pending"), "calls/s", &[rate]);
    let times = with_pings(address, || {
        let (mut times, mut running) = (Vec::new(), std::collections::VecDeque::new());
        for sample in 0..samples {
            let worker = worker(sample % WORKERS);
            let ask = json!({
                "worker": worker, "host": "bench", "assistant": false, "current_tasks": null,
            });
            let before = Instant::now();
            let reply = link.call("get_work", &ask)?;
            times.push(before.elapsed().as_secs_f64() * 1e3);
            if let Some(task) = reply["task_id"].as_str() {
                running.push_back((worker, task.to_owned()));
            }
            if running.len() > 30
                && let Some((worker, task)) = running.pop_front()
            {
                link.call("add_task", &finished(&worker, &task))?;
            }
        }
        for (worker, task) in running {
            link.call("add_task", &finished(&worker, &task))?;
        }
        Ok(times)
    })?;
    report(&format!("get_work, {wanted} pending, resources, 50 workers"), "ms", &times);
    Ok(())
}

fn calls(address: &str, seconds: u64, connections: usize) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let started = Instant::now();
    let times = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..connections)
            .map(|no| {
                scope.spawn(move || -> anyhow::Result<Vec<f64>> {
                    let mut link = Link::open(address)?;
                    let worker = worker(1000 + no);
                    let mut times = Vec::new();
                    for i in 0.. {
                        if Instant::now() > until {
                            break;
                        }
                        let task = format!("L{no}_{i}");
                        let mut new = announced(i);
                        new["worker"] = json!(worker);
                        new["task_id"] = json!(task);
                        new["deps"] = json!([]);
                        new["resources"] = json!({});
                        times.push(link.time("add_task", &new)?);
                        let ask = json!({
                            "worker": worker, "host": "bench", "assistant": false, "current_tasks": [],
                        });
                        times.push(link.time("get_work", &ask)?);
                        times.push(link.time("ping", &json!({"worker": worker}))?);
                        times.push(link.time("add_task", &finished(&worker, &task))?);
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut all = Vec::new();
        for caller in callers {
            all.extend(caller.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    report(&format!("calls of {connections} workers"), "calls/s", &[rate]);
    report(&format!("one of these calls, {connections} workers at once"), "ms", &times);
    Ok(())
}

fn list(address: &str, count: usize) -> anyhow::Result<()> {
    let over = AtomicBool::new(false);
    let ping = |link: &mut Link, times: &mut Vec<f64>| -> anyhow::Result<()> {
        std::thread::sleep(Duration::from_millis(2));
        times.push(link.time("ping", &json!({"worker": worker(0)}))?);
        Ok(())
    };
    let mut link = Link::open(address)?;
    let mut alone = Vec::new();
    for _ in 0..500 {
        ping(&mut link, &mut alone)?;
    }
    report("ping", "ms", &alone);
    let (during, lists) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> anyhow::Result<Vec<f64>> {
            let mut link = Link::open(address)?;
            // As the visualiser asks.
            let ask = json!({"status": "PENDING", "upstream_status": "", "limit": false});
            let times = (0..count).map(|_| link.time("task_list", &ask)).collect();
            over.store(true, Ordering::Relaxed);
            times
        });
        let mut during = Vec::new();
        while !over.load(Ordering::Relaxed) && !reader.is_finished() {
            ping(&mut link, &mut during)?;
        }
        let lists = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        anyhow::Ok((during, lists))
    })?;
    report("ping while the list of all tasks is read", "ms", &during);
    report("the list of all tasks", "ms", &lists);
    Ok(())
}

fn fill(address: &str, from: usize, to: usize) -> anyhow::Result<()> {
    spread(address, from..to, |link, i| {
        let mut done = announced(i);
        done["task_id"] = json!(format!("F_{i}"));
        done["status"] = json!("DONE");
        done["deps"] = json!([]);
        link.send("add_task", &done).map(drop)
    })
}

/// The scenario of the command line.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let number = |at: usize| -> anyhow::Result<usize> {
        Ok(arguments.get(at).context("a number is missing")?.parse()?)
    };
    let [address, scenario, ..] = arguments else { bail!("luigi ADDRESS SCENARIO NUMBER...") };
    match scenario.as_str() {
        "pending" => pending(address, number(2)?, number(3)?, number(4)?),
        "calls" => calls(address, number(2)? as u64, number(3)?),
        "list" => list(address, number(2)?),
        "fill" => fill(address, number(2)?, number(3)?),
        other => bail!("there is no scenario {other:?}"),
    }
}
