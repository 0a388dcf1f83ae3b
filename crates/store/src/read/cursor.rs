//! Cursors: where a list goes on, as an opaque text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ViewError;

/// Longer ones are not ours: names are bounded.
const MAX_CURSOR_BYTES: usize = 8 * 1024;

/// The place after an item of list `list`.
pub(super) fn encode<T: Serialize>(list: &str, place: &T) -> Option<String> {
    // Places are tuples of numbers and texts: these always serialize.
    serde_json::to_vec(&(list, place)).ok().map(|json| URL_SAFE_NO_PAD.encode(json))
}

/// The place in a cursor of list `list`.
pub(super) fn decode<T: DeserializeOwned>(
    list: &str,
    cursor: Option<&str>,
) -> Result<Option<T>, ViewError> {
    let Some(cursor) = cursor else { return Ok(None) };
    if cursor.len() > MAX_CURSOR_BYTES {
        return Err(ViewError::Cursor);
    }
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| ViewError::Cursor)?;
    let (found, place): (String, T) =
        serde_json::from_slice(&json).map_err(|_| ViewError::Cursor)?;
    if found == list { Ok(Some(place)) } else { Err(ViewError::Cursor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cursors_of_the_same_list_are_taken() {
        let cursor = encode("runs", &(5_i64, "x"));
        let cursor = cursor.as_deref();
        assert_eq!(decode("runs", cursor).unwrap(), Some((5_i64, "x".to_owned())));
        assert_eq!(decode::<(i64, String)>("runs", None).unwrap(), None);
        assert!(matches!(decode::<(i64, String)>("tasks", cursor), Err(ViewError::Cursor)));
        assert!(matches!(decode::<(i64, i64)>("runs", cursor), Err(ViewError::Cursor)));
        for bad in ["", "%", "abc", "../..", &"A".repeat(100_000)] {
            assert!(matches!(decode::<i64>("runs", Some(bad)), Err(ViewError::Cursor)), "{bad:.9}");
        }
    }
}
