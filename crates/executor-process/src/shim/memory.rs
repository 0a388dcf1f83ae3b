//! Memory limits where no control group holds a task: each process has a limit of its own data
//! (`RLIMIT_DATA`), and the whole tree is looked at regularly.

use std::fs;
use std::time::{Duration, Instant};

use super::loop_state::Shim;
use super::task::{End, Step};
use crate::procfs;

/// Between two looks at limited trees.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Shim {
    /// A task has begun to be held: whether its memory is looked at.
    pub(super) fn watch_memory_of(&mut self, serial: u64) {
        if self.tasks.get(&serial).is_some_and(|task| task.watched_memory().is_some()) {
            self.memory_due.get_or_insert_with(|| Instant::now() + LOOK_EVERY);
        }
    }

    /// Ends tasks whose trees are over their limits. Done only while there is such a task.
    pub(super) fn look_at_memory(&mut self, now: Instant) {
        if self.memory_due.is_none_or(|at| at > now) {
            return;
        }
        let watched: Vec<(u64, u64)> = self
            .tasks
            .iter()
            .filter(|(_, task)| {
                task.pid != 0 && matches!(task.step, Step::Running | Step::Lingering)
            })
            .filter_map(|(serial, task)| Some((*serial, task.watched_memory()?)))
            .collect();
        let waits = self.tasks.values().any(|task| task.watched_memory().is_some());
        self.memory_due = waits.then(|| now + LOOK_EVERY);
        for (serial, limit) in watched {
            let tree: Vec<i32> = self.roots(serial).into_iter().flat_map(procfs::tree).collect();
            // What processes share is counted once for each here, which is too much; the exact
            // sum costs a walk over all pages, so it is taken only when this one is over.
            let quick: u64 = tree.iter().filter_map(|pid| resident(*pid)).sum();
            if quick <= limit {
                continue;
            }
            let used: u64 = tree.iter().filter_map(|pid| proportional(*pid)).sum();
            if used > limit {
                self.end_now(serial, End::OverMemory { limit, used });
            }
        }
    }
}

/// Resident memory of a process that is not part of a file, in bytes.
fn resident(pid: i32) -> Option<u64> {
    sum(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, &["RssAnon:", "RssShmem:"])
}

/// The same, with pages that several processes share divided among them.
fn proportional(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    sum(&text, &["Pss_Anon:", "Pss_Shmem:"])
}

/// Lines such as `RssAnon:     1234 kB`.
fn sum(text: &str, names: &[&str]) -> Option<u64> {
    let value = |line: &str| {
        let name = names.iter().find(|name| line.starts_with(**name))?;
        line[name.len()..].trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let values: Vec<u64> = text.lines().filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum::<u64>() * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_uses() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = resident(own).unwrap();
        let held = vec![1_u8; 64 << 20];
        assert!(resident(own).unwrap() >= before + (60 << 20));
        assert!(proportional(own).unwrap() >= 60 << 20);
        drop(held);
        assert_eq!(resident(0), None);
    }
}
