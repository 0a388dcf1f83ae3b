//! Artifacts of runs and tasks: which there are, a look into one, its content.
//!
//! What a task wrote is hostile: a browser gets it as a download, or inside of a sandbox without
//! scripts, without an origin, and without anything from elsewhere.

mod found;
mod preview;

use std::fs::File;
use std::io::Read as _;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse as _;
use futures_util::{StreamExt as _, stream};
use kobza_blobs::ArtifactError;
use kobza_model::{Json as Value, RunId, TaskId, TaskRow, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::Role::Viewer;
use crate::error::ApiError;
use crate::extract::{Json, List, Media, Paging, Path, Query, Raw};
use crate::runs::{load, run_id};
use crate::state::ApiState;
use crate::table::{Routes, Space};
use crate::tasks::{load_task, task_id};

use found::{Found, Kind};
use preview::Preview;

pub(crate) fn routes() -> Routes {
    let access = (Viewer, Space::Run);
    Routes::new()
        .get("/runs/{id}/artifacts", access, "What a run's tasks kept", of_run)
        .get("/tasks/{id}/artifacts", access, "What a task kept", of_task)
        .get("/tasks/{id}/artifacts/{artifact}/preview", access, "A look into an artifact", look)
        .get("/tasks/{id}/artifacts/{artifact}/content", access, "An artifact whole", content)
}

/// Shown inside of a page, it may draw itself and nothing else.
const SANDBOX: &str = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
     font-src data:; frame-ancestors 'self'";
/// Bytes of a file that are sent at once.
const PIECE: usize = 256 * 1024;

/// A file or a note that a task left.
#[derive(Serialize, JsonSchema)]
struct Artifact {
    /// Its place among those of the task.
    id: String,
    name: String,
    /// The output that it is part of.
    key: String,
    media_type: String,
    /// Bytes; null for a note.
    size: Option<u64>,
    /// SHA-256, in hexadecimal; null for a note.
    hash: Option<String>,
    created_at: Option<Timestamp>,
    task: String,
    task_name: String,
    run: RunId,
    /// How it can be looked at; null: only as a download.
    preview: Option<Kind>,
}

fn shown(task: &TaskRow, place: usize, found: Found) -> Artifact {
    let hash = match &found.body {
        found::Body::File { digest, .. } => Some(digest.to_string()),
        found::Body::Note(_) => None,
    };
    Artifact {
        id: place.to_string(),
        name: found.name,
        key: found.key,
        media_type: found.media_type,
        size: found.size,
        hash,
        created_at: task.ended_at,
        task: TaskId { run: task.run, task: task.task }.to_string(),
        task_name: task.index.map_or(task.name.clone(), |i| format!("{}[{i}]", task.name)),
        run: task.run,
        preview: found.kind,
    }
}

/// All of a task's, in an order that stays.
fn all_of(outputs: &[(String, Value)]) -> Vec<Found> {
    outputs.iter().flat_map(|(key, value)| found::found(key, value)).collect()
}

async fn of_run(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<List<Artifact>>, ApiError> {
    let run = run_id(&id)?;
    load(&state, run).await?;
    let limit = paging.limit(100, 500);
    let list = state
        .read(move |views| {
            let page = views.artifact_tasks(run, paging.cursor.as_deref(), limit)?;
            let mut items = Vec::new();
            for number in page.items {
                let id = TaskId { run, task: number };
                let Some(task) = views.get_task(id)? else { continue };
                let all = all_of(&views.task_outputs(id)?);
                items.extend(all.into_iter().enumerate().map(|(n, f)| shown(&task, n, f)));
            }
            Ok(List::new(items, page.next))
        })
        .await?;
    Ok(Json(list))
}

async fn of_task(
    State(state): State<ApiState>,
    Path(id): Path<String>,
) -> Result<Json<List<Artifact>>, ApiError> {
    let id = task_id(&id)?;
    let task = load_task(&state, id).await?;
    let all = all_of(&state.read(move |views| views.task_outputs(id)).await?);
    let items = all.into_iter().enumerate().map(|(n, f)| shown(&task, n, f)).collect();
    Ok(Json(List::whole(items)))
}

async fn find(state: &ApiState, id: &str, artifact: &str) -> Result<Found, ApiError> {
    let id = task_id(id)?;
    load_task(state, id).await?;
    let outputs = state.read(move |views| views.task_outputs(id)).await?;
    let place: Option<usize> = artifact.parse().ok();
    place
        .and_then(|place| all_of(&outputs).into_iter().nth(place))
        .ok_or_else(|| ApiError::not_found("the task has no such artifact"))
}

fn not_read(error: &ArtifactError) -> ApiError {
    match error {
        ArtifactError::Missing(_) => ApiError::not_found(error.to_string())
            .hint("the file was removed from the store; run the task again to have it"),
        _ => broken(error),
    }
}

fn broken(error: &impl std::fmt::Display) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "artifact",
        format!("the artifact cannot be read: {error}"),
    )
}

