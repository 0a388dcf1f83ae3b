//! `sql` on PostgreSQL.

use std::error::Error as _;

use kobza_model::Json;
use kobza_postgres_tls::{Target, TargetError};
use postgres::Transaction;
use postgres::types::private::BytesMut;
use postgres::types::{Format, IsNull, ToSql, Type};

use super::postgres_named::{Numbered, split};
use super::sql::{Answer, SqlSpec};
use super::{Failure, shown_url};

pub(super) fn execute(spec: &SqlSpec) -> Result<Answer, Failure> {
    // The parser's own words may quote the URL, password and all.
    let mut target = Target::parse(&spec.url).map_err(|error| match error {
        TargetError::Url(_) => {
            Failure::Spec(format!("url {:?} is not a PostgreSQL URL", shown_url(&spec.url)))
        }
        other => Failure::Spec(other.to_string()),
    })?;
    target.config.application_name("kobza").connect_timeout(spec.busy_timeout());
    let mut client = target.connect().map_err(|e| {
        Failure::Unreachable(format!("cannot connect to {}: {}", shown_url(&spec.url), told(&e)))
    })?;
    let failed = |e: postgres::Error| Failure::Failed(told(&e));
    let mut transaction = client.transaction().map_err(failed)?;
    let mut answer = Answer::default();
    for statement in spec.texts().into_iter().flat_map(split) {
        one(&mut transaction, &statement, spec, &mut answer)?;
    }
    transaction.commit().map_err(failed)?;
    Ok(answer)
}

fn one(
    transaction: &mut Transaction<'_>,
    statement: &Numbered,
    spec: &SqlSpec,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let failed = |e: postgres::Error| Failure::Failed(told(&e));
    let prepared = transaction.prepare(&statement.sql).map_err(failed)?;
    let values = values(statement, prepared.params().len(), &spec.params)?;
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as _).collect();
    if prepared.columns().is_empty() {
        answer.changes += transaction.execute(&prepared, &values).map_err(failed)?;
        return Ok(());
    }
    answer.columns = prepared.columns().iter().map(|c| c.name().to_owned()).collect();
    answer.rows.clear();
    answer.row_count = 0;
    // The server turns every type to JSON, in the columns' order.
    let wrapped = format!(
        "with kobza_rows as (\n{}\n) select row_to_json(kobza_rows)::text from kobza_rows",
        statement.sql
    );
    let reading = statement.sql.trim_start().get(..6).is_some_and(|word| {
        ["select", "values", "with "].iter().any(|k| word.to_ascii_lowercase().starts_with(k))
    });
    for row in transaction.query(&wrapped, &values).map_err(failed)? {
        answer.row_count += 1;
        if answer.rows.len() < spec.max_rows() {
            let text: String = row.try_get(0).map_err(failed)?;
            let object: serde_json::Map<String, Json> =
                serde_json::from_str(&text).map_err(|e| Failure::Failed(e.to_string()))?;
            answer.rows.push(object.into_iter().map(|(_, value)| value).collect());
        }
    }
    if !reading {
        answer.changes += answer.row_count;
    }
    Ok(())
}

fn values(statement: &Numbered, count: usize, params: &Json) -> Result<Vec<Bound>, Failure> {
    (0..count)
        .map(|index| {
            let name = statement.names.get(index);
            let value = match (params, name) {
                (Json::Object(map), Some(name)) => map.get(name),
                (Json::Array(list), Some(name)) => {
                    name.parse::<usize>().ok().and_then(|n| list.get(n.checked_sub(1)?))
                }
                (Json::Array(list), None) => list.get(index),
                _ => None,
            };
            let shown = name.cloned().unwrap_or_else(|| (index + 1).to_string());
            value
                .cloned()
                .map(Bound)
                .ok_or_else(|| Failure::Spec(format!("no value for the parameter {shown:?}")))
        })
        .collect()
}

/// A value in text form, which the server reads as whatever type the parameter has.
#[derive(Debug)]
struct Bound(Json);

impl ToSql for Bound {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let text = match &self.0 {
            Json::Null => return Ok(IsNull::Yes),
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    postgres::types::to_sql_checked!();
}

/// The server's own words, else the whole chain.
fn told(error: &postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let detail = db.detail().map(|d| format!(" ({d})")).unwrap_or_default();
        return format!("{}{detail}", db.message());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
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
    fn against_a_server() {
        let Ok(url) = std::env::var("KOBZA_TEST_POSTGRES") else {
            eprintln!("skipped: KOBZA_TEST_POSTGRES names no server");
            return;
        };
        let answer = run(json!({
            "url": url,
            "statements": "create temp table t(a int, b text, c timestamptz, d numeric, e bool);
                insert into t values (:a, :b, :c, :d, :e), (2, 'x', null, null, null) returning a;
                select *, '{1,2}'::int[] as f from t order by a",
            "params": {"a": 1, "b": "it's", "c": "2026-01-31T02:00:00Z", "d": 1.5, "e": true},
            "max_rows": 1,
        }))
        .unwrap();
        assert_eq!(answer.columns, ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(answer.rows[0][1], json!("it's"));
        assert_eq!(answer.rows[0][3..], [json!(1.5), json!(true), json!([1, 2])]);
        assert_eq!((answer.row_count, answer.changes), (2, 2));
        let numbered = run(json!({
            "url": url, "statements": "select ?1::int; select ?2::text", "params": [1, "b"],
        }));
        assert_eq!(numbered.unwrap().rows, [[json!("b")]]);
        let refused = run(json!({"url": url, "sql": "select * from no_such_table"}));
        assert!(matches!(&refused, Err(Failure::Failed(m)) if m.contains("no_such_table")));
    }

    #[test]
    fn passwords_stay_secret() {
        for url in ["postgres://u:hunter2@127.0.0.1:1/x", "postgres://u:hunter2@h:port/x"] {
            let error = run(json!({"url": url, "sql": "select 1", "busy_timeout_s": 5}));
            let message = format!("{:?}", error.unwrap_err());
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
