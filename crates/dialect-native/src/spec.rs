//! What the compiler leaves for run time, in `Leaf::spec`, `Node::arguments` and
//! `Hook::arguments`.

use kobza_model::Json;
use serde::{Deserialize, Serialize};
use serde_json::Map;

/// `Leaf::spec`: a body, and how to run it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeafSpec {
    pub body: Body,
    #[serde(skip_serializing_if = "Reads::is_empty")]
    pub reads: Reads,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_exit_codes: Vec<i32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub capture: bool,
}

/// What a task does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    #[default]
    Noop,
    Shell {
        command: String,
        shell: String,
    },
    Python {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interpreter: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        venv: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        path: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        requirements: Option<Json>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
        with: Json,
        /// A returned `false` fails it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        check: bool,
    },
    Sql {
        statement: String,
        connection: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<Json>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_rows: Option<u64>,
    },
    Http {
        url: String,
        method: String,
        headers: Vec<(String, String)>,
        query: Vec<(String, String)>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        json: Option<Json>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
        /// Accepted statuses; none: 200 to 299.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        expect: Vec<u16>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_ms: Option<u64>,
    },
    /// Leaf kind `suspend`.
    Suspend {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        approvers: Vec<String>,
        #[serde(default, skip_serializing_if = "Json::is_null")]
        inputs: Json,
        /// Whether a person decides (approval) or anything may resume it.
        approval: bool,
    },
    /// Leaf kind `wait`.
    Wait(Wait),
    /// Leaf kind `workflow`.
    Workflow {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        wait: bool,
        with: Json,
    },
}

/// What is waited for. Texts are templates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    For {
        ms: u64,
    },
    Until {
        time: String,
    },
    File {
        path: String,
        every_ms: u64,
    },
    Event {
        name: String,
        filter: Option<String>,
    },
    /// Until it has data; `since` a time.
    Asset {
        name: String,
        partition: Option<String>,
        since: Option<String>,
    },
    /// Until a body of the kind `http` or `sql` succeeds.
    Poll {
        body: Box<Body>,
        every_ms: u64,
    },
}

/// Which parts of the world the templates of a task look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reads {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskRead>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// `item` is looked at: of the task's own map, or of an enclosing group's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub item: bool,
}

impl Reads {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// One task that templates look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskRead {
    /// Path below `tasks` in the templates.
    pub path: Vec<String>,
    /// How many enclosing scopes up its graph is.
    #[serde(default)]
    pub up: u32,
    pub node: u32,
    /// Only the instance with the reader's own index.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aligned: bool,
}

/// `Node::arguments`, and `Hook::arguments`: what is asked before a task runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<MapSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSpec>,
    #[serde(skip_serializing_if = "Reads::is_empty")]
    pub reads: Reads,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Where the items of a mapped task come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapSpec {
    /// Written out.
    Items(Vec<Json>),
    /// Written out, with templates.
    Templates(Vec<Json>),
    /// An expression that gives a list.
    Over(String),
    Range(u32),
    /// An expression that gives a length.
    RangeOf(String),
    /// Those of another node.
    Like(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSpec {
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// This node is a check of another task's data; what becomes of it is an event `Checked`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    pub name: String,
    /// The task that is checked.
    pub task: String,
    /// What that task produces.
    pub assets: Vec<String>,
    pub blocking: bool,
}

/// `Workflow::source`: what tasks share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shared {
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub connections: Map<String, Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<Pool>,
    /// What runs and assets are divided into, as the schedule crate reads it.
    #[serde(skip_serializing_if = "Json::is_null")]
    pub partitions: Json,
}

/// A limit that the workflow declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub name: String,
    pub capacity: u32,
    #[serde(default)]
    pub strict: bool,
    #[serde(default)]
    pub description: Option<String>,
}
