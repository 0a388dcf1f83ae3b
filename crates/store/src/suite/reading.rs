//! The reading half: filters, pages, cursors that stay good, events, assets, objects.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

use std::collections::BTreeSet;

use kobza_engine::Batch;
use kobza_model::{
    Json, NodeNo, RunId, RunRow, RunState, TaskId, TaskNo, TaskRow, TaskState, Timestamp,
};
use serde_json::json;

use super::{
    Fixture, commit, full_batch, full_run, full_task, output, plain_run, plain_task, put_workflow,
    run_id, runs, second, step, writes,
};
use crate::{Page, RunFilter, Store, TaskFilter, ViewError, Views, WorkflowFilter, Write};

/// All items, page by page.
pub(super) fn whole<T>(limit: u32, mut page: impl FnMut(Option<&str>, u32) -> Page<T>) -> Vec<T> {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let next = page(cursor.as_deref(), limit);
        assert!(next.items.len() <= limit as usize);
        items.extend(next.items);
        cursor = next.next;
        if cursor.is_none() {
            return items;
        }
    }
}

fn ids(runs: &[RunRow]) -> Vec<RunId> {
    runs.iter().map(|run| run.run).collect()
}

fn listed(store: &impl Views, filter: &RunFilter, limit: u32) -> Vec<RunId> {
    ids(&whole(limit, |cursor, limit| store.list_runs(filter, cursor, limit).unwrap()))
}

/// Run n of many: workflow, namespace, state and label vary with n.
fn varied(n: u32) -> RunRow {
    let states = [RunState::Succeeded, RunState::Failed, RunState::Running, RunState::Queued];
    RunRow {
        namespace: if n.is_multiple_of(5) { "other" } else { "default" }.into(),
        workflow: format!("Flow_{}", n % 7),
        trigger: if n.is_multiple_of(3) { "schedule" } else { "manual" }.into(),
        labels: json!({"parity": n % 2, "tags": [format!("t{}", n % 4)]}),
        partition: n.is_multiple_of(6).then(|| "p".to_owned()),
        parent: n.is_multiple_of(11).then(|| TaskId { run: run_id(1), task: TaskNo(n % 2) }),
        // Three runs share each instant: the order must hold among them too.
        created_at: second(i64::from(n / 3)),
        ..plain_run(n, states[n as usize % 4])
    }
}

/// Whether run n of many is wanted.
type Matches = Box<dyn Fn(u32, &RunRow) -> bool>;

/// What the list should be, by looking at every run.
fn expected(rows: &[RunRow], matches: impl Fn(u32, &RunRow) -> bool) -> Vec<RunId> {
    let mut rows: Vec<_> =
        (0..).zip(rows).filter(|(n, row)| matches(*n, row)).map(|(_, row)| row.clone()).collect();
    rows.reverse();
    ids(&rows)
}

