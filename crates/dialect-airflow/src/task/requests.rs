//! What a task may ask, and say of itself: the requests of the Task SDK's supervisor protocol
//! (its schema of 2026-06-16), and which answers are errors.

use kobza_model::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

/// A named asset: either field may be missing, not both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetProfile {
    pub name: Option<String>,
    pub uri: Option<String>,
    /// `Asset`, `AssetAlias`, `AssetNameRef` or `AssetUriRef`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// A task instance's place for an XCom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XComPlace {
    pub key: String,
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    #[serde(default)]
    pub map_index: Option<i64>,
}

/// Which task instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInstances {
    pub dag_id: String,
    #[serde(default)]
    pub map_index: Option<i64>,
    #[serde(default)]
    pub task_ids: Option<Vec<String>>,
    #[serde(default)]
    pub task_group_id: Option<String>,
    #[serde(default)]
    pub logical_dates: Option<Vec<String>>,
    #[serde(default)]
    pub run_ids: Option<Vec<String>>,
    /// A null stands for a task instance without a state.
    #[serde(default)]
    pub states: Option<Vec<Option<String>>>,
}

/// Which asset events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetEvents {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub uri: Option<String>,
    #[serde(default)]
    pub alias_name: Option<String>,
    #[serde(default)]
    pub after: Option<String>,
    #[serde(default)]
    pub before: Option<String>,
    #[serde(default)]
    pub limit: Option<u32>,
    #[serde(default = "yes")]
    pub ascending: bool,
}

fn yes() -> bool {
    true
}

/// The run that a task starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TriggerDagRun {
    pub dag_id: String,
    pub run_id: String,
    #[serde(default)]
    pub logical_date: Option<String>,
    #[serde(default)]
    pub run_after: Option<String>,
    #[serde(default)]
    pub conf: Option<Map<String, Json>>,
    #[serde(default)]
    pub reset_dag_run: Option<bool>,
    #[serde(default)]
    pub partition_key: Option<String>,
    #[serde(default)]
    pub note: Option<String>,
}

/// What a task defers to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeferTask {
    pub classpath: String,
    #[serde(default)]
    pub trigger_kwargs: Json,
    /// ISO 8601.
    #[serde(default)]
    pub trigger_timeout: Option<String>,
    #[serde(default)]
    pub queue: Option<String>,
    pub next_method: String,
    #[serde(default)]
    pub next_kwargs: Json,
    #[serde(default)]
    pub rendered_map_index: Option<String>,
}

