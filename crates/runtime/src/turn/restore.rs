//! Reading back: everything that lives, after a start or a commit that failed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kobza_engine::{Engine, Launch, Refusal, Reply};
use kobza_model::{LaunchId, Now, RunId, Workflow};
use kobza_store::{CommitError, StoreError};

use super::{FAILURE_PAUSE, LONGEST_PAUSE, RuntimeError, Turner};
use crate::clock::Clock;
use crate::handle::{ReplyTo, SubmitError};
use crate::ports::ExecutorName;

impl Turner {
    /// Brings a finished run back into memory.
    pub(super) fn load(&mut self, id: RunId) -> Result<(), SubmitError> {
        if self.engine.has_run(id) {
            return Ok(());
        }
        let failed = |e: StoreError| SubmitError::Store(e.to_string());
        let Some(image) = self.store.run_image(id).map_err(failed)? else {
            return Err(Refusal::NoRun(id).into());
        };
        let workflow = self
            .store
            .workflow(&image.run.namespace, &image.run.workflow, Some(&image.run.version))
            .map_err(failed)?
            .ok_or_else(|| SubmitError::Store(format!("the version of run {id} is gone")))?
            .workflow;
        self.engine.restore_run(image, workflow, self.clock.now())?;
        Ok(())
    }

    /// A commit failed or its fate is unknown: callers are told, memory is read again.
    pub(super) fn failed(
        &mut self,
        error: CommitError,
        replies: Vec<(ReplyTo, Result<Vec<Reply>, SubmitError>)>,
    ) -> Result<(), RuntimeError> {
        self.metrics.healthy.store(false, Ordering::Relaxed);
        self.metrics.commit_failures.inc();
        tracing::error!(%error, "a commit failed; memory is dropped and read again");
        let answer = match &error {
            CommitError::Fenced { .. } => SubmitError::Stopped,
            CommitError::Unknown(text) => SubmitError::Unknown(text.clone()),
            CommitError::Failed(text) => SubmitError::Store(text.clone()),
        };
        for (reply, _) in replies {
            reply(Err(answer.clone()));
        }
        if let CommitError::Fenced { .. } = error {
            return Err(error.into());
        }
        let mut pause = FAILURE_PAUSE;
        loop {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self.reload() {
                Ok(()) => {
                    self.metrics.healthy.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                Err(RuntimeError::Commit(error @ CommitError::Fenced { .. })) => {
                    return Err(error.into());
                }
                Err(error) => tracing::error!(%error, "the store cannot be read"),
            }
        }
    }

    fn reload(&mut self) -> Result<(), RuntimeError> {
        let found = self.store.fence()?;
        if found.term != self.fence.term {
            return Err(CommitError::Fenced { ours: self.fence.term, found: found.term }.into());
        }
        self.fence = found;
        self.clock = Clock::new(self.fence.engine_time.max(self.clock.now().engine));
        self.engine = Engine::new(self.engine_options.clone());
        self.outputs.get_mut().clear();
        self.keys.clear();
        self.own.clear();
        self.seen_outputs = 0;
        self.restore()
    }

    /// Reads everything that lives, and lets executors take up what runs.
    pub(super) fn restore(&mut self) -> Result<(), RuntimeError> {
        for (name, dialect) in &self.dialects {
            if let Some(factory) = dialect.machine() {
                self.engine.register_machine(name, factory);
            }
        }
        self.engine.restore_limits(self.store.limits()?);
        let now = self.clock.now();
        let mut versions: HashMap<(String, String, String), Arc<Workflow>> = HashMap::new();
        for image in self.store.active_runs()? {
            let row = &image.run;
            let run = row.run;
            let place = (row.namespace.clone(), row.workflow.clone(), row.version.clone());
            let workflow = match versions.get(&place) {
                Some(workflow) => workflow.clone(),
                None => {
                    let stored =
                        self.store.workflow(&row.namespace, &row.workflow, Some(&row.version))?;
                    let Some(stored) = stored else {
                        return Err(RuntimeError::Restore {
                            run,
                            reason: "its workflow version is gone".to_owned(),
                        });
                    };
                    versions.insert(place, stored.workflow.clone());
                    stored.workflow
                }
            };
            if let Some(key) = &row.key {
                self.keys.insert((row.namespace.clone(), row.workflow.clone(), key.clone()), run);
            }
            self.engine
                .restore_run(image, workflow, now)
                .map_err(|e| RuntimeError::Restore { run, reason: e.to_string() })?;
        }
        self.engine.take_up(now);
        self.carriers.clear();
        let mut adopted: BTreeMap<ExecutorName, Vec<LaunchId>> = BTreeMap::new();
        for name in self.executors.keys() {
            adopted.insert(name, Vec::new());
        }
        for (launch, _) in self.engine.confirmed_launches() {
            let name = self.carrier(launch, now);
            self.carriers.insert(launch, name);
            adopted.entry(name).or_default().push(launch);
        }
        for (name, launches) in adopted {
            if let Some(executor) = self.executors.get(name) {
                executor.adopt(launches);
            }
        }
        self.leftover = true;
        Ok(())
    }

    /// The executor that a confirmed launch was given to: what its dialect would choose again.
    pub(super) fn carrier(&self, id: LaunchId, now: Now) -> ExecutorName {
        let fallback = self.executors.keys().next().copied().unwrap_or("process");
        let process = if self.executors.contains_key("process") { "process" } else { fallback };
        let Some(task) = self.engine.task_row(id.task_id()) else { return process };
        let launch = Launch {
            id,
            template: task.template,
            scope: task.scope,
            node: task.node,
            index: task.index,
            attempt: task.attempt,
            carry: task.carry,
            timeout_ms: None,
        };
        self.render(&launch, now).map_or(process, |(name, _)| name)
    }
}
