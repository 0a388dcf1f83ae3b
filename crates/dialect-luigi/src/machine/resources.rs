//! Amounts of resources, and their sums.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::pyjson::{Object, Value};

/// A number as its sender wrote it: `1` stays an integer and `1.0` a float.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Num {
    Int(i64),
    Float(f64),
}

impl Num {
    /// `None` for what is no number. Digits beyond 64 bits become a float.
    pub(super) fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Int(n) => Some(Self::Int(*n)),
            Value::Bool(b) => Some(Self::Int(i64::from(*b))),
            Value::Float(_) | Value::Big(_) => value.number().map(Self::Float),
            _ => None,
        }
    }

    pub(super) fn to_value(self) -> Value {
        match self {
            Self::Int(n) => Value::Int(n),
            Self::Float(f) => Value::Float(f),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "compared with amounts and ranks only")]
    pub(super) fn f64(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Float(f) => f,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.saturating_add(b)),
            _ => Self::Float(self.f64() + other.f64()),
        }
    }

    /// `max(0, self - other)`, zero being an integer.
    pub(super) fn minus_floored(self, other: Self) -> Self {
        let rest = match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.saturating_sub(b)),
            _ => Self::Float(self.f64() - other.f64()),
        };
        if rest.f64() > 0.0 { rest } else { Self::Int(0) }
    }

    /// The amount in sums: negative ones and NaN count as nothing, so that sums never shrink.
    fn amount(self) -> Self {
        if self.f64() > 0.0 { self } else { Self::Int(0) }
    }
}

impl PartialEq for Num {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Num {}
impl PartialOrd for Num {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Num {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            _ => (self.f64() + 0.0).total_cmp(&(other.f64() + 0.0)),
        }
    }
}

/// What a task needs, ordered by name. Cheap to copy and to compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct ResourceSet(Option<Arc<Vec<(String, Num)>>>);

impl ResourceSet {
    /// From an object or a list of pairs; what is neither is empty, amounts that are no numbers
    /// are left out.
    pub(super) fn from_value(value: &Value) -> Self {
        let object = object_of(value);
        Self::from_map(
            object.iter().filter_map(|(k, v)| Some((k.clone(), Num::from_value(v)?))).collect(),
        )
    }

    fn from_map(map: BTreeMap<String, Num>) -> Self {
        Self((!map.is_empty()).then(|| Arc::new(map.into_iter().collect())))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Num)> {
        self.0.iter().flat_map(|items| items.iter().map(|(name, amount)| (name.as_str(), *amount)))
    }

    /// Takes amounts away from the resources that are in the set, down to zero.
    pub(super) fn decreased(&self, by: &Object) -> Self {
        let map = self.iter().map(|(name, amount)| {
            let less = by.get(name).and_then(Num::from_value).filter(|n| n.f64() > 0.0);
            (name.to_owned(), less.map_or(amount, |less| amount.minus_floored(less)))
        });
        Self::from_map(map.collect())
    }

    pub(super) fn write(&self, out: &mut String) {
        out.push('{');
        for (i, (name, amount)) in self.iter().enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            crate::pyjson::write_string(out, name);
            out.push_str(": ");
            amount.to_value().write(out);
        }
        out.push('}');
    }

    pub(super) fn to_value(&self) -> Value {
        Value::Object(self.iter().map(|(n, a)| (n.to_owned(), a.to_value())).collect())
    }
}

/// Capacities by name.
pub(super) type Capacities = BTreeMap<String, Value>;

/// Sums of amounts by name.
#[derive(Debug, Default)]
pub(super) struct Usage(BTreeMap<String, Num>);

impl Usage {
    pub(super) fn add(&mut self, set: &ResourceSet) {
        for (name, amount) in set.iter() {
            match self.0.get_mut(name) {
                Some(sum) => *sum = sum.plus(amount.amount()),
                None => {
                    self.0.insert(name.to_owned(), amount.amount());
                }
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Num> {
        self.0.get(name).copied()
    }

    /// Whether `set` fits beside what is used. A resource without a capacity has 1.
    pub(super) fn fits(&self, set: &ResourceSet, capacities: &Capacities) -> bool {
        set.iter().all(|(name, amount)| {
            let used = self.get(name).map_or(0.0, Num::f64);
            let capacity = capacities.get(name).and_then(Value::number).unwrap_or(1.0);
            amount.amount().f64() + used <= capacity
        })
    }
}

/// An object, or a list of pairs read as one; anything else is empty.
pub(super) fn object_of(value: &Value) -> std::borrow::Cow<'_, Object> {
    use std::borrow::Cow;
    match value {
        Value::Object(object) => Cow::Borrowed(object),
        Value::List(pairs) => Cow::Owned(
            pairs
                .iter()
                .filter_map(|pair| match pair {
                    Value::List(pair) => match pair.as_slice() {
                        [Value::Str(key), value] => Some((key.clone(), value.clone())),
                        _ => None,
                    },
                    _ => None,
                })
                .collect(),
        ),
        _ => Cow::Owned(Object::new()),
    }
}
