//! The walk over a run's rows that draws `status.nodes`: which nodes there are, and their edges.

use std::collections::{BTreeMap, HashSet};

use indexmap::IndexMap;
use kobza_model::{
    Cause, Json, NodeNo, ScopeNo, TaskNo, TaskRow, TaskState, TemplateBody, Workflow,
};
use serde_json::json;

use super::node::fails;
use super::{RunData, resources};
use crate::names::{
    has_retry, node_id, node_name, node_of, phase, template_json, template_spec, workflow_name,
};
use crate::values::seconds;

/// What the walk over the rows gathers before edges are drawn.
pub(super) struct Tree<'a> {
    pub(super) data: &'a RunData,
    pub(super) run: String,
    nodes: IndexMap<String, Json>,
    /// Id of the node that stands for a task, for edges into it.
    ids: Vec<Option<String>>,
    /// Tasks of each scope that are not instances nor hooks, by node number.
    members: Vec<Vec<TaskNo>>,
    instances: BTreeMap<TaskNo, Vec<TaskNo>>,
    hooks: BTreeMap<TaskNo, Vec<TaskNo>>,
    attempts: BTreeMap<TaskNo, Vec<&'a TaskRow>>,
    /// Scopes by owner and attempt.
    activations: BTreeMap<(TaskNo, u32), ScopeNo>,
    outbound: BTreeMap<String, Vec<String>>,
    /// The first task of each scope that failed.
    pub(super) failed: BTreeMap<ScopeNo, TaskNo>,
    /// Edges that were drawn after both of their nodes.
    drawn: HashSet<(String, String)>,
}

/// `status.nodes`, by id.
#[must_use]
pub fn nodes(data: &RunData) -> IndexMap<String, Json> {
    let mut tree = Tree {
        data,
        run: workflow_name(&data.run).to_owned(),
        nodes: IndexMap::new(),
        ids: vec![None; data.tasks.len()],
        members: vec![Vec::new(); data.scopes.len()],
        instances: BTreeMap::new(),
        hooks: BTreeMap::new(),
        attempts: BTreeMap::new(),
        activations: BTreeMap::new(),
        outbound: BTreeMap::new(),
        failed: BTreeMap::new(),
        drawn: HashSet::new(),
    };
    for task in &data.tasks {
        if task.task.0 == 0 {
            continue;
        }
        if fails(data, task) {
            tree.failed.entry(task.scope).or_insert(task.task);
        }
        if task.hook.is_some() {
            tree.hooks.entry(task.parent.unwrap_or(TaskNo(0))).or_default().push(task.task);
        } else if task.index.is_some() {
            tree.instances.entry(task.parent.unwrap_or(TaskNo(0))).or_default().push(task.task);
        } else if let Some(members) = tree.members.get_mut(task.scope.index()) {
            members.push(task.task);
        }
    }
    for attempt in &data.attempts {
        tree.attempts.entry(attempt.task).or_default().push(attempt);
    }
    for scope in &data.scopes {
        if let Some(owner) = scope.owner {
            tree.activations.insert((owner, scope.attempt), scope.scope);
        }
    }
    for task in tree.members.first().cloned().unwrap_or_default() {
        tree.task(task, None);
    }
    for hook in tree.hooks.get(&TaskNo(0)).cloned().unwrap_or_default() {
        tree.task(hook, None);
    }
    sum_up(&mut tree.nodes);
    tree.nodes
}

/// Progress and resources of nodes that hold others: the sums of what is below.
fn sum_up(nodes: &mut IndexMap<String, Json>) {
    #[derive(Clone, Copy, Default)]
    struct Sum {
        ended: u64,
        total: u64,
        used: (i64, i64),
    }
    let mut sums = vec![Sum::default(); nodes.len()];
    // A node comes before what it holds.
    let mut holders: Vec<Option<usize>> = Vec::with_capacity(nodes.len());
    for node in nodes.values() {
        let boundary = node["boundaryID"].as_str();
        holders.push(boundary.and_then(|id| nodes.get_index_of(id)));
    }
    for place in (0..nodes.len()).rev() {
        let Some((_, node)) = nodes.get_index(place) else { continue };
        if matches!(node["type"].as_str(), Some("Pod" | "HTTP" | "Plugin")) {
            sums[place].total += 1;
            sums[place].ended += u64::from(!node["finishedAt"].is_null());
            let used = |what: &str| node["resourcesDuration"][what].as_i64().unwrap_or(0);
            sums[place].used.0 += used("cpu");
            sums[place].used.1 += used("memory");
        }
        if let Some(holder) = holders[place].filter(|holder| *holder < place) {
            let own = sums[place];
            let sum = &mut sums[holder];
            sum.ended += own.ended;
            sum.total += own.total;
            sum.used.0 += own.used.0;
            sum.used.1 += own.used.1;
        }
    }
    for (place, sum) in sums.into_iter().enumerate() {
        let Some((_, node)) = nodes.get_index_mut(place) else { continue };
        if !matches!(node["type"].as_str(), Some("Steps" | "DAG")) {
            continue;
        }
        node["progress"] = Json::from(format!("{}/{}", sum.ended, sum.total));
        if !node["finishedAt"].is_null() {
            node["resourcesDuration"] = resources::shown(sum.used);
        }
    }
}

