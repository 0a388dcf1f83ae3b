//! One run in the real engine. Bodies are processes, run one after the other; the clock moves only
//! when nothing else can.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::Arc;

use kobza_dialect_native::{NativeDialect, Options, parse, validate_params};
use kobza_engine::{Action, Command, Engine, EngineOptions, Launch, Report, ReportBody, StartRun};
use kobza_model::{
    Cause, EngineTime, Json, LaunchId, NodeNo, Now, Outcome, RunId, RunRow, ScopeNo, ScopeRow,
    TaskId, TaskNo, TaskRow, Timestamp, Workflow,
};
use kobza_runtime::{Dialect as _, Facts, LaunchSpec};
use serde_json::json;

pub(crate) struct World {
    engine: Engine,
    run: RunId,
    now: Now,
    folder: tempfile::TempDir,
    dialect: NativeDialect,
    outputs: BTreeMap<(TaskNo, String), Arc<Json>>,
    launched: BTreeMap<String, LaunchSpec>,
    logs: BTreeMap<String, String>,
    rows: BTreeMap<TaskNo, TaskRow>,
    row: Option<RunRow>,
}

/// A task's name with its index.
pub(crate) fn label(row: &TaskRow) -> String {
    row.index.map_or_else(|| row.name.clone(), |index| format!("{}[{index}]", row.name))
}

struct View<'a> {
    world: &'a World,
    run: RunRow,
    workflow: Arc<Workflow>,
}

impl Facts for View<'_> {
    fn run(&self) -> &RunRow {
        &self.run
    }

    fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    fn now(&self) -> Timestamp {
        self.world.now.wall
    }

    fn scope(&self, scope: ScopeNo) -> Option<ScopeRow> {
        self.world.engine.scope_row(self.world.run, scope)
    }

    fn task(&self, task: TaskNo) -> Option<TaskRow> {
        self.world.engine.task_row(TaskId { run: self.world.run, task })
    }

    fn task_of(&self, scope: ScopeNo, node: NodeNo, index: Option<u32>) -> Option<TaskRow> {
        let task = self.world.engine.task_of(self.world.run, scope, node, index)?;
        self.task(task)
    }

    fn expansion(&self, scope: ScopeNo, node: NodeNo) -> Option<u32> {
        self.world.engine.expansion(self.world.run, scope, node)
    }

    fn output(&self, task: TaskNo, key: &str) -> Option<Arc<Json>> {
        self.world.outputs.get(&(task, key.to_owned())).cloned()
    }

    fn outputs(&self, task: TaskNo) -> Vec<(String, Arc<Json>)> {
        self.world
            .outputs
            .iter()
            .filter(|((t, _), _)| *t == task)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }

    fn live_runs(&self) -> Vec<RunRow> {
        vec![self.run.clone()]
    }

    fn tasks_in(&self, _: RunId, _: &str) -> Vec<TaskRow> {
        Vec::new()
    }

    fn lookup(&self, kind: &str, name: &str) -> Option<Arc<Json>> {
        let value = match (kind, name) {
            ("variable", "mode") => json!("rwc"),
            ("secret", "token") => json!("s3cret-token"),
            ("connection", "warehouse") => json!({"url": "postgres://u:hunter22@db/x"}),
            _ => return None,
        };
        Some(Arc::new(value))
    }

    fn cached(&self, key: &str) -> Option<(Timestamp, Vec<(String, Json)>)> {
        let hour_ago = self.world.now.wall.saturating_add_micros(-60_000_000);
        (key == "more/hit/k-manual" || key == "more/old/old")
            .then(|| (hour_ago, vec![("result".to_owned(), json!("cached"))]))
    }
}

impl World {
    pub(crate) fn run(source: &str, params: Json) -> Self {
        Self::run_with(source, params, &[])
    }

    pub(crate) fn run_with(source: &str, params: Json, files: &[(&str, &str)]) -> Self {
        let parsed = parse(source.as_bytes(), "f.yaml").unwrap_or_else(|errors| {
            panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        });
        let params = validate_params(&parsed.workflow, params).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let run = RunId("00000000-0000-7000-8000-000000000001".parse().unwrap());
        let start: Timestamp = "2024-01-01T00:00:00Z".parse().unwrap();
        let dialect = NativeDialect::new(Options {
            base_folder: Some(folder.path().to_owned()),
            ..Options::default()
        });
        let mut world = Self {
            engine: Engine::new(EngineOptions::default()),
            run,
            now: Now { wall: start, engine: EngineTime(1) },
            folder,
            dialect,
            outputs: BTreeMap::new(),
            launched: BTreeMap::new(),
            logs: BTreeMap::new(),
            rows: BTreeMap::new(),
            row: None,
        };
        let command = Command::StartRun(Box::new(StartRun {
            run,
            namespace: "default".to_owned(),
            workflow: Arc::new(parsed.workflow),
            version: "v".to_owned(),
            params,
            key: None,
            trigger: "manual".to_owned(),
            interval: Some((start, start)),
            partition: None,
            labels: Json::Null,
            parent: None,
            priority: 0,
            extra: Json::Null,
        }));
        world.apply(command);
        world.go();
        world
    }