async fn look(
    State(state): State<ApiState>,
    Path((id, artifact)): Path<(String, String)>,
) -> Result<Json<Preview>, ApiError> {
    let found = find(&state, &id, &artifact).await?;
    let store = state.artifacts.clone();
    let seen = tokio::task::spawn_blocking(move || {
        preview::preview(&found, || match &found.body {
            found::Body::File { digest, .. } => {
                store.get(*digest).map(|(file, _)| file).map_err(std::io::Error::other)
            }
            found::Body::Note(_) => Err(std::io::ErrorKind::NotFound.into()),
        })
    })
    .await
    .map_err(|e| broken(&e))?;
    let seen = seen.map_err(|error| match error.downcast::<ArtifactError>() {
        Ok(error) => not_read(&error),
        Err(error) => broken(&error),
    })?;
    let seen = seen.ok_or_else(|| {
        ApiError::not_found("there is no preview for this kind").hint("download it to look inside")
    })?;
    Ok(Json(seen))
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Wanted {
    /// As a file to save, not to show.
    #[serde(default)]
    download: u8,
}

/// What a task kept, as it is.
pub(crate) struct Kept;

impl Media for Kept {
    const TYPE: &'static str = "*/*";
    const ABOUT: &'static str = "The content, with the media type that the task gave it";
}

async fn content(
    State(state): State<ApiState>,
    Path((id, artifact)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Raw<Kept>, ApiError> {
    let found = find(&state, &id, &artifact).await?;
    let (length, body) = match &found.body {
        found::Body::Note(note) => {
            let text = match note["text"].as_str() {
                Some(text) if found.kind == Some(Kind::Markdown) => text.to_owned(),
                _ => note.to_string(),
            };
            (text.len() as u64, Body::from(text))
        }
        found::Body::File { digest, .. } => {
            let (store, digest) = (state.artifacts.clone(), *digest);
            let opened = tokio::task::spawn_blocking(move || store.get(digest)).await;
            let (file, length) = opened.map_err(|e| broken(&e))?.map_err(|e| not_read(&e))?;
            (length, Body::from_stream(pieces(file)))
        }
    };
    let framed = matches!(found.kind, Some(Kind::Image | Kind::Html | Kind::Text));
    let how = if framed && wanted.download == 0 { "inline" } else { "attachment" };
    let disposition = format!("{how}; filename*=UTF-8''{}", percent(&found.name));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let own = |text: &str| {
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
    };
    headers.insert(header::CONTENT_TYPE, own(&found.media_type));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CONTENT_DISPOSITION, own(&disposition));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    Ok(Raw::new(response))
}

/// A file piece by piece, so that a large one is never held whole.
fn pieces(file: File) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> {
    stream::unfold(Some(file), |file| async move {
        let mut file = file?;
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            let got = file.read(&mut piece)?;
            piece.truncate(got);
            Ok((piece, file))
        })
        .await
        .unwrap_or_else(|e| Err(std::io::Error::other(e)));
        match read {
            Ok((piece, _)) if piece.is_empty() => None,
            Ok((piece, file)) => Some((Ok(Bytes::from(piece)), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    })
    // Whoever compresses it asks once more behind its end.
    .fuse()
}

/// A name as a header may carry it.
fn percent(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes().take(255) {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
