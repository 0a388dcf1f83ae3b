//! The event log, assets and small objects, as they are read.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

use kobza_engine::Batch;
use kobza_model::{EventKind, RunState};
use serde_json::json;

use super::{
    Fixture, commit, event, plain_run, run_event, run_id, runs, second, step, whole, writes,
};
use crate::{
    AssetEvent, AssetEventFilter, EventPage, Fence, ObjectQuery, Store, Views, Write, kinds,
};

fn numbers(page: &EventPage) -> Vec<u64> {
    page.events.iter().map(|(seq, _)| *seq).collect()
}

pub fn events_are_followed_by_number<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    // Batches of 3, of 50 (compressed), and of 1; runs 1 and 2 by turns.
    for count in [3, 50, 1] {
        let events = (0..count).map(|n| run_event(1 + n % 2)).collect();
        let rows = vec![plain_run(1, RunState::Running), plain_run(2, RunState::Running)];
        step(&store, &mut fence, &commit(1, Batch { events, ..runs(rows) }));
    }
    let all = store.events_since(0, 1000, None).unwrap();
    assert_eq!(numbers(&all), (1..=54).collect::<Vec<_>>());
    assert_eq!((all.seen, all.oldest), (54, 1));
    assert_eq!(all.events[0].1, run_event(1));
    assert_eq!(all.events[52].1, run_event(2));

    // From the middle of a batch, and in pieces.
    let (mut seen, mut found) = (2, Vec::new());
    loop {
        let page = store.events_since(seen, 7, None).unwrap();
        if page.events.is_empty() {
            break;
        }
        found.extend(numbers(&page));
        seen = page.seen;
    }
    assert_eq!(found, (3..=54).collect::<Vec<_>>());
    assert_eq!(seen, 54);

    let of_two = store.events_since(0, 5, Some(run_id(2))).unwrap();
    assert_eq!(numbers(&of_two), [2, 5, 7, 9, 11]);
    let rest = store.events_since(of_two.seen, 1000, Some(run_id(2))).unwrap();
    assert_eq!(rest.events.len(), 21);
    assert!(rest.events.iter().all(|(_, event)| event.run == Some(run_id(2))));
    assert_eq!(rest.seen, 54);
    let none = store.events_since(0, 5, Some(run_id(3))).unwrap();
    assert_eq!((none.events.len(), none.seen), (0, 54));

    // Old events go; a follower learns what it has missed.
    let retain = Write::Retain { ended_before: second(2), limit: 10 };
    let late = Batch { events: vec![run_event(1)], ..Batch::default() };
    step(&store, &mut fence, &commit(9, late));
    step(&store, &mut fence, &writes(10, vec![retain]));
    let left = store.events_since(0, 1000, None).unwrap();
    assert_eq!((numbers(&left), left.oldest), (vec![55], 55));
}

pub fn objects_are_listed_by_prefix<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let put = |kind, namespace: &str, key: &str| Write::PutObject {
        kind,
        namespace: namespace.into(),
        key: key.into(),
        value: Some(json!(key)),
    };
    let all = vec![
        put(kinds::SLOT, "default", "b/2"),
        put(kinds::SLOT, "default", "a/1"),
        put(kinds::SLOT, "default", "a/3"),
        put(kinds::SLOT, "default", "a/2"),
        put(kinds::SLOT, "other", "a/9"),
        put(kinds::VARIABLE, "default", "a/7"),
    ];
    step(&store, &mut fence, &writes(5, all));
    let list = |query: ObjectQuery<'_>| {
        whole(2, |cursor, limit| {
            store.list_objects(&ObjectQuery { cursor, limit, ..query }).unwrap()
        })
        .into_iter()
        .map(|object| object.key)
        .collect::<Vec<_>>()
    };
    let slots = ObjectQuery { kind: kinds::SLOT, ..ObjectQuery::default() };
    assert_eq!(list(slots), ["a/1", "a/2", "a/3", "b/2", "a/9"]);
    let default = ObjectQuery { namespace: Some("default"), ..slots };
    assert_eq!(list(ObjectQuery { prefix: "a/", ..default }), ["a/1", "a/2", "a/3"]);
    let newest = ObjectQuery { prefix: "a/", descending: true, ..default };
    assert_eq!(list(newest), ["a/3", "a/2", "a/1"]);
    let one = store.get_object(kinds::SLOT, "other", "a/9").unwrap().unwrap();
    assert_eq!((one.value, one.updated_at), (json!("a/9"), second(5)));
}

