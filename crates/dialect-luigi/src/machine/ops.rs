//! The small methods: messages, progress, resources, what people do by hand.

use super::args::Args;
use super::state::{Batcher, NodeNo, Status};
use super::{LuigiMachine, Refused, object};
use crate::pyjson::{Object, Value};

/// Batchers kept for workers that have gone; the oldest names go first.
const MAX_BATCHERS: usize = 10_000;
/// Undelivered messages to one worker.
const MAX_MESSAGES: usize = 1_000;

impl LuigiMachine {
    /// Adds to what is known of a worker.
    pub(super) fn inform(&mut self, worker: u32, info: impl IntoIterator<Item = (String, Value)>) {
        let known = &mut self.worker_mut(worker).info;
        let mut changed = false;
        for (key, value) in info {
            changed |= known.get(&key).is_none_or(|old| *old != value);
            known.insert(key, value);
        }
        if changed {
            self.dirty.workers.insert(worker);
        }
    }

    pub(super) fn ping(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        let worker = self.seen(&args.worker()?, false, now);
        let messages = std::mem::take(&mut self.worker_mut(worker).messages);
        if !messages.is_empty() {
            self.dirty.workers.insert(worker);
        }
        Ok(object([("rpc_messages", Value::List(messages))]))
    }

    pub(super) fn add_worker(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        let worker = self.worker(args.worker()?, now);
        self.inform(worker, args.object("info"));
        Ok(Value::Null)
    }

    pub(super) fn add_task_batcher(&mut self, args: &Args) -> Result<Value, Refused> {
        let key = (args.worker()?.into(), args.id("task_family")?.into());
        let max = args.get("max_batch_size").number().unwrap_or(f64::INFINITY);
        let batcher = Batcher { args: args.ids("batched_args").unwrap_or_default(), max };
        if self.batchers.get(&key) != Some(&batcher) {
            if self.batchers.len() >= MAX_BATCHERS {
                let names = &self.index.worker_names;
                let gone = self.batchers.keys().find(|(w, _)| !names.contains_key(w)).cloned();
                if let Some(gone) = gone {
                    self.batchers.remove(&gone);
                    self.dirty.batchers.insert(gone);
                }
            }
            self.dirty.batchers.insert(key.clone());
            self.batchers.insert(key, batcher);
        }
        Ok(Value::Null)
    }

    fn known(&self, args: &Args, key: &'static str) -> Option<NodeNo> {
        self.index.find(&args.id(key).ok()?)
    }

    /// A task and, if it is the head of a running batch, the batch's members.
    fn with_members(&self, node: NodeNo) -> Vec<NodeNo> {
        let task = self.index.task(node);
        let mut nodes = vec![node];
        if task.status == Status::Running
            && let Some(batch) = &task.batch_id
        {
            nodes.extend(self.index.batch_members(batch));
        }
        nodes
    }

    pub(super) fn set_status_message(&mut self, args: &Args) -> Result<Value, Refused> {
        let message = args.get("status_message");
        if let Some(node) = self.known(args, "task_id") {
            for node in self.with_members(node) {
                self.index.task_mut(node).status_message = message.clone();
                self.dirty.states.insert(node);
            }
        }
        Ok(Value::Null)
    }

    pub(super) fn get_status_message(&mut self, args: &Args) -> Result<Value, Refused> {
        let node = self.known(args, "task_id");
        let message = node.map_or(Value::from(""), |n| self.index.task(n).status_message.clone());
        Ok(object([("taskId", args.get("task_id").clone()), ("statusMessage", message)]))
    }

    pub(super) fn set_progress(&mut self, args: &Args) -> Result<Value, Refused> {
        let progress = args.get("progress_percentage");
        if let Some(node) = self.known(args, "task_id") {
            for node in self.with_members(node) {
                self.index.task_mut(node).progress = progress.clone();
                self.dirty.states.insert(node);
            }
        }
        Ok(Value::Null)
    }

    pub(super) fn get_progress(&mut self, args: &Args) -> Result<Value, Refused> {
        let node = self.known(args, "task_id");
        let progress = node.map_or(Value::Null, |n| self.index.task(n).progress.clone());
        Ok(object([("taskId", args.get("task_id").clone()), ("progressPercentage", progress)]))
    }

