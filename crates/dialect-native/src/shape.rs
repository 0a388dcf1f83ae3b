//! What a definition may look like, as data: the parser's checks and the published JSON Schema
//! both come from it.

use std::collections::BTreeMap;

use kobza_model::{Json, validate_asset, validate_name};
use serde_json::{Map, json};

use crate::diagnostic::{shown, suggest};
use crate::document::{Key, Located, Tree};
use crate::quantity::{parse_duration_ms, parse_size};

/// The form of a value.
pub(crate) enum Shape {
    /// Any value.
    Any,
    /// Nothing: `key:` without a value.
    Null,
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    Number {
        min: f64,
        max: f64,
    },
    Text,
    /// A text, a number or a truth value.
    Scalar,
    Name,
    Asset,
    /// Such as `90`, `30s`, `1h30m`.
    Duration,
    /// Bytes, such as `512MiB`.
    Size,
    /// One of these texts.
    Word(&'static [&'static str]),
    List(&'static Shape),
    /// Names of the author's to values of one form.
    Map(&'static Shape),
    /// Any mapping.
    Mapping,
    Object(&'static Object),
    OneOf(&'static [Shape]),
}

/// A mapping with known fields.
pub(crate) struct Object {
    /// Its name in the schema.
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) fields: &'static [Field],
    /// Exactly one of these fields must be there, if there are any.
    pub(crate) one_of: &'static [&'static str],
}

pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) doc: &'static str,
    pub(crate) required: bool,
    /// Of the object's `one_of`, those with which it makes sense; empty: all.
    pub(crate) only: &'static [&'static str],
}

