//! Airflow's tasks, wired to the rest: what supervises them, what answers them, what wakes them.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kobza_api::{Catalog as _, Vault};
use kobza_dialect_airflow::ADAPTER;
use kobza_dialect_airflow::dated::Dated;
use kobza_dialect_airflow::desk::{Asker, Desk, Later, StartRuns, Values};
use kobza_dialect_airflow::task::Supervisor;
use kobza_dialect_airflow::triggerer::Triggerer;
use kobza_engine::{KillReason, Report, ReportBody};
use kobza_executor_process::{Warm, WarmSetup};
use kobza_executor_python::{Pool, unpack};
use kobza_model::{EngineTime, Json, LaunchId, Timestamp, Workflow};
use kobza_runtime::{Answer, Ask, Executor, Handle, LaunchSpec, Protocol, ReportSink, wall_now};
use kobza_store::{Store, kinds};

use crate::airflow_host::Ends;
use crate::compose::{Database, Dialects};
use crate::failure::Failure;

/// Questions of tasks that are answered at once.
const CLERKS: usize = 4;
/// A question that hit a store in trouble is tried again after so long.
const AGAIN: Duration = Duration::from_millis(500);

/// The warm host of a shim: it also supervises Airflow's tasks.
pub(crate) fn make_warm(setup: WarmSetup) -> Result<Box<dyn Warm>, String> {
    Pool::make_with(setup, vec![(ADAPTER, supervisor)])
}

fn supervisor(extra: &Json) -> Result<Option<Box<dyn Protocol>>, String> {
    if extra.get("airflow").is_none() {
        // The process that reads DAG files.
        return Ok(None);
    }
    Ok(Some(Box::new(Supervisor::of(extra)?)))
}

struct VaultValues {
    vault: Arc<Vault>,
    store: Arc<dyn Database>,
}

impl Values for VaultValues {
    fn lookup(&self, kind: &str, namespace: &str, name: &str) -> Option<Json> {
        let store: &dyn Store = self.store.as_ref();
        self.vault.lookup(store, kind, namespace, name)
    }

    fn seal(&self, kind: &str, namespace: &str, name: &str, value: &Json) -> Result<Json, String> {
        self.vault.seal((kind, namespace, name), value).map_err(|e| e.to_string())
    }

