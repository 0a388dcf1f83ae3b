//! The UI's files, built into the binary.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::error::ApiError;

#[derive(RustEmbed)]
#[folder = "../../ui/dist"]
#[allow_missing = true]
struct Files;

const NOT_BUILT: &str = "<!doctype html><title>Kobza</title><h1>Kobza runs</h1><p>This binary was \
    built without the user interface. Build it with <code>make ui</code>, then build Kobza again. \
    The API is at <code>/api/v1</code>.";

pub(crate) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    if path.starts_with("api/") {
        return ApiError::not_found("there is no such route").into_response();
    }
    let file = if path.is_empty() { None } else { Files::get(path) };
    if let Some(file) = file {
        return answer(path, &file, &headers);
    }
    // Any other path is a place inside of the application, but for the build's own folder: there a
    // missing file is an old page's, and must not be answered with the page.
    let missing_file = path.starts_with("static/");
    match Files::get("index.html") {
        Some(_) if missing_file => ApiError::not_found("there is no such file").into_response(),
        Some(file) => answer("index.html", &file, &headers),
        None => ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], NOT_BUILT).into_response(),
    }
}

fn answer(path: &str, file: &rust_embed::EmbeddedFile, headers: &HeaderMap) -> Response {
    let hash = file.metadata.sha256_hash();
    let tag =
        hash.iter().take(12).fold(String::from("\""), |tag, b| tag + &format!("{b:02x}")) + "\"";
    if headers.get(header::IF_NONE_MATCH).is_some_and(|t| t.as_bytes() == tag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    // Names under static/ carry their content's hash.
    let cache = if path.starts_with("static/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let kind = file.metadata.mimetype().to_owned();
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::ETAG, tag),
            (header::CACHE_CONTROL, cache.to_owned()),
        ],
        Body::from(file.data.to_vec()),
    )
        .into_response()
}
