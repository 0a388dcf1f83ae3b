//! A task of a DAG.

use kobza_model::Json;
use serde::Deserialize;
use serde_json::Map;

use super::{DagError, ExpandInput, plain};

/// An operator, mapped or not.
#[derive(Clone, Debug)]
pub struct Operator {
    pub task_id: String,
    /// The class's name.
    pub task_type: String,
    pub downstream: Vec<String>,
    pub trigger_rule: String,
    pub depends_on_past: bool,
    pub ignore_first_depends_on_past: bool,
    pub wait_for_downstream: bool,
    pub retries: u32,
    /// Seconds.
    pub retry_delay: f64,
    /// The factor from one delay to the next; 0: every delay is the same.
    pub retry_exponential_backoff: f64,
    /// Seconds.
    pub max_retry_delay: Option<f64>,
    pub has_retry_policy: bool,
    pub pool: String,
    pub pool_slots: u32,
    pub priority_weight: i64,
    pub weight_rule: String,
    pub max_active_tis_per_dag: Option<u32>,
    pub max_active_tis_per_dagrun: Option<u32>,
    pub start_date: Option<f64>,
    pub end_date: Option<f64>,
    pub is_setup: bool,
    pub is_teardown: bool,
    pub on_failure_fail_dagrun: bool,
    /// An `EmptyOperator`, or a class derived from it.
    pub is_empty: bool,
    pub has_on_execute_callback: bool,
    pub has_on_success_callback: bool,
    /// Starts in the triggerer, without a worker.
    pub start_from_trigger: bool,
    pub inlets: Vec<Json>,
    pub outlets: Vec<Json>,
    /// What a mapped operator is mapped over.
    pub expand: Option<ExpandInput>,
    /// As written, with the client's defaults laid under it.
    pub raw: Json,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    trigger_rule: Option<String>,
    #[serde(default)]
    depends_on_past: bool,
    #[serde(default)]
    ignore_first_depends_on_past: bool,
    #[serde(default)]
    wait_for_downstream: bool,
    #[serde(default)]
    retries: Option<f64>,
    #[serde(default)]
    retry_delay: Option<f64>,
    #[serde(default)]
    retry_exponential_backoff: Option<Json>,
    #[serde(default)]
    max_retry_delay: Option<f64>,
    #[serde(default)]
    has_retry_policy: bool,
    #[serde(default)]
    pool: Option<String>,
    #[serde(default)]
    pool_slots: Option<f64>,
    #[serde(default)]
    priority_weight: Option<f64>,
    #[serde(default)]
    weight_rule: Option<Json>,
    #[serde(default)]
    max_active_tis_per_dag: Option<u32>,
    #[serde(default)]
    max_active_tis_per_dagrun: Option<u32>,
    #[serde(default)]
    start_date: Option<f64>,
    #[serde(default)]
    end_date: Option<f64>,
    #[serde(default)]
    is_setup: bool,
    #[serde(default)]
    is_teardown: bool,
    #[serde(default)]
    on_failure_fail_dagrun: bool,
    #[serde(default, rename = "_is_empty")]
    is_empty: bool,
    #[serde(default)]
    has_on_execute_callback: bool,
    #[serde(default)]
    has_on_success_callback: bool,
    #[serde(default)]
    start_from_trigger: bool,
    #[serde(default)]
    inlets: Vec<Json>,
    #[serde(default)]
    outlets: Vec<Json>,
}

/// Seconds between two tries where nothing says otherwise (`default_task_retry_delay`).
const RETRY_DELAY: f64 = 300.0;

