//! The service with the real loop and a real store; only the wall clock is ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use kobza_engine::{Command, EngineOptions};
use kobza_model::{
    Gate, Graph, Json, Leaf, RunRow, RunState, TaskId, TaskState, Template, TemplateBody,
    TemplateNo, Timestamp, Verdict, Workflow,
};
use kobza_runtime::{Handle, Runtime, RuntimeOptions, Submission, channel};
use kobza_store::{RunFilter, SqliteOptions, SqliteStore, TaskFilter, Views, Write};
use kobza_triggers::backfill::{BackfillSpec, BackfillState};
use kobza_triggers::service::{BackfillAction, TriggerError, TriggerHandle, TriggerOptions, start};
use kobza_triggers::{EventBody, SlotOutcome, TriggerEvent};
use serde_json::json;

use crate::support::{at, key};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    folder: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    runtime: Handle,
    looped: Runtime,
    store: Arc<SqliteStore>,
    pub(crate) triggers: TriggerHandle,
}

pub(crate) fn workflow(name: &str, kind: &str, triggers: Json) -> Workflow {
    let node = json!({"name": "t", "call": 0, "gate": Gate::all_succeeded(), "produces": ["made"]});
    let leaf = Leaf { kind: kind.to_owned(), spec: Json::Null };
    let graph = Graph {
        nodes: vec![serde_json::from_value(node).unwrap()],
        verdict: Verdict::default(),
        parallelism: None,
        outputs: false,
        spec: Json::Null,
    };
    Workflow {
        name: name.to_owned(),
        dialect: "native".to_owned(),
        templates: vec![
            Template { name: "leaf".to_owned(), body: TemplateBody::Leaf(leaf) },
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
        triggers,
        source: Json::Null,
    }
}

impl World {
    pub(crate) fn new(now: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::open(folder, Arc::new(AtomicI64::new(at(now).0)))
    }

    fn open(folder: tempfile::TempDir, clock: Arc<AtomicI64>) -> Self {
        let store = Arc::new(SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap());
        let (runtime, inbox) = channel();
        let options = RuntimeOptions {
            engine: EngineOptions::default(),
            owner: "test".to_owned(),
            store: store.clone(),
            dialects: Vec::new(),
            lookup: None,
        };
        let looped = Runtime::start(options, &runtime, inbox, BTreeMap::new()).unwrap();
        let wall = clock.clone();
        let options = TriggerOptions {
            timetables: crate::timetables::dialects(),
            runtime: runtime.clone(),
            views: store.clone(),
            prepare: Arc::new(|_, params| match params.get("bad") {
                Some(_) => Err("the parameter bad is not known".to_owned()),
                None => Ok(params),
            }),
            starters: BTreeMap::new(),
            clock: Arc::new(move || Timestamp(wall.load(Ordering::SeqCst))),
        };
        let triggers = start(options).unwrap();
        Self { folder, clock, runtime, looped, store, triggers }
    }

    /// Ends all threads and begins again from the store.
    pub(crate) async fn restart(self) -> Self {
        self.triggers.stop().await;
        self.runtime.stop();
        let Self { folder, clock, looped, store, .. } = self;
        tokio::task::spawn_blocking(move || looped.join().unwrap()).await.unwrap();
        drop(store);
        Self::open(folder, clock)
    }

    pub(crate) async fn put(&self, workflow: Workflow) {
        let (name, triggers) = (workflow.name.clone(), workflow.triggers.clone());
        let write = Write::PutWorkflow {
            namespace: "default".to_owned(),
            version: format!("{name}-1"),
            workflow: Arc::new(workflow),
            source: None,
        };
        let submission = Submission { commands: Vec::new(), writes: vec![write] };
        self.runtime.submit(submission).await.unwrap();
        self.triggers.set_workflow("default", &name, &triggers).await.unwrap();
    }

    /// Sets the wall clock and wakes the service.
    pub(crate) async fn set(&self, now: &str) {
        self.clock.store(at(now).0, Ordering::SeqCst);
        self.triggers.list(None).await.unwrap();
    }

    pub(crate) fn runs(&self, workflow: &str) -> Vec<RunRow> {
        let filter = RunFilter { workflow: Some(workflow.to_owned()), ..RunFilter::default() };
        let mut rows = self.store.list_runs(&filter, None, 1000).unwrap().items;
        rows.sort_by_key(|row| row.interval_end);
        rows
    }

    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < deadline, "waiting for {what}");
            // Whatever we wait for comes after the service's next turn.
            self.triggers.list(Some("nobody")).await.unwrap();
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn succeed(&self, run: &RunRow) {
        let waiting = TaskFilter { states: vec![TaskState::Suspended], ..TaskFilter::default() };
        let tasks = self.store.list_tasks(run.run, &waiting, None, 10).unwrap().items;
        let task = TaskId { run: run.run, task: tasks[0].task };
        let resume = Command::ResumeTask { task, outputs: Some(Vec::new()), carry: None };
        self.runtime.submit(resume).await.unwrap();
    }
}

