//! The engine's half: commits, fences, numbering, restore.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

use kobza_engine::Batch;
use kobza_model::{EngineTime, Json, MachineRow, RunImage, RunState, TaskId, TaskNo, TaskState};
use serde_json::json;

use super::{
    Fixture, commit, event, full_batch, full_run, output, plain_run, plain_task, put_workflow,
    run_event, run_id, runs, second, workflow, writes,
};
use crate::{Commit, CommitError, Fault, Fence, Store, Write};

/// Commits, and moves the fence on.
pub fn step(store: &impl Store, fence: &mut Fence, commit: &Commit) {
    *fence = store.commit(*fence, commit).unwrap();
}

fn image(store: &impl Store, n: u32) -> Option<RunImage> {
    store.run_image(run_id(n)).unwrap()
}

pub fn rows_round_trip<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let batch = full_batch(1);
    step(&store, &mut fence, &commit(1, batch.clone()));

    let found = image(&store, 1).unwrap();
    assert_eq!(found.run, batch.runs[0]);
    assert_eq!(found.tasks, batch.tasks);
    assert_eq!(found.scopes, batch.scopes);
    assert_eq!(found.expansions, batch.expansions);
    assert_eq!(found.machine, batch.machine);
    assert_eq!(store.active_runs().unwrap(), [found]);
    assert_eq!(store.limits().unwrap(), batch.limits);
    assert_eq!(
        store.outputs(run_id(1), TaskNo(0)).unwrap(),
        [("nothing".to_owned(), Json::Null), ("result".to_owned(), json!({"rows": 3}))]
    );
    assert_eq!(image(&store, 2), None);
    let by_key = |workflow, key| store.run_by_key("default", workflow, key).unwrap();
    assert_eq!(by_key("orders", "scheduled__1"), Some(run_id(1)));
    assert_eq!(by_key("orders", "scheduled__2"), None);
    assert_eq!(by_key("other", "scheduled__1"), None);
}

pub fn rows_are_replaced<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    step(&store, &mut fence, &commit(1, full_batch(1)));

    let mut next = Batch { ..full_batch(1) };
    next.runs[0] = plain_run(1, RunState::Succeeded);
    // What a run starts with does not change.
    let first = full_run(1);
    next.runs[0].key = first.key;
    next.runs[0].trigger = first.trigger;
    next.runs[0].parent = first.parent;
    next.runs[0].partition = first.partition;
    next.runs[0].interval_start = first.interval_start;
    next.runs[0].interval_end = first.interval_end;
    next.runs[0].version = "cd".repeat(32);
    next.tasks[1] = plain_task(run_id(1), 1, TaskState::Failed);
    next.tasks.truncate(2);
    next.scopes[0].finished = true;
    next.expansions[0].made = 18;
    next.limits.clear();
    next.removed_limits = vec!["pool1".into()];
    next.machine = vec![MachineRow { run: run_id(1), key: vec![0, 255], value: None }];
    next.outputs = vec![output(run_id(1), 0, "result", json!(4))];
    step(&store, &mut fence, &commit(2, next.clone()));

    let found = image(&store, 1).unwrap();
    assert_eq!(found.run, next.runs[0]);
    assert_eq!(found.tasks[..2], next.tasks[..]);
    assert_eq!(found.tasks.len(), 3);
    assert_eq!(found.scopes, next.scopes);
    assert_eq!(found.expansions, next.expansions);
    assert_eq!(found.machine, []);
    assert_eq!(store.limits().unwrap(), []);
    let outputs = store.outputs(run_id(1), TaskNo(0)).unwrap();
    assert_eq!(outputs[1], ("result".to_owned(), json!(4)));
    assert_eq!(store.active_runs().unwrap(), [], "it has finished");
}

pub fn an_old_owner_is_fenced<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let old = store.acquire("a").unwrap();
    let new = store.acquire("a").unwrap();
    assert!(new.term > old.term);
    let error = store.commit(old, &commit(1, runs(vec![plain_run(1, RunState::Queued)])));
    match error {
        Err(CommitError::Fenced { ours, found }) => {
            assert_eq!((ours, found), (old.term, new.term));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(image(&store, 1), None);
    assert_eq!(store.fence().unwrap(), new);
    store.commit(new, &commit(1, Batch::default())).unwrap();
}

pub fn a_stale_batch_number_is_refused<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let first = store.acquire("a").unwrap();
    let next = store.commit(first, &commit(1, Batch::default())).unwrap();
    let again = commit(2, runs(vec![plain_run(1, RunState::Queued)]));
    assert!(matches!(store.commit(first, &again), Err(CommitError::Failed(_))));
    assert_eq!(image(&store, 1), None);
    store.commit(next, &again).unwrap();
}

