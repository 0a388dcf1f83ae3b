//! Open runs: their drivers add tasks, state what happened, and close them.

use kobza_model::{
    Cause, EventKind, Json, MachineRow, Outcome, RunId, TaskId, TaskNo, TaskState, Timestamp,
};

use crate::action::Reply;
use crate::command::{MachineCall, NewTask, Refusal};
use crate::engine::{Cx, Engine, TimerKey};
use crate::machine::{MachineOutput, MachineRequest};
use crate::memory::{NEVER, NONE, Run, Task, flag};
use crate::transition::Move;

/// Rows that an open run keeps of tasks that its machine has forgotten.
const FORGOTTEN_ROWS: usize = 10_000;

impl Engine {
    pub(crate) fn add_tasks(&mut self, id: RunId, tasks: Vec<NewTask>) -> Result<Reply, Refusal> {
        let (cx, run) = self.open_run(id)?;
        for task in tasks {
            cx.add_task(run, task);
        }
        cx.list(run);
        Ok(Reply::Done)
    }

    pub(crate) fn observe(
        &mut self,
        id: RunId,
        name: &str,
        state: TaskState,
        cause: Cause,
        message: Option<String>,
        at: Timestamp,
    ) -> Result<Reply, Refusal> {
        let (cx, run) = self.open_run(id)?;
        if !run.names.contains_key(name) {
            return Err(Refusal::Invalid(format!("run {id} has no task {name:?}")));
        }
        cx.observed(run, name, state, cause, message, at);
        cx.list(run);
        Ok(Reply::Done)
    }

    pub(crate) fn close_run(&mut self, id: RunId, outcome: Outcome) -> Result<Reply, Refusal> {
        let (cx, run) = self.open_run(id)?;
        cx.close(run, outcome);
        cx.list(run);
        Ok(Reply::Done)
    }

    pub(crate) fn machine_call(&mut self, id: RunId, call: &MachineCall) -> Result<Reply, Refusal> {
        let now = self.cx.now;
        let (cx, run) = self.open_run(id)?;
        let Some(machine) = run.machine.as_mut() else {
            return Err(Refusal::Invalid(format!(
                "run {id} has no machine for dialect {:?}",
                run.row.dialect
            )));
        };
        let mut out = MachineOutput::default();
        let request = MachineRequest { now, method: &call.method, arguments: &call.arguments };
        let reply = machine.call(request, &mut out).map_err(Refusal::Invalid)?;
        cx.apply_machine(run, out);
        cx.list(run);
        Ok(Reply::Machine(reply))
    }

    pub(crate) fn machine_due(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.machine_due = None;
        }
        let call = MachineCall { method: "$tick".to_owned(), arguments: Json::Null };
        // A machine that refuses its own tick has nothing to do: there is nobody to tell.
        let _refused = self.machine_call(id, &call);
    }

    fn open_run(&mut self, id: RunId) -> Result<(&mut Cx, &mut Run), Refusal> {
        let run = self.runs.get_mut(&id).ok_or(Refusal::NoRun(id))?;
        if !run.plan.workflow.open || run.row.state.is_finished() || run.scopes.is_empty() {
            return Err(Refusal::NotOpen(id));
        }
        Ok((&mut self.cx, run))
    }
}

impl Cx {
    fn apply_machine(&mut self, run: &mut Run, out: MachineOutput) {
        let id = run.row.run;
        self.batch.machine.extend(out.rows.into_iter().map(|(key, value)| MachineRow {
            run: id,
            key,
            value,
        }));
        for task in out.tasks {
            self.add_task(run, task);
        }
        let at = self.now.wall;
        for (name, state, cause, message) in out.observed {
            self.observed(run, &name, state, cause, message, at);
        }
        for published in out.published {
            let task = run.names.get(&published.task).copied();
            let (asset, partition) = (published.asset, published.partition);
            let kind = EventKind::Materialized { asset, partition, metadata: published.metadata };
            self.event(id, task, kind);
        }
        for (word, detail) in out.notes {
            self.note(run, None, word, detail);
        }
        for name in out.forgotten {
            self.forget(run, &name);
        }
        self.arm_machine(run);
        if let Some(outcome) = out.close {
            self.close(run, outcome);
        }
    }

