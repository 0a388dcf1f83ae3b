//! The vocabulary that every other crate speaks: identifiers, times, workflows, states.
//!
//! Pure data. Nothing here reads a clock, draws a random number or does I/O.

mod gate;
mod ids;
mod names;
mod record;
#[cfg(feature = "schema")]
mod schema;
mod state;
mod time;
mod trace;
mod workflow;

pub use gate::{
    Check, Condition, Counter, EdgeClass, Gate, GateRow, GateVerdict, Instances, Predicate,
    Quantifier, Term, Tree,
};
pub use ids::{LaunchId, NodeNo, ParseIdError, RunId, ScopeNo, TaskId, TaskNo, TemplateNo};
pub use names::{MAX_NAME_CHARS, NameError, validate_asset, validate_name, validate_partition};
pub use record::{
    Event, EventKind, ExpansionRow, LimitRow, MachineRow, OutputRow, RunImage, RunRow, ScopeRow,
    TaskRow,
};
pub use state::{Cause, Outcome, RunState, TaskState};
pub use time::{EngineTime, Now, ParseTimestampError, Timestamp};
pub use trace::{attempt_span_id, run_span_id, trace_id, traceparent};
pub use workflow::{
    Backoff, Edge, Expansion, ExpansionAt, ExpansionBy, Graph, Hook, HookOn, Leaf, LimitUse, Node,
    Retry, Template, TemplateBody, Verdict, VerdictRow, VerdictSet, Workflow, ZeroLength,
};

/// JSON values as tasks exchange them.
pub type Json = serde_json::Value;
