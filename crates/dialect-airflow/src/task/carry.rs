//! What a task remembers from one launch of a try to the next.

use kobza_model::{Json, Timestamp};
use serde::{Deserialize, Serialize};

/// `TaskRow::carry` of an Airflow task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carry {
    /// What to call instead of `execute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_method: Option<String>,
    #[serde(skip_serializing_if = "Json::is_null")]
    pub next_kwargs: Json,
    /// The trigger that the task waits for. A launch that still has it was woken by its time-out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Waiting>,
    /// When the waiting for a trigger or a person is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_at: Option<Timestamp>,
    /// Of the try, from before the deferral.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_date: Option<Timestamp>,
    /// Of this try so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub reschedules: u32,
    /// When the first launch that ended in a reschedule began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_reschedule: Option<Timestamp>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A trigger, as the task described it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    pub classpath: String,
    /// As the SDK's `serde` encodes them.
    pub kwargs: Json,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
}

impl Carry {
    /// From a task's row. What is not of this form is nothing.
    #[must_use]
    pub fn of(carry: &Json) -> Self {
        Self::deserialize(carry).unwrap_or_default()
    }

    /// For a launch: a wait that ended by its time-out calls the method for failures.
    #[must_use]
    pub fn woken(mut self) -> Self {
        if self.trigger.take().is_some() {
            self.next_method = Some("__fail__".to_owned());
            self.next_kwargs = serde_json::json!({"error": "Trigger timeout"});
        }
        self
    }

    /// After a trigger's event, encoded by the SDK's `serde`.
    #[must_use]
    pub fn with_event(mut self, event: Json) -> Self {
        self.trigger = None;
        self.timeout_at = None;
        // Of a task that began to wait without a worker, they are as the DAG has them.
        if self.next_kwargs["__type"] == "dict" {
            self.next_kwargs = self.next_kwargs["__var"].take();
        }
        if !self.next_kwargs.is_object() {
            self.next_kwargs = serde_json::json!({});
        }
        self.next_kwargs["event"] = event;
        self
    }

    /// After a trigger that failed, with its traceback.
    #[must_use]
    pub fn with_failure(mut self, traceback: Json) -> Self {
        self.trigger = None;
        self.timeout_at = None;
        self.next_method = Some("__fail__".to_owned());
        self.next_kwargs = serde_json::json!({"error": "Trigger failure", "traceback": traceback});
        self
    }
}
