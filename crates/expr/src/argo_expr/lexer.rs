//! Text to tokens.

use super::Error;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Float(f64),
    Str(String),
    Ident(String),
    /// `#`, `#acc`, `#index`.
    Pointer(String),
    Op(&'static str),
    End,
}

/// Longer ones first.
const OPERATORS: &[&str] = &[
    "??", "?.", "..", "**", "==", "!=", "<=", ">=", "&&", "||", "+", "-", "*", "/", "%", "^", "<",
    ">", "!", "?", ":", "(", ")", "[", "]", "{", "}", ",", ".", "|", ";", "=",
];

/// Tokens with the byte offset where each begins.
pub(super) fn lex(text: &str) -> Result<Vec<(Token, usize)>, Error> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let at = text.len() - rest.len();
        let Some(c) = rest.chars().next() else { break };
        if c.is_whitespace() {
            rest = &rest[c.len_utf8()..];
        } else if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| Error::at("unclosed comment", at))?;
            rest = &comment[end + 2..];
        } else if c == '"' || c == '\'' || c == '`' {
            let (value, length) = string(rest, c).map_err(|what| Error::at(what, at))?;
            tokens.push((Token::Str(value), at));
            rest = &rest[length..];
        } else if c.is_ascii_digit()
            || (c == '.' && rest[1..].starts_with(|d: char| d.is_ascii_digit()))
        {
            let (token, length) = number(rest).map_err(|what| Error::at(what, at))?;
            tokens.push((token, at));
            rest = &rest[length..];
        } else if c == '#' {
            let length = 1 + identifier_length(&rest[1..]);
            tokens.push((Token::Pointer(rest[1..length].to_owned()), at));
            rest = &rest[length..];
        } else if c.is_alphabetic() || c == '_' || c == '$' {
            let length = c.len_utf8() + identifier_length(&rest[c.len_utf8()..]);
            tokens.push((Token::Ident(rest[..length].to_owned()), at));
            rest = &rest[length..];
        } else if let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) {
            // `a ?.5 : b` is a ternary with a number.
            let op = if *op == "?." && rest[2..].starts_with(|d: char| d.is_ascii_digit()) {
                &"?"
            } else {
                op
            };
            tokens.push((Token::Op(op), at));
            rest = &rest[op.len()..];
        } else {
            return Err(Error::at(format!("unrecognized character: {c:?}"), at));
        }
    }
    tokens.push((Token::End, text.len()));
    Ok(tokens)
}

fn identifier_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len())
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let bytes = text.as_bytes();
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let end =
                digits.find(|c: char| !(c.is_digit(radix) || c == '_')).unwrap_or(digits.len());
            return i64::from_str_radix(&digits[..end].replace('_', ""), radix)
                .map(|n| (Token::Int(n), 2 + end))
                .map_err(|_| format!("bad number {:?}", &text[..2 + end]));
        }
    }
    let mut end = 0;
    let mut float = false;
    while end < bytes.len() {
        match bytes[end] {
            b'0'..=b'9' | b'_' => end += 1,
            // `1..3` is a range.
            b'.' if !float && bytes.get(end + 1) != Some(&b'.') => {
                float = true;
                end += 1;
            }
            b'e' | b'E' => {
                let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                if !bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
                    break;
                }
                float = true;
                end += 1 + sign;
                while bytes.get(end).is_some_and(u8::is_ascii_digit) {
                    end += 1;
                }
                break;
            }
            _ => break,
        }
    }
    let digits = text[..end].replace('_', "");
    let bad = || format!("bad number {digits:?}");
    if float {
        digits.parse().map(|n| (Token::Float(n), end)).map_err(|_| bad())
    } else {
        digits.parse().map(|n| (Token::Int(n), end)).map_err(|_| bad())
    }
}

/// The value of a string literal and its length in the source.
fn string(text: &str, quote: char) -> Result<(String, usize), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((value, at + 1));
        }
        if c != '\\' || quote == '`' {
            value.push(c);
            continue;
        }
        let (_, escape) = chars.next().ok_or("literal not terminated")?;
        let mut hex = |digits: usize| -> Result<char, String> {
            let mut code = 0;
            for _ in 0..digits {
                let digit = chars.next().and_then(|(_, c)| c.to_digit(16));
                code = code * 16 + digit.ok_or("invalid escape")?;
            }
            char::from_u32(code).ok_or_else(|| "invalid code point".to_owned())
        };
        value.push(match escape {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'a' => '\u{7}',
            'v' => '\u{b}',
            '0' => '\0',
            '\\' | '\'' | '"' | '/' | '`' => escape,
            'x' => hex(2)?,
            'u' => hex(4)?,
            'U' => hex(8)?,
            other => return Err(format!("invalid escape \\{other}")),
        });
    }
    Err("literal not terminated".to_owned())
}