fn all_ended(runs: &[RunRow]) -> bool {
    runs.iter().all(|run| run.state.is_finished())
}

#[tokio::test]
async fn a_schedule_over_a_restart() {
    let world = World::new("2026-01-01T00:30:00Z");
    world.put(workflow("w", "noop", json!({"cron": "0 * * * *", "catchup": true}))).await;
    world.set("2026-01-01T01:00:01Z").await;
    world.until("the first run", |w| (w.runs("w").len() == 1).then_some(())).await;
    let world = world.restart().await;
    world.set("2026-01-01T03:00:00Z").await;
    let runs = world.until("two more", |w| Some(w.runs("w")).filter(|r| r.len() == 3)).await;
    let keys: Vec<_> = runs.iter().filter_map(|run| run.key.clone()).collect();
    let slot = |hour: u8| format!("trigger:schedule@2026-01-01T0{hour}:00:00Z");
    assert_eq!(keys, [slot(1), slot(2), slot(3)]);
    assert_eq!(runs[2].interval_start, Some(at("2026-01-01T02:00:00Z")));
    let view = world.triggers.list(None).await.unwrap().remove(0);
    assert_eq!(view.next, Some(at("2026-01-01T04:00:00Z")));
    world.triggers.set_paused(&key("schedule"), true).await.unwrap();
    let missing = world.triggers.set_paused(&key("other"), true).await;
    assert!(matches!(missing, Err(TriggerError::Missing(_))));
    let world = world.restart().await;
    world.set("2026-01-01T05:00:00Z").await;
    assert!(world.triggers.list(None).await.unwrap()[0].row.paused);
    assert_eq!(world.runs("w").len(), 3);
}

#[tokio::test]
async fn runs_assets_and_events_start_runs() {
    let world = World::new("2026-01-01T00:00:00Z");
    world.put(workflow("first", "noop", json!({"event": "go"}))).await;
    world.put(workflow("after", "noop", json!({"run": "first"}))).await;
    let params = json!({"from": "{{ event.asset }}"});
    world.put(workflow("asset", "noop", json!({"assets": ["made"], "params": params}))).await;
    let event = |id: &str| TriggerEvent {
        id: id.to_owned(),
        sequence: 0,
        at: at("2026-01-01T00:00:00Z"),
        body: EventBody::Custom { name: "go".to_owned(), payload: json!({}) },
    };
    let decided = world.triggers.send_event("default", event("e1")).await.unwrap();
    assert_eq!(decided[0].1.outcome, SlotOutcome::Started);
    // Delivered again: the same answer, no second run.
    let again = world.triggers.send_event("default", event("e1")).await.unwrap();
    assert_eq!(again[0].1.run, decided[0].1.run);
    world.until("the run after", |w| (w.runs("after").len() == 1).then_some(())).await;
    assert_eq!(world.runs("first").len(), 1);
    // The run of `first` made the asset, that of `after` too, and those of `asset` themselves.
    let runs = world.until("the asset's", |w| Some(w.runs("asset")).filter(|r| r.len() > 2)).await;
    assert_eq!(runs[0].params, json!({"from": "made"}));
    assert_eq!(runs[0].trigger, "asset");
    assert!(world.triggers.send_event("default", event("e2")).await.unwrap().len() == 1);
}

