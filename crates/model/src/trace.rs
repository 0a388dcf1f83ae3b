//! Ids of traces and spans. They follow from runs and attempts, so that a task can be told its own
//! before anything was exported, and a repeated export is the same span.

use sha2::{Digest as _, Sha256};

use crate::{RunId, TaskId};

/// The trace of a run: 32 hexadecimal digits.
#[must_use]
pub fn trace_id(run: RunId) -> String {
    run.0.simple().to_string()
}

fn span(of: &str) -> String {
    let digest = Sha256::digest(of.as_bytes());
    // A span id of zeros is not valid; the lowest bit is always set.
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    format!("{:016x}", u64::from_be_bytes(bytes) | 1)
}

/// The span of a run: 16 hexadecimal digits.
#[must_use]
pub fn run_span_id(run: RunId) -> String {
    span(&run.to_string())
}

/// The span of an attempt: 16 hexadecimal digits.
#[must_use]
pub fn attempt_span_id(task: TaskId, attempt: u32) -> String {
    span(&format!("{task}.{attempt}"))
}

/// What an attempt hands on to those whom it calls, as W3C Trace Context has it.
#[must_use]
pub fn traceparent(task: TaskId, attempt: u32) -> String {
    format!("00-{}-{}-01", trace_id(task.run), attempt_span_id(task, attempt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let task: TaskId = "0195a7c0-0000-7000-8000-000000000001.7".parse().unwrap();
        let parent = traceparent(task, 2);
        assert_eq!(parent.len(), 55);
        assert!(parent.starts_with("00-0195a7c0000070008000000000000001-"));
        assert_ne!(attempt_span_id(task, 1), attempt_span_id(task, 2));
        assert_ne!(run_span_id(task.run), attempt_span_id(task, 1));
    }
}