pub fn events_are_numbered_without_gaps<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    assert_eq!((fence.batch, fence.next_event), (0, 1));
    for (n, count) in [(1, 3), (2, 0), (3, 200)] {
        let batch = Batch {
            runs: vec![plain_run(n, RunState::Running)],
            events: (0..count).map(|_| run_event(n)).collect(),
            ..Batch::default()
        };
        step(&store, &mut fence, &commit(1, batch));
    }
    assert_eq!((fence.batch, fence.next_event), (3, 204));
    let failing = Batch { events: vec![run_event(1)], ..full_batch(9) };
    F::inject(&store, Fault::UnknownBefore);
    store.commit(fence, &commit(2, failing)).unwrap_err();
    assert_eq!(store.fence().unwrap(), fence, "a lost batch takes no numbers");
}

pub fn unknown_commits_are_told_by_the_shards_row<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let fence = store.acquire("a").unwrap();
    let one = commit(1, runs(vec![plain_run(1, RunState::Running)]));

    F::inject(&store, Fault::UnknownBefore);
    assert!(matches!(store.commit(fence, &one), Err(CommitError::Unknown(_))));
    assert_eq!(store.fence().unwrap(), fence, "it did not happen");
    assert_eq!(image(&store, 1), None);

    F::inject(&store, Fault::UnknownAfter);
    assert!(matches!(store.commit(fence, &one), Err(CommitError::Unknown(_))));
    assert_eq!(store.fence().unwrap(), fence.after(&one), "it did happen");
    assert_eq!(image(&store, 1).unwrap().run, plain_run(1, RunState::Running));

    // The writer goes on as if nothing had been.
    let two = commit(2, runs(vec![plain_run(1, RunState::Succeeded)]));
    store.commit(fence.after(&one), &two).unwrap();
    assert_eq!(store.active_runs().unwrap(), []);
}

pub fn a_refused_commit_changes_nothing<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    step(&store, &mut fence, &commit(1, runs(vec![plain_run(1, RunState::Running)])));
    // A task of a run that is not there cannot be written: nor can what comes with it.
    let mut batch = full_batch(2);
    batch.tasks.push(plain_task(run_id(77), 0, TaskState::Ready));
    let refused = commit(2, batch);
    assert!(matches!(store.commit(fence, &refused), Err(CommitError::Failed(_))));
    assert_eq!(store.fence().unwrap(), fence);
    assert_eq!(image(&store, 2), None);
    assert_eq!(store.limits().unwrap(), []);

    // A second run with the same key of the same workflow cannot be either.
    let keyed = |n| kobza_model::RunRow { key: Some("k".into()), ..plain_run(n, RunState::Queued) };
    step(&store, &mut fence, &commit(3, runs(vec![keyed(3)])));
    assert!(matches!(
        store.commit(fence, &commit(4, runs(vec![keyed(4)]))),
        Err(CommitError::Failed(_))
    ));
    step(&store, &mut fence, &commit(5, full_batch(2)));
    assert!(image(&store, 2).is_some());
}

pub fn engine_time_never_goes_back<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    step(&store, &mut fence, &commit(50, Batch::default()));
    step(&store, &mut fence, &commit(20, Batch::default()));
    assert_eq!(fence.engine_time, EngineTime(50));
    assert_eq!(store.fence().unwrap(), fence);
}

pub fn outputs_are_dropped_before_new_ones<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    step(&store, &mut fence, &commit(1, full_batch(1)));
    let batch = Batch {
        dropped_outputs: vec![TaskId { run: run_id(1), task: TaskNo(0) }],
        outputs: vec![output(run_id(1), 0, "again", json!("x"))],
        ..Batch::default()
    };
    step(&store, &mut fence, &commit(2, batch));
    let outputs = store.outputs(run_id(1), TaskNo(0)).unwrap();
    assert_eq!(outputs, [("again".to_owned(), json!("x"))]);
}

pub fn removed_tasks_go_with_all_they_have<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    step(&store, &mut fence, &commit(1, full_batch(1)));
    let before = store.run_image(run_id(1)).unwrap().unwrap();
    let first = before.tasks[0].clone();
    assert!(before.tasks.len() > 1);
    let batch = Batch {
        // Written once more in the same batch, and gone all the same.
        tasks: vec![first.clone()],
        removed_tasks: vec![TaskId { run: run_id(1), task: first.task }],
        ..Batch::default()
    };
    step(&store, &mut fence, &commit(2, batch));
    let after = store.run_image(run_id(1)).unwrap().unwrap();
    assert_eq!(after.tasks, before.tasks[1..]);
    assert!(store.outputs(run_id(1), first.task).unwrap().is_empty());
}

