//! Durable state behind domain traits; SQLite and PostgreSQL implement them.

mod contract;

pub use contract::*;
