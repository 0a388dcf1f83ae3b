//! Writes the log of one launch.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use kobza_model::Timestamp;

use crate::log_line::prefix;
use crate::log_store::segment_path;
use crate::{LogLine, LogStream, MAX_LINE_BYTES, MaskStream, Masker};

/// Bytes of log kept for one launch unless it asks otherwise.
pub const DEFAULT_LOG_BYTES: u64 = 64 << 20;
/// A segment is not written to beyond this: retention and upload work on whole segments.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// What became of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogSummary {
    /// Bytes on disk.
    pub bytes: u64,
    /// The limit was reached: what came after was dropped.
    pub truncated: bool,
    /// Bytes that could not be written.
    pub lost_bytes: u64,
    /// The last error of writing.
    pub error: Option<String>,
}

/// Frames, masks, bounds and writes the output of one launch. The file is created with the first
/// byte. Errors never reach the body: they are counted, stated in the log as soon as writing works
/// again, and told by [`LogWriter::summary`].
#[derive(Debug)]
pub struct LogWriter {
    first: PathBuf,
    file: Option<File>,
    segment: u32,
    segment_len: u64,
    segment_limit: u64,
    limit: u64,
    stdout: Framing,
    stderr: Framing,
    summary: LogSummary,
    /// Lost since the last successful write.
    unstated_loss: u64,
}

#[derive(Debug, Default)]
struct Framing {
    partial: Vec<u8>,
    mask: Option<MaskStream>,
}

impl LogWriter {
    /// `first` is the path of the first segment, from [`crate::LogStore::path`].
    #[must_use]
    pub fn new(first: PathBuf, limit_bytes: u64, masker: Option<&Masker>) -> Self {
        let framing = || Framing { partial: Vec::new(), mask: masker.map(Masker::stream) };
        Self {
            first,
            file: None,
            segment: 0,
            segment_len: 0,
            segment_limit: SEGMENT_BYTES,
            limit: limit_bytes,
            stdout: framing(),
            stderr: framing(),
            summary: LogSummary::default(),
            unstated_loss: 0,
        }
    }

