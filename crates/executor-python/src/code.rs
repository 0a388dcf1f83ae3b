//! Notices that code has changed under a warm parent.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kobza_model::Json;

/// With more files than this, they are looked at only now and then.
const FILES_ALWAYS: usize = 64;
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The files that a parent has imported, as they were.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    files: Vec<(PathBuf, i128, u64)>,
    looked: Option<Instant>,
}

impl Imported {
    /// From the parent's report: `[[path, modified in nanoseconds, bytes], ...]`.
    pub(crate) fn of(report: &Json) -> Self {
        let files = report.as_array().map(Vec::as_slice).unwrap_or_default();
        let files = files.iter().filter_map(|file| {
            let modified = file.get(1)?.as_i64()?;
            Some((
                PathBuf::from(file.get(0)?.as_str()?),
                i128::from(modified),
                file.get(2)?.as_u64()?,
            ))
        });
        Self { files: files.collect(), looked: None }
    }

    /// Whether any of them is no longer what was imported.
    pub(crate) fn is_stale(&mut self, now: Instant) -> bool {
        if self.files.len() > FILES_ALWAYS {
            if self.looked.is_some_and(|at| now.saturating_duration_since(at) < LOOK_EVERY) {
                return false;
            }
            self.looked = Some(now);
        }
        self.files.iter().any(|(path, modified, bytes)| {
            fs::metadata(path).map_or(true, |about| {
                let at = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
                at != *modified || about.len() != *bytes
            })
        })
    }
}
