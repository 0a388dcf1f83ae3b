//! Artifacts in a store elsewhere: what the server is told of it, and what carries them for tasks.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use kobza_blobs::{ArtifactStore, Digest, REMOTE_FILE, RemoteStore};
use kobza_store::Views;

use crate::cli::Way;
use crate::failure::Failure;

/// The word that ends the use of a store elsewhere.
const LOCAL: &str = "local";

/// Makes a data folder's artifacts go to a store elsewhere, once that is known to answer.
pub(crate) fn keep_in(data: &Path, address: &str) -> Result<(), Failure> {
    let folder = data.join("artifacts");
    let file = folder.join(REMOTE_FILE);
    if address == LOCAL {
        return match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        };
    }
    let failed = |e: kobza_blobs::RemoteError| {
        Failure::hint(e.to_string(), "--artifacts says where artifacts are kept; `local` ends that")
    };
    RemoteStore::open(address).and_then(|store| store.probe()).map_err(failed)?;
    std::fs::create_dir_all(&folder)?;
    let new = folder.join(format!("{REMOTE_FILE}.new"));
    std::fs::write(&new, address)?;
    std::fs::rename(&new, &file)?;
    Ok(())
}

/// Removes artifacts that were stored before `before` and that nothing in the store speaks of any
/// more, here and in the store elsewhere. Answers how many.
pub(crate) fn sweep(data: &Path, views: &dyn Views, before: SystemTime) -> Result<usize, String> {
    let store = ArtifactStore::at(data.join("artifacts"));
    let mut old: BTreeSet<Digest> =
        store.older_than(before).map_err(|e| e.to_string())?.into_iter().collect();
    if old.is_empty() {
        return Ok(0);
    }
    let mut forget = |text: &str| {
        for digest in spoken_of(text) {
            old.remove(&digest);
        }
    };
    views.artifact_texts(&mut forget).map_err(|e| e.to_string())?;
    for digest in &old {
        store.discard(*digest).map_err(|e| e.to_string())?;
    }
    Ok(old.len())
}

/// All digests in a JSON text. One too many keeps an artifact for longer; none may be missed.
fn spoken_of(text: &str) -> impl Iterator<Item = Digest> {
    text.split("\"digest\":\"").skip(1).filter_map(|rest| rest.get(..64)?.parse().ok())
}

/// `kobza exec artifact put|get FOLDER DIGEST`.
pub(crate) fn carry(way: Way, folder: &Path, digest: &str) -> Result<(), Failure> {
    let digest: Digest = digest.parse().map_err(|e| Failure::new(format!("{e}")))?;
    let store = ArtifactStore::at(folder);
    let done = match way {
        Way::Put => store.upload(digest),
        Way::Get => store.fetch(digest),
    };
    done.map_err(|e| Failure::new(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_in_a_text() {
        let (a, b) = ("a1".repeat(32), "b2".repeat(32));
        let text = format!(
            "{{\"x\":[{{\"$artifact\":{{\"bytes\":1,\"digest\":\"{a}\"}}}}],\"digest\":\"{b}\",\"y\":\"ä\",\"digest\":\"short\"}}"
        );
        let found: Vec<String> = spoken_of(&text).map(|d| d.to_string()).collect();
        assert_eq!(found, [a, b]);
    }
}