    fn secrets(
        &self,
        namespace: &str,
        name: &str,
        sealed: &Json,
    ) -> Result<serde_json::Map<String, Json>, String> {
        if sealed.is_null() {
            return Ok(serde_json::Map::new());
        }
        match self.vault.unseal((kinds::CONNECTION, namespace, name), sealed) {
            Ok(Json::Object(secrets)) => Ok(secrets),
            Ok(_) => Ok(serde_json::Map::new()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The desk of a server.
pub(crate) fn desk(
    handle: &Handle,
    store: &Arc<dyn Database>,
    vault: &Arc<Vault>,
    dated: Arc<Dated>,
) -> Arc<Desk> {
    let starts = StartRuns {
        check: Arc::new(|workflow: &Workflow, conf| {
            Dialects::default().params(workflow, conf).map_err(|problems| {
                problems.iter().map(crate::check::show).collect::<Vec<_>>().join("; ")
            })
        }),
        custom: Arc::default(),
    };
    let values = VaultValues { vault: vault.clone(), store: store.clone() };
    let (store, values) = (store.clone(), Arc::new(values));
    Arc::new(Desk::new(handle.clone(), store.clone(), store, values, starts, dated))
}

/// Starts what follows the tasks that wait.
pub(crate) fn triggerer(desk: Arc<Desk>, data: &Path) -> Result<Triggerer, Failure> {
    Ok(Triggerer::start(desk, unpack(data)?)?)
}

type OnAnswer = Box<dyn FnOnce(Answer) + Send>;

/// Where executors report to: what Airflow's tasks ask goes to the desk, all else to the loop.
pub(crate) struct Reception {
    handle: Handle,
    store: Arc<dyn Database>,
    desk: Arc<Desk>,
    ends: Arc<Ends>,
    work: Mutex<Sender<(Ask, OnAnswer)>>,
}

impl Reception {
    pub(crate) fn new(
        handle: Handle,
        store: Arc<dyn Database>,
        desk: &Arc<Desk>,
        ends: Arc<Ends>,
    ) -> std::io::Result<Self> {
        let (work, inbox) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..CLERKS {
            let (desk, inbox) = (desk.clone(), inbox.clone());
            std::thread::Builder::new()
                .name("kobza-airflow-desk".to_owned())
                .spawn(move || clerk(&desk, &inbox))?;
        }
        Ok(Self { handle, store, desk: desk.clone(), ends, work: Mutex::new(work) })
    }

    fn is_airflow(&self, launch: LaunchId) -> bool {
        matches!(self.store.get_run(launch.run), Ok(Some(run)) if run.dialect == "airflow")
    }
}

fn clerk(desk: &Desk, inbox: &Mutex<Receiver<(Ask, OnAnswer)>>) {
    loop {
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((ask, on_answer)) = next else { return };
        let asker = Asker { launch: ask.launch, number: ask.number };
        loop {
            match desk.answer(asker, &ask.body) {
                Ok(answer) => break on_answer(answer),
                // The next server is asked.
                Err(Later::Stopped) => break,
                Err(Later::Again) => std::thread::sleep(AGAIN),
            }
        }
    }
}

impl ReportSink for Reception {
    fn report(&self, mut report: Report, on_durable: Box<dyn FnOnce() + Send>) {
        if self.ends.take(&report) {
            return on_durable();
        }
        if let ReportBody::Published { asset, metadata, .. } = &mut report.body {
            self.desk.name_asset(report.launch.run, asset, metadata);
        }
        self.handle.report(report, on_durable);
    }

    fn engine_time(&self, wall: Timestamp) -> EngineTime {
        self.handle.engine_time(wall)
    }

    fn ask(&self, ask: Ask, on_answer: OnAnswer) {
        if !self.is_airflow(ask.launch) {
            return self.handle.ask(ask, on_answer);
        }
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        // The clerks live as long as this does.
        let _stopped = work.send((ask, on_answer));
    }
}

/// Begins tasks that wait for a trigger from the start, without a worker.
pub(crate) struct Waiters {
    work: Mutex<Sender<(LaunchId, ReportBody)>>,
    handle: Handle,
}

impl Waiters {
    pub(crate) fn start(handle: Handle) -> std::io::Result<Self> {
        let (work, inbox) = channel::<(LaunchId, ReportBody)>();
        let reporting = handle.clone();
        // The loop calls this executor: it must not wait for the loop's own inbox.
        std::thread::Builder::new().name("kobza-waiters".to_owned()).spawn(move || {
            for (launch, body) in inbox {
                reporting.report(Report { launch, at: wall_now(), body }, Box::new(|| {}));
            }
        })?;
        Ok(Self { work: Mutex::new(work), handle })
    }

    fn send(&self, launch: LaunchId, body: ReportBody) {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread lives as long as this does.
        let _stopped = work.send((launch, body));
    }
}

impl Executor for Waiters {
    fn launch(&self, launch: LaunchId, spec: LaunchSpec) {
        let until = spec.extra["until"].as_str().and_then(|at| at.parse().ok());
        let until = until.map(|at| self.handle.engine_time(at));
        self.send(launch, ReportBody::Deferred { until, carry: spec.extra["carry"].clone() });
    }

    fn kill(&self, launch: LaunchId, _reason: KillReason) {
        // There is no process; its wait has been reported, or is about to be.
        let message = "it was stopped before it began to wait".to_owned();
        self.send(launch, ReportBody::Lost { message });
    }

    fn adopt(&self, launches: Vec<LaunchId>) {
        for launch in launches {
            let message = "its wait was not reported".to_owned();
            self.send(launch, ReportBody::Lost { message });
        }
    }
}
