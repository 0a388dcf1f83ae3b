//! A bucket of an object store: whole objects in and out, by key. Its methods block.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use tokio::io::AsyncWriteExt as _;

/// Parts of an upload; the stores want at least 5 MiB, and allow 10,000 of them.
const PART_BYTES: usize = 8 << 20;
/// Parts under way at once: what an upload holds in memory.
const PARTS_AT_ONCE: usize = 4;
/// Repetitions of a request that failed for a reason that may pass.
const RETRIES: usize = 3;

/// Longest reason: a server's answer may be long.
const REASON_CHARS_MAX: usize = 1000;

/// Why a bucket could not be used. Shows no credentials.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("{key:?} is no key of an object: {reason}")]
    Key { key: String, reason: String },
    #[error("{bucket}: {reason}")]
    Store { bucket: String, reason: String },
    #[error("local file: {0}")]
    File(#[from] io::Error),
    #[error("{bucket}: {key:?} is larger than {limit} bytes")]
    TooLarge { bucket: String, key: String, limit: u64 },
}

/// Where a bucket of the S3 protocol is, and who asks. Empty texts are what is not known.
#[derive(Clone, Default)]
pub struct S3Options {
    pub bucket: String,
    /// Host and port; empty, or one of `amazonaws.com`: Amazon's own.
    pub endpoint: String,
    /// Amazon's default is `us-east-1`.
    pub region: String,
    /// Without TLS.
    pub insecure: bool,
    pub access_key: String,
    pub secret_key: String,
    pub session_token: String,
    /// Credentials of this process's environment and machine, where none are given.
    pub ambient: bool,
    /// Objects are encrypted by the server, with a key of its own.
    pub encrypt: bool,
    /// Objects are encrypted by the server with this key of its key service.
    pub kms_key: String,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// A bucket. Its name in messages has no credentials.
#[derive(Debug)]
pub struct Bucket {
    name: String,
    store: Arc<dyn ObjectStore>,
    waiter: tokio::runtime::Runtime,
}

impl Bucket {
    /// A bucket of the S3 protocol; asks nothing of it yet.
    pub fn s3(options: &S3Options) -> Result<Self, BucketError> {
        let name = format!("s3 bucket {:?}", options.bucket);
        let failed = |reason: String| BucketError::Store { bucket: name.clone(), reason };
        if options.bucket.is_empty() {
            return Err(failed("it has no name".to_owned()));
        }
        let mut builder = if options.ambient {
            AmazonS3Builder::from_env()
        } else {
            // Without keys the requests are not signed: buckets that anybody may read.
            AmazonS3Builder::new().with_skip_signature(options.access_key.is_empty())
        };
        builder = builder.with_bucket_name(&options.bucket).with_allow_http(options.insecure);
        let region = if options.region.is_empty() { "us-east-1" } else { &options.region };
        if !options.region.is_empty() || !options.ambient {
            builder = builder.with_region(region);
        }
        let host = options.endpoint.split("://").last().unwrap_or_default().trim_end_matches('/');
        if !host.is_empty() && !host.ends_with("amazonaws.com") {
            let scheme = if options.insecure { "http" } else { "https" };
            builder = builder.with_endpoint(format!("{scheme}://{host}"));
        }
        if !options.access_key.is_empty() {
            builder = builder
                .with_access_key_id(&options.access_key)
                .with_secret_access_key(&options.secret_key);
            if !options.session_token.is_empty() {
                builder = builder.with_token(&options.session_token);
            }
        }
        if !options.kms_key.is_empty() {
            builder = builder.with_sse_kms_encryption(&options.kms_key);
        } else if options.encrypt {
            let key: AmazonS3ConfigKey =
                "aws_server_side_encryption".parse().map_err(|e| failed(reason(&e)))?;
            builder = builder.with_config(key, "AES256");
        }
        let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
        let client = ClientOptions::new().with_allow_http(options.insecure);
        install_tls();
        let store = builder
            .with_retry(retry)
            .with_client_options(client)
            .build()
            .map_err(|e| failed(reason(&e)))?;
        Self::new(name, Arc::new(store))
    }

    pub(crate) fn new(name: String, store: Arc<dyn ObjectStore>) -> Result<Self, BucketError> {
        let waiter = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { name, store, waiter })
    }

    /// Uploads a file in parts: the object appears whole, or not at all.
    pub fn put(&self, key: &str, file: &mut File) -> Result<(), BucketError> {
        let key = parse(key)?;
        self.waiter.block_on(async {
            let mut writer = BufWriter::with_capacity(self.store.clone(), key, PART_BYTES)
                .with_max_concurrency(PARTS_AT_ONCE);
            let mut buffer = vec![0; 1 << 20];
            loop {
                let got = file.read(&mut buffer)?;
                if got == 0 {
                    break;
                }
                writer.write_all(&buffer[..got]).await.map_err(|e| self.failed(&e))?;
            }
            // Only now it appears, whole.
            writer.shutdown().await.map_err(|e| self.failed(&e))
        })
    }

