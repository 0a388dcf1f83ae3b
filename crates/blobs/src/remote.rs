//! Artifacts in a store elsewhere: a bucket of S3, Google Cloud Storage or Azure, by URL.
//!
//! The local folder is then what this machine has of it: what is put goes to both, what is missing is
//! fetched. The address lies in the folder itself, in the file [`REMOTE_FILE`]; credentials come from
//! the environment, in the variables that each cloud's own tools use.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use object_store::path::Path as Key;
use url::Url;

use crate::artifact::Digest;
use crate::bucket::{Bucket, BucketError, install_tls, reason};

/// In the folder of artifacts: the address of the store elsewhere.
pub const REMOTE_FILE: &str = "remote";
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
    #[error("artifact store {0}")]
    Bucket(#[from] BucketError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

/// A store elsewhere. Its methods block.
#[derive(Debug)]
pub struct RemoteStore {
    bucket: Bucket,
    prefix: Key,
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
        install_tls();
        let options = std::env::vars()
            .filter(|(name, _)| words.iter().any(|word| name.starts_with(word)))
            .map(|(name, value)| (name.to_lowercase(), value));
        let (store, prefix) = object_store::parse_url_opts(&url, options).map_err(|error| {
            RemoteError::Store { url: address.to_owned(), reason: reason(&error) }
        })?;
        Ok(Self { bucket: Bucket::new(address.to_owned(), store.into())?, prefix })
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
        Ok(self.bucket.put_bytes(self.prefix.clone().join("probe").as_ref(), Vec::new())?)
    }

    /// Uploads an artifact's file in parts, unless it is there.
    pub fn put(&self, digest: Digest, path: &Path) -> Result<(), RemoteError> {
        let unreadable = |source| RemoteError::File { path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let key = self.key(digest);
        if self.bucket.size(key.as_ref())? == Some(length) {
            return Ok(());
        }
        Ok(self.bucket.put(key.as_ref(), &mut file)?)
    }

    /// Downloads an artifact into a file as it comes. False if there is none.
    pub fn get(&self, digest: Digest, into: &mut File) -> Result<bool, RemoteError> {
        Ok(self.bucket.get(self.key(digest).as_ref(), into, u64::MAX)?)
    }

    /// Removes an artifact, if it is there.
    pub fn remove(&self, digest: Digest) -> Result<(), RemoteError> {
        Ok(self.bucket.remove(self.key(digest).as_ref())?)
    }

    /// What it has below its prefix, and when each was stored.
    pub fn list(&self) -> Result<Vec<(Digest, SystemTime)>, RemoteError> {
        let stored = self.bucket.stored_at(self.prefix.as_ref())?;
        let ours = stored.into_iter().filter_map(|(key, at)| {
            let digest: Digest = key.rsplit('/').next()?.parse().ok()?;
            (key == self.key(digest).as_ref()).then_some((digest, at))
        });
        Ok(ours.collect())
    }

    /// As in the folder: `<two digits>/<digest>`.
    fn key(&self, digest: Digest) -> Key {
        let name = digest.to_string();
        self.prefix.clone().join(&name[..2]).join(name.as_str())
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
