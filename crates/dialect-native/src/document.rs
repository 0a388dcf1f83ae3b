//! YAML and JSON documents as trees that know where everything stands.

use std::fmt;
use std::io::Read as _;
use std::path::Path;

use kobza_model::Json;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::diagnostic::{Diagnostic, shown};

/// Largest definition accepted, in bytes. Real ones have kilobytes; this leaves room for generated
/// ones and refuses what is no definition before it costs memory.
pub const MAX_SOURCE_BYTES: usize = 16 << 20;
/// Parts that aliases may repeat, in all.
const MAX_REPLAYED: usize = 100_000;
/// Longest key of a mapping: the limit of YAML itself.
const MAX_KEY_CHARS: usize = 1024;

/// Deepest nesting accepted.
const MAX_DEPTH: usize = 64;
/// Stack for the parser, which recurses: enough for `MAX_DEPTH` however it was compiled, and
/// whatever stack the caller has left.
const PARSER_STACK_BYTES: usize = 32 << 20;
/// Most values in one document, aliases followed.
const MAX_NODES: usize = 500_000;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located {
    pub(crate) tree: Tree,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Located>),
    Map(Vec<(Key, Located)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Located {
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.fields().iter().find(|(k, _)| k.text == key).map(|(_, value)| value)
    }

    pub(crate) fn fields(&self) -> &[(Key, Self)] {
        match &self.tree {
            Tree::Map(fields) => fields,
            _ => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Self] {
        match &self.tree {
            Tree::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.tree, Tree::Map(_))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.tree, Tree::List(_))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.tree {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match self.tree {
            Tree::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        match &self.tree {
            Tree::Number(number) => number.as_i64(),
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match &self.tree {
            Tree::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// A text, or a number or truth value as its text.
    pub(crate) fn scalar(&self) -> Option<String> {
        match &self.tree {
            Tree::Text(text) => Some(text.clone()),
            Tree::Number(number) => Some(number.to_string()),
            Tree::Bool(value) => Some(value.to_string()),
            _ => None,
        }
    }

    pub(crate) fn json(&self) -> Json {
        match &self.tree {
            Tree::Null => Json::Null,
            Tree::Bool(value) => Json::Bool(*value),
            Tree::Number(number) => Json::Number(number.clone()),
            Tree::Text(text) => Json::String(text.clone()),
            Tree::List(items) => Json::Array(items.iter().map(Self::json).collect()),
            Tree::Map(fields) => {
                Json::Object(fields.iter().map(|(k, v)| (k.text.clone(), v.json())).collect())
            }
        }
    }

    /// What it is, in the words of messages.
    pub(crate) fn describe(&self) -> String {
        match &self.tree {
            Tree::Null => "nothing".to_owned(),
            Tree::Bool(value) => format!("`{value}`"),
            Tree::Number(number) => format!("the number {number}"),
            Tree::Text(text) => format!("the text \"{}\"", shown(text)),
            Tree::List(_) => "a list".to_owned(),
            Tree::Map(_) => "a mapping".to_owned(),
        }
    }

    /// The value a JSON pointer leads to, or the nearest one above it.
    pub(crate) fn pointer<'a, 'p>(&'a self, segments: impl Iterator<Item = &'p str>) -> &'a Self {
        let mut here = self;
        for segment in segments {
            let next = match &here.tree {
                Tree::Map(_) => here.get(segment),
                Tree::List(items) => segment.parse::<usize>().ok().and_then(|i| items.get(i)),
                _ => None,
            };
            match next {
                Some(next) => here = next,
                None => break,
            }
        }
        here
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

fn located(spanned: Spanned<Tree>) -> Located {
    let (line, column) = place(&spanned.referenced);
    Located { tree: spanned.value, line, column }
}

fn place(location: &serde_saphyr::Location) -> (u32, u32) {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (number(location.line()), number(location.column()))
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<Tree, E> {
        Err(E::custom("the number is too large; write it as a text, in quotes"))
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<Tree, E> {
        Err(E::custom("the number is too large; write it as a text, in quotes"))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        serde_json::Number::from_f64(value)
            .map(Tree::Number)
            .ok_or_else(|| E::custom("infinity and NaN are no numbers here"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Tree>>()? {
            items.push(located(item));
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let (line, column) = place(&key.referenced);
            let value = located(access.next_value::<Spanned<Tree>>()?);
            fields.push((Key { text: key.value, line, column }, value));
        }
        Ok(Tree::Map(fields))
    }
}

/// Reads a definition's bytes, checking first that they can be one.
pub fn read_file(path: &Path) -> Result<String, Vec<Diagnostic>> {
    let name = path.display().to_string();
    let refused = |message: String, hint: Option<&str>| {
        vec![Diagnostic {
            file: name.clone(),
            line: 1,
            column: 1,
            field: String::new(),
            message,
            hint: hint.map(str::to_owned),
        }]
    };
    let cannot = |e: std::io::Error| refused(format!("cannot be read: {e}"), None);
    let file = std::fs::File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        return Err(refused("is a folder".to_owned(), Some("name a file in it")));
    }
    if metadata.len() > MAX_SOURCE_BYTES as u64 {
        return Err(vec![too_large(&name, metadata.len())]);
    }
    let mut bytes = Vec::new();
    // A file may grow, and a pipe has no length: what is read is bounded in any case.
    file.take(MAX_SOURCE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    decode(&bytes, &name).map(str::to_owned)
}

fn too_large(file: &str, bytes: u64) -> Diagnostic {
    Diagnostic {
        file: file.to_owned(),
        line: 1,
        column: 1,
        field: String::new(),
        message: format!("has {bytes} bytes; a definition has at most {MAX_SOURCE_BYTES} (16 MiB)"),
        hint: Some("keep data in files of its own, and let tasks read them".to_owned()),
    }
}

/// Bytes as text, if they are UTF-8 and not too many.
pub(crate) fn decode<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str, Vec<Diagnostic>> {
    if bytes.len() > MAX_SOURCE_BYTES {
        return Err(vec![too_large(file, bytes.len() as u64)]);
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let before = String::from_utf8_lossy(&bytes[..at]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        vec![Diagnostic {
            file: file.to_owned(),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            field: String::new(),
            message: format!("byte {at} (0x{:02x}) is not UTF-8 text", bytes[at]),
            hint: Some("save the file in the encoding UTF-8".to_owned()),
        }]
    })
}

/// Parses YAML (of which JSON is a part) into a tree. Duplicate keys are kept, for the caller to
/// report each of them.
pub(crate) fn parse_tree(source: &str, file: &str) -> Result<Located, Diagnostic> {
    let failed = |message: String| Diagnostic {
        file: file.to_owned(),
        line: 1,
        column: 1,
        field: String::new(),
        message,
        hint: Some("free memory or threads, and try again".to_owned()),
    };
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new()
            .stack_size(PARSER_STACK_BYTES)
            .spawn_scoped(scope, || parse_here(source, file))
            .map_err(|e| failed(format!("cannot start the parser: {e}")))?;
        parser.join().unwrap_or_else(|_| Err(failed("the parser failed".to_owned())))
    })
}

fn parse_here(source: &str, file: &str) -> Result<Located, Diagnostic> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_documents: 2,
            max_total_scalar_bytes: MAX_SOURCE_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: 16,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Spanned<Tree>>(source, options).map(located).map_err(
        |error| {
            let (line, column) = error.location().map_or((1, 1), |l| place(&l));
            let (message, hint) = match long_key(source, line, column) {
                Some(chars) => (
                    format!("a key has at most {MAX_KEY_CHARS} characters; this one has {chars}"),
                    Some("names have at most 500".to_owned()),
                ),
                None => explain(&error.without_snippet().to_string()),
            };
            Diagnostic {
                file: file.to_owned(),
                line: line.max(1),
                column: column.max(1),
                field: String::new(),
                message,
                hint,
            }
        },
    )
}

/// The length of a key too long for YAML, when that is what the parser stumbled over: it says only
/// that it expected something else.
fn long_key(source: &str, line: u32, column: u32) -> Option<usize> {
    let text = source.lines().nth(line.saturating_sub(1) as usize)?;
    let before: String = text.chars().take(column as usize).collect();
    let key = before.trim_end().trim_end_matches(':').trim_end();
    let start = key.rfind(['{', ',', ' ']).map_or(0, |at| at + 1);
    let chars = key[start..].trim_matches(['"', '\'']).chars().count();
    (chars > MAX_KEY_CHARS).then_some(chars)
}

/// The parser's message without the place (which stands in front) and with a hint.
fn explain(text: &str) -> (String, Option<String>) {
    let mut message = text.lines().next().unwrap_or(text).trim();
    if let Some(at) = message.rfind(" at line ") {
        message = message[..at].trim_end_matches([',', ':', ' ']);
    }
    let lower = message.to_lowercase();
    if lower.contains("multiple yaml documents") {
        let hint = "one file holds one workflow; remove the `---` and what follows";
        return ("a second document begins here".to_owned(), Some(hint.to_owned()));
    }
    if lower.contains("non-finite") {
        let hint = "write a number, or a text in quotes";
        return ("infinity and NaN are no numbers here".to_owned(), Some(hint.to_owned()));
    }
    if lower.contains("replay") || lower.contains("alias") {
        let message = format!("aliases repeat more than {MAX_REPLAYED} parts of the document");
        return (message, Some("write it out, without aliases of aliases".to_owned()));
    }
    let hint = if lower.contains("budget") {
        Some("the document nests or repeats too much; split it")
    } else if lower.contains("tab") {
        Some("indent with spaces")
    } else if lower.contains("mapping values") || lower.contains("did not find expected") {
        Some("check the indentation, and quote texts that contain `: ` or begin with a sign")
    } else if lower.contains("too large; write") || lower.contains("no numbers here") {
        Some("quotes make it a text")
    } else {
        Some("check the indentation and the quotes around this place")
    };
    (shorten(message), hint.map(str::to_owned))
}

fn shorten(text: &str) -> String {
    text.chars().take(300).collect()
}
