//! The body of a `sql` task.

use std::process::ExitCode;

use kobza_model::Json;
use serde::Deserialize;

use super::{Connection, Failure, postgres_sql, run, shown_url, sqlite};

/// Rows of the last statement that are put out unless the spec says otherwise.
const DEFAULT_MAX_ROWS: usize = 1000;

/// What is to be done; the JSON on the standard input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SqlSpec {
    /// `sqlite:///absolute/path.db`, `sqlite:relative.db`, `sqlite::memory:`, or `postgres://...`;
    /// else the connection says where.
    #[serde(default)]
    pub url: String,
    #[serde(default)]
    connection: Option<Connection>,
    /// One text of any number of statements, or a list of such texts. All run in one transaction.
    #[serde(alias = "statement", alias = "sql")]
    pub statements: Statements,
    /// Bound, never pasted: an object for `:name`, a list for `?` and `$1`.
    #[serde(default)]
    pub params: Json,
    /// The first column of the first row of the last statement must equal this.
    #[serde(default, deserialize_with = "present")]
    pub expect: Option<Json>,
    #[serde(default)]
    pub max_rows: Option<usize>,
    /// Seconds to wait for a lock or a connection.
    #[serde(default)]
    pub busy_timeout_s: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Statements {
    One(String),
    Many(Vec<String>),
}

/// `null` is a value to expect, not the lack of one.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// The rows of the last statement that has columns.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub columns: Vec<String>,
    /// At most `max_rows`; one value a column.
    pub rows: Vec<Vec<Json>>,
    /// How many rows there were.
    pub row_count: u64,
    /// Rows inserted, updated or deleted by all statements.
    pub changes: u64,
}

impl SqlSpec {
    /// Takes the address from the connection, if there is one.
    fn locate(&mut self) -> Result<(), Failure> {
        match (&self.connection, self.url.is_empty()) {
            (Some(_), false) => Err(Failure::Spec("give url or connection, not both".into())),
            (None, true) => Err(Failure::Spec("give url or connection".into())),
            (None, false) => Ok(()),
            (Some(connection), true) => {
                self.url = match (&connection.path, &connection.url) {
                    (Some(path), _) => format!("sqlite:{path}"),
                    (None, Some(url)) => url.clone(),
                    (None, None) => return Err(connection.missing("url")),
                };
                Ok(())
            }
        }
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        match &self.statements {
            Statements::One(text) => vec![text],
            Statements::Many(texts) => texts.iter().map(String::as_str).collect(),
        }
    }

    pub(super) fn max_rows(&self) -> usize {
        self.max_rows.unwrap_or(DEFAULT_MAX_ROWS)
    }

    pub(super) fn busy_timeout(&self) -> std::time::Duration {
        let seconds = self.busy_timeout_s.unwrap_or(30.0).clamp(0.0, 86_400.0);
        std::time::Duration::from_secs_f64(seconds)
    }
}

/// Runs a `sql` task: spec on standard input, outputs `rows`, `columns`, `row_count`, `changes`,
/// `truncated`, `value` to the file `$KOBZA_OUTPUT`. Exit code 1: the database refused; 2: the spec
/// is wrong; 3: not the expected value; 4: the database cannot be reached.
pub fn exec_sql_main() -> ExitCode {
    run(|mut spec: SqlSpec, outputs| {
        spec.locate()?;
        let answer = if spec.url.starts_with("sqlite:") {
            sqlite::execute(&spec)?
        } else if spec.url.starts_with("postgres:") || spec.url.starts_with("postgresql:") {
            postgres_sql::execute(&spec)?
        } else {
            return Err(Failure::Spec(format!(
                "url {:?}: sqlite: and postgres: are supported",
                shown_url(&spec.url)
            )));
        };
        let value = answer.rows.first().and_then(|row| row.first()).cloned();
        println!("{} rows, {} changes", answer.row_count, answer.changes);
        put(&answer, value.as_ref(), outputs);
        match &spec.expect {
            Some(expected) => check(expected, value.as_ref()),
            None => Ok(()),
        }
    })
}

fn put(answer: &Answer, value: Option<&Json>, outputs: &mut serde_json::Map<String, Json>) {
    let rows: Vec<Json> = answer
        .rows
        .iter()
        .map(|row| {
            let pairs = answer.columns.iter().cloned().zip(row.iter().cloned());
            Json::Object(pairs.collect())
        })
        .collect();
    outputs.insert("truncated".into(), (answer.row_count > rows.len() as u64).into());
    outputs.insert("rows".into(), rows.into());
    outputs.insert("columns".into(), answer.columns.clone().into());
    outputs.insert("row_count".into(), answer.row_count.into());
    outputs.insert("changes".into(), answer.changes.into());
    outputs.insert("value".into(), value.cloned().unwrap_or(Json::Null));
}

fn check(expected: &Json, found: Option<&Json>) -> Result<(), Failure> {
    let Some(found) = found else {
        return Err(Failure::Check(format!("expected {expected}, but there is no row")));
    };
    if equal(expected, found) {
        return Ok(());
    }
    let shown: String = found.to_string().chars().take(200).collect();
    Err(Failure::Check(format!("expected {expected}, found {shown}")))
}

/// Equal as SQL sees it: SQLite has no booleans, and numbers of different types compare.
fn equal(expected: &Json, found: &Json) -> bool {
    match (expected, found) {
        (Json::Bool(expected), Json::Number(found)) => found.as_i64() == Some(i64::from(*expected)),
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => expected == found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expectations() {
        for (expected, found, holds) in [
            (json!(true), json!(1), true),
            (json!(true), json!(2), false),
            (json!(false), json!(0), true),
            (json!(1), json!(1.0), true),
            (json!("1"), json!(1), false),
            (json!(null), json!(null), true),
        ] {
            assert_eq!(check(&expected, Some(&found)).is_ok(), holds, "{expected} {found}");
        }
        assert!(check(&json!(null), None).is_err());
    }

    #[test]
    fn specs() {
        let spec: SqlSpec =
            serde_json::from_value(json!({"url": "x", "sql": "select 1", "expect": null})).unwrap();
        assert_eq!(spec.expect, Some(Json::Null));
        let spec: SqlSpec =
            serde_json::from_value(json!({"url": "x", "statements": ["a", "b"]})).unwrap();
        assert_eq!((spec.texts(), &spec.expect), (vec!["a", "b"], &None));
        let at = |connection: Json| {
            let spec = json!({"connection": connection, "statement": "a"});
            let mut spec: SqlSpec = serde_json::from_value(spec).unwrap();
            spec.locate().map(|()| spec.url)
        };
        assert_eq!(
            at(json!({"url": "sqlite:///x.db", "path": "/base/x.db"})).unwrap(),
            "sqlite:/base/x.db"
        );
        assert_eq!(at(json!({"url": "postgres://h/d", "options": {}})).unwrap(), "postgres://h/d");
        assert!(matches!(at(json!({"name": "w"})), Err(Failure::Spec(m)) if m.contains("\"w\"")));
        let typo = json!({"url": "x", "statements": "a", "parms": {}});
        assert!(serde_json::from_value::<SqlSpec>(typo).is_err());
    }
}
