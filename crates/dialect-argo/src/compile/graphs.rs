//! `steps` and `dag` templates as graphs.

use std::collections::BTreeMap;

use kobza_model::{
    Edge, Gate, Graph, Json, Node, NodeNo, Template, TemplateBody, TemplateNo, Verdict, VerdictSet,
};
use serde_json::json;

use super::calls::{plain_node, step_name};
use super::{Compiler, Result, Scope};
use crate::depends::{self, Upstream};
use crate::document::Diagnostic;

impl Compiler<'_> {
    pub(super) fn steps(
        &mut self,
        template: &Json,
        head: Json,
        scope: &Scope,
        path: &str,
        nesting: u32,
    ) -> Result<TemplateBody> {
        let groups = template["steps"].as_array().cloned().unwrap_or_default();
        let results = wants_results(template);
        let parallelism =
            self.count(template.get("parallelism"), &format!("{path}.parallelism"))?;
        let fail_fast = parallelism.is_some() && template["failFast"].as_bool().unwrap_or(false);
        let mut names = serde_json::Map::new();
        let mut nodes = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let mut members = Vec::new();
            for (place, step) in group.as_array().into_iter().flatten().enumerate() {
                let at = format!("{path}.steps[{number}]");
                let name = step_name(step, &at)?;
                if names.insert(name.clone(), json!([number, place])).is_some() {
                    return Err(Diagnostic::new(
                        format!("{at}.{name}"),
                        "name is not unique".to_owned(),
                    )
                    .hint("steps of all groups of a template have different names"));
                }
                let mut node = self.call(step, scope, &format!("{at}.{name}"), nesting)?;
                node.gate = Gate::always();
                members.push(node);
            }
            // A group is up like a daemon of its own once only daemons are left in it: they live on
            // until the template ends.
            let daemon = members.iter().any(|member| member.daemon);
            let graph = Graph {
                nodes: members,
                verdict: Verdict { set: VerdictSet::All, fail_fast, ..Verdict::default() },
                parallelism: None,
                outputs: false,
                spec: json!({ "role": "group", "group": number, "results": results }),
            };
            let call = TemplateNo(u32::try_from(self.templates.len()).unwrap_or(u32::MAX));
            self.templates.push(Template {
                name: format!("{}[{number}]", template["name"].as_str().unwrap_or_default()),
                body: TemplateBody::Graph(graph),
            });
            let mut node = plain_node(format!("[{number}]"), call);
            node.daemon = daemon;
            if number > 0 {
                let previous = NodeNo(u32::try_from(number - 1).unwrap_or(u32::MAX));
                node.edges = vec![Edge::on(previous)];
                node.gate = match nodes.last().is_some_and(|group: &Node| group.daemon) {
                    true => Gate::Logical(depends::up(previous)),
                    false => Gate::all_succeeded(),
                };
            }
            node.arguments = json!({ "group": number });
            nodes.push(node);
        }
        Ok(TemplateBody::Graph(Graph {
            nodes,
            verdict: Verdict { set: VerdictSet::All, ..Verdict::default() },
            parallelism,
            outputs: has_outputs(template),
            spec: json!({ "role": "steps", "template": head, "scope": scope.text(), "names": names }),
        }))
    }

    pub(super) fn dag(
        &mut self,
        template: &Json,
        head: Json,
        scope: &Scope,
        path: &str,
        nesting: u32,
    ) -> Result<TemplateBody> {
        let all = template["dag"]["tasks"].as_array().cloned().unwrap_or_default();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (place, task) in all.iter().enumerate() {
            let name = step_name(task, &format!("{path}.tasks[{place}]"))?;
            if places.insert(name.clone(), place).is_some() {
                return Err(Diagnostic::new(format!("{path}.tasks.{name}"), "name is not unique")
                    .hint("tasks of a template have different names"));
            }
        }
        let find = |name: &str| {
            let place = *places.get(name)?;
            let on = &all[place]["continueOn"];
            Some(Upstream {
                node: NodeNo(u32::try_from(place).ok()?),
                continue_on_error: on["error"].as_bool().unwrap_or(false),
                continue_on_failed: on["failed"].as_bool().unwrap_or(false),
            })
        };
        let mut gates = Vec::with_capacity(all.len());
        for task in &all {
            let name = task["name"].as_str().unwrap_or_default();
            let dependencies: Vec<String> = task["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|d| d.as_str().map(str::to_owned))
                .collect();
            let at = format!("{path}.tasks.{name}");
            let tree = match task["depends"].as_str().filter(|d| !d.trim().is_empty()) {
                Some(_) if !dependencies.is_empty() => {
                    return Err(Diagnostic::new(
                        at,
                        "cannot use both 'depends' and 'dependencies' in the same DAG task",
                    )
                    .hint("`dependencies: [A, B]` is `depends: A && B`"));
                }
                Some(text) => Some(depends::parse(text, &find)),
                None if dependencies.is_empty() => None,
                None => Some(depends::all(&dependencies, &find)),
            };
            gates.push(match tree {
                None => Gate::always(),
                Some(tree) => Gate::Logical(tree.map_err(|error| {
                    Diagnostic::new(at, error).hint(
                        "name tasks of this template, as in `A.Succeeded && (B || !C.Failed)`",
                    )
                })?),
            });
        }
        if let Some(circle) = circle(&gates) {
            let names: Vec<&str> = circle
                .iter()
                .map(|place| all[*place]["name"].as_str().unwrap_or_default())
                .collect();
            return Err(Diagnostic::new(
                format!("{path}.tasks.{}", names[0]),
                format!("dependency cycle detected: {}", names.join("->")),
            )
            .hint("one of them must not wait for the other"));
        }
        let (keep, targets) = self.targets(template, &all, &places, &gates, path)?;
        // Tasks that no target needs do not run; numbers are those of what is left.
        let mut renumbered = vec![None; all.len()];
        for (new, &old) in keep.iter().enumerate() {
            renumbered[old] = Some(NodeNo(u32::try_from(new).unwrap_or(u32::MAX)));
        }
        let mut names = serde_json::Map::new();
        let mut nodes = Vec::with_capacity(keep.len());
        for &old in &keep {
            let task = &all[old];
            let name = task["name"].as_str().unwrap_or_default();
            let mut node = self.call(task, scope, &format!("{path}.tasks.{name}"), nesting)?;
            let mut gate = gates[old].clone();
            if let Gate::Logical(tree) = &mut gate {
                renumber(tree, &renumbered);
                let mut named = Vec::new();
                named_nodes(tree, &mut named);
                named.sort_unstable();
                named.dedup();
                node.edges = named.into_iter().map(Edge::on).collect();
            }
            node.gate = gate;
            names.insert(name.to_owned(), Json::from(nodes.len()));
            nodes.push(node);
        }
        let parallelism =
            self.count(template.get("parallelism"), &format!("{path}.parallelism"))?;
        Ok(TemplateBody::Graph(Graph {
            nodes,
            verdict: Verdict {
                set: VerdictSet::Nodes(targets.iter().filter_map(|t| renumbered[*t]).collect()),
                rows: Vec::new(),
                // Work in progress is let to end; only a template that limits its own parallelism
                // stops at the first failure.
                fail_fast: parallelism.is_some() && template["failFast"].as_bool().unwrap_or(false),
                inherit_omitted: true,
            },
            parallelism,
            outputs: has_outputs(template),
            spec: json!({
                "role": "dag", "template": head, "scope": scope.text(), "names": names,
                "results": wants_results(template),
            }),
        }))
    }

    /// The tasks that run, in order, and those that decide the phase.
    fn targets(
        &self,
        template: &Json,
        all: &[Json],
        places: &BTreeMap<String, usize>,
        gates: &[Gate],
        path: &str,
    ) -> Result<(Vec<usize>, Vec<usize>)> {
        let mut upstreams = Vec::with_capacity(all.len());
        for gate in gates {
            let mut named = Vec::new();
            if let Gate::Logical(tree) = gate {
                named_nodes(tree, &mut named);
            }
            upstreams.push(named);
        }
        let wanted = template["dag"]["target"].as_str().map(|t| self.constant(t));
        if let Some(wanted) = wanted.filter(|w| !w.trim().is_empty()) {
            let mut targets = Vec::new();
            for name in wanted.split_whitespace() {
                targets.push(*places.get(name).ok_or_else(|| {
                    Diagnostic::new(
                        format!("{path}.targets"),
                        format!("target '{name}' is not defined"),
                    )
                    .hint("targets are names of tasks, with spaces in between")
                })?);
            }
            let mut needed = vec![false; all.len()];
            let mut open = targets.clone();
            while let Some(place) = open.pop() {
                if !std::mem::replace(&mut needed[place], true) {
                    open.extend(upstreams[place].iter().map(|n| n.index()));
                }
            }
            return Ok(((0..all.len()).filter(|p| needed[*p]).collect(), targets));
        }
        let mut leaf = vec![true; all.len()];
        for up in upstreams.iter().flatten() {
            leaf[up.index()] = false;
        }
        Ok(((0..all.len()).collect(), (0..all.len()).filter(|p| leaf[*p]).collect()))
    }
}

