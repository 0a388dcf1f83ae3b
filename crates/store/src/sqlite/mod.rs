//! The store in one SQLite file: WAL, every commit synced, one writer, a few readers.

mod backup;
mod commit;
mod migrations;
mod queries;
mod rows;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kobza_model::{Json, LimitRow, RunId, RunImage, TaskId, TaskNo};
use rusqlite::{Connection, OpenFlags};

use self::writer::Writer;
use crate::lock::FolderLock;
use crate::pool::Pool;
use crate::read;
use crate::{Commit, CommitError, Fault, Fence, Store, StoreError, StoredWorkflow};

/// The database's name in the data folder.
const FILE: &str = "kobza.db";

/// How a [`SqliteStore`] is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Reading connections, opened as needed. Each may take `reader_cache_kib`.
    pub readers: usize,
    /// How long a connection waits for another program's lock (a backup, a person's shell).
    pub busy_timeout: Duration,
    /// Page cache of the writer, in KiB.
    pub writer_cache_kib: u32,
    /// Page cache of a reader, in KiB.
    pub reader_cache_kib: u32,
    /// Pages of 4 KiB that the file may have; none: as many as the disk holds.
    pub max_pages: Option<u32>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            readers: 4,
            busy_timeout: Duration::from_secs(10),
            writer_cache_kib: 16 * 1024,
            reader_cache_kib: 4 * 1024,
            max_pages: None,
        }
    }
}

/// The store in a data folder. One server at a time owns it, by a lock on a file in it.
pub struct SqliteStore {
    path: PathBuf,
    options: SqliteOptions,
    /// `None` for a store that is only read.
    writer: Option<Mutex<Writer>>,
    readers: Pool<Connection>,
    lock: Option<Mutex<FolderLock>>,
    fault: AtomicU8,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens or makes the store in `folder`, brings its schema up to date, and keeps everybody
    /// else out until it is dropped.
    ///
    /// # Errors
    /// Another process has it (the message names it), a newer version wrote it, it is not a store,
    /// or the disk says no.
    pub fn open(folder: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        create_folder(folder)?;
        let lock = FolderLock::take(folder)?;
        let path = folder.join(FILE);
        let mut connection = connect_writer(&path, &options)?;
        migrations::migrate(&mut connection, &path)?;
        Ok(Self {
            readers: reader_pool(&path, &options),
            writer: Some(Mutex::new(Writer::new(connection))),
            lock: Some(Mutex::new(lock)),
            path,
            options,
            fault: AtomicU8::new(0),
        })
    }

    /// Opens an existing store to look at it, also while a server owns it. Commits are refused.
    ///
    /// # Errors
    /// There is none, or it has another version's schema.
    pub fn open_read_only(folder: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Err(StoreError(format!("there is no store in {}", folder.display())));
        }
        let readers = reader_pool(&path, &options);
        migrations::check_version(&*readers.get()?, &path)?;
        Ok(Self { readers, writer: None, lock: None, path, options, fault: AtomicU8::new(0) })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the next commit fail in a way that is hard to provoke; for tests.
    #[doc(hidden)]
    pub fn inject(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    fn take_fault(&self) -> Option<Fault> {
        Fault::from_number(self.fault.swap(0, Ordering::SeqCst))
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        let writer = self
            .writer
            .as_ref()
            .ok_or_else(|| StoreError("the store is open for reading only".into()))?;
        // A panic inside a commit rolled its transaction back; what the writer remembered may be
        // half right, so it is forgotten.
        let mut guard = writer.lock().unwrap_or_else(|poisoned| {
            writer.clear_poison();
            let mut guard = PoisonError::into_inner(poisoned);
            guard.discard();
            guard
        });
        guard.reopen_if_needed(|| connect_writer(&self.path, &self.options))?;
        Ok(guard)
    }
}

impl Store for SqliteStore {
    fn acquire(&self, owner: &str) -> Result<Fence, CommitError> {
        let mut writer = self.writer().map_err(failed)?;
        if let Some(lock) = &self.lock {
            let mut lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
            // The name is a courtesy to the second comer: a full disk must not stop the first.
            let _ = lock.name_holder(owner);
        }
        writer.acquire(owner)
    }

    fn commit(&self, fence: Fence, commit: &Commit) -> Result<Fence, CommitError> {
        let mut writer = self.writer().map_err(failed)?;
        writer.commit(fence, commit, self.take_fault())
    }

    fn fence(&self) -> Result<Fence, StoreError> {
        read::with(self, read::fence)
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

fn create_folder(folder: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    // Logs, parameters and hashes of tokens are in there: for the server's user only.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| StoreError(format!("cannot make {}: {e}", folder.display())))
}

/// Statements that a connection keeps prepared: all of ours.
const STATEMENTS: usize = 128;
/// Pages in the log before they are moved into the file: larger means fewer, longer pauses.
const CHECKPOINT_PAGES: u32 = 4000;

fn connect_writer(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| opening(path, &e))?;
    let set = |connection: &Connection| -> rusqlite::Result<()> {
        connection.busy_timeout(options.busy_timeout)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "cache_size", -i64::from(options.writer_cache_kib))?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        if let Some(pages) = options.max_pages {
            connection.pragma_update(None, "max_page_count", pages)?;
        }
        Ok(())
    };
    set(&connection).map_err(|e| opening(path, &e))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn reader_pool(path: &Path, options: &SqliteOptions) -> Pool<Connection> {
    let (path, size, options) = (path.to_owned(), options.readers, options.clone());
    Pool::new(size, Box::new(move || connect_reader(&path, &options)))
}

fn connect_reader(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| opening(path, &e))?;
    let set = |connection: &Connection| -> rusqlite::Result<()> {
        connection.busy_timeout(options.busy_timeout)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -i64::from(options.reader_cache_kib))?;
        connection.pragma_update(None, "temp_store", "MEMORY")
    };
    set(&connection).map_err(|e| opening(path, &e))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn opening(path: &Path, error: &rusqlite::Error) -> StoreError {
    StoreError(format!("cannot open {}: {error}", path.display()))
}

/// A failure of SQLite while reading.
pub(crate) fn reading(error: rusqlite::Error) -> StoreError {
    StoreError::at("reading", error)
}
