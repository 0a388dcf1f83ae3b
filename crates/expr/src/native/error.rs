//! What is wrong with a template, and where in it.

use std::fmt;

/// A template that does not compile or render. `line` and `column` count from 1 within the
/// template's own text; 0 where the place is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    pub message: String,
    pub line: usize,
    pub column: usize,
    pub hint: Option<String>,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for TemplateError {}

impl TemplateError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: 0, column: 0, hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Translates the engine's error. `offset` is where `source` begins in the author's text, in
    /// bytes, when only a part of it was compiled.
    pub(super) fn from_engine(error: &minijinja::Error, source: &str) -> Self {
        use minijinja::ErrorKind as Kind;
        let place = error.range().filter(|r| r.end <= source.len() && r.start <= r.end);
        let culprit = place.clone().and_then(|r| source.get(r)).map(str::trim);
        let message = match (error.kind(), culprit) {
            (Kind::UndefinedError, Some(culprit)) if !culprit.is_empty() => {
                format!("`{}` is undefined", short(culprit))
            }
            (Kind::OutOfFuel, _) => "the template does too much work".to_owned(),
            (kind, _) => match error.detail() {
                Some(detail) => format!("{kind}: {detail}"),
                None => match innermost(error) {
                    Some(cause) => format!("{kind}: {cause}"),
                    None => kind.to_string(),
                },
            },
        };
        let (line, column) = match place {
            Some(range) => position(source, range.start),
            None => (error.line().unwrap_or(0), usize::from(error.line().is_some())),
        };
        let hint = match error.kind() {
            Kind::UndefinedError => Some("use `| default(...)` if it may be missing".to_owned()),
            _ => None,
        };
        Self { message, line, column, hint }
    }
}

fn innermost(error: &minijinja::Error) -> Option<String> {
    let mut source = std::error::Error::source(error)?;
    while let Some(deeper) = source.source() {
        source = deeper;
    }
    Some(source.to_string())
}

/// Errors must stay readable whatever the template holds.
fn short(text: &str) -> String {
    let mut out: String = text.chars().take(80).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

/// Line and column, from 1, of a byte offset.
pub(super) fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}