pub fn everything_survives_a_reopen<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    step(&store, &mut fence, &commit(1, full_batch(1)));
    step(&store, &mut fence, &commit(2, full_batch(2)));
    let before = store.active_runs().unwrap();
    drop(store);

    let store = fixture.open();
    assert_eq!(store.fence().unwrap(), fence);
    assert_eq!(store.active_runs().unwrap(), before);
    let mut again = store.acquire("b").unwrap();
    assert_eq!(again, Fence { term: fence.term + 1, ..fence });
    // A run of the former life is updated, a new one gets a place of its own.
    let batch = Batch {
        events: vec![event(2, kobza_model::EventKind::Cleared { tasks: 1 })],
        ..runs(vec![plain_run(2, RunState::Succeeded), plain_run(3, RunState::Queued)])
    };
    step(&store, &mut again, &commit(3, batch));
    let active: Vec<_> = store.active_runs().unwrap().iter().map(|i| i.run.run).collect();
    assert_eq!(active, [run_id(1), run_id(3)]);
}

pub fn workflows_have_versions<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let current = |name: &str, version| store.workflow("default", name, version).unwrap();
    assert!(current("orders", None).is_none());

    step(&store, &mut fence, &writes(1, vec![put_workflow("default", "orders", "v1")]));
    let first = current("orders", None).unwrap();
    assert_eq!(*first.workflow, *workflow("orders", "v1"));
    assert!(first.source.unwrap().starts_with("name: orders\n"));
    assert_eq!((first.version.as_str(), first.created_at), ("v1", second(1)));
    assert!(!first.paused);

    let pause =
        Write::PauseWorkflow { namespace: "default".into(), name: "orders".into(), paused: true };
    step(&store, &mut fence, &writes(2, vec![put_workflow("default", "orders", "v2"), pause]));
    let second_version = current("orders", None).unwrap();
    assert_eq!((second_version.version.as_str(), second_version.paused), ("v2", true));
    assert_eq!(current("orders", Some("v1")).unwrap().workflow.description.as_deref(), Some("v1"));
    assert!(current("orders", Some("v3")).is_none());
    assert!(store.workflow("other", "orders", None).unwrap().is_none());

    // Going back makes no third version.
    step(&store, &mut fence, &writes(3, vec![put_workflow("default", "orders", "v1")]));
    let back = current("orders", None).unwrap();
    assert_eq!((back.version.as_str(), back.created_at), ("v1", second(1)));

    let delete = Write::DeleteWorkflow { namespace: "default".into(), name: "orders".into() };
    step(&store, &mut fence, &writes(4, vec![delete]));
    assert!(current("orders", None).is_none());
    assert!(current("orders", Some("v2")).is_some(), "its runs still need it");
}

pub fn objects_are_put_and_deleted<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let put = |value: Option<Json>| Write::PutObject {
        kind: crate::kinds::VARIABLE,
        namespace: "default".into(),
        key: "region/ключ".into(),
        value,
    };
    let get = || store.object(crate::kinds::VARIABLE, "default", "region/ключ").unwrap();
    step(&store, &mut fence, &writes(1, vec![put(Some(json!({"a": 1})))]));
    assert_eq!(get(), Some(json!({"a": 1})));
    step(&store, &mut fence, &writes(2, vec![put(Some(Json::Null))]));
    assert_eq!(get(), Some(Json::Null));
    assert_eq!(store.object(crate::kinds::VARIABLE, "other", "region/ключ").unwrap(), None);
    step(&store, &mut fence, &writes(3, vec![put(None)]));
    assert_eq!(get(), None);
}

pub fn only_finished_runs_are_deleted<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    step(&store, &mut fence, &commit(1, full_batch(1)));
    let delete = || writes(2, vec![Write::DeleteRun { run: run_id(1) }]);
    step(&store, &mut fence, &delete());
    assert!(image(&store, 1).is_some());

    step(&store, &mut fence, &commit(3, runs(vec![plain_run(1, RunState::Failed)])));
    step(&store, &mut fence, &delete());
    assert_eq!(image(&store, 1), None);
    assert_eq!(store.outputs(run_id(1), TaskNo(0)).unwrap(), []);
    // Its id and its key are free again, and nothing old clings to the new one.
    step(&store, &mut fence, &commit(4, runs(vec![full_run(1)])));
    assert_eq!(image(&store, 1).unwrap().tasks, []);
}

pub fn old_runs_go_in_bounded_pieces<F: Fixture>(fixture: &F) {
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    for n in 0..10 {
        let mut batch = full_batch(n);
        let state = if n == 3 { RunState::Running } else { RunState::Succeeded };
        batch.runs[0] = plain_run(n, state);
        step(&store, &mut fence, &commit(i64::from(n), batch));
    }
    // Runs 0 to 6 ended before second 8, but 3 still runs.
    let retain = || writes(100, vec![Write::Retain { ended_before: second(8), limit: 4 }]);
    let left = || (0..10).filter(|n| image(&store, *n).is_some()).collect::<Vec<_>>();
    step(&store, &mut fence, &retain());
    assert_eq!(left(), [3, 5, 6, 7, 8, 9]);
    step(&store, &mut fence, &retain());
    step(&store, &mut fence, &retain());
    assert_eq!(left(), [3, 7, 8, 9]);
    let image = image(&store, 3).unwrap();
    assert_eq!((image.tasks.len(), image.scopes.len()), (3, 2), "nothing of it was touched");
}
