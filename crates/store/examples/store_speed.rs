//! How fast the store takes rows and gives lists: `cargo run --release --example store_speed --
//! [folder or postgres://...] [runs]`. Prints figures; asserts nothing.
#![allow(clippy::unwrap_used, reason = "a measuring program stops at the first error")]

use std::time::{Duration, Instant};

use kobza_engine::Batch;
use kobza_model::{Cause, EventKind, RunRow, RunState, TaskState};
use kobza_store::suite::{commit, event, plain_run, plain_task, run_event, run_id};
use kobza_store::{
    Fence, PostgresOptions, PostgresStore, RunFilter, SqliteOptions, SqliteStore, Store, Views,
    WorkflowFilter,
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scratch = tempfile::tempdir().unwrap();
    let place = arguments.next().unwrap_or_else(|| scratch.path().to_str().unwrap().to_owned());
    let many: u32 = arguments.next().map_or(100_000, |n| n.parse().unwrap());
    if place.starts_with("postgres") {
        measure(&PostgresStore::open(&place, PostgresOptions::default()).unwrap(), many);
    } else {
        let store = SqliteStore::open(place.as_ref(), SqliteOptions::default()).unwrap();
        measure(&store, many);
        let bytes = std::fs::metadata(store.path()).unwrap().len();
        println!("{:<50} {:>10} MiB", "file", bytes >> 20);
    }
}

fn measure(store: &(impl Store + Views), many: u32) {
    let mut fence = store.acquire("store_speed").unwrap();

    tasks_of_one_run(store, &mut fence, 200_000);
    small_runs(store, &mut fence, 1_000_000, 20_000, "empty store");
    let started = Instant::now();
    for first in (0..many).step_by(5000) {
        let rows = (first..many.min(first + 5000)).map(|n| varied(2_000_000 + n)).collect();
        let batch = Batch { runs: rows, ..Batch::default() };
        fence = store.commit(fence, &commit(1, batch)).unwrap();
    }
    rate("finished runs loaded", many, started.elapsed());
    small_runs(store, &mut fence, 10_000_000, 20_000, "full store");
    reads(store);
}

fn rate(what: &str, count: u32, took: Duration) {
    println!("{what:<50} {:>10.0} a second", f64::from(count) / took.as_secs_f64());
}

/// Whole lives of no-op tasks: one batch writes them once, with two events each.
fn tasks_of_one_run(store: &(impl Store + Views), fence: &mut Fence, count: u32) {
    for size in [100, 1000, 5000] {
        let run = 10 + size;
        let started = Instant::now();
        for first in (0..count / 2).step_by(size as usize) {
            let range = first..first + size;
            let tasks: Vec<_> =
                range.map(|n| plain_task(run_id(run), n, TaskState::Succeeded)).collect();
            let events = (0..size * 2).map(|n| task_event(run, n)).collect();
            let runs = vec![plain_run(run, RunState::Running)];
            let batch = Batch { runs, tasks, events, ..Batch::default() };
            *fence = store.commit(*fence, &commit(1, batch)).unwrap();
        }
        rate(&format!("no-op tasks, {size} a batch"), count / 2, started.elapsed());
        let done = Batch { runs: vec![plain_run(run, RunState::Succeeded)], ..Batch::default() };
        *fence = store.commit(*fence, &commit(1, done)).unwrap();
    }
}

fn task_event(run: u32, n: u32) -> kobza_model::Event {
    let state = if n.is_multiple_of(2) { TaskState::Running } else { TaskState::Succeeded };
    event(run, EventKind::Task { state, cause: Cause::None, attempt: 1 })
}

/// Runs of three tasks that begin in one batch and end in the next.
fn small_runs(store: &(impl Store + Views), fence: &mut Fence, base: u32, count: u32, when: &str) {
    let size = 100;
    let started = Instant::now();
    for first in (0..count).step_by(size) {
        for state in [RunState::Running, RunState::Succeeded] {
            let mut batch = Batch::default();
            for n in base + first..base + first + 100 {
                batch.runs.push(plain_run(n, state));
                batch.events.push(run_event(n));
                for task in 0..3 {
                    let task_state = if state == RunState::Running {
                        TaskState::Pending
                    } else {
                        TaskState::Succeeded
                    };
                    batch.tasks.push(plain_task(run_id(n), task, task_state));
                    batch.events.push(task_event(n, task));
                }
            }
            *fence = store.commit(*fence, &commit(1, batch)).unwrap();
        }
    }
    rate(&format!("runs of three tasks, {when}"), count, started.elapsed());
}

fn varied(n: u32) -> RunRow {
    let state = if n.is_multiple_of(997) { RunState::Failed } else { RunState::Succeeded };
    let namespace = if n.is_multiple_of(1000) { "rare" } else { "default" };
    RunRow {
        workflow: format!("flow{}", n % 300),
        namespace: namespace.into(),
        ..plain_run(n, state)
    }
}

fn reads(store: &(impl Store + Views)) {
    let any = RunFilter::default;
    let filters = [
        ("newest runs", any()),
        ("failed runs", RunFilter { states: vec![RunState::Failed], ..any() }),
        ("runs of a workflow", RunFilter { workflow: Some("flow7".into()), ..any() }),
        ("runs of a namespace", RunFilter { namespaces: vec!["default".into()], ..any() }),
        ("runs of a rare namespace", RunFilter { namespaces: vec!["rare".into()], ..any() }),
        ("runs by part of a name", RunFilter { search: Some("OW29".into()), ..any() }),
        ("running runs", RunFilter { states: vec![RunState::Running], ..any() }),
        ("a trigger that never was", RunFilter { trigger: Some("none".into()), ..any() }),
    ];
    for (what, filter) in filters {
        time(what, || {
            store.list_runs(&filter, None, 100).unwrap();
        });
    }
    time("workflows with 10 runs each", || {
        let filter = WorkflowFilter { last_runs: 10, ..WorkflowFilter::default() };
        store.list_workflows(&filter, None, 100).unwrap();
    });
    time("totals", || {
        store.run_totals(&[]).unwrap();
    });
    time("grid of 30 runs", || {
        store.grid("default", "orders", 30).unwrap();
    });
    time("one run", || {
        store.get_run(run_id(1_000_500)).unwrap();
    });
    time("1000 events", || {
        store.events_since(100_000, 1000, None).unwrap();
    });
    time("events of a run", || {
        store.events_since(0, 1000, Some(run_id(1_000_500))).unwrap();
    });
    time("active runs", || {
        store.active_runs().unwrap();
    });
}

/// The median of some tries, after one to warm up.
fn time(what: &str, mut read: impl FnMut()) {
    read();
    let mut times: Vec<_> = (0..9)
        .map(|_| {
            let started = Instant::now();
            read();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("{what:<50} {:>10.2} ms", times[4].as_secs_f64() * 1000.0);
}
