//! The schema's history in PostgreSQL: the same numbers as in SQLite.

use super::link::{Link, failure};
use crate::StoreError;
use crate::read::{Queries, all};

/// All migrations; the number of one is its place here, from 1.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_initial", include_str!("../../migrations/postgres/0001_initial.sql")),
    ("0002_run_hours", include_str!("../../migrations/postgres/0002_run_hours.sql")),
];

/// Servers that start together migrate one after the other ("kobza" as a number).
const MIGRATION_LOCK: i64 = 0x006b_6f62_7a61;

/// Makes the schema if it is missing, and brings it up to date, whole or not at all.
pub(super) fn migrate(link: &mut Link, schema: &str) -> Result<(), StoreError> {
    let migrating = |e: &postgres::Error| failure("migrating", e);
    link.run(&format!("BEGIN; SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        .map_err(|e| migrating(&e))?;
    let exists = exists(link, schema)?;
    if !exists {
        link.run(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))
            .map_err(|e| migrating(&e))?;
    }
    link.run("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        .map_err(|e| migrating(&e))?;
    let sql = "SELECT coalesce(max(version), 0) FROM schema_version";
    let found = all(link, sql, &[], |row| row.int(0))?.first().copied().unwrap_or(0);
    let newest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > newest {
        return Err(StoreError(format!(
            "schema {schema} has version {found}, this program knows versions up to {newest}: a \
             newer version of it wrote the store; use that one"
        )));
    }
    for ((name, sql), number) in MIGRATIONS.iter().zip(1..) {
        if number > found {
            link.run(sql)
                .map_err(|e| StoreError(format!("migration {name}: {}", migrating(&e))))?;
            link.run(&format!("INSERT INTO schema_version VALUES ({number})"))
                .map_err(|e| migrating(&e))?;
        }
    }
    link.run("COMMIT").map_err(|e| migrating(&e))
}

/// What is there, unchanged: an error when it is not what this program's servers use.
pub(super) fn look(link: &mut Link, schema: &str) -> Result<(), StoreError> {
    if !exists(link, schema)? {
        return Err(StoreError(format!(
            "schema {schema} does not exist yet: the first start of a server makes it"
        )));
    }
    let sql = "SELECT coalesce(max(version), 0) FROM schema_version";
    let found = all(link, sql, &[], |row| row.int(0))?.first().copied().unwrap_or(0);
    let newest = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found == newest {
        return Ok(());
    }
    Err(StoreError(format!(
        "schema {schema} has version {found}, the servers of this program use version {newest}"
    )))
}

fn exists(link: &mut dyn Queries, schema: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = CAST(?1 AS text)";
    Ok(!all(link, sql, &[schema.into()], |row| row.int(0))?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::link::Target;
    use super::*;
    use crate::PostgresOptions;

    /// A connection to a fresh schema; `None` (said so) without a database.
    fn fresh(name: &str) -> Option<(Link, String)> {
        let Ok(url) = std::env::var("KOBZA_TEST_POSTGRES") else {
            eprintln!("skipped: KOBZA_TEST_POSTGRES is not set");
            return None;
        };
        let schema = format!("{name}_{}", std::process::id());
        let url = format!("{url}{}schema={schema}", if url.contains('?') { '&' } else { '?' });
        let mut link = Target::parse(&url, &PostgresOptions::default()).unwrap().connect().unwrap();
        link.run(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).unwrap();
        Some((link, schema))
    }

    fn described(link: &mut Link, schema: &str) -> Vec<String> {
        let columns = "SELECT CAST(table_name || '.' || column_name || ' ' || data_type || ' '
                || is_nullable || ' ' || coalesce(column_default, '') || ' '
                || is_identity || ' ' || coalesce(collation_name, '') AS text)
            FROM information_schema.columns
            WHERE table_schema = CAST(?1 AS text) AND table_name <> 'schema_version' ORDER BY 1";
        let indexes = "SELECT CAST(replace(indexdef, CAST(?1 AS text) || '.', '') AS text)
            FROM pg_indexes WHERE schemaname = CAST(?1 AS text) ORDER BY 1";
        let mut lines = all(link, columns, &[schema.into()], |row| row.text(0)).unwrap();
        lines.extend(all(link, indexes, &[schema.into()], |row| row.text(0)).unwrap());
        lines
    }

    #[test]
    fn all_migrations_make_the_checked_in_schema_and_the_newest_is_safe_twice() {
        let Some((mut link, schema)) = fresh("kobza_migrated") else { return };
        assert!(look(&mut link, &schema).unwrap_err().to_string().contains("not exist yet"));
        migrate(&mut link, &schema).unwrap();
        look(&mut link, &schema).unwrap();
        let migrated = described(&mut link, &schema);
        assert!(migrated.len() > 50);
        link.run(MIGRATIONS.last().unwrap().1).unwrap();
        assert_eq!(described(&mut link, &schema), migrated);

        let Some((mut whole, other)) = fresh("kobza_whole") else { return };
        whole.run(&format!("CREATE SCHEMA {other}")).unwrap();
        whole.run(include_str!("../../migrations/postgres/schema.sql")).unwrap();
        assert_eq!(described(&mut whole, &other), migrated);

        link.run("INSERT INTO schema_version VALUES (999)").unwrap();
        let error = migrate(&mut link, &schema).unwrap_err().to_string();
        assert!(error.contains("version 999"), "{error}");
        link.run("ROLLBACK; INSERT INTO schema_version VALUES (999)").unwrap();
        let error = look(&mut link, &schema).unwrap_err().to_string();
        assert!(error.contains("version 999"), "{error}");
        link.run("BEGIN").unwrap();
        link.run("ROLLBACK").unwrap();
        link.run(&format!("DROP SCHEMA {schema} CASCADE; DROP SCHEMA {other} CASCADE")).unwrap();
    }
}
