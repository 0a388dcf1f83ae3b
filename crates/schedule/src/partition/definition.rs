//! What partitions there are, and their keys.

use std::collections::HashMap;
use std::sync::Arc;

use kobza_model::{Json, Timestamp};

use crate::error::shown;
use crate::partition::{PartitionSet, Place, TimeGrid, TimePartitions};
use crate::{Cron, DataInterval, ScheduleError, Zone};

/// Most keys of a static or dynamic dimension.
pub const MAX_KEYS: usize = 1_000_000;
/// Most dimensions of a product.
const MAX_DIMENSIONS: usize = 8;
/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// The partitions of an asset or a workflow. Cheap to clone.
#[derive(Clone, Debug)]
pub enum PartitionDefinition {
    Time(Arc<TimePartitions>),
    /// Keys known at definition, in this order.
    Static(Arc<KeyList>),
    /// Keys added at run time under a name; the numbers of known keys never change.
    Dynamic {
        name: String,
        keys: Arc<KeyList>,
    },
    /// All combinations of two or more named dimensions.
    Product(Arc<Vec<(String, PartitionDefinition)>>),
}

/// Keys with their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyList {
    keys: Vec<String>,
    numbers: HashMap<String, u64>,
}

impl KeyList {
    /// Numbers keys in the given order; refuses duplicates and keys that set notation cannot hold.
    pub fn new(keys: Vec<String>) -> Result<Self, ScheduleError> {
        let mut list = Self::default();
        for key in keys {
            let shown_key = shown(&key);
            if !list.add(key)? {
                let message = format!("the key {shown_key} is there twice");
                return Err(ScheduleError::new("keys", message));
            }
        }
        Ok(list)
    }

    /// Adds a key at the end; false when it is there already.
    pub fn add(&mut self, key: String) -> Result<bool, ScheduleError> {
        let refused =
            |why: &str| Err(ScheduleError::new("keys", format!("the key {} {why}", shown(&key))));
        if key.is_empty() || key.len() > MAX_KEY_BYTES || key.trim() != key {
            return refused("must have 1 to 255 bytes and no white space around");
        }
        if key.contains("..") || key.contains(|c: char| c.is_control() || "|,;*".contains(c)) {
            return refused("must not contain | , ; * or ..");
        }
        if self.keys.len() >= MAX_KEYS {
            return refused("is one too many: there may be a million");
        }
        if self.numbers.contains_key(&key) {
            return Ok(false);
        }
        self.numbers.insert(key.clone(), self.keys.len() as u64);
        self.keys.push(key);
        Ok(true)
    }

    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.numbers.get(key).copied()
    }
}

