//! Conditions over assets.

use std::collections::BTreeSet;

use kobza_model::{Json, validate_asset};
use kobza_schedule::ScheduleError;

use crate::spec::{MappingSpec, TriggerKind, Updates};

/// Deepest nesting, and most assets of one condition.
const MAX_DEPTH: usize = 8;
const MAX_ASSETS: usize = 500;
/// What an object may say beside the condition.
const OPTIONS: [&str; 4] = ["per_partition", "updates", "max_active", "mapping"];

/// A tree over "this asset has been updated since the trigger last fired".
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AssetCondition {
    Updated(String),
    All(Vec<AssetCondition>),
    Any(Vec<AssetCondition>),
}

impl AssetCondition {
    /// Reads a name, a list (all of them), `{all: […]}` or `{any: […]}`, nested.
    pub fn parse(value: &Json) -> Result<Self, ScheduleError> {
        let condition = Self::parse_at(value, 0)?;
        if condition.names().len() > MAX_ASSETS {
            let message = format!("has more than {MAX_ASSETS} assets");
            return Err(ScheduleError::new("assets", message));
        }
        Ok(condition)
    }

    fn parse_at(value: &Json, depth: usize) -> Result<Self, ScheduleError> {
        let error = |message: &str| {
            ScheduleError::new("assets", message)
                .hint("write a name, a list of names, {all: [...]} or {any: [...]}")
        };
        if depth > MAX_DEPTH {
            return Err(error("is nested too deeply"));
        }
        let list = |items: &[Json]| {
            if items.is_empty() {
                return Err(error("is an empty list"));
            }
            items.iter().map(|item| Self::parse_at(item, depth + 1)).collect::<Result<Vec<_>, _>>()
        };
        match value {
            Json::String(name) => {
                validate_asset(name)
                    .map_err(|e| ScheduleError::new("assets", format!("{name:.60}: {e}")))?;
                Ok(Self::Updated(name.clone()))
            }
            Json::Array(items) => Ok(Self::All(list(items)?)),
            Json::Object(fields) => {
                let mut fields = fields.iter().filter(|(key, _)| !OPTIONS.contains(&key.as_str()));
                match (fields.next(), fields.next()) {
                    (Some((key, Json::Array(items))), None) if key == "all" => {
                        Ok(Self::All(list(items)?))
                    }
                    (Some((key, Json::Array(items))), None) if key == "any" => {
                        Ok(Self::Any(list(items)?))
                    }
                    _ => Err(error("must have exactly one of all and any, with a list")),
                }
            }
            _ => Err(error("is no asset")),
        }
    }

    /// The assets it looks at.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.collect(&mut names);
        names
    }

    fn collect<'a>(&'a self, names: &mut BTreeSet<&'a str>) {
        match self {
            Self::Updated(name) => {
                names.insert(name);
            }
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.collect(names))
            }
        }
    }

    #[must_use]
    pub fn holds(&self, updated: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Updated(name) => updated(name),
            Self::All(parts) => parts.iter().all(|part| part.holds(updated)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(updated)),
        }
    }
}

/// Reads the `assets` of a trigger: the condition, and what else its object says.
pub(crate) fn parse_kind(value: &Json) -> Result<TriggerKind, ScheduleError> {
    let wrong = |field: &str, message: &str| {
        Err(ScheduleError::new(format!("assets.{field}"), message.to_owned()))
    };
    let per_partition = match value.get("per_partition") {
        None => false,
        Some(Json::Bool(flag)) => *flag,
        Some(_) => return wrong("per_partition", "must be true or false"),
    };
    let updates = match value.get("updates").map(Json::as_str) {
        None | Some(Some("all")) => Updates::All,
        Some(Some("whole")) => Updates::Whole,
        Some(Some("partitions")) => Updates::Partitions,
        Some(_) => return wrong("updates", "must be all, whole or partitions"),
    };
    let max_active = match value.get("max_active") {
        None => None,
        Some(count) => match count.as_u64().and_then(|n| u32::try_from(n).ok()) {
            Some(count) if count > 0 => Some(count),
            _ => return wrong("max_active", "must be a whole number from 1 on"),
        },
    };
    let condition = AssetCondition::parse(value)?;
    let mapping = match value.get("mapping") {
        None => None,
        Some(definition) => match definition["dialect"].as_str() {
            Some(dialect) => {
                Some(MappingSpec { dialect: dialect.to_owned(), definition: definition.clone() })
            }
            None => return wrong("mapping", "does not say whose it is"),
        },
    };
    Ok(TriggerKind::Assets { condition, per_partition, updates, max_active, mapping })
}
