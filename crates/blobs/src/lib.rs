//! What is too large for the store: logs of launches, artifacts by content, and buckets elsewhere.

mod artifact;
mod bucket;
mod log_line;
mod log_reader;
mod log_store;
mod log_writer;
mod mask;
mod remote;

pub use artifact::{ArtifactError, ArtifactStore, Digest, ParseDigestError};
pub use bucket::{Bucket, BucketError, S3Options};
pub use log_line::{LogLine, LogStream, MAX_LINE_BYTES};
pub use log_reader::{LogPage, LogReader};
pub use log_store::LogStore;
pub use log_writer::{DEFAULT_LOG_BYTES, LogSummary, LogWriter, SEGMENT_BYTES};
pub use mask::{MASK, MaskError, MaskStream, Masker};
pub use remote::{REMOTE_FILE, RemoteError, RemoteStore};
