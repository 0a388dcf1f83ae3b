//! The transitions of a task, as one constant table. The code's checks, the diagram in the docs and
//! the coverage report all come from it.

use kobza_model::TaskState;

macro_rules! moves {
    ($($(#[$doc:meta])* $name:ident $word:literal,)+) => {
        /// What moves a task from one state to another.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Move { $($(#[$doc])* $name,)+ }

        impl Move {
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

moves! {
    /// Gate, guard and expansion said run.
    Admit "admit",
    /// Gate, guard, branch or an empty expansion said skip.
    Skip "skip",
    UpstreamFail "upstream fail",
    Remove "remove",
    /// The guard, the definition or the gate's deadlock failed it before it ran.
    Refuse "refuse",
    /// It became many instances.
    Expand "expand",
    /// It ended well without a launch: no-op, cache hit, empty expansion.
    Complete "complete",
    /// Handed to an executor.
    Launch "launch",
    /// Handed over again: the body was lost.
    Relaunch "relaunch",
    /// The body runs; a called graph is active.
    Start "start",
    Succeed "succeed",
    Fail "fail",
    /// Another attempt follows.
    Retry "retry",
    Defer "defer",
    Reschedule "reschedule",
    Suspend "suspend",
    /// Its wait is over.
    Resume "resume",
    /// Its body is being killed.
    Kill "kill",
    Cancel "cancel",
    /// It runs again.
    Clear "clear",
    /// A person set its state.
    Mark "mark",
    /// An outside reporter stated its state.
    Observe "observe",
}

use Move as M;
use TaskState as S;

/// (from, move, to). `Mark` and `Observe` are listed apart: they lead from anywhere.
pub const TRANSITIONS: &[(TaskState, Move, TaskState)] = &[
    (S::Pending, M::Admit, S::Ready),
    (S::Pending, M::Skip, S::Skipped),
    (S::Pending, M::UpstreamFail, S::UpstreamFailed),
    (S::Pending, M::Remove, S::Removed),
    (S::Pending, M::Refuse, S::Failed),
    (S::Pending, M::Expand, S::Running),
    (S::Pending, M::Complete, S::Succeeded),
    (S::Pending, M::Cancel, S::Cancelled),
    (S::Ready, M::Launch, S::Queued),
    (S::Ready, M::Complete, S::Succeeded),
    (S::Ready, M::Start, S::Running),
    (S::Ready, M::Suspend, S::Suspended),
    (S::Ready, M::Refuse, S::Failed),
    (S::Ready, M::Skip, S::Skipped),
    (S::Ready, M::Cancel, S::Cancelled),
    (S::Ready, M::Clear, S::Pending),
    (S::Queued, M::Start, S::Running),
    (S::Queued, M::Relaunch, S::Queued),
    (S::Queued, M::Succeed, S::Succeeded),
    (S::Queued, M::Fail, S::Failed),
    (S::Queued, M::Skip, S::Skipped),
    (S::Queued, M::Retry, S::RetryWait),
    (S::Queued, M::Defer, S::Deferred),
    (S::Queued, M::Reschedule, S::Rescheduled),
    (S::Queued, M::Suspend, S::Suspended),
    (S::Queued, M::Kill, S::Cancelling),
    (S::Queued, M::Cancel, S::Cancelled),
    (S::Running, M::Relaunch, S::Queued),
    (S::Running, M::Succeed, S::Succeeded),
    (S::Running, M::Fail, S::Failed),
    (S::Running, M::UpstreamFail, S::UpstreamFailed),
    (S::Running, M::Skip, S::Skipped),
    (S::Running, M::Retry, S::RetryWait),
    (S::Running, M::Defer, S::Deferred),
    (S::Running, M::Reschedule, S::Rescheduled),
    (S::Running, M::Suspend, S::Suspended),
    (S::Running, M::Kill, S::Cancelling),
    (S::Running, M::Cancel, S::Cancelled),
    (S::Running, M::Clear, S::Pending),
    (S::RetryWait, M::Resume, S::Ready),
    (S::RetryWait, M::Fail, S::Failed),
    (S::RetryWait, M::Cancel, S::Cancelled),
    (S::RetryWait, M::Clear, S::Pending),
    (S::Deferred, M::Resume, S::Ready),
    (S::Deferred, M::Fail, S::Failed),
    (S::Deferred, M::Retry, S::RetryWait),
    (S::Deferred, M::Succeed, S::Succeeded),
    (S::Deferred, M::Cancel, S::Cancelled),
    (S::Deferred, M::Clear, S::Pending),
    (S::Rescheduled, M::Resume, S::Ready),
    (S::Rescheduled, M::Fail, S::Failed),
    (S::Rescheduled, M::Retry, S::RetryWait),
    (S::Rescheduled, M::Succeed, S::Succeeded),
    (S::Rescheduled, M::Cancel, S::Cancelled),
    (S::Rescheduled, M::Clear, S::Pending),
    (S::Suspended, M::Resume, S::Ready),
    (S::Suspended, M::Succeed, S::Succeeded),
    (S::Suspended, M::Fail, S::Failed),
    (S::Suspended, M::Retry, S::RetryWait),
    (S::Suspended, M::Cancel, S::Cancelled),
    (S::Suspended, M::Clear, S::Pending),
    (S::Cancelling, M::Succeed, S::Succeeded),
    (S::Cancelling, M::Fail, S::Failed),
    (S::Cancelling, M::Skip, S::Skipped),
    (S::Cancelling, M::Retry, S::RetryWait),
    (S::Cancelling, M::Cancel, S::Cancelled),
    (S::Cancelling, M::Clear, S::Pending),
    (S::Succeeded, M::Clear, S::Pending),
    (S::Failed, M::Clear, S::Pending),
    (S::Skipped, M::Clear, S::Pending),
    (S::UpstreamFailed, M::Clear, S::Pending),
    (S::Cancelled, M::Clear, S::Pending),
    (S::Removed, M::Clear, S::Pending),
    // An owner of a cleared instance or of a reopened scope goes on.
    (S::Succeeded, M::Resume, S::Running),
    (S::Failed, M::Resume, S::Running),
    (S::Skipped, M::Resume, S::Running),
    (S::UpstreamFailed, M::Resume, S::Running),
    (S::Cancelled, M::Resume, S::Running),
    // A hook that affects its owner failed.
    (S::Succeeded, M::Fail, S::Failed),
    // A mapped instance fell out of a shrunk expansion.
    (S::Succeeded, M::Remove, S::Removed),
    (S::Failed, M::Remove, S::Removed),
    (S::Skipped, M::Remove, S::Removed),
    (S::UpstreamFailed, M::Remove, S::Removed),
    (S::Cancelled, M::Remove, S::Removed),
];

/// Whether the table allows it.
#[must_use]
pub fn allowed(from: TaskState, mv: Move, to: TaskState) -> bool {
    match mv {
        Move::Mark => to.is_finished(),
        Move::Observe => true,
        _ => TRANSITIONS.contains(&(from, mv, to)),
    }
}

/// The table as a Mermaid state diagram.
#[must_use]
pub fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> pending\n");
    for (from, mv, to) in TRANSITIONS {
        text.push_str(&format!("    {from} --> {to}: {}\n", mv.as_str()));
    }
    text
}

/// Which transitions tests have taken, kept per thread.
#[cfg(any(test, feature = "coverage"))]
pub mod coverage {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::{Move, TaskState};

    thread_local! {
        static TAKEN: RefCell<BTreeSet<(TaskState, Move, TaskState)>> =
            const { RefCell::new(BTreeSet::new()) };
    }

    pub(crate) fn record(from: TaskState, mv: Move, to: TaskState) {
        TAKEN.with_borrow_mut(|taken| taken.insert((from, mv, to)));
    }

    /// What this thread has taken so far.
    #[must_use]
    pub fn taken() -> BTreeSet<(TaskState, Move, TaskState)> {
        TAKEN.with_borrow(Clone::clone)
    }

    /// Transitions of the table that are not in `taken`.
    #[must_use]
    pub fn missing(
        taken: &BTreeSet<(TaskState, Move, TaskState)>,
    ) -> Vec<(TaskState, Move, TaskState)> {
        super::TRANSITIONS.iter().filter(|t| !taken.contains(t)).copied().collect()
    }
}
