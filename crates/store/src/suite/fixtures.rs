//! Rows to write: each field filled with something that is not its default.

use std::sync::Arc;

use kobza_engine::Batch;
use kobza_model::{
    Cause, EngineTime, Event, EventKind, ExpansionRow, Graph, Json, LimitRow, MachineRow, NodeNo,
    OutputRow, RunId, RunRow, RunState, ScopeNo, ScopeRow, TaskId, TaskNo, TaskRow, TaskState,
    Template, TemplateBody, TemplateNo, Timestamp, Verdict, Workflow,
};
use serde_json::json;

use crate::{Commit, Write};

/// The n-th run's id.
#[must_use]
pub fn run_id(n: u32) -> RunId {
    RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | u128::from(n)))
}

/// The second `seconds` of the tests' time.
#[must_use]
pub fn second(seconds: i64) -> Timestamp {
    Timestamp(1_700_000_000_000_000 + seconds * 1_000_000)
}

/// The n-th run, created in second n, of workflow `orders`; nothing rare in it.
#[must_use]
pub fn plain_run(n: u32, state: RunState) -> RunRow {
    let finished = state.is_finished();
    RunRow {
        run: run_id(n),
        namespace: "default".into(),
        workflow: "orders".into(),
        version: "ab".repeat(32),
        dialect: "native".into(),
        state,
        cause: Cause::None,
        message: None,
        created_at: second(i64::from(n)),
        started_at: Some(second(i64::from(n))),
        ended_at: finished.then(|| second(i64::from(n) + 1)),
        params: Json::Null,
        key: None,
        trigger: "manual".into(),
        interval_start: None,
        interval_end: None,
        partition: None,
        labels: Json::Null,
        parent: None,
        priority: 0,
        generation: 0,
        paused_from: None,
        deadline: None,
        stop: None,
        counts: vec![1, 0, 3],
        extra: Json::Null,
    }
}

/// A run with something in every field.
#[must_use]
pub fn full_run(n: u32) -> RunRow {
    RunRow {
        state: RunState::Paused,
        cause: Cause::Hand,
        message: Some("held by Zoë".into()),
        ended_at: Some(second(500)),
        params: json!({"region": "eu", "n": 1.5, "list": [1, null, "x"]}),
        key: Some(format!("scheduled__{n}")),
        trigger: "schedule".into(),
        interval_start: Some(second(10)),
        interval_end: Some(second(20)),
        partition: Some("2026-01-01".into()),
        labels: json!({"team": "ops", "tags": ["a", "b"]}),
        parent: Some(TaskId { run: run_id(9999), task: TaskNo(7) }),
        priority: -3,
        generation: 2,
        paused_from: Some(RunState::Running),
        deadline: Some(EngineTime(77)),
        stop: Some("asked".into()),
        extra: json!({"note": {"a": [true]}}),
        ..plain_run(n, RunState::Paused)
    }
}

/// A task with nothing rare.
#[must_use]
pub fn plain_task(run: RunId, task: u32, state: TaskState) -> TaskRow {
    TaskRow {
        run,
        task: TaskNo(task),
        scope: ScopeNo(0),
        node: Some(NodeNo(task)),
        template: TemplateNo(1),
        name: format!("step{task}"),
        index: None,
        summary: false,
        parent: None,
        hook: None,
        state,
        settled: state.is_finished(),
        cause: Cause::None,
        message: None,
        attempt: 1,
        attempts_before: 0,
        launch: 1,
        lost: 0,
        confirmed: true,
        exit_code: None,
        priority: 0,
        created_at: second(1),
        ready_at: Some(second(1)),
        started_at: Some(second(2)),
        ended_at: state.is_finished().then(|| second(3)),
        first_started: None,
        due: None,
        kill: None,
        child: None,
        skips: Vec::new(),
        inputs: Json::Null,
        carry: Json::Null,
        extra: Json::Null,
    }
}

/// A task with something in every field.
#[must_use]
pub fn full_task(run: RunId, task: u32) -> TaskRow {
    TaskRow {
        scope: ScopeNo(4),
        node: None,
        template: TemplateNo(6),
        name: "перевірка 🚀".into(),
        index: Some(123_456),
        summary: true,
        parent: Some(TaskNo(2)),
        hook: Some(3),
        state: TaskState::Cancelling,
        settled: true,
        cause: Cause::Timeout,
        message: Some("too slow\nby far".into()),
        attempt: 3,
        attempts_before: 2,
        launch: 5,
        lost: 1,
        exit_code: Some(-9),
        priority: -4,
        ended_at: Some(second(9)),
        first_started: Some(EngineTime(5)),
        due: Some(EngineTime(6)),
        kill: Some(Cause::Hand),
        child: Some(ScopeNo(8)),
        skips: vec![NodeNo(1), NodeNo(3)],
        inputs: json!({"day": "2026-01-01"}),
        carry: json!({"cursor": 12}),
        extra: json!(["x"]),
        ..plain_task(run, task, TaskState::Running)
    }
}