pub fn assets_have_a_history<F: Fixture>(fixture: &F)
where
    F::Store: Views,
{
    let store = fixture.open();
    let mut fence = store.acquire("a").unwrap();
    let made = |n: u32, asset: &str, partition: Option<&str>| {
        event(
            n,
            EventKind::Materialized {
                asset: asset.into(),
                partition: partition.map(str::to_owned),
                metadata: format!("{{\"rows\":{n}}}"),
            },
        )
    };
    let checked = |n, passed| {
        event(
            n,
            EventKind::Checked {
                asset: "raw/orders".into(),
                check: "no_nulls".into(),
                passed,
                blocking: true,
                detail: "{}".into(),
            },
        )
    };
    let commit_events = |fence: &mut Fence, n: u32, events| {
        let batch = Batch { events, ..runs(vec![plain_run(n, RunState::Succeeded)]) };
        step(&store, fence, &commit(i64::from(n), batch));
    };
    let first = vec![
        run_event(1),
        made(1, "raw/orders", Some("2026-01-01")),
        made(1, "raw/orders", Some("2026-01-02")),
        checked(1, false),
    ];
    commit_events(&mut fence, 1, first);
    commit_events(&mut fence, 2, vec![made(2, "raw/orders", Some("2026-01-01")), checked(2, true)]);
    commit_events(&mut fence, 3, vec![made(3, "mart", None)]);

    let list = |search: Option<&str>| {
        whole(1, |cursor, limit| store.list_assets(&[], search, cursor, limit).unwrap())
    };
    let names: Vec<_> = list(None).into_iter().map(|a| a.name).collect();
    assert_eq!(names, ["mart", "raw/orders"]);
    let orders = list(Some("ORD")).remove(0);
    assert_eq!((orders.materializations, orders.partitions), (3, 2));
    assert_eq!((orders.materialized_at, orders.materialized_seq), (Some(second(2)), Some(5)));
    assert_eq!(store.get_asset("default", "raw/orders").unwrap(), Some(orders));
    assert_eq!(store.get_asset("other", "raw/orders").unwrap(), None);

    let history = |partition: Option<&str>| {
        let page = |cursor: Option<&str>, limit| {
            store.asset_history("default", "raw/orders", partition, cursor, limit).unwrap()
        };
        whole(1, page).into_iter().map(|m| m.seq).collect::<Vec<_>>()
    };
    assert_eq!(history(None), [5, 3, 2]);
    assert_eq!(history(Some("2026-01-01")), [5, 2]);
    let page = store.asset_history("default", "raw/orders", None, None, 1).unwrap();
    assert_eq!(page.items[0].run, Some(run_id(2)));
    assert_eq!(page.items[0].metadata, "{\"rows\":2}");
    let partitions =
        whole(1, |c, l| store.asset_partitions("default", "raw/orders", c, l).unwrap());
    let partitions: Vec<_> =
        partitions.iter().map(|p| (p.partition.as_str(), p.seq, p.materializations)).collect();
    assert_eq!(partitions, [("2026-01-01", 5, 2), ("2026-01-02", 3, 1)]);
    let checks = store.asset_checks("default", "raw/orders").unwrap();
    assert_eq!(checks.len(), 1);
    assert!(checks[0].passed && checks[0].blocking && checks[0].seq == 6);
    let happened = |wanted: AssetEventFilter| {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = store.asset_events("default", "raw/orders", &wanted, before, 2).unwrap();
            let Some(last) = page.last() else { break seen };
            before = Some(last.seq());
            seen.extend(page.iter().map(AssetEvent::seq));
        }
    };
    let both = || AssetEventFilter { made: true, checked: true, ..AssetEventFilter::default() };
    assert_eq!(happened(both()), [6, 5, 4, 3, 2]);
    assert_eq!(happened(AssetEventFilter { made: false, ..both() }), [6, 4]);
    assert_eq!(happened(AssetEventFilter { check: Some("no_nulls".into()), ..both() }), [6, 4]);
    assert!(happened(AssetEventFilter { check: Some("other".into()), ..both() }).is_empty());
    let partition = Some("2026-01-01".into());
    assert_eq!(happened(AssetEventFilter { partition, ..both() }), [5, 2]);

    // Data may say what it was made from, while its run is kept.
    let metadata = "{\"made_from\":[\"mart\"]}".to_owned();
    let report = EventKind::Materialized { asset: "report".into(), partition: None, metadata };
    commit_events(&mut fence, 4, vec![event(4, report)]);
    let origins = store.asset_origins("default", 10).unwrap();
    assert_eq!(origins.len(), 1);
    assert_eq!(origins[0].asset, "report");
    assert!(origins[0].metadata.contains("mart"));
    assert_eq!(store.asset_origins("other", 10).unwrap(), []);
    assert_eq!(store.asset_origins("default", 0).unwrap(), []);

    // Runs go, what is newest about the data stays.
    let retain = Write::Retain { ended_before: second(100), limit: 10 };
    step(&store, &mut fence, &writes(200, vec![retain]));
    assert_eq!(store.get_run(run_id(2)).unwrap(), None);
    assert_eq!(history(None), [5, 3]);
    assert_eq!(store.asset_origins("default", 10).unwrap(), []);
    assert_eq!(store.asset_checks("default", "raw/orders").unwrap(), checks);
}
