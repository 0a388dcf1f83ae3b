//! What a task runs, with its templates filled in again by its dialect.

use axum::extract::State;
use kobza_model::Json as Value;
use schemars::JsonSchema;
use serde::Serialize;

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, Path};
use crate::facts::StoredFacts;
use crate::runs::load;
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::tasks::task_id;

pub(crate) fn routes() -> Routes {
    Routes::new().get("/tasks/{id}/rendered", (Viewer, Space::Run), "What a task runs", rendered)
}

/// A task's body with values in place of its templates.
#[derive(Serialize, JsonSchema)]
struct RenderedTask {
    /// What colours the text: `bash`, `python`, `sql`, `text`.
    language: Option<&'static str>,
    text: Option<String>,
    /// Arguments by name.
    inputs: Value,
    /// Why it cannot be shown, such as an output that is not there yet.
    problem: Option<String>,
}

async fn rendered(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<RenderedTask>, ApiError> {
    let id = task_id(&id)?;
    let run = load(&state, id.run).await?;
    let catalog = state.catalog.clone();
    let now = kobza_runtime::wall_now();
    let shown = state
        .read(move |views| {
            let Some(facts) = StoredFacts::read(views, &run, now)? else { return Ok(None) };
            let rendered = catalog.rendered(&facts, id.task);
            if facts.reads_too_much() {
                return Ok(Some(Err("it reads more outputs than can be shown".to_owned())));
            }
            Ok(rendered.transpose())
        })
        .await?;
    Ok(Json(match shown {
        Some(Ok(rendered)) => RenderedTask {
            language: Some(rendered.language),
            text: Some(rendered.text),
            inputs: rendered.inputs,
            problem: None,
        },
        Some(Err(problem)) => {
            RenderedTask { language: None, text: None, inputs: Value::Null, problem: Some(problem) }
        }
        None => RenderedTask { language: None, text: None, inputs: Value::Null, problem: None },
    }))
}