/// A batch with a row in every table.
#[must_use]
pub fn full_batch(n: u32) -> Batch {
    let run = run_id(n);
    Batch {
        runs: vec![full_run(n)],
        tasks: vec![
            plain_task(run, 0, TaskState::Succeeded),
            full_task(run, 1),
            plain_task(run, 2, TaskState::Pending),
        ],
        scopes: vec![scope(run, 0, None, false), scope(run, 4, Some(TaskNo(1)), true)],
        expansions: vec![ExpansionRow {
            run,
            scope: ScopeNo(4),
            node: NodeNo(2),
            length: 1_000_000,
            made: 17,
        }],
        outputs: vec![
            output(run, 0, "result", json!({"rows": 3})),
            output(run, 0, "nothing", Json::Null),
        ],
        attempts: vec![full_task(run, 1)],
        dropped_outputs: vec![],
        removed_tasks: vec![],
        limits: vec![LimitRow {
            name: format!("pool{n}"),
            capacity: 5,
            strict: true,
            description: Some("a pool".into()),
        }],
        removed_limits: vec![],
        machine: vec![MachineRow { run, key: vec![0, 255], value: Some(vec![1, 2, 0]) }],
        events: vec![run_event(n), event(n, EventKind::Expanded { length: 3 })],
    }
}

/// One activation.
#[must_use]
pub fn scope(run: RunId, scope: u32, owner: Option<TaskNo>, finished: bool) -> ScopeRow {
    let (template, attempt) = (TemplateNo(2), 1);
    ScopeRow { run, scope: ScopeNo(scope), template, owner, attempt, finished }
}

/// One output.
#[must_use]
pub fn output(run: RunId, task: u32, key: &str, value: Json) -> OutputRow {
    OutputRow { run, task: TaskNo(task), key: key.into(), value }
}

/// An event of the n-th run.
#[must_use]
pub fn event(n: u32, kind: EventKind) -> Event {
    Event { at: second(i64::from(n)), run: Some(run_id(n)), task: Some(TaskNo(1)), kind }
}

/// The n-th run has started.
#[must_use]
pub fn run_event(n: u32) -> Event {
    event(n, EventKind::Run { state: RunState::Running, cause: Cause::None })
}

/// A commit of a batch, in second `at` of both clocks.
#[must_use]
pub fn commit(at: i64, engine: Batch) -> Commit {
    Commit { engine, writes: Vec::new(), engine_time: EngineTime(at), at: second(at) }
}

/// A commit of writes that are not the engine's.
#[must_use]
pub fn writes(at: i64, writes: Vec<Write>) -> Commit {
    Commit { writes, ..commit(at, Batch::default()) }
}

/// A batch of runs only.
#[must_use]
pub fn runs(rows: Vec<RunRow>) -> Batch {
    Batch { runs: rows, ..Batch::default() }
}

/// A small definition.
#[must_use]
pub fn workflow(name: &str, description: &str) -> Arc<Workflow> {
    Arc::new(Workflow {
        name: name.into(),
        dialect: "native".into(),
        templates: vec![Template {
            name: "main".into(),
            body: TemplateBody::Graph(Graph {
                nodes: Vec::new(),
                verdict: Verdict::default(),
                parallelism: None,
                outputs: false,
                spec: Json::Null,
            }),
        }],
        entry: TemplateNo(0),
        description: Some(description.into()),
        tags: vec!["daily".into()],
        params: json!({"type": "object"}),
        timeout_ms: None,
        max_active_runs: Some(1),
        hooks: Vec::new(),
        open: false,
        backfills_apart: false,
        triggers: Json::Null,
        source: Json::Null,
    })
}

/// `PutWorkflow` of [`workflow`] with its description as the version.
#[must_use]
pub fn put_workflow(namespace: &str, name: &str, version: &str) -> Write {
    Write::PutWorkflow {
        namespace: namespace.into(),
        version: version.into(),
        workflow: workflow(name, version),
        source: Some(format!("name: {name}\n# {}", "filler ".repeat(100))),
    }
}
