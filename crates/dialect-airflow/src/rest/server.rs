//! The server itself: health, version, tokens.

use kobza_store::{WorkflowFilter, kinds};
use serde::Deserialize;
use serde_json::json;

use super::answer::{Call, Reply, RestError};
use super::table::{Route, open};
use super::{API_VERSION, Rest};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        open("GET", "/api/v2/monitor/health", health),
        open("GET", "/api/v2/version", version),
        open("POST", "/auth/token", token),
        open("POST", "/auth/token/cli", token),
    ]
}

/// Airflow's parts, as far as Kobza has them: the loop is the scheduler, the watch over the folder is
/// the DAG processor.
fn health(rest: &Rest, _: &Call) -> Result<Reply, RestError> {
    let word = |good: bool| if good { "healthy" } else { "unhealthy" };
    let filter = WorkflowFilter::default();
    let stored = rest.desk.views.list_workflows(&filter, None, 1).is_ok();
    let now = rest.desk.handle.now_blocking();
    let at = now.as_ref().ok().map(|now| now.wall);
    // The fault of the environment as a whole has no file's name.
    let environment = rest.objects(kinds::IMPORT_ERROR, "");
    let environment = environment
        .is_ok_and(|all| !all.iter().any(|fault| fault.value["bundle"] == fault.key.as_str()));
    Reply::ok(json!({
        "metadatabase": {"status": word(stored)},
        "scheduler": {"status": word(now.is_ok()), "latest_scheduler_heartbeat": at},
        "triggerer": {"status": word(now.is_ok()), "latest_triggerer_heartbeat": at},
        "dag_processor": {"status": word(environment), "latest_dag_processor_heartbeat": at},
    }))
}

fn version(_: &Rest, _: &Call) -> Result<Reply, RestError> {
    let own = concat!("kobza-", env!("CARGO_PKG_VERSION"));
    Reply::ok(json!({"version": API_VERSION, "git_version": own}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    username: String,
    password: String,
}

fn token(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let login: Login = call.form()?;
    match (rest.sign_in)(&login.username, &login.password) {
        Ok(token) => Reply::created(json!({"access_token": token})),
        Err((status, words)) => {
            let status = axum::http::StatusCode::from_u16(status);
            let status = status.unwrap_or(axum::http::StatusCode::UNAUTHORIZED);
            Err(RestError::new(status, words))
        }
    }
}
