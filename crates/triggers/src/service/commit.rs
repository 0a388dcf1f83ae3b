//! Carrying out steps.

use kobza_engine::{Command, StopMode};
use kobza_model::RunId;
use kobza_runtime::{Handle, Submission, SubmitError};
use kobza_store::Write;

use super::{DialectStart, NoStart, StartAs};
use crate::backfill::BackfillStep;
use crate::row::SlotOutcome;
use crate::{StartSpec, Step};

/// What a machine proposes: both kinds of step.
pub(super) trait Proposal: Clone + Send + 'static {
    fn start(&self) -> Option<&StartSpec>;
    fn stop(&self) -> Vec<(RunId, String)>;
    fn start_exists(&mut self, run: RunId);
    fn refuse_start(&mut self, outcome: SlotOutcome, reason: &str);
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

    fn refuse_start(&mut self, outcome: SlotOutcome, reason: &str) {
        Step::refuse_start(self, outcome, reason);
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

    fn refuse_start(&mut self, outcome: SlotOutcome, reason: &str) {
        BackfillStep::refuse_start(self, outcome, reason);
    }

    fn writes(&self) -> Vec<Write> {
        BackfillStep::writes(self)
    }
}

/// A proposal with its run ready to start, or why it cannot be.
pub(super) struct Prepared<P> {
    pub(super) proposal: P,
    pub(super) start: Result<Option<DialectStart>, NoStart>,
    /// How the runs are stopped that it takes the place of.
    pub(super) stop_mode: StopMode,
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
    for Prepared { mut proposal, start, stop_mode } in proposals {
        let mut altered = false;
        let (mut commands, mut more, mut again) = (Vec::new(), Vec::new(), None);
        match start {
            Ok(None) => {}
            Ok(Some(start)) => {
                commands = start.commands;
                match start.run {
                    StartAs::New(run) => commands.push(Command::StartRun(run)),
                    StartAs::Again(run) => again = Some(run),
                }
                more = start.writes;
            }
            Err(NoStart::Refused(reason)) => {
                proposal.refuse_start(SlotOutcome::Failed, &reason);
                altered = true;
            }
            Err(NoStart::Skipped(reason)) => {
                proposal.refuse_start(SlotOutcome::Skipped, &reason);
                altered = true;
            }
            Err(NoStart::Unreadable(reason)) => {
                return Carried { done, end: End::Failed(SubmitError::Store(reason)) };
            }
        }
        // A slot that starts nothing takes nobody's place.
        let stop = if altered { Vec::new() } else { proposal.stop() };
        for (run, reason) in stop {
            let stop = Command::StopRun { run, mode: stop_mode, reason };
            match runtime.submit(stop).await {
                // It has ended, or is being stopped already.
                Ok(_) | Err(SubmitError::Refused(_)) => {}
                Err(error) => return Carried { done, end: End::Failed(error) },
            }
        }
        let proposed = again.map(|_| proposal.clone());
        if let Some(run) = again {
            proposal.start_exists(run);
            altered = true;
        }
        let mut writes = proposal.writes();
        writes.extend(more);
        let submission = Submission { commands, writes };
        let mut result = runtime.submit(submission).await;
        if let (Some(proposed), Err(SubmitError::Refused(_))) = (proposed, &result) {
            proposal = proposed;
        }
        match &result {
            Err(SubmitError::KeyTaken { run, .. }) => proposal.start_exists(*run),
            Err(SubmitError::Refused(refusal)) => {
                proposal.refuse_start(SlotOutcome::Failed, &refusal.to_string());
            }
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
