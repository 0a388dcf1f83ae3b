//! What handlers share.

use std::sync::Arc;
use std::time::Instant;

use kobza_blobs::LogStore;
use kobza_model::{Json, LimitRow, Timestamp, Workflow};
use kobza_runtime::Handle;
use kobza_store::{Store, Views};

use crate::error::{ApiError, Problem};

/// A definition as it was read from its source.
#[derive(Clone, Debug)]
pub struct Definition {
    pub workflow: Workflow,
    pub namespace: Option<String>,
    /// Limits that it declares.
    pub limits: Vec<LimitRow>,
    /// Things that may be mistakes.
    pub warnings: Vec<Problem>,
}

/// The dialects' readers of definitions, as the API needs them.
pub trait Catalog: Send + Sync {
    /// Reads a definition; `file` is its name in messages.
    fn parse(&self, source: &[u8], file: &str) -> Result<Definition, Vec<Problem>>;

    /// Checks parameters and fills in defaults.
    fn params(&self, workflow: &Workflow, given: Json) -> Result<Json, Vec<Problem>>;
}

/// Everything that handlers need.
#[derive(Clone)]
pub struct ApiState {
    pub handle: Handle,
    pub store: Arc<dyn Store>,
    pub views: Arc<dyn Views>,
    pub logs: LogStore,
    pub catalog: Arc<dyn Catalog>,
    pub started: Instant,
    pub started_at: Timestamp,
    /// Names under which this server may be addressed, without port; loopback names are always
    /// among them.
    pub hosts: Arc<Vec<String>>,
    /// `sqlite` or `postgres`, and where.
    pub store_kind: &'static str,
}

impl std::fmt::Debug for ApiState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiState")
    }
}

impl ApiState {
    /// Reads on a thread that may wait for the disk.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Views) -> Result<T, kobza_store::ViewError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let views = self.views.clone();
        let result = tokio::task::spawn_blocking(move || look(views.as_ref())).await;
        match result {
            Ok(result) => Ok(result?),
            Err(error) => Err(ApiError::new(
                axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                format!("a read did not finish: {error}"),
            )),
        }
    }
}
