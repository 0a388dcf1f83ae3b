//! Workers and resources, as the run shows them.

use std::collections::HashMap;

use kobza_engine::{Overview, ResourceView, WorkerView};
use kobza_model::Timestamp;

use super::LuigiMachine;
use super::resources::{Num, Usage};
use super::state::{NodeNo, Status, Worker, WorkerNo};
use crate::pyjson::Value;

fn time(seconds: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    Timestamp((seconds * 1e6).round() as i64)
}

impl LuigiMachine {
    pub(super) fn look(&self) -> Overview {
        let running: Vec<NodeNo> = self.index.status_tasks(Status::Running).collect();
        let mut by_worker: HashMap<&str, Vec<String>> = HashMap::new();
        let mut used = Usage::default();
        for node in &running {
            let task = self.index.task(*node);
            used.add(task.held());
            if let Some(worker) = &task.worker_running {
                by_worker.entry(worker).or_default().push(task.id.to_string());
            }
        }
        let mut workers: Vec<WorkerView> = self
            .index
            .workers
            .iter()
            .map(|(no, worker)| {
                let own = by_worker.remove(&*worker.id).unwrap_or_default();
                self.worker_view(*no, worker, own)
            })
            .collect();
        workers.sort_by(|a, b| (b.started_at, &a.name).cmp(&(a.started_at, &b.name)));
        let resources = self.capacities.iter().map(|(name, total)| {
            let holds = |n: &&NodeNo| self.index.task(**n).held().iter().any(|(r, _)| r == name);
            ResourceView {
                name: name.clone(),
                total: total.number().unwrap_or(0.0),
                used: used.get(name).map_or(0.0, Num::f64),
                tasks: running.iter().filter(holds).count() as u64,
            }
        });
        Overview { workers, resources: resources.collect(), paused: self.paused }
    }

    fn worker_view(&self, no: WorkerNo, worker: &Worker, running: Vec<String>) -> WorkerView {
        let (mut pending, mut unique) = (0, 0);
        for group in &worker.groups {
            let group = self.index.groups.get(*group);
            pending += group.pending;
            unique += if group.workers == [no] { group.pending } else { 0 };
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let processes = worker.slots() as u32;
        WorkerView {
            name: worker.id.to_string(),
            host: worker.info.get("host").and_then(Value::as_str).map(str::to_owned),
            disabled: worker.disabled,
            assistant: worker.is_assistant(),
            started_at: time(worker.started),
            // Not heard of since a restart, that is.
            seen_at: time(worker.last_active.unwrap_or(worker.started)),
            processes,
            running,
            pending,
            unique,
        }
    }
}
