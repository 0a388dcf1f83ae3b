//! One seed's world: what happens, in which order, and what must hold after each step.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kobza_engine::{
    Action, ClearOptions, Command, Decision, Engine, EngineOptions, Question, QuestionKind,
    Report as Message, ReportBody, StartRun,
};
use kobza_model::*;
use uuid::Uuid;

use crate::executor::Executor;
use crate::generate::{self, LIMITS};
use crate::random::{Random, hash};
use crate::reference::Script;
use crate::store::Store;

/// What went wrong, and when.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub step: u32,
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {} step {}: {}", self.seed, self.step, self.what)
    }
}

/// What a seed did, for coverage.
#[derive(Debug, Default, Clone, Copy)]
pub struct Report {
    pub steps: u32,
    pub runs: u32,
    pub crashes: u32,
    pub unknown_commits: u32,
    pub lost: u32,
    pub stopped: u32,
    pub cleared: u32,
}

/// Slots that all bodies share: small, so that waiting happens.
const SLOTS: u32 = 3;

pub struct Sim {
    seed: u64,
    random: Random,
    engine: Engine,
    store: Store,
    executor: Executor,
    now: Now,
    workflows: BTreeMap<RunId, Arc<Workflow>>,
    /// Runs whose start was acknowledged.
    acknowledged: BTreeSet<RunId>,
    /// Runs that were stopped: they end, but not as the reference says.
    disturbed: BTreeSet<RunId>,
    next_run: u64,
    step: u32,
    report: Report,
}

/// Outcomes as a pure function of the seed and the task.
struct Dice(u64);

impl Dice {
    fn percent(&self, what: &str, path: &str, attempt: u32) -> u64 {
        hash(self.0, &format!("{what}{path}#{attempt}")) % 100
    }
}

impl Script for Dice {
    fn succeeds(&self, path: &str, attempt: u32) -> bool {
        self.percent("body", path, attempt) >= 20
    }

    fn guard(&self, path: &str) -> bool {
        self.percent("guard", path, 0) >= 25
    }

    fn length(&self, path: &str) -> u32 {
        (hash(self.0, &format!("length{path}")) % 5) as u32
    }

    fn retry(&self, path: &str, attempt: u32) -> bool {
        self.percent("retry", path, attempt) >= 30
    }
}

fn options() -> EngineOptions {
    EngineOptions { slots: SLOTS, window: 4, depth: 100, lost_limit: 200 }
}