    pub(super) fn decrease_resources(&mut self, args: &Args) -> Result<Value, Refused> {
        let by = args.object("decrease_resources");
        let Some(node) = self.known(args, "task_id") else { return Ok(Value::Null) };
        if self.index.task(node).status != Status::Running {
            return Ok(Value::Null);
        }
        for node in self.with_members(node) {
            let task = self.index.task_mut(node);
            let less = task.held().decreased(&by);
            task.resources_running = Some(less.clone());
            if task.shared_resources && task.resources != less {
                task.resources = less;
                self.dirty.definitions.insert(node);
            }
            self.touch(node);
        }
        Ok(Value::Null)
    }

    pub(super) fn running_resources(&mut self, args: &Args) -> Result<Value, Refused> {
        let node = self.known(args, "task_id");
        let held = node.and_then(|n| self.index.task(n).resources_running.as_ref());
        let held = held.map_or(Value::Null, super::resources::ResourceSet::to_value);
        Ok(object([("taskId", args.get("task_id").clone()), ("resources", held)]))
    }

    pub(super) fn add_message_response(&mut self, args: &Args) -> Result<Value, Refused> {
        let message = args.id("message_id")?;
        if let Some(node) = self.known(args, "task_id") {
            let responses = &mut self.index.task_mut(node).responses;
            responses.insert(message, args.get("response").clone());
            if responses.len() > MAX_MESSAGES {
                responses.shift_remove_index(0);
            }
            self.dirty.states.insert(node);
        }
        Ok(Value::Null)
    }

    pub(super) fn get_message_response(&mut self, args: &Args) -> Result<Value, Refused> {
        let message = args.id("message_id")?;
        let mut response = Value::Null;
        if let Some(node) = self.known(args, "task_id")
            && let Some(found) = self.index.task_mut(node).responses.shift_remove(&message)
        {
            response = found;
            self.dirty.states.insert(node);
        }
        Ok(object([("response", response)]))
    }

    fn queue_message(&mut self, worker: u32, name: &str, kwargs: Value) -> Result<(), Refused> {
        let messages = &mut self.worker_mut(worker).messages;
        if messages.len() >= MAX_MESSAGES {
            return Err(Refused::Bad(format!("{MAX_MESSAGES} messages wait for this worker")));
        }
        messages.push(object([("name", Value::from(name)), ("kwargs", kwargs)]));
        self.dirty.workers.insert(worker);
        Ok(())
    }

    pub(super) fn send_message(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        if !self.config.send_messages {
            return Ok(object([("message_id", Value::Null)]));
        }
        let worker = self.worker(args.worker()?, now);
        // Unique within the run is all that a message id must be; it looks like the UUID that
        // clients expect.
        let serial = self.next_message;
        self.next_message += 1;
        let run = self.run.0.as_u128() ^ (u128::from(serial) << 16);
        let id = uuid::Builder::from_random_bytes(run.to_be_bytes()).into_uuid().to_string();
        let kwargs = object([
            ("task_id", args.get("task").clone()),
            ("message_id", Value::from(id.as_str())),
            ("content", args.get("content").clone()),
        ]);
        self.queue_message(worker, "dispatch_scheduler_message", kwargs)?;
        self.dirty.globals = true;
        Ok(object([("message_id", Value::Str(id))]))
    }

    pub(super) fn set_worker_processes(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        let worker = self.worker(args.worker()?, now);
        let kwargs = object([("n", args.get("n").clone())]);
        self.queue_message(worker, "set_worker_processes", kwargs)?;
        Ok(Value::Null)
    }

    pub(super) fn disable_worker(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        let worker = self.worker(args.worker()?, now);
        self.index.detach_worker(worker, false);
        self.worker_mut(worker).disabled = true;
        self.dirty.workers.insert(worker);
        Ok(Value::Null)
    }

    pub(super) fn forgive_failures(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        self.by_hand(args, &[Status::Failed], Status::Pending, now)
    }

    pub(super) fn mark_as_done(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        let from = [Status::Running, Status::Failed, Status::Disabled];
        self.by_hand(args, &from, Status::Done, now)
    }

