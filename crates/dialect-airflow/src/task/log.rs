//! Log records of the SDK (a JSON object per line) as lines to read.

use std::fmt::Write as _;

use kobza_model::Json;
use serde_json::Map;

/// A record longer than this is cut.
const RECORD_BYTES_MAX: usize = 4 << 20;
/// Fields of a record that are not shown behind its message: what they say is known, or is shown
/// otherwise.
const QUIET: [&str; 17] = [
    "timestamp",
    "level",
    "event",
    "logger",
    "filename",
    "lineno",
    "func_name",
    "pathname",
    "process",
    "thread",
    "ti_id",
    "dag_id",
    "task_id",
    "run_id",
    "try_number",
    "map_index",
    "loc",
];

/// Records as they come in.
#[derive(Debug, Default)]
pub(super) struct Logs {
    partial: Vec<u8>,
    last_error: Option<String>,
}

impl Logs {
    /// The lines for what has come, each with its end.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = String::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            self.partial.extend_from_slice(&rest[..end]);
            self.line(&mut out);
            rest = &rest[end + 1..];
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > RECORD_BYTES_MAX {
            self.line(&mut out);
        }
        out.into_bytes()
    }

    /// What is left at the end.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut out = String::new();
        if !self.partial.is_empty() {
            self.line(&mut out);
        }
        out.into_bytes()
    }

    /// The exception logged last, in one line.
    #[must_use]
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.clone()
    }

    fn line(&mut self, out: &mut String) {
        let bytes = std::mem::take(&mut self.partial);
        match serde_json::from_slice::<Map<String, Json>>(&bytes) {
            Ok(record) => self.record(&record, out),
            Err(_) => {
                out.push_str(&String::from_utf8_lossy(&bytes));
                out.push('\n');
            }
        }
    }

    fn record(&mut self, record: &Map<String, Json>, out: &mut String) {
        let text = |field: &str| record.get(field).and_then(Json::as_str);
        let level = text("level").unwrap_or("info").to_uppercase();
        let mut fields = String::new();
        for (name, value) in record {
            if !QUIET.contains(&name.as_str()) && name != "exception" && name != "error_detail" {
                // Writing into a text cannot fail.
                let _infallible = match value {
                    Json::String(value) => write!(fields, " {name}={value:?}"),
                    value => write!(fields, " {name}={value}"),
                };
            }
        }
        let event = text("event").unwrap_or_default();
        let _infallible = writeln!(out, "{level} {event}{fields}");
        let exceptions = record.get("exception").or_else(|| record.get("error_detail"));
        match exceptions {
            Some(Json::Array(chain)) => self.exceptions(chain, out),
            Some(Json::String(trace)) => {
                let _infallible = writeln!(out, "{trace}");
                self.last_error = trace.lines().last().map(str::to_owned);
            }
            _ => {}
        }
    }

    /// Innermost cause last in the record; read from the first cause on, as Python prints them.
    fn exceptions(&mut self, chain: &[Json], out: &mut String) {
        for (place, one) in chain.iter().rev().enumerate() {
            if place > 0 {
                let caused = chain[chain.len() - place]["is_cause"] == true;
                out.push_str(if caused {
                    "\nThe above exception was the direct cause of the following exception:\n\n"
                } else {
                    "\nDuring handling of the above exception, another exception occurred:\n\n"
                });
            }
            let frames = one["frames"].as_array().map(Vec::as_slice).unwrap_or_default();
            if !frames.is_empty() {
                out.push_str("Traceback (most recent call last):\n");
            }
            for frame in frames {
                let word = |field: &str| frame[field].as_str().unwrap_or("?");
                let line = &frame["lineno"];
                let _infallible = writeln!(
                    out,
                    "  File \"{}\", line {line}, in {}",
                    word("filename"),
                    word("name")
                );
            }
            let kind = one["exc_type"].as_str().unwrap_or("Exception");
            let value = one["exc_value"].as_str().unwrap_or_default();
            let summary =
                if value.is_empty() { kind.to_owned() } else { format!("{kind}: {value}") };
            out.push_str(&summary);
            out.push('\n');
            self.last_error = Some(summary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_become_lines() {
        let mut logs = Logs::default();
        let mut out = logs.push(b"{\"level\":\"info\",\"event\":\"hello\",\"timestamp\":\"x\",");
        assert!(out.is_empty());
        out.extend(logs.push(b"\"n\":1,\"who\":\"me\"}\nplain words\n{\"level\":\"error\",\"event\":\"bad\",\"exception\":[{\"exc_type\":\"ValueError\",\"exc_value\":\"boom\",\"frames\":[{\"filename\":\"a.py\",\"lineno\":3,\"name\":\"f\"}]}]}"));
        out.extend(logs.finish());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "INFO hello n=1 who=\"me\"\nplain words\nERROR bad\nTraceback (most recent call last):\n  \
             File \"a.py\", line 3, in f\nValueError: boom\n"
        );
        assert_eq!(logs.last_error().as_deref(), Some("ValueError: boom"));
    }
}
