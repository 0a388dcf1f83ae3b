//! Values in shell scripts.
//!
//! A value never becomes part of the script. Its mark is replaced by a reference to an environment
//! variable that holds it, quoted as the place needs. Where exactly a mark stands is found by
//! reading the script as a shell would; if that reading were ever wrong, the result would look odd
//! but could still not run anything, since the shell does not parse again what a variable holds.

use kobza_model::Json;

use super::TemplateError;
use super::engine::{MARK, MARK_END};

/// A script and the environment variables that it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShellText {
    pub script: String,
    pub env: Vec<(String, String)>,
}

/// Linux accepts at most 128 KiB in one variable, name included.
const MAX_VALUE_BYTES: usize = 128 * 1024 - 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Unquoted; ends at the character, if there is one.
    Plain(Option<char>),
    Double,
    Single,
    /// `$'…'`
    Ansi,
    /// `${…}`
    Brace,
    /// `$((…))`
    Arithmetic,
    Comment,
}

/// A here-document whose body has not begun yet.
struct HereDocument {
    delimiter: String,
    /// Expansion takes place in it.
    expands: bool,
    strip_tabs: bool,
}

struct Resolver<'a> {
    values: &'a [Json],
    names: Vec<Option<Vec<String>>>,
    env: Vec<(String, String)>,
    out: String,
    stack: Vec<Place>,
    waiting: Vec<HereDocument>,
}

/// Puts references in the place of marks.
pub(super) fn resolve(text: &str, values: &[Json]) -> Result<ShellText, TemplateError> {
    let mut resolver = Resolver {
        values,
        names: vec![None; values.len()],
        env: Vec::new(),
        out: String::with_capacity(text.len()),
        stack: vec![Place::Plain(None)],
        waiting: Vec::new(),
    };
    resolver.script(text)?;
    Ok(ShellText { script: resolver.out, env: resolver.env })
}

