//! What people may look into: artifacts that are one file are kept by content too, beside the
//! repository, whose archives no page can show.

use std::fs::{self, File};
use std::path::Path;

use kobza_blobs::ArtifactStore;
use kobza_model::Json;
use serde_json::json;

use super::view::View;

/// Larger files are in the repository alone.
const LARGEST: u64 = 64 << 20;

/// The output that holds references to them.
pub(super) const OUTPUT: &str = "$artifacts";

/// A reference to the file of a declared artifact, if it is one file. What goes wrong here is no
/// failure of the task: its artifact is in the repository.
pub(super) fn keep(folder: &Path, view: &View, declared: &Json) -> Option<Json> {
    let source = view.resolve(declared["path"].as_str()?).ok()?;
    let about = fs::symlink_metadata(&source).ok()?;
    if !about.is_file() || about.len() > LARGEST {
        return None;
    }
    let store = ArtifactStore::at(folder);
    let kept = File::open(&source)
        .map_err(|e| e.to_string())
        .and_then(|mut file| store.put(&mut file, LARGEST).map_err(|e| e.to_string()))
        .and_then(|(digest, bytes)| {
            store.upload(digest).map(|()| (digest, bytes)).map_err(|e| e.to_string())
        });
    match kept {
        Ok((digest, bytes)) => {
            let name = source.file_name()?.to_string_lossy().into_owned();
            let media_type = media_type(&name);
            Some(json!({"$artifact": {
                "digest": digest.to_string(), "type": "file", "bytes": bytes,
                "media_type": media_type, "name": name,
            }}))
        }
        Err(error) => {
            super::complain(&format!("{}: no look into it: {error}", source.display()));
            None
        }
    }
}

/// What a file's name says of its content.
fn media_type(name: &str) -> &'static str {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref().unwrap_or_default() {
        "csv" => "text/csv",
        "tsv" => "text/tab-separated-values",
        "txt" | "log" | "out" => "text/plain",
        "md" => "text/markdown",
        "json" => "application/json",
        "yaml" | "yml" => "application/yaml",
        "xml" => "application/xml",
        "toml" => "application/toml",
        "html" | "htm" => "text/html",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "parquet" => "application/vnd.apache.parquet",
        _ => "application/octet-stream",
    }
}
