//! What workers tell beyond Luigi's protocol, by the optional hook of the Python package: which
//! targets a task made, and from which. And what they tell within it, but luigid only mails.

use kobza_engine::Published;
use kobza_model::{validate_asset, validate_partition};
use serde_json::json;

use super::args::Args;
use super::mirror::last_line;
use super::{LuigiMachine, Refused};
use crate::pyjson::Value;

/// Targets of one report, and what they were made from.
const MAX_TARGETS: usize = 100;
const MAX_INPUTS: usize = 500;
/// Characters of an address, and of what a failure is about.
const MAX_TEXT: usize = 4096;
/// The note of a task that could not be scheduled.
const SCHEDULING_FAILURE: &str = "scheduling_failure";

fn bad(text: impl Into<String>) -> Refused {
    Refused::Bad(text.into())
}

fn short(value: &Value) -> Option<String> {
    value.as_str().map(|text| text.chars().take(MAX_TEXT).collect())
}

impl LuigiMachine {
    /// `{task_id, targets: [{asset, partition, address, kind}], inputs: [asset]}`: each target is
    /// an asset that now exists.
    pub(super) fn report_targets(&mut self, args: &Args) -> Result<Value, Refused> {
        let task = args.id("task_id")?;
        if self.index.find(&task).is_none() {
            return Err(bad("the task is not known"));
        }
        let inputs = args.ids("inputs").unwrap_or_default();
        if inputs.len() > MAX_INPUTS {
            return Err(bad(format!("inputs: at most {MAX_INPUTS}")));
        }
        for input in &inputs {
            validate_asset(input).map_err(|e| bad(format!("inputs: {e}")))?;
        }
        let Value::List(targets) = args.get("targets") else {
            return Err(bad("targets: a list is expected"));
        };
        if targets.len() > MAX_TARGETS {
            return Err(bad(format!("targets: at most {MAX_TARGETS}")));
        }
        let mut published = Vec::new();
        for target in targets {
            let Value::Object(target) = target else {
                return Err(bad("targets: objects are expected"));
            };
            let field = |name: &str| target.get(name).unwrap_or(&Value::Null);
            let asset = field("asset").as_str().unwrap_or_default();
            validate_asset(asset).map_err(|e| bad(format!("targets.asset: {e}")))?;
            let partition = field("partition").as_str();
            if let Some(partition) = partition {
                validate_partition(partition)
                    .map_err(|e| bad(format!("targets.partition: {e}")))?;
            }
            let metadata = json!({
                "address": short(field("address")),
                "target": short(field("kind")),
                "made_from": inputs,
            });
            published.push(Published {
                task: task.clone(),
                asset: asset.to_owned(),
                partition: partition.map(str::to_owned),
                metadata: metadata.to_string(),
            });
        }
        self.published.append(&mut published);
        Ok(Value::Null)
    }

    /// luigid gathers these for its mails; here they are events, of which notifications are made.
    pub(super) fn announce_failure(&mut self, args: &Args) -> Value {
        let detail = json!({
            "task": short(args.get("task_name")),
            "family": short(args.get("family")),
            "message": args.text("expl").and_then(last_line),
        });
        self.notes.push((SCHEDULING_FAILURE.to_owned(), detail.to_string()));
        Value::Null
    }
}
