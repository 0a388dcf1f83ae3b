//! States of runs and tasks, how a task ended, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
        )]
        #[repr(u8)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant = $number,)+
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word used in the API, the store's text views and the command line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The inverse of `as_str`.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.as_str() == word)
            }

            /// The inverse of `as u8`: numbers are what the store keeps, so they never change.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| *v as u8 == number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let words: Vec<&str> = Self::ALL.iter().map(|v| v.as_str()).collect();
                schemars::json_schema!({"type": "string", "enum": words})
            }
        }
    };
}

words! {
    /// The state of a run.
    RunState {
        Queued = 0 "queued",
        Running = 1 "running",
        /// Alive, but no new task starts.
        Paused = 2 "paused",
        /// On the way to cancelled: kills take time.
        Cancelling = 3 "cancelling",
        Succeeded = 4 "succeeded",
        Failed = 5 "failed",
        Cancelled = 6 "cancelled",
    }
}

impl RunState {
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

words! {
    /// The state of a task.
    TaskState {
        /// Its gate has not decided yet, or its guard's question is open.
        Pending = 0 "pending",
        /// May run; waits for limits.
        Ready = 1 "ready",
        /// Holds its limits; its launch is on the way to an executor.
        Queued = 2 "queued",
        Running = 3 "running",
        /// An attempt failed; the next one waits for its delay.
        RetryWait = 4 "retry_wait",
        /// Waits on a trigger without holding a worker.
        Deferred = 5 "deferred",
        /// A sensor between two pokes.
        Rescheduled = 6 "rescheduled",
        /// Waits for a person or a call.
        Suspended = 7 "suspended",
        /// Being killed.
        Cancelling = 8 "cancelling",
        Succeeded = 9 "succeeded",
        Failed = 10 "failed",
        Skipped = 11 "skipped",
        UpstreamFailed = 12 "upstream_failed",
        Cancelled = 13 "cancelled",
        /// No longer part of the run: an expansion shrank.
        Removed = 14 "removed",
    }
}

impl TaskState {
    /// How the task ended, if it has.
    #[must_use]
    pub const fn outcome(self) -> Option<Outcome> {
        Some(match self {
            Self::Succeeded => Outcome::Succeeded,
            Self::Failed => Outcome::Failed,
            Self::Skipped => Outcome::Skipped,
            Self::UpstreamFailed => Outcome::UpstreamFailed,
            Self::Cancelled => Outcome::Cancelled,
            Self::Removed => Outcome::Removed,
            _ => return None,
        })
    }

    #[must_use]
    pub const fn is_finished(self) -> bool {
        self.outcome().is_some()
    }

    /// An executor has, or may have, a body of this task alive.
    #[must_use]
    pub const fn is_launched(self) -> bool {
        matches!(self, Self::Queued | Self::Running | Self::Cancelling)
    }
}

words! {
    /// How a task or a scope ended.
    Outcome {
        Succeeded = 0 "succeeded",
        Failed = 1 "failed",
        Skipped = 2 "skipped",
        UpstreamFailed = 3 "upstream_failed",
        Cancelled = 4 "cancelled",
        Removed = 5 "removed",
    }
}

impl Outcome {
    #[must_use]
    pub const fn state(self) -> TaskState {
        match self {
            Self::Succeeded => TaskState::Succeeded,
            Self::Failed => TaskState::Failed,
            Self::Skipped => TaskState::Skipped,
            Self::UpstreamFailed => TaskState::UpstreamFailed,
            Self::Cancelled => TaskState::Cancelled,
            Self::Removed => TaskState::Removed,
        }
    }
}

words! {
    /// Why a task is in its state. A new cause never needs a new outcome.
    Cause {
        None = 0 "none",
        /// The user's code ended so by itself.
        Code = 1 "code",
        /// The executor or the control plane failed, not the user's code.
        Infrastructure = 2 "infrastructure",
        Timeout = 3 "timeout",
        /// Its body disappeared without a report.
        Lost = 4 "lost",
        /// A guard said so, or could not be evaluated.
        Guard = 5 "guard",
        /// A deciding task chose another branch.
        Branch = 6 "branch",
        /// Its gate decided so from its upstream tasks.
        Gate = 7 "gate",
        /// A person or an API call.
        Hand = 8 "hand",
        /// The result came from a cache.
        Cache = 9 "cache",
        /// An expansion of length zero.
        Empty = 10 "empty",
        /// A task of its scope failed, and the scope fails early.
        FailFast = 11 "fail_fast",
        /// It broke a limit: memory, log size, output size.
        Limit = 12 "limit",
        /// Nothing in its scope can move any more.
        Deadlock = 13 "deadlock",
        /// Its inputs or its definition could not be rendered.
        Template = 14 "template",
        /// A check over its data did not hold.
        Check = 15 "check",
        /// An outside reporter stated it.
        Observed = 16 "observed",
        /// Its run was cancelled.
        RunCancelled = 17 "run_cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_inverse() {
        for state in TaskState::ALL {
            assert_eq!(TaskState::from_number(*state as u8), Some(*state));
            assert_eq!(TaskState::from_word(state.as_str()), Some(*state));
            if let Some(outcome) = state.outcome() {
                assert_eq!(outcome.state(), *state);
            }
        }
        for cause in Cause::ALL {
            assert_eq!(Cause::from_number(*cause as u8), Some(*cause));
        }
    }
}
