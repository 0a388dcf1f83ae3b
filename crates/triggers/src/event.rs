//! What triggers react to.

use kobza_model::{Json, RunId, RunState, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Something that happened.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TriggerEvent {
    /// Identifies the event among those of its kind: the same id is the same event, however often
    /// it is delivered. At most 200 characters.
    pub id: String,
    /// Its number in the event log, where it comes from there; 0 elsewhere.
    #[serde(default)]
    pub sequence: u64,
    pub at: Timestamp,
    pub body: EventBody,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventBody {
    /// An asset was materialized.
    Asset {
        asset: String,
        partition: Option<String>,
        run: Option<RunId>,
        #[serde(default)]
        metadata: Json,
    },
    /// A run ended.
    RunEnded {
        workflow: String,
        run: RunId,
        state: RunState,
        #[serde(default)]
        params: Json,
        #[serde(default)]
        interval: Option<(Timestamp, Timestamp)>,
        #[serde(default)]
        partition: Option<String>,
    },
    /// A verified delivery for one trigger.
    Webhook { workflow: String, trigger: String, body: Json },
    /// A file that has settled, for one trigger.
    File { workflow: String, trigger: String, path: String, size: u64, modified: Timestamp },
    /// Sent to the API by name, or emitted by a task.
    Custom { name: String, payload: Json },
}

impl TriggerEvent {
    /// What templates and filters see as `event`.
    #[must_use]
    pub fn view(&self) -> Json {
        let mut view = match &self.body {
            EventBody::Asset { asset, partition, run, metadata } => json!({
                "asset": asset, "partition": partition, "run": run, "metadata": metadata,
            }),
            EventBody::RunEnded { workflow, run, state, params, interval, partition } => json!({
                "workflow": workflow, "run": run, "state": state.as_str(), "params": params,
                "interval": interval.map(|(start, end)| json!({"start": start, "end": end})),
                "partition": partition,
            }),
            EventBody::Webhook { body, .. } => json!({"body": body}),
            EventBody::File { path, size, modified, .. } => json!({
                "path": path, "size": size, "modified": modified,
            }),
            EventBody::Custom { name, payload } => json!({"name": name, "payload": payload}),
        };
        if let Some(fields) = view.as_object_mut() {
            fields.insert("id".to_owned(), Json::String(self.id.clone()));
            fields.insert("at".to_owned(), json!(self.at));
        }
        view
    }

    /// The partition that it speaks of.
    #[must_use]
    pub fn partition(&self) -> Option<&str> {
        match &self.body {
            EventBody::Asset { partition, .. } | EventBody::RunEnded { partition, .. } => {
                partition.as_deref()
            }
            _ => None,
        }
    }
}