    fn apply(&mut self, command: Command) {
        self.engine.apply(command, self.now).unwrap();
        while self.engine.work(10_000) {}
        let batch = self.engine.take_batch();
        for dropped in batch.dropped_outputs {
            self.outputs.retain(|(task, _), _| *task != dropped.task);
        }
        for output in batch.outputs {
            self.outputs.insert((output.task, output.key), Arc::new(output.value));
        }
        for row in batch.tasks {
            self.rows.insert(row.task, row);
        }
        self.row = batch.runs.into_iter().next_back().or(self.row.take());
    }

    fn view(&self) -> View<'_> {
        View {
            world: self,
            run: self.row.clone().unwrap(),
            workflow: self.engine.workflow(self.run).unwrap().clone(),
        }
    }

    fn go(&mut self) {
        for _ in 0..10_000 {
            self.engine.check().unwrap();
            let questions = self.engine.take_questions();
            let actions = self.engine.take_actions();
            if questions.is_empty() && actions.is_empty() {
                let over = self.row.as_ref().is_some_and(|row| row.state.is_finished());
                match self.engine.next_timer().filter(|_| !over) {
                    Some(due) => {
                        self.now.engine = due;
                        self.apply(Command::Tick);
                        continue;
                    }
                    None => return,
                }
            }
            for question in questions {
                let decision = self.dialect.decide(&question, &self.view());
                self.apply(Command::Answer {
                    task: question.task,
                    serial: question.serial,
                    decision,
                });
            }
            for action in actions {
                if let Action::Launch(launch) = action {
                    self.launch(&launch);
                }
            }
        }
        panic!("the run does not end: {:?}", self.rows);
    }

    fn launch(&mut self, launch: &Launch) {
        let answer = self.dialect.launch(launch, &self.view());
        let name = label(&self.rows[&launch.id.task]);
        let (executor, spec) = match answer {
            Ok(found) => found,
            Err(message) => {
                return self.report(
                    launch.id,
                    Outcome::Failed,
                    Cause::Template,
                    Some(message),
                    None,
                    Vec::new(),
                );
            }
        };
        assert_eq!(executor, "process", "{name}");
        self.launched.insert(name.clone(), spec.clone());
        if spec.program.starts_with('@')
            || spec.folder.as_ref().is_some_and(|f| !Path::new(f).exists())
        {
            return self.report(
                launch.id,
                Outcome::Succeeded,
                Cause::Code,
                None,
                Some(0),
                Vec::new(),
            );
        }
        let output = self.folder.path().join(format!("output-{}", launch.id));
        let mut child = Process::new(&spec.program)
            .args(&spec.args)
            .envs(spec.env.iter().cloned())
            .env("KOBZA_OUTPUT", &output)
            .current_dir(spec.folder.as_deref().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let text = spec.stdin.unwrap_or_default();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&done.stderr).into_owned();
        self.logs.insert(name, log.clone());
        let code = done.status.code().unwrap();
        let mut outputs: Vec<(String, Json)> = match std::fs::read_to_string(&output) {
            Ok(text) => {
                let found: serde_json::Map<String, Json> = serde_json::from_str(&text).unwrap();
                found.into_iter().collect()
            }
            Err(_) => Vec::new(),
        };
        let stdout = String::from_utf8(done.stdout).unwrap();
        if outputs.is_empty()
            && spec.capture_result
            && let Some(last) = stdout.lines().last()
        {
            outputs.push(("result".to_owned(), json!(last)));
        }
        let outcome = match code {
            0 => Outcome::Succeeded,
            code if spec.skip_exit_codes.contains(&code) => Outcome::Skipped,
            _ => Outcome::Failed,
        };
        self.report(launch.id, outcome, Cause::Code, Some(log), Some(code), outputs);
    }

    fn report(
        &mut self,
        launch: LaunchId,
        outcome: Outcome,
        cause: Cause,
        message: Option<String>,
        exit_code: Option<i32>,
        outputs: Vec<(String, Json)>,
    ) {
        let at = self.now.wall;
        self.apply(Command::Report(Report { launch, at, body: ReportBody::Started }));
        let body = ReportBody::Finished {
            outcome,
            cause,
            message,
            exit_code,
            outputs,
            skips: Vec::new(),
            jitter: 0.0,
        };
        self.apply(Command::Report(Report { launch, at, body }));
    }

    pub(crate) fn state(&self) -> &'static str {
        self.row.as_ref().unwrap().state.as_str()
    }

    pub(crate) fn tasks(&self) -> Vec<TaskRow> {
        self.rows.values().cloned().collect()
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.rows
            .values()
            .filter_map(|row| Some(format!("{}: {}", label(row), row.message.as_ref()?)))
            .collect()
    }

    /// Results of all tasks of this name.
    pub(crate) fn results(&self, name: &str) -> Vec<Json> {
        self.rows
            .values()
            .filter(|row| label(row) == name)
            .filter_map(|row| self.outputs.get(&(row.task, "result".to_owned())))
            .map(|value| Json::clone(value))
            .collect()
    }

    pub(crate) fn result(&self, name: &str) -> Json {
        let all = self.results(name);
        assert_eq!(all.len(), 1, "{name}: {:?}", self.messages());
        all[0].clone()
    }

    pub(crate) fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.path().join(name)).ok()
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub(crate) fn launched(&self, name: &str) -> LaunchSpec {
        self.launched.get(name).cloned().unwrap_or_else(|| panic!("{name}: {:?}", self.messages()))
    }

    pub(crate) fn log(&self, name: &str) -> &str {
        &self.logs[name]
    }
}
