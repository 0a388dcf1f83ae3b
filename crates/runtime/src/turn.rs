//! The loop: drain the inbox, decide, commit, act.

mod act;
mod commit;
mod restore;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kobza_engine::{Command, Decision, Engine, EngineOptions, Question, Reply, Report, ReportBody};
use kobza_model::{Cause, LaunchId, Now, RunId, Workflow};
use kobza_store::{CommitError, Fence, Store, StoreError, Write};
use tokio::sync::{broadcast, mpsc, watch};

use crate::clock::Clock;
use crate::facts::{Lookup, OutputCache, RunFacts};
use crate::handle::{
    Committed, Handle, INBOX_CAPACITY, Message, Queued, ReplyTo, Submission, SubmitError,
};
use crate::metrics::Metrics;
use crate::ports::{Answer, Ask, Dialect, Executor, ExecutorName};

/// Messages of one batch: enough to make a commit cheap per message, few enough that the first
/// does not wait long for the last.
const BATCH_MESSAGES: usize = 2048;
/// Steps of the engine in one batch: bounds a transaction to some tens of milliseconds.
const BATCH_STEPS: usize = 16_384;
/// Rounds of questions and answers in one batch.
const BATCH_ROUNDS: usize = 1024;
/// Pause after a commit that failed, so that a full disk is not hammered.
const FAILURE_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause, while the store stays away.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// Signs of life in the time of one lease.
const HEARTBEATS: u32 = 4;
/// Commits of which a follower may lag before it has to read the store.
const FOLLOWER_LAG: usize = 4096;

/// What a runtime is made of.
pub struct RuntimeOptions {
    pub engine: EngineOptions,
    /// Shown to a second server that wants the same store.
    pub owner: String,
    pub store: Arc<dyn Store>,
    pub dialects: Vec<Arc<dyn Dialect>>,
    /// Values of a namespace for dialects; `None` reads the store's objects.
    pub lookup: Option<Arc<Lookup>>,
}

impl std::fmt::Debug for RuntimeOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeOptions").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// Why a runtime could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("run {run} could not be taken up again: {reason}")]
    Restore { run: RunId, reason: String },
}

/// An inbox that waits for its loop.
pub struct Inbox {
    receiver: mpsc::Receiver<Queued>,
    next_event: watch::Sender<u64>,
}

/// Makes a handle, so that executors and servers can be built before the loop starts.
#[must_use]
pub fn channel() -> (Handle, Inbox) {
    let (sender, receiver) = mpsc::channel(INBOX_CAPACITY);
    let (events, _) = broadcast::channel(FOLLOWER_LAG);
    let (next_sender, next_receiver) = watch::channel(0);
    let handle = Handle {
        inbox: sender,
        events,
        next_event: next_receiver,
        metrics: Arc::new(Metrics::default()),
    };
    (handle, Inbox { receiver, next_event: next_sender })
}

/// A loop that runs on its own thread.
#[derive(Debug)]
pub struct Runtime {
    thread: std::thread::JoinHandle<Result<(), RuntimeError>>,
}

impl Runtime {
    /// Takes the store, restores all live runs and starts the loop. Live launches are handed to
    /// their executors for adoption.
    pub fn start(
        options: RuntimeOptions,
        handle: &Handle,
        inbox: Inbox,
        executors: BTreeMap<ExecutorName, Arc<dyn Executor>>,
    ) -> Result<Self, RuntimeError> {
        let fence = options.store.acquire(&options.owner)?;
        let heartbeat = options.store.lease().map(|lease| lease / HEARTBEATS);
        let store = options.store.clone();
        let lookup: Arc<Lookup> = match options.lookup {
            Some(lookup) => lookup,
            None => Arc::new(move |kind, namespace, name| {
                store.object(kind, namespace, name).ok().flatten()
            }),
        };
        let mut turner = Turner {
            clock: Clock::new(fence.engine_time),
            engine: Engine::new(options.engine.clone()),
            engine_options: options.engine,
            store: options.store,
            dialects: options.dialects.iter().map(|d| (d.name().to_owned(), d.clone())).collect(),
            executors,
            lookup,
            fence,
            outputs: RefCell::new(OutputCache::default()),
            seen_outputs: 0,
            carriers: HashMap::new(),
            own: VecDeque::new(),
            keys: HashMap::new(),
            events: handle.events.clone(),
            next_event: inbox.next_event,
            metrics: handle.metrics.clone(),
            random: rand_seed(),
            leftover: false,
            stopping: false,
            unconfirmed: Vec::new(),
            heartbeat,
            alive_at: Instant::now(),
        };
        turner.restore()?;
        // The log began in an earlier life.
        turner.next_event.send_replace(turner.fence.next_event);
        let receiver = inbox.receiver;
        let thread = std::thread::Builder::new()
            .name("kobza-loop".to_owned())
            .spawn(move || turner.run(receiver))
            .map_err(|e| CommitError::Failed(format!("no thread for the loop: {e}")))?;
        Ok(Self { thread })
    }

