//! A connection with its prepared statements, and the shared queries over it.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use postgres::error::SqlState;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, Statement};

use super::PostgresOptions;
use crate::StoreError;
use crate::read::{Cells, EachRow, Queries, Statements, Value};

type Result<T> = std::result::Result<T, StoreError>;

/// The schema when the URL names none.
const DEFAULT_SCHEMA: &str = "kobza";
/// PostgreSQL cuts longer names.
const MAX_SCHEMA_BYTES: usize = 63;
/// Statements that a connection keeps prepared; beyond that it begins anew.
const MAX_PREPARED: usize = 300;
/// How long a statement waits for another's lock: as long as a batch in flight may take.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Where to connect to, and how.
pub(super) struct Target {
    at: kobza_postgres_tls::Target,
    pub(super) schema: String,
    settings: String,
}

impl Target {
    /// Takes the schema out of the URL; the rest is PostgreSQL's own.
    pub(super) fn parse(url: &str, options: &PostgresOptions) -> Result<Self> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut schema = DEFAULT_SCHEMA.to_owned();
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("schema", name)) => name.clone_into(&mut schema),
                _ => rest.push(pair),
            }
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if schema.is_empty() || schema.len() > MAX_SCHEMA_BYTES || !schema.chars().all(plain) {
            return Err(StoreError(
                "the schema in the database's URL may have lower-case letters, digits and `_`"
                    .into(),
            ));
        }
        let separator = if rest.is_empty() { "" } else { "?" };
        let url = format!("{base}{separator}{}", rest.join("&"));
        let mut at = kobza_postgres_tls::Target::parse(&url)
            .map_err(|e| StoreError(format!("the database's URL is wrong: {}", causes(&e))))?;
        let config = &mut at.config;
        if config.get_application_name().is_none() {
            config.application_name("kobza");
        }
        config.connect_timeout(options.connect_timeout);
        config.tcp_user_timeout(options.connect_timeout);
        let settings = format!(
            "SET search_path TO \"{schema}\"; SET statement_timeout = {}; SET lock_timeout = {};
             SET idle_in_transaction_session_timeout = {}; SET client_min_messages = warning",
            options.statement_timeout.as_millis(),
            LOCK_TIMEOUT.as_millis(),
            options.statement_timeout.as_millis(),
        );
        Ok(Self { at, schema, settings })
    }

    pub(super) fn connect(&self) -> Result<Link> {
        let mut client = self
            .at
            .connect()
            .map_err(|e| StoreError(format!("cannot connect to PostgreSQL: {}", causes(&e))))?;
        client.batch_execute(&self.settings).map_err(|e| failure("connecting", &e))?;
        Ok(Link { client, prepared: HashMap::new(), ended: false })
    }
}

/// An error with what it rests on: the outermost text alone says only "db error".
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(cause) = inner {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        inner = cause.source();
    }
    text
}

pub(super) fn failure(step: &str, error: &postgres::Error) -> StoreError {
    StoreError::at(step, causes(error))
}

/// Whether the database ended the connection with this error. The socket's end comes a moment
/// later than these words, so the client may still believe in its connection.
fn ends_connection(error: &postgres::Error) -> bool {
    let ended = |state: &SqlState| {
        [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW]
            .contains(state)
            || state.code().starts_with("08")
    };
    error.is_closed() || error.code().is_some_and(ended)
}

pub(super) struct Link {
    client: Client,
    prepared: HashMap<String, Statement>,
    /// The database said that this connection is over.
    ended: bool,
}

impl Link {
    pub(super) fn is_closed(&self) -> bool {
        self.ended || self.client.is_closed()
    }

    /// What went wrong, remembering when it was the connection itself.
    fn noted(&mut self, step: &str, error: &postgres::Error) -> StoreError {
        self.ended |= ends_connection(error);
        failure(step, error)
    }

    /// Several statements without values, as one message.
    pub(super) fn run(&mut self, sql: &str) -> std::result::Result<(), postgres::Error> {
        let result = self.client.batch_execute(sql);
        self.ended |= result.as_ref().is_err_and(ends_connection);
        result
    }

