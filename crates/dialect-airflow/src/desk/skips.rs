//! Which nodes a decision of a task skips.

use kobza_model::{Json, Node, NodeNo, RunRow, TemplateBody, Workflow};
use serde_json::json;

use super::{Asker, Desk};
use crate::task::Refused;

/// A node of the DAG.
pub(crate) fn node(workflow: &Workflow, place: NodeNo) -> Option<&Node> {
    nodes(workflow)?.get(place.index())
}

fn nodes(workflow: &Workflow) -> Option<&[Node]> {
    match &workflow.templates.get(workflow.entry.index())?.body {
        TemplateBody::Graph(graph) => Some(&graph.nodes),
        TemplateBody::Leaf(_) => None,
    }
}

impl Desk {
    /// `{"tasks": [id | [id, map index]]}`, as a task names what it skips; or `{"choice": {"followed":
    /// [...]} | {"skipped": [...]}}`, as branching operators record it for their direct readers.
    pub(super) fn skips(&self, asker: Asker, run: &RunRow, body: &Json) -> Result<Json, Refused> {
        let stored = self.store.workflow(&run.namespace, &run.workflow, Some(&run.version))?;
        let stored = stored.ok_or_else(|| Refused::api(404, "the DAG's version is gone"))?;
        let all = nodes(&stored.workflow).unwrap_or_default();
        let own = self.task_of(asker)?.node;
        Ok(json!({"nodes": skipped(all, own, body)}))
    }
}

fn skipped(all: &[Node], own: Option<NodeNo>, body: &Json) -> Vec<NodeNo> {
    let ids = |list: &Json| -> Vec<String> {
        let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
        let id = |item: &Json| item.as_str().or_else(|| item[0].as_str()).map(str::to_owned);
        items.iter().filter_map(id).collect()
    };
    let mut out = Vec::new();
    let choice = &body["choice"];
    let (named, followed) = match choice.get("followed") {
        Some(list) => (ids(list), true),
        None => (ids(choice.get("skipped").unwrap_or(&body["tasks"])), false),
    };
    for (place, node) in all.iter().enumerate() {
        let direct = node.edges.iter().any(|edge| Some(edge.upstream) == own);
        let teardown = node.arguments["task"]["is_teardown"] == true;
        let listed = named.contains(&node.name);
        let skip = match choice {
            Json::Object(_) => direct && !teardown && listed != followed,
            _ => listed,
        };
        if skip && let Ok(place) = u32::try_from(place) {
            out.push(NodeNo(place));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use kobza_model::{Edge, Gate, TemplateNo};

    use super::*;

    fn node(name: &str, upstream: &[u32]) -> Node {
        Node {
            name: name.to_owned(),
            call: TemplateNo(1),
            gate: Gate::all_succeeded(),
            edges: upstream.iter().map(|up| Edge::on(NodeNo(*up))).collect(),
            guard: false,
            expansion: None,
            limits: Vec::new(),
            priority: 0,
            retry: None,
            attempt_timeout_ms: None,
            timeout_ms: None,
            hooks: Vec::new(),
            continue_on: Vec::new(),
            daemon: false,
            ignorable: false,
            arguments: json!({"task": {"is_teardown": name == "down"}}),
            produces: Vec::new(),
            consumes: Vec::new(),
        }
    }

    #[test]
    fn choices_concern_direct_readers() {
        let all = [
            node("branch", &[]),
            node("a", &[0]),
            node("b", &[0]),
            node("c", &[1, 2]),
            node("down", &[0]),
        ];
        let of = |body: Json| skipped(&all, Some(NodeNo(0)), &body);
        assert_eq!(of(json!({"choice": {"followed": ["a"]}})), [NodeNo(2)]);
        assert_eq!(of(json!({"choice": {"skipped": ["a", "c"]}})), [NodeNo(1)]);
        assert_eq!(of(json!({"tasks": ["b", ["c", 3]]})), [NodeNo(2), NodeNo(3)]);
    }
}