/// A key of a state store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateKey {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub uri: Option<String>,
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub value: Json,
    #[serde(default)]
    pub expires_at: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Request {
    // How it ends.
    SucceedTask {
        #[serde(default)]
        end_date: Option<String>,
        #[serde(default)]
        task_outlets: Option<Vec<AssetProfile>>,
        #[serde(default)]
        outlet_events: Option<Vec<Json>>,
        #[serde(default)]
        rendered_map_index: Option<String>,
    },
    TaskState {
        state: String,
        #[serde(default)]
        end_date: Option<String>,
        #[serde(default)]
        rendered_map_index: Option<String>,
    },
    DeferTask(DeferTask),
    RescheduleTask {
        reschedule_date: String,
        #[serde(default)]
        end_date: Option<String>,
    },
    RetryTask {
        #[serde(default)]
        end_date: Option<String>,
        #[serde(default)]
        rendered_map_index: Option<String>,
        #[serde(default)]
        retry_delay_seconds: Option<f64>,
        #[serde(default)]
        retry_reason: Option<String>,
    },
    AwaitInputTask {
        #[serde(default)]
        timeout: Option<String>,
        next_method: String,
        #[serde(default)]
        next_kwargs: Json,
        #[serde(default)]
        rendered_map_index: Option<String>,
    },
    SkipDownstreamTasks {
        /// Task ids, or pairs of a task id and a map index.
        tasks: Vec<Json>,
    },
    // What it leaves.
    SetXCom {
        #[serde(flatten)]
        place: XComPlace,
        value: Json,
        #[serde(default)]
        dag_result: bool,
        #[serde(default)]
        mapped_length: Option<u64>,
    },
    DeleteXCom(XComPlace),
    SetRenderedFields {
        rendered_fields: Json,
    },
    SetRenderedMapIndex {
        rendered_map_index: String,
    },
    MaskSecret {
        value: Json,
        #[serde(default)]
        name: Option<String>,
    },
    ResendLoggingFD,
    // What it reads.
    GetXCom {
        #[serde(flatten)]
        place: XComPlace,
        #[serde(default)]
        include_prior_dates: bool,
    },
    GetXComCount(XComPlace),
    GetXComSequenceItem {
        #[serde(flatten)]
        place: XComPlace,
        offset: i64,
    },
    GetXComSequenceSlice {
        #[serde(flatten)]
        place: XComPlace,
        start: Option<i64>,
        stop: Option<i64>,
        step: Option<i64>,
        #[serde(default)]
        include_prior_dates: bool,
    },
    GetConnection {
        conn_id: String,
    },
    GetVariable {
        key: String,
    },
    GetVariableKeys {
        #[serde(default)]
        prefix: Option<String>,
        #[serde(default = "thousand")]
        limit: usize,
        #[serde(default)]
        offset: usize,
    },
    PutVariable {
        key: String,
        value: Option<String>,
        #[serde(default)]
        description: Option<String>,
    },
    DeleteVariable {
        key: String,
    },
    // Runs and their tasks.
    TriggerDagRun(TriggerDagRun),
    GetDagRun {
        dag_id: String,
        run_id: String,
    },
    GetDagRunState {
        dag_id: String,
        run_id: String,
    },
    GetDRCount {
        dag_id: String,
        #[serde(default)]
        logical_dates: Option<Vec<String>>,
        #[serde(default)]
        run_ids: Option<Vec<String>>,
        #[serde(default)]
        states: Option<Vec<String>>,
    },
    GetPreviousDagRun {
        dag_id: String,
        logical_date: String,
        #[serde(default)]
        state: Option<String>,
    },
    GetPrevSuccessfulDagRun {},
    GetTICount(TaskInstances),
    GetTaskStates(TaskInstances),
    GetPreviousTI {
        dag_id: String,
        task_id: String,
        #[serde(default)]
        logical_date: Option<String>,
        #[serde(default = "unmapped")]
        map_index: i64,
        #[serde(default)]
        state: Option<String>,
    },
    GetTaskRescheduleStartDate {
        #[serde(default)]
        try_number: Option<u32>,
    },
    GetTaskBreadcrumbs {
        dag_id: String,
        run_id: String,
    },
    GetDag {
        dag_id: String,
    },
    // Assets.
    GetAssetByName {
        name: String,
    },
    GetAssetByUri {
        uri: String,
    },
    GetAssetsByAlias {
        alias_name: String,
    },
    GetAssetEventByAsset(AssetEvents),
    GetAssetEventByAssetAlias(AssetEvents),
    ValidateInletsAndOutlets {},
    // People.
    CreateHITLDetailPayload {
        options: Vec<String>,
        subject: String,
        #[serde(default)]
        body: Option<String>,
        #[serde(default)]
        defaults: Option<Vec<String>>,
        #[serde(default)]
        multiple: Option<bool>,
        #[serde(default)]
        params: Option<Json>,
        #[serde(default)]
        assigned_users: Option<Vec<Json>>,
    },
    /// From a trigger: `ti_id` says of which task.
    GetHITLDetailResponse {
        ti_id: String,
    },
    UpdateHITLDetail {
        ti_id: String,
        chosen_options: Vec<String>,
        #[serde(default)]
        params_input: Option<Json>,
    },
    // State between tries, and of assets.
    GetTaskStateStore(StateKey),
    SetTaskStateStore(StateKey),
    DeleteTaskStateStore(StateKey),
    ClearTaskStateStore {},
    GetAssetStateStoreByName(StateKey),
    GetAssetStateStoreByUri(StateKey),
    SetAssetStateStoreByName(StateKey),
    SetAssetStateStoreByUri(StateKey),
    DeleteAssetStateStoreByName(StateKey),
    DeleteAssetStateStoreByUri(StateKey),
    ClearAssetStateStoreByName(StateKey),
    ClearAssetStateStoreByUri(StateKey),
}

fn thousand() -> usize {
    1000
}

fn unmapped() -> i64 {
    -1
}

/// Why a request was not answered, in the words of the SDK's `ErrorType`.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    pub kind: &'static str,
    pub detail: Json,
}

impl Refused {
    /// What was asked for does not exist.
    #[must_use]
    pub fn not_found(kind: &'static str, detail: Json) -> Self {
        Self { kind, detail }
    }

    /// As the API server would have refused, with an HTTP status.
    #[must_use]
    pub fn api(status: u16, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            kind: "API_SERVER_ERROR",
            detail: json!({"status_code": status, "message": message, "detail": {"message": message}}),
        }
    }

    /// As an answer's body.
    #[must_use]
    pub fn body(&self) -> Json {
        json!({"type": "ErrorResponse", "error": self.kind, "detail": self.detail})
    }
}

impl Request {
    /// Reads a request's body. The error names the request and what is wrong with it.
    pub fn parse(body: &Json) -> Result<Self, Refused> {
        Self::deserialize(body).map_err(|error| {
            let name = body.get("type").and_then(Json::as_str).unwrap_or("without a type");
            Refused::api(400, format!("the request {name} is not understood: {error}"))
        })
    }
}
