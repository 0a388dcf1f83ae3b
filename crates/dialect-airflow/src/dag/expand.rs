//! What a task or a group is mapped over.

use kobza_model::Json;
use serde::{Deserialize, Serialize};

use super::{DagError, plain};

/// The argument of `expand` or `expand_kwargs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpandInput {
    /// Each combination of one value of each.
    DictOfLists(Vec<(String, Argument)>),
    /// Each item is an instance's arguments.
    ListOfDicts(Argument),
}

/// A sequence, or a mapping, whose items are the instances' values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Argument {
    /// Known when the DAG was read: its length.
    Literal(u32),
    XCom(XCom),
}

/// A reference to what tasks push.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XCom {
    Plain { task_id: String, key: String },
    Map(Box<XCom>),
    Zip { parts: Vec<XCom>, fill: bool },
    Concat(Vec<XCom>),
}

impl ExpandInput {
    pub(super) fn read(input: &Json, field: &str) -> Result<Self, DagError> {
        let value = &input["value"];
        match input["type"].as_str() {
            Some("dict-of-lists") => {
                let fields = match (value["__type"].as_str(), value.as_object()) {
                    (Some("dict"), _) => value["__var"].as_object(),
                    (_, fields) => fields,
                };
                let Some(fields) = fields else {
                    return Err(DagError::new(format!("{field}.value"), "it is no mapping"));
                };
                fields
                    .iter()
                    .map(|(name, value)| {
                        let place = format!("{field}.value.{name}");
                        Ok((name.clone(), Argument::read(value, &place)?))
                    })
                    .collect::<Result<_, _>>()
                    .map(Self::DictOfLists)
            }
            Some("list-of-dicts") => {
                Argument::read(value, &format!("{field}.value")).map(Self::ListOfDicts)
            }
            other => Err(DagError::new(
                format!("{field}.type"),
                format!("{:?} is no kind of mapping that is known", other.unwrap_or_default()),
            )),
        }
    }

    /// All references in it.
    #[must_use]
    pub fn references(&self) -> Vec<(&str, &str)> {
        let mut found = Vec::new();
        for argument in self.arguments() {
            if let Argument::XCom(xcom) = argument {
                xcom.collect(&mut found);
            }
        }
        found
    }

    fn arguments(&self) -> Vec<&Argument> {
        match self {
            Self::DictOfLists(fields) => fields.iter().map(|(_, argument)| argument).collect(),
            Self::ListOfDicts(argument) => vec![argument],
        }
    }

    /// The number of instances; `length` tells that of one task's XCom, if it has one.
    pub fn length<E>(
        &self,
        length: &mut impl FnMut(&str, &str) -> Result<u64, E>,
    ) -> Result<u64, E> {
        let arguments = self.arguments();
        if arguments.is_empty() {
            return Ok(0);
        }
        arguments.into_iter().try_fold(1u64, |product, argument| {
            Ok(product.saturating_mul(match argument {
                Argument::Literal(length) => u64::from(*length),
                Argument::XCom(xcom) => xcom.length(length)?,
            }))
        })
    }

    /// The number of instances, if it is known without any XCom.
    #[must_use]
    pub fn static_length(&self) -> Option<u64> {
        self.length(&mut |_, _| Err(())).ok()
    }
}

impl Argument {
    fn read(value: &Json, field: &str) -> Result<Self, DagError> {
        if value["__type"].as_str() == Some("xcomref") {
            return XCom::read(&value["__var"], field).map(Self::XCom);
        }
        let length = match plain(value) {
            Json::Array(items) => items.len(),
            Json::Object(fields) if !fields.contains_key("__type") => fields.len(),
            _ => return Err(DagError::new(field, "it has no length to map over")),
        };
        u32::try_from(length)
            .map(Self::Literal)
            .map_err(|_| DagError::new(field, format!("{length} items are too many")))
    }
}

impl XCom {
    fn read(value: &Json, field: &str) -> Result<Self, DagError> {
        let parts = || {
            value["args"]
                .as_array()
                .into_iter()
                .flatten()
                .enumerate()
                .map(|(place, part)| Self::read(part, &format!("{field}.args[{place}]")))
                .collect::<Result<Vec<_>, _>>()
        };
        match value["type"].as_str().unwrap_or_default() {
            "" => match (value["task_id"].as_str(), value["key"].as_str()) {
                (Some(task_id), Some(key)) => {
                    Ok(Self::Plain { task_id: task_id.to_owned(), key: key.to_owned() })
                }
                _ => Err(DagError::new(field, "the reference names no task and key")),
            },
            "map" => {
                Self::read(&value["arg"], &format!("{field}.arg")).map(|arg| Self::Map(arg.into()))
            }
            "zip" => Ok(Self::Zip { parts: parts()?, fill: value.get("fillvalue").is_some() }),
            "concat" => parts().map(Self::Concat),
            other => Err(DagError::new(format!("{field}.type"), format!("{other:?} is not known"))),
        }
    }

    fn collect<'a>(&'a self, into: &mut Vec<(&'a str, &'a str)>) {
        match self {
            Self::Plain { task_id, key } => into.push((task_id, key)),
            Self::Map(arg) => arg.collect(into),
            Self::Zip { parts, .. } | Self::Concat(parts) => {
                parts.iter().for_each(|part| part.collect(into));
            }
        }
    }

    fn length<E>(&self, length: &mut impl FnMut(&str, &str) -> Result<u64, E>) -> Result<u64, E> {
        let all = |parts: &[Self], length: &mut _| {
            parts.iter().map(|part| part.length(length)).collect::<Result<Vec<u64>, E>>()
        };
        Ok(match self {
            Self::Plain { task_id, key } => length(task_id, key)?,
            Self::Map(arg) => arg.length(length)?,
            Self::Zip { parts, fill: true } => {
                all(parts, length)?.into_iter().max().unwrap_or_default()
            }
            Self::Zip { parts, fill: false } => {
                all(parts, length)?.into_iter().min().unwrap_or_default()
            }
            Self::Concat(parts) => all(parts, length)?.into_iter().fold(0, u64::saturating_add),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::ExpandInput;

    fn length(value: &serde_json::Value) -> Result<u64, String> {
        let input = ExpandInput::read(value, "x").map_err(|e| e.to_string())?;
        input.length(&mut |task, _| match task {
            "two" => Ok(2),
            "three" => Ok(3),
            other => Err(format!("{other} has none")),
        })
    }

    #[test]
    fn lengths_multiply_add_and_zip() {
        let plain = |task: &str| json!({"task_id": task, "key": "return_value"});
        let of = |xcom: serde_json::Value| json!({"type": "list-of-dicts", "value": {"__type": "xcomref", "__var": xcom}});
        let product = json!({"type": "dict-of-lists", "value": {"__type": "dict", "__var": {
            "a": [1, 2, 3, 4],
            "b": {"__type": "xcomref", "__var": plain("two")},
            "c": {"__type": "tuple", "__var": [7]},
        }}});
        assert_eq!(length(&product), Ok(8));
        let parts = json!([plain("two"), {"type": "map", "arg": plain("three"), "callables": []}]);
        assert_eq!(length(&of(json!({"type": "concat", "args": parts}))), Ok(5));
        assert_eq!(length(&of(json!({"type": "zip", "args": parts}))), Ok(2));
        assert_eq!(length(&of(json!({"type": "zip", "args": parts, "fillvalue": null}))), Ok(3));
        assert_eq!(length(&of(plain("none"))), Err("none has none".to_owned()));
        assert!(length(&json!({"type": "set-of-sets", "value": []})).is_err());
    }
}