pub fn runs_are_filtered_and_paged<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let rows: Vec<_> = (0..200).map(varied).collect();
    for piece in rows.chunks(50) {
        step(&store, &mut fence, &commit(1, runs(piece.to_vec())));
    }
    let any = RunFilter::default;
    let cases: Vec<(RunFilter, Matches)> = vec![
        (any(), Box::new(|_, _| true)),
        (
            RunFilter { namespaces: vec!["other".into()], ..any() },
            Box::new(|_, r| r.namespace == "other"),
        ),
        (
            RunFilter { namespaces: vec!["other".into(), "default".into()], ..any() },
            Box::new(|_, _| true),
        ),
        (
            RunFilter { workflow: Some("Flow_3".into()), ..any() },
            Box::new(|_, r| r.workflow == "Flow_3"),
        ),
        (
            RunFilter { states: vec![RunState::Failed, RunState::Queued], ..any() },
            Box::new(|_, r| matches!(r.state, RunState::Failed | RunState::Queued)),
        ),
        (
            RunFilter { search: Some("LOW_2".into()), ..any() },
            Box::new(|_, r| r.workflow == "Flow_2"),
        ),
        (RunFilter { search: Some("%".into()), ..any() }, Box::new(|_, _| false)),
        (
            RunFilter { trigger: Some("schedule".into()), ..any() },
            Box::new(|n, _| n.is_multiple_of(3)),
        ),
        (RunFilter { partition: Some("p".into()), ..any() }, Box::new(|n, _| n.is_multiple_of(6))),
        (RunFilter { parent: Some(run_id(1)), ..any() }, Box::new(|n, _| n.is_multiple_of(11))),
        (
            RunFilter { parent: Some(run_id(1)), parent_task: Some(TaskNo(1)), ..any() },
            Box::new(|n, _| n.is_multiple_of(11) && n % 2 == 1),
        ),
        (
            RunFilter { labels: vec![("parity".into(), "1".into())], ..any() },
            Box::new(|n, _| n % 2 == 1),
        ),
        (
            RunFilter {
                labels: vec![("tags".into(), "t2".into()), ("parity".into(), "0".into())],
                namespaces: vec!["default".into()],
                states: vec![RunState::Running],
                ..any()
            },
            Box::new(|n, r| n % 4 == 2 && r.namespace == "default"),
        ),
        (
            RunFilter {
                created_from: Some(second(10)),
                created_until: Some(second(20)),
                states: vec![RunState::Succeeded],
                trigger: Some("manual".into()),
                ..any()
            },
            Box::new(|n, _| (30..60).contains(&n) && n.is_multiple_of(4) && n % 3 != 0),
        ),
        (RunFilter { workflow: Some("nothing".into()), ..any() }, Box::new(|_, _| false)),
    ];
    for (filter, matches) in &cases {
        let expected = expected(&rows, matches);
        for limit in [7, 1000] {
            assert_eq!(listed(&store, filter, limit), expected, "{filter:?}");
        }
    }
    let page = store.list_runs(&any(), None, 3).unwrap();
    assert_eq!(page.items[0], rows[199], "whole rows");
    assert!(matches!(store.list_runs(&any(), Some("x"), 3), Err(ViewError::Cursor)));
}

/// More pairs of workflow and state than are merged one by one.
pub fn runs_of_many_workflows_are_listed<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let row = |n: u32| RunRow {
        workflow: format!("flow{}", n % 100),
        ..plain_run(n, if n.is_multiple_of(2) { RunState::Succeeded } else { RunState::Failed })
    };
    let rows: Vec<_> = (0..300).map(row).collect();
    step(&store, &mut fence, &commit(1, runs(rows.clone())));
    let namespace = RunFilter { namespaces: vec!["default".into()], ..RunFilter::default() };
    assert_eq!(listed(&store, &namespace, 70), expected(&rows, |_, _| true));
    // Above some thousands of matching runs the way leads through all of them.
    for piece in 0..5 {
        let more: Vec<_> = (0..1000).map(|n| row(300 + piece * 1000 + n)).collect();
        step(&store, &mut fence, &commit(2, runs(more)));
    }
    let page = store.list_runs(&namespace, None, 10).unwrap();
    let newest: Vec<_> = (0..10).map(|n| run_id(5299 - n)).collect();
    assert_eq!(ids(&page.items), newest);
    let failed = RunFilter { states: vec![RunState::Failed], ..namespace };
    assert_eq!(listed(&store, &failed, 1000).len(), 2650);
}

pub fn cursors_stay_good_while_rows_come_and_go<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let rows: Vec<_> = (0..20).map(|n| plain_run(n, RunState::Succeeded)).collect();
    step(&store, &mut fence, &commit(1, runs(rows)));
    for filter in [
        RunFilter::default(),
        RunFilter { workflow: Some("orders".into()), ..RunFilter::default() },
    ] {
        let first = store.list_runs(&filter, None, 8).unwrap();
        let new = 100 + u32::try_from(fence.batch).unwrap();
        let more = runs(vec![plain_run(new, RunState::Queued)]);
        step(&store, &mut fence, &commit(2, more));
        // The run that the cursor stands on is deleted.
        let gone = first.items[7].run;
        step(&store, &mut fence, &writes(3, vec![Write::DeleteRun { run: gone }]));
        let second_page = store.list_runs(&filter, first.next.as_deref(), 1000).unwrap();
        let both: Vec<_> = first.items.iter().chain(&second_page.items).map(|r| r.run).collect();
        let distinct: BTreeSet<_> = both.iter().collect();
        assert_eq!(distinct.len(), both.len(), "nothing twice");
        assert!(second_page.items.iter().all(|run| run.created_at < first.items[7].created_at));
        assert_eq!(second_page.next, None);
        step(
            &store,
            &mut fence,
            &commit(4, runs(vec![RunRow { run: gone, ..first.items[7].clone() }])),
        );
    }
}

