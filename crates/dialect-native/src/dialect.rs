//! Answers to the engine's questions.

use std::path::PathBuf;
use std::sync::Arc;

use kobza_engine::{Decision, Launch, Question, QuestionKind};
use kobza_expr::native;
use kobza_model::{Cause, Json, LaunchId};
use kobza_runtime::{Answer, Ask, Dialect, ExecutorName, Facts, LaunchSpec};
use serde_json::json;

use crate::compile::MAX_INSTANCES;
use crate::context::{Place, gather, graph_of};
use crate::spec::{CacheSpec, MapSpec, NodeSpec, Reads};

/// What the dialect needs to know of its surroundings.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Program that runs `exec sql` and `exec http`: this binary. Empty leaves it to the executor,
    /// as the programs `@sql` and `@http`.
    pub self_exe: String,
    /// Interpreter of Python tasks that name none.
    pub python: Option<String>,
    /// Folder that relative paths count from. A run may override it by `folder` in its `extra`.
    pub base_folder: Option<PathBuf>,
    /// Address of the API, handed to tasks as KOBZA_API_URL.
    pub api_url: Option<String>,
    /// Makes the token that a launch gets beside it, as KOBZA_API_TOKEN.
    pub token: Option<LaunchToken>,
    /// The executor hosts warm Python, so a function needs no program of its own.
    pub warm_python: bool,
}

/// A launch's token from its id: the same one whenever it is asked for.
#[derive(Clone)]
pub struct LaunchToken(pub Arc<dyn Fn(LaunchId) -> String + Send + Sync>);

impl std::fmt::Debug for LaunchToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaunchToken")
    }
}

/// The pure half of native workflows.
#[derive(Clone, Debug)]
pub struct NativeDialect {
    pub(crate) options: Options,
}

impl NativeDialect {
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options }
    }

    fn guard(&self, question: &Question, facts: &dyn Facts) -> Result<Decision, String> {
        let place =
            Place { task: question.task.task, scope: question.scope, index: question.index };
        let spec: GuardSpec = node_spec(question, facts)?;
        let attempt = facts.task(place.task).map_or(1, |row| row.attempt + 1);
        let gathered = gather(place, attempt, &spec.reads, facts)?;
        if let Some(when) = &spec.when {
            let holds =
                native::is_true(when, &gathered.context).map_err(|e| format!("when: {e}"))?;
            if !holds {
                return Ok(Decision::Skip {
                    cause: Cause::Guard,
                    message: Some(format!("when: {} is false", short(when))),
                });
            }
        }
        let Some(cache) = &spec.cache else { return Ok(Decision::Run { inputs: Json::Null }) };
        let key = native::render_text(&cache.key, &gathered.context)
            .map_err(|e| format!("cache.key: {e}"))?;
        if let Some((made, outputs)) = facts.cached(&key) {
            let age = facts.now().0.saturating_sub(made.0).max(0);
            let fresh = cache.ttl_ms.is_none_or(|ttl| {
                age < i64::try_from(ttl).unwrap_or(i64::MAX).saturating_mul(1000)
            });
            if fresh {
                return Ok(Decision::Succeed { cause: Cause::Cache, outputs });
            }
        }
        Ok(Decision::Run { inputs: json!({"$cache_key": key}) })
    }

    fn expand(&self, question: &Question, facts: &dyn Facts) -> Result<Decision, String> {
        let place = Place { task: question.task.task, scope: question.scope, index: None };
        let spec: NodeSpec = node_spec(question, facts)?;
        let gathered = gather(place, 1, &spec.reads, facts)?;
        let evaluate =
            |text: &str| native::eval(text, &gathered.context).map_err(|e| format!("map: {e}"));
        let (length, items) = match &spec.map {
            Some(MapSpec::Over(text)) => {
                let items = match evaluate(text)? {
                    Json::Array(items) => items,
                    Json::Object(fields) => fields
                        .into_iter()
                        .map(|(key, value)| json!({"key": key, "value": value}))
                        .collect(),
                    other => return Err(format!("map: expected a list, got {}", kind(&other))),
                };
                (items.len() as u64, Some(Json::Array(items)))
            }
            Some(MapSpec::RangeOf(text)) => match evaluate(text)?.as_u64() {
                Some(length) => (length, None),
                None => return Err("map: the range is not a whole number from 0".to_owned()),
            },
            Some(MapSpec::Items(items) | MapSpec::Templates(items)) => (items.len() as u64, None),
            Some(MapSpec::Range(length)) => (u64::from(*length), None),
            Some(MapSpec::Like(_)) | None => return Err("map: nothing to ask".to_owned()),
        };
        let length = u32::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_INSTANCES)
            .ok_or_else(|| format!("map: {length} items; at most {MAX_INSTANCES} are allowed"))?;
        Ok(Decision::Expand { length, items, inputs: Json::Null })
    }
}