    /// Writes a small object.
    pub fn put_bytes(&self, key: &str, bytes: Vec<u8>) -> Result<(), BucketError> {
        let key = parse(key)?;
        let put = self.store.put(&key, bytes.into());
        self.waiter.block_on(put).map(|_| ()).map_err(|e| self.failed(&e))
    }

    /// Downloads an object into a file as it comes, at most so many bytes. False if there is none.
    pub fn get(&self, key: &str, into: &mut File, limit: u64) -> Result<bool, BucketError> {
        let parsed = parse(key)?;
        self.waiter.block_on(async {
            let found = match self.store.get(&parsed).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(self.failed(&error)),
            };
            let too_large =
                || BucketError::TooLarge { bucket: self.name.clone(), key: key.to_owned(), limit };
            let mut left = limit;
            let mut stream = found.into_stream();
            while let Some(piece) = stream.next().await {
                let piece = piece.map_err(|e| self.failed(&e))?;
                left = left.checked_sub(piece.len() as u64).ok_or_else(too_large)?;
                into.write_all(&piece)?;
            }
            Ok(true)
        })
    }

    /// The size of an object in bytes, if there is one.
    pub fn size(&self, key: &str) -> Result<Option<u64>, BucketError> {
        let key = parse(key)?;
        match self.waiter.block_on(self.store.head(&key)) {
            Ok(there) => Ok(Some(there.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// The keys below a folder (an empty one: all), at most so many and one more, in no order.
    pub fn list(&self, folder: &str, limit: usize) -> Result<Vec<String>, BucketError> {
        let prefix = parse(folder)?;
        let prefix = (!folder.trim_matches('/').is_empty()).then_some(&prefix);
        self.waiter.block_on(async {
            let mut found = Vec::new();
            let mut stream = self.store.list(prefix);
            while let Some(object) = stream.next().await {
                found.push(object.map_err(|e| self.failed(&e))?.location.to_string());
                if found.len() > limit {
                    break;
                }
            }
            Ok(found)
        })
    }

    /// All keys below a folder (an empty one: all) and when each was stored, in no order.
    pub fn stored_at(&self, folder: &str) -> Result<Vec<(String, SystemTime)>, BucketError> {
        let prefix = parse(folder)?;
        let prefix = (!folder.is_empty()).then_some(&prefix);
        self.waiter.block_on(async {
            let mut found = Vec::new();
            let mut stream = self.store.list(prefix);
            while let Some(object) = stream.next().await {
                let object = object.map_err(|e| self.failed(&e))?;
                found.push((object.location.to_string(), object.last_modified.into()));
            }
            Ok(found)
        })
    }

    /// Removes an object, if it is there.
    pub fn remove(&self, key: &str) -> Result<(), BucketError> {
        let key = parse(key)?;
        match self.waiter.block_on(self.store.delete(&key)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &dyn std::error::Error) -> BucketError {
        BucketError::Store { bucket: self.name.clone(), reason: reason(error) }
    }
}

/// The TLS that the other connections use; the first to come installs it.
pub(crate) fn install_tls() {
    let _there = rustls::crypto::ring::default_provider().install_default();
}

fn parse(key: &str) -> Result<Key, BucketError> {
    Key::parse(key)
        .map_err(|error| BucketError::Key { key: key.to_owned(), reason: reason(&error) })
}

/// All that an error says, in one line: the outermost text often says only that something failed.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let mut reason = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        inner = error.source();
    }
    // Answers of servers are whole documents.
    let line: String = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_and_secrets_not_shown() {
        assert!(Bucket::s3(&S3Options::default()).is_err());
        let options = S3Options {
            bucket: "b".to_owned(),
            endpoint: "http://127.0.0.1:1/".to_owned(),
            insecure: true,
            access_key: "who".to_owned(),
            secret_key: "hunter2".to_owned(),
            ..S3Options::default()
        };
        assert!(!format!("{options:?}").contains("hunter2"));
        let bucket = Bucket::s3(&options).expect("a bucket");
        for key in ["a//b", "a/../b"] {
            assert!(matches!(bucket.size(key), Err(BucketError::Key { .. })), "{key}");
        }
        let error = bucket.size("a").expect_err("nobody listens there").to_string();
        assert!(error.contains("\"b\"") && !error.contains("hunter2"), "{error}");
    }
}
