//! A server that waits for the lease of its store: it shows what the store holds, refuses writes,
//! and takes over when the active one's lease ends.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use kobza_store::{CommitError, Store};
use serde_json::json;
use tower::ServiceExt as _;

/// How often the lease is asked for.
const EVERY: Duration = Duration::from_millis(500);
/// The longest pause, while the database is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What is served now. It changes when a standby becomes the active server.
#[derive(Clone, Default)]
pub(crate) struct Front(Arc<RwLock<Router>>);

impl Front {
    pub(crate) fn show(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// A service whose answers come from what is shown at that moment.
    pub(crate) fn service(&self) -> Router {
        let shown = self.0.clone();
        Router::new().fallback(move |request: Request| {
            let router = shown.read().unwrap_or_else(PoisonError::into_inner).clone();
            async move { router.oneshot(request).await }
        })
    }
}

/// Who has the lease, as far as it is known.
#[derive(Clone, Default)]
pub(crate) struct Owner(Arc<RwLock<Option<String>>>);

impl Owner {
    fn set(&self, name: Option<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = name;
    }

    fn name(&self) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The API of a standby: reads go through, all else is refused with the owner's name.
pub(crate) fn guard(routes: Router, owner: &Owner) -> Router {
    let owner = owner.clone();
    routes.layer(middleware::from_fn(move |request: Request, next: Next| {
        answer(owner.name(), request, next)
    }))
}

async fn answer(owner: Option<String>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if matches!(path, "/health" | "/api/v1/health") {
        return Json(
            json!({"status": "standby", "role": "standby", "version": env!("CARGO_PKG_VERSION")}),
        )
        .into_response();
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD) && path != "/ready";
    // Luigi's workers write by GET as well.
    if reads && !path.starts_with("/luigi") {
        return next.run(request).await;
    }
    let message = match owner {
        Some(owner) => format!("this server is a standby; the active one is {owner}"),
        None => "this server is a standby, and there is no active one at the moment".to_owned(),
    };
    let body = json!({"error": {
        "code": "standby", "message": message,
        "hint": "write to the active server, or try again", "fields": [],
    }});
    let retry = [(header::RETRY_AFTER, "2")];
    (StatusCode::SERVICE_UNAVAILABLE, retry, Json(body)).into_response()
}

/// Waits until the lease is ours; false when `stopped` says so first. A database that is away is
/// asked again.
pub(crate) fn wait(
    store: &dyn Store,
    name: &str,
    owner: &Owner,
    mut stopped: impl FnMut(Duration) -> bool,
) -> bool {
    let mut pause = EVERY;
    let mut told = None;
    loop {
        match store.acquire(name) {
            Ok(_) => return true,
            Err(CommitError::Fenced { .. }) => {
                pause = EVERY;
                let found = store.owner().ok().flatten();
                if found.is_some() && told != found {
                    let active = found.as_deref().unwrap_or_default();
                    tracing::info!(active, "standby: waiting for the lease of the store");
                    told.clone_from(&found);
                }
                owner.set(found);
            }
            Err(error) => {
                tracing::warn!(%error, "standby: the store cannot be asked; trying on");
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        if stopped(pause) {
            return false;
        }
    }
}
