//! Tasks that wait: for triggers, which the stock trigger runner runs, and for people.
//!
//! What waits is known from the tasks' rows alone, so a restart of the server, or of a runner, only
//! means that all triggers are made anew, as in Airflow. It is followed by the event log.

mod runner;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kobza_engine::{Command, Report, ReportBody};
use kobza_model::{
    EventKind, Json, LaunchId, Outcome, RunState, TaskId, TaskRow, TaskState, Timestamp,
};
use kobza_runtime::{Committed, Submission, wall_now};
use kobza_store::{RunFilter, TaskFilter};
use serde_json::{Map, json};
use tokio::sync::broadcast;

use crate::desk::{Asker, Desk};
use crate::task::{Carry, Refused, Waiting};
use crate::{Origin, Place, environment, ids};
use runner::Runner;

/// Between the death of a runner and its successor, which doubles.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A runner that has lived so long did not die of its start.
const GOOD_LIFE: Duration = Duration::from_secs(60);

pub(crate) enum Input {
    /// A task has come to another state, or may have.
    Task(TaskId),
    /// Events were missed: look at everything.
    Look,
    Frame {
        runner: u64,
        frame: Json,
    },
    Gone {
        runner: u64,
    },
    Stop,
}

/// Follows tasks that wait. Dropping it ends its processes.
#[derive(Debug)]
pub struct Triggerer {
    inputs: Sender<Input>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Triggerer {
    /// `packages` is the folder with `kobza_airflow`.
    pub fn start(desk: Arc<Desk>, packages: PathBuf) -> std::io::Result<Self> {
        let (inputs, inbox) = channel();
        let known = Arc::new(Mutex::new(HashSet::new()));
        let mut events = desk.handle.follow();
        let (to, watched) = (inputs.clone(), known.clone());
        std::thread::Builder::new().name("kobza-waits-events".to_owned()).spawn(move || {
            while let Some(found) = next_inputs(&mut events, &watched) {
                for input in found {
                    if to.send(input).is_err() {
                        return;
                    }
                }
            }
        })?;
        let mut waits = Waits {
            desk,
            packages,
            inputs: inputs.clone(),
            known,
            tasks: BTreeMap::new(),
            triggers: HashMap::new(),
            deadlines: BTreeSet::new(),
            pools: BTreeMap::new(),
            next: 1,
        };
        let thread = std::thread::Builder::new()
            .name("kobza-waits".to_owned())
            .spawn(move || waits.run(&inbox))?;
        Ok(Self { inputs, thread: Some(thread) })
    }
}

impl Drop for Triggerer {
    fn drop(&mut self) {
        // The thread has ended if nobody listens.
        let _ended = self.inputs.send(Input::Stop);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Of the next events those that concern tasks that wait, or did; `None` once the loop is gone.
fn next_inputs(
    events: &mut broadcast::Receiver<Committed>,
    known: &Mutex<HashSet<TaskId>>,
) -> Option<Vec<Input>> {
    match events.blocking_recv() {
        Ok(committed) => {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let mut found = Vec::new();
            for event in committed.events.iter() {
                let (Some(run), Some(task)) = (event.run, event.task) else { continue };
                let id = TaskId { run, task };
                let waits = match &event.kind {
                    EventKind::Task { state, .. } => {
                        matches!(state, TaskState::Deferred | TaskState::Suspended)
                    }
                    EventKind::Marked { .. } => false,
                    _ => continue,
                };
                if waits || known.contains(&id) {
                    found.push(Input::Task(id));
                }
            }
            Some(found)
        }
        Err(broadcast::error::RecvError::Lagged(_)) => Some(vec![Input::Look]),
        Err(broadcast::error::RecvError::Closed) => None,
    }
}

/// A task that waits.
struct Wait {
    launch: u32,
    /// The trigger's number and interpreter.
    trigger: Option<(u64, String)>,
    deadline: Option<Timestamp>,
}

/// The triggers of one interpreter.
struct Pool {
    place: Place,
    runner: Option<(u64, Runner)>,
    started: Instant,
    pause: Duration,
    /// When to start the next one.
    again: Option<Instant>,
    /// All that it should run, by number.
    wanted: BTreeMap<u64, Json>,
    create: Vec<u64>,
    cancel: Vec<u64>,
}

struct Waits {
    desk: Arc<Desk>,
    packages: PathBuf,
    inputs: Sender<Input>,
    known: Arc<Mutex<HashSet<TaskId>>>,
    tasks: BTreeMap<TaskId, Wait>,
    triggers: HashMap<u64, TaskId>,
    deadlines: BTreeSet<(Timestamp, TaskId)>,
    pools: BTreeMap<String, Pool>,
    next: u64,
}

impl Waits {
    fn run(&mut self, inbox: &Receiver<Input>) {
        self.look_at_all();
        loop {
            let input = match self.patience() {
                Some(left) => inbox.recv_timeout(left),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match input {
                Ok(Input::Task(task)) => self.look(task),
                Ok(Input::Look) => self.look_at_all(),
                Ok(Input::Frame { runner, frame }) => self.heard(runner, frame),
                Ok(Input::Gone { runner }) => self.gone(runner),
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.fire();
        }
    }

    fn patience(&self) -> Option<Duration> {
        let people = self.deadlines.first().map(|(at, _)| {
            let micros = at.0.saturating_sub(wall_now().0);
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        });
        let runners = self.pools.values().filter_map(|pool| pool.again);
        let runner = runners.min().map(|at| at.saturating_duration_since(Instant::now()));
        people.into_iter().chain(runner).min()
    }

    /// Reads all tasks that wait.
    fn look_at_all(&mut self) {
        let mut ids: BTreeSet<TaskId> = self.tasks.keys().copied().collect();
        match self.waiting() {
            Ok(waiting) => ids.extend(waiting),
            Err(error) => tracing::error!(error = %error.detail, "waiting tasks cannot be read"),
        }
        for id in ids {
            self.look(id);
        }
    }

    fn waiting(&self) -> Result<Vec<TaskId>, Refused> {
        let views = &self.desk.views;
        let filter = RunFilter {
            states: vec![RunState::Running, RunState::Paused, RunState::Cancelling],
            ..RunFilter::default()
        };
        let tasks = TaskFilter {
            states: vec![TaskState::Deferred, TaskState::Suspended],
            ..TaskFilter::default()
        };
        let (mut found, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = views.list_runs(&filter, cursor.as_deref(), 1000)?;
            for run in page.items.into_iter().filter(|run| run.dialect == "airflow") {
                let mut place = None::<String>;
                loop {
                    let page = views.list_tasks(run.run, &tasks, place.as_deref(), 1000)?;
                    found.extend(
                        page.items.iter().map(|row| TaskId { run: row.run, task: row.task }),
                    );
                    match page.next {
                        Some(next) => place = Some(next),
                        None => break,
                    }
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(found),
            }
        }
    }

    /// Looks at one task: it may have begun to wait, or waits no more.
    fn look(&mut self, id: TaskId) {
        let row = match self.desk.views.get_task(id) {
            Ok(row) => row,
            Err(error) => return tracing::error!(%id, %error, "a waiting task cannot be read"),
        };
        let waits = row.filter(|row| {
            matches!(row.state, TaskState::Deferred | TaskState::Suspended)
                && row.template.0 != u32::MAX
        });
        let Some(row) = waits else { return self.forget(id) };
        if self.tasks.get(&id).is_some_and(|wait| wait.launch == row.launch) {
            return;
        }
        self.forget(id);
        let carry = Carry::of(&row.carry);
        let mut wait = Wait { launch: row.launch, trigger: None, deadline: None };
        match (row.state, carry.trigger) {
            (TaskState::Deferred, Some(waiting)) => {
                let Some((number, python)) = self.create(&row, &waiting, carry.timeout_at) else {
                    return;
                };
                self.triggers.insert(number, id);
                wait.trigger = Some((number, python));
            }
            (TaskState::Suspended, _) if carry.timeout_at.is_some() => {
                wait.deadline = carry.timeout_at;
                self.deadlines.extend(carry.timeout_at.map(|at| (at, id)));
            }
            _ => return,
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        self.tasks.insert(id, wait);
    }

    fn forget(&mut self, id: TaskId) {
        let Some(wait) = self.tasks.remove(&id) else { return };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(at) = wait.deadline {
            self.deadlines.remove(&(at, id));
        }
        let Some((number, python)) = wait.trigger else { return };
        self.triggers.remove(&number);
        let Some(pool) = self.pools.get_mut(&python) else { return };
        pool.wanted.remove(&number);
        pool.create.retain(|one| *one != number);
        pool.cancel.push(number);
        if let Some((_, runner)) = &pool.runner {
            runner.wake();
        }
    }

    /// Makes a task's trigger. None if the task is none of Airflow's.
    fn create(
        &mut self,
        row: &TaskRow,
        waiting: &Waiting,
        timeout_at: Option<Timestamp>,
    ) -> Option<(u64, String)> {
        let run = self.desk.views.get_run(row.run).ok()??;
        if run.dialect != "airflow" {
            return None;
        }
        let stored =
            self.desk.store.workflow(&run.namespace, &run.workflow, Some(&run.version)).ok()??;
        let place = Origin::of(&stored.workflow).bundle;
        let number = self.next;
        self.next += 1;
        let workload = json!({
            "type": "RunTrigger",
            "id": number,
            "classpath": waiting.classpath,
            // Text that begins with a brace is taken as it is: it need not be encrypted.
            "encrypted_kwargs": waiting.kwargs.to_string(),
            "timeout_after": timeout_at,
            "ti": {
                "id": ids::task_instance(row.run, row.task, row.attempt),
                "task_id": row.name,
                "dag_id": run.workflow,
                "run_id": crate::run_id(&run),
                "try_number": row.attempt,
                "dag_version_id": ids::dag_version(&run.version),
                "map_index": row.index.map_or(-1, i64::from),
                "queue": waiting.queue.as_deref().unwrap_or("default"),
                "pool_slots": 1,
                "priority_weight": 1,
            },
        });
        let python = place.python.clone();
        let pool = self.pools.entry(python.clone()).or_insert_with(|| Pool {
            place,
            runner: None,
            started: Instant::now(),
            pause: PAUSE,
            again: Some(Instant::now()),
            wanted: BTreeMap::new(),
            create: Vec::new(),
            cancel: Vec::new(),
        });
        pool.wanted.insert(number, workload);
        pool.create.push(number);
        match &pool.runner {
            Some((_, runner)) => runner.wake(),
            None => {
                pool.again.get_or_insert_with(Instant::now);
            }
        }
        Some((number, python))
    }

    /// Does what is due.
    fn fire(&mut self) {
        let now = wall_now();
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.remove(&(at, id));
            if let Err(error) = self.desk.nobody_responded(id) {
                tracing::error!(%id, error = %error.detail, "a question's time-out");
            }
        }
        for (python, pool) in &mut self.pools {
            if pool.again.is_none_or(|at| at > Instant::now()) {
                continue;
            }
            pool.again = None;
            if pool.wanted.is_empty() {
                continue;
            }
            let number = self.next;
            self.next += 1;
            let environment = environment(&pool.place);
            let started = Runner::start(number, python, &self.packages, &environment, &self.inputs);
            pool.started = Instant::now();
            match started {
                Ok(runner) => {
                    pool.cancel.clear();
                    pool.create = pool.wanted.keys().copied().collect();
                    pool.runner = Some((number, runner));
                }
                Err(error) => {
                    tracing::error!(python, %error, "the trigger runner cannot be started");
                    pool.again = Some(Instant::now() + pool.pause);
                    pool.pause = (pool.pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn gone(&mut self, number: u64) {
        let of = |pool: &&mut Pool| pool.runner.as_ref().is_some_and(|(n, _)| *n == number);
        let Some(pool) = self.pools.values_mut().find(of) else { return };
        pool.runner = None;
        tracing::warn!(
            python = pool.place.python,
            triggers = pool.wanted.len(),
            "the trigger runner has died"
        );
        if pool.started.elapsed() > GOOD_LIFE {
            pool.pause = PAUSE;
        }
        pool.again = Some(Instant::now() + pool.pause);
        pool.pause = (pool.pause * 2).min(PAUSE_MAX);
    }

    fn heard(&mut self, number: u64, frame: Json) {
        let of = |pool: &&mut Pool| pool.runner.as_ref().is_some_and(|(n, _)| *n == number);
        if let Some(pool) = self.pools.values_mut().find(of)
            && let Some((_, runner)) = &mut pool.runner
        {
            runner.is_up = true;
        }
        let (id, body) = (frame[0].clone(), &frame[1]);
        let reply = match body["type"].as_str() {
            Some("TriggerStateChanges") => {
                let persisted = self.changes(body);
                let pool = self.pools.values_mut().find(of);
                let Some(pool) = pool else { return };
                let create: Vec<Json> = std::mem::take(&mut pool.create)
                    .iter()
                    .filter_map(|number| pool.wanted.get(number).cloned())
                    .collect();
                let cancel = std::mem::take(&mut pool.cancel);
                json!([id, {
                    "type": "TriggerStateSync", "to_create": create, "to_cancel": cancel,
                    "events_persisted": persisted,
                }])
            }
            // What the server logs of triggers holds no values.
            Some("MaskSecret") => json!([id, null]),
            _ => {
                let pool = self.pools.values_mut().find(of);
                let asks = pool.and_then(|pool| pool.wanted.keys().next().copied());
                let task = asks.and_then(|trigger| self.triggers.get(&trigger).copied());
                let answer = match task {
                    Some(task) => {
                        let launch = LaunchId { run: task.run, task: task.task, launch: 0 };
                        let answer = self.desk.answer(Asker { launch, number: 0 }, body);
                        let later = |_| Err("the server cannot answer now".to_owned());
                        answer.map_or_else(later, |answer| answer.result)
                    }
                    None => Err("no trigger is running".to_owned()),
                };
                let answer = answer.unwrap_or_else(|words| Refused::api(500, words).body());
                if crate::task::is_failure(&answer) {
                    json!([id, null, answer])
                } else {
                    json!([id, answer])
                }
            }
        };
        if let Some(pool) = self.pools.values_mut().find(of)
            && let Some((_, runner)) = &mut pool.runner
        {
            runner.send(&reply);
        }
    }

    /// Events and failures of triggers; each of their tasks goes on. Answers the numbers by which
    /// shared streams know that.
    fn changes(&mut self, body: &Json) -> Vec<Json> {
        let list = |field: &str| body[field].as_array().cloned().unwrap_or_default();
        let mut persisted = Vec::new();
        for entry in list("events") {
            let Some(trigger) = entry[0].as_u64() else { continue };
            if let Some(&task) = self.triggers.get(&trigger)
                && let Err(error) = self.fired(task, &entry[1])
            {
                tracing::error!(%task, error = %error.detail, "the event of a trigger");
            }
            if !entry[2].is_null() {
                persisted.push(entry[2].clone());
            }
        }
        for entry in list("failures") {
            let Some(trigger) = entry[0].as_u64() else { continue };
            if let Some(&task) = self.triggers.get(&trigger)
                && let Err(error) = self.go_on(task, |carry| carry.with_failure(entry[1].clone()))
            {
                tracing::error!(%task, error = %error.detail, "the failure of a trigger");
            }
        }
        persisted
    }

    fn fired(&mut self, task: TaskId, event: &Json) -> Result<(), Refused> {
        let Some(state) = event["task_instance_state"].as_str() else {
            let payload = event["payload"].clone();
            return self.go_on(task, |carry| carry.with_event(payload));
        };
        // It ends without a worker.
        let Some(row) = self.current(task)? else { return Ok(()) };
        let xcoms: Map<String, Json> = event["xcoms"].as_object().cloned().unwrap_or_default();
        let outputs: Vec<(String, Json)> = xcoms.into_iter().collect();
        let commands = match state {
            "success" => {
                vec![Command::ResumeTask { task, outputs: Some(outputs), carry: None }]
            }
            _ => {
                let launch = LaunchId { run: row.run, task: row.task, launch: row.launch };
                let body = ReportBody::Outputs(outputs);
                let outcome = if state == "skipped" { Outcome::Skipped } else { Outcome::Failed };
                vec![
                    Command::Report(Report { launch, at: wall_now(), body }),
                    Command::Mark { task, outcome, by: "trigger".to_owned() },
                ]
            }
        };
        self.desk.handle.submit_blocking(Submission { commands, writes: Vec::new() })?;
        self.forget(task);
        Ok(())
    }

    /// Hands a task that waits for a trigger to a worker again.
    fn go_on(&mut self, task: TaskId, how: impl FnOnce(Carry) -> Carry) -> Result<(), Refused> {
        if let Some(row) = self.current(task)? {
            let carry = how(Carry::of(&row.carry));
            let resume = Command::ResumeTask { task, outputs: None, carry: Some(json!(carry)) };
            self.desk.handle.submit_blocking(resume)?;
        }
        self.forget(task);
        Ok(())
    }

    /// A task's row, if it still waits as it did.
    fn current(&self, task: TaskId) -> Result<Option<TaskRow>, Refused> {
        let launch = self.tasks.get(&task).map(|wait| wait.launch);
        let row = self.desk.views.get_task(task)?;
        Ok(row.filter(|row| row.state == TaskState::Deferred && Some(row.launch) == launch))
    }
}
