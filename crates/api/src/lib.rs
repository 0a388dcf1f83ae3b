//! The REST API `/api/v1`, its live streams, and the UI's files.
//!
//! Handlers translate: reads go to the store's views, writes become commands for the loop, and an
//! answer to a write leaves only after its commit.

mod error;
mod events;
mod guard;
mod logs;
mod runs;
mod state;
mod system;
mod tasks;
mod ui;
mod workflows;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;

pub use error::{ApiError, Problem};
pub use state::{ApiState, Catalog, Definition};

/// Bytes of a request's body. A definition may have 16 MiB; nothing else comes near.
const MAX_BODY_BYTES: usize = 17 * 1024 * 1024;

/// All routes, behind the checks that every request passes.
pub fn router(state: ApiState) -> Router {
    let api = Router::new()
        .merge(system::routes())
        .merge(workflows::routes())
        .merge(runs::routes())
        .merge(tasks::routes())
        .merge(logs::routes())
        .merge(events::routes())
        .fallback(|| async { ApiError::not_found("there is no such route") });
    Router::new()
        .nest("/api/v1", api)
        .merge(system::root_routes())
        .fallback(ui::serve)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), guard::check))
        .with_state(state)
}