fn never_began(task: &TaskRow) -> bool {
    matches!(task.state, TaskState::Pending | TaskState::Removed)
}

impl Tree<'_> {
    pub(super) fn workflow(&self) -> &Workflow {
        &self.data.workflow
    }

    fn role(&self, task: &TaskRow) -> &str {
        template_spec(self.workflow(), task.template)["role"].as_str().unwrap_or("")
    }

    /// Adds the node of a task and all below it. Answers its id if it is shown.
    fn task(&mut self, number: TaskNo, boundary: Option<&str>) -> Option<String> {
        let data = self.data;
        let task = data.tasks.get(number.index())?;
        let hidden_hook =
            task.hook.is_some() && task.state == TaskState::Skipped && task.cause == Cause::Branch;
        if never_began(task) || hidden_hook {
            return None;
        }
        let role = self.role(task).to_owned();
        if role == "group" && matches!(task.state, TaskState::UpstreamFailed | TaskState::Skipped) {
            return None;
        }
        let name = node_name(data, task);
        let id = node_id(&self.run, &name);
        self.ids[number.index()] = Some(id.clone());
        let mut children = Vec::new();
        let retry = has_retry(data, task) && task.attempt > 0;
        let instances = self.instances.get(&number).cloned().unwrap_or_default();
        let kind = if !instances.is_empty() {
            "TaskGroup"
        } else if task.attempt == 0
            || matches!(task.state, TaskState::Skipped | TaskState::UpstreamFailed)
        {
            // It ended before anything of it began: unless its result was there already.
            if task.state == TaskState::Succeeded { self.body_kind(task) } else { "Skipped" }
        } else if retry {
            "Retry"
        } else {
            self.body_kind(task)
        };
        let place = self.nodes.len();
        self.nodes.insert(id.clone(), Json::Null);
        match kind {
            "TaskGroup" => {
                for instance in instances {
                    children.extend(self.task(instance, boundary));
                }
                let outbound = children.iter().flat_map(|c| self.outbound_of(c)).collect();
                self.outbound.insert(id.clone(), outbound);
            }
            "Retry" => {
                let mut all: Vec<&TaskRow> =
                    self.attempts.get(&number).cloned().unwrap_or_default();
                all.push(task);
                for attempt in all {
                    children.push(self.attempt(task, attempt, &name, boundary));
                }
                let outbound = children.last().map(|c| self.outbound_of(c)).unwrap_or_default();
                self.outbound.insert(id.clone(), outbound);
            }
            _ => children = self.below(task, task.attempt, &id, boundary),
        }
        for hook in self.hooks.get(&number).cloned().unwrap_or_default() {
            children.extend(self.task(hook, boundary));
        }
        let mut node = self.describe(task, &name, kind, boundary);
        self.edges(&mut node, &id, children);
        if let Some((_, slot)) = self.nodes.get_index_mut(place) {
            // Children of its readers may have been drawn into it already.
            *slot = node;
        }
        Some(id)
    }

    /// One attempt of a task with retries, as a node of its own.
    fn attempt(
        &mut self,
        task: &TaskRow,
        attempt: &TaskRow,
        outer: &str,
        boundary: Option<&str>,
    ) -> String {
        let name = format!("{outer}({})", attempt.attempt.max(1) - 1);
        let id = node_id(&self.run, &name);
        let place = self.nodes.len();
        self.nodes.insert(id.clone(), Json::Null);
        let children = self.below(task, attempt.attempt, &id, boundary);
        let kind = self.body_kind(task);
        let mut node = self.describe(attempt, &name, kind, boundary);
        if attempt.state == TaskState::RetryWait || attempt.attempt < task.attempt {
            let failed = TaskRow { state: TaskState::Failed, ..attempt.clone() };
            node["phase"] = Json::from(phase(self.workflow(), &failed));
            node["finishedAt"] = json!(attempt.ended_at.map(seconds));
        }
        node["nodeFlag"] = json!({ "retried": true });
        self.edges(&mut node, &id, children);
        if let Some((_, slot)) = self.nodes.get_index_mut(place) {
            *slot = node;
        }
        id
    }

    fn edges(&mut self, node: &mut Json, id: &str, children: Vec<String>) {
        if !children.is_empty() {
            node["children"] = Json::from(children);
        }
        if matches!(node["type"].as_str(), Some("Steps" | "DAG"))
            && let Some(outbound) = self.outbound.get(id).filter(|o| !o.is_empty())
        {
            node["outboundNodes"] = json!(outbound);
        }
    }

    fn outbound_of(&self, id: &str) -> Vec<String> {
        match self.outbound.get(id) {
            Some(outbound) if !outbound.is_empty() => outbound.clone(),
            _ => vec![id.to_owned()],
        }
    }

    /// What a graph's activation consists of; the ids of its first nodes.
    fn below(
        &mut self,
        task: &TaskRow,
        attempt: u32,
        id: &str,
        boundary: Option<&str>,
    ) -> Vec<String> {
        let Some(&scope) = self.activations.get(&(task.task, attempt)) else {
            return self.containers(task, attempt, id);
        };
        let role = self.role(task).to_owned();
        let members = self.members.get(scope.index()).cloned().unwrap_or_default();
        match role.as_str() {
            "steps" => self.groups(&members, id),
            "group" => {
                // A group's steps belong to the steps node around it.
                let around = boundary.unwrap_or(id).to_owned();
                let mut shown = Vec::new();
                for member in members {
                    let expanded = self.instances.contains_key(&member);
                    if expanded {
                        for instance in self.instances.get(&member).cloned().unwrap_or_default() {
                            shown.extend(self.task(instance, Some(&around)));
                        }
                    } else {
                        shown.extend(self.task(member, Some(&around)));
                    }
                }
                let outbound = shown.iter().flat_map(|c| self.outbound_of(c)).collect();
                self.outbound.insert(id.to_owned(), outbound);
                shown
            }
            _ => self.dag(task, &members, id),
        }
    }

    /// The members of a container set, by what they depend on; the ids of the first.
    fn containers(&mut self, task: &TaskRow, attempt: u32, id: &str) -> Vec<String> {
        let data = self.data;
        let set = &template_json(&data.workflow, task.template)["containerSet"]["containers"];
        let own = data.outputs.get(&task.task).filter(|_| attempt == task.attempt);
        let ended = own.and_then(|own| own.get("containers"));
        let Some(outer) = self.nodes_name(task, attempt) else { return Vec::new() };
        let mut roots = Vec::new();
        for container in set.as_array().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or("main");
            let full = format!("{outer}.{name}");
            let own_id = node_id(&self.run, &full);
            let code = ended.and_then(|e| e[name]["exitCode"].as_i64());
            let current = attempt == task.attempt;
            let (phase, message) = match (code, task.state) {
                (Some(0), _) => ("Succeeded", None),
                (Some(code), _) => ("Failed", Some(format!("Error (exit code {code})"))),
                (None, TaskState::Running | TaskState::Cancelling) if current => ("Running", None),
                (None, state) if current && !state.is_finished() => ("Pending", None),
                (None, _) => ("Failed", None),
            };
            let done = !matches!(phase, "Running" | "Pending");
            let mut node = json!({
                "id": own_id, "name": full, "displayName": name, "type": "Container",
                "phase": phase, "boundaryID": id, "startedAt": task.started_at.map(seconds),
                "finishedAt": task.ended_at.filter(|_| done).map(seconds),
            });
            let template = &data.workflow.templates[task.template.index()].name;
            node["templateName"] = Json::from(template.as_str());
            node["templateScope"] = Json::from(self.scope_text(task));
            if let Some(message) = message {
                node["message"] = Json::from(message);
            }
            self.nodes.insert(own_id.clone(), node);
            let upstream: Vec<&str> = container["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Json::as_str)
                .collect();
            if upstream.is_empty() {
                roots.push(own_id.clone());
            }
            for name in upstream {
                self.add_child(&node_id(&self.run, &format!("{outer}.{name}")), &own_id);
            }
        }
        roots
    }

    /// The name of the node of one attempt.
    fn nodes_name(&self, task: &TaskRow, attempt: u32) -> Option<String> {
        let name = node_name(self.data, task);
        let retry = has_retry(self.data, task);
        (attempt > 0).then(|| if retry { format!("{name}({})", attempt - 1) } else { name })
    }

    fn groups(&mut self, members: &[TaskNo], id: &str) -> Vec<String> {
        let mut first = Vec::new();
        let mut previous: Vec<String> = Vec::new();
        for &member in members {
            let Some(group) = self.task(member, Some(id)) else { continue };
            self.only_daemons(member, &group);
            if first.is_empty() {
                first.push(group.clone());
            }
            for parent in &previous {
                self.add_child(parent, &group);
            }
            previous = self.outbound_of(&group);
        }
        self.outbound.insert(id.to_owned(), previous);
        first
    }

    /// A group whose steps have ended, daemons apart, has succeeded, though its daemons live on.
    fn only_daemons(&mut self, group: TaskNo, id: &str) {
        let tasks = &self.data.tasks;
        let scope = match tasks.get(group.index()) {
            Some(group) if group.state == TaskState::Running => group.child,
            _ => return,
        };
        let mut since = None;
        for member in scope.and_then(|scope| self.members.get(scope.index())).into_iter().flatten()
        {
            let Some(member) = tasks.get(member.index()) else { return };
            if self.is_up(member) {
                since = since.max(member.started_at);
            } else if !member.state.is_finished() {
                return;
            } else {
                since = since.max(member.ended_at);
            }
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node["phase"] = Json::from("Succeeded");
            node["finishedAt"] = json!(since.map(seconds));
        }
    }

    /// Whether a task is a daemon that runs.
    pub(super) fn is_up(&self, task: &TaskRow) -> bool {
        let scope = self.data.scopes.get(task.scope.index());
        let node = scope
            .zip(task.node)
            .and_then(|(scope, node)| node_of(self.workflow(), scope.template, node));
        task.state == TaskState::Running && node.is_some_and(|node| node.daemon)
    }

    fn dag(&mut self, task: &TaskRow, members: &[TaskNo], id: &str) -> Vec<String> {
        let data = self.data;
        for &member in members {
            self.task(member, Some(id));
        }
        let Some(TemplateBody::Graph(graph)) =
            data.workflow.templates.get(task.template.index()).map(|t| &t.body)
        else {
            return Vec::new();
        };
        let mut roots = Vec::new();
        for (place, &member) in members.iter().enumerate() {
            let Some(own) = self.ids[member.index()].clone() else { continue };
            let Some(node) = graph.nodes.get(place) else { continue };
            if node.edges.is_empty() {
                roots.push(own);
                continue;
            }
            for edge in &node.edges {
                let upstream = members.get(edge.upstream.index());
                let Some(parent) = upstream.and_then(|u| self.ids[u.index()].clone()) else {
                    continue;
                };
                for outbound in self.outbound_of(&parent) {
                    self.add_child(&outbound, &own);
                }
            }
        }
        let targets: Vec<NodeNo> = match &graph.verdict.set {
            kobza_model::VerdictSet::Nodes(nodes) => nodes.clone(),
            _ => Vec::new(),
        };
        let outbound = targets
            .iter()
            .filter_map(|t| self.ids[members.get(t.index())?.index()].clone())
            .flat_map(|t| self.outbound_of(&t))
            .collect();
        self.outbound.insert(id.to_owned(), outbound);
        roots
    }

    fn add_child(&mut self, parent: &str, child: &str) {
        if !self.drawn.insert((parent.to_owned(), child.to_owned())) {
            return;
        }
        let Some(Json::Object(node)) = self.nodes.get_mut(parent) else { return };
        if let Some(children) = node.entry("children").or_insert_with(|| json!([])).as_array_mut() {
            children.push(Json::from(child));
        }
    }

    fn body_kind(&self, task: &TaskRow) -> &'static str {
        let spec = template_spec(self.workflow(), task.template);
        match spec["role"].as_str() {
            Some("steps") => return "Steps",
            Some("dag") => return "DAG",
            Some("group") => return "StepGroup",
            _ => {}
        }
        match spec["body"].as_str().unwrap_or("") {
            "suspend" => "Suspend",
            "http" => "HTTP",
            "plugin" => "Plugin",
            _ => "Pod",
        }
    }
}
