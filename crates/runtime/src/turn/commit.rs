//! Committing: one transaction for all that a turn changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use kobza_model::{Cause, Now, TaskId};
use kobza_store::{Commit, Write};

use super::{Owed, RuntimeError, Turner};
use crate::checks::checked;
use crate::handle::Committed;

impl Turner {
    /// Commits the turn, then answers callers and acts.
    pub(super) fn commit(&mut self, owed: Owed, now: Now) -> Result<(), RuntimeError> {
        let started = Instant::now();
        let mut engine = self.engine.take_batch();
        let checks = checked(
            &engine,
            |run| self.engine.workflow(run).cloned(),
            |run, scope| self.engine.scope_row(run, scope).map(|row| row.template),
        );
        engine.events.extend(checks);
        self.seen_outputs = 0;
        let mut commit =
            Commit { engine, writes: owed.writes, engine_time: now.engine, at: now.wall };
        commit.writes.extend(self.cache_writes(&commit));
        let empty = commit.engine.is_empty() && commit.writes.is_empty();
        if !empty {
            let first = self.fence.next_event;
            match self.store.commit(self.fence, &commit) {
                Ok(fence) => {
                    self.fence = fence;
                    self.alive_at = started;
                }
                Err(error) => {
                    self.unconfirmed = owed.reports;
                    return self.failed(error, owed.replies);
                }
            }
            self.metrics.healthy.store(true, Ordering::Relaxed);
            self.metrics.batches.inc();
            self.metrics.phase("commit", started.elapsed());
            for id in &commit.engine.dropped_outputs {
                let rewritten =
                    commit.engine.outputs.iter().any(|o| o.task == id.task && o.run == id.run);
                if !rewritten {
                    self.outputs.get_mut().drop_task(*id);
                }
            }
            self.outputs.get_mut().trim();
            let events = commit.engine.events;
            if !events.is_empty() {
                self.metrics.events.inc_by(events.len() as u64);
                self.next_event.send_replace(self.fence.next_event);
                // Nobody follows: nobody misses it.
                let _unheard = self.events.send(Committed { first, events: Arc::new(events) });
            }
        }
        let acting = Instant::now();
        for (reply, result) in owed.replies {
            reply(result);
        }
        for (_, durable) in owed.reports {
            durable();
        }
        self.act(now);
        self.metrics.live_runs.set(i64::try_from(self.engine.run_count()).unwrap_or(i64::MAX));
        self.metrics.phase("act", acting.elapsed());
        Ok(())
    }

    /// Results to be remembered by key: of tasks that ended well and whose guard named one.
    fn cache_writes(&self, commit: &Commit) -> Vec<Write> {
        let mut writes = Vec::new();
        for task in &commit.engine.tasks {
            if task.state != kobza_model::TaskState::Succeeded || task.cause == Cause::Cache {
                continue;
            }
            let Some(key) = task.inputs.get("$cache_key").and_then(|k| k.as_str()) else {
                continue;
            };
            let Some(run) = self.engine.run_row(task.run) else { continue };
            let facts =
                commit.engine.outputs.iter().filter(|o| o.run == task.run && o.task == task.task);
            let outputs: serde_json::Map<String, kobza_model::Json> =
                facts.map(|o| (o.key.clone(), o.value.clone())).collect();
            writes.push(Write::PutObject {
                kind: "cache",
                namespace: run.namespace.clone(),
                key: key.to_owned(),
                value: Some(serde_json::json!({"at": commit.at, "outputs": outputs, "task": TaskId { run: task.run, task: task.task }.to_string()})),
            });
        }
        writes
    }
}
