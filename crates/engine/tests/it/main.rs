//! The engine's rules, as pure tests: a workflow, scripted bodies, and what became of each task.

mod basic;
mod harness;
