//! The form of a log on disk: one record a line,
//! `<microseconds since 1970> <O|E|S> <F|P> <bytes>`.

use kobza_model::Timestamp;

/// Longest piece of a line in one record. A longer line becomes several records, all but the last
/// marked as partial, so that a reader never needs more than this for one record.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// Where a line came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    Stdout,
    Stderr,
    /// Kobza itself: truncations, lost bytes, limits.
    System,
}

impl LogStream {
    pub(crate) const fn letter(self) -> u8 {
        match self {
            Self::Stdout => b'O',
            Self::Stderr => b'E',
            Self::System => b'S',
        }
    }

    const fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'O' => Some(Self::Stdout),
            b'E' => Some(Self::Stderr),
            b'S' => Some(Self::System),
            _ => None,
        }
    }
}

/// One record of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    pub time: Timestamp,
    pub stream: LogStream,
    /// The line goes on in the next record of the same stream.
    pub partial: bool,
    /// As the body wrote it, without the line feed; not necessarily UTF-8.
    pub bytes: Vec<u8>,
}

impl LogLine {
    /// The bytes as text; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// Reads a record without its line feed. A record that is not of the form (a damaged file) is
    /// given as a line of the system stream at time 0, so that nothing is hidden.
    #[must_use]
    pub fn parse(record: &[u8]) -> Self {
        Self::parse_exact(record).unwrap_or_else(|| Self {
            time: Timestamp(0),
            stream: LogStream::System,
            partial: false,
            bytes: record.to_vec(),
        })
    }

    fn parse_exact(record: &[u8]) -> Option<Self> {
        let space = memchr::memchr(b' ', record.get(..24.min(record.len()))?)?;
        let micros: i64 = std::str::from_utf8(&record[..space]).ok()?.parse().ok()?;
        let [letter, b' ', mark @ (b'F' | b'P'), b' ', bytes @ ..] = &record[space + 1..] else {
            return None;
        };
        Some(Self {
            time: Timestamp(micros),
            stream: LogStream::from_letter(*letter)?,
            partial: *mark == b'P',
            bytes: bytes.to_vec(),
        })
    }
}

/// The beginning of a record.
pub(crate) fn prefix(now: Timestamp, stream: LogStream, partial: bool) -> Vec<u8> {
    let mut prefix = now.0.to_string().into_bytes();
    prefix.extend_from_slice(&[
        b' ',
        stream.letter(),
        b' ',
        if partial { b'P' } else { b'F' },
        b' ',
    ]);
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back() {
        let mut record = prefix(Timestamp(1_700_000_000_000_001), LogStream::Stderr, true);
        record.extend_from_slice(b"a b\xff");
        let line = LogLine::parse(&record);
        assert_eq!(line.time, Timestamp(1_700_000_000_000_001));
        assert_eq!((line.stream, line.partial), (LogStream::Stderr, true));
        assert_eq!(line.bytes, b"a b\xff");
        assert_eq!(line.text(), "a b\u{fffd}");
    }

    #[test]
    fn damaged_records_are_shown() {
        for bad in ["", "x", "12", "12 O", "12 Z F x", "12 O X y", "99999999999999999999999 O F x"]
        {
            let line = LogLine::parse(bad.as_bytes());
            assert_eq!(line.stream, LogStream::System, "{bad}");
            assert_eq!(line.bytes, bad.as_bytes());
        }
    }
}
