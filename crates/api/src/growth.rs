//! Tells those who follow a log when it grows: the system says so, nobody looks again and again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

/// The folders that are watched, each for so many followers.
type Folders = Arc<Mutex<HashMap<PathBuf, (usize, watch::Sender<()>)>>>;

/// What watches for all followers. Where the system cannot, followers look by themselves.
#[derive(Clone, Default)]
pub(crate) struct Growths(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Held while the watcher is asked, which waits for its thread; that thread takes only the
    /// other lock.
    watcher: Mutex<Option<RecommendedWatcher>>,
    folders: Folders,
}

fn watcher(folders: &Folders) -> notify::Result<RecommendedWatcher> {
    let folders = folders.clone();
    notify::recommended_watcher(move |told: notify::Result<notify::Event>| {
        // What is read by a follower itself is an access.
        let Ok(event) = told else { return };
        if event.kind.is_access() {
            return;
        }
        let folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
        for path in &event.paths {
            for folder in [Some(path.as_path()), path.parent()].into_iter().flatten() {
                if let Some((_, follower)) = folders.get(folder) {
                    follower.send_replace(());
                }
            }
        }
    })
}

impl Growths {
    /// Watches for a log's growth, or, as long as its folder is not there, for that folder's
    /// coming. `None` when that cannot be watched.
    pub(crate) fn of(&self, log: &Path) -> Option<Growth> {
        let own = log.parent()?;
        let folder = own.ancestors().find(|folder| folder.is_dir())?.to_owned();
        let mut kept = self.0.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            *kept = watcher(&self.0.folders)
                .inspect_err(|error| tracing::warn!(%error, "logs cannot be watched"))
                .ok();
        }
        let (is_new, told) = {
            let mut folders = self.0.folders.lock().unwrap_or_else(PoisonError::into_inner);
            let entry =
                folders.entry(folder.clone()).or_insert_with(|| (0, watch::Sender::new(())));
            entry.0 += 1;
            (entry.0 == 1, entry.1.subscribe())
        };
        // From here on its drop keeps the count right.
        let growth = Growth { of: self.clone(), is_own: own == folder, folder, told };
        let watched = match (is_new, kept.as_mut()) {
            (false, _) => Ok(()),
            (true, Some(watcher)) => watcher.watch(&growth.folder, RecursiveMode::NonRecursive),
            (true, None) => Err(notify::Error::generic("no watcher")),
        };
        drop(kept);
        watched.is_ok().then_some(growth)
    }
}

/// A follower's end of it.
pub(crate) struct Growth {
    of: Growths,
    folder: PathBuf,
    /// It is the log's own folder.
    is_own: bool,
    told: watch::Receiver<()>,
}

impl Growth {
    /// Whether it tells of the log itself, not of a folder above it.
    pub(crate) fn is_of_log(&self) -> bool {
        self.is_own
    }

    /// Until something happens in the folder.
    pub(crate) async fn grown(&mut self) {
        if self.told.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        let inner = &self.of.0;
        let mut kept = inner.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = {
            let mut folders = inner.folders.lock().unwrap_or_else(PoisonError::into_inner);
            match folders.get_mut(&self.folder) {
                Some(entry) => {
                    entry.0 -= 1;
                    let is_last = entry.0 == 0;
                    if is_last {
                        folders.remove(&self.folder);
                    }
                    is_last
                }
                None => false,
            }
        };
        if is_last && let Some(watcher) = kept.as_mut() {
            // The folder may be gone, and its watch with it.
            let _gone = watcher.unwatch(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_log_that_does_not_exist_yet_is_told_of() {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("aa/run/3/1.log");
        let growths = Growths::default();
        let mut growth = growths.of(&log).unwrap();
        assert!(!growth.is_of_log());
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, growth.grown()).await.unwrap();
        drop(growth);
        let mut growth = growths.of(&log).unwrap();
        assert!(growth.is_of_log());
        let mut other = growths.of(&log).unwrap();
        std::fs::write(&log, "x").unwrap();
        tokio::time::timeout(patience, growth.grown()).await.unwrap();
        tokio::time::timeout(patience, other.grown()).await.unwrap();
        drop((growth, other));
        assert!(growths.0.folders.lock().unwrap().is_empty());
    }
}
