//! Values in SQL: bound parameters, never text.

use kobza_model::Json;

use super::TemplateError;
use super::engine::MARK;
use super::shell::{as_text, mark};

/// A statement with numbered parameters and their values. `$1`, `$2`, … is what both SQLite and
/// PostgreSQL read.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlText {
    pub statement: String,
    pub params: Vec<Json>,
}

/// Puts parameters in the place of marks.
///
/// A quoted literal that holds values, such as `'%{{ name }}%'`, becomes a concatenation of
/// literals and parameters, so statements written for plain text templates keep their meaning.
pub(super) fn resolve(text: &str, values: &[Json]) -> Result<SqlText, TemplateError> {
    let mut out = SqlText { statement: String::with_capacity(text.len()), params: Vec::new() };
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            MARK => {
                let (number, after) = mark(rest);
                if let Some(value) = values.get(number) {
                    out.place(value);
                }
                rest = after;
                continue;
            }
            '\'' => quoted(rest, '\''),
            '"' => quoted(rest, '"'),
            '`' => quoted(rest, '`'),
            '[' => rest.find(']').map_or(1, |at| at + 1),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |at| at + 4),
            _ => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        if !token.contains(MARK) {
            out.statement.push_str(token);
            continue;
        }
        match c {
            '\'' => out.literal(token, values),
            '-' | '/' => {
                // A comment runs nothing, but a value must not be able to end it.
                for piece in split_marks(token) {
                    if let Piece::Text(text) = piece {
                        out.statement.push_str(text);
                    }
                }
            }
            // Within brackets it may be an array or an index, whose parts are ordinary.
            '[' => {
                return Err(identifier());
            }
            _ => return Err(identifier()),
        }
    }
    Ok(out)
}

fn identifier() -> TemplateError {
    TemplateError::new("a value cannot be bound inside a quoted name")
        .hint("use `{{ … | ident }}` without quotes around it")
}

enum Piece<'a> {
    Text(&'a str),
    Mark(usize),
}

fn split_marks(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let (number, after) = mark(&rest[at..]);
        pieces.push(Piece::Mark(number));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// Length of a quoted token; the quote doubled stands for itself.
fn quoted(rest: &str, quote: char) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            match chars.peek() {
                Some(&(_, next)) if next == quote => {
                    chars.next();
                }
                _ => return at + c.len_utf8(),
            }
        }
    }
    rest.len()
}

impl SqlText {
    fn bind(&mut self, value: Json) {
        self.params.push(value);
        self.statement.push_str(&format!("${}", self.params.len()));
    }

    /// An unquoted list is several parameters, as `in (…)` wants.
    fn place(&mut self, value: &Json) {
        match value {
            Json::Array(items) if items.is_empty() => self.statement.push_str("NULL"),
            Json::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        self.statement.push_str(", ");
                    }
                    self.bind(scalar(item));
                }
            }
            other => self.bind(scalar(other)),
        }
    }

    /// A quoted literal with values inside.
    fn literal(&mut self, token: &str, values: &[Json]) {
        let inner = token.strip_prefix('\'').unwrap_or(token);
        let inner = inner.strip_suffix('\'').unwrap_or(inner);
        let pieces = split_marks(inner);
        let several = pieces.len() > 1;
        if several {
            self.statement.push('(');
        }
        for (place, piece) in pieces.iter().enumerate() {
            if place > 0 {
                self.statement.push_str(" || ");
            }
            match piece {
                Piece::Text(text) => {
                    self.statement.push('\'');
                    self.statement.push_str(text);
                    self.statement.push('\'');
                }
                Piece::Mark(number) => {
                    let text = values.get(*number).map(as_text).unwrap_or_default();
                    self.bind(Json::String(text));
                }
            }
        }
        if several {
            self.statement.push(')');
        }
    }
}

/// What a database can take: lists and maps go as JSON text.
fn scalar(value: &Json) -> Json {
    match value {
        Json::Array(_) | Json::Object(_) => Json::String(value.to_string()),
        other => other.clone(),
    }
}