    fn by_hand(
        &mut self,
        args: &Args,
        from: &[Status],
        to: Status,
        now: f64,
    ) -> Result<Value, Refused> {
        let id = args.get("task_id").clone();
        let Some(node) = self.known(args, "task_id") else {
            return Ok(object([("task_id", id), ("status", Value::Null)]));
        };
        if from.contains(&self.index.task(node).status) {
            self.record(node, to, None, now);
            self.set_status(node, to, now);
        }
        let status = Value::from(self.index.task(node).status.word());
        Ok(object([("task_id", id), ("status", status)]))
    }

    pub(super) fn re_enable_task(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        let Some(node) = self.known(args, "task_id") else {
            return Ok(Value::Object(Object::new()));
        };
        let task = self.index.task(node);
        if task.status != Status::Disabled || task.disabled_at.is_none_or(|at| at == 0.0) {
            return Ok(Value::Object(Object::new()));
        }
        self.re_enable(node, true, now);
        let mut text = String::new();
        self.write_task(node, true, true, None, &mut text);
        Value::parse(&text).map_err(|e| Refused::Bad(e.to_string()))
    }

    /// Makes a failed or disabled task pending again, its failures forgotten.
    fn retry_task(&mut self, node: NodeNo, now: f64) -> bool {
        let status = self.index.task(node).status;
        if !matches!(status, Status::Failed | Status::Disabled) {
            return false;
        }
        self.re_enable(node, status == Status::Disabled, now);
        self.record(node, Status::Pending, None, now);
        self.set_status(node, Status::Pending, now);
        true
    }

    pub(super) fn retry(&mut self, args: &Args, now: f64) -> Result<Value, Refused> {
        args.id("task_id")?;
        let id = args.get("task_id").clone();
        let Some(node) = self.known(args, "task_id") else {
            return Ok(object([("task_id", id), ("status", Value::Null)]));
        };
        self.retry_task(node, now);
        let status = Value::from(self.index.task(node).status.word());
        Ok(object([("task_id", id), ("status", status)]))
    }

    /// Retries all failed and disabled tasks, or those of one family.
    pub(super) fn retry_all(&mut self, args: &Args, now: f64) -> Value {
        let family = args.text("family");
        let nodes: Vec<NodeNo> = [Status::Failed, Status::Disabled]
            .into_iter()
            .flat_map(|s| self.index.status_tasks(s))
            .filter(|n| family.is_none_or(|f| &*self.index.task(*n).family == f))
            .collect();
        let mut retried = Vec::new();
        for node in nodes {
            if self.retry_task(node, now) {
                retried.push(Value::from(&*self.index.task(node).id));
            }
        }
        object([("task_ids", Value::List(retried))])
    }

    pub(super) fn set_paused(&mut self, paused: bool) -> Value {
        if self.config.pause_enabled && self.paused != paused {
            self.paused = paused;
            self.dirty.globals = true;
        }
        Value::Null
    }

    pub(super) fn update_resources(&mut self, args: &Args) -> Value {
        for (name, amount) in args.all() {
            self.capacities.insert(name.clone(), amount.clone());
        }
        self.dirty.globals = true;
        Value::Null
    }

    pub(super) fn update_resource(&mut self, args: &Args) -> Result<Value, Refused> {
        let name = args.id("resource")?;
        let amount = args.get("amount");
        let valid = match amount {
            Value::Int(n) => *n >= 0,
            Value::Bool(_) => true,
            Value::Big(digits) => !digits.starts_with('-'),
            _ => false,
        };
        if valid {
            self.capacities.insert(name, amount.clone());
            self.dirty.globals = true;
        }
        Ok(Value::Bool(valid))
    }

    pub(super) fn fetch_error(&mut self, args: &Args) -> Result<Value, Refused> {
        let id = args.get("task_id").clone();
        let Some(node) = self.known(args, "task_id") else {
            return Ok(object([("taskId", id), ("error", Value::from(""))]));
        };
        let task = self.index.task(node);
        Ok(object([
            ("taskId", id),
            ("error", task.expl.clone()),
            ("displayName", Value::Str(task.display_name())),
            ("taskParams", Value::Object((*task.params).clone())),
            ("taskModule", task.module.clone()),
            ("taskFamily", Value::from(&*task.family)),
        ]))
    }
}
