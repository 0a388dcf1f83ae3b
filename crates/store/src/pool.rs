//! A few reading connections, opened as needed and handed out in turn.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::StoreError;

type Open<T> = Box<dyn Fn() -> Result<T, StoreError> + Send + Sync>;

pub(crate) struct Pool<T> {
    open: Open<T>,
    size: usize,
    idle: Mutex<Idle<T>>,
    returned: Condvar,
}

struct Idle<T> {
    connections: Vec<T>,
    opened: usize,
}

impl<T> Pool<T> {
    /// At most `size` connections, made by `open`.
    pub(crate) fn new(size: usize, open: Open<T>) -> Self {
        let idle = Mutex::new(Idle { connections: Vec::new(), opened: 0 });
        Self { open, size: size.max(1), idle, returned: Condvar::new() }
    }

    /// A connection, waiting for one when all are in use.
    pub(crate) fn get(&self) -> Result<Loan<'_, T>, StoreError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(connection) = idle.connections.pop() {
                return Ok(Loan { pool: self, connection: Some(connection) });
            }
            if idle.opened < self.size {
                idle.opened += 1;
                drop(idle);
                // From here on the loan keeps the count right, whatever opening does.
                let mut loan = Loan { pool: self, connection: None };
                loan.connection = Some((self.open)()?);
                return Ok(loan);
            }
            idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A connection on loan.
pub(crate) struct Loan<'a, T> {
    pool: &'a Pool<T>,
    /// There until dropped or thrown away.
    connection: Option<T>,
}

impl<T> Loan<'_, T> {
    /// Does not give it back: it is broken.
    pub(crate) fn throw_away(mut self) {
        self.connection = None;
    }
}

impl<T> Deref for Loan<'_, T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "only drop and throw_away take it")]
    fn deref(&self) -> &T {
        self.connection.as_ref().expect("a loan has its connection")
    }
}

impl<T> DerefMut for Loan<'_, T> {
    #[expect(clippy::expect_used, reason = "only drop and throw_away take it")]
    fn deref_mut(&mut self) -> &mut T {
        self.connection.as_mut().expect("a loan has its connection")
    }
}

impl<T> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        match self.connection.take() {
            Some(connection) => idle.connections.push(connection),
            None => idle.opened -= 1,
        }
        self.pool.returned.notify_one();
    }
}
