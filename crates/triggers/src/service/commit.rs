//! Carrying out steps.

use kobza_engine::{Command, StartRun, StopMode};
use kobza_model::RunId;
use kobza_runtime::{Handle, Submission, SubmitError};
use kobza_store::Write;

use crate::backfill::BackfillStep;
use crate::{StartSpec, Step};

/// What a machine proposes: both kinds of step.
pub(super) trait Proposal: Send + 'static {
    fn start(&self) -> Option<&StartSpec>;
    fn stop(&self) -> Vec<(RunId, String)>;
    fn start_exists(&mut self, run: RunId);
    fn refuse_start(&mut self, reason: &str);
    fn writes(&self) -> Vec<Write>;
}

impl Proposal for Step {
    fn start(&self) -> Option<&StartSpec> {
        self.start.as_ref()
    }

    fn stop(&self) -> Vec<(RunId, String)> {
        self.stop.clone()
    }

    fn start_exists(&mut self, run: RunId) {
        Step::start_exists(self, run);
    }

    fn refuse_start(&mut self, reason: &str) {
        Step::refuse_start(self, reason);
    }

    fn writes(&self) -> Vec<Write> {
        Step::writes(self)
    }
}

impl Proposal for BackfillStep {
    fn start(&self) -> Option<&StartSpec> {
        self.start.as_ref()
    }

    fn stop(&self) -> Vec<(RunId, String)> {
        self.stop.clone()
    }

    fn start_exists(&mut self, run: RunId) {
        BackfillStep::start_exists(self, run);
    }

    fn refuse_start(&mut self, reason: &str) {
        BackfillStep::refuse_start(self, reason);
    }

    fn writes(&self) -> Vec<Write> {
        BackfillStep::writes(self)
    }
}

/// A proposal with its run ready to start, or why it cannot be.
pub(super) struct Prepared<P> {
    pub(super) proposal: P,
    pub(super) start: Result<Option<Box<StartRun>>, NotReady>,
}

/// Why a run is not ready to start.
pub(super) enum NotReady {
    /// It never will be: to be recorded.
    Refused(String),
    /// The store could not be read: to be tried again.
    Unreadable(String),
}

/// How far a machine's proposals got.
pub(super) struct Carried<P> {
    pub(super) done: Vec<P>,
    pub(super) end: End,
}

pub(super) enum End {
    /// All as proposed.
    Whole,
    /// The last one done differs from what was proposed, and those after it were dropped.
    Altered,
    /// Those that are not done were not carried out, as far as we know.
    Failed(SubmitError),
}

/// Carries out one machine's proposals in order.
pub(super) async fn carry_out<P: Proposal>(
    runtime: Handle,
    proposals: Vec<Prepared<P>>,
) -> Carried<P> {
    let mut done = Vec::new();
    for Prepared { mut proposal, start } in proposals {
        let mut altered = false;
        let commands = match start {
            Ok(None) => Vec::new(),
            Ok(Some(start)) => vec![Command::StartRun(start)],
            Err(NotReady::Refused(reason)) => {
                proposal.refuse_start(&reason);
                altered = true;
                Vec::new()
            }
            Err(NotReady::Unreadable(reason)) => {
                return Carried { done, end: End::Failed(SubmitError::Store(reason)) };
            }
        };
        for (run, reason) in proposal.stop() {
            let stop = Command::StopRun { run, mode: StopMode::Cancel, reason };
            match runtime.submit(stop).await {
                // It has ended, or is being stopped already.
                Ok(_) | Err(SubmitError::Refused(_)) => {}
                Err(error) => return Carried { done, end: End::Failed(error) },
            }
        }
        let submission = Submission { commands, writes: proposal.writes() };
        let mut result = runtime.submit(submission).await;
        match &result {
            Err(SubmitError::KeyTaken { run, .. }) => proposal.start_exists(*run),
            Err(SubmitError::Refused(refusal)) => proposal.refuse_start(&refusal.to_string()),
            _ => {}
        }
        if matches!(result, Err(SubmitError::KeyTaken { .. } | SubmitError::Refused(_))) {
            altered = true;
            let writes = Submission { commands: Vec::new(), writes: proposal.writes() };
            result = runtime.submit(writes).await;
        }
        match result {
            Ok(_) => done.push(proposal),
            Err(error) => return Carried { done, end: End::Failed(error) },
        }
        if altered {
            return Carried { done, end: End::Altered };
        }
    }
    Carried { done, end: End::Whole }
}
