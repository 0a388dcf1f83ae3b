//! The frames between a task and its supervisor: a big-endian length of four bytes and MessagePack,
//! `[id, body, ...]` upwards and `[id, body, error]` downwards. Here they are JSON; an instant
//! becomes its RFC 3339 text.

use kobza_model::{Json, Timestamp};
use serde_json::{Map, Number};

/// Longest frame accepted.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Deepest nesting accepted.
const DEPTH_MAX: u32 = 200;
/// MessagePack's own extension type for instants.
const TIMESTAMP: i8 = -1;

/// Bytes that are no frame of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes; the limit is {FRAME_BYTES_MAX}")]
    TooLong(usize),
    #[error("a frame that ends in the middle of a value")]
    Short,
    #[error("a frame with something behind its value")]
    Trailing,
    #[error("a frame nested more than {DEPTH_MAX} deep")]
    Deep,
    #[error("a frame with {0}")]
    Unexpected(String),
}

/// Bytes as they come in, cut into frames.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    taken: usize,
}

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub fn take_frame(&mut self) -> Result<Option<Json>, FrameError> {
        let rest = &self.bytes[self.taken..];
        let Some(head) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(body) = rest.get(4..4 + length) else { return Ok(None) };
        let value = decode(body)?;
        self.taken += 4 + length;
        Ok(Some(value))
    }
}

/// A value as a frame.
#[must_use]
pub fn frame(value: &Json) -> Vec<u8> {
    let mut out = vec![0; 4];
    encode(value, &mut out);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// Reads one value that fills `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Json, FrameError> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(FrameError::Trailing) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(FrameError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        // `take` gives exactly so many.
        self.take(N)?.try_into().map_err(|_| FrameError::Short)
    }

    fn length(&mut self, width: usize) -> Result<usize, FrameError> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn value(&mut self, depth: u32) -> Result<Json, FrameError> {
        if depth > DEPTH_MAX {
            return Err(FrameError::Deep);
        }
        let [tag] = self.number()?;
        Ok(match tag {
            0x00..=0x7f => Json::from(tag),
            0x80..=0x8f => self.map(usize::from(tag & 0x0f), depth)?,
            0x90..=0x9f => self.array(usize::from(tag & 0x0f), depth)?,
            0xa0..=0xbf => self.text(usize::from(tag & 0x1f))?,
            0xc0 => Json::Null,
            0xc2 => Json::Bool(false),
            0xc3 => Json::Bool(true),
            0xc4..=0xc6 => return Err(FrameError::Unexpected("bytes that are no text".into())),
            0xc7..=0xc9 => {
                let length = self.length(1 << (tag - 0xc7))?;
                self.extension(length)?
            }
            0xca => real(f64::from(f32::from_be_bytes(self.number()?))),
            0xcb => real(f64::from_be_bytes(self.number()?)),
            0xcc..=0xcf => {
                let bytes = self.take(1 << (tag - 0xcc))?;
                Json::from(bytes.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte)))
            }
            0xd0 => Json::from(i8::from_be_bytes(self.number()?)),
            0xd1 => Json::from(i16::from_be_bytes(self.number()?)),
            0xd2 => Json::from(i32::from_be_bytes(self.number()?)),
            0xd3 => Json::from(i64::from_be_bytes(self.number()?)),
            0xd4..=0xd8 => self.extension(1 << (tag - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(1 << (tag - 0xd9))?;
                self.text(length)?
            }
            0xdc | 0xdd => {
                let length = self.length(2 << (tag - 0xdc))?;
                self.array(length, depth)?
            }
            0xde | 0xdf => {
                let length = self.length(2 << (tag - 0xde))?;
                self.map(length, depth)?
            }
            0xe0..=0xff => Json::from(i8::from_be_bytes([tag])),
            0xc1 => return Err(FrameError::Unexpected("the byte 0xc1".into())),
        })
    }

    fn text(&mut self, length: usize) -> Result<Json, FrameError> {
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| FrameError::Unexpected("text that is not UTF-8".into()))?;
        Ok(Json::from(text))
    }

    fn array(&mut self, length: usize, depth: u32) -> Result<Json, FrameError> {
        // A length is only believed as far as there are bytes.
        let mut items = Vec::with_capacity(length.min(self.rest.len()));
        for _ in 0..length {
            items.push(self.value(depth + 1)?);
        }
        Ok(Json::Array(items))
    }

    fn map(&mut self, length: usize, depth: u32) -> Result<Json, FrameError> {
        let mut map = Map::new();
        for _ in 0..length {
            let key = match self.value(depth + 1)? {
                Json::String(key) => key,
                // JSON writes them so, and Airflow's own server stores JSON.
                key @ (Json::Number(_) | Json::Bool(_) | Json::Null) => key.to_string(),
                _ => return Err(FrameError::Unexpected("a key that is no text".into())),
            };
            map.insert(key, self.value(depth + 1)?);
        }
        Ok(Json::Object(map))
    }

    fn extension(&mut self, length: usize) -> Result<Json, FrameError> {
        let [kind] = self.number()?;
        let bytes = self.take(length)?;
        if i8::from_be_bytes([kind]) != TIMESTAMP {
            return Err(FrameError::Unexpected(format!("the extension type {kind}")));
        }
        instant(bytes).ok_or_else(|| FrameError::Unexpected("an instant that is none".into()))
    }
}

