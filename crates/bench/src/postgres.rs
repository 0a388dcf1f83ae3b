//! Whole lives of tasks on PostgreSQL: each is launched, confirmed and reported like that of a
//! process, by an executor that is done at once. So it is the loop and the store that is measured.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use anyhow::Context as _;
use kobza_engine::{Decision, EngineOptions, KillReason, Launch, Question, Report, ReportBody};
use kobza_model::{Cause, Json, LaunchId, Outcome};
use kobza_runtime::{
    Dialect, Executor, ExecutorName, Facts, Handle, LaunchSpec, ReportSink as _, Runtime,
    RuntimeOptions, channel, wall_now,
};
use kobza_store::{PostgresOptions, PostgresStore};

use crate::{Server, chain, figure, mapped};

/// The database, as a URL.
const PLACE: &str = "KOBZA_BENCH_POSTGRES";
const TASKS: u32 = 30_000;
const RUNS: u32 = 6_400;

struct Plain;

impl Dialect for Plain {
    fn name(&self) -> &'static str {
        "native"
    }

    fn decide(&self, _: &Question, _: &dyn Facts) -> Decision {
        Decision::Run { inputs: Json::Null }
    }

    fn launch(&self, _: &Launch, _: &dyn Facts) -> Result<(ExecutorName, LaunchSpec), String> {
        Ok(("instant", LaunchSpec::default()))
    }
}

struct Instantly(mpsc::Sender<LaunchId>);

impl Instantly {
    fn start(handle: Handle) -> Self {
        let (sender, launches) = mpsc::channel();
        std::thread::spawn(move || {
            for launch in launches {
                let report = |body| Report { launch, at: wall_now(), body };
                handle.report(report(ReportBody::Started), Box::new(|| {}));
                let body = ReportBody::Finished {
                    outcome: Outcome::Succeeded,
                    cause: Cause::None,
                    message: None,
                    exit_code: Some(0),
                    outputs: Vec::new(),
                    skips: Vec::new(),
                    jitter: 0.0,
                };
                handle.report(report(body), Box::new(|| {}));
            }
        });
        Self(sender)
    }
}

impl Executor for Instantly {
    fn launch(&self, launch: LaunchId, _: LaunchSpec) {
        // Its thread ends with the loop.
        let _ended = self.0.send(launch);
    }

    fn kill(&self, _: LaunchId, _: KillReason) {}

    fn adopt(&self, _: Vec<LaunchId>) {}
}

/// Measures, if a database is named.
pub(crate) fn run(required: bool) -> anyhow::Result<()> {
    let base = match std::env::var(PLACE) {
        Ok(base) => base,
        Err(_) if required => anyhow::bail!("{PLACE} names no database"),
        Err(_) => return Ok(()),
    };
    let separator = if base.contains('?') { '&' } else { '?' };
    let url = format!("{base}{separator}schema=kobza_bench_{}", std::process::id());
    let store = PostgresStore::open(&url, PostgresOptions::default())?;
    let (handle, inbox) = channel();
    let executors: BTreeMap<&'static str, Arc<dyn Executor>> =
        BTreeMap::from([("instant", Arc::new(Instantly::start(handle.clone())) as _)]);
    let options = RuntimeOptions {
        engine: EngineOptions { slots: 4096, window: 4096, ..EngineOptions::default() },
        owner: "bench".to_owned(),
        store: Arc::new(store),
        dialects: vec![Arc::new(Plain)],
        lookup: None,
    };
    let runtime = Runtime::start(options, &handle, inbox, executors)?;
    let mut server = Server { handle, runtime, versions: BTreeMap::new(), _folder: None };
    let map = server.put(crate::launched(mapped(TASKS)))?;
    let rate = f64::from(TASKS) / server.whole(&map)?.as_secs_f64();
    figure(&format!("PostgreSQL: {TASKS} mapped tasks, launched and reported"), "lives/s", &[rate]);
    let three = server.put(crate::launched(chain(3)))?;
    let mut events = server.handle.follow();
    let started = Instant::now();
    server.many(&three, RUNS);
    let mut ended = 0;
    while ended < RUNS {
        let committed = events.blocking_recv().context("too far behind the events")?;
        ended += crate::ends(&committed);
    }
    let rate = f64::from(RUNS * 3) / started.elapsed().as_secs_f64();
    let workload = format!("PostgreSQL: {RUNS} runs of three launched tasks, 64 callers");
    figure(&workload, "lives/s", &[rate]);
    server.stop()
}