    /// Calls `read` with the data of one instant.
    pub(super) fn snapshot(
        &mut self,
        read: &mut dyn FnMut(&mut dyn Queries) -> Result<()>,
    ) -> Result<()> {
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .map_err(|e| failure("reading", &e))?;
        read(self)?;
        self.run("COMMIT").map_err(|e| failure("reading", &e))
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        if self.prepared.len() >= MAX_PREPARED {
            self.prepared.clear();
        }
        let statement = self.prepare_once(sql)?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    fn prepare_once(&mut self, sql: &str) -> Result<Statement> {
        self.client.prepare(&sql.replace('?', "$")).map_err(|e| self.noted("preparing", &e))
    }

    fn fetch(&mut self, statement: &Statement, values: &[Value], each: EachRow<'_>) -> Result<()> {
        let reading = |ended: &mut bool, e: postgres::Error| {
            *ended |= ends_connection(&e);
            failure("reading", &e)
        };
        let ended = &mut self.ended;
        let mut rows =
            self.client.query_raw(statement, values.iter()).map_err(|e| reading(ended, e))?;
        let mut cells = Cells::default();
        while let Some(row) = rows.next().map_err(|e| reading(ended, e))? {
            cells.0.clear();
            for place in 0..row.len() {
                cells.0.push(cell(&row, place)?);
            }
            each(&mut cells)?;
        }
        Ok(())
    }

    /// The rows of a query over one array of bytes.
    pub(super) fn rows_of<T>(
        &mut self,
        sql: &str,
        array: &Vec<Vec<u8>>,
        mut map: impl FnMut(&mut Cells) -> Result<T>,
    ) -> Result<Vec<T>> {
        let statement = self.prepare(sql)?;
        let rows =
            self.client.query(&statement, &[array]).map_err(|e| self.noted("reading", &e))?;
        let mut mapped = Vec::with_capacity(rows.len());
        for row in rows {
            let cells = (0..row.len()).map(|place| cell(&row, place)).collect::<Result<_>>()?;
            mapped.push(map(&mut Cells(cells))?);
        }
        Ok(mapped)
    }

    /// A statement over arrays, one for each column.
    pub(super) fn bulk(&mut self, sql: &str, columns: &[&(dyn ToSql + Sync)]) -> Result<u64> {
        let statement = self.prepare(sql)?;
        self.client.execute(&statement, columns).map_err(|e| self.noted("writing", &e))
    }
}

fn cell(row: &postgres::Row, place: usize) -> Result<Value> {
    let wrong = |e: postgres::Error| failure("reading a column", &e);
    let ty = row.columns()[place].type_();
    let value = match *ty {
        Type::INT2 => row.try_get::<_, Option<i16>>(place).map_err(wrong)?.map(|n| n.into()),
        Type::INT4 => row.try_get::<_, Option<i32>>(place).map_err(wrong)?.map(|n| n.into()),
        Type::INT8 => row.try_get::<_, Option<i64>>(place).map_err(wrong)?,
        Type::TEXT => {
            return Ok(row.try_get::<_, Option<String>>(place).map_err(wrong)?.into());
        }
        Type::BYTEA => {
            return Ok(row.try_get::<_, Option<Vec<u8>>>(place).map_err(wrong)?.into());
        }
        ref other => return Err(StoreError(format!("an unexpected column of type {other}"))),
    };
    Ok(value.into())
}

impl Queries for Link {
    fn each(&mut self, sql: &str, values: &[Value], row: EachRow<'_>) -> Result<()> {
        let statement = self.prepare(sql)?;
        self.fetch(&statement, values, row)
    }

    fn each_once(&mut self, sql: &str, values: &[Value], row: EachRow<'_>) -> Result<()> {
        let statement = self.prepare_once(sql)?;
        self.fetch(&statement, values, row)
    }
}

impl Statements for Link {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64> {
        let statement = self.prepare(sql)?;
        let values: Vec<_> = values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
        self.client.execute(&statement, &values).map_err(|e| self.noted("writing", &e))
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut postgres::types::private::BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            // The column decides how wide a number is.
            Self::Int(number) => match *ty {
                Type::INT2 => i16::try_from(*number)?.to_sql(ty, out),
                Type::INT4 => i32::try_from(*number)?.to_sql(ty, out),
                _ => number.to_sql(ty, out),
            },
            Self::Text(text) => text.to_sql(ty, out),
            Self::Blob(bytes) => bytes.to_sql(ty, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_taken_out_of_the_url() {
        let options = PostgresOptions::default();
        let parse = |url: &str| Target::parse(url, &options);
        let target = parse("postgres://me@host/db?schema=team_1&sslmode=disable").unwrap();
        assert_eq!(target.schema, "team_1");
        assert_eq!(target.at.config.get_dbname(), Some("db"));
        assert_eq!(parse("postgres://me@host/db").unwrap().schema, "kobza");
        for bad in ["a\"b", "", "A", "a;b", "a b"] {
            assert!(parse(&format!("postgres://me@host/db?schema={bad}")).is_err(), "{bad}");
        }
        let error = parse("postgres://me:secret@host/db?nonsense=1").err().unwrap().to_string();
        assert!(error.contains("nonsense") && !error.contains("secret"), "{error}");
    }
}