    /// Waits for the loop to end (after `Handle::stop`, or because it lost its store).
    pub fn join(self) -> Result<(), RuntimeError> {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Whether the loop has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

struct Turner {
    clock: Clock,
    engine: Engine,
    engine_options: EngineOptions,
    store: Arc<dyn Store>,
    dialects: BTreeMap<String, Arc<dyn Dialect>>,
    executors: BTreeMap<ExecutorName, Arc<dyn Executor>>,
    lookup: Arc<Lookup>,
    fence: Fence,
    outputs: RefCell<OutputCache>,
    /// How many of the engine's fresh outputs are in the cache already.
    seen_outputs: usize,
    /// Which executor has a launch.
    carriers: HashMap<LaunchId, ExecutorName>,
    /// Reports of the loop to itself: launches that could not be rendered.
    own: VecDeque<Report>,
    /// Keys of live runs.
    keys: HashMap<(String, String, String), RunId>,
    events: broadcast::Sender<Committed>,
    next_event: watch::Sender<u64>,
    metrics: Arc<Metrics>,
    random: u64,
    leftover: bool,
    stopping: bool,
    /// Reports of a batch that was not committed: executors believe them delivered, so the loop
    /// takes them again.
    unconfirmed: Vec<Reported>,
    /// Sign of life that the store needs, and when it got the last one.
    heartbeat: Option<Duration>,
    alive_at: Instant,
}

/// What is owed to callers once the batch is durable.
#[derive(Default)]
struct Owed {
    replies: Vec<(ReplyTo, Result<Vec<Reply>, SubmitError>)>,
    /// Reports, and who is to be told that they are durable.
    reports: Vec<Reported>,
    writes: Vec<Write>,
}

type Reported = (Report, Box<dyn FnOnce() + Send>);

fn rand_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 | 1
}

impl Turner {
    fn run(mut self, mut inbox: mpsc::Receiver<Queued>) -> Result<(), RuntimeError> {
        let waiter = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|e| CommitError::Failed(format!("no timer for the loop: {e}")))?;
        loop {
            let first = self.wait(&waiter, &mut inbox);
            if self.stopping && first.is_none() {
                return Ok(());
            }
            if first.is_none() && !self.has_work() {
                self.keep_alive()?;
                continue;
            }
            self.turn(first, &mut inbox)?;
            self.keep_alive()?;
        }
    }

    /// Whether there is something to do without a message.
    fn has_work(&self) -> bool {
        let due = self.engine.next_timer().is_some_and(|due| due <= self.clock.now().engine);
        due || self.leftover || !self.own.is_empty() || self.stopping
    }

    /// Tells the store that its owner lives, when no commit has done so for a while.
    fn keep_alive(&mut self) -> Result<(), RuntimeError> {
        let Some(every) = self.heartbeat else { return Ok(()) };
        if self.alive_at.elapsed() < every {
            return Ok(());
        }
        match self.store.heartbeat(self.fence) {
            Ok(()) => {
                self.alive_at = Instant::now();
                Ok(())
            }
            Err(error) => self.failed(error, Vec::new()),
        }
    }

