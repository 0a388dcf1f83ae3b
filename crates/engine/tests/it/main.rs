//! The engine's rules, as pure tests: a workflow, scripted bodies, and what became of each task.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking; these helpers are tests' own")]

mod added;
mod airflow;
mod argo;
mod basic;
mod clear;
mod coverage;
mod driven;
mod harness;
mod hooks;
mod waits;
mod why;
