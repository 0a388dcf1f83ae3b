//! Who works for an open run: its workers ask for tasks by themselves, and share resources.

use axum::extract::State;
use kobza_engine::{ResourceView, WorkerView};
use kobza_model::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, Path};
use crate::runs::{load, run_id};
use crate::state::ApiState;
use crate::table::{Routes, Space};

pub(crate) fn routes() -> Routes {
    Routes::new().get("/runs/{id}/workers", (Viewer, Space::Run), "Workers of an open run", workers)
}

/// A worker process.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RunWorker")]
struct Worker {
    name: String,
    /// The machine that it says it runs on.
    host: Option<String>,
    /// It gets no new work: somebody disabled it.
    disabled: bool,
    /// It runs what others asked for.
    assistant: bool,
    started_at: Timestamp,
    /// When it was heard of last.
    seen_at: Timestamp,
    /// Tasks that it runs at once.
    processes: u32,
    /// Names of tasks that it runs.
    running: Vec<String>,
    /// Tasks that wait and that it may run.
    pending: u64,
    /// Those of them that nobody else may run.
    unique: u64,
}

/// Something that tasks need an amount of while they run.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "RunResource")]
struct Resource {
    name: String,
    total: f64,
    used: f64,
    /// Running tasks that hold some of it.
    tasks: u64,
}

/// Workers of an open run, and what they share.
#[derive(Debug, Serialize, JsonSchema)]
struct RunWorkers {
    /// The newest first.
    workers: Vec<Worker>,
    /// By name.
    resources: Vec<Resource>,
    /// Nobody gets new work.
    paused: bool,
}

impl From<WorkerView> for Worker {
    fn from(view: WorkerView) -> Self {
        let WorkerView {
            name,
            host,
            disabled,
            assistant,
            started_at,
            seen_at,
            processes,
            running,
            pending,
            unique,
        } = view;
        Self {
            name,
            host,
            disabled,
            assistant,
            started_at,
            seen_at,
            processes,
            running,
            pending,
            unique,
        }
    }
}

impl From<ResourceView> for Resource {
    fn from(view: ResourceView) -> Self {
        let ResourceView { name, total, used, tasks } = view;
        Self { name, total, used, tasks }
    }
}

async fn workers(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<RunWorkers>, ApiError> {
    let id = run_id(&id)?;
    load(&state, id).await?;
    let found = state.handle.query(move |engine| engine.overview(id)).await?.unwrap_or_default();
    Ok(Json(RunWorkers {
        workers: found.workers.into_iter().map(Worker::from).collect(),
        resources: found.resources.into_iter().map(Resource::from).collect(),
        paused: found.paused,
    }))
}
