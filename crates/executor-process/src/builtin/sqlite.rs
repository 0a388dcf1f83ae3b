//! `sql` on SQLite.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kobza_model::Json;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Batch, Connection, OpenFlags, Statement};

use super::Failure;
use super::sql::{Answer, SqlSpec};

pub(super) fn execute(spec: &SqlSpec) -> Result<Answer, Failure> {
    let (path, read_only) = path(&spec.url)?;
    let mut flags = OpenFlags::default();
    if read_only {
        flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    }
    flags.remove(OpenFlags::SQLITE_OPEN_URI);
    let connection = Connection::open_with_flags(path, flags)
        .map_err(|e| Failure::Unreachable(format!("cannot open {path}: {e}")))?;
    let failed = |e: rusqlite::Error| Failure::Failed(e.to_string());
    connection.busy_timeout(spec.busy_timeout()).map_err(failed)?;
    // Without waiting for the write lock in the middle, where SQLite refuses to wait.
    connection
        .execute_batch(if read_only { "begin" } else { "begin immediate" })
        .map_err(|e| Failure::Unreachable(format!("cannot begin: {e}")))?;
    let mut answer = Answer::default();
    for text in spec.texts() {
        let mut batch = Batch::new(&connection, text);
        while let Some(mut statement) = batch.next().map_err(failed)? {
            bind(&mut statement, &spec.params)?;
            step(&mut statement, spec.max_rows(), &mut answer).map_err(failed)?;
        }
    }
    answer.changes = connection.total_changes();
    if !connection.is_autocommit() {
        connection.execute_batch("commit").map_err(failed)?;
    }
    Ok(answer)
}

/// The file of a URL, and whether it is opened for reading only.
fn path(url: &str) -> Result<(&str, bool), Failure> {
    let rest = url.strip_prefix("sqlite:").unwrap_or(url);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    // `sqlite:///:memory:` is how others write it.
    let rest = if rest == "/:memory:" { ":memory:" } else { rest };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let read_only = match query {
        "" | "mode=rwc" | "mode=rw" => false,
        "mode=ro" => true,
        other => return Err(Failure::Spec(format!("url: ?{other} is not known; ?mode=ro is"))),
    };
    if path.is_empty() {
        return Err(Failure::Spec("url: no file given, as in sqlite:///data/warehouse.db".into()));
    }
    Ok((path, read_only))
}

fn bind(statement: &mut Statement<'_>, params: &Json) -> Result<(), Failure> {
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index).map(|n| n[1..].to_owned());
        let value = match (params, &name) {
            (Json::Object(map), Some(name)) => map.get(name),
            (Json::Array(list), Some(name)) => {
                name.parse::<usize>().ok().and_then(|n| list.get(n.checked_sub(1)?))
            }
            (Json::Array(list), None) => list.get(index - 1),
            _ => None,
        };
        let shown = name.unwrap_or_else(|| index.to_string());
        let Some(value) = value else {
            return Err(Failure::Spec(format!("no value for the parameter {shown:?}")));
        };
        statement
            .raw_bind_parameter(index, to_sql(value))
            .map_err(|e| Failure::Failed(format!("parameter {shown:?}: {e}")))?;
    }
    Ok(())
}

fn step(
    statement: &mut Statement<'_>,
    max_rows: usize,
    answer: &mut Answer,
) -> rusqlite::Result<()> {
    let columns: Vec<String> = statement.column_names().map(Into::into).collect();
    let width = columns.len();
    if width > 0 {
        answer.columns = columns;
        answer.rows.clear();
        answer.row_count = 0;
    }
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        answer.row_count += 1;
        if answer.rows.len() < max_rows {
            let values = (0..width).map(|i| row.get_ref(i).map(from_sql));
            answer.rows.push(values.collect::<rusqlite::Result<_>>()?);
        }
    }
    Ok(())
}

fn to_sql(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Integer(i64::from(*b)),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Integer(n),
            None => Value::Real(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text.clone()),
        composite => Value::Text(composite.to_string()),
    }
}

/// Binary values become base64 text; infinities, which JSON lacks, null.
fn from_sql(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(n) => n.into(),
        ValueRef::Real(x) => x.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => BASE64_STANDARD.encode(bytes).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(spec: Json) -> Result<Answer, Failure> {
        execute(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn statements_parameters_rows() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/x.db", folder.path().display());
        let answer = run(json!({
            "url": url,
            "statements": ["create table t(a, b); insert into t values (:a, :b), (2, x'00ff');",
                           "select a, b from t order by a desc; -- that is it"],
            "params": {"a": 1, "b": "x'; drop table t; --"},
            "max_rows": 1,
        }))
        .unwrap();
        assert_eq!(answer.columns, ["a", "b"]);
        assert_eq!(answer.rows, [[json!(2), json!("AP8=")]]);
        assert_eq!((answer.row_count, answer.changes), (2, 2));
        let answer = run(json!({"url": url, "sql": "select b from t where a = ?", "params": [1]}));
        assert_eq!(answer.unwrap().rows, [[json!("x'; drop table t; --")]]);
        let answer = run(json!({"url": url, "sql": "select ?2, ?1", "params": [true, {"k": [1]}]}));
        assert_eq!(answer.unwrap().rows, [[json!("{\"k\":[1]}"), json!(1)]]);
    }

    #[test]
    fn all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/x.db", folder.path().display());
        run(json!({"url": url, "sql": "create table t(a not null)"})).unwrap();
        let broken = "insert into t values (1); insert into t values (null)";
        assert!(matches!(run(json!({"url": url, "sql": broken})), Err(Failure::Failed(_))));
        let count = run(json!({"url": url, "sql": "select count(*) from t"})).unwrap();
        assert_eq!(count.rows, [[json!(0)]]);
        let read_only = json!({"url": format!("{url}?mode=ro"), "sql": "delete from t"});
        assert!(matches!(run(read_only), Err(Failure::Failed(_))));
    }

    #[test]
    fn wrong_specs() {
        for (url, params) in [
            ("sqlite:", json!(null)),
            ("sqlite::memory:?x=1", json!(null)),
            ("sqlite::memory:", json!(null)),
            ("sqlite::memory:", json!({"b": 1})),
        ] {
            let result = run(json!({"url": url, "sql": "select :a", "params": params}));
            assert!(matches!(result, Err(Failure::Spec(_))), "{url} {result:?}");
        }
        let missing = run(json!({"url": "sqlite:///no/such/folder/x.db", "sql": "select 1"}));
        assert!(matches!(missing, Err(Failure::Unreachable(_))));
    }
}