/// Something wrong at a place; the file is added by the caller.
pub(crate) struct Finding {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) field: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Finding {
    pub(crate) fn at(value: &Located, field: &str, message: impl Into<String>) -> Self {
        Self {
            line: value.line,
            column: value.column,
            field: field.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn at_key(key: &Key, field: &str, message: impl Into<String>) -> Self {
        Self {
            line: key.line,
            column: key.column,
            field: field.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

const NAME_HINT: &str = "letters, digits, `-`, `_` and spaces within are fine";

/// A field's path below `parent`.
pub(crate) fn below(parent: &str, name: &str) -> String {
    let name = shown(name);
    if parent.is_empty() { name } else { format!("{parent}.{name}") }
}

impl Shape {
    /// Reports everything about `value` that does not have this form.
    pub(crate) fn check(&self, value: &Located, path: &str, out: &mut Vec<Finding>) {
        let wrong = |out: &mut Vec<Finding>| {
            let message = format!("expected {}, found {}", self.describe(), value.describe());
            out.push(Finding::at(value, path, message).maybe_hint(self.hint(value)));
        };
        match (self, &value.tree) {
            (Self::Any, _)
            | (Self::Null, Tree::Null)
            | (Self::Bool, Tree::Bool(_))
            | (Self::Text, Tree::Text(_))
            | (Self::Scalar, Tree::Text(_) | Tree::Number(_) | Tree::Bool(_)) => {}
            (Self::Integer { min, max }, Tree::Number(number)) => match number.as_i64() {
                Some(n) if (*min..=*max).contains(&n) => {}
                _ => wrong(out),
            },
            (Self::Number { min, max }, Tree::Number(number)) => match number.as_f64() {
                Some(n) if (*min..=*max).contains(&n) => {}
                _ => wrong(out),
            },
            (Self::Name, Tree::Text(text)) => {
                if let Err(error) = validate_name(text) {
                    out.push(Finding::at(value, path, error.to_string()).hint(NAME_HINT));
                }
            }
            (Self::Asset, Tree::Text(text)) => {
                if let Err(error) = validate_asset(text) {
                    out.push(
                        Finding::at(value, path, error.to_string())
                            .hint("an asset's name looks like `warehouse/orders`"),
                    );
                }
            }
            (Self::Duration, Tree::Text(_) | Tree::Number(_)) => {
                if parse_duration_ms(value).is_none() {
                    wrong(out);
                }
            }
            (Self::Size, Tree::Text(_) | Tree::Number(_)) => {
                if parse_size(value).is_none() {
                    wrong(out);
                }
            }
            (Self::Word(words), Tree::Text(text)) => {
                if !words.contains(&text.as_str()) {
                    let message = format!("`{}` is not known here", shown(text));
                    let hint = suggest(text, words.iter().copied());
                    out.push(Finding::at(value, path, message).maybe_hint(hint));
                }
            }
            (Self::List(shape), Tree::List(items)) => {
                for (place, item) in items.iter().enumerate() {
                    shape.check(item, &format!("{path}[{place}]"), out);
                }
            }
            (Self::Map(shape), Tree::Map(fields)) => {
                duplicates(fields, path, out);
                for (key, item) in fields {
                    let path = below(path, &key.text);
                    if let Err(error) = validate_name(&key.text) {
                        out.push(Finding::at_key(key, &path, error.to_string()).hint(NAME_HINT));
                    }
                    shape.check(item, &path, out);
                }
            }
            (Self::Mapping, Tree::Map(fields)) => deep_duplicates(fields, path, out),
            (Self::Object(object), Tree::Map(fields)) => object.check(value, fields, path, out),
            (Self::OneOf(shapes), _) => check_one_of(shapes, value, path, out, wrong),
            _ => wrong(out),
        }
        if matches!(self, Self::Any)
            && let Tree::Map(fields) = &value.tree
        {
            deep_duplicates(fields, path, out);
        }
    }

    /// Whether a value is at least of the right kind.
    fn fits(&self, value: &Located) -> bool {
        match (self, &value.tree) {
            (Self::OneOf(shapes), _) => shapes.iter().any(|s| s.fits(value)),
            (Self::Any, _)
            | (Self::Null, Tree::Null)
            | (Self::Bool, Tree::Bool(_))
            | (Self::Integer { .. } | Self::Number { .. }, Tree::Number(_))
            | (Self::Text | Self::Name | Self::Asset | Self::Word(_), Tree::Text(_))
            | (Self::Duration | Self::Size, Tree::Text(_) | Tree::Number(_))
            | (Self::Scalar, Tree::Text(_) | Tree::Number(_) | Tree::Bool(_))
            | (Self::List(_), Tree::List(_))
            | (Self::Map(_) | Self::Mapping | Self::Object(_), Tree::Map(_)) => true,
            _ => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Any => "a value".to_owned(),
            Self::Null => "nothing".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Integer { min, max: i64::MAX } => format!("a whole number from {min}"),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Number { min, max } => format!("a number from {min} to {max}"),
            Self::Text => "a text".to_owned(),
            Self::Scalar => "a text or a number".to_owned(),
            Self::Name => "a name".to_owned(),
            Self::Asset => "the name of an asset".to_owned(),
            Self::Duration => "a duration such as 30s, 5m or 1h30m".to_owned(),
            Self::Size => "a size such as 512MiB".to_owned(),
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) | Self::Mapping => "a mapping".to_owned(),
            Self::Object(object) => format!("a mapping ({})", object.name),
            Self::OneOf(shapes) => {
                let mut all: Vec<String> = shapes.iter().map(Self::describe).collect();
                all.dedup();
                match all.pop() {
                    Some(last) if !all.is_empty() => format!("{} or {last}", all.join(", ")),
                    last => last.unwrap_or_default(),
                }
            }
        }
    }

    fn hint(&self, value: &Located) -> Option<String> {
        match (self, &value.tree) {
            (Self::Text | Self::Name, Tree::Number(_) | Tree::Bool(_)) => {
                Some("put quotes around it".to_owned())
            }
            (Self::Bool, Tree::Text(text)) if matches!(text.as_str(), "yes" | "on" | "True") => {
                Some("write `true`".to_owned())
            }
            (Self::Bool, Tree::Text(text)) if matches!(text.as_str(), "no" | "off") => {
                Some("write `false`".to_owned())
            }
            (Self::Integer { .. } | Self::Number { .. }, Tree::Text(text))
                if text.parse::<f64>().is_ok() =>
            {
                Some("remove the quotes".to_owned())
            }
            (_, Tree::Null) => Some("give it a value or remove the line".to_owned()),
            (Self::List(_), _) => Some("begin each item with `- `".to_owned()),
            (Self::Duration, Tree::Text(_)) => Some("units are ms, s, m, h, d and w".to_owned()),
            (Self::Map(_), Tree::List(_)) => {
                Some("write `name: value` lines instead of list items".to_owned())
            }
            _ => None,
        }
    }
}

/// Checks against the alternative that the value's kind selects.
fn check_one_of(
    shapes: &[Shape],
    value: &Located,
    path: &str,
    out: &mut Vec<Finding>,
    wrong: impl Fn(&mut Vec<Finding>),
) {
    let fitting: Vec<&Shape> = shapes.iter().filter(|s| s.fits(value)).collect();
    let mut first = None;
    for shape in &fitting {
        let mut found = Vec::new();
        shape.check(value, path, &mut found);
        if found.is_empty() {
            return;
        }
        first.get_or_insert(found);
    }
    match first {
        Some(found) if fitting.len() == 1 || value.is_map() || value.is_list() => out.extend(found),
        _ => wrong(out),
    }
}

fn duplicates(fields: &[(Key, Located)], path: &str, out: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, &Key> = BTreeMap::new();
    for (key, _) in fields {
        if let Some(first) = seen.get(key.text.as_str()) {
            let message = format!("`{}` is given twice", shown(&key.text));
            out.push(
                Finding::at_key(key, &below(path, &key.text), message)
                    .hint(format!("it stands in line {} already; remove one", first.line)),
            );
        } else {
            seen.insert(&key.text, key);
        }
    }
}

fn deep_duplicates(fields: &[(Key, Located)], path: &str, out: &mut Vec<Finding>) {
    duplicates(fields, path, out);
    for (key, value) in fields {
        deep(value, &below(path, &key.text), out);
    }
    fn deep(value: &Located, path: &str, out: &mut Vec<Finding>) {
        match &value.tree {
            Tree::Map(fields) => deep_duplicates(fields, path, out),
            Tree::List(items) => {
                for (place, item) in items.iter().enumerate() {
                    deep(item, &format!("{path}[{place}]"), out);
                }
            }
            _ => {}
        }
    }
}

impl Object {
    fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    fn check(
        &self,
        value: &Located,
        fields: &[(Key, Located)],
        path: &str,
        out: &mut Vec<Finding>,
    ) {
        duplicates(fields, path, out);
        let given: Vec<&str> = self
            .one_of
            .iter()
            .copied()
            .filter(|name| fields.iter().any(|(key, _)| key.text == *name))
            .collect();
        for (key, item) in fields {
            let path = below(path, &key.text);
            let Some(field) = self.field(&key.text) else {
                let hint = suggest(&key.text, self.fields.iter().map(|f| f.name));
                let message = format!("unknown field of {}", self.doc);
                out.push(Finding::at_key(key, &path, message).maybe_hint(hint));
                continue;
            };
            if let [kind] = given[..]
                && !field.only.is_empty()
                && !field.only.contains(&kind)
            {
                let message = format!("means nothing for `{kind}`");
                let hint = format!("it belongs to {}", field.only.join(", "));
                out.push(Finding::at_key(key, &path, message).hint(hint));
            }
            field.shape.check(item, &path, out);
        }
        for field in self.fields.iter().filter(|f| f.required) {
            if !fields.iter().any(|(key, _)| key.text == field.name) {
                out.push(
                    Finding::at(value, path, format!("`{}` is missing", field.name))
                        .hint(format!("add `{}: …`: {}", field.name, field.doc)),
                );
            }
        }
        if self.one_of.is_empty() {
            return;
        }
        match given[..] {
            [_] => {}
            // A misspelt one has its own message already.
            [] if fields.iter().any(|(key, _)| self.field(&key.text).is_none()) => {}
            [] => out.push(
                Finding::at(value, path, format!("{} does not say what it is", self.doc))
                    .hint(format!("give one of {}", self.one_of.join(", "))),
            ),
            [first, second, ..] => out.push(
                Finding::at(value, path, format!("has both `{first}` and `{second}`"))
                    .hint(format!("give exactly one of {}", self.one_of.join(", "))),
            ),
        }
    }

    fn schema(&'static self, defs: &mut Map<String, Json>) {
        if defs.contains_key(self.name) {
            return;
        }
        // Objects may hold themselves: the name is taken before the fields are looked at.
        defs.insert(self.name.to_owned(), Json::Null);
        let mut properties = Map::new();
        let mut dependent = Map::new();
        for field in self.fields {
            let mut schema = field.shape.schema(defs);
            if let Some(object) = schema.as_object_mut() {
                object.insert("description".to_owned(), json!(field.doc));
            }
            properties.insert(field.name.to_owned(), schema);
            if !field.only.is_empty() {
                let any: Vec<Json> =
                    field.only.iter().map(|kind| json!({"required": [kind]})).collect();
                dependent.insert(field.name.to_owned(), json!({"anyOf": any}));
            }
        }
        let mut schema = json!({
            "type": "object",
            "description": self.doc,
            "properties": properties,
            "additionalProperties": false,
        });
        let required: Vec<&str> =
            self.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if !self.one_of.is_empty() {
            let one: Vec<Json> =
                self.one_of.iter().map(|name| json!({"required": [name]})).collect();
            schema["oneOf"] = json!(one);
        }
        if !dependent.is_empty() {
            schema["dependentSchemas"] = Json::Object(dependent);
        }
        defs.insert(self.name.to_owned(), schema);
    }
}

/// No `/`, `\` or control characters, no space at either end.
const NAME_PATTERN: &str = r"^[^/\\\x00-\x1f\x7f\s]([^/\\\x00-\x1f\x7f]*[^/\\\x00-\x1f\x7f\s])?$";
const DURATION_PATTERN: &str =
    r"^\s*([0-9]+|([0-9]+\s*(ms|s|m|h|d|w)\s*)+|[Pp][0-9DdTtHhMmSsWw.]+)\s*$";
const SIZE_PATTERN: &str = r"^\s*[0-9]+\s*([KMGT]i?)?B?\s*$";

impl Shape {
    pub(crate) fn schema(&self, defs: &mut Map<String, Json>) -> Json {
        match self {
            Self::Any => json!({}),
            Self::Null => json!({"type": "null"}),
            Self::Bool => json!({"type": "boolean"}),
            Self::Integer { min, max: i64::MAX } => json!({"type": "integer", "minimum": min}),
            Self::Integer { min, max } => {
                json!({"type": "integer", "minimum": min, "maximum": max})
            }
            Self::Number { min, max } => json!({"type": "number", "minimum": min, "maximum": max}),
            Self::Text => json!({"type": "string"}),
            Self::Scalar => json!({"type": ["string", "number", "boolean"]}),
            Self::Name => json!({
                "type": "string", "maxLength": kobza_model::MAX_NAME_CHARS, "pattern": NAME_PATTERN,
            }),
            Self::Asset => json!({"type": "string", "minLength": 1,
                "maxLength": kobza_model::MAX_NAME_CHARS}),
            Self::Duration => json!({"type": ["string", "integer"], "pattern": DURATION_PATTERN,
                "minimum": 1}),
            Self::Size => json!({"type": ["string", "integer"], "pattern": SIZE_PATTERN,
                "minimum": 1}),
            Self::Word(words) => json!({"enum": words}),
            Self::List(item) => json!({"type": "array", "items": item.schema(defs)}),
            Self::Map(item) => json!({
                "type": "object",
                "propertyNames": {"maxLength": kobza_model::MAX_NAME_CHARS, "pattern": NAME_PATTERN},
                "additionalProperties": item.schema(defs),
            }),
            Self::Mapping => json!({"type": "object"}),
            Self::Object(object) => {
                object.schema(defs);
                json!({"$ref": format!("#/$defs/{}", object.name)})
            }
            Self::OneOf(shapes) => {
                let all: Vec<Json> = shapes.iter().map(|s| s.schema(defs)).collect();
                json!({"anyOf": all})
            }
        }
    }
}