/// Whether a template reads the standard output of one of its nodes.
fn wants_results(template: &Json) -> bool {
    template.to_string().contains("outputs.result")
}

fn has_outputs(template: &Json) -> bool {
    ["parameters", "artifacts"]
        .iter()
        .any(|side| template["outputs"][side].as_array().is_some_and(|items| !items.is_empty()))
}

/// Tasks that wait for each other in a circle, the first again at the end.
fn circle(gates: &[Gate]) -> Option<Vec<usize>> {
    let upstream: Vec<Vec<usize>> = gates
        .iter()
        .map(|gate| {
            let mut named = Vec::new();
            if let Gate::Logical(tree) = gate {
                named_nodes(tree, &mut named);
            }
            named.iter().map(|node| node.index()).collect()
        })
        .collect();
    // 0: not seen; 1: on the way; 2: no circle through it.
    let mut marks = vec![0u8; gates.len()];
    for start in 0..gates.len() {
        let mut way: Vec<(usize, usize)> =
            if marks[start] == 0 { vec![(start, 0)] } else { continue };
        marks[start] = 1;
        while let Some((place, next)) = way.last_mut() {
            let Some(&up) = upstream[*place].get(*next) else {
                marks[*place] = 2;
                way.pop();
                continue;
            };
            *next += 1;
            match marks[up] {
                0 => {
                    marks[up] = 1;
                    way.push((up, 0));
                }
                1 => {
                    let from = way.iter().position(|(place, _)| *place == up).unwrap_or(0);
                    let mut found: Vec<usize> =
                        way[from..].iter().map(|(place, _)| *place).collect();
                    found.push(up);
                    return Some(found);
                }
                _ => {}
            }
        }
    }
    None
}

fn named_nodes(tree: &kobza_model::Tree, out: &mut Vec<NodeNo>) {
    use kobza_model::Tree;
    match tree {
        Tree::All(parts) | Tree::Any(parts) => parts.iter().for_each(|p| named_nodes(p, out)),
        Tree::Not(part) => named_nodes(part, out),
        Tree::Is(predicate) => out.push(predicate.node),
    }
}

fn renumber(tree: &mut kobza_model::Tree, numbers: &[Option<NodeNo>]) {
    use kobza_model::Tree;
    match tree {
        Tree::All(parts) | Tree::Any(parts) => {
            parts.iter_mut().for_each(|p| renumber(p, numbers));
        }
        Tree::Not(part) => renumber(part, numbers),
        Tree::Is(predicate) => {
            if let Some(new) = numbers[predicate.node.index()] {
                predicate.node = new;
            }
        }
    }
}
