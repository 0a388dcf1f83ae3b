//! The schema's history: numbered files, applied in order, each in a transaction of its own.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::StoreError;

/// All migrations; the number of one is its place here, from 1.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_initial", include_str!("../../migrations/sqlite/0001_initial.sql")),
    ("0002_run_hours", include_str!("../../migrations/sqlite/0002_run_hours.sql")),
];

/// Marks the file as a store of ours ("kbza").
const APPLICATION_ID: i32 = 0x6b62_7a61;

/// Brings the schema up to date. An older store is copied beside itself first.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found = version(connection, path)?;
    if found == MIGRATIONS.len() {
        return Ok(());
    }
    if found > 0 {
        copy_before_upgrade(connection, path, found)?;
    }
    for (place, (name, sql)) in MIGRATIONS.iter().enumerate().skip(found) {
        apply(connection, place + 1, sql)
            .map_err(|e| StoreError(format!("migration {name} of {}: {e}", path.display())))?;
    }
    Ok(())
}

/// Refuses a store whose schema is not exactly ours, for those who only read.
pub(super) fn check_version(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found = version(connection, path)?;
    if found < MIGRATIONS.len() {
        return Err(StoreError(format!(
            "{} has schema version {found}, this program needs {}: start the server once to \
             upgrade it",
            path.display(),
            MIGRATIONS.len()
        )));
    }
    Ok(())
}

/// Refuses what is not a store of this or an older version.
pub(super) fn check_known(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    match version(connection, path)? {
        0 => Err(StoreError(format!("{} is not a store", path.display()))),
        _ => Ok(()),
    }
}

fn version(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(|e| StoreError(format!("cannot read {}: {e}", path.display())))
    };
    let found = pragma("user_version")?;
    let application = pragma("application_id")?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| StoreError(format!("cannot read {}: {e}", path.display())))?;
    if application != APPLICATION_ID && (application != 0 || tables != 0) {
        return Err(StoreError(format!("{} is another program's database", path.display())));
    }
    let newest = MIGRATIONS.len();
    match usize::try_from(found) {
        Ok(found) if found <= newest => Ok(found),
        _ => Err(StoreError(format!(
            "{} has schema version {found}, this program knows versions up to {newest}: a newer \
             version of it wrote the store; use that one",
            path.display()
        ))),
    }
}

fn apply(connection: &mut Connection, number: usize, sql: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(sql)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    transaction.pragma_update(None, "user_version", number)?;
    transaction.commit()
}

fn copy_before_upgrade(
    connection: &Connection,
    path: &Path,
    found: usize,
) -> Result<(), StoreError> {
    let copy = path.with_extension(format!("before-v{}.db", found + 1));
    if copy.exists() {
        // Left by an upgrade that was cut off: the store is still as it was then.
        return Ok(());
    }
    let target = copy.to_string_lossy();
    connection
        .execute("VACUUM INTO ?1", [target.as_ref()])
        .map_err(|e| StoreError(format!("cannot copy the store to {target}: {e}")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Schema = Vec<(String, String)>;

    fn schema(connection: &Connection) -> Schema {
        let mut statement = connection
            .prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name")
            .unwrap();
        statement
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
            .unwrap()
            .collect::<rusqlite::Result<_>>()
            .unwrap()
    }

    fn migrated() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("memory")).unwrap();
        connection
    }

    #[test]
    fn all_migrations_make_the_checked_in_schema() {
        let whole = Connection::open_in_memory().unwrap();
        whole.execute_batch(include_str!("../../migrations/sqlite/schema.sql")).unwrap();
        assert_eq!(schema(&migrated()), schema(&whole));
    }

    #[test]
    fn the_newest_migration_is_safe_twice() {
        let connection = migrated();
        let before = schema(&connection);
        let (_, newest) = MIGRATIONS.last().unwrap();
        connection.execute_batch(newest).unwrap();
        assert_eq!(schema(&connection), before);
        let shards: i64 =
            connection.query_row("SELECT count(*) FROM shard", [], |row| row.get(0)).unwrap();
        assert_eq!(shards, 1);
    }

    #[test]
    fn a_newer_store_and_a_strange_one_are_refused() {
        let mut newer = migrated();
        newer.pragma_update(None, "user_version", 999).unwrap();
        let error = migrate(&mut newer, Path::new("a/kobza.db")).unwrap_err().to_string();
        assert!(error.contains("schema version 999") && error.contains("a/kobza.db"), "{error}");

        let mut strange = Connection::open_in_memory().unwrap();
        strange.execute_batch("CREATE TABLE t (a)").unwrap();
        let error = migrate(&mut strange, Path::new("b.db")).unwrap_err().to_string();
        assert!(error.contains("another program's"), "{error}");
    }
}
