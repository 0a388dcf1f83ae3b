//! Files that arrive: looking at a folder, and waiting until what is there has settled.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::UNIX_EPOCH;

use kobza_model::Timestamp;
use sha2::{Digest, Sha256};

use crate::{EventBody, TriggerEvent, TriggerKey};

/// Most files of one folder that are looked at.
const MAX_FILES: usize = 100_000;

/// A file as it was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sighting {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) modified: Timestamp,
}

/// What one trigger has seen.
#[derive(Default)]
pub(crate) struct Watch {
    /// Files with when they were first seen so, and whether they have been reported.
    seen: BTreeMap<String, (Sighting, Timestamp, bool)>,
}

impl Watch {
    /// Takes what is there now and answers what has not changed for `settle` microseconds, each
    /// once. Files older than `since` are none of its business.
    pub(crate) fn look(
        &mut self,
        files: Vec<Sighting>,
        since: Timestamp,
        settle: i64,
        now: Timestamp,
    ) -> Vec<Sighting> {
        let mut settled = Vec::new();
        let mut seen = BTreeMap::new();
        for file in files.into_iter().filter(|file| file.modified >= since) {
            let before = self.seen.remove(&file.path).filter(|(same, _, _)| *same == file);
            let (first, reported) = before.map_or((now, false), |(_, first, told)| (first, told));
            let ripe = now.0.saturating_sub(first.0) >= settle;
            if ripe && !reported {
                settled.push(file.clone());
            }
            seen.insert(file.path.clone(), (file, first, reported || ripe));
        }
        self.seen = seen;
        settled
    }
}

/// The event of a settled file: the same file in the same state has the same id.
pub(crate) fn event(key: &TriggerKey, file: Sighting, now: Timestamp) -> TriggerEvent {
    let mut hash = Sha256::new();
    hash.update(file.path.as_bytes());
    hash.update([0]);
    hash.update(file.size.to_le_bytes());
    hash.update(file.modified.0.to_le_bytes());
    let digest = hash.finalize();
    let id = digest[..16].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    TriggerEvent {
        id,
        sequence: 0,
        at: now,
        body: EventBody::File {
            workflow: key.workflow.clone(),
            trigger: key.name.clone(),
            path: file.path,
            size: file.size,
            modified: file.modified,
        },
    }
}

/// The regular files that match a pattern (wildcards in its last part). An unreadable folder is an
/// empty one: it may appear later.
pub(crate) fn scan(pattern: &str) -> Vec<Sighting> {
    let Some((folder, name)) = pattern.rsplit_once('/') else { return Vec::new() };
    let folder = if folder.is_empty() { "/" } else { folder };
    let Ok(entries) = std::fs::read_dir(Path::new(folder)) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let own = entry.file_name().into_string().ok()?;
            if !matches(name, &own) {
                return None;
            }
            let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some(Sighting {
                path: entry.path().into_os_string().into_string().ok()?,
                size: metadata.len(),
                modified: Timestamp(i64::try_from(modified.as_micros()).ok()?),
            })
        })
        .take(MAX_FILES)
        .collect()
}

/// `*` is any text, `?` any character; a leading dot must be named.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                p = star + 1;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.csv", "a.csv", true),
            ("*.csv", "a.csv.tmp", false),
            ("*.csv", ".a.csv", false),
            ("orders-????-*.csv", "orders-2026-01.csv", true),
            ("orders-????-*.csv", "orders-26-01.csv", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("x", "x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_file_counts_once_it_has_settled_and_once_only() {
        let file = |size| Sighting { path: "/in/a".into(), size, modified: Timestamp(100) };
        let mut watch = Watch::default();
        let mut look =
            |size, now| watch.look(vec![file(size)], Timestamp(50), 10, Timestamp(now)).len();
        assert_eq!((look(1, 100), look(1, 105), look(2, 109)), (0, 0, 0));
        assert_eq!((look(2, 118), look(2, 119), look(2, 200)), (0, 1, 0));
        assert_eq!((look(3, 201), look(3, 211)), (0, 1), "it has changed: a new arrival");
        let old = Sighting { modified: Timestamp(49), ..file(1) };
        assert!(Watch::default().look(vec![old], Timestamp(50), 0, Timestamp(60)).is_empty());
    }
}
