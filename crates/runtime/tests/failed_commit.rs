//! A commit that fails, or whose fate is unknown: what executors have reported is not forgotten.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use kobza_engine::{
    Command, Decision, EngineOptions, KillReason, Launch, Question, Report, ReportBody, StartRun,
};
use kobza_model::*;
use kobza_runtime::{
    Dialect, Executor, ExecutorName, Facts, LaunchSpec, ReportSink, Runtime, RuntimeOptions,
    Submission, wall_now,
};
use kobza_store::{Fault, SqliteOptions, SqliteStore, Store, Write};

const PATIENCE: Duration = Duration::from_secs(60);

struct Plain;

impl Dialect for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn decide(&self, _: &Question, _: &dyn Facts) -> Decision {
        Decision::Run { inputs: Json::Null }
    }

    fn launch(&self, _: &Launch, _: &dyn Facts) -> Result<(ExecutorName, LaunchSpec), String> {
        Ok(("hand", LaunchSpec::default()))
    }
}

/// Launches go to the test, which reports each once.
struct Hand(Sender<LaunchId>);

impl Executor for Hand {
    fn launch(&self, launch: LaunchId, _: LaunchSpec) {
        self.0.send(launch).unwrap();
    }

    fn kill(&self, _: LaunchId, _: KillReason) {}

    fn adopt(&self, _: Vec<LaunchId>) {}
}

fn start(run: RunId) -> StartRun {
    let work = Leaf { kind: "work".to_owned(), spec: Json::Null };
    let node = Node {
        name: "a".to_owned(),
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
    };
    let graph = Graph {
        nodes: vec![node],
        verdict: Verdict::default(),
        parallelism: None,
        outputs: false,
        spec: Json::Null,
    };
    let workflow = Workflow {
        name: "w".to_owned(),
        dialect: "plain".to_owned(),
        templates: vec![
            Template { name: "work".to_owned(), body: TemplateBody::Leaf(work) },
            Template { name: "main".to_owned(), body: TemplateBody::Graph(graph) },
        ],
        entry: TemplateNo(1),
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
    };
    StartRun {
        run,
        namespace: "default".to_owned(),
        workflow: Arc::new(workflow),
        version: "1".to_owned(),
        params: Json::Null,
        key: None,
        trigger: "test".to_owned(),
        interval: None,
        partition: None,
        labels: Json::Null,
        parent: None,
        priority: 0,
        extra: Json::Null,
    }
}

fn a_report_survives(fault: Fault) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap());
    let (handle, inbox) = kobza_runtime::channel();
    let (to, launches) = channel();
    let executor: Arc<dyn Executor> = Arc::new(Hand(to));
    let options = RuntimeOptions {
        engine: EngineOptions::default(),
        owner: "test".to_owned(),
        store: store.clone(),
        dialects: vec![Arc::new(Plain)],
        lookup: None,
    };
    let executors = BTreeMap::from([("hand", executor)]);
    let runtime = Runtime::start(options, &handle, inbox, executors).unwrap();
    let run = RunId(uuid::Uuid::now_v7());
    let start = start(run);
    let writes = vec![Write::PutWorkflow {
        namespace: start.namespace.clone(),
        version: start.version.clone(),
        workflow: start.workflow.clone(),
        source: None,
    }];
    let commands = vec![Command::StartRun(Box::new(start))];
    handle.submit_blocking(Submission { commands, writes }).unwrap();
    let launch = launches.recv_timeout(PATIENCE).unwrap();
    store.inject(fault);
    let (durable, told) = channel();
    let body = ReportBody::Finished {
        outcome: Outcome::Succeeded,
        cause: Cause::None,
        message: None,
        exit_code: None,
        outputs: Vec::new(),
        skips: Vec::new(),
        jitter: 0.0,
    };
    let report = Report { launch, at: wall_now(), body };
    handle.report(report, Box::new(move || durable.send(()).unwrap()));
    told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(store.run_image(run).unwrap().unwrap().run.state, RunState::Succeeded);
    handle.stop();
    runtime.join().unwrap();
}

#[test]
fn a_report_survives_a_commit_that_did_not_happen() {
    a_report_survives(Fault::UnknownBefore);
}

#[test]
fn a_report_survives_a_commit_that_happened_unheard() {
    a_report_survives(Fault::UnknownAfter);
}
