//! What Airflow documents and Kobza does not serve: it says so by name.

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::table::{Level, Route};

const PATHS: &[(&str, &str)] = &[
    ("DELETE", "/api/v2/assets/{asset_id}/queuedEvents"),
    ("DELETE", "/api/v2/dags/{dag_id}/assets/queuedEvents"),
    ("DELETE", "/api/v2/dags/{dag_id}/assets/{asset_id}/queuedEvents"),
    ("GET", "/api/v2/assets/{asset_id}/state-store"),
    ("DELETE", "/api/v2/assets/{asset_id}/state-store"),
    ("GET", "/api/v2/assets/{asset_id}/state-store/{*key}"),
    ("PUT", "/api/v2/assets/{asset_id}/state-store/{*key}"),
    ("DELETE", "/api/v2/assets/{asset_id}/state-store/{*key}"),
    ("GET", "/api/v2/auth/login"),
    ("GET", "/api/v2/auth/logout"),
    ("GET", "/api/v2/config"),
    ("GET", "/api/v2/config/section/{section}/option/{option}"),
    ("POST", "/api/v2/connections/defaults"),
    ("GET", "/api/v2/connections/enqueue-test"),
    ("POST", "/api/v2/connections/enqueue-test"),
    ("POST", "/api/v2/connections/test"),
    ("DELETE", "/api/v2/dags/{dag_id}"),
    ("POST", "/api/v2/dags/{dag_id}/clearPartitions"),
    ("POST", "/api/v2/dags/{dag_id}/favorite"),
    ("POST", "/api/v2/dags/{dag_id}/unfavorite"),
    ("DELETE", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}"),
    ("GET", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/dependencies"),
    (
        "GET",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/dependencies",
    ),
    (
        "GET",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/externalLogUrl/{try_number}",
    ),
    ("GET", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/state-store"),
    ("DELETE", "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/state-store"),
    (
        "GET",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/state-store/{*key}",
    ),
    (
        "PUT",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/state-store/{*key}",
    ),
    (
        "PATCH",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/state-store/{*key}",
    ),
    (
        "DELETE",
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/state-store/{*key}",
    ),
    ("GET", "/api/v2/eventLogs"),
    ("GET", "/api/v2/eventLogs/{event_log_id}"),
    ("GET", "/api/v2/jobs"),
    ("PUT", "/api/v2/parseDagFile/{*file_token}"),
    ("GET", "/api/v2/plugins"),
    ("GET", "/api/v2/plugins/importErrors"),
    ("GET", "/api/v2/providers"),
];

pub(crate) fn routes() -> Vec<Route> {
    let route = |(method, path): &(&'static str, &'static str)| Route {
        method,
        path,
        level: Level::Read,
        act: refuse,
    };
    PATHS.iter().map(route).collect()
}

fn refuse(_: &Rest, call: &Call) -> Result<Reply, RestError> {
    Err(RestError::unserved(format!("{} is not served by Kobza", call.asked())))
}