pub fn tasks_are_filtered_paged_and_counted<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let run = run_id(1);
    let mut tasks = vec![
        plain_task(run, 0, TaskState::Succeeded),
        TaskRow { summary: true, name: "Map".into(), ..plain_task(run, 1, TaskState::Running) },
    ];
    for n in 0..50 {
        let state = if n % 10 == 3 { TaskState::Failed } else { TaskState::Succeeded };
        tasks.push(TaskRow {
            name: "Map".into(),
            node: Some(NodeNo(1)),
            index: Some(n),
            parent: Some(TaskNo(1)),
            ..plain_task(run, n + 2, state)
        });
    }
    let batch = Batch { tasks: tasks.clone(), ..runs(vec![plain_run(1, RunState::Running)]) };
    step(&store, &mut fence, &commit(1, batch));

    let any = TaskFilter::default;
    let list = |filter: &TaskFilter| {
        let rows = whole(9, |c, limit| store.list_tasks(run, filter, c, limit).unwrap());
        rows.iter().map(|task| task.task.0).collect::<Vec<_>>()
    };
    assert_eq!(whole(9, |c, l| store.list_tasks(run, &any(), c, l).unwrap()), tasks);
    assert_eq!(list(&TaskFilter { states: vec![TaskState::Failed], ..any() }), [5, 15, 25, 35, 45]);
    assert_eq!(list(&TaskFilter { name: Some("step0".into()), ..any() }), [0]);
    assert_eq!(list(&TaskFilter { search: Some("TEP".into()), ..any() }), [0]);
    assert_eq!(list(&TaskFilter { hide_instances: true, ..any() }), [0, 1]);
    assert_eq!(list(&TaskFilter { hide_summaries: true, ..any() }).len(), 51);
    assert_eq!(list(&TaskFilter { parent: Some(TaskNo(1)), ..any() }).len(), 50);
    let range = TaskFilter {
        index_from: Some(7),
        index_until: Some(9),
        node: Some(NodeNo(1)),
        scope: Some(kobza_model::ScopeNo(0)),
        ..any()
    };
    assert_eq!(list(&range), [9, 10]);
    assert_eq!(store.get_task(TaskId { run, task: TaskNo(2) }).unwrap().unwrap(), tasks[2]);
    assert_eq!(store.get_task(TaskId { run, task: TaskNo(99) }).unwrap(), None);
    assert_eq!(store.list_tasks(run_id(9), &any(), None, 5).unwrap().items, []);

    let counts = store.task_counts(run).unwrap();
    let counts: Vec<_> = counts.iter().map(|c| (c.name.as_str(), c.state, c.tasks)).collect();
    assert_eq!(
        counts,
        [
            ("step0", TaskState::Succeeded, 1),
            ("Map", TaskState::Succeeded, 45),
            ("Map", TaskState::Failed, 5),
        ]
    );
    let grid = store.grid("default", "orders", 10).unwrap();
    assert_eq!(grid.len(), 1);
    assert_eq!(grid[0].run, plain_run(1, RunState::Running));
    assert_eq!(grid[0].tasks[0].name, "Map");
    assert_eq!(grid[0].tasks[0].states, [(TaskState::Succeeded, 45), (TaskState::Failed, 5)]);
    assert_eq!(store.grid("default", "nothing", 10).unwrap(), []);
}

