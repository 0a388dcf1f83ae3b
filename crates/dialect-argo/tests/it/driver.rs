//! Runs a workflow on the engine alone, bodies given by a function.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kobza_dialect_argo::exec::Report as Ended;
use kobza_dialect_argo::{
    ArgoDialect, ArgoSettings, CompileOptions, ExecSpec, Kind, Library, Object, RunData, compile,
};
use kobza_engine::{
    Action, Command, Engine, EngineOptions, Launch, Report, ReportBody, StartRun, StopMode,
};
use kobza_model::*;
use kobza_runtime::{Dialect as _, Facts};

/// Objects of a namespace.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) objects: Vec<Object>,
}

impl Shelf {
    fn find(&self, kind: Kind, name: &str) -> Option<Arc<Json>> {
        let found = self.objects.iter().find(|o| o.kind == kind && o.name() == Some(name))?;
        Some(Arc::new(found.json.clone()))
    }
}

impl Library for Shelf {
    fn workflow_template(&self, name: &str) -> Option<Arc<Json>> {
        self.find(Kind::WorkflowTemplate, name)
    }

    fn cluster_workflow_template(&self, name: &str) -> Option<Arc<Json>> {
        self.find(Kind::ClusterWorkflowTemplate, name)
    }
}

pub(crate) type Body = Box<dyn FnMut(&ExecSpec) -> Ended>;

pub(crate) struct Driver {
    pub(crate) engine: Engine,
    pub(crate) dialect: ArgoDialect,
    pub(crate) run: RunId,
    pub(crate) now: Now,
    pub(crate) body: Body,
    pub(crate) shelf: Shelf,
    pub(crate) outputs: BTreeMap<TaskNo, BTreeMap<String, Arc<Json>>>,
    pub(crate) attempts: Vec<TaskRow>,
    pub(crate) launched: Vec<Launch>,
    pub(crate) cache: BTreeMap<String, (Timestamp, Vec<(String, Json)>)>,
    killed: Vec<LaunchId>,
    pub(crate) stop_after: Option<(String, StopMode)>,
}

struct Seen<'a> {
    driver: &'a Driver,
    row: &'a RunRow,
    workflow: &'a Arc<Workflow>,
}

impl Facts for Seen<'_> {
    fn run(&self) -> &RunRow {
        self.row
    }
    fn workflow(&self) -> &Arc<Workflow> {
        self.workflow
    }
    fn now(&self) -> Timestamp {
        self.driver.now.wall
    }
    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow> {
        self.driver.engine.scope_row(self.row.run, scope)
    }
    fn task(&self, task: TaskNo) -> Option<TaskRow> {
        self.driver.engine.task_row(TaskId { run: self.row.run, task })
    }
    fn task_of(&self, scope: ScopeNo, node: NodeNo, index: Option<u32>) -> Option<TaskRow> {
        self.task(self.driver.engine.task_of(self.row.run, scope, node, index)?)
    }
    fn expansion(&self, scope: ScopeNo, node: NodeNo) -> Option<u32> {
        self.driver.engine.expansion(self.row.run, scope, node)
    }
    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Json>> {
        self.driver.outputs.get(&task)?.get(key).cloned()
    }
    fn outputs(&self, task: TaskNo) -> Vec<(String, Arc<Json>)> {
        let outputs = self.driver.outputs.get(&task);
        outputs.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
    }
    fn live_runs(&self) -> Vec<RunRow> {
        vec![self.row.clone()]
    }

    fn tasks_in(&self, _: RunId, _: &str) -> Vec<TaskRow> {
        Vec::new()
    }

    fn lookup(&self, kind: &str, name: &str) -> Option<Arc<Json>> {
        let kind = if kind == "secret" { Kind::Secret } else { Kind::ConfigMap };
        self.driver.shelf.find(kind, name)
    }
    fn cached(&self, key: &str) -> Option<(Timestamp, Vec<(String, Json)>)> {
        self.driver.cache.get(key).cloned()
    }
}

