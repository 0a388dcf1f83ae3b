//! Identifiers. A run is a UUID; inside a run everything is a small number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An identifier that is not of the expected form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

impl ParseIdError {
    fn new(what: &'static str, text: &str) -> Self {
        // Hostile ids can be megabytes: an error shows only their beginning.
        Self { what, text: text.chars().take(80).collect() }
    }
}

/// One execution of a workflow: a UUID version 7, so that ids sort by creation time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        Uuid::try_parse(text).map(RunId).map_err(|_| ParseIdError::new("run id", text))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The number as an index into a vector.
            #[must_use]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A template's place in its workflow.
    TemplateNo
);
number!(
    /// A node's place in its graph.
    NodeNo
);
number!(
    /// One activation of a called graph, numbered within its run; 0 is the run's root.
    ScopeNo
);
number!(
    /// A task's number within its run, in order of creation.
    TaskNo
);

/// One instance of a node in a run. Written `{run}.{task}`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TaskId {
    pub run: RunId,
    pub task: TaskNo,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run, self.task)
    }
}

impl FromStr for TaskId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError::new("task id", text);
        let (run, task) = text.split_once('.').ok_or_else(bad)?;
        Ok(Self {
            run: run.parse().map_err(|_| bad())?,
            task: TaskNo(task.parse().map_err(|_| bad())?),
        })
    }
}

/// One hand-over of an attempt to an executor. The number grows with every launch of the task, so
/// a report that carries an older one is stale and refused. Written `{run}.{task}.{launch}`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LaunchId {
    pub run: RunId,
    pub task: TaskNo,
    pub launch: u32,
}

impl LaunchId {
    #[must_use]
    pub fn task_id(self) -> TaskId {
        TaskId { run: self.run, task: self.task }
    }
}

impl fmt::Display for LaunchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.run, self.task, self.launch)
    }
}

impl FromStr for LaunchId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError::new("launch id", text);
        let (task, launch) = text.rsplit_once('.').ok_or_else(bad)?;
        let TaskId { run, task } = task.parse().map_err(|_| bad())?;
        Ok(Self { run, task, launch: launch.parse().map_err(|_| bad())? })
    }
}
