//! A run's rows as Argo shows them: the workflow object with its status and nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use kobza_model::{
    Cause, Json, NodeNo, RunRow, RunState, ScopeNo, ScopeRow, TaskNo, TaskRow, TaskState,
    TemplateBody, Timestamp, Workflow,
};
use serde_json::{Map, json};

use crate::names::{
    self, Rows, has_retry, item_of, node_id, node_name, node_of, phase, template_json,
    template_spec, workflow_name,
};
use crate::values::seconds;

/// Everything that is known of one run.
#[derive(Clone, Debug)]
pub struct RunData {
    pub run: RunRow,
    pub workflow: Arc<Workflow>,
    /// In order of number, none missing.
    pub tasks: Vec<TaskRow>,
    /// In order of number, none missing.
    pub scopes: Vec<ScopeRow>,
    /// Attempts that a newer one replaced.
    pub attempts: Vec<TaskRow>,
    pub outputs: BTreeMap<TaskNo, BTreeMap<String, Arc<Json>>>,
}

impl Rows for RunData {
    fn run(&self) -> &RunRow {
        &self.run
    }

    fn workflow(&self) -> &Workflow {
        &self.workflow
    }

    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow> {
        self.scopes.get(scope.index()).cloned()
    }

    fn task(&self, task: TaskNo) -> Option<TaskRow> {
        self.tasks.get(task.index()).cloned()
    }

    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Json>> {
        self.outputs.get(&task)?.get(key).cloned()
    }
}

/// The phase of the workflow as a whole.
#[must_use]
pub fn workflow_phase(data: &RunData) -> &'static str {
    match data.run.state {
        RunState::Queued => "Pending",
        RunState::Running | RunState::Paused | RunState::Cancelling => "Running",
        RunState::Succeeded => "Succeeded",
        RunState::Cancelled => "Failed",
        RunState::Failed => {
            let entry = data.tasks.iter().find(|t| t.scope.0 == 0 && t.node == Some(NodeNo(0)));
            let entry = entry.map_or("Failed", |t| phase(&data.workflow, t));
            let exit = data
                .tasks
                .iter()
                .filter(|t| t.hook.is_some() && t.parent == Some(TaskNo(0)))
                .map(|t| phase(&data.workflow, t));
            match entry {
                "Error" => "Error",
                "Failed" => "Failed",
                _ if exit.clone().any(|p| p == "Error") => "Error",
                _ => "Failed",
            }
        }
    }
}

/// The workflow object: metadata, spec and status.
#[must_use]
pub fn workflow_object(data: &RunData) -> Json {
    let run = &data.run;
    let phase = workflow_phase(data);
    let done = run.state.is_finished();
    let notes = &run.extra["argo"];
    let mut labels = notes["labels"].as_object().cloned().unwrap_or_default();
    labels.insert("workflows.argoproj.io/phase".to_owned(), Json::from(phase));
    if done {
        labels.insert("workflows.argoproj.io/completed".to_owned(), Json::from("true"));
    }
    let mut metadata = json!({
        "name": workflow_name(run),
        "namespace": run.namespace,
        "uid": run.run.to_string(),
        "resourceVersion": version(data),
        "generation": 1 + run.generation,
        "creationTimestamp": seconds(run.created_at),
        "labels": labels,
    });
    for key in ["annotations", "generateName", "ownerReferences"] {
        if let Some(value) = notes.get(key).filter(|v| !v.is_null()) {
            metadata[key] = value.clone();
        }
    }
    let nodes = nodes(data);
    let leaves = nodes.values().filter(|n| n["type"] == "Pod" || n["type"] == "HTTP");
    let total = leaves.clone().count();
    let ended = leaves.filter(|n| !n["finishedAt"].is_null()).count();
    let mut status = json!({
        "phase": phase,
        "startedAt": run.started_at.map(seconds),
        "finishedAt": run.ended_at.map(seconds),
        "progress": format!("{ended}/{total}"),
        "nodes": nodes,
        "conditions": conditions(data, phase),
    });
    if let Some(message) = message_of_run(data, phase) {
        status["message"] = Json::from(message);
    }
    if let Some(outputs) = global_outputs(data) {
        status["outputs"] = outputs;
    }
    let mut spec =
        notes.get("spec").cloned().unwrap_or_else(|| data.workflow.source["spec"].clone());
    if run.state == RunState::Paused {
        spec["suspend"] = Json::Bool(true);
    }
    if let Some(stop) = run.stop.as_deref() {
        spec["shutdown"] = Json::from(if stop == "terminate" { "Terminate" } else { "Stop" });
    }
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    })
}

