//! `kobza.toml`: each mistake is told with its line and column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Source;
use super::table::{Form, OUTBOUND, SETTINGS, Setting};
use super::value::{Value, Wrong};
use crate::failure::Failure;

/// What a file says.
pub(super) struct Read {
    pub(super) values: BTreeMap<&'static str, (Value, Source)>,
    pub(super) outbound: kobza_outbound::Config,
}

/// A text with its name, for places in it.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    /// Line and column of a byte, from 1.
    fn place(&self, byte: usize) -> (u32, usize) {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), column)
    }

    fn says(&self, byte: usize, message: &str) -> String {
        let (line, column) = self.place(byte);
        format!("{}:{line}:{column}: {message}", self.path.display())
    }

    fn wrong(&self, byte: usize, key: &str, wrong: Wrong) -> Failure {
        Failure::hint(self.says(byte, &format!("{key}: {}", wrong.message)), wrong.hint)
    }

    fn toml(&self, error: &toml::de::Error) -> Failure {
        let start = error.span().map_or(0, |span| span.start);
        let message = error.message().replace('\n', "; ");
        Failure::hint(self.says(start, &message), "the file is TOML: https://toml.io")
    }
}

pub(super) fn read(path: &Path) -> Result<Read, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let file = File { path, text: &text };
    let document = DeTable::parse(&text).map_err(|e| file.toml(&e))?;
    let mut whole = document.into_inner();
    let mut going_out = DeTable::new();
    for name in OUTBOUND {
        if let Some((key, value)) = whole.remove_entry(name) {
            going_out.insert(key, value);
        }
    }
    let going_out = toml::Deserializer::from(Spanned::new(0..text.len(), going_out));
    let outbound = serde::Deserialize::deserialize(going_out).map_err(|e| file.toml(&e))?;
    kobza_outbound::Config::check(&outbound)
        .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let mut values = BTreeMap::new();
    table(&file, "", &whole, &mut values)?;
    Ok(Read { values, outbound })
}

fn table(
    file: &File<'_>,
    above: &str,
    content: &DeTable<'_>,
    values: &mut BTreeMap<&'static str, (Value, Source)>,
) -> Result<(), Failure> {
    for (name, value) in content {
        let key = if above.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{above}.{}", name.get_ref())
        };
        let at = value.span().start;
        if let Some(setting) = SETTINGS.iter().find(|s| s.key == key) {
            let read = typed(file, setting, value).map_err(|(at, e)| file.wrong(at, &key, e))?;
            let line = file.place(name.span().start).0;
            values.insert(setting.key, (read, Source::File(file.path.to_owned(), line)));
        } else if SETTINGS.iter().any(|s| s.key.starts_with(&format!("{key}."))) {
            let DeValue::Table(inner) = value.get_ref() else {
                let hint = format!("write [{key}] on a line of its own, and its settings below");
                return Err(file.wrong(
                    at,
                    &key,
                    Wrong { message: "a table is wanted".into(), hint },
                ));
            };
            table(file, &key, inner, values)?;
        } else {
            let message = "there is no such setting".to_owned();
            return Err(file.wrong(name.span().start, &key, Wrong { message, hint: near(&key) }));
        }
    }
    Ok(())
}

/// The setting that may have been meant.
fn near(key: &str) -> String {
    let close = |own: &str| {
        let same = own.chars().zip(key.chars()).take_while(|(a, b)| a == b).count();
        same * 2 > key.len()
    };
    match SETTINGS.iter().map(|s| s.key).find(|own| close(own)) {
        Some(own) => format!("did you mean {own}?"),
        None => {
            let all: Vec<&str> = SETTINGS.iter().map(|s| s.key).chain(OUTBOUND).collect();
            format!("there are {}", all.join(", "))
        }
    }
}

/// A value of the form that its setting wants, or where and what is wrong with it.
fn typed(
    file: &File<'_>,
    setting: &Setting,
    value: &Spanned<DeValue<'_>>,
) -> Result<Value, (usize, Wrong)> {
    let at = value.span().start;
    let found = value.get_ref();
    let wanted = |what: &str| {
        let message = format!("{what} is wanted");
        (at, Wrong { message, hint: format!("this is {}", article(found.type_str())) })
    };
    match (setting.form, found) {
        (Form::Number(least, most), DeValue::Integer(number)) => {
            let number = i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| wanted("a smaller number"))?;
            Value::from_number(number, least, most).map_err(|e| (at, e))
        }
        (Form::Number(..), _) => Err(wanted("a whole number")),
        (Form::List, DeValue::Array(items)) => {
            let mut all = Vec::new();
            for item in items.iter() {
                let DeValue::String(text) = item.get_ref() else {
                    let hint = format!("this is {}", article(item.get_ref().type_str()));
                    return Err((
                        item.span().start,
                        Wrong { message: "a text is wanted".to_owned(), hint },
                    ));
                };
                all.push(text.to_string());
            }
            Ok(Value::List(all))
        }
        (Form::List, _) => Err(wanted("a list of texts")),
        (Form::Path, DeValue::String(text)) => {
            Value::from_text(Form::Path, text).map_err(|e| (at, e))?;
            Ok(Value::Path(from_folder(file.path, text)))
        }
        (form, DeValue::String(text)) => Value::from_text(form, text).map_err(|e| (at, e)),
        _ => Err(wanted("a text")),
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

fn from_folder(file: &Path, path: &str) -> PathBuf {
    file.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
}