impl Resolver<'_> {
    fn script(&mut self, text: &str) -> Result<(), TemplateError> {
        let mut rest = text;
        // Whether a `#` here would begin a comment.
        let mut word_start = true;
        while let Some(c) = rest.chars().next() {
            let place = *self.stack.last().unwrap_or(&Place::Plain(None));
            if c == MARK {
                let (number, after) = mark(rest);
                self.value(number, place)?;
                rest = after;
                word_start = false;
                continue;
            }
            let mut take = c.len_utf8();
            match place {
                Place::Plain(closer) => {
                    take = self.plain(rest, c, closer, word_start);
                }
                Place::Double | Place::Brace | Place::Arithmetic => {
                    take = self.nested(rest, c, place);
                }
                Place::Single if c == '\'' => self.close(),
                Place::Ansi if c == '\\' => take = escaped(rest),
                Place::Ansi if c == '\'' => self.close(),
                Place::Comment if c == '\n' => self.close(),
                Place::Single | Place::Ansi | Place::Comment => {}
            }
            let taken = &rest[..take];
            self.out.push_str(taken);
            rest = &rest[take..];
            word_start = taken.ends_with(|c: char| c.is_whitespace() || "();&|`".contains(c));
            if c == '\n'
                && !self.waiting.is_empty()
                && matches!(place, Place::Plain(_) | Place::Comment)
            {
                for document in std::mem::take(&mut self.waiting) {
                    rest = self.here_document(rest, &document)?;
                }
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        if self.stack.len() > 1 {
            self.stack.pop();
        }
    }

    /// Reads unquoted text; returns how many bytes to copy.
    fn plain(&mut self, rest: &str, c: char, closer: Option<char>, word_start: bool) -> usize {
        match c {
            '\\' => return escaped(rest),
            '\'' => self.stack.push(Place::Single),
            '"' => self.stack.push(Place::Double),
            '#' if word_start => self.stack.push(Place::Comment),
            '$' => return self.dollar(rest, true),
            '`' if closer == Some('`') => self.close(),
            '`' => self.stack.push(Place::Plain(Some('`'))),
            '(' => self.stack.push(Place::Plain(Some(')'))),
            ')' if closer == Some(')') => self.close(),
            '<' if rest.starts_with("<<<") => return 3,
            '<' if rest.starts_with("<<") => {
                let (length, document) = here_operator(rest);
                self.waiting.extend(document);
                return length;
            }
            _ => {}
        }
        c.len_utf8()
    }

    /// Reads within double quotes, `${…}` or `$((…))`.
    fn nested(&mut self, rest: &str, c: char, place: Place) -> usize {
        match c {
            '\\' => return escaped(rest),
            '"' if place == Place::Double => self.close(),
            '"' => self.stack.push(Place::Double),
            '}' if place == Place::Brace => self.close(),
            ')' if place == Place::Arithmetic && rest.starts_with("))") => {
                self.close();
                return 2;
            }
            '(' if place == Place::Arithmetic => self.stack.push(Place::Plain(Some(')'))),
            '\'' if place == Place::Brace && !self.stack.contains(&Place::Double) => {
                self.stack.push(Place::Single);
            }
            '`' if self.stack.contains(&Place::Plain(Some('`'))) => {
                // The closing one of an outer pair: everything since belongs to it.
                while self.stack.pop() != Some(Place::Plain(Some('`'))) {}
            }
            '`' => self.stack.push(Place::Plain(Some('`'))),
            '$' => return self.dollar(rest, false),
            _ => {}
        }
        c.len_utf8()
    }

    fn dollar(&mut self, rest: &str, plain: bool) -> usize {
        let (place, length) = if rest.starts_with("$((") {
            (Place::Arithmetic, 3)
        } else if rest.starts_with("$(") {
            (Place::Plain(Some(')')), 2)
        } else if rest.starts_with("${") {
            (Place::Brace, 2)
        } else if plain && rest.starts_with("$'") {
            (Place::Ansi, 2)
        } else if rest.starts_with("$#") {
            return 2;
        } else {
            return 1;
        };
        self.stack.push(place);
        length
    }

    fn value(&mut self, number: usize, place: Place) -> Result<(), TemplateError> {
        let Some(value) = self.values.get(number) else { return Ok(()) };
        match place {
            Place::Comment => {}
            Place::Arithmetic => match value {
                Json::Number(n) => self.out.push_str(&n.to_string()),
                _ => {
                    return Err(TemplateError::new("only a number can stand inside $(( ))")
                        .hint("convert it with `| int`"));
                }
            },
            // An unquoted list is several words.
            Place::Plain(_) => {
                let names = self.variables(number)?;
                let words: Vec<String> = names.iter().map(|n| format!("\"${{{n}}}\"")).collect();
                self.out.push_str(&words.join(" "));
            }
            Place::Double | Place::Brace => {
                let name = self.variable(value)?;
                self.out.push_str(&format!("${{{name}}}"));
            }
            Place::Single => {
                let name = self.variable(value)?;
                self.out.push_str(&format!("'\"${{{name}}}\"'"));
            }
            Place::Ansi => {
                let name = self.variable(value)?;
                self.out.push_str(&format!("'\"${{{name}}}\"$'"));
            }
        }
        Ok(())
    }

    /// The variables of a value: one for each element of a list.
    fn variables(&mut self, number: usize) -> Result<Vec<String>, TemplateError> {
        if let Some(Some(names)) = self.names.get(number) {
            return Ok(names.clone());
        }
        let names = match &self.values[number] {
            Json::Array(items) => {
                items.iter().map(|item| self.variable(item)).collect::<Result<_, _>>()?
            }
            value => vec![self.variable(value)?],
        };
        self.names[number] = Some(names);
        Ok(self.names[number].clone().unwrap_or_default())
    }

    fn variable(&mut self, value: &Json) -> Result<String, TemplateError> {
        let text = as_text(value);
        if text.contains('\0') {
            return Err(TemplateError::new("a value with a NUL character cannot reach a shell"));
        }
        if text.len() > MAX_VALUE_BYTES {
            return Err(TemplateError::new(format!(
                "a value of {} bytes is too large for a shell script; at most {MAX_VALUE_BYTES}",
                text.len()
            ))
            .hint("write it to a file in the task before, and pass the path"));
        }
        let name = format!("KOBZA_VALUE_{}", self.env.len());
        self.env.push((name.clone(), text));
        Ok(name)
    }

    /// Copies the body of a here-document and returns what follows it.
    fn here_document<'t>(
        &mut self,
        text: &'t str,
        document: &HereDocument,
    ) -> Result<&'t str, TemplateError> {
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find('\n').map_or(rest.len(), |at| at + 1);
            let (line, after) = rest.split_at(end);
            rest = after;
            let bare = line.strip_suffix('\n').unwrap_or(line);
            let bare = if document.strip_tabs { bare.trim_start_matches('\t') } else { bare };
            if bare == document.delimiter {
                self.out.push_str(line);
                return Ok(rest);
            }
            if document.expands {
                self.expanding_line(line)?;
            } else {
                self.literal_line(line, document)?;
            }
        }
        Ok(rest)
    }

    fn expanding_line(&mut self, line: &str) -> Result<(), TemplateError> {
        let mut rest = line;
        while let Some(at) = rest.find(MARK) {
            self.out.push_str(&rest[..at]);
            let (number, after) = mark(&rest[at..]);
            self.value(number, Place::Double)?;
            rest = after;
        }
        self.out.push_str(rest);
        Ok(())
    }

    /// Nothing is expanded here, so the values themselves are written, and must not end the
    /// document.
    fn literal_line(&mut self, line: &str, document: &HereDocument) -> Result<(), TemplateError> {
        if !line.contains(MARK) {
            self.out.push_str(line);
            return Ok(());
        }
        let mut whole = String::new();
        let mut rest = line;
        while let Some(at) = rest.find(MARK) {
            whole.push_str(&rest[..at]);
            let (number, after) = mark(&rest[at..]);
            whole.push_str(&self.values.get(number).map(as_text).unwrap_or_default());
            rest = after;
        }
        whole.push_str(rest);
        let ends = whole.split('\n').any(|line| {
            let line = if document.strip_tabs { line.trim_start_matches('\t') } else { line };
            line == document.delimiter
        });
        if ends || whole.contains('\0') {
            return Err(TemplateError::new(
                "a value would end the here-document that it stands in",
            )
            .hint("do not quote the delimiter, or pass the value by `env`"));
        }
        self.out.push_str(&whole);
        Ok(())
    }
}

