//! Artifacts in a store elsewhere: what the server is told of it, and what carries them for tasks.

use std::path::Path;

use kobza_blobs::{ArtifactStore, Digest, REMOTE_FILE, RemoteStore};

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
