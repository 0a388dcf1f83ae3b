//! Builds workflows in a few words and runs them with scripted bodies.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_engine::{
    Action, Batch, Command, Decision, Engine, EngineOptions, Launch, Question, QuestionKind,
    Report, ReportBody, StartRun,
};
use kobza_model::*;

pub(crate) fn node(name: &str) -> Node {
    Node {
        name: name.to_owned(),
        call: TemplateNo(0),
        gate: Gate::all_succeeded(),
        edges: Vec::new(),
        guard: false,
        expansion: None,
        limits: Vec::new(),
        priority: 0,
        retry: None,
        attempt_timeout_ms: None,
        timeout_ms: None,
        hooks: Vec::new(),
        continue_on: Vec::new(),
        daemon: false,
        ignorable: false,
        arguments: Json::Null,
        produces: Vec::new(),
        consumes: Vec::new(),
    }
}

pub(crate) fn needs(name: &str, upstream: &[u32]) -> Node {
    Node { edges: upstream.iter().map(|&u| Edge::on(NodeNo(u))).collect(), ..node(name) }
}

pub(crate) fn leaf(kind: &str) -> Template {
    Template {
        name: kind.to_owned(),
        body: TemplateBody::Leaf(Leaf { kind: kind.to_owned(), spec: Json::Null }),
    }
}

pub(crate) fn graph(name: &str, nodes: Vec<Node>) -> Template {
    Template {
        name: name.to_owned(),
        body: TemplateBody::Graph(Graph {
            nodes,
            verdict: Verdict::default(),
            parallelism: None,
            outputs: false,
            spec: Json::Null,
        }),
    }
}

/// Template 0 is a launched leaf, 1 a no-op, 2 the entry; further ones follow.
pub(crate) fn workflow(nodes: Vec<Node>, more: Vec<Template>) -> Workflow {
    let mut templates = vec![leaf("work"), leaf("noop"), graph("main", nodes)];
    templates.extend(more);
    Workflow {
        name: "w".to_owned(),
        dialect: "test".to_owned(),
        templates,
        entry: TemplateNo(2),
        description: None,
        tags: Vec::new(),
        params: Json::Null,
        timeout_ms: None,
        max_active_runs: None,
        hooks: Vec::new(),
        open: false,
        backfills_apart: false,
        triggers: Json::Null,
        source: Json::Null,
    }
}

pub(crate) type Script = Box<dyn FnMut(&str, u32) -> (Outcome, Cause)>;

pub(crate) type Decide = Box<dyn FnMut(&Question, &str) -> Decision>;

pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
    pub(crate) run: RunId,
    pub(crate) launched: Vec<Launch>,
    pub(crate) killed: Vec<LaunchId>,
    pub(crate) script: Script,
    pub(crate) decide: Decide,
    pub(crate) batches: Vec<Batch>,
}

impl Bench {
    pub(crate) fn new(workflow: Workflow) -> Self {
        Self::with(workflow, EngineOptions::default())
    }

    pub(crate) fn with(workflow: Workflow, options: EngineOptions) -> Self {
        let mut bench = Self {
            engine: Engine::new(options),
            now: Now { wall: Timestamp(1_000_000), engine: EngineTime(0) },
            run: RunId(uuid::Uuid::from_u128(1)),
            launched: Vec::new(),
            killed: Vec::new(),
            script: Box::new(|_, _| (Outcome::Succeeded, Cause::None)),
            decide: Box::new(|q, _| match q.kind {
                QuestionKind::Guard => Decision::Run { inputs: Json::Null },
                QuestionKind::Expansion => {
                    Decision::Expand { length: 3, items: None, inputs: Json::Null }
                }
                QuestionKind::ScopeOutputs { .. } => Decision::Outputs(Vec::new()),
                QuestionKind::Retry => Decision::Retry { delay_ms: None, carry: Json::Null },
            }),
            batches: Vec::new(),
        };
        bench.start(workflow, 1);
        bench
    }

    pub(crate) fn start(&mut self, workflow: Workflow, id: u128) {
        self.run = RunId(uuid::Uuid::from_u128(id));
        let start = StartRun {
            run: self.run,
            namespace: "default".to_owned(),
            workflow: Arc::new(workflow),
            version: format!("v{id}"),
            params: Json::Null,
            key: None,
            trigger: "test".to_owned(),
            interval: None,
            partition: None,
            labels: Json::Null,
            parent: None,
            priority: 0,
            extra: Json::Null,
        };
        self.apply(Command::StartRun(Box::new(start)));
    }

