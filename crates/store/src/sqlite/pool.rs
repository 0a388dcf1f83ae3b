//! A few reading connections, opened as needed and handed out in turn.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};

use rusqlite::Connection;

use super::{SqliteOptions, connect_reader};
use crate::StoreError;

pub(super) struct ReaderPool {
    path: PathBuf,
    options: SqliteOptions,
    idle: Mutex<Idle>,
    returned: Condvar,
}

struct Idle {
    connections: Vec<Connection>,
    opened: usize,
}

impl ReaderPool {
    pub(super) fn new(path: PathBuf, options: SqliteOptions) -> Self {
        let idle = Mutex::new(Idle { connections: Vec::new(), opened: 0 });
        Self { path, options, idle, returned: Condvar::new() }
    }

    /// A connection, waiting for one when all are in use.
    pub(super) fn get(&self) -> Result<Reader<'_>, StoreError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(connection) = idle.connections.pop() {
                return Ok(Reader { pool: self, connection: Some(connection) });
            }
            if idle.opened < self.options.readers.max(1) {
                idle.opened += 1;
                drop(idle);
                return match connect_reader(&self.path, &self.options) {
                    Ok(connection) => Ok(Reader { pool: self, connection: Some(connection) }),
                    Err(error) => {
                        self.idle.lock().unwrap_or_else(PoisonError::into_inner).opened -= 1;
                        self.returned.notify_one();
                        Err(error)
                    }
                };
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A connection on loan.
pub(super) struct Reader<'a> {
    pool: &'a ReaderPool,
    /// Always there until dropped.
    connection: Option<Connection>,
}

impl Deref for Reader<'_> {
    type Target = Connection;

    #[expect(clippy::expect_used, reason = "only drop takes it")]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("a loan has its connection")
    }
}

impl DerefMut for Reader<'_> {
    #[expect(clippy::expect_used, reason = "only drop takes it")]
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a loan has its connection")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = self.connection.take() {
            idle.connections.push(connection);
        }
        self.pool.returned.notify_one();
    }
}
