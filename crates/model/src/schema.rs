//! How times and ids look in JSON.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{RunId, TaskId, Timestamp};

macro_rules! text {
    ($type:ty, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text!(Timestamp, {"type": "string", "format": "date-time"});
text!(RunId, {"type": "string", "format": "uuid"});
// `{run}.{number}`, as text.
text!(TaskId, {"type": "string"});
