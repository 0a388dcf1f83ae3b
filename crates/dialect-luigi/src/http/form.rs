//! The one form field of a call: `data`, JSON text.

use axum::http::{HeaderMap, header};

/// The field `data` of a form, decoded; empty where there is none. The last one counts.
pub(super) fn data(form: &[u8]) -> String {
    let mut found = &b""[..];
    for pair in form.split(|byte| *byte == b'&') {
        if let Some(value) = pair.strip_prefix(b"data=") {
            found = value;
        }
    }
    decode(found)
}

/// The data of a POST: a form as every client sends it, or JSON as people do by hand.
pub(super) fn posted(headers: &HeaderMap, body: &[u8], query: Option<&str>) -> String {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/json") {
        return String::from_utf8_lossy(body).into_owned();
    }
    let from_body = data(body);
    if from_body.is_empty() {
        return data(query.unwrap_or_default().as_bytes());
    }
    from_body
}

/// Percent-decodes; what is not UTF-8 becomes replacement characters.
pub(super) fn decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => out.push(b' '),
            b'%' => match tail {
                [high, low, tail @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                    out.push(hex(*high).unwrap_or(0) << 4 | hex(*low).unwrap_or(0));
                    rest = tail;
                }
                _ => out.push(b'%'),
            },
            other => out.push(other),
        }
    }
    match String::from_utf8(out) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        assert_eq!(data(b"x=1&data=%7B%22a%22%3A+%22%C3%A9%22%7D"), "{\"a\": \"é\"}");
        assert_eq!(data(b"data=%zz%"), "%zz%");
        assert_eq!(data(b"datax=1"), "");
        assert_eq!(data(b"data=%ff"), "\u{fffd}");
    }
}
