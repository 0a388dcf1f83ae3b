//! A copy of the store while the server works.

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use futures_util::stream;
use tokio::io::AsyncReadExt as _;

use crate::auth::Role::Admin;
use crate::error::ApiError;
use crate::extract::{Raw, StoreCopy};
use crate::state::ApiState;
use crate::table::{Routes, Space};

pub(crate) fn routes() -> Routes {
    Routes::new().post("/backup", (Admin, Space::Global), "A copy of the embedded store", backup)
}

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// The copy is made whole and checked before its first byte is sent.
async fn backup(State(state): State<ApiState>) -> Result<Raw<StoreCopy>, ApiError> {
    let make = state.backup.clone().ok_or_else(|| {
        ApiError::new(StatusCode::CONFLICT, "conflict", "this store is not an embedded one")
            .hint("copy it with the database's own programs: pg_dump of the schema")
    })?;
    let made = tokio::task::spawn_blocking(move || make()).await;
    let failed = |message: String| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "backup", format!("no copy: {message}"))
    };
    let (file, bytes) = made.map_err(|e| failed(e.to_string()))?.map_err(failed)?;
    let file = tokio::fs::File::from_std(file);
    let chunks = stream::unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        match file.read(&mut chunk).await {
            Ok(0) => None,
            Ok(read) => {
                chunk.truncate(read);
                Some((Ok(chunk), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "application/vnd.sqlite3".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
        // As long as it says: it is not compressed on the way.
        (header::CONTENT_ENCODING, "identity".to_owned()),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"kobza-backup.db\"".to_owned()),
    ];
    Ok(Raw::new((headers, Body::from_stream(chunks))))
}
