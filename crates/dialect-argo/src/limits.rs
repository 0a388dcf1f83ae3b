//! The limits that a workflow's synchronization needs to exist.

use std::collections::BTreeSet;

use kobza_model::{TemplateBody, Workflow};

/// A limit by its name, and where its capacity comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeededLimit {
    /// Capacity 1.
    Mutex(String),
    /// Capacity is the number in this ConfigMap's key.
    ConfigMap { limit: String, namespace: String, map: String, key: String },
    /// Capacity is kept with the server's own limits, by this key.
    Stored { limit: String, namespace: String, key: String },
}

/// All limits that a compiled workflow holds. They must exist before a run starts: the engine takes
/// a limit that it does not know for one without end.
#[must_use]
pub fn limits(workflow: &Workflow) -> Vec<NeededLimit> {
    let mut names = BTreeSet::new();
    for template in &workflow.templates {
        if let TemplateBody::Graph(graph) = &template.body {
            for node in &graph.nodes {
                names.extend(node.limits.iter().map(|l| l.limit.clone()));
            }
        }
    }
    names
        .into_iter()
        .filter_map(|limit| {
            let parts: Vec<&str> = limit.splitn(4, '/').collect();
            Some(match parts[..] {
                [_, "Mutex", ..] => NeededLimit::Mutex(limit),
                [namespace, "ConfigMap", map, key] => NeededLimit::ConfigMap {
                    namespace: namespace.to_owned(),
                    map: map.to_owned(),
                    key: key.to_owned(),
                    limit,
                },
                [namespace, "Database", key] => NeededLimit::Stored {
                    namespace: namespace.to_owned(),
                    key: key.to_owned(),
                    limit,
                },
                _ => return None,
            })
        })
        .collect()
}
