//! PostgreSQL passes the suite, and what only it must do. Skipped, saying so, without a database
//! in KOBZA_TEST_POSTGRES.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kobza_store::suite::{Fixture, commit, full_batch};
use kobza_store::{CommitError, Fault, PostgresOptions, PostgresStore, Store};

/// A schema of its own, dropped at the end.
struct Schema {
    url: String,
    base: String,
    name: String,
}

static SCHEMAS: AtomicU32 = AtomicU32::new(0);

impl Schema {
    fn new() -> Option<Self> {
        let Ok(base) = std::env::var("KOBZA_TEST_POSTGRES") else {
            eprintln!("skipped: KOBZA_TEST_POSTGRES is not set");
            return None;
        };
        let number = SCHEMAS.fetch_add(1, Ordering::SeqCst);
        let name = format!("kobza_test_{}_{number}", std::process::id());
        let separator = if base.contains('?') { '&' } else { '?' };
        let url = format!("{base}{separator}schema={name}&application_name={name}");
        let schema = Self { url, base, name };
        schema.drop_schema();
        Some(schema)
    }

    fn admin(&self) -> postgres::Client {
        postgres::Client::connect(&self.base, postgres::NoTls).unwrap()
    }

    fn drop_schema(&self) {
        let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name);
        self.admin().batch_execute(&sql).unwrap();
    }

    fn open_with(&self, lease: Duration) -> PostgresStore {
        let options = PostgresOptions { lease, ..PostgresOptions::default() };
        PostgresStore::open(&self.url, options).unwrap()
    }

    /// Cuts all connections of this schema's stores, as a network would; answers how many.
    fn cut_connections(&self) -> i64 {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE application_name = $1";
        self.admin().query_one(sql, &[&self.name]).unwrap().get(0)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        self.drop_schema();
    }
}

impl Fixture for Schema {
    type Store = PostgresStore;

    fn open(&self) -> PostgresStore {
        PostgresStore::open(&self.url, PostgresOptions::default()).unwrap()
    }

    fn inject(store: &PostgresStore, fault: Fault) {
        store.inject(fault);
    }
}

kobza_store::store_suite!(Schema::new());

#[test]
fn a_standby_waits_for_the_lease_and_then_fences_the_old_owner() {
    let Some(schema) = Schema::new() else { return };
    let owner = schema.open_with(Duration::from_millis(700));
    let standby = schema.open_with(Duration::from_secs(60));
    let mut fence = owner.acquire("one").unwrap();
    assert!(matches!(
        standby.acquire("two"),
        Err(CommitError::Fenced { ours: 0, found }) if found == fence.term
    ));
    fence = owner.commit(fence, &commit(1, full_batch(1))).unwrap();
    owner.heartbeat(fence).unwrap();
    // The owner falls silent; the database's clock ends its lease.
    let taken = loop {
        match standby.acquire("two") {
            Ok(taken) => break taken,
            Err(CommitError::Fenced { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((taken.term, taken.batch), (fence.term + 1, fence.batch));
    let late = owner.commit(fence, &commit(2, full_batch(2))).unwrap_err();
    assert!(matches!(late, CommitError::Fenced { ours, found } if ours + 1 == found), "{late}");
    assert!(matches!(owner.heartbeat(fence), Err(CommitError::Fenced { .. })));
    assert_eq!(standby.active_runs().unwrap().len(), 1);
    standby.commit(taken, &commit(3, full_batch(3))).unwrap();
}

#[test]
fn a_server_that_stops_in_order_leaves_the_lease_at_once() {
    let Some(schema) = Schema::new() else { return };
    let owner = schema.open_with(Duration::from_secs(3600));
    owner.acquire("one").unwrap();
    drop(owner);
    schema.open_with(Duration::from_secs(3600)).acquire("two").unwrap();
}

#[test]
fn the_store_goes_on_after_its_connections_were_cut() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.open();
    let fence = store.acquire("one").unwrap();
    let fence = store.commit(fence, &commit(1, full_batch(1))).unwrap();
    assert_eq!(store.active_runs().unwrap().len(), 1);
    assert_eq!(schema.cut_connections(), 2, "the writer's and a reader's");
    // Reads come back by themselves; a commit may fail once, but then goes through or is known.
    assert_eq!(store.active_runs().unwrap().len(), 1);
    let two = commit(2, full_batch(2));
    let after = match store.commit(fence, &two) {
        Ok(after) => after,
        Err(CommitError::Fenced { .. }) => panic!("nobody else is there"),
        Err(_) => {
            assert_eq!(store.fence().unwrap(), fence, "it did not happen");
            store.commit(fence, &two).unwrap()
        }
    };
    assert_eq!(store.fence().unwrap(), after);
    assert_eq!(store.active_runs().unwrap().len(), 2);
}