    /// The next message; `None` when a timer is due, work is left over, or the inbox has closed.
    fn wait(
        &mut self,
        waiter: &tokio::runtime::Runtime,
        inbox: &mut mpsc::Receiver<Queued>,
    ) -> Option<Queued> {
        if let Ok(message) = inbox.try_recv() {
            return Some(message);
        }
        if self.leftover || !self.own.is_empty() || self.stopping {
            return None;
        }
        let timer = self.engine.next_timer().map(|due| self.clock.until(due));
        let beat = self.heartbeat.map(|every| every.saturating_sub(self.alive_at.elapsed()));
        let received = match timer.into_iter().chain(beat).min() {
            Some(left) => waiter.block_on(async { tokio::time::timeout(left, inbox.recv()).await }),
            None => Ok(waiter.block_on(inbox.recv())),
        };
        match received {
            Ok(Some(message)) => Some(message),
            Ok(None) => {
                self.stopping = true;
                None
            }
            Err(_due) => None,
        }
    }

    fn turn(
        &mut self,
        first: Option<Queued>,
        inbox: &mut mpsc::Receiver<Queued>,
    ) -> Result<(), RuntimeError> {
        let started = Instant::now();
        let now = self.clock.now();
        self.metrics.last_turn.store(u64::try_from(now.wall.0).unwrap_or(0), Ordering::Relaxed);
        self.metrics.clock_offset.store(now.wall.0 - now.engine.0, Ordering::Relaxed);
        let mut owed = Owed::default();
        let mut messages = 0;
        if self.engine.next_timer().is_some_and(|due| due <= now.engine) {
            // A tick cannot be refused.
            let _done = self.engine.apply(Command::Tick, now);
        }
        for report in std::mem::take(&mut self.own) {
            let _stale = self.engine.apply(Command::Report(report), now);
        }
        for (report, on_durable) in std::mem::take(&mut self.unconfirmed) {
            self.take(Message::Report { report, on_durable }, now, &mut owed);
        }
        if let Some(first) = &first {
            // The one that waited longest.
            self.metrics.inbox_wait.observe(first.at.elapsed().as_secs_f64());
        }
        let mut next = first;
        while let Some(Queued { message, .. }) = next {
            messages += 1;
            self.take(message, now, &mut owed);
            next = if messages < BATCH_MESSAGES { inbox.try_recv().ok() } else { None };
        }
        self.metrics.inbox.set(messages as i64);
        self.metrics.phase("take", started.elapsed());
        let deciding = Instant::now();
        self.decide(now);
        self.metrics.phase("decide", deciding.elapsed());
        self.commit(owed, now)
    }

    fn take(&mut self, message: Message, now: Now, owed: &mut Owed) {
        match message {
            Message::Stop => self.stopping = true,
            Message::Query(look) => look(&self.engine),
            Message::Ask { ask, on_answer } => on_answer(self.answer_body(&ask, now)),
            Message::Now(to) => {
                // A caller that went away does not want the answer.
                let _gone = to.send(now);
            }
            Message::Report { mut report, on_durable } => {
                if let ReportBody::Finished { jitter, .. } = &mut report.body {
                    *jitter = self.draw();
                }
                let id = report.launch.run;
                let ended =
                    matches!(report.body, ReportBody::Finished { .. } | ReportBody::Lost { .. });
                let launch = report.launch;
                self.metrics.commands.inc();
                let command = Command::Report(report.clone());
                if self.load(id).is_ok() && self.engine.apply(command, now).is_err() {
                    self.metrics.refused.inc();
                }
                if ended {
                    self.carriers.remove(&launch);
                }
                owed.reports.push((report, on_durable));
            }
            Message::Submit { submission, reply } => {
                let result = self.submit(submission, now, owed);
                owed.replies.push((reply, result));
            }
        }
    }

    fn submit(
        &mut self,
        submission: Submission,
        now: Now,
        owed: &mut Owed,
    ) -> Result<Vec<Reply>, SubmitError> {
        let mut replies = Vec::with_capacity(submission.commands.len());
        for command in submission.commands {
            self.metrics.commands.inc();
            let reply = self.apply(command, now).inspect_err(|_| {
                self.metrics.refused.inc();
            })?;
            replies.push(reply);
        }
        owed.writes.extend(submission.writes);
        Ok(replies)
    }

