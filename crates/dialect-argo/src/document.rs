//! YAML files to objects, with the place of every field for error messages.

use std::collections::BTreeMap;
use std::fmt;

use kobza_model::Json;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::normal;

/// Largest file of definitions, in bytes.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// Lists and mappings within each other.
const DEPTH_MAX: usize = 128;
/// Values of a file: a workflow of 100,000 tasks has a few million.
const NODES_MAX: usize = 4_000_000;
/// Values that aliases may repeat: what is written by hand repeats a few.
const ALIASED_MAX: usize = 100_000;

/// Something wrong in a file or an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The field, such as `templates.main.steps[0].a`; empty for the whole.
    pub path: String,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Line and column from 1, where known.
    pub at: Option<(u32, u32)>,
}

impl Diagnostic {
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None, at: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.at {
            write!(f, "{line}:{column}: ")?;
        }
        match self.path.as_str() {
            "" => f.write_str(&self.message)?,
            path => write!(f, "{path} {}", self.message)?,
        }
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Workflow,
    WorkflowTemplate,
    ClusterWorkflowTemplate,
    CronWorkflow,
    WorkflowEventBinding,
    ConfigMap,
    Secret,
}

impl Kind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workflow => "Workflow",
            Self::WorkflowTemplate => "WorkflowTemplate",
            Self::ClusterWorkflowTemplate => "ClusterWorkflowTemplate",
            Self::CronWorkflow => "CronWorkflow",
            Self::WorkflowEventBinding => "WorkflowEventBinding",
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "Workflow" => Self::Workflow,
            "WorkflowTemplate" => Self::WorkflowTemplate,
            "ClusterWorkflowTemplate" => Self::ClusterWorkflowTemplate,
            "CronWorkflow" => Self::CronWorkflow,
            "WorkflowEventBinding" => Self::WorkflowEventBinding,
            "ConfigMap" => Self::ConfigMap,
            "Secret" => Self::Secret,
            _ => return None,
        })
    }
}

/// One object, its older field forms brought to the current ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub kind: Kind,
    /// As written, normalised: `apiVersion`, `kind`, `metadata`, `spec`, ...
    pub json: Json,
    /// Line and column of each field of the file, by path such as `spec.templates[0].name`.
    pub places: BTreeMap<String, (u32, u32)>,
}

impl Object {
    /// An object that came as JSON.
    pub fn from_json(mut json: Json) -> Result<Self, Diagnostic> {
        let kind = kind_of(&json)?;
        normal::object(kind, &mut json)?;
        Ok(Self { kind, json, places: BTreeMap::new() })
    }

    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.json.pointer("/metadata/name").and_then(Json::as_str)
    }

    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.json.pointer("/metadata/namespace").and_then(Json::as_str)
    }

    /// Adds the place in the file to a diagnostic whose path is a path of fields.
    #[must_use]
    pub fn located(&self, mut diagnostic: Diagnostic, field: &str) -> Diagnostic {
        let mut path = field;
        while diagnostic.at.is_none() {
            diagnostic.at = self.places.get(path).copied();
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => break,
            }
        }
        diagnostic
    }
}

fn kind_of(json: &Json) -> Result<Kind, Diagnostic> {
    if !json.is_object() {
        return Err(Diagnostic::new("", "a definition must be a mapping with apiVersion and kind"));
    }
    let word = json.get("kind").and_then(Json::as_str).unwrap_or("");
    Kind::from_word(word).ok_or_else(|| {
        let message = if word.is_empty() {
            "is missing".to_owned()
        } else {
            format!("{word:?} is not a kind that can run here")
        };
        Diagnostic::new("kind", message).hint(
            "Workflow, WorkflowTemplate, ClusterWorkflowTemplate, CronWorkflow, \
             WorkflowEventBinding, ConfigMap or Secret",
        )
    })
}

/// Reads a file of one or several YAML (or JSON) documents. Objects of other kinds are reported;
/// empty documents are passed over.
pub fn parse(text: &str) -> Result<Vec<Object>, Vec<Diagnostic>> {
    if text.len() > FILE_BYTES_MAX {
        return Err(vec![Diagnostic::new(
            "",
            format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20),
        )]);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_total_scalar_bytes: FILE_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: ALIASED_MAX,
            max_replay_stack_depth: 16,
        },
    };
    let documents: Vec<Option<Spanned<Raw>>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
            let at = error.location().map(|l| (clamp(l.line()), clamp(l.column())));
            let message = error.without_snippet().to_string();
            let first = message.lines().next().unwrap_or("not YAML").to_owned();
            vec![Diagnostic { path: String::new(), message: first, hint: None, at }]
        })?;
    let mut objects = Vec::new();
    let mut wrong = Vec::new();
    for document in documents.into_iter().flatten() {
        if matches!(document.value, Raw::Null) {
            continue;
        }
        let mut places = BTreeMap::new();
        let mut json = flatten(document, String::new(), &mut places);
        let object = kind_of(&json).and_then(|kind| {
            normal::object(kind, &mut json)?;
            Ok(kind)
        });
        match object {
            Ok(kind) => objects.push(Object { kind, json, places }),
            Err(diagnostic) => {
                let path = diagnostic.path.clone();
                let probe = Object { kind: Kind::Workflow, json: Json::Null, places };
                wrong.push(probe.located(diagnostic, &path));
            }
        }
    }
    if wrong.is_empty() { Ok(objects) } else { Err(wrong) }
}

fn clamp(n: impl TryInto<u32>) -> u32 {
    n.try_into().unwrap_or(u32::MAX)
}

enum Raw {
    Null,
    Scalar(Json),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(String, Spanned<Raw>)>),
}

fn flatten(node: Spanned<Raw>, path: String, places: &mut BTreeMap<String, (u32, u32)>) -> Json {
    let json = match node.value {
        Raw::Null => Json::Null,
        Raw::Scalar(value) => value,
        Raw::List(items) => items
            .into_iter()
            .enumerate()
            .map(|(at, item)| flatten(item, format!("{path}[{at}]"), places))
            .collect(),
        Raw::Map(entries) => Json::Object(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    (key, flatten(value, below, places))
                })
                .collect(),
        ),
    };
    places.insert(path, (clamp(node.referenced.line()), clamp(node.referenced.column())));
    json
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Raw>>()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key_seed(KeySeed)? {
            entries.push((key, access.next_value::<Spanned<Raw>>()?));
        }
        Ok(Raw::Map(entries))
    }
}

/// Keys are strings, whatever YAML takes them for (`on:`, `1:`).
struct KeySeed;

impl<'de> serde::de::DeserializeSeed<'de> for KeySeed {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}
