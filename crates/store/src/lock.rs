//! One server per data folder: an exclusive lock on a file in it, held while the store is open.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::StoreError;

/// The name of the lock file in a data folder.
const LOCK_FILE: &str = "lock";
/// Enough for a process number and a host name; a longer file is not ours.
const MAX_HOLDER_BYTES: u64 = 1000;

/// Held until dropped. The operating system lets go of it when the process dies.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: File,
    path: PathBuf,
}

impl FolderLock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(LOCK_FILE);
        let shown = path.display();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| StoreError(format!("cannot open {shown}: {e}")))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // What the holder wrote about itself is a courtesy: without it the refusal stands.
                let _ = (&mut file).take(MAX_HOLDER_BYTES).read_to_string(&mut holder);
                let holder = holder.trim();
                let holder = if holder.is_empty() { "another process" } else { holder };
                return Err(StoreError(format!(
                    "{} is in use by {holder}; stop it, or choose another data folder",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(e)) => {
                return Err(StoreError(format!("cannot lock {shown}: {e}")));
            }
        }
        let mut lock = Self { file, path };
        lock.name_holder("")?;
        Ok(lock)
    }

    /// Writes who holds it into the file, for the one that comes second.
    pub(crate) fn name_holder(&mut self, owner: &str) -> Result<(), StoreError> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let mut holder = format!("process {} on {}", std::process::id(), host.trim());
        if !owner.is_empty() {
            holder.push_str(&format!(" ({owner})"));
        }
        holder.push('\n');
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(holder.as_bytes())
        };
        write(&mut self.file)
            .map_err(|e| StoreError(format!("cannot write {}: {e}", self.path.display())))
    }
}
