//! Durable state behind domain traits; SQLite and PostgreSQL implement them.
//!
//! [`Store`] is the engine's half: one writer commits batches, fenced by the shard's row. What
//! people and programs look at is read through views. Both databases pass the same suite.

mod codec;
mod contract;
mod labels;
mod lock;
mod pool;
mod postgres;
mod read;
mod sqlite;
#[doc(hidden)]
pub mod suite;
mod write;

pub use contract::*;
pub use postgres::{PostgresOptions, PostgresStore};
pub use sqlite::{SqliteOptions, SqliteStore};
