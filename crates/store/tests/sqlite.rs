//! SQLite passes the suite, and what only it must do.
#![allow(clippy::unwrap_used, reason = "tests")]

use kobza_store::suite::{Fixture, commit, full_batch};
use kobza_store::{CommitError, Fault, SqliteOptions, SqliteStore, Store};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Fixture for Folder {
    type Store = SqliteStore;

    fn open(&self) -> SqliteStore {
        SqliteStore::open(self.0.path(), SqliteOptions::default()).unwrap()
    }

    fn inject(store: &SqliteStore, fault: Fault) {
        store.inject(fault);
    }
}

kobza_store::store_suite!(Some(Folder::new()));

#[test]
fn a_second_server_is_told_who_has_the_folder() {
    let folder = Folder::new();
    let first = folder.open();
    first.acquire("nightly@host").unwrap();
    let error = SqliteStore::open(folder.0.path(), SqliteOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    assert!(text.contains("nightly@host"), "{text}");
    drop(first);
    folder.open();
}

#[test]
fn a_full_disk_fails_the_commit_and_leaves_nothing_half_written() {
    let folder = Folder::new();
    drop(folder.open());
    let options = SqliteOptions { max_pages: Some(100), ..SqliteOptions::default() };
    let store = SqliteStore::open(folder.0.path(), options).unwrap();
    let mut fence = store.acquire("a").unwrap();
    let mut written = 0;
    let error = loop {
        assert!(written < 1000, "the limit never bit");
        let mut batch = full_batch(written);
        batch.outputs[0].value = "x".repeat(20_000).into();
        match store.commit(fence, &commit(1, batch)) {
            Ok(next) => fence = next,
            Err(error) => break error,
        }
        written += 1;
    };
    assert!(matches!(&error, CommitError::Failed(text) if text.contains("full")), "{error:?}");
    assert!(written > 0);
    assert_eq!(store.fence().unwrap(), fence);
    assert_eq!(store.active_runs().unwrap().len(), written as usize);
    drop(store);
    // With room again, the same store goes on.
    let store = folder.open();
    let fence = store.acquire("a").unwrap();
    store.commit(fence, &commit(1, full_batch(written))).unwrap();
    assert_eq!(store.active_runs().unwrap().len(), written as usize + 1);
}

#[test]
fn a_store_is_read_while_another_owns_it() {
    let folder = Folder::new();
    let missing = SqliteStore::open_read_only(folder.0.path(), SqliteOptions::default());
    assert!(missing.unwrap_err().to_string().contains("there is no store in"));
    let store = folder.open();
    let fence = store.acquire("a").unwrap();
    store.commit(fence, &commit(1, full_batch(1))).unwrap();
    let reader = SqliteStore::open_read_only(folder.0.path(), SqliteOptions::default()).unwrap();
    assert_eq!(reader.active_runs().unwrap().len(), 1);
    let fence = reader.fence().unwrap();
    let refused = reader.commit(fence, &commit(1, full_batch(2))).unwrap_err();
    assert!(refused.to_string().contains("reading only"), "{refused}");
}

#[test]
fn a_backup_is_taken_while_the_store_works_and_put_back() {
    let folder = Folder::new();
    let store = folder.open();
    let fence = store.acquire("a").unwrap();
    let fence = store.commit(fence, &commit(1, full_batch(1))).unwrap();
    let copy = folder.0.path().join("copy.db");
    assert!(store.backup(&copy).unwrap() > 0);
    assert!(store.backup(&copy).unwrap_err().to_string().contains("exists already"));
    store.commit(fence, &commit(2, full_batch(2))).unwrap();
    assert_eq!(store.integrity_check().unwrap(), Vec::<String>::new());

    let busy = SqliteStore::restore(folder.0.path(), &copy, true).unwrap_err();
    assert!(busy.to_string().contains("in use by"), "{busy}");
    drop(store);
    let unforced = SqliteStore::restore(folder.0.path(), &copy, false).unwrap_err();
    assert!(unforced.to_string().contains("would replace it"), "{unforced}");
    SqliteStore::restore(folder.0.path(), &copy, true).unwrap();
    let store = folder.open();
    assert_eq!(store.active_runs().unwrap().len(), 1, "as of the copy");
    assert_eq!(store.fence().unwrap(), fence);
    drop(store);

    let elsewhere = Folder::new();
    SqliteStore::restore(elsewhere.0.path(), &copy, false).unwrap();
    assert_eq!(elsewhere.open().active_runs().unwrap().len(), 1);
}

#[test]
fn a_damaged_copy_is_not_put_back() {
    let folder = Folder::new();
    let store = folder.open();
    let mut fence = store.acquire("a").unwrap();
    for n in 0..50 {
        fence = store.commit(fence, &commit(1, full_batch(n))).unwrap();
    }
    let copy = folder.0.path().join("copy.db");
    store.backup(&copy).unwrap();
    drop(store);
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xa5);
    std::fs::write(&copy, bytes).unwrap();
    let error = SqliteStore::restore(folder.0.path(), &copy, true).unwrap_err().to_string();
    assert!(error.contains("damaged") || error.contains("malformed"), "{error}");
    let garbage = folder.0.path().join("garbage.db");
    std::fs::write(&garbage, "not a database, but long enough to look like one".repeat(100))
        .unwrap();
    assert!(SqliteStore::restore(folder.0.path(), &garbage, true).is_err());
    assert_eq!(folder.open().active_runs().unwrap().len(), 50, "the folder is as it was");
}