    fn apply(&mut self, command: Command, now: Now) -> Result<Reply, SubmitError> {
        match &command {
            Command::StartRun(start) => {
                if let Some(key) = &start.key {
                    let place = (start.namespace.clone(), start.workflow.name.clone(), key.clone());
                    let holder = match self.keys.get(&place) {
                        Some(run) => Some(*run),
                        None => self
                            .store
                            .run_by_key(&start.namespace, &start.workflow.name, key)
                            .map_err(|e| SubmitError::Store(e.to_string()))?,
                    };
                    if let Some(run) = holder {
                        return Err(SubmitError::KeyTaken { key: key.clone(), run });
                    }
                    let run = start.run;
                    let reply = self.engine.apply(command, now)?;
                    self.keys.insert(place, run);
                    return Ok(reply);
                }
            }
            Command::StopRun { run, .. }
            | Command::PauseRun { run }
            | Command::ResumeRun { run }
            | Command::Clear { run, .. }
            | Command::AddTasks { run, .. }
            | Command::Observe { run, .. }
            | Command::CloseRun { run, .. }
            | Command::Machine { run, .. }
            | Command::Annotate { run, .. } => self.load(*run)?,
            Command::Ask { task }
            | Command::StopTask { task, .. }
            | Command::ResumeTask { task, .. }
            | Command::Mark { task, .. } => self.load(task.run)?,
            Command::Report(report) => self.load(report.launch.run)?,
            Command::Answer { .. }
            | Command::Tick
            | Command::Announce { .. }
            | Command::SetLimit { .. }
            | Command::RemoveLimit { .. }
            | Command::Publish { .. } => {}
        }
        Ok(self.engine.apply(command, now)?)
    }

    /// Works off consequences, answering what can be answered at once.
    fn decide(&mut self, now: Now) {
        let mut steps = BATCH_STEPS;
        self.leftover = false;
        for _ in 0..BATCH_ROUNDS {
            let slice = steps.min(1024);
            let more = self.engine.work(slice);
            steps -= slice;
            for row in &self.engine.fresh_outputs()[self.seen_outputs..] {
                self.outputs.get_mut().put(row);
            }
            self.seen_outputs = self.engine.fresh_outputs().len();
            let questions = self.engine.take_questions();
            if questions.is_empty() && !more {
                return;
            }
            for question in questions {
                let decision = self.answer(&question, now);
                let command =
                    Command::Answer { task: question.task, serial: question.serial, decision };
                // The task may have been stopped in between: then nobody waits for the answer.
                let _not_asked = self.engine.apply(command, now);
            }
            if steps == 0 {
                break;
            }
        }
        self.leftover = true;
    }

    fn answer(&self, question: &Question, now: Now) -> Decision {
        let run = question.task.run;
        let Some((row, workflow)) = self.engine.run_row(run).zip(self.engine.workflow(run)) else {
            return Decision::Fail {
                cause: Cause::Infrastructure,
                message: "the run is gone".to_owned(),
            };
        };
        let Some(dialect) = self.dialects.get(&row.dialect) else {
            return Decision::Fail {
                cause: Cause::Infrastructure,
                message: format!("this server does not speak the dialect {:?}", row.dialect),
            };
        };
        dialect.decide(question, &self.facts(row, workflow, now))
    }

    /// Answers a running body; one that was replaced meanwhile learns nothing.
    fn answer_body(&self, ask: &Ask, now: Now) -> Answer {
        let current = self
            .engine
            .task_row(ask.launch.task_id())
            .is_some_and(|task| task.launch == ask.launch.launch && !task.state.is_finished());
        let run = ask.launch.run;
        let found = self.engine.run_row(run).zip(self.engine.workflow(run)).filter(|_| current);
        let Some((row, workflow)) = found else {
            return Answer::refused("this task is not running any more");
        };
        match self.dialects.get(&row.dialect) {
            Some(dialect) => dialect.ask(ask, &self.facts(row, workflow, now)),
            None => Answer::refused(format!("this server does not speak {:?}", row.dialect)),
        }
    }

    fn facts<'a>(
        &'a self,
        run: &'a kobza_model::RunRow,
        workflow: &'a Arc<Workflow>,
        now: Now,
    ) -> RunFacts<'a> {
        RunFacts {
            engine: &self.engine,
            run,
            workflow,
            outputs: &self.outputs,
            store: self.store.as_ref(),
            lookup: self.lookup.as_ref(),
            now: now.wall,
        }
    }
}