pub fn a_run_is_seen_whole<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let batch = full_batch(1);
    step(&store, &mut fence, &commit(1, batch.clone()));
    let task = |n| TaskId { run: run_id(1), task: TaskNo(n) };
    assert_eq!(store.get_run(run_id(1)).unwrap(), Some(full_run(1)));
    assert_eq!(store.get_run(run_id(2)).unwrap(), None);
    let again = full_task(run_id(1), 1);
    let second_try = TaskRow { attempt: 9, ..again.clone() };
    let next = Batch { attempts: vec![second_try.clone()], ..Batch::default() };
    step(&store, &mut fence, &commit(2, next));
    assert_eq!(store.list_attempts(task(1)).unwrap(), [again, second_try]);
    assert_eq!(store.list_attempts(task(0)).unwrap(), []);
    assert_eq!(store.run_scopes(run_id(1)).unwrap(), batch.scopes);
    assert_eq!(store.run_expansions(run_id(1)).unwrap(), batch.expansions);
    assert_eq!(store.task_outputs(task(0)).unwrap().len(), 2);
    let all = store.run_outputs(run_id(1)).unwrap();
    let of_first = all.iter().filter(|(task, ..)| *task == TaskNo(0));
    let of_first: Vec<_> = of_first.map(|(_, key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(of_first, store.task_outputs(task(0)).unwrap());
    assert_eq!(store.run_outputs(run_id(2)).unwrap(), []);
    assert_eq!(store.task_output(task(0), "result").unwrap(), Some(json!({"rows": 3})));
    assert_eq!(store.task_output(task(0), "nothing").unwrap(), Some(Json::Null));
    assert_eq!(store.task_output(task(0), "absent").unwrap(), None);
    assert_eq!(store.list_limits().unwrap(), batch.limits);
}

pub fn tasks_with_artifacts_are_found<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let run = run_id(1);
    let outputs = vec![
        output(run, 0, "result", json!({"rows": 3})),
        output(run, 1, "a", json!({"$artifact": {"digest": "x"}})),
        output(run, 1, "b", json!([{"$artifact": {"digest": "y"}}])),
        output(run, 2, "result", json!("$artifact")),
        output(run, 3, "$notes", json!([])),
    ];
    let batch = Batch { runs: vec![full_run(1)], outputs, ..Batch::default() };
    step(&store, &mut fence, &commit(1, batch));
    let whole = store.artifact_tasks(run, None, 10).unwrap();
    assert_eq!((whole.items, whole.next), (vec![TaskNo(1), TaskNo(3)], None));
    let first = store.artifact_tasks(run, None, 1).unwrap();
    assert_eq!(first.items, [TaskNo(1)]);
    let rest = store.artifact_tasks(run, first.next.as_deref(), 1).unwrap();
    assert_eq!((rest.items, rest.next), (vec![TaskNo(3)], None));
    assert!(store.artifact_tasks(run_id(2), None, 1).unwrap().items.is_empty());
    let mut texts = Vec::new();
    store.artifact_texts(&mut |text| texts.push(text.to_owned())).unwrap();
    texts.sort();
    assert_eq!(
        texts,
        ["[{\"$artifact\":{\"digest\":\"y\"}}]", "{\"$artifact\":{\"digest\":\"x\"}}"]
    );
}

pub fn ends_are_counted_by_the_hour<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let hour = |n: i64| second(0).0 / 3_600_000_000 * 3_600_000_000 + n * 3_600_000_000;
    let ended = |n: u32, state: RunState, hours: i64| RunRow {
        ended_at: state.is_finished().then(|| Timestamp(hour(hours) + 5_000_000)),
        ..plain_run(n, state)
    };
    let counted = |from: i64| -> Vec<(i64, RunState, u64)> {
        let found = store.ended_by_hour(&["default".into()], Timestamp(hour(from) + 7)).unwrap();
        found
            .into_iter()
            .map(|(at, state, runs)| ((at.0 - hour(0)) / 3_600_000_000, state, runs))
            .collect()
    };
    use RunState::{Failed, Running, Succeeded};
    let first = vec![
        ended(1, Succeeded, 0),
        ended(2, Succeeded, 1),
        ended(3, Failed, 1),
        ended(4, Succeeded, 1),
        ended(5, Running, 0),
    ];
    step(&store, &mut fence, &commit(1, runs(first)));
    assert_eq!(counted(0), [(0, Succeeded, 1), (1, Succeeded, 2), (1, Failed, 1)]);
    assert_eq!(counted(1), [(1, Succeeded, 2), (1, Failed, 1)]);
    assert_eq!(store.ended_by_hour(&["other".into()], second(0)).unwrap(), []);
    assert_eq!(store.ended_by_hour(&[], Timestamp(hour(1))).unwrap().len(), 2);
    // Cleared, it has not ended; then it ends again, later. What is written twice counts once.
    step(&store, &mut fence, &commit(2, runs(vec![ended(3, Running, 0)])));
    assert_eq!(counted(1), [(1, Succeeded, 2)]);
    let again = vec![ended(3, Succeeded, 2), ended(5, Failed, 2), ended(2, Succeeded, 1)];
    step(&store, &mut fence, &commit(3, runs(again)));
    assert_eq!(counted(1), [(1, Succeeded, 2), (2, Succeeded, 1), (2, Failed, 1)]);
    step(&store, &mut fence, &writes(4, vec![Write::DeleteRun { run: run_id(5) }]));
    assert_eq!(counted(2), [(2, Succeeded, 1)]);
}

