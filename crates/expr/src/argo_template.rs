//! Substitution of `{{tag}}` and `{{=expression}}` in texts.
//!
//! Texts are those of an already parsed document, so a value can never break out of the string that
//! it is put into. What a tag is replaced with is not looked at again: a value with `{{` in it stays
//! as it is. Only the name of a tag may itself hold tags (`{{inputs.parameters.{{item}}}}`), which
//! are replaced from the inside out.

use serde_json::Value as Json;

use crate::argo_expr::{self, Env, Program, Value};

/// Deepest nesting of tags in the name of a tag.
const NESTING_MAX: usize = 16;
/// Largest text that substitution makes.
pub const TEXT_BYTES_MAX: usize = 64 << 20;

/// What a variable is, where a tag is substituted.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    Text(String),
    /// Its producer was skipped or omitted and states no default.
    Absent,
    /// Not a variable here; perhaps one of a later phase.
    Unknown,
}

/// The variables that a text may refer to.
pub trait Variables {
    /// The value of a tag by its exact name.
    fn find(&self, name: &str) -> Found;

    /// What an expression sees when it reads these paths: at least the variables at, above and
    /// below them. `None` when one is of a later phase, so that the tag must stay.
    fn env(&self, paths: &[Vec<String>]) -> Option<Env>;

    /// Whether a tag of this name must be known now rather than left for a later phase.
    fn must_know(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

/// Why a text could not be substituted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("failed to resolve {{{{{0}}}}}")]
    Unresolved(String),
    #[error(
        "failed to resolve {{{{{0}}}}}: the producing node was skipped or omitted and its output \
         has no default"
    )]
    Absent(String),
    #[error("failed to evaluate expression {{{{={tag}}}}}: {error}")]
    Expression { tag: String, error: argo_expr::Error },
    #[error("the substituted text is too large")]
    TooLarge,
    #[error("tags are nested too deeply")]
    TooDeep,
}

/// Replaces the tags of a text.
pub fn substitute(text: &str, variables: &dyn Variables) -> Result<String, Error> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    expand(text, variables, &mut out, 0)?;
    Ok(out)
}

/// Replaces the tags of every string of a document, keys included.
pub fn substitute_json(document: &Json, variables: &dyn Variables) -> Result<Json, Error> {
    Ok(match document {
        Json::String(text) => Json::String(substitute(text, variables)?),
        Json::Array(items) => {
            let items: Result<Vec<_>, _> =
                items.iter().map(|item| substitute_json(item, variables)).collect();
            Json::Array(items?)
        }
        Json::Object(entries) => {
            let mut out = serde_json::Map::with_capacity(entries.len());
            for (key, value) in entries {
                out.insert(substitute(key, variables)?, substitute_json(value, variables)?);
            }
            Json::Object(out)
        }
        other => other.clone(),
    })
}

/// The variable that a text refers to when it is nothing but one reference: `{{a.b}}` or
/// `{{=a['b']}}`.
#[must_use]
pub fn pure_reference(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = text.strip_prefix("{{")?.strip_suffix("}}")?;
    if let Some(expression) = inner.strip_prefix('=') {
        return Some(Program::parse(expression).ok()?.reference()?.join("."));
    }
    (!inner.contains("{{") && !inner.contains("}}")).then(|| inner.trim().to_owned())
}

/// The tags of a text, outermost ones, as they are written between the braces.
#[must_use]
pub fn tags(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let after = &rest[start + 2..];
        let Some(end) = end_of(after) else { break };
        found.push(&after[..end]);
        rest = &after[end + 2..];
    }
    found
}

/// Where the tag that begins here ends.
fn end_of(after: &str) -> Option<usize> {
    if let Some(expression) = after.strip_prefix('=') {
        // An expression may have braces of its own: take the first end at which it parses.
        let first = expression.find("}}")?;
        let mut end = first;
        for _ in 0..32 {
            if Program::parse(&expression[..end]).is_ok() {
                return Some(end + 1);
            }
            match expression[end + 1..].find("}}") {
                Some(next) => end += 1 + next,
                None => break,
            }
        }
        return Some(first + 1);
    }
    let mut depth = 0;
    let mut at = 0;
    while let Some(next) = after[at..].find(['{', '}']) {
        at += next;
        let rest = &after[at..];
        if rest.starts_with("{{") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("}}") {
            if depth == 0 {
                return Some(at);
            }
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
    }
    // Not closed as nested: the first end closes the first tag.
    after.find("}}")
}

fn push(out: &mut String, text: &str) -> Result<(), Error> {
    if out.len() + text.len() > TEXT_BYTES_MAX {
        return Err(Error::TooLarge);
    }
    out.push_str(text);
    Ok(())
}

fn expand(
    text: &str,
    variables: &dyn Variables,
    out: &mut String,
    depth: usize,
) -> Result<(), Error> {
    if depth > NESTING_MAX {
        return Err(Error::TooDeep);
    }
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        push(out, &rest[..start])?;
        let after = &rest[start + 2..];
        let Some(end) = end_of(after) else {
            return push(out, &rest[start..]);
        };
        let tag = &after[..end];
        match tag.strip_prefix('=') {
            Some(expression) => push(out, &evaluate(expression, variables)?)?,
            None => simple(tag, variables, out, depth)?,
        }
        rest = &after[end + 2..];
    }
    push(out, rest)
}

