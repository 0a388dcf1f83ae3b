//! The REST API `/api/v1`, its live streams, and the UI's files.
//!
//! Handlers translate: reads go to the store's views, writes become commands for the loop, and an
//! answer to a write leaves only after its commit.

mod accounts;
mod artifacts;
mod assets;
mod auth;
mod backfills;
mod backup;
mod bulk;
mod describe;
mod drain;
mod error;
mod events;
mod extract;
mod facts;
mod faults;
mod gate;
mod graph;
mod grid;
mod growth;
mod guard;
mod incoming;
mod limits;
mod logs;
mod objects;
mod openapi;
mod reference;
mod rendered;
mod runs;
mod shape;
mod start;
mod state;
mod system;
mod table;
mod tasks;
mod timeline;
mod triggers;
mod ui;
mod vault;
mod versions;
mod view;
mod why;
mod workers;
mod workflows;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;

use crate::table::{Routes, Table};

pub use accounts::{token_write, user_write};
pub use auth::{ANYWHERE, Principal, Role, TokenRow, UserRow, accounts_exist};
pub use error::{ApiError, Problem};
pub use faults::{fault_write, forget_faults};
pub use gate::Need;
pub use openapi::document as openapi_document;
pub use runs::delete_run;
pub use state::{
    ApiParts, ApiState, Approval, Catalog, Decision, Definition, MakeBackup, NotTaken, Rendered,
    decide,
};
pub use table::{Access, Space};
pub use vault::{KEY_VARIABLE, Vault, VaultError};

/// Bytes of a request's body. A definition may have 16 MiB; nothing else comes near.
const MAX_BODY_BYTES: usize = 17 * 1024 * 1024;

fn all_routes() -> Routes {
    system::routes()
        .merge(system::root_routes())
        .merge(openapi::routes())
        .merge(workflows::routes())
        .merge(versions::routes())
        .merge(start::routes())
        .merge(graph::routes())
        .merge(grid::routes())
        .merge(runs::routes())
        .merge(timeline::routes())
        .merge(bulk::routes())
        .merge(tasks::routes())
        .merge(why::routes())
        .merge(workers::routes())
        .merge(artifacts::routes())
        .merge(rendered::routes())
        .merge(logs::routes())
        .merge(events::routes())
        .merge(incoming::routes())
        .merge(limits::routes())
        .merge(objects::routes())
        .merge(accounts::routes())
        .merge(assets::routes())
        .merge(triggers::routes())
        .merge(backfills::routes())
        .merge(backup::routes())
}

/// Every route with who may use it.
#[must_use]
pub fn access() -> Vec<Access> {
    all_routes().table.into_iter().map(Access::from).collect()
}

/// All routes, behind the checks that every request passes.
pub fn router(state: ApiState) -> Router {
    let Routes { router, table, .. } = all_routes();
    let table = Arc::new(Table::new(table));
    router
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path is not there for that method",
            )
        })
        .route_layer(middleware::from_fn_with_state((state.clone(), table), gate::check))
        .fallback(ui::serve)
        .layer(tower_http::compression::CompressionLayer::new())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), guard::check))
        .layer(middleware::from_fn(drain::rest))
        .with_state(state)
}

/// Puts another system's routes behind the same credentials: who reads there (GET) needs `read`,
/// who does anything else needs `write`, both everywhere. (Those systems know no namespaces of
/// ours.)
pub fn protect(routes: Router, state: &ApiState, read: Role, write: Role) -> Router {
    protect_by(routes, state, move |method, _| {
        use axum::http::Method;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        Some(Need { role: if reads { read } else { write }, namespace: None, record: None })
    })
}

/// Puts another system's routes behind the same credentials: `need` says what each takes, by its
/// method and its path as it was routed (empty where there is no such route); none: it is open. The
/// handler finds its [`Principal`] among the request's extensions.
pub fn protect_by(
    routes: Router,
    state: &ApiState,
    need: impl Fn(&axum::http::Method, &str) -> Option<Need> + Clone + Send + Sync + 'static,
) -> Router {
    use axum::extract::{MatchedPath, Request};
    let asked = state.clone();
    routes
        .layer(middleware::from_fn(move |request: Request, next: middleware::Next| {
            let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
            let need = need(request.method(), path);
            let asked = asked.clone();
            async move {
                match need {
                    Some(need) => gate::need(asked, need, request, next).await,
                    None => next.run(request).await,
                }
            }
        }))
        // Foreign hosts and origins are refused there too.
        .layer(middleware::from_fn_with_state(state.clone(), guard::check))
        .layer(middleware::from_fn(drain::rest))
}
