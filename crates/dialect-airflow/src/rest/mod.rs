//! Airflow's public REST API (version 2), for its own client and for what people have written
//! against it.
//!
//! Every route is a row of a table: a method, a path, who may use it and what answers it. Answers
//! come from the store's views; changes go to the loop as commands, and have been committed when the
//! answer leaves. What Airflow documents and Kobza does not serve answers 501 and says so.

mod answer;
mod assets;
mod backfills;
mod bulk;
mod clear;
mod connections;
mod dag_view;
mod dags;
mod definitions;
mod faults;
mod hitl;
mod instances;
mod lens;
mod listing;
mod logs;
mod mark;
mod pools;
mod queued;
mod runs;
mod server;
mod start;
mod table;
mod tries;
mod unserved;
mod variables;
mod wait;
mod xcoms;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodFilter, on};
use kobza_blobs::LogStore;
use kobza_model::RunRow;
use kobza_triggers::service::TriggerHandle;

use crate::desk::Desk;

pub use answer::Caller;
pub use table::{Access, Level};

/// The version of the API that is spoken: Airflow's own.
pub const API_VERSION: &str = "3.3.2";
/// Below this the paths of the API begin.
pub const BASE: &str = "/api/v2";
/// The namespace of DAGs.
pub const NAMESPACE: &str = "default";
/// Largest request.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// Gives a bearer token for a name and a password, or says why not (a status, and words).
pub type SignIn = dyn Fn(&str, &str) -> Result<String, (u16, String)> + Send + Sync;
/// Deletes a finished run with all that belongs to it.
pub type DeleteRun = dyn Fn(&RunRow) -> Result<(), String> + Send + Sync;

/// What the routes need.
#[derive(Clone)]
pub struct RestState {
    pub desk: Arc<Desk>,
    pub triggers: TriggerHandle,
    pub logs: LogStore,
    pub sign_in: Arc<SignIn>,
    pub delete_run: Arc<DeleteRun>,
}

impl std::fmt::Debug for RestState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RestState")
    }
}

/// What handlers share.
pub(crate) struct Rest {
    pub(crate) desk: Arc<Desk>,
    pub(crate) triggers: TriggerHandle,
    pub(crate) logs: LogStore,
    pub(crate) sign_in: Arc<SignIn>,
    pub(crate) delete_run: Arc<DeleteRun>,
    pub(crate) digests: definitions::Digests,
}

fn all_routes() -> Vec<table::Route> {
    [
        dags::routes(),
        dag_view::routes(),
        runs::routes(),
        instances::routes(),
        tries::routes(),
        clear::routes(),
        mark::routes(),
        logs::routes(),
        xcoms::routes(),
        variables::routes(),
        connections::routes(),
        pools::routes(),
        assets::routes(),
        queued::routes(),
        backfills::routes(),
        faults::routes(),
        hitl::routes(),
        server::routes(),
        unserved::routes(),
    ]
    .concat()
}

/// Every route with who may use it; paths count from where the router is mounted.
#[must_use]
pub fn access() -> Vec<Access> {
    let wait = Access { method: "GET", path: wait::PATH, level: Level::Read };
    all_routes().iter().map(table::Route::access).chain([wait]).collect()
}

/// All routes: mount them under `/airflow`. Whoever mounts them checks who may use each
/// ([`access`]) and says who it is ([`Caller`]).
pub fn router(state: RestState) -> Router {
    let rest = Arc::new(Rest {
        desk: state.desk,
        triggers: state.triggers,
        logs: state.logs,
        sign_in: state.sign_in,
        delete_run: state.delete_run,
        digests: definitions::Digests::default(),
    });
    let mut router = Router::new();
    for route in all_routes() {
        let filter = match route.method {
            "GET" => MethodFilter::GET,
            "POST" => MethodFilter::POST,
            "PUT" => MethodFilter::PUT,
            "PATCH" => MethodFilter::PATCH,
            _ => MethodFilter::DELETE,
        };
        router = router.route(route.path, on(filter, answer::handler(route.act)));
    }
    router
        .route(wait::PATH, axum::routing::get(wait::wait))
        .fallback(answer::no_such_path)
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(rest)
}