impl Sim {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut sim = Self {
            seed,
            random: Random::new(seed),
            engine: Engine::new(options()),
            store: Store::default(),
            executor: Executor::default(),
            now: Now { wall: Timestamp(1_000_000_000), engine: EngineTime(0) },
            workflows: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            disturbed: BTreeSet::new(),
            next_run: 0,
            step: 0,
            report: Report::default(),
        };
        sim.engine.restore_limits(limit_rows());
        sim
    }

    /// Lives for so many steps, then lets everything come to rest and compares with the reference.
    pub fn run(mut self, steps: u32) -> Result<Report, Failure> {
        for step in 0..steps {
            self.step = step;
            self.one_step().and_then(|()| self.invariants()).map_err(|what| self.failure(what))?;
        }
        // Rest: no more faults or new runs; everything must end.
        for extra in 0..20_000 {
            self.step = steps + extra;
            if self.store.runs().all(|r| r.state.is_finished()) && self.idle() {
                self.compare().map_err(|what| self.failure(what))?;
                self.report.steps = self.step;
                return Ok(self.report);
            }
            self.calm_step().and_then(|()| self.invariants()).map_err(|what| self.failure(what))?;
        }
        let reasons: Vec<String> = self
            .store
            .live_tasks()
            .filter(|t| !t.state.is_finished() && t.task.0 != 0)
            .take(8)
            .map(|t| {
                let why = self.engine.why(TaskId { run: t.run, task: t.task });
                format!("{} {} {:?} {:?}", t.run, t.name, t.state, why)
            })
            .collect();
        Err(self.failure(format!("does not come to rest: {reasons:#?}")))
    }

    fn failure(&self, what: String) -> Failure {
        Failure { seed: self.seed, step: self.step, what }
    }

    fn idle(&self) -> bool {
        self.executor.bodies.is_empty()
    }

    fn one_step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..=7 => self.start_run(),
            8..=11 => self.crash(),
            12..=13 => self.stop_some_run(),
            14..=16 => {
                // The wall clock jumps, by up to two days either way; engine time does not.
                let jump = i64::from(self.random.below(4)) - 2;
                self.now.wall = self.now.wall.saturating_add_micros(jump * 86_400_000_000);
                Ok(())
            }
            17..=19 => self.pause_or_resume(),
            20..=22 => self.clear_some_tasks(),
            _ => self.calm_step(),
        }
    }

    fn calm_step(&mut self) -> Result<(), String> {
        self.now.engine.0 += i64::from(self.random.below(400_000));
        self.now.wall.0 += i64::from(self.random.below(400_000));
        match self.random.below(10) {
            0 | 1 => self.time(),
            _ => self.body(),
        }
    }

    fn start_run(&mut self) -> Result<(), String> {
        self.next_run += 1;
        let run = RunId(Uuid::from_u128(u128::from(self.next_run)));
        let workflow =
            Arc::new(generate::workflow(hash(self.seed, &format!("wf{}", self.next_run % 3))));
        self.workflows.insert(run, workflow.clone());
        let start = StartRun {
            run,
            namespace: "default".to_owned(),
            version: workflow.name.clone(),
            workflow,
            params: Json::Null,
            key: None,
            trigger: "sim".to_owned(),
            interval: None,
            partition: None,
            labels: Json::Null,
            parent: None,
            priority: 0,
            extra: Json::Null,
        };
        if self.command(Command::StartRun(Box::new(start)))? {
            self.acknowledged.insert(run);
            self.report.runs += 1;
        }
        Ok(())
    }

    fn live_run(&mut self) -> Option<RunId> {
        let live: Vec<RunId> =
            self.store.runs().filter(|r| !r.state.is_finished()).map(|r| r.run).collect();
        (!live.is_empty()).then(|| live[self.random.below(live.len() as u32) as usize])
    }

    fn stop_some_run(&mut self) -> Result<(), String> {
        let Some(run) = self.live_run() else { return Ok(()) };
        self.report.stopped += 1;
        self.disturbed.insert(run);
        let mode = [
            kobza_engine::StopMode::Cancel,
            kobza_engine::StopMode::Stop,
            kobza_engine::StopMode::Terminate,
        ][self.random.below(3) as usize];
        self.command(Command::StopRun { run, mode, reason: String::new() }).map(|_| ())
    }

    /// Some tasks of a run, living or ended, run again. Bodies are pure, so a run that was cleared
    /// ends as one that was not.
    fn clear_some_tasks(&mut self) -> Result<(), String> {
        let runs: Vec<RunId> = self.store.runs().map(|r| r.run).collect();
        if runs.is_empty() {
            return Ok(());
        }
        let run = runs[self.random.below(runs.len() as u32) as usize];
        let image = self.store.image(run).ok_or("a run without a row")?;
        let tasks: Vec<TaskNo> = image.tasks.iter().map(|t| t.task).filter(|t| t.0 != 0).collect();
        if tasks.is_empty() {
            return Ok(());
        }
        let chosen = (0..=self.random.below(2))
            .map(|_| tasks[self.random.below(tasks.len() as u32) as usize])
            .collect();
        let options = ClearOptions {
            downstream: self.random.chance(50),
            only_failed: self.random.chance(20),
        };
        if self.engine.run_row(run).is_none() {
            let workflow = self.workflows[&run].clone();
            self.engine.restore_run(image, workflow, self.now).map_err(|e| e.to_string())?;
        }
        self.report.cleared += 1;
        self.command(Command::Clear { run, tasks: chosen, options }).map(|_| ())
    }

    /// Which attempt of the task's present life this is: a clear begins a new one.
    fn tries(&self, id: TaskId, attempt: u32) -> u32 {
        attempt - self.engine.task_row(id).map_or(0, |t| t.attempts_before.min(attempt))
    }

    fn pause_or_resume(&mut self) -> Result<(), String> {
        let paused: Vec<RunId> =
            self.store.runs().filter(|r| r.state == RunState::Paused).map(|r| r.run).collect();
        if let Some(&run) = paused.first() {
            return self.command(Command::ResumeRun { run }).map(|_| ());
        }
        let Some(run) = self.live_run() else { return Ok(()) };
        self.command(Command::PauseRun { run }).map(|_| ())
    }

    fn time(&mut self) -> Result<(), String> {
        let paused: Vec<RunId> =
            self.store.runs().filter(|r| r.state == RunState::Paused).map(|r| r.run).collect();
        if let Some(&run) = paused.first() {
            return self.command(Command::ResumeRun { run }).map(|_| ());
        }
        if let Some(due) = self.engine.next_timer() {
            self.now.engine = self.now.engine.max(due);
        }
        self.command(Command::Tick).map(|_| ())
    }

    /// Something happens to one body: it starts, ends, is lost, or repeats its report.
    fn body(&mut self) -> Result<(), String> {
        let ids: Vec<LaunchId> = self.executor.bodies.keys().copied().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let id = ids[self.random.below(ids.len() as u32) as usize];
        let dice = Dice(self.seed);
        let path = self.path(id.task_id());
        let attempt = self.executor.bodies[&id].launch.attempt;
        let tries = self.tries(id.task_id(), attempt);
        let Some(body) = self.executor.bodies.get_mut(&id) else { return Ok(()) };
        if let Some(report) = body.report.clone() {
            // Late, or again.
            return self.deliver(id, report);
        }
        if !body.started && !body.killed {
            body.started = true;
            if self.random.chance(80) {
                return self.send(id, ReportBody::Started).map(|_| ());
            }
            return Ok(());
        }
        let report = if body.killed {
            finished(Outcome::Cancelled, Cause::Hand)
        } else if self.random.chance(4) {
            self.report.lost += 1;
            ReportBody::Lost { message: "its host vanished".to_owned() }
        } else if self.random.chance(5) {
            ReportBody::Deferred {
                until: Some(self.now.engine.after_millis(500)),
                carry: Json::Null,
            }
        } else if path.as_deref().is_some_and(|p| dice.succeeds(p, tries)) {
            finished(Outcome::Succeeded, Cause::None)
        } else {
            finished(Outcome::Failed, Cause::Code)
        };
        body.report = Some(report.clone());
        if self.random.chance(70) { self.deliver(id, report) } else { Ok(()) }
    }

    fn deliver(&mut self, id: LaunchId, report: ReportBody) -> Result<(), String> {
        let durable = self.send(id, report.clone())?;
        if durable {
            self.executor.bodies.remove(&id);
            if self.random.chance(10) {
                // The acknowledgement was lost: the report comes twice.
                self.send(id, report)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, launch: LaunchId, body: ReportBody) -> Result<bool, String> {
        self.command(Command::Report(Message { launch, at: self.now.wall, body }))
    }

    /// Applies a command, decides, commits, acts; true once it is durable (or was refused for good).
    fn command(&mut self, command: Command) -> Result<bool, String> {
        let refused = self.engine.apply(command, self.now).is_err();
        self.decide()?;
        let batch = self.engine.take_batch();
        match self.random.below(100) {
            // Unknown commit: it happened, or not; the memory is dropped either way.
            0 | 1 => {
                self.report.unknown_commits += 1;
                let happened = self.random.chance(50);
                if happened {
                    self.store.commit(&batch);
                }
                self.restart()?;
                return Ok(false);
            }
            // A crash between commit and action.
            2 | 3 => {
                self.report.crashes += 1;
                self.store.commit(&batch);
                self.restart()?;
                return Ok(false);
            }
            _ => self.store.commit(&batch),
        }
        self.act();
        Ok(!refused || self.random.chance(100))
    }

    fn decide(&mut self) -> Result<(), String> {
        for _ in 0..100_000 {
            let more = self.engine.work(97);
            let questions = self.engine.take_questions();
            if questions.is_empty() && !more {
                return Ok(());
            }
            for question in questions {
                let decision = self.answer(&question);
                let command =
                    Command::Answer { task: question.task, serial: question.serial, decision };
                let _not_asked = self.engine.apply(command, self.now);
            }
        }
        Err("the engine does not finish deciding".to_owned())
    }

    fn answer(&self, question: &Question) -> Decision {
        let dice = Dice(self.seed);
        let path = self.path(question.task).unwrap_or_default();
        match question.kind {
            QuestionKind::Guard if dice.guard(&path) => Decision::Run { inputs: Json::Null },
            QuestionKind::Guard => Decision::Skip { cause: Cause::Guard, message: None },
            QuestionKind::Expansion => {
                Decision::Expand { length: dice.length(&path), items: None, inputs: Json::Null }
            }
            QuestionKind::ScopeOutputs { .. } => Decision::Outputs(Vec::new()),
            QuestionKind::Retry => {
                let attempt = self.engine.task_row(question.task).map_or(0, |t| t.attempt);
                if dice.retry(&path, self.tries(question.task, attempt)) {
                    Decision::Retry { delay_ms: None, carry: Json::Null }
                } else {
                    Decision::GiveUp { message: None }
                }
            }
        }
    }

    fn act(&mut self) {
        for action in self.engine.take_actions() {
            match action {
                Action::Launch(launch) => self.executor.launch(launch),
                Action::Kill { launch, .. } => self.executor.kill(launch),
                Action::RunEnded { run } => {
                    self.engine.evict(run);
                }
                Action::RunStarted { .. } => {}
            }
        }
    }

    fn crash(&mut self) -> Result<(), String> {
        self.report.crashes += 1;
        self.restart()
    }

    /// A new server on the same store: what was only in memory is gone.
    fn restart(&mut self) -> Result<(), String> {
        self.engine = Engine::new(options());
        self.engine.restore_limits(limit_rows());
        let live: Vec<RunId> =
            self.store.runs().filter(|r| !r.state.is_finished()).map(|r| r.run).collect();
        for run in live {
            let image = self.store.image(run).ok_or("a run without a row")?;
            let workflow = self.workflows[&run].clone();
            self.engine.restore_run(image, workflow, self.now).map_err(|e| e.to_string())?;
        }
        self.engine.take_up(self.now);
        // Adoption: confirmed launches that no executor has are lost for certain.
        let confirmed: Vec<LaunchId> =
            self.engine.confirmed_launches().into_iter().map(|(id, _)| id).collect();
        let lost = self.lost_meanwhile();
        self.decide()?;
        let batch = self.engine.take_batch();
        self.store.commit(&batch);
        // An executor that was told that its report is durable forgets the launch at once.
        for id in lost {
            self.executor.bodies.remove(&id);
        }
        self.act();
        for id in confirmed {
            if !self.executor.bodies.contains_key(&id) {
                self.send(
                    id,
                    ReportBody::Lost { message: "not found after a restart".to_owned() },
                )?;
            }
        }
        Ok(())
    }

    /// Bodies whose loss is told in the restart's own batch, which may also send them again.
    fn lost_meanwhile(&mut self) -> Vec<LaunchId> {
        let ids: Vec<LaunchId> = self.executor.bodies.keys().copied().collect();
        let mut lost = Vec::new();
        for launch in ids {
            if !self.executor.bodies[&launch].started && self.random.chance(20) {
                self.report.lost += 1;
                let body = ReportBody::Lost { message: "its shim died meanwhile".to_owned() };
                let report = Message { launch, at: self.now.wall, body };
                // Refused when another launch has the task: the body is gone all the same.
                let _stale = self.engine.apply(Command::Report(report), self.now);
                lost.push(launch);
            }
        }
        lost
    }

    fn path(&self, id: TaskId) -> Option<String> {
        let task = self.engine.task_row(id)?;
        let mut own = format!("/{}", task.name);
        if let Some(index) = task.index {
            own = format!("{own}[{index}]");
        }
        let owner = self.engine.scope_row(id.run, task.scope)?.owner?;
        if owner.0 == 0 {
            return Some(own);
        }
        Some(self.path(TaskId { run: id.run, task: owner })? + &own)
    }
}

fn limit_rows() -> Vec<LimitRow> {
    LIMITS
        .iter()
        .map(|(name, capacity)| LimitRow {
            name: (*name).to_owned(),
            capacity: *capacity,
            strict: false,
            description: None,
        })
        .collect()
}

fn finished(outcome: Outcome, cause: Cause) -> ReportBody {
    ReportBody::Finished {
        outcome,
        cause,
        message: None,
        exit_code: None,
        outputs: Vec::new(),
        skips: Vec::new(),
        jitter: 0.5,
    }
}
