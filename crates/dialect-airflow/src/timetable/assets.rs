//! The assets whose updates start runs.

use kobza_model::Json;

use super::error::TimetableError;

/// How deep a condition may be nested.
const MAX_DEPTH: usize = 64;

/// A condition over assets, as a DAG's schedule has it.
#[derive(Clone, PartialEq, Debug)]
pub enum AssetCondition {
    All(Vec<AssetCondition>),
    Any(Vec<AssetCondition>),
    Asset(Asset),
    /// What its producers attach to it at run time.
    Alias {
        name: String,
        group: String,
    },
    /// An asset of this name, defined elsewhere.
    NameRef(String),
    /// An asset of this address, defined elsewhere.
    UriRef(String),
}

/// An asset.
#[derive(Clone, PartialEq, Debug)]
pub struct Asset {
    pub name: String,
    pub uri: String,
    pub group: String,
    pub extra: Json,
    /// Triggers that watch it: name and serialised trigger.
    pub watchers: Vec<(String, Json)>,
}

impl AssetCondition {
    /// As serialised.
    pub fn parse(value: &Json) -> Result<Self, TimetableError> {
        Self::parse_at(value, "asset_condition", MAX_DEPTH)
    }

    fn parse_at(value: &Json, field: &str, depth: usize) -> Result<Self, TimetableError> {
        let invalid = |message: &str| TimetableError::invalid(field, message);
        if depth == 0 {
            return Err(invalid("is nested too deeply"));
        }
        let kind = value["__type"].as_str().ok_or_else(|| invalid("has no __type"))?;
        let var = value.get("__var").unwrap_or(value);
        let text = |name: &str| {
            let missing = || TimetableError::invalid(format!("{field}.{name}"), "must be a text");
            var[name].as_str().map(str::to_owned).ok_or_else(missing)
        };
        let objects = || {
            let list = var["objects"].as_array().ok_or_else(|| invalid("has no objects"))?;
            let parse = |(at, object)| Self::parse_at(object, &format!("{field}[{at}]"), depth - 1);
            list.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()
        };
        Ok(match kind {
            "asset_all" => Self::All(objects()?),
            "asset_any" => Self::Any(objects()?),
            "asset_alias" => Self::Alias { name: text("name")?, group: text("group")? },
            "asset_ref" if var.get("name").is_some() => Self::NameRef(text("name")?),
            "asset_ref" => Self::UriRef(text("uri")?),
            "asset" => {
                let watchers = var["watchers"].as_array().into_iter().flatten();
                let watchers = watchers.map(|watcher| {
                    let name = watcher["name"].as_str();
                    let name = name.ok_or_else(|| invalid("has a watcher without a name"))?;
                    Ok((name.to_owned(), watcher["trigger"].clone()))
                });
                Self::Asset(Asset {
                    name: text("name")?,
                    uri: text("uri")?,
                    group: text("group")?,
                    extra: var["extra"].clone(),
                    watchers: watchers.collect::<Result<_, _>>()?,
                })
            }
            other => {
                let message = format!("{other:.60} is not a kind of asset that this version knows");
                return Err(invalid(&message));
            }
        })
    }

    /// All that it names, in order.
    pub fn leaves(&self) -> Vec<&Self> {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::leaves).collect(),
            leaf => vec![leaf],
        }
    }
}