/// A text that changes whenever the object does.
fn version(data: &RunData) -> String {
    let newest = data
        .tasks
        .iter()
        .flat_map(|t| [t.started_at, t.ended_at, t.ready_at])
        .chain([data.run.ended_at, data.run.started_at, Some(data.run.created_at)])
        .flatten()
        .max();
    newest.unwrap_or(Timestamp(0)).0.to_string()
}

fn conditions(data: &RunData, phase: &str) -> Json {
    let running = data
        .tasks
        .iter()
        .any(|t| t.state == TaskState::Running && t.child.is_none() && !t.summary && t.task.0 != 0);
    let mut list = vec![json!({
        "type": "PodRunning", "status": if running { "True" } else { "False" },
    })];
    if data.run.state.is_finished() {
        list.push(json!({ "type": "Completed", "status": "True" }));
    }
    if phase == "Error"
        && let Some(message) = message_of_run(data, phase)
    {
        list.push(json!({ "type": "SpecError", "status": "True", "message": message }));
    }
    Json::Array(list)
}

fn message_of_run(data: &RunData, phase: &str) -> Option<String> {
    if !matches!(phase, "Failed" | "Error") {
        return None;
    }
    match data.run.stop.as_deref() {
        Some("terminate") => return Some("Stopped with strategy 'Terminate'".to_owned()),
        Some("timeout") => return Some("Max duration limit exceeded".to_owned()),
        Some(_) => return Some("Stopped with strategy 'Stop'".to_owned()),
        None => {}
    }
    let entry = data.tasks.iter().find(|t| t.scope.0 == 0 && t.node == Some(NodeNo(0)))?;
    match self::phase(&data.workflow, entry) {
        "Failed" | "Error" => message(data, entry, "").or_else(|| data.run.message.clone()),
        _ => data
            .tasks
            .iter()
            .find(|t| {
                t.hook.is_some() && matches!(names::phase(&data.workflow, t), "Failed" | "Error")
            })
            .and_then(|t| message(data, t, ""))
            .or_else(|| data.run.message.clone()),
    }
}

/// Outputs with a global name.
fn global_outputs(data: &RunData) -> Option<Json> {
    let mut out: BTreeMap<&str, BTreeMap<String, Json>> = BTreeMap::new();
    for task in &data.tasks {
        if task.state != TaskState::Succeeded || task.summary || task.task.0 == 0 {
            continue;
        }
        let declared = &template_json(&data.workflow, task.template)["outputs"];
        for side in ["parameters", "artifacts"] {
            for item in declared[side].as_array().into_iter().flatten() {
                let Some(global) = item["globalName"].as_str() else { continue };
                let outputs = data.output(task.task, side);
                let value = outputs.as_ref().and_then(|o| o.get(item["name"].as_str()?));
                if let Some(value) = value {
                    let shown = match side {
                        "parameters" => json!({ "name": global, "value": value }),
                        _ => {
                            let mut shown = value.clone();
                            shown["name"] = Json::from(global);
                            shown
                        }
                    };
                    out.entry(side).or_default().insert(global.to_owned(), shown);
                }
            }
        }
    }
    if out.is_empty() {
        return None;
    }
    let mut json = json!({});
    for (side, items) in out {
        json[side] = items.into_values().collect();
    }
    Some(json)
}