impl Dialect for NativeDialect {
    fn name(&self) -> &'static str {
        crate::DIALECT
    }

    fn decide(&self, question: &Question, facts: &dyn Facts) -> Decision {
        let answer = match question.kind {
            QuestionKind::Guard => self.guard(question, facts),
            QuestionKind::Expansion => self.expand(question, facts),
            QuestionKind::ScopeOutputs { .. } => Ok(Decision::Outputs(Vec::new())),
            QuestionKind::Retry => Ok(Decision::Retry { delay_ms: None, carry: Json::Null }),
        };
        answer.unwrap_or_else(|message| Decision::Fail { cause: Cause::Template, message })
    }

    fn launch(
        &self,
        launch: &Launch,
        facts: &dyn Facts,
    ) -> Result<(ExecutorName, LaunchSpec), String> {
        crate::launch::launch(&self.options, launch, facts)
    }

    /// `{"lookup": "variable" | "connection" | "secret", "name": "..."}` of the run's namespace.
    fn ask(&self, ask: &Ask, facts: &dyn Facts) -> Answer {
        let text = |field: &str| ask.body.get(field).and_then(Json::as_str);
        let Some((kind @ ("variable" | "connection" | "secret"), name)) =
            text("lookup").zip(text("name"))
        else {
            return Answer::refused("a task may ask for a variable, a connection or a secret");
        };
        match facts.lookup(kind, name) {
            Some(value) => {
                let secrets = crate::context::secrets_of(kind, name, &value, facts);
                Answer { result: Ok(Json::clone(&value)), secrets }
            }
            None => {
                let namespace = &facts.run().namespace;
                let name: String = name.chars().take(80).collect();
                Answer::refused(format!("there is no {kind} {name:?} in namespace {namespace:?}"))
            }
        }
    }
}

/// The part of a [`NodeSpec`] that a guard needs: a map's items may be many, and are left alone.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct GuardSpec {
    when: Option<String>,
    cache: Option<CacheSpec>,
    reads: Reads,
}

/// What the asked node, or hook, carries.
fn node_spec<T>(question: &Question, facts: &dyn Facts) -> Result<T, String>
where
    T: Default + serde::de::DeserializeOwned,
{
    let workflow = facts.workflow();
    let row = facts.task(question.task.task);
    let arguments = match row.as_ref().and_then(|row| row.hook.map(|hook| (row, hook))) {
        Some((row, hook)) => {
            let owner = row.parent.and_then(|parent| facts.task(parent));
            let hooks = match &owner {
                Some(owner) => owner
                    .node
                    .and_then(|node| {
                        graph_of(owner.scope, workflow, facts)?.nodes.get(node.index())
                    })
                    .map(|node| node.hooks.as_slice()),
                None => Some(workflow.hooks.as_slice()),
            };
            hooks.and_then(|hooks| hooks.get(usize::from(hook))).map(|hook| &hook.arguments)
        }
        None => question
            .node
            .and_then(|node| graph_of(question.scope, workflow, facts)?.nodes.get(node.index()))
            .map(|node| &node.arguments),
    };
    match arguments {
        Some(Json::Null) => Ok(T::default()),
        Some(arguments) => T::deserialize(arguments).map_err(|e| e.to_string()),
        None => Err("the definition has no such task".to_owned()),
    }
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "a truth value",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a mapping",
    }
}

fn short(text: &str) -> String {
    text.trim().chars().take(120).collect()
}
