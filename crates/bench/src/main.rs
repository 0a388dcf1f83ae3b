//! Speed of the core: engine, loop and SQLite store with `synchronous=FULL`, without executors.
//!
//! Each figure is a line of JSON: `{"workload", "unit", "values"}`. Rows are chosen by name on the
//! command line; none means all. Processes and HTTP are measured from outside, by `bench/run.py`,
//! which prints these lines too, and uses `luigi` and `starts` (see there) as its load.

mod link;
mod luigi;
mod postgres;
mod starts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kobza_engine::{Command, EngineOptions, StartRun};
use kobza_model::*;
use kobza_runtime::{Handle, Runtime, RuntimeOptions, channel};
use kobza_store::{SqliteOptions, SqliteStore, Write};
use uuid::Uuid;

fn node(name: &str, upstream: &[u32]) -> Node {
    serde_json::from_value(serde_json::json!({
        "name": name,
        "call": 0,
        "gate": Gate::all_succeeded(),
        "edges": upstream.iter().map(|u| serde_json::json!({"upstream": u})).collect::<Vec<_>>(),
    }))
    .unwrap_or_else(|e| panic!("the bench's own node: {e}"))
}

fn workflow(name: &str, nodes: Vec<Node>) -> Workflow {
    let leaf = Template {
        name: "noop".to_owned(),
        body: TemplateBody::Leaf(Leaf { kind: "noop".to_owned(), spec: Json::Null }),
    };
    let graph = Graph {
        nodes,
        verdict: Verdict::default(),
        parallelism: None,
        outputs: false,
        spec: Json::Null,
    };
    let main = Template { name: "main".to_owned(), body: TemplateBody::Graph(graph) };
    Workflow {
        name: name.to_owned(),
        dialect: "native".to_owned(),
        templates: vec![leaf, main],
        entry: TemplateNo(1),
        description: None,
        tags: Vec::new(),
        params: Json::Null,
        timeout_ms: None,
        max_active_runs: None,
        hooks: Vec::new(),
        open: false,
        backfills_apart: false,
        triggers: Json::Null,
        source: Json::Null,
    }
}

fn chain(length: u32) -> Workflow {
    let nodes = (0..length)
        .map(|i| node(&format!("t{i}"), &i.checked_sub(1).map(|up| vec![up]).unwrap_or_default()))
        .collect();
    workflow(&format!("chain{length}"), nodes)
}

fn mapped(count: u32) -> Workflow {
    let mut map = node("map", &[]);
    map.expansion = Some(Expansion {
        at: ExpansionAt::Gate,
        by: ExpansionBy::Static(count),
        zero: ZeroLength::Skipped,
        window: None,
        fail_fast: false,
    });
    workflow(&format!("map{count}"), vec![map])
}

/// The same with tasks that an executor has to carry out.
fn launched(mut workflow: Workflow) -> Workflow {
    workflow.name += "-launched";
    if let Some(template) = workflow.templates.first_mut()
        && let TemplateBody::Leaf(leaf) = &mut template.body
    {
        leaf.kind = "shell".to_owned();
    }
    workflow
}

/// How many runs ended in a commit.
fn ends(committed: &kobza_runtime::Committed) -> u32 {
    let ended = committed
        .events
        .iter()
        .filter(|e| matches!(e.kind, EventKind::Run { state, .. } if state.is_finished()));
    u32::try_from(ended.count()).unwrap_or(u32::MAX)
}