/// What the walk over the rows gathers before edges are drawn.
struct Tree<'a> {
    data: &'a RunData,
    run: String,
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
    };
    for task in &data.tasks {
        if task.task.0 == 0 {
            continue;
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
    tree.nodes
}

fn never_began(task: &TaskRow) -> bool {
    matches!(task.state, TaskState::Pending | TaskState::Removed)
}

impl Tree<'_> {
    fn workflow(&self) -> &Workflow {
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
            // It ended before anything of it began: or its result came from a cache.
            if task.cause == Cause::Cache { self.body_kind(task) } else { "Skipped" }
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
        let Some(&scope) = self.activations.get(&(task.task, attempt)) else { return Vec::new() };
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

    fn groups(&mut self, members: &[TaskNo], id: &str) -> Vec<String> {
        let mut first = Vec::new();
        let mut previous: Vec<String> = Vec::new();
        for &member in members {
            let Some(group) = self.task(member, Some(id)) else { continue };
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
        let Some(Json::Object(node)) = self.nodes.get_mut(parent) else { return };
        let children = node.entry("children").or_insert_with(|| json!([]));
        if let Some(children) = children.as_array_mut()
            && !children.iter().any(|c| c == child)
        {
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

    fn describe(
        &self,
        task: &TaskRow,
        name: &str,
        kind: &'static str,
        boundary: Option<&str>,
    ) -> Json {
        let workflow = self.workflow();
        let id = node_id(&self.run, name);
        let ended = task.state.is_finished();
        let word = phase(workflow, task);
        let start = task.started_at.or(task.ended_at).or(task.ready_at);
        let mut node = json!({
            "id": id,
            "name": name,
            "displayName": display_name(self.data, task, name),
            "type": kind,
            "phase": word,
            "startedAt": start.map(seconds),
            "finishedAt": task.ended_at.filter(|_| ended).map(seconds),
        });
        let spec = template_spec(workflow, task.template);
        if kind != "StepGroup" {
            let template = &workflow.templates[task.template.index()].name;
            self.template_names(&mut node, task, template);
        }
        let scope = match spec["scope"].as_str() {
            Some("local/") | None => format!("local/{}", self.run),
            Some(scope) => scope.to_owned(),
        };
        node["templateScope"] = Json::from(scope);
        if let Some(boundary) = boundary {
            node["boundaryID"] = Json::from(boundary);
        }
        if let Some(message) = message(self.data, task, kind) {
            node["message"] = Json::from(message);
        }
        if let Some(inputs) = inputs(&task.inputs) {
            node["inputs"] = inputs;
        }
        let own = self.data.outputs.get(&task.task).filter(|_| kind != "TaskGroup");
        if let Some(outputs) = outputs(task, own, kind) {
            node["outputs"] = outputs;
        }
        if matches!(kind, "Pod" | "HTTP") {
            node["progress"] = Json::from(if ended { "1/1" } else { "0/1" });
            node["hostNodeName"] = Json::from("localhost");
            if let (Some(start), Some(end), true) = (task.started_at, task.ended_at, ended) {
                let used = (end.0 - start.0).max(0) / 1_000_000;
                node["resourcesDuration"] = json!({ "cpu": used, "memory": used });
            }
        }
        let kept = own.and_then(|own| own.get("$cache")).and_then(|key| key.as_str());
        if let Some(key) = kept.or(task.inputs["$cache"].as_str()).filter(|_| kind != "Retry") {
            let mut parts = key.splitn(3, '/').skip(1);
            node["memoizationStatus"] = json!({
                "hit": task.cause == Cause::Cache,
                "cacheName": parts.next(), "key": parts.next(),
            });
        }
        if task.hook.is_some() {
            node["nodeFlag"] = json!({ "hooked": true });
        }
        node
    }

    fn template_names(&self, node: &mut Json, task: &TaskRow, template: &str) {
        let call = task.node.and_then(|number| {
            let scope = self.data.scopes.get(task.scope.index())?;
            Some(&node_of(self.workflow(), scope.template, number)?.arguments["call"])
        });
        match call.and_then(|c| c.get("templateRef")) {
            Some(reference) => node["templateRef"] = reference.clone(),
            None if template.starts_with("$inline") => {}
            None => node["templateName"] = Json::from(template),
        }
    }
}

fn display_name(data: &RunData, task: &TaskRow, name: &str) -> String {
    if name == workflow_name(&data.run) {
        return name.to_owned();
    }
    let mut shown = task.name.clone();
    if let Some(index) = task.index {
        let item = item_of(data, task).map(|i| names::item_text(&i)).unwrap_or_default();
        shown = format!("{shown}({index}:{item})");
    }
    let outer = node_name(data, task);
    match name.strip_prefix(&outer) {
        // An attempt of the root is shown with the workflow's name.
        Some(attempt) if !attempt.is_empty() => {
            if outer == workflow_name(&data.run) {
                name.to_owned()
            } else {
                format!("{shown}{attempt}")
            }
        }
        _ => match task.hook.and(task.parent).and_then(|p| data.tasks.get(p.index())) {
            Some(owner) if owner.task.0 != 0 => {
                format!("{}.{shown}", display_name(data, owner, &node_name(data, owner)))
            }
            _ if task.hook.is_some() => format!("{}.{shown}", workflow_name(&data.run)),
            _ => shown,
        },
    }
}

/// Messages that are a retry node's rather than its last attempt's.
const RETRY_MESSAGES: &[&str] = &[
    "No more retries left",
    "retryStrategy.expression evaluated to false",
    "Max duration limit exceeded",
    "Backoff would exceed max duration limit",
];

fn message(data: &RunData, task: &TaskRow, kind: &str) -> Option<String> {
    let workflow = &data.workflow;
    let word = phase(workflow, task);
    let of_code = || {
        task.exit_code
            .filter(|code| *code != 0)
            .map(|code| format!("main: Error (exit code {code})"))
    };
    match word {
        "Omitted" => return Some("omitted: depends condition not met".to_owned()),
        "Succeeded" | "Running" | "Pending" => {
            return task.message.clone().filter(|_| word != "Succeeded");
        }
        _ => {}
    }
    if task.state == TaskState::Cancelled {
        return Some(match (task.cause, data.run.stop.as_deref()) {
            (Cause::FailFast, _) => {
                "template has failed or errored children and failFast enabled".to_owned()
            }
            (_, Some("terminate")) => "workflow shutdown with strategy:  Terminate".to_owned(),
            (_, Some(_)) => "workflow shutdown with strategy:  Stop".to_owned(),
            _ => task.message.clone().unwrap_or_else(|| "stopped".to_owned()),
        });
    }
    if task.cause == Cause::Timeout {
        return Some("Step exceeded its deadline".to_owned());
    }
    let role = template_spec(workflow, task.template)["role"].as_str().unwrap_or("");
    if matches!(role, "steps" | "group") && kind != "Retry" && word == "Failed" {
        let child = task.child.and_then(|scope| {
            data.tasks.iter().find(|t| {
                t.scope == scope
                    && !t.summary
                    && t.hook.is_none()
                    && matches!(phase(workflow, t), "Failed" | "Error")
            })
        });
        if let Some(child) = child {
            if role == "steps" {
                return message(data, child, "StepGroup");
            }
            let id = node_id(workflow_name(&data.run), &node_name(data, child));
            return Some(format!("child '{id}' failed"));
        }
    }
    let of_retry = task.message.as_deref().is_some_and(|m| RETRY_MESSAGES.contains(&m));
    if of_retry && kind != "Retry" {
        return of_code();
    }
    if matches!(role, "dag") && word == "Failed" {
        return None;
    }
    task.message.clone().or_else(of_code)
}

fn inputs(resolved: &Json) -> Option<Json> {
    let mut out = Map::new();
    if let Some(parameters) = resolved["parameters"].as_object().filter(|p| !p.is_empty()) {
        let list: Vec<Json> = parameters
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value }))
            .collect();
        out.insert("parameters".to_owned(), Json::Array(list));
    }
    if let Some(artifacts) = resolved["artifacts"].as_object().filter(|a| !a.is_empty()) {
        let list: Vec<Json> = artifacts
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| {
                let mut shown = value.clone();
                shown["name"] = Json::from(name.as_str());
                shown
            })
            .collect();
        out.insert("artifacts".to_owned(), Json::Array(list));
    }
    (!out.is_empty()).then_some(Json::Object(out))
}

fn outputs(task: &TaskRow, own: Option<&BTreeMap<String, Arc<Json>>>, kind: &str) -> Option<Json> {
    let mut out = Map::new();
    if let Some(own) = own {
        if let Some(parameters) = own.get("parameters").and_then(|p| p.as_object()) {
            let list: Vec<Json> = parameters
                .iter()
                .map(|(name, value)| json!({ "name": name, "value": value }))
                .collect();
            out.insert("parameters".to_owned(), Json::Array(list));
        }
        if let Some(artifacts) = own.get("artifacts").and_then(|a| a.as_object()) {
            out.insert("artifacts".to_owned(), artifacts.values().cloned().collect());
        }
        if let Some(result) = own.get("result") {
            out.insert("result".to_owned(), (**result).clone());
        }
    }
    if kind == "Pod" && task.state.is_finished() {
        let code = task.exit_code.or((task.state == TaskState::Succeeded).then_some(0));
        if let Some(code) = code {
            out.insert("exitCode".to_owned(), Json::from(code.to_string()));
        }
    }
    (!out.is_empty()).then_some(Json::Object(out))
}