impl Operator {
    pub(super) fn read(task: &Json, defaults: &Json, place: usize) -> Result<Self, DagError> {
        let field = format!("dag.tasks[{place}]");
        let written = match (&task["__type"], &task["__var"]) {
            (Json::String(kind), Json::Object(fields)) if kind == "operator" => fields,
            _ => return Err(DagError::new(field, "it is no operator")),
        };
        let text = |name: &str| {
            written.get(name).and_then(Json::as_str).map(str::to_owned).ok_or_else(|| {
                DagError::new(format!("{field}.{name}"), "it is missing, or is no text")
            })
        };
        let task_id = text("task_id")?;
        let task_type = text("task_type")?;
        let field = format!("dag.tasks[{task_id:?}]");
        let mut raw: Map<String, Json> = defaults.as_object().cloned().unwrap_or_default();
        raw.extend(written.clone());
        // What a mapped operator's instances share is written apart, and encoded.
        let mut flat = Map::new();
        flat.extend(defaults.as_object().cloned().unwrap_or_default());
        if let Some(partial) = written.get("partial_kwargs").and_then(Json::as_object) {
            flat.extend(partial.iter().map(|(name, value)| (name.clone(), plain(value))));
        }
        flat.extend(written.iter().map(|(name, value)| (name.clone(), value.clone())));
        let fields = Fields::deserialize(Json::Object(flat))
            .map_err(|e| DagError::new(field.clone(), e.to_string()))?;
        let expand = match written.get("_is_mapped").and_then(Json::as_bool) {
            Some(true) => {
                let name = text("_expand_input_attr")?;
                let input = written.get(&name).unwrap_or(&Json::Null);
                Some(ExpandInput::read(input, &format!("{field}.{name}"))?)
            }
            _ => None,
        };
        let downstream = match written.get("downstream_task_ids") {
            None | Some(Json::Null) => Vec::new(),
            Some(ids) => Vec::deserialize(&plain(ids)).map_err(|e| {
                DagError::new(format!("{field}.downstream_task_ids"), e.to_string())
            })?,
        };
        let backoff = match &fields.retry_exponential_backoff {
            // Before it became a factor it was a switch, for a factor of 2.
            Some(Json::Bool(on)) => f64::from(u8::from(*on)) * 2.0,
            Some(value) => value.as_f64().unwrap_or(0.0),
            None => 0.0,
        };
        let weight_rule = match &fields.weight_rule {
            None => "downstream".to_owned(),
            Some(Json::String(rule)) => rule.clone(),
            Some(other) => {
                other["__type"].as_str().map_or_else(|| other.to_string(), str::to_owned)
            }
        };
        Ok(Self {
            task_id,
            task_type,
            downstream,
            trigger_rule: fields.trigger_rule.unwrap_or_else(|| "all_success".to_owned()),
            depends_on_past: fields.depends_on_past,
            ignore_first_depends_on_past: fields.ignore_first_depends_on_past,
            wait_for_downstream: fields.wait_for_downstream,
            retries: whole(fields.retries, 0),
            retry_delay: fields.retry_delay.unwrap_or(RETRY_DELAY),
            retry_exponential_backoff: backoff,
            max_retry_delay: fields.max_retry_delay,
            has_retry_policy: fields.has_retry_policy,
            pool: fields.pool.unwrap_or_else(|| "default_pool".to_owned()),
            pool_slots: whole(fields.pool_slots, 1),
            #[expect(clippy::cast_possible_truncation, reason = "weights are small whole numbers")]
            priority_weight: fields.priority_weight.unwrap_or(1.0) as i64,
            weight_rule,
            max_active_tis_per_dag: fields.max_active_tis_per_dag,
            max_active_tis_per_dagrun: fields.max_active_tis_per_dagrun,
            start_date: fields.start_date,
            end_date: fields.end_date,
            is_setup: fields.is_setup,
            is_teardown: fields.is_teardown,
            on_failure_fail_dagrun: fields.on_failure_fail_dagrun,
            is_empty: fields.is_empty,
            has_on_execute_callback: fields.has_on_execute_callback,
            has_on_success_callback: fields.has_on_success_callback,
            start_from_trigger: fields.start_from_trigger,
            inlets: fields.inlets,
            outlets: fields.outlets,
            expand,
            raw: Json::Object(raw),
        })
    }

    /// Reads a task apart from its DAG: `{"__type": "operator", "__var": {...}}`.
    pub fn read_one(task: &Json) -> Result<Self, DagError> {
        Self::read(task, &Json::Null, 0)
    }

    /// Whether it ends well without running at all.
    #[must_use]
    pub fn is_noop(&self) -> bool {
        self.is_empty
            && !self.has_on_execute_callback
            && !self.has_on_success_callback
            && self.inlets.is_empty()
            && self.outlets.is_empty()
    }

    /// A teardown whose failure does not fail the run.
    #[must_use]
    pub fn is_ignorable(&self) -> bool {
        self.is_teardown && !self.on_failure_fail_dagrun
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are bounded")]
fn whole(value: Option<f64>, default: u32) -> u32 {
    value.map_or(default, |v| v.clamp(0.0, f64::from(u32::MAX)) as u32)
}