    /// Smaller segments.
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_limit = bytes;
        self
    }

    /// Masks more from now on: `masker` knows the secrets of the old one too.
    pub fn mask_with(&mut self, masker: &Masker) {
        for framing in [&mut self.stdout, &mut self.stderr] {
            match &mut framing.mask {
                Some(mask) => mask.switch(masker),
                none => *none = Some(masker.stream()),
            }
        }
    }

    /// Takes what was read from one stream. `scratch` is any buffer; it spares one a writer.
    pub fn write(
        &mut self,
        stream: LogStream,
        bytes: &[u8],
        now: Timestamp,
        scratch: &mut Vec<u8>,
    ) {
        if self.summary.truncated {
            return;
        }
        let mut framing = std::mem::take(self.framing(stream));
        scratch.clear();
        if let Some(mask) = &mut framing.mask {
            let mut plain = Vec::with_capacity(bytes.len());
            mask.push(bytes, &mut plain);
            self.frame(stream, &mut framing, &plain, now, scratch);
        } else {
            self.frame(stream, &mut framing, bytes, now, scratch);
        }
        *self.framing(stream) = framing;
        self.put(scratch);
    }

    /// Whether a line without its end is waiting.
    #[must_use]
    pub fn has_partial(&self) -> bool {
        !self.stdout.partial.is_empty() || !self.stderr.partial.is_empty()
    }

    /// Writes unfinished lines as they are, so that followers see a prompt or a progress bar.
    pub fn flush_partial(&mut self, now: Timestamp, scratch: &mut Vec<u8>) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let partial = std::mem::take(&mut self.framing(stream).partial);
            if !partial.is_empty() && !self.summary.truncated {
                scratch.clear();
                self.record(&prefix(now, stream, true), &[&partial], now, scratch);
                self.put(scratch);
            }
        }
    }

    /// Both streams have ended: writes what was held back.
    pub fn finish(&mut self, now: Timestamp, scratch: &mut Vec<u8>) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let mut framing = std::mem::take(self.framing(stream));
            if let Some(mut mask) = framing.mask.take()
                && !self.summary.truncated
            {
                let mut rest = Vec::new();
                mask.finish(&mut rest);
                scratch.clear();
                self.frame(stream, &mut framing, &rest, now, scratch);
                self.put(scratch);
            }
            *self.framing(stream) = framing;
        }
        self.flush_partial(now, scratch);
        if self.unstated_loss > 0 {
            scratch.clear();
            self.put(scratch);
        }
    }

    /// A line from Kobza itself. It is kept even when the limit is reached.
    pub fn note(&mut self, text: &str, now: Timestamp) {
        let mut out = prefix(now, LogStream::System, false);
        out.extend(text.bytes().map(|b| if b == b'\n' { b' ' } else { b }));
        out.push(b'\n');
        self.put(&mut out);
    }

    #[must_use]
    pub fn summary(&self) -> &LogSummary {
        &self.summary
    }

    fn framing(&mut self, stream: LogStream) -> &mut Framing {
        if stream == LogStream::Stderr { &mut self.stderr } else { &mut self.stdout }
    }

    /// Cuts bytes into records.
    fn frame(
        &mut self,
        stream: LogStream,
        framing: &mut Framing,
        mut bytes: &[u8],
        now: Timestamp,
        out: &mut Vec<u8>,
    ) {
        let full = prefix(now, stream, false);
        let part = prefix(now, stream, true);
        while !bytes.is_empty() {
            let room = MAX_LINE_BYTES - framing.partial.len();
            let window = &bytes[..bytes.len().min(room + 1)];
            let kept = if let Some(end) = memchr::memchr(b'\n', window) {
                let kept = self.record(&full, &[&framing.partial, &bytes[..end]], now, out);
                framing.partial.clear();
                bytes = &bytes[end + 1..];
                kept
            } else if window.len() > room {
                let kept = self.record(&part, &[&framing.partial, &bytes[..room]], now, out);
                framing.partial.clear();
                bytes = &bytes[room..];
                kept
            } else {
                framing.partial.extend_from_slice(bytes);
                return;
            };
            if !kept {
                framing.partial = Vec::new();
                return;
            }
        }
    }

    /// Appends one record, or the statement that the limit is reached.
    fn record(
        &mut self,
        prefix: &[u8],
        parts: &[&[u8]],
        now: Timestamp,
        out: &mut Vec<u8>,
    ) -> bool {
        let length = prefix.len() + parts.iter().map(|p| p.len()).sum::<usize>() + 1;
        if self.summary.bytes + (out.len() + length) as u64 > self.limit {
            self.summary.truncated = true;
            out.extend_from_slice(&self::prefix(now, LogStream::System, false));
            let note = format!(
                "log limit of {} bytes reached: what follows is not kept; the task goes on\n",
                self.limit
            );
            out.extend_from_slice(note.as_bytes());
            return false;
        }
        out.extend_from_slice(prefix);
        for part in parts {
            out.extend_from_slice(part);
        }
        out.push(b'\n');
        true
    }

    /// Writes whole records, all or none.
    fn put(&mut self, records: &mut Vec<u8>) {
        if records.is_empty() && self.unstated_loss == 0 {
            return;
        }
        let lost = records.len() as u64;
        if self.unstated_loss > 0 {
            let error = self.summary.error.as_deref().unwrap_or("unknown error");
            let note = format!("{} bytes of log lost here: {error}\n", self.unstated_loss);
            let time = first_time(records);
            let mut stated = prefix(time, LogStream::System, false);
            stated.extend_from_slice(note.as_bytes());
            stated.append(records);
            *records = stated;
        }
        match self.try_put(records) {
            Ok(()) => {
                self.unstated_loss = 0;
                self.segment_len += records.len() as u64;
                self.summary.bytes += records.len() as u64;
            }
            Err(error) => {
                self.summary.lost_bytes += lost;
                self.unstated_loss += lost;
                self.summary.error = Some(error.to_string());
            }
        }
    }

    fn try_put(&mut self, records: &[u8]) -> io::Result<()> {
        if self.segment_len > 0 && self.segment_len + records.len() as u64 > self.segment_limit {
            self.file = None;
            self.segment += 1;
            self.segment_len = 0;
        }
        if self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("the log is not open"));
        };
        if let Err(error) = file.write_all(records) {
            // Take back half a record, so that the file stays readable.
            let _ = file.set_len(self.segment_len);
            return Err(error);
        }
        Ok(())
    }

    /// Opens the current segment. A launch that is repeated goes on behind what is there.
    fn open(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o640);
        loop {
            let path = segment_path(&self.first, self.segment);
            let file = match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Some(folder) = path.parent() {
                        fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
                    }
                    options.open(&path)?
                }
                other => other?,
            };
            self.segment_len = file.metadata()?.len();
            if self.segment_len < self.segment_limit {
                self.file = Some(file);
                return Ok(());
            }
            self.segment += 1;
        }
    }
}

/// The time of the first record, for a statement that stands before it.
fn first_time(records: &[u8]) -> Timestamp {
    LogLine::parse(records.split(|&b| b == b'\n').next().unwrap_or_default()).time
}
