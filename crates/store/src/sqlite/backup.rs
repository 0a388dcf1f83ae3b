//! Copies of the store: made while it works, checked before they count, and put back.

use std::path::Path;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{FILE, SqliteOptions, SqliteStore, connect_reader, create_folder, migrations, reading};
use crate::StoreError;
use crate::lock::FolderLock;

impl SqliteStore {
    /// Copies the store as of one instant into a new file, while it is read and written, and
    /// checks the copy. Answers the copy's size in bytes.
    ///
    /// # Errors
    /// The file exists, cannot be written, or the copy is damaged (then it is removed again).
    pub fn backup(&self, target: &Path) -> Result<u64, StoreError> {
        if target.exists() {
            return Err(StoreError(format!("{} exists already", target.display())));
        }
        // A connection of its own: a long copy must not keep a reader from the pool.
        let source = connect_reader(&self.path, &self.options)?;
        copy(&source, target)?;
        let size = std::fs::metadata(target).map_err(|e| file_error(target, &e))?.len();
        Ok(size)
    }

    /// Puts a copy made by [`SqliteStore::backup`] in place as the store of `folder`.
    ///
    /// # Errors
    /// A server has the folder, there is a store and `force` is not given, or the copy is damaged
    /// or of a newer version. The folder is then as it was.
    pub fn restore(folder: &Path, copy_file: &Path, force: bool) -> Result<(), StoreError> {
        create_folder(folder)?;
        let _lock = FolderLock::take(folder)?;
        let path = folder.join(FILE);
        if path.exists() && !force {
            return Err(StoreError(format!(
                "{} exists; restoring would replace it: force it, or choose another data folder",
                path.display()
            )));
        }
        if !copy_file.is_file() {
            return Err(StoreError(format!("there is no file {}", copy_file.display())));
        }
        let source = connect_reader(copy_file, &SqliteOptions::default())?;
        migrations::check_known(&source, copy_file)?;
        let fresh = path.with_extension("restoring");
        remove(&fresh)?;
        copy(&source, &fresh)?;
        // The old log belongs to the old file: with the new one it would be poison.
        for suffix in ["db-wal", "db-shm"] {
            remove(&path.with_extension(suffix))?;
        }
        std::fs::rename(&fresh, &path).map_err(|e| file_error(&path, &e))?;
        sync_folder(folder)
    }

    /// What is wrong with the database; empty when nothing is. Reads all of it.
    ///
    /// # Errors
    /// It cannot be read at all.
    pub fn integrity_check(&self) -> Result<Vec<String>, StoreError> {
        let connection = connect_reader(&self.path, &self.options)?;
        let mut problems = damage(&connection)?;
        let wrong: i64 = connection
            .query_row(
                "SELECT count(*) FROM
                    (SELECT workflow_no, state, count(*) AS runs FROM run GROUP BY 1, 2) found
                 FULL JOIN (SELECT * FROM run_total WHERE runs <> 0) kept
                    ON kept.workflow_no = found.workflow_no AND kept.state = found.state
                 WHERE kept.runs IS NOT found.runs",
                [],
                |row| row.get(0),
            )
            .map_err(reading)?;
        if wrong > 0 {
            problems.push(format!("{wrong} of the kept numbers of runs are wrong"));
        }
        Ok(problems)
    }
}

/// Copies all pages, makes one plain file of them, checks it and syncs it.
fn copy(source: &Connection, target: &Path) -> Result<(), StoreError> {
    let copied = copy_pages(source, target);
    if copied.is_err() {
        // Half a copy must not be taken for a whole one.
        remove(target)?;
    }
    copied
}

fn copy_pages(source: &Connection, target: &Path) -> Result<(), StoreError> {
    let copying = |e| StoreError(format!("copying to {}: {e}", target.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = Connection::open_with_flags(target, flags).map_err(copying)?;
    let backup = Backup::new(source, &mut connection).map_err(copying)?;
    // All at once: a copy in steps begins again whenever the writer commits.
    if backup.step(-1).map_err(copying)? != StepResult::Done {
        return Err(StoreError(format!("copying to {} did not finish", target.display())));
    }
    drop(backup);
    connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(copying)?;
    let problems = damage(&connection)?;
    if let Some(problem) = problems.first() {
        return Err(StoreError(format!("the copy {} is damaged: {problem}", target.display())));
    }
    drop(connection);
    std::fs::File::open(target).and_then(|file| file.sync_all()).map_err(|e| file_error(target, &e))
}

fn damage(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let lines: Vec<String> = connection
        .prepare("PRAGMA integrity_check")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(reading)?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error(path, &error)),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| file_error(folder, &e))
}

fn file_error(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError(format!("{}: {error}", path.display()))
}