pub fn workflows_are_listed_with_their_runs<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let put = (0..5).map(|n| put_workflow("default", &format!("w{n}"), "v1")).collect();
    step(&store, &mut fence, &writes(1, put));
    let more = vec![
        put_workflow("other", "orders", "v1"),
        put_workflow("default", "w2", "v2"),
        Write::DeleteWorkflow { namespace: "default".into(), name: "w4".into() },
        Write::PauseWorkflow { namespace: "default".into(), name: "w1".into(), paused: true },
    ];
    step(&store, &mut fence, &writes(2, more));
    let of = |n, workflow: &str, state| RunRow { workflow: workflow.into(), ..plain_run(n, state) };
    let rows = vec![
        of(1, "w2", RunState::Failed),
        of(2, "w2", RunState::Succeeded),
        of(3, "w2", RunState::Running),
        of(4, "not defined", RunState::Running),
    ];
    step(&store, &mut fence, &commit(3, runs(rows.clone())));
    step(&store, &mut fence, &commit(4, runs(vec![of(3, "w2", RunState::Failed)])));

    let any = || WorkflowFilter { last_runs: 2, ..WorkflowFilter::default() };
    let list = |filter: &WorkflowFilter| {
        whole(2, |cursor, limit| store.list_workflows(filter, cursor, limit).unwrap())
    };
    let names =
        |filter: &WorkflowFilter| list(filter).into_iter().map(|w| w.name).collect::<Vec<_>>();
    assert_eq!(names(&any()), ["w0", "w1", "w2", "w3", "orders"]);
    let w2 = list(&any()).remove(2);
    assert_eq!((w2.version.as_str(), w2.updated_at, w2.paused), ("v2", second(2), false));
    assert_eq!(w2.totals, [(RunState::Succeeded, 1), (RunState::Failed, 2)]);
    assert_eq!(ids(&w2.last_runs), [run_id(3), run_id(2)]);
    assert_eq!(names(&WorkflowFilter { paused: Some(true), ..any() }), ["w1"]);
    assert_eq!(names(&WorkflowFilter { search: Some("W3".into()), ..any() }), ["w3"]);
    assert_eq!(names(&WorkflowFilter { namespaces: vec!["other".into()], ..any() }), ["orders"]);
    assert_eq!(names(&WorkflowFilter { tags: vec!["daily".into()], ..any() }).len(), 5);
    assert_eq!(names(&WorkflowFilter { tags: vec!["none".into()], ..any() }).len(), 0);
    assert_eq!(names(&WorkflowFilter { dialect: Some("argo".into()), ..any() }).len(), 0);
    let versions = store.workflow_versions("default", "w2").unwrap();
    let versions: Vec<_> = versions.iter().map(|v| (v.version.as_str(), v.current)).collect();
    assert_eq!(versions, [("v2", true), ("v1", false)]);

    let all = [(RunState::Running, 1), (RunState::Succeeded, 1), (RunState::Failed, 2)];
    assert_eq!(store.run_totals(&[]).unwrap(), all);
    assert_eq!(store.run_totals(&["other".into()]).unwrap(), []);
    step(&store, &mut fence, &writes(5, vec![Write::DeleteRun { run: run_id(1) }]));
    assert_eq!(store.run_totals(&["default".into()]).unwrap()[2], (RunState::Failed, 1));
}

/// A reader sees whole batches only, whatever the writer is doing.
pub fn readers_see_whole_batches<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) || looks == 0 {
                for image in store.active_runs().unwrap() {
                    assert_eq!(image.tasks.len(), 3, "half a batch");
                }
                looks += 1;
            }
        });
        for n in 0..30 {
            step(&store, &mut fence, &commit(1, full_batch(n)));
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        reader.join().unwrap();
    });
    assert_eq!(store.active_runs().unwrap().len(), 30);
}
