//! The store in a schema of a PostgreSQL database, which many servers share: one owns the shard
//! by a lease with a term, the others read and stand by.
//!
//! Calls block. From a task of a multi-threaded runtime they hand its other tasks over first.

mod link;
mod migrations;
mod rows;
mod writer;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kobza_model::{Json, LimitRow, RunId, RunImage, TaskId, TaskNo};

use self::link::{Link, Target};
use self::writer::Writer;
use crate::pool::Pool;
use crate::read::{self, Queries, Reads};
use crate::{Commit, CommitError, Fault, Fence, Store, StoreError, StoredWorkflow};

/// How a [`PostgresStore`] is opened.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Reading connections, opened as needed.
    pub readers: usize,
    /// How long ownership lasts without a commit or heartbeat, by the database's clock. A standby
    /// takes over that long after the owner's last sign of life.
    pub lease: Duration,
    /// Longest time for one statement.
    pub statement_timeout: Duration,
    /// Longest time to connect, and to wait for a dead network.
    pub connect_timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            readers: 4,
            lease: Duration::from_secs(6),
            statement_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// The store in a schema of a database.
pub struct PostgresStore {
    target: Arc<Target>,
    options: PostgresOptions,
    writer: Mutex<Writer>,
    readers: Pool<Link>,
    fault: AtomicU8,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("schema", &self.target.schema).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects to `postgres://user@host/database?schema=name` (the schema is `kobza` when not
    /// given, and is made when missing) and brings the schema up to date.
    ///
    /// # Errors
    /// The URL is wrong, nobody answers, a newer version wrote the schema. No error shows the URL,
    /// which may hold a password.
    pub fn open(url: &str, options: PostgresOptions) -> Result<Self, StoreError> {
        let target = Arc::new(Target::parse(url, &options)?);
        let mut link = target.connect()?;
        migrations::migrate(&mut link, &target.schema)?;
        Ok(Self::over(target, link, options))
    }

    /// As [`PostgresStore::open`], but leaves the database as it is: for looking.
    ///
    /// # Errors
    /// As `open`; also when there is no schema yet, or one of another version.
    pub fn open_existing(url: &str, options: PostgresOptions) -> Result<Self, StoreError> {
        let target = Arc::new(Target::parse(url, &options)?);
        let mut link = target.connect()?;
        migrations::look(&mut link, &target.schema)?;
        Ok(Self::over(target, link, options))
    }

    fn over(target: Arc<Target>, link: Link, options: PostgresOptions) -> Self {
        let for_readers = Arc::clone(&target);
        Self {
            readers: Pool::new(options.readers, Box::new(move || for_readers.connect())),
            writer: Mutex::new(Writer::new(link, options.lease)),
            target,
            options,
            fault: AtomicU8::new(0),
        }
    }

    /// Makes the next commit fail in a way that is hard to provoke; for tests.
    #[doc(hidden)]
    pub fn inject(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        // A panic inside a commit left the connection somewhere inside a transaction.
        let mut guard = self.writer.lock().unwrap_or_else(|poisoned| {
            self.writer.clear_poison();
            let mut guard = PoisonError::into_inner(poisoned);
            guard.discard();
            guard
        });
        guard.reconnect_if_needed(|| self.target.connect())?;
        Ok(guard)
    }
}

/// The driver waits on a small runtime of its own, which may not begin inside another one.
fn waiting<T>(call: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(call)
        }
        _ => call(),
    }
}

impl Drop for PostgresStore {
    /// Gives the lease back, so that a successor need not wait for its end.
    fn drop(&mut self) {
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        waiting(|| writer.release());
    }
}

impl Reads for PostgresStore {
    fn read(
        &self,
        read: &mut dyn FnMut(&mut dyn Queries) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        waiting(|| self.read_now(read))
    }
}

impl PostgresStore {
    fn read_now(
        &self,
        read: &mut dyn FnMut(&mut dyn Queries) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            let mut link = self.readers.get()?;
            let result = link.snapshot(read);
            let closed = link.is_closed();
            if result.is_err() {
                // Whatever state it is in, a fresh one costs little.
                link.throw_away();
            }
            tries += 1;
            // A connection that died while idle says nothing about the database: one more try.
            if result.is_ok() || !closed || tries > self.options.readers {
                return result;
            }
        }
    }
}

impl Store for PostgresStore {
    fn acquire(&self, owner: &str) -> Result<Fence, CommitError> {
        waiting(|| self.writer().map_err(failed)?.acquire(owner))
    }

    fn commit(&self, fence: Fence, commit: &Commit) -> Result<Fence, CommitError> {
        let fault = Fault::from_number(self.fault.swap(0, Ordering::SeqCst));
        waiting(|| self.writer().map_err(failed)?.commit(fence, commit, fault))
    }

    fn fence(&self) -> Result<Fence, StoreError> {
        waiting(|| self.writer()?.fence())
    }

    fn heartbeat(&self, fence: Fence) -> Result<(), CommitError> {
        waiting(|| self.writer().map_err(failed)?.heartbeat(fence))
    }

    fn owner(&self) -> Result<Option<String>, StoreError> {
        let sql = "SELECT owner FROM shard WHERE shard = 0 AND owner IS NOT NULL
                   AND lease_until >= clock_timestamp()";
        let found = read::with(self, |q| read::all(q, sql, &[], |row| row.text(0)))?;
        Ok(found.into_iter().next())
    }

    fn lease(&self) -> Option<Duration> {
        Some(self.options.lease)
    }

    fn run_by_key(
        &self,
        namespace: &str,
        workflow: &str,
        key: &str,
    ) -> Result<Option<RunId>, StoreError> {
        read::with(self, |q| read::run_by_key(q, namespace, workflow, key))
    }

    fn active_runs(&self) -> Result<Vec<RunImage>, StoreError> {
        read::with(self, read::active_runs)
    }

    fn run_image(&self, run: RunId) -> Result<Option<RunImage>, StoreError> {
        read::with(self, |q| read::run_image(q, run))
    }

    fn workflow(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<StoredWorkflow>, StoreError> {
        read::with(self, |q| read::workflow(q, namespace, name, version))
    }

    fn limits(&self) -> Result<Vec<LimitRow>, StoreError> {
        read::with(self, read::limits)
    }

    fn outputs(&self, run: RunId, task: TaskNo) -> Result<Vec<(String, Json)>, StoreError> {
        read::with(self, |q| read::outputs(q, TaskId { run, task }))
    }

    fn object(&self, kind: &str, namespace: &str, key: &str) -> Result<Option<Json>, StoreError> {
        read::with(self, |q| read::object(q, kind, namespace, key))
    }
}

fn failed(error: impl std::fmt::Display) -> CommitError {
    CommitError::Failed(error.to_string())
}