    pub(crate) fn apply(&mut self, command: Command) {
        self.engine.apply(command, self.now).unwrap();
        self.settle();
    }

    /// Works off everything that needs no body.
    pub(crate) fn settle(&mut self) {
        loop {
            while self.engine.work(64) {}
            let questions = self.engine.take_questions();
            if questions.is_empty() {
                break;
            }
            for q in questions {
                let name = self.engine.task_row(q.task).unwrap().name;
                let decision = (self.decide)(&q, &name);
                let _stale = self
                    .engine
                    .apply(Command::Answer { task: q.task, serial: q.serial, decision }, self.now);
            }
        }
        self.engine.check().unwrap();
        let batch = self.engine.take_batch();
        self.batches.push(batch);
        for action in self.engine.take_actions() {
            match action {
                Action::Launch(launch) => self.launched.push(launch),
                Action::Kill { launch, .. } => self.killed.push(launch),
                Action::RunEnded { .. } | Action::RunStarted { .. } => {}
            }
        }
    }

    pub(crate) fn report(&mut self, id: LaunchId, body: ReportBody) {
        self.apply(Command::Report(Report { launch: id, at: self.now.wall, body }));
    }

    pub(crate) fn end(&mut self, id: LaunchId, outcome: Outcome, cause: Cause) {
        self.report(id, finished(outcome, cause));
    }

    /// Runs bodies by the script until nothing is left to launch; timers fire in between.
    pub(crate) fn go(&mut self) {
        for _ in 0..100_000 {
            if let Some(id) = self.killed.pop() {
                let row = self.engine.task_row(id.task_id()).unwrap();
                if row.launch == id.launch && row.state.is_launched() {
                    self.launched.retain(|l| l.id != id);
                    self.end(id, Outcome::Cancelled, Cause::Hand);
                }
                continue;
            }
            if !self.launched.is_empty() {
                let launch = self.launched.remove(0);
                let row = self.engine.task_row(launch.id.task_id()).unwrap();
                self.report(launch.id, ReportBody::Started);
                let (outcome, cause) = (self.script)(&row.name, launch.attempt);
                let row = self.engine.task_row(launch.id.task_id()).unwrap();
                if row.launch == launch.id.launch && row.state.is_launched() {
                    self.end(launch.id, outcome, cause);
                }
                continue;
            }
            if let Some(due) = self.engine.next_timer() {
                self.now.engine = due;
                self.apply(Command::Tick);
                continue;
            }
            return;
        }
        panic!("does not come to rest");
    }

    pub(crate) fn state(&self) -> RunState {
        self.engine.run_row(self.run).unwrap().state
    }

    /// `name` or `name[index]` to state.
    pub(crate) fn states(&self) -> BTreeMap<String, TaskState> {
        self.engine
            .task_rows(self.run)
            .into_iter()
            .filter(|t| t.task.0 != 0)
            .map(|t| {
                let name = match t.index {
                    Some(i) => format!("{}[{i}]", t.name),
                    None => t.name,
                };
                (name, t.state)
            })
            .collect()
    }

    pub(crate) fn task(&self, name: &str) -> TaskRow {
        self.engine
            .task_rows(self.run)
            .into_iter()
            .rfind(|t| t.name == name && t.task.0 != 0 && t.index.is_none())
            .unwrap()
    }
}

pub(crate) fn finished(outcome: Outcome, cause: Cause) -> ReportBody {
    ReportBody::Finished {
        outcome,
        cause,
        message: None,
        exit_code: None,
        outputs: Vec::new(),
        skips: Vec::new(),
        jitter: 0.0,
    }
}

pub(crate) fn fails(names: &'static [&'static str]) -> Script {
    Box::new(move |name, _| {
        if names.contains(&name) {
            (Outcome::Failed, Cause::Code)
        } else {
            (Outcome::Succeeded, Cause::None)
        }
    })
}

impl Bench {
    /// The launch that owns a task now; the task must be with an executor.
    pub(crate) fn launch_of(&self, name: &str) -> LaunchId {
        let row = self.named(name);
        assert!(row.state.is_launched(), "{name} is {}", row.state);
        LaunchId { run: self.run, task: row.task, launch: row.launch }
    }

