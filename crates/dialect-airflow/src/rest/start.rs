//! New runs by people's programs.

use axum::http::header;
use kobza_model::{Json, Timestamp};
use kobza_runtime::wall_now;
use kobza_store::kinds;
use serde::Deserialize;
use serde_json::{Map, json};

use super::answer::{Call, Reply, RestError};
use super::lens::Lens;
use super::listing::instant;
use super::{NAMESPACE, Rest};
use crate::start::Start;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trigger {
    #[serde(default)]
    dag_run_id: Option<String>,
    #[serde(default)]
    data_interval_start: Option<String>,
    #[serde(default)]
    data_interval_end: Option<String>,
    /// None for a run that is for no date; it must be said.
    #[serde(default, deserialize_with = "super::runs::given")]
    logical_date: Option<Option<String>>,
    #[serde(default)]
    run_after: Option<String>,
    #[serde(default)]
    conf: Option<Map<String, Json>>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    partition_key: Option<String>,
}

fn at(place: &str, text: Option<&String>) -> Result<Option<Timestamp>, RestError> {
    text.map(|text| instant(&["body", place], text)).transpose()
}

pub(crate) fn trigger(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let body: Trigger = call.body()?;
    if body.logical_date.is_none() {
        return Err(RestError::field(&["body", "logical_date"], "Field required"));
    }
    begin(rest, call, call.param("dag_id"), body, "manual")
}

/// Starts a run.
pub(crate) fn begin(
    rest: &Rest,
    call: &Call,
    dag_id: &str,
    body: Trigger,
    run_type: &'static str,
) -> Result<Reply, RestError> {
    let digest = rest
        .digest(dag_id, None)?
        .ok_or_else(|| RestError::not_found(format!("Dag with dag_id: '{dag_id}' not found")))?;
    let file = digest.fixed["relative_fileloc"].as_str().unwrap_or_default();
    if rest.desk.views.get_object(kinds::IMPORT_ERROR, NAMESPACE, file)?.is_some() {
        return Err(RestError::bad(format!(
            "Dag with dag_id: '{dag_id}' has import errors and cannot be triggered"
        )));
    }
    let allowed = digest.fixed["allowed_run_types"].as_array();
    if allowed.is_some_and(|all| !all.iter().any(|kind| kind == run_type)) {
        let runs = if run_type == "manual" { "manual" } else { "asset materialization" };
        return Err(RestError::bad(format!(
            "Dag with dag_id: '{dag_id}' does not allow {runs} runs"
        )));
    }
    let begin = at("data_interval_start", body.data_interval_start.as_ref())?;
    let end = at("data_interval_end", body.data_interval_end.as_ref())?;
    if begin.is_some() != end.is_some() {
        let message = "Either both data_interval_start and data_interval_end must be provided or \
                       both must be None";
        return Err(RestError::field(&["body"], message));
    }
    let run_after = at("run_after", body.run_after.as_ref())?;
    // Clocks differ a little.
    if run_after.is_some_and(|at| at > wall_now().saturating_add_micros(5_000_000)) {
        return Err(RestError::unserved(
            "a run_after in the future is not served by Kobza: runs begin when they are asked for",
        ));
    }
    let logical_date = at("logical_date", body.logical_date.flatten().as_ref())?;
    let by = if call.header(header::REFERER).is_empty() { "rest_api" } else { "ui" };
    let run = rest.desk.start(Start {
        namespace: NAMESPACE.to_owned(),
        dag_id: dag_id.to_owned(),
        run_id: body.dag_run_id,
        logical_date,
        interval: begin.zip(end),
        run_after,
        conf: Json::Object(body.conf.unwrap_or_default()),
        note: body.note.filter(|note| !note.is_empty()),
        run_type,
        triggered_by: by,
        triggering_user: Some(call.caller.clone()).filter(|name| !name.is_empty()),
        partition_key: body.partition_key,
        parent: None,
        mark: None,
    })?;
    let row = rest.desk.views.get_run(run)?;
    let row = row.ok_or_else(|| RestError::internal("the new run is gone"))?;
    Reply::ok(Lens::new(rest).run(&row)?)
}

/// A body that may be absent, and need not say for which date the run is.
pub(crate) fn undated(call: &Call) -> Result<Trigger, RestError> {
    let mut fields: Map<String, Json> =
        if call.is_empty() { Map::new() } else { call.body::<Option<_>>()?.unwrap_or_default() };
    fields.entry("logical_date").or_insert(json!(null));
    super::variables::read(Json::Object(fields))
}
