//! Reads from a handler's own types what it takes and gives.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::auth::Principal;
use crate::error::ApiError;
use crate::extract::{
    Created, Either, Given, Json, Media, NewId, NoContent, Path, Query, Raw, Source, Stream,
    Verbatim,
};
use crate::state::ApiState;

/// Schemas of what is sent and of what is answered: a field that may be left out of a request is
/// always there in an answer.
pub(crate) struct Schemas {
    sent: SchemaGenerator,
    answered: SchemaGenerator,
}

/// An operation as it is found out.
pub(crate) struct Operation<'a> {
    schemas: &'a mut Schemas,
    pub(crate) parameters: Vec<Value>,
    pub(crate) body: Option<Value>,
    pub(crate) responses: Map<String, Value>,
}

pub(crate) type Describe = fn(&mut Operation<'_>);

impl Schemas {
    pub(crate) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|s| {
                s.definitions_path = "/components/schemas".into();
                s.meta_schema = None;
            })
        };
        Self {
            sent: settings().for_deserialize().into_generator(),
            answered: settings().for_serialize().into_generator(),
        }
    }

    pub(crate) fn answer<T: JsonSchema>(&mut self) -> Schema {
        self.answered.subschema_for::<T>()
    }

    pub(crate) fn operation(&mut self) -> Operation<'_> {
        Operation { schemas: self, parameters: Vec::new(), body: None, responses: Map::new() }
    }

    /// All named schemas, by name. A name that means two things is told.
    pub(crate) fn finish(mut self) -> (Map<String, Value>, Vec<String>) {
        let mut all = self.answered.take_definitions(true);
        let mut twice = Vec::new();
        for (name, schema) in self.sent.take_definitions(true) {
            match all.get(&name) {
                Some(known) if *known != schema => twice.push(name),
                _ => drop(all.insert(name, schema)),
            }
        }
        all.sort_keys();
        (all, twice)
    }
}

impl Operation<'_> {
    fn query<T: JsonSchema>(&mut self) {
        let schema = T::json_schema(&mut self.schemas.sent).to_value();
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|r| r.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        for (name, property) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let mut property = property.clone();
            let about = property.as_object_mut().and_then(|p| p.shift_remove("description"));
            // A parameter is there or not; it is never null.
            if let Some(kinds) = property.get("type").and_then(Value::as_array)
                && let [kind, Value::String(null)] = kinds.as_slice()
                && null == "null"
            {
                property["type"] = kind.clone();
            }
            let mut parameter = json!({"name": name, "in": "query"});
            if let Some(about) = about {
                parameter["description"] = about;
            }
            if required.contains(&name.as_str()) {
                parameter["required"] = true.into();
            }
            parameter["schema"] = property;
            self.parameters.push(parameter);
        }
    }

    fn body<T: JsonSchema>(&mut self, required: bool) {
        let schema = self.schemas.sent.subschema_for::<T>();
        self.body = Some(
            json!({"required": required, "content": {"application/json": {"schema": schema}}}),
        );
    }

    fn answers<T: JsonSchema>(&mut self, status: &str, about: &str) {
        let schema = self.schemas.answered.subschema_for::<T>();
        self.responses.insert(
            status.to_owned(),
            json!({"description": about, "content": {"application/json": {"schema": schema}}}),
        );
    }

    fn last_event_id(&mut self) {
        self.parameters.push(json!({
            "name": "Last-Event-ID", "in": "header", "schema": {"type": "string"},
            "description": "The id of the last frame that was got: the stream goes on behind it.",
        }));
    }
}

/// Something that a handler takes.
pub(crate) trait Input {
    fn describe(operation: &mut Operation<'_>);
}

/// Something that a handler gives.
pub(crate) trait Answer {
    fn describe(operation: &mut Operation<'_>);
}

macro_rules! nothing {
    ($($type:ty),+) => {
        $(impl Input for $type { fn describe(_: &mut Operation<'_>) {} })+
    };
}

nothing!(State<ApiState>, Extension<Principal>, HeaderMap, NewId);

// The path says it itself.
impl<T> Input for Path<T> {
    fn describe(_: &mut Operation<'_>) {}
}

impl<T: JsonSchema> Input for Query<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.query::<T>();
    }
}

impl<T: JsonSchema> Input for Json<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.body::<T>(true);
    }
}

impl<T: JsonSchema> Input for Given<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.body::<T>(false);
    }
}

impl Input for Verbatim {
    fn describe(operation: &mut Operation<'_>) {
        operation.body = Some(json!({"required": true, "content": {
            "application/json": {}, "application/x-www-form-urlencoded": {}, "*/*": {},
        }}));
    }
}

impl Input for Source {
    fn describe(operation: &mut Operation<'_>) {
        operation.body = Some(json!({"required": true, "content": {
            "application/yaml": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object"}},
        }}));
    }
}

impl<T: Answer> Answer for Result<T, ApiError> {
    fn describe(operation: &mut Operation<'_>) {
        T::describe(operation);
    }
}

impl<T: JsonSchema> Answer for Json<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers::<T>("200", "Done");
    }
}

impl<T: JsonSchema> Answer for Created<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers::<T>("201", "Made");
    }
}

impl<H, T: Answer> Answer for ([(HeaderName, H); 1], T) {
    fn describe(operation: &mut Operation<'_>) {
        T::describe(operation);
    }
}

impl Answer for NoContent {
    fn describe(operation: &mut Operation<'_>) {
        operation.responses.insert("204".to_owned(), json!({"description": "Done"}));
    }
}

impl<A: Answer, B: Answer> Answer for Either<A, B> {
    fn describe(operation: &mut Operation<'_>) {
        A::describe(operation);
        B::describe(operation);
    }
}

impl<K: Media> Answer for Raw<K> {
    fn describe(operation: &mut Operation<'_>) {
        let answer = json!({"description": K::ABOUT, "content": {K::TYPE: {}}});
        operation.responses.insert("200".to_owned(), answer);
    }
}

impl<T: JsonSchema> Answer for Stream<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.last_event_id();
        // OpenAPI has no words for frames: the schema is that of the data of each.
        let schema = operation.schemas.answered.subschema_for::<T>();
        operation.responses.insert(
            "200".to_owned(),
            json!({
                "description": "Server-sent events; the schema is that of a frame's data",
                "content": {"text/event-stream": {"schema": schema}},
            }),
        );
    }
}

/// A handler that can be described.
pub(crate) trait Described<T> {
    const DESCRIBE: Describe;
}

macro_rules! described {
    ($($input:ident),*) => {
        impl<F, R, $($input,)*> Described<($($input,)*)> for F
        where
            F: AsyncFnOnceLike<($($input,)*), Output = R>,
            R: Answer,
            $($input: Input,)*
        {
            const DESCRIBE: Describe = |operation| {
                $($input::describe(operation);)*
                R::describe(operation);
            };
        }

        impl<F, U, $($input,)*> AsyncFnOnceLike<($($input,)*)> for F
        where
            F: FnOnce($($input),*) -> U,
            U: Future,
        {
            type Output = U::Output;
        }
    };
}

/// A function whose answer comes later.
pub(crate) trait AsyncFnOnceLike<T> {
    type Output;
}

described!();
described!(A);
described!(A, B);
described!(A, B, C);
described!(A, B, C, D);
described!(A, B, C, D, E);
described!(A, B, C, D, E, G);