    /// A task leaves the memory; its row stays until there are many newer ones of its kind.
    fn forget(&mut self, run: &mut Run, name: &str) {
        let Some(&no) = run.names.get(name) else { return };
        if !run.task(no).state.is_finished() {
            return;
        }
        run.names.remove(name);
        if run.task(no).has(flag::DIRTY) {
            self.batch.tasks.push(run.task_row(no));
        }
        run.forget(no);
        while run.forgotten.len() > FORGOTTEN_ROWS
            && let Some((oldest, state)) = run.forgotten.pop_front()
        {
            if oldest as usize + 1 == run.tasks.len() {
                // The last row says which numbers were used.
                run.forgotten.push_back((oldest, state));
                continue;
            }
            let id = TaskId { run: run.row.run, task: TaskNo(oldest) };
            self.batch.removed_tasks.push(id);
            run.count(state, -1);
        }
    }

    /// Sets the timer that a machine asks for.
    pub(crate) fn arm_machine(&mut self, run: &mut Run) {
        let due = run.machine.as_ref().and_then(|m| m.next_tick());
        if due == run.machine_due {
            return;
        }
        let key = TimerKey::Machine(run.row.run);
        if let Some(old) = run.machine_due {
            self.timers.remove(&(old, key));
        }
        if let Some(due) = due {
            self.timers.insert((due, key));
        }
        run.machine_due = due;
    }

    pub(crate) fn add_task(&mut self, run: &mut Run, new: NewTask) {
        let upstream = Json::from(new.upstream);
        let mut extra = match new.extra {
            Json::Object(map) => map,
            Json::Null => serde_json::Map::new(),
            other => serde_json::Map::from_iter([("value".to_owned(), other)]),
        };
        extra.insert("upstream".to_owned(), upstream);
        if let Some(&no) = run.names.get(&new.name) {
            let task = run.task_mut(no);
            task.priority = new.priority;
            task.more().inputs = new.inputs;
            task.more().extra = Json::Object(extra);
            run.touch(no);
            return;
        }
        let no = run.tasks.len() as u32;
        let mut task = Task::new(0, NONE, run.plan.workflow.entry.0, self.now.wall);
        task.parent = 0;
        task.priority = new.priority;
        task.state = new.state;
        let more = task.more();
        more.name = Some(new.name.clone());
        more.inputs = new.inputs;
        more.extra = Json::Object(extra);
        run.tasks.push(task);
        run.names.insert(new.name, no);
        run.count(new.state, 1);
        run.touch(no);
    }

    fn observed(
        &mut self,
        run: &mut Run,
        name: &str,
        state: TaskState,
        cause: Cause,
        message: Option<String>,
        at: Timestamp,
    ) {
        let Some(&no) = run.names.get(name) else { return };
        let task = run.task_mut(no);
        if task.state == state && task.cause == cause && message.is_none() {
            return;
        }
        // How it failed is known until it has ended otherwise, also while it is tried again.
        let old = task.more.as_ref().is_some_and(|m| m.message.is_some());
        if message.is_some() || (old && state.is_finished()) {
            task.more().message = message;
        }
        match state {
            TaskState::Running => {
                task.attempt += 1;
                task.started_at = at.0;
                task.ended_at = NEVER;
                task.unset(flag::SETTLED);
            }
            s if s.is_finished() => {
                task.ended_at = at.0;
                task.set(flag::SETTLED);
            }
            _ => {
                task.ended_at = NEVER;
                task.unset(flag::SETTLED);
            }
        }
        self.transit(run, no, Move::Observe, state, cause);
    }

    fn close(&mut self, run: &mut Run, outcome: Outcome) {
        if run.verdict.is_none() {
            run.verdict = Some((outcome, Cause::Observed));
        }
        for no in 1..run.tasks.len() as u32 {
            if run.tasks.get(no).is_some_and(|task| !task.state.is_finished()) {
                self.transit(run, no, Move::Observe, TaskState::Cancelled, Cause::RunCancelled);
                run.task_mut(no).ended_at = self.now.wall.0;
                run.task_mut(no).set(flag::SETTLED);
            }
        }
        self.end_run(run);
    }

    pub(crate) fn stop_open(&mut self, run: &mut Run) {
        self.close(run, Outcome::Cancelled);
    }

    /// A task of an open run does not end the run: its driver does.
    pub(crate) fn open_task_ended(&mut self, run: &mut Run) {
        run.dirty = true;
    }
}
