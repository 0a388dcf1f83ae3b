//! Templates of other objects, and the spec that refers to one as a whole.

use std::sync::Arc;

use kobza_model::Json;
use serde_json::json;

use super::Result;
use crate::document::{Diagnostic, Kind, Object};
use crate::normal::merge;

/// Where templates of other objects are found.
pub trait Library {
    fn workflow_template(&self, name: &str) -> Option<Arc<Json>>;
    fn cluster_workflow_template(&self, name: &str) -> Option<Arc<Json>>;
}

/// No other objects.
impl Library for () {
    fn workflow_template(&self, _: &str) -> Option<Arc<Json>> {
        None
    }

    fn cluster_workflow_template(&self, _: &str) -> Option<Arc<Json>> {
        None
    }
}

/// The spec to run: `workflowTemplateRef` resolved and merged, arguments of both joined.
pub fn effective_spec(object: &Object, library: &dyn Library) -> Result<Json> {
    let own = match object.kind {
        Kind::CronWorkflow => &object.json["spec"]["workflowSpec"],
        _ => &object.json["spec"],
    };
    let Some(reference) = own.get("workflowTemplateRef").filter(|r| r.is_object()) else {
        return Ok(own.clone());
    };
    let (name, cluster) = reference_of(reference);
    let found = if cluster {
        library.cluster_workflow_template(&name)
    } else {
        library.workflow_template(&name)
    };
    let found = found.ok_or_else(|| {
        Diagnostic::new(
            "spec.workflowTemplateRef",
            format!(
                "{} {name:?} not found",
                if cluster { "cluster workflow template" } else { "workflow template" }
            ),
        )
        .hint("create it first; one of the cluster needs clusterScope: true")
    })?;
    let mut over = own.clone();
    let mut merged = found["spec"].clone();
    // Arguments: the workflow's by name over the template's; the rest by merge.
    if let (Some(over), true) = (over.as_object_mut(), merged.is_object()) {
        over.shift_remove("workflowTemplateRef");
        let arguments = over.shift_remove("arguments");
        merged = merge(&merged, &Json::Object(over.clone()));
        if let Some(arguments) = arguments {
            let joined = join_arguments(&merged["arguments"], &arguments);
            merged["arguments"] = joined;
        }
        merged["workflowTemplateRef"] = reference.clone();
    }
    Ok(merged)
}

fn join_arguments(under: &Json, over: &Json) -> Json {
    let mut out = json!({});
    for side in ["parameters", "artifacts"] {
        let mut items: Vec<Json> = under[side].as_array().cloned().unwrap_or_default();
        for item in over[side].as_array().into_iter().flatten() {
            match items.iter_mut().find(|i| i["name"] == item["name"]) {
                Some(there) => {
                    if let (Some(there), Some(item)) = (there.as_object_mut(), item.as_object()) {
                        if item.contains_key("value") {
                            there.shift_remove("valueFrom");
                        }
                        there.extend(item.clone());
                    }
                }
                None => items.push(item.clone()),
            }
        }
        if !items.is_empty() {
            out[side] = Json::Array(items);
        }
    }
    out
}

/// Name, and whether of the cluster.
pub(super) fn reference_of(reference: &Json) -> (String, bool) {
    let name = reference["name"].as_str().unwrap_or_default().to_owned();
    (name, reference["clusterScope"].as_bool().unwrap_or(false))
}
