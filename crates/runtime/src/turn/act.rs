//! Acting: what the engine wants done, once its cause is durable.

use kobza_engine::{Action, Launch, Report, ReportBody};
use kobza_model::{Cause, Now, Outcome};

use super::Turner;
use crate::ports::ExecutorName;

impl Turner {
    /// What an executor needs for a launch, from the run's dialect.
    pub(super) fn render(
        &self,
        launch: &Launch,
        now: Now,
    ) -> Result<(ExecutorName, crate::ports::LaunchSpec), String> {
        let run = launch.id.run;
        let (row, workflow) = self
            .engine
            .run_row(run)
            .zip(self.engine.workflow(run))
            .ok_or_else(|| "the run is gone".to_owned())?;
        let dialect = self
            .dialects
            .get(&row.dialect)
            .ok_or_else(|| format!("this server does not speak the dialect {:?}", row.dialect))?;
        dialect.launch(launch, &self.facts(row, workflow, now))
    }

    /// Carries out what the engine wants done, now that its cause is durable.
    pub(super) fn act(&mut self, now: Now) {
        let mut ended = Vec::new();
        for action in self.engine.take_actions() {
            match action {
                Action::Launch(launch) => {
                    self.metrics.launches.inc();
                    self.launch(&launch, now);
                }
                Action::Kill { launch, reason } => {
                    let name = self.carriers.get(&launch).copied().unwrap_or("process");
                    if let Some(executor) = self.executors.get(name) {
                        executor.kill(launch, reason);
                    }
                }
                Action::RunStarted { .. } => {
                    self.metrics.runs_started.inc();
                }
                Action::RunEnded { run } => {
                    self.metrics.runs_ended.inc();
                    ended.push(run);
                }
            }
        }
        for run in ended {
            if let Some(row) = self.engine.run_row(run)
                && let Some(key) = &row.key
            {
                self.keys.remove(&(row.namespace.clone(), row.workflow.clone(), key.clone()));
            }
            // A run that was reopened in the same batch stays.
            if self.engine.evict(run) {
                self.outputs.get_mut().drop_run(run);
            }
        }
    }

    fn launch(&mut self, launch: &Launch, now: Now) {
        let failure = match self.render(launch, now) {
            Ok((name, spec)) => match self.executors.get(name) {
                Some(executor) => {
                    let mut spec = spec;
                    if spec.timeout_ms.is_none() {
                        spec.timeout_ms = launch.timeout_ms;
                    }
                    self.carriers.insert(launch.id, name);
                    executor.launch(launch.id, spec);
                    return;
                }
                None => (Cause::Infrastructure, format!("this server has no executor {name:?}")),
            },
            Err(message) => (Cause::Template, message),
        };
        let jitter = self.draw();
        self.own.push_back(Report {
            launch: launch.id,
            at: now.wall,
            body: ReportBody::Finished {
                outcome: Outcome::Failed,
                cause: failure.0,
                message: Some(failure.1),
                exit_code: None,
                outputs: Vec::new(),
                skips: Vec::new(),
                jitter,
            },
        });
    }

    /// A draw from 0 to 1 for jitter (xorshift64): need not be good, only spread.
    pub(super) fn draw(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}
