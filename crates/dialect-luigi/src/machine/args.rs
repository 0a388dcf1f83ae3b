//! Arguments of a call. What is not of the expected form is read as leniently as it can be: an
//! error would cost the worker half a minute of waiting before it repeats the same call.

use kobza_model::Json;

use super::Refused;
use super::resources::object_of;
use crate::pyjson::{Object, Value};

pub(super) struct Args(Object);

static NULL: Value = Value::Null;

impl Args {
    /// The arguments, and whether they came as text (then so does the reply).
    pub(super) fn read(json: &Json) -> Result<(Self, bool), Refused> {
        match json {
            Json::String(text) => {
                let value = if text.trim().is_empty() {
                    Value::Null
                } else {
                    Value::parse(text).map_err(|e| Refused::Bad(format!("data: {e}")))?
                };
                Ok((Self(object_of(&value).into_owned()), true))
            }
            other => Ok((Self(object_of(&Value::from_json(other)).into_owned()), false)),
        }
    }

    pub(super) fn get(&self, key: &str) -> &Value {
        self.0.get(key).unwrap_or(&NULL)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn all(&self) -> &Object {
        &self.0
    }

    pub(super) fn truthy(&self, key: &str) -> bool {
        self.get(key).truthy()
    }

    /// A flag that is true where it is absent.
    pub(super) fn flag_or_true(&self, key: &str) -> bool {
        !self.has(key) || self.truthy(key)
    }

    /// The text, if it is one.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).as_str()
    }

    /// An id: a text, or a number's text.
    pub(super) fn id(&self, key: &'static str) -> Result<String, Refused> {
        id_of(self.get(key)).ok_or_else(|| Refused::Bad(format!("{key} is required")))
    }

    pub(super) fn worker(&self) -> Result<String, Refused> {
        self.id("worker")
    }

    /// A list of ids; `None` where it is null or absent.
    pub(super) fn ids(&self, key: &str) -> Option<Vec<String>> {
        match self.get(key) {
            Value::Null => None,
            Value::List(list) => Some(list.iter().filter_map(id_of).collect()),
            Value::Object(object) => Some(object.keys().cloned().collect()),
            other => Some(id_of(other).into_iter().collect()),
        }
    }

    pub(super) fn object(&self, key: &str) -> Object {
        object_of(self.get(key)).into_owned()
    }
}

fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::Str(text) => Some(text.clone()),
        Value::Int(_) | Value::Big(_) | Value::Float(_) => Some(value.to_string()),
        _ => None,
    }
}
