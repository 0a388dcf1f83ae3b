//! Calls of other workflows.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;

use kobza_engine::{Command, KillReason, ReportBody, StartRun, StopMode};
use kobza_model::{
    Cause, EventKind, Json, LaunchId, Outcome, RunId, RunRow, RunState, TaskId, Workflow,
};
use kobza_runtime::{
    Committed, Executor, Handle, LaunchSpec, ReportSink as _, Submission, SubmitError,
};
use kobza_store::{RunFilter, Store, Views};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast;

use crate::{ended, report};

/// Runs within runs: a workflow that calls itself must end.
const MAX_DEPTH: usize = 32;

/// Checks parameters against a workflow and fills in defaults; an error is for people.
pub type CheckParams = dyn Fn(&Workflow, Json) -> Result<Json, String> + Send + Sync;

/// Carries out `workflow` tasks: each starts a run whose parent is the task, and ends with it.
///
/// `LaunchSpec::extra` holds `workflow`, `namespace`, `params`, `wait` and `attempt`. The run's key
/// is made of the task and the attempt, so that a launch repeated after a crash finds its run.
#[derive(Debug)]
pub struct WorkflowExecutor {
    work: mpsc::Sender<Work>,
}

enum Work {
    Launch(LaunchId, Box<LaunchSpec>),
    Kill(LaunchId, KillReason),
    Adopt(Vec<LaunchId>),
    Ended(Vec<RunId>),
    /// Events were missed: look at all runs that are waited for.
    Look,
    Stop,
}

#[derive(Deserialize)]
struct Asked {
    workflow: String,
    namespace: String,
    #[serde(default)]
    params: Json,
    wait: bool,
    attempt: u32,
}

impl WorkflowExecutor {
    /// Starts its threads, which end with the executor.
    pub fn start(
        handle: Handle,
        store: Arc<dyn Store>,
        views: Arc<dyn Views>,
        check: Arc<CheckParams>,
    ) -> io::Result<Self> {
        let (work, inbox) = mpsc::channel();
        let mut events = handle.follow();
        let ends = work.clone();
        std::thread::Builder::new().name("kobza-calls-events".to_owned()).spawn(move || {
            while let Some(item) = next_ends(&mut events) {
                if ends.send(item).is_err() {
                    return;
                }
            }
        })?;
        let mut calls = Calls { handle, store, views, check, children: HashMap::new() };
        std::thread::Builder::new().name("kobza-calls".to_owned()).spawn(move || {
            for item in inbox {
                match item {
                    Work::Launch(launch, spec) => calls.launch(launch, &spec),
                    Work::Kill(launch, reason) => calls.kill(launch, reason),
                    Work::Adopt(launches) => {
                        launches.into_iter().for_each(|launch| calls.adopt(launch));
                    }
                    Work::Ended(runs) => runs.into_iter().for_each(|run| calls.look(run)),
                    Work::Look => {
                        let runs: Vec<RunId> = calls.children.keys().copied().collect();
                        runs.into_iter().for_each(|run| calls.look(run));
                    }
                    Work::Stop => return,
                }
            }
        })?;
        Ok(Self { work })
    }

    fn send(&self, work: Work) {
        // The thread has ended with the loop: nobody is left to tell.
        let _stopped = self.work.send(work);
    }
}

impl Drop for WorkflowExecutor {
    fn drop(&mut self) {
        self.send(Work::Stop);
    }
}

impl Executor for WorkflowExecutor {
    fn launch(&self, launch: LaunchId, spec: LaunchSpec) {
        self.send(Work::Launch(launch, Box::new(spec)));
    }

    fn kill(&self, launch: LaunchId, reason: KillReason) {
        self.send(Work::Kill(launch, reason));
    }

    fn adopt(&self, launches: Vec<LaunchId>) {
        self.send(Work::Adopt(launches));
    }
}

