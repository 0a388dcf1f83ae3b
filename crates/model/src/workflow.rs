//! What every dialect compiles to: templates, nodes, edges.

use serde::{Deserialize, Serialize};

use crate::{Cause, Condition, EdgeClass, Gate, Instances, Json, NodeNo, Outcome, TemplateNo};

/// A definition. Immutable once stored: its version is the hash of its content.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Workflow {
    pub name: String,
    /// Which dialect reads the opaque parts (`spec`, `arguments`, `source`): `native`, `argo`, ...
    pub dialect: String,
    pub templates: Vec<Template>,
    /// The template that the run's root activates; it must be a graph.
    pub entry: TemplateNo,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    /// JSON Schema of the parameters, with defaults in `properties`; null accepts none.
    #[serde(default)]
    pub params: Json,
    /// Run time-out in milliseconds of engine time, counted from the run's start.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// At most so many runs of this workflow at once; further ones wait queued.
    #[serde(default)]
    pub max_active_runs: Option<u32>,
    /// Runs of backfills do not count there: a backfill has a limit of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backfills_apart: bool,
    /// Called once the root's verdict is known, before the run ends.
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// An open run accepts tasks while it runs and ends only when told to (driven systems).
    #[serde(default)]
    pub open: bool,
    /// Trigger definitions as written; the trigger crate reads them, the engine does not.
    #[serde(default)]
    pub triggers: Json,
    /// What the dialect needs to show or render this workflow.
    #[serde(default)]
    pub source: Json,
}

/// A named piece of a workflow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Template {
    pub name: String,
    pub body: TemplateBody,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateBody {
    Leaf(Leaf),
    Graph(Graph),
}

/// Something that an executor runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Leaf {
    /// `noop` succeeds inside the engine; `suspend` waits for a call; every other kind is launched.
    pub kind: String,
    /// Opaque to the engine.
    #[serde(default)]
    pub spec: Json,
}

/// Nodes with their edges. Node numbers are places in `nodes`; an edge may point to any other node
/// so long as there is no cycle.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Graph {
    pub nodes: Vec<Node>,
    #[serde(default)]
    pub verdict: Verdict,
    /// At most so many launched leaf tasks of one activation at once (descendants included).
    #[serde(default)]
    pub parallelism: Option<u32>,
    /// Whether the dialect computes outputs of the graph when it ends well (asked as
    /// `QuestionKind::ScopeOutputs`).
    #[serde(default)]
    pub outputs: bool,
    /// Opaque to the engine.
    #[serde(default)]
    pub spec: Json,
}

/// A call of a template.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub call: TemplateNo,
    pub gate: Gate,
    #[serde(default)]
    pub edges: Vec<Edge>,
    /// Ask the dialect before running (condition, arguments, cache). Asked once per instance, after
    /// the gate and the expansion.
    #[serde(default)]
    pub guard: bool,
    #[serde(default)]
    pub expansion: Option<Expansion>,
    #[serde(default)]
    pub limits: Vec<LimitUse>,
    /// Greater is earlier, among tasks that wait for the same limit.
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub retry: Option<Retry>,
    /// Running time of one attempt, in milliseconds; time in a queue does not count.
    #[serde(default)]
    pub attempt_timeout_ms: Option<u64>,
    /// From the first start to the end over all attempts, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    #[serde(default)]
    pub hooks: Vec<Hook>,
    /// A failure of this node counts as a success for its scope's verdict (not for gates).
    #[serde(default)]
    pub continue_on: Vec<Outcome>,
    /// A daemon is settled for its readers as soon as it runs (a graph: as soon as only daemons run
    /// in it), and is stopped with its scope.
    #[serde(default)]
    pub daemon: bool,
    /// Not counted by the verdict `ignore` set: e.g. teardowns whose failure does not fail the run.
    #[serde(default)]
    pub ignorable: bool,
    /// Opaque to the engine: the call's arguments, `with`, and all else the dialect needs.
    #[serde(default)]
    pub arguments: Json,
    /// Assets that it produces and reads, by name.
    #[serde(default)]
    pub produces: Vec<String>,
    #[serde(default)]
    pub consumes: Vec<String>,
}

/// A dependency on another node of the same graph.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Edge {
    pub upstream: NodeNo,
    #[serde(default)]
    pub class: EdgeClass,
    #[serde(default)]
    pub instances: Instances,
}

impl Edge {
    #[must_use]
    pub fn on(upstream: NodeNo) -> Self {
        Self { upstream, class: EdgeClass::Data, instances: Instances::All }
    }
}

