//! What the trigger machines decide, seen from outside through their rows.

#![allow(clippy::unwrap_used)] // Tests: a failed unwrap is its message.

mod backfills;
mod checker;
mod policies;
mod service;
mod support;
mod timetables;
mod webhooks;
