//! A trigger as its author means it.

use kobza_model::{Json, RunState, Timestamp};
use kobza_schedule::Schedule;

use crate::AssetCondition;

/// One trigger of a workflow.
#[derive(Clone, Debug)]
pub struct TriggerSpec {
    /// Unique within the workflow.
    pub name: String,
    pub kind: TriggerKind,
    /// Parameters of the runs; texts are templates over `event`, `events`, `slot`, `interval`,
    /// `partition` and `trigger`.
    pub params: Json,
    /// An expression over the same names; false leaves the slot out.
    pub filter: Option<String>,
    pub debounce: Option<Debounce>,
    pub batch: Option<Batching>,
    pub catch_up: CatchUp,
    pub overlap: Overlap,
    /// Slots start up to so many microseconds late, each always by the same amount.
    pub jitter: i64,
    /// Whether a new trigger begins paused.
    pub paused: bool,
    /// No slot or event before counts.
    pub start: Option<Timestamp>,
    /// No slot or event from then on counts.
    pub end: Option<Timestamp>,
    /// The definition as written.
    pub source: Json,
}

#[derive(Clone, Debug)]
pub enum TriggerKind {
    Schedule(Schedule),
    /// A schedule by the rules of a dialect.
    Timetable {
        dialect: String,
        /// As the dialect reads it.
        definition: Json,
    },
    Assets {
        condition: AssetCondition,
        /// Collect the condition apart for each partition.
        per_partition: bool,
        updates: Updates,
        /// How many of its runs may be unfinished. What is updated meanwhile is gathered for one.
        max_active: Option<u32>,
        /// Its dialect says which partitions an asset's partition belongs to.
        mapping: Option<MappingSpec>,
    },
    Webhook {
        /// Last part of its address.
        path: String,
        /// How deliveries are signed; none: as their headers say.
        scheme: Option<WebhookScheme>,
        /// Name of the secret. Without one a delivery must come from somebody who may start runs.
        secret: Option<String>,
    },
    /// Runs of another workflow of the namespace that end in one of these states.
    RunEnd {
        workflow: String,
        states: Vec<RunState>,
    },
    /// Files whose path matches, once they have not changed for `settle` microseconds.
    File {
        pattern: String,
        settle: i64,
        /// How often to look, in microseconds.
        every: i64,
    },
    /// An event by name, sent to the API.
    Event {
        name: String,
    },
}

impl TriggerKind {
    /// A word for the run's record of what started it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Schedule(_) | Self::Timetable { .. } => "schedule",
            Self::Assets { .. } => "asset",
            Self::Webhook { .. } => "webhook",
            Self::RunEnd { .. } => "run",
            Self::File { .. } => "file",
            Self::Event { .. } => "event",
        }
    }
}

/// A mapping by the rules of a dialect.
#[derive(Clone, PartialEq, Debug)]
pub struct MappingSpec {
    pub dialect: String,
    /// As the dialect reads it.
    pub definition: Json,
}

/// Which updates of its assets a trigger reacts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Updates {
    #[default]
    All,
    /// Those of no partition.
    Whole,
    /// Those of a partition.
    Partitions,
}

/// How a delivery proves that it comes from whom it claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WebhookScheme {
    /// `X-Hub-Signature-256` over the body; also Gitea and Forgejo.
    GitHub,
    /// `X-Slack-Signature` over version, time and body.
    Slack,
    /// `webhook-signature` over id, time and body, by the Standard Webhooks specification.
    Standard,
    /// A shared secret in `X-Gitlab-Token`.
    GitLab,
}

/// What to do about slots that were missed: while no server ran, the trigger was new or paused, or
/// the clock jumped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CatchUp {
    /// Nothing later than `grace` microseconds.
    None { grace: i64 },
    /// The newest one, unless it is more than `within` microseconds late.
    Last { within: Option<i64> },
    /// All, but at most the newest `limit`; from `start` on, when there is one.
    All { limit: u32 },
}

/// What to do when a slot comes while the trigger's earlier run is not finished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Overlap {
    /// Start beside it.
    Allow,
    /// Leave the slot out.
    Skip,
    /// Wait for its end; a newer slot takes the place of one that waits.
    QueueOne,
    /// Wait for its end, in order.
    QueueAll,
    /// Cancel it and start.
    CancelRunning,
}

/// Wait until events have paused for `quiet` microseconds, but no longer than `max`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Debounce {
    pub quiet: i64,
    pub max: i64,
}

/// One run for up to `size` events, or for what came within so many microseconds of the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batching {
    pub size: usize,
    pub within: i64,
}
