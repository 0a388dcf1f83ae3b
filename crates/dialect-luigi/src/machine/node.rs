//! A task as the visualiser gets it.

use super::LuigiMachine;
use super::state::{NodeNo, Status};
use crate::pyjson::{Value, write_float, write_object, write_string};

fn key(out: &mut String, name: &str) {
    if !out.ends_with('{') {
        out.push_str(", ");
    }
    write_string(out, name);
    out.push_str(": ");
}

fn text(out: &mut String, name: &str, value: &str) {
    key(out, name);
    write_string(out, value);
}

fn value(out: &mut String, name: &str, value: &Value) {
    key(out, name);
    value.write(out);
}

/// Appends a list of texts.
pub(super) fn write_list<'a>(out: &mut String, items: impl IntoIterator<Item = &'a str>) {
    out.push('[');
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_string(out, item);
    }
    out.push(']');
}

impl LuigiMachine {
    /// Appends a task's object. `deps` replaces its own dependencies.
    pub(super) fn write_task(
        &self,
        node: NodeNo,
        display_name: bool,
        include_deps: bool,
        deps: Option<&[std::sync::Arc<str>]>,
        out: &mut String,
    ) {
        let task = self.index.task(node);
        out.push('{');
        if display_name {
            text(out, "display_name", &task.display_name());
        }
        text(out, "status", task.status.word());
        key(out, "workers");
        let workers = &self.index.groups.get(task.workers).workers;
        write_list(out, workers.iter().filter_map(|w| Some(&*self.index.workers.get(w)?.id)));
        key(out, "worker_running");
        match &task.worker_running {
            Some(worker) => write_string(out, worker),
            None => out.push_str("null"),
        }
        key(out, "time_running");
        match task.time_running {
            Some(time) => write_float(out, time),
            None => out.push_str("null"),
        }
        key(out, "start_time");
        write_float(out, task.time);
        key(out, "last_updated");
        write_float(out, task.updated);
        key(out, "params");
        write_object(out, &task.public);
        text(out, "name", &task.family);
        value(out, "priority", &task.priority.to_value());
        key(out, "resources");
        task.resources.write(out);
        key(out, "resources_running");
        match &task.resources_running {
            Some(held) => held.write(out),
            None => out.push_str("null"),
        }
        value(out, "tracking_url", &task.tracking_url);
        value(out, "status_message", &task.status_message);
        value(out, "progress_percentage", &task.progress);
        if task.status == Status::Disabled {
            value(out, "re_enable_able", &Value::Bool(task.disabled_at.is_some()));
        }
        if include_deps {
            key(out, "deps");
            match deps {
                Some(deps) => write_list(out, deps.iter().map(|d| &**d)),
                None => {
                    let nodes = &self.index.nodes;
                    write_list(out, task.deps.iter().map(|d| &*nodes[*d as usize].id));
                }
            }
        }
        if self.config.send_messages && task.status == Status::Running {
            value(out, "accepts_messages", &task.accepts_messages);
        }
        out.push('}');
    }

    /// Appends what stands for a task that is only known by its id.
    pub(super) fn write_missing(id: &str, display_name: bool, out: &mut String) {
        // The family is what comes before the first parenthesis or underscore.
        let family = match id.find(['(', '_']) {
            Some(end) if end > 0 => &id[..end],
            _ => "UNKNOWN",
        };
        out.push('{');
        out.push_str(r#""deps": [], "status": "UNKNOWN", "workers": [], "start_time": "UNKNOWN""#);
        key(out, "params");
        out.push('{');
        text(out, "task_id", id);
        out.push('}');
        text(out, "name", family);
        if display_name {
            text(out, "display_name", id);
        }
        value(out, "priority", &Value::Int(0));
        out.push('}');
    }

    pub(super) fn worker_list(&mut self, args: &super::args::Args, now: f64) -> String {
        self.prune(now);
        let index = &self.index;
        let mut workers: Vec<_> = index.workers.iter().collect();
        workers.sort_by(|a, b| b.1.started.total_cmp(&a.1.started));
        let running: Vec<NodeNo> = index.status_tasks(Status::Running).collect();
        let mut out = String::from("[");
        for (i, (no, worker)) in workers.into_iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            out.push('{');
            text(&mut out, "name", &worker.id);
            key(&mut out, "last_active");
            write_float(&mut out, worker.last_active.unwrap_or(now));
            key(&mut out, "started");
            write_float(&mut out, worker.started);
            text(&mut out, "state", worker.state());
            let first = worker.info.get("first_task").and_then(Value::as_str).unwrap_or("");
            let first = match index.find(first) {
                Some(node) => index.task(node).display_name(),
                None => first.to_owned(),
            };
            text(&mut out, "first_task_display_name", &first);
            let unread = i64::try_from(worker.messages.len()).unwrap_or(i64::MAX);
            value(&mut out, "num_unread_rpc_messages", &Value::Int(unread));
            for (name, info) in &worker.info {
                value(&mut out, name, info);
            }
            if args.flag_or_true("include_running") {
                let own: Vec<NodeNo> = running
                    .iter()
                    .copied()
                    .filter(|n| index.task(*n).worker_running.as_ref() == Some(&worker.id))
                    .collect();
                let (mut pending, mut unique) = (0, 0);
                for group in &worker.groups {
                    let group = index.groups.get(*group);
                    pending += group.pending;
                    unique += if group.workers == [*no] { group.pending } else { 0 };
                }
                let mut number = |name: &str, n: u64| {
                    value(&mut out, name, &Value::Int(i64::try_from(n).unwrap_or(i64::MAX)));
                };
                number("num_running", own.len() as u64);
                number("num_pending", pending);
                number("num_uniques", unique);
                key(&mut out, "running");
                self.write_tasks(&own, &mut out);
            }
            out.push('}');
        }
        out.push(']');
        out
    }

    pub(super) fn resource_list(&mut self, now: f64) -> String {
        self.prune(now);
        let running: Vec<NodeNo> = self.index.status_tasks(Status::Running).collect();
        let mut used = super::resources::Usage::default();
        for node in &running {
            used.add(self.index.task(*node).held());
        }
        let mut out = String::from("[");
        for (i, (name, total)) in self.capacities.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            out.push('{');
            text(&mut out, "name", name);
            value(&mut out, "num_total", total);
            let sum = used.get(name).map_or(Value::Int(0), super::resources::Num::to_value);
            value(&mut out, "num_used", &sum);
            let needs = |n: &NodeNo| self.index.task(*n).resources.iter().any(|(r, _)| r == name);
            let consumers: Vec<NodeNo> = running.iter().copied().filter(needs).collect();
            let count = i64::try_from(consumers.len()).unwrap_or(i64::MAX);
            value(&mut out, "num_consumer", &Value::Int(count));
            key(&mut out, "running");
            self.write_tasks(&consumers, &mut out);
            out.push('}');
        }
        out.push(']');
        out
    }

    fn write_tasks(&self, nodes: &[NodeNo], out: &mut String) {
        out.push('{');
        for (i, node) in nodes.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            write_string(out, &self.index.task(*node).id);
            out.push_str(": ");
            self.write_task(*node, true, false, None, out);
        }
        out.push('}');
    }
}
