//! Artifacts in a store elsewhere: a bucket of S3, Google Cloud Storage or Azure, by URL.
//!
//! The local folder is then what this machine has of it: what is put goes to both, what is missing is
//! fetched. The address lies in the folder itself, in the file [`REMOTE_FILE`]; credentials come from
//! the environment, in the variables that each cloud's own tools use.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt as _;
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio::io::AsyncWriteExt as _;
use url::Url;

use crate::artifact::Digest;

/// In the folder of artifacts: the address of the store elsewhere.
pub const REMOTE_FILE: &str = "remote";
/// Parts of an upload; the stores want at least 5 MiB, and allow 10,000 of them.
const PART_BYTES: usize = 8 << 20;
/// Parts under way at once: what an upload holds in memory.
const PARTS_AT_ONCE: usize = 4;

/// Why a store elsewhere cannot be used. Shows no credentials.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error(
        "{0:?} is not the address of an artifact store: it is written as s3://bucket/prefix, \
         gs://bucket/prefix or az://container/prefix"
    )]
    Address(String),
    #[error(
        "an address with a password would show in logs: credentials belong into the environment"
    )]
    Credentials,
    #[error("artifact store {url}: {reason}")]
    Store { url: String, reason: String },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// A store elsewhere. Its methods block.
#[derive(Debug)]
pub struct RemoteStore {
    url: String,
    store: Arc<dyn ObjectStore>,
    prefix: Key,
    waiter: tokio::runtime::Runtime,
}

impl RemoteStore {
    /// By its address; asks nothing of it yet.
    pub fn open(address: &str) -> Result<Self, RemoteError> {
        let bad = || RemoteError::Address(address.chars().take(200).collect());
        let url = Url::parse(address).map_err(|_| bad())?;
        if url.password().is_some() {
            return Err(RemoteError::Credentials);
        }
        let words: &[&str] = match url.scheme() {
            "s3" | "s3a" => &["AWS_"],
            "gs" => &["GOOGLE_"],
            "az" | "azure" | "abfs" | "abfss" | "adl" => &["AZURE_"],
            _ => return Err(bad()),
        };
        // The one that the other connections use; the first to come installs it.
        let _there = rustls::crypto::ring::default_provider().install_default();
        let options = std::env::vars()
            .filter(|(name, _)| words.iter().any(|word| name.starts_with(word)))
            .map(|(name, value)| (name.to_lowercase(), value));
        let failed = |reason: String| RemoteError::Store { url: address.to_owned(), reason };
        let (store, prefix) =
            object_store::parse_url_opts(&url, options).map_err(|e| failed(e.to_string()))?;
        let waiter = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self { url: address.to_owned(), store: store.into(), prefix, waiter })
    }

    /// The store that a folder of artifacts names, if it names one.
    pub fn of_folder(folder: &Path) -> Result<Option<Self>, RemoteError> {
        let path = folder.join(REMOTE_FILE);
        match fs::read_to_string(&path) {
            Ok(address) => Self::open(address.trim()).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RemoteError::File { path, source }),
        }
    }

    /// Whether it takes what is written to it: finds a wrong bucket or missing rights early. Leaves an
    /// empty object `probe`.
    pub fn probe(&self) -> Result<(), RemoteError> {
        let key = self.prefix.clone().join("probe");
        let put = self.store.put(&key, object_store::PutPayload::new());
        self.waiter.block_on(put).map(|_| ()).map_err(|error| self.failed(&error))
    }

    /// Uploads an artifact's file in parts, unless it is there.
    pub fn put(&self, digest: Digest, path: &Path) -> Result<(), RemoteError> {
        let unreadable = |source| RemoteError::File { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let key = self.key(digest);
        self.waiter.block_on(async {
            match self.store.head(&key).await {
                Ok(there) if there.size == length => return Ok(()),
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed(&error)),
            }
            let mut writer = BufWriter::with_capacity(self.store.clone(), key, PART_BYTES)
                .with_max_concurrency(PARTS_AT_ONCE);
            let mut buffer = vec![0; 1 << 20];
            loop {
                let got = file.read(&mut buffer).map_err(unreadable)?;
                if got == 0 {
                    break;
                }
                writer.write_all(&buffer[..got]).await.map_err(|e| self.failed(&e))?;
            }
            // Only now it appears, whole.
            writer.shutdown().await.map_err(|e| self.failed(&e))
        })
    }

    /// Downloads an artifact into a file as it comes. False if there is none.
    pub fn get(&self, digest: Digest, into: &mut File) -> Result<bool, RemoteError> {
        let key = self.key(digest);
        self.waiter.block_on(async {
            let found = match self.store.get(&key).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(self.failed(&error)),
            };
            let mut stream = found.into_stream();
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(|e| self.failed(&e))?;
                into.write_all(&piece).map_err(|e| self.failed(&e))?;
            }
            Ok(true)
        })
    }

    /// Removes an artifact, if it is there.
    pub fn remove(&self, digest: Digest) -> Result<(), RemoteError> {
        match self.waiter.block_on(self.store.delete(&self.key(digest))) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// As in the folder: `<two digits>/<digest>`.
    fn key(&self, digest: Digest) -> Key {
        let name = digest.to_string();
        self.prefix.clone().join(&name[..2]).join(name.as_str())
    }

    fn failed(&self, error: &dyn std::error::Error) -> RemoteError {
        // The outermost text often says only that something failed.
        let mut reason = error.to_string();
        let mut inner = error.source();
        while let Some(error) = inner {
            let text = error.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            inner = error.source();
        }
        RemoteError::Store { url: self.url.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for bad in ["", "bucket", "ftp://x/y", "file:///etc", "http://h/b", "memory:///"] {
            assert!(matches!(RemoteStore::open(bad), Err(RemoteError::Address(_))), "{bad}");
        }
        let error = RemoteStore::open("s3://key:hunter2@bucket/x").unwrap_err().to_string();
        assert!(!error.contains("hunter2"));
        let store = RemoteStore::open("s3://bucket/some/prefix").unwrap();
        let digest = Digest::of(b"x");
        assert_eq!(
            store.key(digest).to_string(),
            format!("some/prefix/{}/{digest}", &digest.to_string()[..2])
        );
    }
}