/// Number of the mark that `text` begins with, and the text after it.
pub(super) fn mark(text: &str) -> (usize, &str) {
    let body = &text[MARK.len_utf8()..];
    match body.split_once(MARK_END) {
        Some((number, after)) => (number.parse().unwrap_or(usize::MAX), after),
        None => (usize::MAX, body),
    }
}

/// Length of a backslash and what it escapes; a mark is no character and stays.
fn escaped(rest: &str) -> usize {
    match rest.chars().nth(1) {
        Some(c) if c != MARK => 1 + c.len_utf8(),
        _ => 1,
    }
}

/// Reads `<<` or `<<-` with its delimiter.
fn here_operator(rest: &str) -> (usize, Option<HereDocument>) {
    let strip_tabs = rest[2..].starts_with('-');
    let start = 2 + usize::from(strip_tabs);
    let blanks = rest[start..].len() - rest[start..].trim_start_matches([' ', '\t']).len();
    let mut delimiter = String::new();
    let mut expands = true;
    let mut quote = None;
    let mut at = start + blanks;
    let mut chars = rest[at..].chars().peekable();
    while let Some(&c) = chars.peek() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => delimiter.push(c),
            None if c == '\'' || c == '"' => {
                expands = false;
                quote = Some(c);
            }
            None if c == '\\' => {
                expands = false;
                chars.next();
                at += 1;
                if let Some(&next) = chars.peek() {
                    delimiter.push(next);
                }
            }
            None if c.is_whitespace() || ";&|<>()`".contains(c) || c == MARK => break,
            None => delimiter.push(c),
        }
        if let Some(c) = chars.next() {
            at += c.len_utf8();
        }
    }
    // `<<` followed by nothing is an arithmetic shift or an error of the author's.
    let document =
        (!delimiter.is_empty()).then_some(HereDocument { delimiter, expands, strip_tabs });
    (at, document)
}

/// A value as a text: texts as they are, null as nothing, lists and maps as JSON.
pub(super) fn as_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

/// Quotes a text so that a POSIX shell reads it as one word with exactly these characters.
#[must_use]
pub fn quote(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