fn simple(
    tag: &str,
    variables: &dyn Variables,
    out: &mut String,
    depth: usize,
) -> Result<(), Error> {
    let mut name = tag.to_owned();
    if tag.contains("{{") {
        let mut inner = String::new();
        expand(tag, variables, &mut inner, depth + 1)?;
        name = inner;
    }
    let name = name.trim();
    match variables.find(name) {
        Found::Text(value) => push(out, &value),
        Found::Absent => Err(Error::Absent(name.to_owned())),
        Found::Unknown if variables.must_know(name) => Err(Error::Unresolved(name.to_owned())),
        Found::Unknown => {
            push(out, "{{")?;
            push(out, if tag.contains("{{") { name } else { tag })?;
            push(out, "}}")
        }
    }
}

/// The text that replaces an expression's tag; the tag itself while it must wait.
fn evaluate(expression: &str, variables: &dyn Variables) -> Result<String, Error> {
    let fail = |error| Error::Expression { tag: expression.trim().to_owned(), error };
    let program = Program::parse(expression).map_err(fail)?;
    let Some(env) = variables.env(&program.variables()) else {
        return Ok(format!("{{{{={expression}}}}}"));
    };
    match program.eval(&env).map_err(fail)? {
        Value::Nil => match program.reference() {
            Some(path) => Err(Error::Absent(path.join("."))),
            None => Err(fail(argo_expr::Error::Evaluation("the result is nil".to_owned()))),
        },
        value => Ok(value.to_text()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Table(BTreeMap<String, String>);

    impl Table {
        fn new(entries: &[(&str, &str)]) -> Self {
            Self(entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        }
    }

    impl Variables for Table {
        fn find(&self, name: &str) -> Found {
            match self.0.get(name) {
                Some(value) => Found::Text(value.clone()),
                None if name.contains(".gone.") => Found::Absent,
                None => Found::Unknown,
            }
        }

        fn env(&self, paths: &[Vec<String>]) -> Option<Env> {
            if paths.iter().any(|p| p[0] == "retries" && !self.0.contains_key("retries")) {
                return None;
            }
            Some(Env::from_dotted(self.0.iter().map(|(k, v)| (k.as_str(), Value::str(v)))))
        }

        fn must_know(&self, name: &str) -> bool {
            name.starts_with("tasks.")
        }
    }

    fn table() -> Table {
        Table::new(&[
            ("a", "1"),
            ("inputs.parameters.x", "say \"hi\"\n"),
            ("inputs.parameters.list", "[1,2]"),
            ("which", "x"),
            ("evil", "{{a}}"),
        ])
    }

    #[test]
    fn golden() {
        for (text, wanted) in [
            ("no tags", "no tags"),
            ("{{a}}{{ a }}", "11"),
            ("<{{inputs.parameters.x}}>", "<say \"hi\"\n>"),
            ("{{inputs.parameters.{{which}}}}", "say \"hi\"\n"),
            ("{{evil}}", "{{a}}"),
            ("{{unknown}} {{ later }}", "{{unknown}} {{ later }}"),
            ("{{unknown.{{a}}}}", "{{unknown.1}}"),
            ("{{=asInt(a) + 1}}", "2"),
            ("{{=a}}", "1"),
            ("{{=inputs.parameters[\"x\"]}}", "say \"hi\"\n"),
            ("{{=map([1], {{k: #}}) | len()}}!", "1!"),
            ("{{=toJson(filter([1, 3], {# > 1}))}}", "[3]"),
            ("{{=sprig.int(retries)}}", "{{=sprig.int(retries)}}"),
            ("{\"k\": {{a}}}", "{\"k\": 1}"),
            ("{{", "{{"),
            ("{{a", "{{a"),
            ("}} {{a}} }}", "}} 1 }}"),
        ] {
            assert_eq!(substitute(text, &table()).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn refusals() {
        let fails = |text: &str| substitute(text, &table()).expect_err(text).to_string();
        assert_eq!(
            fails("{{tasks.x.outputs.result}}"),
            "failed to resolve {{tasks.x.outputs.result}}"
        );
        assert!(fails("{{tasks.gone.outputs}}").contains("skipped or omitted"));
        assert!(fails("{{=nonsense(}}").contains("failed to evaluate"));
        assert!(fails("{{=inputs.parameters.missing}}").contains("skipped or omitted"));
        assert!(
            fails(
                &"{{"
                    .repeat(40)
                    .replace("{{", "{{a")
                    .chars()
                    .chain("}}".repeat(40).chars())
                    .collect::<String>()
            )
            .contains("too deeply")
        );
    }

    #[test]
    fn references() {
        assert_eq!(
            pure_reference(" {{ tasks.a.outputs.result }} ").as_deref(),
            Some("tasks.a.outputs.result")
        );
        assert_eq!(
            pure_reference("{{=tasks['a'].outputs.result}}").as_deref(),
            Some("tasks.a.outputs.result")
        );
        assert_eq!(pure_reference("{{a}}{{b}}"), None);
        assert_eq!(pure_reference("x{{a}}"), None);
        assert_eq!(tags("a {{b}} {{=c}} {{d.{{e}}}}"), ["b", "=c", "d.{{e}}"]);
    }

    proptest! {
        /// Whatever a value holds arrives unchanged, and nothing in it is expanded.
        #[test]
        fn values_arrive_unchanged(value in "[a-z{}=\\\\\"'\n ]{0,40}", before in "[a-z ]{0,5}") {
            let table = Table::new(&[("v", &value), ("a", "1")]);
            let text = substitute(&format!("{before}{{{{v}}}}"), &table);
            prop_assert_eq!(text, Ok(format!("{before}{value}")));
        }

        #[test]
        fn no_text_panics(text in "[a={}.\\[\\]'()| ]{0,60}") {
            let _ = substitute(&text, &table());
            let _ = tags(&text);
            let _ = pure_reference(&text);
        }
    }
}