#[tokio::test]
async fn what_ends_before_a_place_in_the_log_was_kept_is_not_missed() {
    let world = World::new("2026-01-01T00:00:00Z");
    world.put(workflow("first", "suspend", json!({"event": "go"}))).await;
    world.put(workflow("after", "noop", json!({"run": "first"}))).await;
    let event = TriggerEvent {
        id: "e1".to_owned(),
        sequence: 0,
        at: at("2026-01-01T00:00:00Z"),
        body: EventBody::Custom { name: "go".to_owned(), payload: json!({}) },
    };
    world.triggers.send_event("default", event).await.unwrap();
    let run = world.until("the first run", |w| w.runs("first").pop()).await;
    // As after a crash in its first seconds: the service is gone, the run ends all the same.
    world.triggers.stop().await;
    world.succeed(&run).await;
    let deadline = Instant::now() + PATIENCE;
    while !all_ended(&world.runs("first")) {
        assert!(Instant::now() < deadline, "the first run does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let world = world.restart().await;
    world.until("the run after", |w| (w.runs("after").len() == 1).then_some(())).await;
}

#[tokio::test]
async fn overlap_waits_for_the_real_end() {
    let world = World::new("2026-01-01T00:30:00Z");
    world.put(workflow("w", "suspend", json!({"cron": "0 * * * *", "overlap": "queue"}))).await;
    for hour in 1..=3 {
        world.set(&format!("2026-01-01T0{hour}:00:00Z")).await;
        world.triggers.list(None).await.unwrap();
    }
    assert_eq!(world.runs("w").len(), 1);
    let first = world
        .until("the first to run", |w| {
            w.runs("w").pop().filter(|run| run.state == RunState::Running)
        })
        .await;
    let world = world.restart().await;
    world.succeed(&first).await;
    let runs = world.until("the queued one", |w| Some(w.runs("w")).filter(|r| r.len() == 2)).await;
    assert_eq!(runs[1].key.as_deref(), Some("trigger:schedule@2026-01-01T03:00:00Z"));
}

#[tokio::test]
async fn refused_parameters_are_recorded() {
    let world = World::new("2026-01-01T00:30:00Z");
    let source = json!({"cron": "0 * * * *", "params": {"bad": 1}, "overlap": "skip"});
    world.put(workflow("w", "noop", source)).await;
    world.set("2026-01-01T01:00:00Z").await;
    let row = world
        .until("the record", |w| {
            w.store.get_object("slot", "default", "w/schedule/2026-01-01T01:00:00Z").unwrap()
        })
        .await;
    assert_eq!(row.value["outcome"], "failed");
    assert!(row.value["reason"].as_str().unwrap().contains("bad is not known"));
    assert!(world.runs("w").is_empty());
}

#[tokio::test]
async fn a_backfill_from_preview_to_the_end() {
    let world = World::new("2026-01-01T00:00:00Z");
    world.put(workflow("w", "noop", Json::Null)).await;
    let spec = |extra: Json| {
        let mut spec = json!({
            "workflow": "w", "parallelism": 3,
            "partitions": {
                "definition": {"type": "daily", "timezone": "America/New_York", "start": "2013-01-01"},
                "set": "2013-03-01..2013-03-14",
            },
        });
        for (name, value) in extra.as_object().unwrap() {
            spec[name] = value.clone();
        }
        BackfillSpec::parse(&spec).unwrap()
    };
    let preview = world.triggers.preview_backfill("default", spec(json!({})), 3).await.unwrap();
    assert_eq!(preview.1.iter().filter(|item| item.runs && item.newest.is_none()).count(), 3);
    let preview = preview.0;
    assert_eq!((preview.total, preview.runs), (14, 14));
    assert!(world.runs("w").is_empty());
    world.triggers.create_backfill("default", "b", spec(json!({})), "olena").await.unwrap();
    let world = world.restart().await;
    let deadline = Instant::now() + PATIENCE;
    let row = loop {
        let row = world.triggers.backfill("default", "b").await.unwrap().unwrap();
        if row.state.is_finished() {
            break row;
        }
        assert!(Instant::now() < deadline, "{row:?}");
    };
    assert_eq!((row.state, row.succeeded), (BackfillState::Succeeded, 14));
    let runs = world.runs("w");
    assert!(runs.len() == 14 && all_ended(&runs));
    let change = runs.iter().find(|run| run.partition.as_deref() == Some("2013-03-10")).unwrap();
    let hours = change.interval_end.unwrap().0 - change.interval_start.unwrap().0;
    assert_eq!(hours, 23 * 3_600_000_000, "the day of the clock change");
    // Nothing is missing now.
    let missing = spec(json!({"only": "missing"}));
    let (preview, _) = world.triggers.preview_backfill("default", missing, 0).await.unwrap();
    assert_eq!((preview.total, preview.runs), (14, 0));
    let done = world.triggers.change_backfill("default", "b", BackfillAction::Pause).await;
    assert!(matches!(done, Err(TriggerError::Invalid(_))));
    let gone = world.triggers.change_backfill("default", "x", BackfillAction::Pause).await;
    assert!(matches!(gone, Err(TriggerError::Missing(_))));
}

#[tokio::test]
async fn files_that_arrive() {
    let world = World::new("2026-01-01T00:00:00Z");
    let inbox = tempfile::tempdir().unwrap();
    let pattern = inbox.path().join("*.csv").to_str().unwrap().to_owned();
    let source = json!({
        "file": {"path": pattern, "settle": "1ms", "every": "1s"},
        "params": {"path": "{{ event.path }}"},
    });
    world.put(workflow("w", "noop", source)).await;
    std::fs::write(inbox.path().join("a.csv"), "1").unwrap();
    std::fs::write(inbox.path().join("b.tmp"), "1").unwrap();
    // Looks are real; settling is by our clock.
    let clock = world.clock.clone();
    let runs = world
        .until("the file's run", |w| {
            clock.fetch_add(10_000, Ordering::SeqCst);
            Some(w.runs("w")).filter(|runs| !runs.is_empty())
        })
        .await;
    assert_eq!(runs.len(), 1);
    assert!(runs[0].params["path"].as_str().unwrap().ends_with("/a.csv"));
}

#[tokio::test]
async fn webhooks_by_address() {
    let world = World::new("2026-01-01T00:00:00Z");
    let source = json!({
        "webhook": {"path": "shop", "secret": "shop-key"},
        "params": {"order": "{{ event.body.order }}"},
    });
    world.put(workflow("w", "noop", source)).await;
    let view = world.triggers.webhooks_at("default", "shop").await.unwrap().remove(0);
    let headers = [("x-gitlab-token", "s3cret"), ("x-gitlab-event-uuid", "d-1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let now = at("2026-01-01T00:00:00Z");
    let body = br#"{"order": 7}"#;
    let send =
        |secret: Option<&'static [u8]>| world.triggers.deliver(&view, secret, &headers, body, now);
    for wrong in [None, Some(b"wrong".as_slice())] {
        assert!(matches!(send(wrong).await, Err(TriggerError::Invalid(_))));
    }
    let first = send(Some(b"s3cret")).await.unwrap();
    let replayed = send(Some(b"s3cret")).await.unwrap();
    assert_eq!(first[0].1.run, replayed[0].1.run);
    let runs = world.runs("w");
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].params, json!({"order": 7}));
}

/// Measured, not judged, unless built with optimisation: then within the promised two seconds.
#[tokio::test]
#[ignore = "a measurement: run it by name with --release"]
async fn ten_thousand_triggers_due_in_one_minute() {
    let world = World::new("2026-01-01T00:30:00Z");
    for number in 0..10_000 {
        world.put(workflow(&format!("w{number}"), "noop", json!("0 1 * * *"))).await;
    }
    let begin = Instant::now();
    world.set("2026-01-01T01:00:00Z").await;
    let filter = RunFilter { trigger: Some("schedule".to_owned()), ..RunFilter::default() };
    world
        .until("all runs", |w| {
            let totals = w.store.run_totals(&[]).unwrap();
            (totals.iter().map(|(_, count)| count).sum::<u64>() == 10_000).then_some(())
        })
        .await;
    let taken = begin.elapsed();
    assert_eq!(world.store.list_runs(&filter, None, 10).unwrap().items.len(), 10);
    println!("10,000 triggers started in {taken:?}");
    assert!(cfg!(debug_assertions) || taken < Duration::from_secs(2), "{taken:?}");
}