/// Many instances of one node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Expansion {
    pub at: ExpansionAt,
    pub by: ExpansionBy,
    #[serde(default)]
    pub zero: ZeroLength,
    /// At most so many unfinished instances exist at once; further ones are made as these end.
    /// `None`: the engine's own window, which bounds memory but not concurrency.
    #[serde(default)]
    pub window: Option<u32>,
    /// End the others when one instance fails.
    #[serde(default)]
    pub fail_fast: bool,
}

/// When the length of an expansion becomes known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpansionAt {
    /// When the node's gate says run. The gate then is the node's, not each instance's.
    Gate,
    /// When these nodes have finished; each instance then has a gate of its own.
    Upstream(Vec<NodeNo>),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpansionBy {
    Static(u32),
    /// Ask the dialect (`QuestionKind::Expansion`).
    Ask,
    /// As long as another node's expansion (nodes of one mapped group), times a factor.
    Like(NodeNo),
}

/// What an expansion of length zero is to its readers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroLength {
    #[default]
    Skipped,
    /// Succeeded, with an empty list.
    Succeeded,
}

/// A limit that a node's tasks hold while launched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LimitUse {
    pub limit: String,
    #[serde(default = "one")]
    pub weight: u32,
    /// Also held while deferred, rescheduled or suspended.
    #[serde(default)]
    pub while_waiting: bool,
}

fn one() -> u32 {
    1
}

/// When a failed attempt is followed by another.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Retry {
    /// Further attempts after the first.
    pub limit: u32,
    #[serde(default)]
    pub backoff: Backoff,
    /// Retry only these causes; empty means every failure.
    #[serde(default)]
    pub causes: Vec<Cause>,
    /// Retry only these exit codes; empty means any.
    #[serde(default)]
    pub exit_codes: Vec<i32>,
    /// Ask the dialect whether and when to retry (`QuestionKind::Retry`).
    #[serde(default)]
    pub ask: bool,
}

/// `delay * factor^(attempt-1)`, at most `max`, plus up to `jitter` of itself.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Backoff {
    pub delay_ms: u64,
    pub factor: f64,
    #[serde(default)]
    pub max_ms: Option<u64>,
    /// Fraction of the delay, 0 to 1. The random draw comes in with the report.
    #[serde(default)]
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { delay_ms: 0, factor: 1.0, max_ms: None, jitter: 0.0 }
    }
}

/// A template that is called beside the graph when something happens.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Hook {
    pub name: String,
    pub on: HookOn,
    pub call: TemplateNo,
    /// Whether a failure of the hook fails what it hangs on.
    #[serde(default)]
    pub affects: bool,
    /// Ask the dialect first (condition, arguments).
    #[serde(default)]
    pub guard: bool,
    /// Not run when the run was cancelled or terminated.
    #[serde(default)]
    pub skip_on_cancel: bool,
    #[serde(default)]
    pub arguments: Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookOn {
    /// It started running.
    Start,
    /// It ended, however.
    Exit,
    Success,
    Failure,
}

/// How a graph ends. Looked at when nothing in it is unfinished, or earlier as it says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    pub set: VerdictSet,
    /// The first row whose condition holds over the set's outcomes (edge class [`EdgeClass::Data`])
    /// decides; none: failed if any of the set failed, else succeeded.
    #[serde(default)]
    pub rows: Vec<VerdictRow>,
    /// End the scope as soon as any of its tasks failed: what runs is cancelled, what waits is
    /// skipped.
    #[serde(default)]
    pub fail_fast: bool,
    /// A skipped node with cause gate stands for the worst of its upstream nodes.
    #[serde(default)]
    pub inherit_omitted: bool,
}

impl Default for Verdict {
    fn default() -> Self {
        Self { set: VerdictSet::Leaves, rows: Vec::new(), fail_fast: false, inherit_omitted: false }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictSet {
    /// Nodes that nothing depends on, ignorable ones not looked at.
    Leaves,
    All,
    Nodes(Vec<NodeNo>),
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VerdictRow {
    pub when: Condition,
    pub then: Outcome,
}

impl Workflow {
    /// The node of the entry graph with this name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<NodeNo> {
        let TemplateBody::Graph(graph) = &self.templates.get(self.entry.index())?.body else {
            return None;
        };
        let place = graph.nodes.iter().position(|node| node.name == name)?;
        u32::try_from(place).ok().map(NodeNo)
    }

    /// SHA-256 of the definition's JSON, in hexadecimal: its version.
    pub fn content_hash(&self) -> Result<String, serde_json::Error> {
        use sha2::Digest as _;
        let bytes = serde_json::to_vec(self)?;
        let digest = sha2::Sha256::digest(&bytes);
        Ok(digest.iter().fold(String::with_capacity(64), |hex, byte| {
            use std::fmt::Write as _;
            let mut hex = hex;
            // Writing into a String cannot fail.
            let _infallible = write!(hex, "{byte:02x}");
            hex
        }))
    }
}
