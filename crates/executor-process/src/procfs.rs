//! Processes as `/proc` shows them: trees, and those that carry a token in their environment.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wire::{LAUNCH_VARIABLE, SHIM_VARIABLE};

/// The direct children of a process, all its threads included. None if it is gone.
pub(crate) fn children(pid: i32) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let Ok(thread) = thread else { continue };
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => {
                found.extend(text.split_ascii_whitespace().filter_map(|p| p.parse::<i32>().ok()))
            }
            // Either the thread has just ended, or the kernel does not have these files.
            Err(_) if Path::new("/proc/thread-self/children").exists() => {}
            Err(_) => return Some(children_by_parent(pid)),
        }
    }
    Some(found)
}

/// The children of the calling thread: cheaper, and for a program whose first thread makes all its
/// children (and adopts orphans, which go to the first thread), all there are.
pub(crate) fn own_children() -> Vec<i32> {
    thread_local! {
        // Asked at each task's end: opened once, read from the start each time.
        static FILE: Option<File> = File::open("/proc/thread-self/children").ok();
    }
    let read = FILE.with(|file| {
        let file = file.as_ref()?;
        let (mut text, mut end) = (vec![0; 1024], 0);
        loop {
            // The kernel gives whole numbers, a page at most: only nothing is the end.
            let bytes = file.read_at(text.get_mut(end..)?, u64::try_from(end).ok()?).ok()?;
            if bytes == 0 {
                text.truncate(end);
                return Some(text);
            }
            end += bytes;
            if text.len() - end < 512 {
                text.resize(text.len() * 4, 0);
            }
        }
    });
    match read.as_deref().map(str::from_utf8) {
        Some(Ok(text)) => text.split_ascii_whitespace().filter_map(|p| p.parse().ok()).collect(),
        _ => children_by_parent(i32::try_from(std::process::id()).unwrap_or(0)),
    }
}

/// For kernels without `children` files.
fn children_by_parent(parent: i32) -> Vec<i32> {
    all().filter(|&pid| stat(pid).is_some_and(|s| s.parent == parent)).collect()
}

/// A process and all below it, as far as they can be seen at once.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        for child in children(pid).unwrap_or_default() {
            if !found.contains(&child) {
                found.push(child);
            }
        }
    }
    found
}

pub(crate) struct Stat {
    pub parent: i32,
    pub zombie: bool,
    pub group: i32,
    pub session: i32,
    /// Clock ticks since boot.
    pub started: u64,
}

pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The command name is in parentheses and may hold anything, parentheses too.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The value of a variable in a process's initial environment, if it may be read.
pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|&b| b == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        String::from_utf8(value.to_vec()).ok()
    })
}

/// Every process.
fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// What the processes of tasks carry in their environment.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// Beginning of the shim's folder: one shim's, or that of all shims of a data folder. Launches
    /// of another server on this host, even with the same ids, are never touched.
    pub shims: String,
    /// Only these launches.
    pub launches: Option<BTreeSet<String>>,
}

impl Mark {
    fn is_on(&self, environment: &[u8]) -> bool {
        let value = |name: &str| {
            environment.split(|&b| b == 0).find_map(|entry| {
                let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
                std::str::from_utf8(value).ok()
            })
        };
        value(SHIM_VARIABLE).is_some_and(|shim| shim.starts_with(&self.shims))
            && self.launches.as_ref().is_none_or(|launches| {
                value(LAUNCH_VARIABLE).is_some_and(|launch| launches.contains(launch))
            })
    }
}

/// Processes that carry the mark, with all below them. The caller itself is never among them.
pub(crate) fn carrying(mark: &Mark) -> BTreeSet<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut found = BTreeSet::new();
    for pid in all().filter(|&pid| pid != own) {
        if fs::read(format!("/proc/{pid}/environ")).is_ok_and(|e| mark.is_on(&e)) {
            found.extend(tree(pid));
        }
    }
    found.remove(&own);
    found
}

/// Processes with this argument on their command line.
pub(crate) fn running_with_argument(argument: &[u8]) -> Vec<i32> {
    all()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|&b| b == 0).any(|a| a == argument))
        })
        .collect()
}

/// Sends a signal to a process; that it is gone is no error.
pub(crate) fn signal(pid: i32, signal: Signal) {
    // 0, 1 and negative numbers are never a task.
    if pid > 1 {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Kills a set of trees so that none of them can escape by forking: first stops all until no new
/// process appears, then kills.
pub(crate) fn kill_trees(roots: &[i32]) {
    let mut stopped = BTreeSet::new();
    for _ in 0..20 {
        let seen: BTreeSet<i32> = roots.iter().flat_map(|&root| tree(root)).collect();
        let new: Vec<i32> = seen.difference(&stopped).copied().collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            signal(pid, Signal::SIGSTOP);
            stopped.insert(pid);
        }
    }
    for pid in stopped {
        signal(pid, Signal::SIGKILL);
    }
}

/// Kills whatever carries the mark, and waits until nothing does. False if something
/// is still there after `patience` (it hangs in the kernel).
pub(crate) fn kill_carrying(mark: &Mark, patience: Duration) -> bool {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let found: Vec<i32> = carrying(mark)
            .into_iter()
            .filter(|&pid| stat(pid).is_some_and(|s| !s.zombie))
            .collect();
        if found.is_empty() {
            return true;
        }
        if begin.elapsed() > patience {
            return false;
        }
        kill_trees(&found);
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_carries_a_mark_is_found_and_killed() {
        let shims = format!("/data-{}/shims/", std::process::id());
        let mut child = Command::new("sh")
            .args(["-c", "setsid sleep 1000 & wait"])
            .env(SHIM_VARIABLE, format!("{shims}1"))
            .env(LAUNCH_VARIABLE, "a.1.1")
            .spawn()
            .unwrap();
        let marked = |launch: &str| Mark {
            shims: shims.clone(),
            launches: Some(BTreeSet::from([launch.to_owned()])),
        };
        let begin = Instant::now();
        while carrying(&marked("a.1.1")).len() < 2 {
            assert!(begin.elapsed() < Duration::from_secs(20), "no such process");
            std::thread::yield_now();
        }
        assert!(carrying(&marked("a.1.2")).is_empty());
        assert!(carrying(&Mark { shims: "/other/".into(), ..marked("a.1.1") }).is_empty());
        let all = Mark { shims: shims.clone(), launches: None };
        assert!(carrying(&all).len() >= 2);
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(stat(pid).unwrap().parent, i32::try_from(std::process::id()).unwrap());
        assert!(kill_carrying(&marked("a.1.1"), Duration::from_secs(20)));
        assert!(!child.wait().unwrap().success());
        assert!(carrying(&all).is_empty());
    }
}