    /// The newest task of this name (`name` or `name[index]`).
    pub(crate) fn named(&self, name: &str) -> TaskRow {
        self.engine
            .task_rows(self.run)
            .into_iter()
            .rfind(|t| t.task.0 != 0 && label(t) == name)
            .unwrap_or_else(|| panic!("no task {name}"))
    }

    pub(crate) fn id(&self, name: &str) -> TaskId {
        TaskId { run: self.run, task: self.named(name).task }
    }

    pub(crate) fn started(&mut self, name: &str) {
        let id = self.launch_of(name);
        self.launched.retain(|l| l.id != id);
        self.report(id, ReportBody::Started);
    }

    pub(crate) fn ends(&mut self, name: &str, outcome: Outcome) {
        let id = self.launch_of(name);
        self.launched.retain(|l| l.id != id);
        let cause = if outcome == Outcome::Failed { Cause::Code } else { Cause::None };
        self.end(id, outcome, cause);
    }

    pub(crate) fn why(&self, name: &str) -> Vec<String> {
        self.engine.why(self.id(name)).unwrap()
    }

    /// Time passes: fires what is due then.
    pub(crate) fn after(&mut self, millis: u64) {
        self.now.engine = self.now.engine.after_millis(millis);
        self.now.wall.0 += millis as i64 * 1000;
        self.apply(Command::Tick);
    }

    pub(crate) fn refuse(&mut self, command: Command) -> String {
        let refused = self.engine.apply(command, self.now).unwrap_err().to_string();
        assert!(self.engine.take_batch().is_empty(), "a refused command changed rows");
        refused
    }

    /// A new engine that knows only the rows; open launches are listed again if not confirmed.
    pub(crate) fn restart(&mut self, workflow: &Workflow, options: EngineOptions) {
        let image = self.engine.image(self.run).unwrap();
        let mut engine = Engine::new(options);
        engine.restore_run(image, Arc::new(workflow.clone()), self.now).unwrap();
        engine.take_up(self.now);
        self.engine = engine;
        self.launched.clear();
        self.settle();
    }

    pub(crate) fn clear(&mut self, names: &[&str], downstream: bool, only_failed: bool) {
        let tasks = names.iter().map(|n| self.named(n).task).collect();
        self.apply(Command::Clear {
            run: self.run,
            tasks,
            options: kobza_engine::ClearOptions { downstream, only_failed },
        });
    }

    pub(crate) fn limit(&mut self, name: &str, capacity: u32, strict: bool) {
        self.apply(Command::SetLimit {
            name: name.to_owned(),
            capacity,
            strict,
            description: None,
        });
    }
}

fn label(task: &TaskRow) -> String {
    task.index.map_or_else(|| task.name.clone(), |i| format!("{}[{i}]", task.name))
}

pub(crate) fn retry(limit: u32) -> Option<Retry> {
    Some(Retry {
        limit,
        backoff: Backoff::default(),
        causes: Vec::new(),
        exit_codes: Vec::new(),
        ask: false,
    })
}

pub(crate) fn mapped(length: u32) -> Option<Expansion> {
    Some(Expansion {
        at: ExpansionAt::Gate,
        by: ExpansionBy::Static(length),
        zero: ZeroLength::Skipped,
        window: None,
        fail_fast: false,
    })
}

pub(crate) fn hook(name: &str, on: HookOn, call: u32) -> Hook {
    Hook {
        name: name.to_owned(),
        on,
        call: TemplateNo(call),
        affects: false,
        guard: false,
        skip_on_cancel: false,
        arguments: Json::Null,
    }
}

/// A gate that looks at nothing and says this at once.
pub(crate) fn says(then: GateVerdict) -> Gate {
    Gate::Counting(vec![GateRow { when: Condition::Always, then }])
}

/// As `says`, once everything upstream has ended.
pub(crate) fn says_when_done(then: GateVerdict) -> Gate {
    Gate::Counting(vec![GateRow { when: Condition::all_done(), then }])
}

pub(crate) fn graph_of(workflow: &mut Workflow, template: usize) -> &mut Graph {
    match &mut workflow.templates[template].body {
        TemplateBody::Graph(graph) => graph,
        TemplateBody::Leaf(_) => panic!("a leaf"),
    }
}
