//! Files of artifacts, by the node that put them out or took them in.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use kobza_model::{Json, RunId};
use tokio_stream::wrappers::ReceiverStream;

use super::{ArgoError, ArgoState, blocking};
use crate::exec::Places;
use crate::repository::Repository;
use crate::values::key_of;

pub(super) fn routes() -> Router<ArgoState> {
    Router::new()
        .route("/artifacts/{namespace}/{name}/{node}/{artifact}", get(output))
        .route("/input-artifacts/{namespace}/{name}/{node}/{artifact}", get(input))
        .route("/artifacts-by-uid/{uid}/{node}/{artifact}", get(output_by_uid))
        .route("/input-artifacts-by-uid/{uid}/{node}/{artifact}", get(input_by_uid))
        .route("/artifact-files/{namespace}/{kind}/{id}/{node}/{side}/{artifact}", get(file))
}

type Answer = Result<Response, ArgoError>;

async fn output(
    State(state): State<ArgoState>,
    Path((namespace, name, node, artifact)): Path<(String, String, String, String)>,
) -> Answer {
    let run = named(&state, namespace, name).await?;
    send(state, run, node, "outputs", artifact).await
}

async fn input(
    State(state): State<ArgoState>,
    Path((namespace, name, node, artifact)): Path<(String, String, String, String)>,
) -> Answer {
    let run = named(&state, namespace, name).await?;
    send(state, run, node, "inputs", artifact).await
}

async fn output_by_uid(
    State(state): State<ArgoState>,
    Path((uid, node, artifact)): Path<(String, String, String)>,
) -> Answer {
    send(state, by_uid(&uid)?, node, "outputs", artifact).await
}

async fn input_by_uid(
    State(state): State<ArgoState>,
    Path((uid, node, artifact)): Path<(String, String, String)>,
) -> Answer {
    send(state, by_uid(&uid)?, node, "inputs", artifact).await
}

async fn file(
    State(state): State<ArgoState>,
    Path((namespace, kind, id, node, side, artifact)): Path<(
        String,
        String,
        String,
        String,
        String,
        String,
    )>,
) -> Answer {
    let run = match kind.as_str() {
        "workflows" => named(&state, namespace, id).await?,
        "archived-workflows" => by_uid(&id)?,
        other => return Err(ArgoError::not_found(format!("{other:?}"))),
    };
    let side = match side.as_str() {
        "inputs" => "inputs",
        "outputs" => "outputs",
        other => return Err(ArgoError::not_found(format!("{other:?}"))),
    };
    send(state, run, node, side, artifact).await
}

fn by_uid(uid: &str) -> Result<RunId, ArgoError> {
    uid.parse().map_err(|_| ArgoError::not_found(format!("workflow with uid {uid:?}")))
}

async fn named(state: &ArgoState, namespace: String, name: String) -> Result<RunId, ArgoError> {
    let state = state.clone();
    blocking(move || state.find(&namespace, &name)).await
}

/// What an artifact is, and the name it is saved under.
enum Content {
    Text(String),
    File(std::fs::File),
}

async fn send(
    state: ArgoState,
    run: RunId,
    node: String,
    side: &'static str,
    artifact: String,
) -> Answer {
    let (content, name) = blocking(move || open(&state, run, &node, side, &artifact)).await?;
    let body = match content {
        Content::Text(text) => Body::from(text),
        Content::File(file) => stream(file),
    };
    // What a task wrote must not act as a page of this server's.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
        (header::CONTENT_SECURITY_POLICY, "sandbox".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, body).into_response())
}

fn open(
    state: &ArgoState,
    run: RunId,
    node: &str,
    side: &str,
    artifact: &str,
) -> Result<(Content, String), ArgoError> {
    let data = state.load(run)?;
    let nodes = crate::nodes(&data);
    let node = nodes.get(node).ok_or_else(|| ArgoError::not_found(format!("node {node:?}")))?;
    let found = node[side]["artifacts"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|a| a["name"] == artifact)
        .ok_or_else(|| ArgoError::not_found(format!("artifact {artifact:?}")))?;
    if let Some(text) = found["raw"]["data"].as_str() {
        return Ok((Content::Text(text.to_owned()), saved_as(artifact)));
    }
    let key = found["s3"]["key"].as_str().ok_or_else(|| {
        ArgoError::unimplemented(format!("artifact {artifact:?} is not in an artifact repository"))
    })?;
    let scratch = tempfile::tempdir().map_err(|e| ArgoError::internal(e.to_string()))?;
    let path = state
        .places(&data, |places| places.of(&found["s3"])?.look(key, scratch.path()))
        .map_err(ArgoError::internal)?
        .ok_or_else(|| ArgoError::not_found(format!("artifact {artifact:?}: {key}")))?;
    if path.is_dir() {
        return Err(ArgoError::unimplemented(format!(
            "artifact {artifact:?} is a folder that was kept without an archive"
        )));
    }
    // The file lives on until it has been sent.
    let file = std::fs::File::open(&path).map_err(|e| ArgoError::internal(e.to_string()))?;
    let name = key.rsplit('/').next().unwrap_or_default();
    Ok((Content::File(file), saved_as(name)))
}

impl ArgoState {
    /// Calls with the places that a workflow's artifacts lie in.
    pub(crate) fn places<T>(
        &self,
        data: &crate::RunData,
        with: impl FnOnce(&Places<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let namespace = data.run.namespace.as_str();
        let lookup = |kind: &str, name: &str| (self.lookup)(kind, namespace, name).map(Arc::new);
        let spec = &data.workflow.source["spec"];
        let repository = Repository::of(spec, &|name| lookup("configmap", name))?;
        let secret = |reference: &Json| key_of(&lookup, "secret", reference);
        with(&Places { folder: &self.artifacts, repository: &repository.s3, secret: &secret })
    }
}

/// A name that is safe in a header.
fn saved_as(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect()
}

/// Bytes of one message.
const PIECE: usize = 64 * 1024;

fn stream(mut file: std::fs::File) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match file.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(axum::body::Bytes::copy_from_slice(&buffer[..read])),
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    Body::from_stream(ReceiverStream::new(receiver))
}