fn real(value: f64) -> Json {
    // JSON has no word for what is not finite.
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}

/// Seconds and nanoseconds in 4, 8 or 12 bytes.
fn instant(bytes: &[u8]) -> Option<Json> {
    let (seconds, nanos) = match bytes.len() {
        4 => (i64::from(u32::from_be_bytes(bytes.try_into().ok()?)), 0),
        8 => {
            let both = u64::from_be_bytes(bytes.try_into().ok()?);
            (i64::try_from(both & 0x3_ffff_ffff).ok()?, u32::try_from(both >> 34).ok()?)
        }
        12 => {
            let (nanos, seconds) = bytes.split_first_chunk::<4>()?;
            (i64::from_be_bytes(seconds.try_into().ok()?), u32::from_be_bytes(*nanos))
        }
        _ => return None,
    };
    let micros = seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1000))?;
    Some(Json::String(Timestamp(micros).to_string()))
}

fn encode(value: &Json, out: &mut Vec<u8>) {
    match value {
        Json::Null => out.push(0xc0),
        Json::Bool(value) => out.push(0xc2 | u8::from(*value)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value @ 0..=0x7f), _) => out.push(value as u8),
            (Some(value), _) => {
                out.push(0xd3);
                out.extend(value.to_be_bytes());
            }
            (None, Some(value)) => {
                out.push(0xcf);
                out.extend(value.to_be_bytes());
            }
            (None, None) => {
                out.push(0xcb);
                out.extend(number.as_f64().unwrap_or_default().to_be_bytes());
            }
        },
        Json::String(text) => {
            head(out, text.len(), [0xa0, 0xda, 0xdb], 31);
            out.extend(text.as_bytes());
        }
        Json::Array(items) => {
            head(out, items.len(), [0x90, 0xdc, 0xdd], 15);
            items.iter().for_each(|item| encode(item, out));
        }
        Json::Object(map) => {
            head(out, map.len(), [0x80, 0xde, 0xdf], 15);
            for (key, value) in map {
                head(out, key.len(), [0xa0, 0xda, 0xdb], 31);
                out.extend(key.as_bytes());
                encode(value, out);
            }
        }
    }
}

fn head(out: &mut Vec<u8>, length: usize, tags: [u8; 3], small: usize) {
    if length <= small {
        out.push(tags[0] | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        out.push(tags[1]);
        out.extend(length.to_be_bytes());
    } else {
        out.push(tags[2]);
        out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_survive() {
        let long: Vec<u32> = (0..70_000).collect();
        for value in [
            json!(null),
            json!([true, false, 0, 127, 128, -1, -33, i64::MIN, u64::MAX, 1.5, -0.25]),
            json!({"a": {"b": ["ü", "x".repeat(40), "y".repeat(70_000)]}}),
            json!(long),
        ] {
            let mut frames = Frames::default();
            for byte in frame(&value) {
                frames.push(&[byte]);
            }
            assert_eq!(frames.take_frame(), Ok(Some(value)));
            assert_eq!(frames.take_frame(), Ok(None));
        }
    }

    #[test]
    fn instants_are_texts() {
        let second = [0xd6, 0xff, 0, 0, 0, 1];
        assert_eq!(decode(&second), Ok(json!("1970-01-01T00:00:01.000000Z")));
        let nanos = (500_000_000u64 << 34 | 1_700_000_000).to_be_bytes();
        let bytes = [&[0xd7, 0xff][..], &nanos].concat();
        assert_eq!(decode(&bytes), Ok(json!("2023-11-14T22:13:20.500000Z")));
        let early = [&[0xc7, 12, 0xff, 0, 0, 0, 0][..], &(-1i64).to_be_bytes()].concat();
        assert_eq!(decode(&early), Ok(json!("1969-12-31T23:59:59.000000Z")));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            &[][..],
            &[0xc1],
            &[0xd9, 5, b'a'],
            &[0x92, 1],
            &[1, 1],
            &[0xc4, 1, 0],
            &[0xa1, 0xff],
            &[0x81, 0x90, 1],
            &[0xdd, 0xff, 0xff, 0xff, 0xff],
            &[0xd4, 5, 0],
        ] {
            assert!(decode(bad).is_err(), "{bad:x?}");
        }
        assert_eq!(decode(&[0x91; 100_000]), Err(FrameError::Deep));
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_be_bytes());
        assert!(matches!(frames.take_frame(), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
