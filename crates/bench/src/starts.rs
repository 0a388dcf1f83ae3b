//! Runs started over HTTP by concurrent clients: `kobza-bench starts HOST:PORT WORKFLOW COUNT CLIENTS`,
//! or by any other call: a path in place of the workflow's name, and its JSON body at the end.
//!
//! Each client has a connection of its own and starts the next run when the last is acknowledged.
//! Prints one line of JSON, as `luigi` does.

use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;

use crate::link::Link;

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (address, workflow, count, clients, body) = match args {
        [address, workflow, count, clients] => (address, workflow, count, clients, "{}"),
        [address, path, count, clients, body] => (address, path, count, clients, body.as_str()),
        _ => {
            anyhow::bail!("usage: kobza-bench starts HOST:PORT WORKFLOW|PATH COUNT CLIENTS [BODY]")
        }
    };
    let count: usize = count.parse().context("COUNT")?;
    let clients: usize = clients.parse().context("CLIENTS")?;
    let path = match workflow.starts_with('/') {
        true => workflow.clone(),
        false => format!("/api/v1/workflows/{workflow}/runs"),
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..clients)
            .map(|first| {
                let path = &path;
                scope.spawn(move || -> anyhow::Result<()> {
                    let mut link = Link::open(address)?;
                    for _ in (first..count).step_by(clients) {
                        link.post(path, "application/json", body)?;
                    }
                    Ok(())
                })
            })
            .collect();
        all.into_iter().try_for_each(|client| match client.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({"workload": format!("runs started by {clients} clients"), "unit": "runs/s", "values": [rate]})
    );
    Ok(())
}