impl PartitionDefinition {
    /// Reads `{type: daily, timezone, start, end}` (also `hourly`, `weekly`, `monthly`, and `cron`
    /// with `cron`), `{type: static, keys: […]}`, `{type: dynamic, name}` (keys are given
    /// by [`Self::with_dynamic_keys`]) or `{type: product, dimensions: {name: definition, …}}`.
    pub fn parse(value: &Json) -> Result<Self, ScheduleError> {
        let error = |message: &str| ScheduleError::new("partitions", message);
        let object = value.as_object().ok_or_else(|| {
            error("must be an object").hint("for example {type: daily, start: 2013-01-01}")
        })?;
        let text = |field: &str| match object.get(field) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(ScheduleError::new(field, "must be a text")),
        };
        let allow = |fields: &[&str]| match object
            .keys()
            .find(|key| *key != "type" && !fields.contains(&key.as_str()))
        {
            Some(key) => Err(ScheduleError::new(key.clone(), "is not known here")
                .hint(format!("fields are {}", fields.join(", ")))),
            None => Ok(()),
        };
        let kind = text("type")?.ok_or_else(|| {
            error("has no type")
                .hint("types are hourly, daily, weekly, monthly, cron, static, dynamic, product")
        })?;
        let zone =
            || text("timezone").and_then(|name| name.map_or_else(|| Ok(Zone::utc()), Zone::parse));
        let grid = match kind {
            "hourly" => TimeGrid::Hourly,
            "daily" => TimeGrid::Daily,
            "weekly" => TimeGrid::Weekly,
            "monthly" => TimeGrid::Monthly,
            "cron" => {
                let pattern =
                    text("cron")?.ok_or_else(|| ScheduleError::new("cron", "is missing"))?;
                TimeGrid::Cron(Box::new(Cron::parse(pattern, zone()?)?))
            }
            "static" => {
                allow(&["keys"])?;
                let keys = object
                    .get("keys")
                    .and_then(Json::as_array)
                    .ok_or_else(|| ScheduleError::new("keys", "must be a list of texts"))?;
                let keys = keys.iter().map(|key| {
                    key.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| ScheduleError::new("keys", "must be a list of texts"))
                });
                let list = KeyList::new(keys.collect::<Result<_, _>>()?)?;
                return Ok(Self::Static(Arc::new(list)));
            }
            "dynamic" => {
                allow(&["name"])?;
                let name = text("name")?.ok_or_else(|| ScheduleError::new("name", "is missing"))?;
                return Ok(Self::Dynamic { name: name.to_owned(), keys: Arc::default() });
            }
            "product" => {
                allow(&["dimensions"])?;
                return Self::parse_product(object.get("dimensions"));
            }
            other => {
                return Err(ScheduleError::new("type", format!("{} is not known", shown(other)))
                    .hint(
                        "types are hourly, daily, weekly, monthly, cron, static, dynamic, product",
                    ));
            }
        };
        allow(&["timezone", "start", "end", "cron"])?;
        if kind != "cron" {
            allow(&["timezone", "start", "end"])?;
        }
        let start = text("start")?.ok_or_else(|| {
            ScheduleError::new("start", "is missing").hint("for example start: 2013-01-01")
        })?;
        let time = TimePartitions::new(grid, zone()?, start, text("end")?)?;
        Ok(Self::Time(Arc::new(time)))
    }

    fn parse_product(dimensions: Option<&Json>) -> Result<Self, ScheduleError> {
        let error = |message: String| ScheduleError::new("dimensions", message);
        let object = dimensions
            .and_then(Json::as_object)
            .filter(|object| (2..=MAX_DIMENSIONS).contains(&object.len()))
            .ok_or_else(|| error(format!("must be an object of 2 to {MAX_DIMENSIONS} entries")))?;
        let mut parsed = Vec::new();
        for (name, value) in object {
            let dimension = Self::parse(value).map_err(|e| e.inside(name).inside("dimensions"))?;
            if matches!(dimension, Self::Product(_)) {
                return Err(error(format!("{} is a product itself", shown(name)))
                    .hint("list all dimensions in one product"));
            }
            parsed.push((name.clone(), dimension));
        }
        Ok(Self::Product(Arc::new(parsed)))
    }

    /// The same definition with the keys that its dynamic dimensions of this name have now.
    #[must_use]
    pub fn with_dynamic_keys(&self, name: &str, keys: &Arc<KeyList>) -> Self {
        match self {
            Self::Dynamic { name: own, .. } if own == name => {
                Self::Dynamic { name: own.clone(), keys: Arc::clone(keys) }
            }
            Self::Product(dimensions) => {
                let filled = dimensions.iter().map(|(label, dimension)| {
                    (label.clone(), dimension.with_dynamic_keys(name, keys))
                });
                Self::Product(Arc::new(filled.collect()))
            }
            other => other.clone(),
        }
    }

    /// Its dimensions in order; itself when it is not a product.
    #[must_use]
    pub fn dimensions(&self) -> Vec<&Self> {
        match self {
            Self::Product(dimensions) => {
                dimensions.iter().map(|(_, dimension)| dimension).collect()
            }
            other => vec![other],
        }
    }

    /// How many partitions of this one dimension exist at an instant: complete ones of time, all
    /// keys of others. For a product, of its first dimension.
    #[must_use]
    pub fn length_at(&self, at: Timestamp) -> u64 {
        match self {
            Self::Time(time) => time.complete_at(at),
            Self::Static(keys) | Self::Dynamic { keys, .. } => keys.keys.len() as u64,
            Self::Product(dimensions) => dimensions.first().map_or(0, |(_, d)| d.length_at(at)),
        }
    }

    /// All partitions that exist at an instant.
    #[must_use]
    pub fn all_at(&self, at: Timestamp) -> PartitionSet {
        let ranges: Vec<_> =
            self.dimensions().iter().map(|dimension| vec![(0, dimension.length_at(at))]).collect();
        PartitionSet::product(&ranges)
    }

    /// The key of a partition; of a product the dimensions' keys joined by `|`. `None` if there is
    /// no such partition.
    #[must_use]
    pub fn key(&self, place: &[u64]) -> Option<String> {
        let dimensions = self.dimensions();
        if dimensions.len() != place.len() {
            return None;
        }
        let keys = dimensions.iter().zip(place).map(|(dimension, index)| dimension.key_of(*index));
        Some(keys.collect::<Option<Vec<_>>>()?.join("|"))
    }

    /// The key of one dimension's partition.
    pub(crate) fn key_of(&self, index: u64) -> Option<String> {
        match self {
            Self::Time(time) => time.key(index),
            Self::Static(keys) | Self::Dynamic { keys, .. } => {
                keys.keys.get(usize::try_from(index).ok()?).cloned()
            }
            Self::Product(_) => None,
        }
    }

    /// The partition with a key.
    pub fn parse_key(&self, key: &str) -> Result<Place, ScheduleError> {
        let dimensions = self.dimensions();
        let parts: Vec<&str> = key.split('|').collect();
        if parts.len() != dimensions.len() {
            let message =
                format!("{} has {} parts, not {}", shown(key), parts.len(), dimensions.len());
            return Err(ScheduleError::new("partition", message)
                .hint("separate the dimensions by |, such as 2013-03-01|eu"));
        }
        dimensions.iter().zip(parts).map(|(dimension, part)| dimension.index_of(part)).collect()
    }

    pub(crate) fn index_of(&self, key: &str) -> Result<u64, ScheduleError> {
        match self {
            Self::Time(time) => time.parse_key(key),
            Self::Static(keys) | Self::Dynamic { keys, .. } => keys.number(key).ok_or_else(|| {
                let known: Vec<&str> = keys.keys.iter().take(5).map(String::as_str).collect();
                ScheduleError::new("partition", format!("{} does not exist", shown(key)))
                    .hint(format!("keys are {}…", known.join(", ")))
            }),
            Self::Product(_) => Err(ScheduleError::new("partition", "has several dimensions")),
        }
    }

    /// The time that a partition covers: that of its first time dimension.
    #[must_use]
    pub fn window(&self, place: &[u64]) -> Option<DataInterval> {
        self.dimensions().iter().zip(place).find_map(|(dimension, index)| match dimension {
            Self::Time(time) => time.window(*index),
            _ => None,
        })
    }
}