impl Driver {
    /// Compiles the object and starts it; nothing runs yet.
    pub(crate) fn new(shelf: Shelf, object: &Object, params: &[(&str, &str)], body: Body) -> Self {
        let options = CompileOptions {
            namespace: "argo".to_owned(),
            parameters: params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let workflow = compile(object, &shelf, &options).unwrap_or_else(|e| panic!("{e}"));
        let settings = ArgoSettings {
            program: "kobza".to_owned(),
            isolate: true,
            artifacts: PathBuf::from("/nonexistent"),
            ..ArgoSettings::default()
        };
        let run = RunId(uuid::Uuid::from_u128(7));
        let mut driver = Self {
            engine: Engine::new(EngineOptions { depth: 250, ..EngineOptions::default() }),
            dialect: ArgoDialect::new(settings),
            run,
            now: Now { wall: Timestamp(1_700_000_000_000_000), engine: EngineTime(0) },
            body,
            shelf,
            outputs: BTreeMap::new(),
            attempts: Vec::new(),
            launched: Vec::new(),
            cache: BTreeMap::new(),
            killed: Vec::new(),
            stop_after: None,
        };
        let start = StartRun {
            run,
            namespace: "argo".to_owned(),
            version: "v".to_owned(),
            params: params.iter().map(|(k, v)| ((*k).to_owned(), Json::from(*v))).collect(),
            key: Some("wf".to_owned()),
            trigger: "api".to_owned(),
            interval: None,
            partition: None,
            labels: Json::Null,
            parent: None,
            priority: 0,
            extra: serde_json::json!({ "argo": { "name": "wf" } }),
            workflow: Arc::new(workflow),
        };
        driver.apply(Command::StartRun(Box::new(start)));
        driver
    }

    pub(crate) fn apply(&mut self, command: Command) {
        self.engine.apply(command, self.now).expect("a command");
        self.settle();
    }

    fn keep_outputs(&mut self) {
        for row in self.engine.fresh_outputs().to_vec() {
            self.outputs.entry(row.task).or_default().insert(row.key, Arc::new(row.value));
        }
    }

    fn settle(&mut self) {
        loop {
            while self.engine.work(64) {}
            self.keep_outputs();
            let questions = self.engine.take_questions();
            if questions.is_empty() {
                break;
            }
            for question in questions {
                let row = self.engine.run_row(self.run).expect("the run").clone();
                let workflow = self.engine.workflow(self.run).expect("the workflow").clone();
                let seen = Seen { driver: self, row: &row, workflow: &workflow };
                let decision = self.dialect.decide(&question, &seen);
                let _stale = self.engine.apply(
                    Command::Answer { task: question.task, serial: question.serial, decision },
                    self.now,
                );
            }
        }
        self.engine.check().expect("a sound engine");
        self.keep_outputs();
        let batch = self.engine.take_batch();
        for id in &batch.dropped_outputs {
            if !batch.outputs.iter().any(|o| o.task == id.task) {
                self.outputs.remove(&id.task);
            }
        }
        for task in &batch.tasks {
            if task.state == TaskState::Succeeded
                && task.cause != Cause::Cache
                && let Some(key) = task.inputs["$cache_key"].as_str()
            {
                let outputs = self.outputs.get(&task.task).cloned().unwrap_or_default();
                let outputs = outputs.into_iter().map(|(k, v)| (k, (*v).clone())).collect();
                self.cache.insert(key.to_owned(), (self.now.wall, outputs));
            }
        }
        self.attempts.extend(batch.attempts);
        for action in self.engine.take_actions() {
            match action {
                Action::Launch(launch) => self.launched.push(launch),
                Action::Kill { launch, .. } => self.killed.push(launch),
                Action::RunEnded { .. } | Action::RunStarted { .. } => {}
            }
        }
    }

    fn advance(&mut self, micros: i64) {
        self.now.wall.0 += micros;
        self.now.engine.0 += micros;
    }

    fn report(&mut self, launch: LaunchId, body: ReportBody) {
        let at = self.now.wall;
        self.apply(Command::Report(Report { launch, at, body }));
    }

    /// Runs bodies until nothing is left to do; timers fire when nothing else moves.
    pub(crate) fn go(&mut self) {
        for _ in 0..200_000 {
            self.advance(1000);
            if let Some(id) = self.killed.pop() {
                let row = self.engine.task_row(id.task_id()).expect("a task");
                if row.launch == id.launch && row.state.is_launched() {
                    self.launched.retain(|l| l.id != id);
                    self.end(id, Ended { exit_code: 143, ..Ended::default() }, true);
                }
                continue;
            }
            if !self.launched.is_empty() {
                let launch = self.launched.remove(0);
                self.one(&launch);
                continue;
            }
            match self.engine.next_timer() {
                Some(due) => {
                    let step = (due.0 - self.now.engine.0).max(0);
                    self.advance(step);
                    self.apply(Command::Tick);
                }
                None => return,
            }
        }
        panic!("does not come to rest");
    }

    fn one(&mut self, launch: &Launch) {
        let row = self.engine.run_row(self.run).expect("the run").clone();
        let workflow = self.engine.workflow(self.run).expect("the workflow").clone();
        let task = self.engine.task_row(launch.id.task_id()).expect("a task");
        let daemon = self.engine.scope_row(self.run, task.scope).is_some_and(|scope| {
            let TemplateBody::Graph(graph) = &workflow.templates[scope.template.index()].body
            else {
                return false;
            };
            task.node.is_some_and(|n| graph.nodes[n.index()].daemon)
        });
        let seen = Seen { driver: self, row: &row, workflow: &workflow };
        let rendered = self.dialect.launch(launch, &seen);
        let spec = match rendered {
            Ok((name, spec)) => {
                assert_eq!(name, "process");
                let text = spec.stdin.expect("a description");
                serde_json::from_str::<ExecSpec>(&text).expect("a description")
            }
            Err(message) => {
                let body = ReportBody::Finished {
                    outcome: Outcome::Failed,
                    cause: Cause::Template,
                    message: Some(message),
                    exit_code: None,
                    outputs: Vec::new(),
                    skips: Vec::new(),
                    jitter: 0.0,
                };
                self.report(launch.id, body);
                return;
            }
        };
        self.report(launch.id, ReportBody::Started);
        if let Some((name, mode)) = self.stop_after.clone()
            && spec.node == name
        {
            self.stop_after = None;
            self.apply(Command::StopRun { run: self.run, mode, reason: String::new() });
            return;
        }
        if daemon {
            return;
        }
        let ended = (self.body)(&spec);
        self.advance(1000);
        let row = self.engine.task_row(launch.id.task_id()).expect("a task");
        if row.launch == launch.id.launch && row.state.is_launched() {
            self.end(launch.id, ended, false);
        }
    }

    fn end(&mut self, launch: LaunchId, ended: Ended, killed: bool) {
        let good = ended.exit_code == 0;
        let body = ReportBody::Finished {
            outcome: match (good, killed) {
                (true, _) => Outcome::Succeeded,
                (false, true) => Outcome::Cancelled,
                (false, false) => Outcome::Failed,
            },
            cause: if good || killed { Cause::None } else { Cause::Code },
            message: ended.message,
            exit_code: Some(ended.exit_code),
            outputs: ended.outputs.into_iter().collect(),
            skips: Vec::new(),
            jitter: 0.0,
        };
        self.report(launch, body);
    }

    pub(crate) fn data(&self) -> RunData {
        let image = self.engine.image(self.run).expect("the run");
        RunData {
            written: Json::Null,
            run: image.run,
            workflow: self.engine.workflow(self.run).expect("the workflow").clone(),
            tasks: image.tasks,
            scopes: image.scopes,
            attempts: self.attempts.clone(),
            outputs: self.outputs.clone(),
        }
    }

    /// Node name to phase and type.
    pub(crate) fn nodes(&self) -> BTreeMap<String, (String, String)> {
        kobza_dialect_argo::nodes(&self.data())
            .into_values()
            .map(|node| {
                let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
                (text("name"), (text("phase"), text("type")))
            })
            .collect()
    }

    pub(crate) fn phase(&self) -> &'static str {
        kobza_dialect_argo::workflow_phase(&self.data())
    }
}

/// The first object of a text that can be submitted; the others go on the shelf.
pub(crate) fn read(text: &str) -> (Shelf, Object) {
    let objects = kobza_dialect_argo::parse(text).unwrap_or_else(|all| {
        panic!("{}", all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    });
    let place = objects.iter().position(|o| o.kind == Kind::Workflow).unwrap_or(0);
    let object = objects[place].clone();
    (Shelf { objects }, object)
}

pub(crate) fn ok() -> Ended {
    Ended::default()
}
