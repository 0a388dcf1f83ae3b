//! The shared queries over a connection of SQLite.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement, ToSql};

use super::{SqliteStore, reading};
use crate::StoreError;
use crate::read::{Cells, EachRow, Queries, Reads, Statements, Value};

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// A connection, usually inside a transaction.
pub(super) struct On<'a>(pub(super) &'a Connection);

impl Queries for On<'_> {
    fn each(&mut self, sql: &str, values: &[Value], row: EachRow<'_>) -> Result<(), StoreError> {
        let mut statement = self.0.prepare_cached(sql).map_err(reading)?;
        step(&mut statement, values, row)
    }

    fn each_once(
        &mut self,
        sql: &str,
        values: &[Value],
        row: EachRow<'_>,
    ) -> Result<(), StoreError> {
        let mut statement = self.0.prepare(sql).map_err(reading)?;
        step(&mut statement, values, row)
    }
}

impl Statements for On<'_> {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        self.0
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(rusqlite::params_from_iter(values)))
            .map(|changed| changed as u64)
            .map_err(|e| StoreError::at("writing", e))
    }
}

fn step(
    statement: &mut Statement<'_>,
    values: &[Value],
    each: EachRow<'_>,
) -> Result<(), StoreError> {
    let columns = statement.column_count();
    let mut cells = Cells::default();
    let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(reading)?;
    while let Some(row) = rows.next().map_err(reading)? {
        cells.0.clear();
        for place in 0..columns {
            cells.0.push(match row.get_ref(place).map_err(reading)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => Value::Int(number),
                ValueRef::Text(text) => Value::Text(
                    std::str::from_utf8(text)
                        .map_err(|e| StoreError::at("reading text", e))?
                        .to_owned(),
                ),
                ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
                ValueRef::Real(_) => {
                    return Err(StoreError("an unexpected real number".into()));
                }
            });
        }
        each(&mut cells)?;
    }
    Ok(())
}

impl Reads for SqliteStore {
    fn read(
        &self,
        read: &mut dyn FnMut(&mut dyn Queries) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut reader = self.readers.get()?;
        // A transaction sees one instant, however many statements it takes.
        let transaction = reader.transaction().map_err(reading)?;
        read(&mut On(&transaction))
    }
}
