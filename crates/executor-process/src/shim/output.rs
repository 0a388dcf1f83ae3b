//! Reads the outputs that a task left in the file `$KOBZA_OUTPUT`: a JSON object, or lines
//! `key=value`.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kobza_model::{Cause, Json};

/// Bytes of the output file unless the task asks otherwise.
pub(super) const DEFAULT_OUTPUT_BYTES: u64 = 1 << 20;
/// Longest key of an output, in characters.
const MAX_KEY_CHARS: usize = 500;

pub(super) type Outputs = Vec<(String, Json)>;

/// None if there is no file.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Outputs>, (Cause, String)> {
    let mut options = OpenOptions::new();
    // The task may have put anything there: no symlink is followed, no pipe waited for.
    options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    let wrong = |error: io::Error| (Cause::Code, format!("output file: {error}"));
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    let about = file.metadata().map_err(wrong)?;
    if !about.is_file() {
        return Err((Cause::Code, "output file: it is not a regular file".into()));
    }
    let too_large = |bytes: u64| {
        (Cause::Limit, format!("output file of {bytes} bytes is over the limit of {limit} bytes"))
    };
    if about.len() > limit {
        return Err(too_large(about.len()));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    parse(&bytes).map(Some).map_err(|message| (Cause::Code, format!("output file: {message}")))
}

fn parse(bytes: &[u8]) -> Result<Outputs, String> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| format!("byte {} is not UTF-8", e.valid_up_to()))?;
    let outputs: Outputs = if text.trim_start().starts_with('{') {
        let object: serde_json::Map<String, Json> =
            serde_json::from_str(text).map_err(|e| format!("not a JSON object: {e}"))?;
        object.into_iter().collect()
    } else {
        let mut lines = Outputs::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| {
                format!(
                    "line {} is not of the form key=value, nor is the file a JSON object",
                    number + 1
                )
            })?;
            let value =
                serde_json::from_str(value).unwrap_or_else(|_| Json::String(value.to_owned()));
            lines.retain(|(known, _)| known != key.trim());
            lines.push((key.trim().to_owned(), value));
        }
        lines
    };
    for (key, _) in &outputs {
        let shown: String = key.chars().take(80).collect();
        if key.is_empty() || key.chars().any(char::is_control) {
            return Err(format!("{shown:?} cannot be the name of an output"));
        }
        if key.chars().count() > MAX_KEY_CHARS {
            return Err(format!("{shown:?}... is longer than {MAX_KEY_CHARS} characters"));
        }
    }
    Ok(outputs)
}

/// Remembers the last line of a stream that is not empty.
#[derive(Debug, Default)]
pub(super) struct LastLine {
    current: Vec<u8>,
    last: Vec<u8>,
}

/// Longest line kept as a result.
const MAX_RESULT_BYTES: usize = 256 * 1024;

impl LastLine {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // Only what is behind the last but one line feed can matter.
        let mut ends = memchr::memrchr_iter(b'\n', bytes);
        let Some(end) = ends.next() else {
            let room = MAX_RESULT_BYTES.saturating_sub(self.current.len());
            self.current.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return;
        };
        let mut line_end = end;
        loop {
            let begin = ends.next().map(|at| at + 1);
            let line = &bytes[begin.unwrap_or(0)..line_end];
            let filled = !line.trim_ascii().is_empty();
            if begin.is_none() {
                if filled || !self.current.trim_ascii().is_empty() {
                    self.current.extend_from_slice(line);
                    self.last = std::mem::take(&mut self.current);
                    self.last.truncate(MAX_RESULT_BYTES);
                }
                break;
            }
            if filled {
                self.last = line[..line.len().min(MAX_RESULT_BYTES)].to_vec();
                break;
            }
            line_end = begin.unwrap_or(1) - 1;
        }
        self.current.clear();
        let rest = &bytes[end + 1..];
        self.current.extend_from_slice(&rest[..rest.len().min(MAX_RESULT_BYTES)]);
    }

    /// The line as text, without white space at its end.
    pub(super) fn take(&mut self) -> Option<String> {
        let line = if self.current.trim_ascii().is_empty() { &self.last } else { &self.current };
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_forms() {
        assert_eq!(
            parse(b"{\"a\": 1, \"b\": [true]}").unwrap(),
            [("a".into(), json!(1)), ("b".into(), json!([true]))]
        );
        assert_eq!(
            parse(b"a=1\n\nb=two words\r\nc=\"x\"\na=2\nd=\n").unwrap(),
            [
                ("b".into(), json!("two words")),
                ("c".into(), json!("x")),
                ("a".into(), json!(2)),
                ("d".into(), json!("")),
            ]
        );
        assert_eq!(parse(b"").unwrap(), []);
        for bad in [&b"{\"a\":}"[..], b"nothing", b"=1", b"\xff=1", b"a\0=1", b"[1]"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files_of_any_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("o");
        assert_eq!(read(&path, 10), Ok(None));
        std::fs::write(&path, "key=value01").unwrap();
        assert_eq!(read(&path, 10).unwrap_err().0, Cause::Limit);
        assert!(read(&path, 11).unwrap().is_some());
        let link = folder.path().join("l");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 100).unwrap_err().0, Cause::Code);
        assert_eq!(read(folder.path(), 100).unwrap_err().0, Cause::Code);
    }

    #[test]
    fn last_lines() {
        let text = "one\n\ntwo  \n \n\n";
        for size in 1..=text.len() {
            let mut last = LastLine::default();
            for piece in text.as_bytes().chunks(size) {
                last.push(piece);
            }
            assert_eq!(last.take().unwrap(), "two", "in pieces of {size}");
            last.push(b"\nthr");
            last.push(b"ee");
            assert_eq!(last.take().unwrap(), "three");
        }
        assert_eq!(LastLine::default().take(), None);
    }
}