/// The next runs that ended; `None` once the loop is gone.
fn next_ends(events: &mut broadcast::Receiver<Committed>) -> Option<Work> {
    loop {
        match events.blocking_recv() {
            Ok(committed) => {
                let ends = committed.events.iter().filter_map(|event| match event.kind {
                    EventKind::Run { state, .. } if state.is_finished() => event.run,
                    _ => None,
                });
                let ends: Vec<RunId> = ends.collect();
                if !ends.is_empty() {
                    return Some(Work::Ended(ends));
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => return Some(Work::Look),
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

struct Calls {
    handle: Handle,
    store: Arc<dyn Store>,
    views: Arc<dyn Views>,
    check: Arc<CheckParams>,
    /// Which launch waits for a run.
    children: HashMap<RunId, LaunchId>,
}

impl Calls {
    fn launch(&mut self, launch: LaunchId, spec: &LaunchSpec) {
        if let Err((cause, message)) = self.begin(launch, spec) {
            self.finish(launch, Outcome::Failed, cause, Some(message), Vec::new());
        }
    }

    fn begin(&mut self, launch: LaunchId, spec: &LaunchSpec) -> Result<(), (Cause, String)> {
        let outside = |e: &dyn std::fmt::Display| (Cause::Infrastructure, e.to_string());
        let asked =
            Asked::deserialize(&spec.extra).map_err(|e| (Cause::Template, e.to_string()))?;
        let stored = self
            .store
            .workflow(&asked.namespace, &asked.workflow, None)
            .map_err(|e| outside(&e))?
            .ok_or_else(|| {
                let message =
                    format!("there is no workflow {:?} in {:?}", asked.workflow, asked.namespace);
                (Cause::Template, message)
            })?;
        let given = if asked.params.is_null() { json!({}) } else { asked.params };
        let params = (self.check)(&stored.workflow, given).map_err(|e| (Cause::Template, e))?;
        self.depth(launch.run)?;
        let run = RunId(uuid::Uuid::now_v7());
        let task = launch.task_id();
        let start = Command::StartRun(Box::new(StartRun {
            run,
            namespace: asked.namespace,
            workflow: stored.workflow,
            version: stored.version,
            params,
            key: Some(format!("task:{task}:{}", asked.attempt)),
            trigger: "task".to_owned(),
            interval: None,
            partition: None,
            labels: Json::Null,
            parent: Some(task),
            priority: 0,
            extra: Json::Null,
        }));
        // One transaction. First the report: a launch that is no longer current starts nothing.
        let mut commands = vec![Command::Report(report(launch, ReportBody::Started)), start];
        if !asked.wait {
            let outputs = vec![("run_id".to_owned(), json!(run.to_string()))];
            let over = ended(launch, Outcome::Succeeded, Cause::None, None, outputs);
            commands.push(Command::Report(over));
        }
        let child = match self.handle.submit_blocking(Submission { commands, writes: Vec::new() }) {
            Ok(_) if !asked.wait => return Ok(()),
            Ok(_) => run,
            Err(SubmitError::KeyTaken { run, .. }) => run,
            // A newer launch has the task; or the loop reads the store again and repeats this one.
            Err(
                SubmitError::Refused(kobza_engine::Refusal::Stale)
                | SubmitError::Unknown(_)
                | SubmitError::Store(_)
                | SubmitError::Stopped,
            ) => return Ok(()),
            Err(error) => return Err(outside(&error)),
        };
        self.children.insert(child, launch);
        self.look(child);
        Ok(())
    }

    /// Refuses runs that are too deep within runs.
    fn depth(&self, run: RunId) -> Result<(), (Cause, String)> {
        let mut at = Some(run);
        for _ in 0..MAX_DEPTH {
            let Some(run) = at else { return Ok(()) };
            let row =
                self.views.get_run(run).map_err(|e| (Cause::Infrastructure, e.to_string()))?;
            at = row.and_then(|row| row.parent).map(|parent: TaskId| parent.run);
        }
        Err((Cause::Limit, format!("workflows call each other more than {MAX_DEPTH} deep")))
    }

    /// Reports the end of a run that somebody waits for.
    fn look(&mut self, run: RunId) {
        let Some(launch) = self.children.get(&run).copied() else { return };
        let row = match self.views.get_run(run) {
            Ok(Some(row)) if !row.state.is_finished() => return,
            Ok(row) => row,
            Err(error) => {
                // The next event, or a restart, looks again.
                tracing::error!(%run, %error, "a called run cannot be read");
                return;
            }
        };
        self.children.remove(&run);
        let Some(row) = row else {
            let message = Some(format!("the run {run} was deleted"));
            return self.finish(
                launch,
                Outcome::Failed,
                Cause::Infrastructure,
                message,
                Vec::new(),
            );
        };
        let (outcome, cause) = match row.state {
            RunState::Succeeded => (Outcome::Succeeded, Cause::None),
            RunState::Cancelled => (Outcome::Cancelled, Cause::Hand),
            _ => (Outcome::Failed, Cause::Code),
        };
        let message = (outcome != Outcome::Succeeded)
            .then(|| format!("the run {run} {}", row.state.as_str()));
        let outputs = vec![("run_id".to_owned(), json!(run.to_string()))];
        self.finish(launch, outcome, cause, message, outputs);
    }

    fn kill(&mut self, launch: LaunchId, reason: KillReason) {
        let known = self.children.iter().find(|(_, l)| **l == launch).map(|(run, _)| *run);
        if reason == KillReason::Superseded {
            if let Some(run) = known {
                self.children.remove(&run);
            }
            return;
        }
        let child = match known {
            Some(run) => Some(run),
            None => self.child(launch).map(|row| row.run),
        };
        let Some(run) = child else {
            return self.finish(launch, Outcome::Cancelled, Cause::Hand, None, Vec::new());
        };
        self.children.insert(run, launch);
        let reason = "the task that started it was stopped".to_owned();
        let stop = Command::StopRun { run, mode: StopMode::Cancel, reason };
        if let Err(error) = self.handle.submit_blocking(stop) {
            // It may have ended already: then that is reported.
            tracing::debug!(%run, %error, "a called run was not stopped");
        }
        self.look(run);
    }

    /// A launch is confirmed in the transaction that starts its run, so the run is there.
    fn adopt(&mut self, launch: LaunchId) {
        match self.child(launch) {
            Some(row) => {
                self.children.insert(row.run, launch);
                self.look(row.run);
            }
            None => {
                let message = "the run that it started is gone".to_owned();
                self.handle.report(report(launch, ReportBody::Lost { message }), Box::new(|| {}));
            }
        }
    }

    /// The newest run that a task started.
    fn child(&self, launch: LaunchId) -> Option<RunRow> {
        let filter = RunFilter {
            parent: Some(launch.run),
            parent_task: Some(launch.task),
            ..RunFilter::default()
        };
        match self.views.list_runs(&filter, None, 1) {
            Ok(page) => page.items.into_iter().next(),
            Err(error) => {
                tracing::error!(%launch, %error, "called runs cannot be read");
                None
            }
        }
    }

    fn finish(
        &self,
        launch: LaunchId,
        outcome: Outcome,
        cause: Cause,
        message: Option<String>,
        outputs: Vec<(String, Json)>,
    ) {
        self.handle.report(ended(launch, outcome, cause, message, outputs), Box::new(|| {}));
    }
}