struct Server {
    handle: Handle,
    runtime: Runtime,
    versions: BTreeMap<String, Arc<Workflow>>,
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut server = Self::start_in(folder.path())?;
        server._folder = Some(folder);
        Ok(server)
    }

    fn start_in(folder: &std::path::Path) -> anyhow::Result<Self> {
        let store = Arc::new(SqliteStore::open(folder, SqliteOptions::default())?);
        let (handle, inbox) = channel();
        let options = RuntimeOptions {
            engine: EngineOptions::default(),
            owner: "bench".to_owned(),
            store,
            dialects: Vec::new(),
            lookup: None,
        };
        let runtime = Runtime::start(options, &handle, inbox, BTreeMap::new())?;
        Ok(Self { handle, runtime, versions: BTreeMap::new(), _folder: None })
    }

    fn put(&mut self, workflow: Workflow) -> anyhow::Result<String> {
        let name = workflow.name.clone();
        let workflow = Arc::new(workflow);
        self.handle.submit_blocking(kobza_runtime::Submission {
            commands: Vec::new(),
            writes: vec![Write::PutWorkflow {
                namespace: "default".to_owned(),
                version: name.clone(),
                workflow: workflow.clone(),
                source: None,
            }],
        })?;
        self.versions.insert(name.clone(), workflow);
        Ok(name)
    }

    fn start_run(&self, name: &str) -> anyhow::Result<RunId> {
        let run = RunId(Uuid::now_v7());
        let workflow = self.versions.get(name).context("no such workflow")?.clone();
        self.handle.submit_blocking(Command::StartRun(Box::new(StartRun {
            run,
            namespace: "default".to_owned(),
            workflow,
            version: name.to_owned(),
            params: Json::Null,
            key: None,
            trigger: "bench".to_owned(),
            interval: None,
            partition: None,
            labels: Json::Null,
            parent: None,
            priority: 0,
            extra: Json::Null,
        })))?;
        Ok(run)
    }

    /// Runs once, from the command to the durable end of the run.
    fn whole(&self, name: &str) -> anyhow::Result<Duration> {
        let mut events = self.handle.follow();
        let started = Instant::now();
        let run = self.start_run(name)?;
        loop {
            let committed = events.blocking_recv()?;
            let ended = committed.events.iter().any(|e| {
                e.run == Some(run)
                    && matches!(e.kind, EventKind::Run { state, .. } if state.is_finished())
            });
            if ended {
                return Ok(started.elapsed());
            }
        }
    }

    /// So many runs from 64 callers at once; runs a second.
    fn many(&self, name: &str, count: u32) -> f64 {
        const CALLERS: u32 = 64;
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    for _ in 0..count / CALLERS {
                        if let Err(error) = self.start_run(name) {
                            eprintln!("{error:#}");
                        }
                    }
                });
            }
        });
        f64::from(count / CALLERS * CALLERS) / started.elapsed().as_secs_f64()
    }

    fn stop(self) -> anyhow::Result<()> {
        self.handle.stop();
        Ok(self.runtime.join()?)
    }
}

fn resident_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = text.split_whitespace().nth(1).and_then(|p| p.parse().ok()).unwrap_or(0.0);
    pages * 4096.0 / 1_048_576.0
}

fn figure(workload: &str, unit: &str, values: &[f64]) {
    println!("{}", serde_json::json!({"workload": workload, "unit": unit, "values": values}));
}

fn main() -> anyhow::Result<()> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    if chosen.first().is_some_and(|c| c == "luigi") {
        return luigi::run(&chosen[1..]);
    }
    if chosen.first().is_some_and(|c| c == "starts") {
        return starts::run(&chosen[1..]);
    }
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|c| c == name);
    if wanted("latency") {
        let mut server = Server::start()?;
        let name = server.put(chain(3))?;
        let times: Vec<f64> = (0..500)
            .map(|_| Ok(server.whole(&name)?.as_secs_f64() * 1e3))
            .collect::<anyhow::Result<_>>()?;
        figure("three-step no-op run, command to durable end", "ms", &times);
        server.stop()?;
    }
    if wanted("runs") {
        let mut server = Server::start()?;
        let name = server.put(chain(3))?;
        let rates: Vec<f64> = (0..5).map(|_| server.many(&name, 20_000)).collect();
        figure("three-step no-op runs, 64 callers", "runs/s", &rates);
        server.stop()?;
    }
    if wanted("history") {
        let mut server = Server::start()?;
        let name = server.put(chain(3))?;
        server.many(&name, 1_000_000);
        let rates: Vec<f64> = (0..5).map(|_| server.many(&name, 20_000)).collect();
        figure("the same with 1,000,000 finished runs in the store", "runs/s", &rates);
        server.stop()?;
    }
    // Not one of the rows: leaves a store with a million finished runs for the bench from outside.
    if chosen.iter().any(|c| c == "fill") {
        let folder = std::env::var("KOBZA_BENCH_DATA").context("KOBZA_BENCH_DATA")?;
        let mut server = Server::start_in(folder.as_ref())?;
        let name = server.put(chain(3))?;
        figure("filling a store with 1,000,000 runs", "runs/s", &[server.many(&name, 1_000_000)]);
        server.stop()?;
    }
    for length in [100u32, 1000, 10_000] {
        if wanted("chain") {
            let mut server = Server::start()?;
            let name = server.put(chain(length))?;
            let each = server.whole(&name)?.as_secs_f64() * 1e6 / f64::from(length);
            figure(&format!("chain of {length} no-ops, within the loop"), "µs/task", &[each]);
            server.stop()?;
        }
    }
    for count in [10_000u32, 100_000, 1_000_000] {
        if wanted("map") || wanted(&format!("map{count}")) {
            let mut server = Server::start()?;
            let name = server.put(mapped(count))?;
            let before = resident_mib();
            let took = server.whole(&name)?;
            let workload = format!("{count} mapped no-ops");
            figure(&workload, "tasks/s", &[f64::from(count) / took.as_secs_f64()]);
            figure(&format!("{workload}, memory"), "MiB", &[resident_mib() - before]);
            server.stop()?;
        }
    }
    if wanted("postgres") {
        postgres::run(chosen.iter().any(|c| c == "postgres"))?;
    }
    Ok(())
}
