//! Routes of templates, cron workflows, bindings, limits, and of events from outside.

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::routing::{delete, get, post};
use axum::{Json as Body, Router};
use kobza_expr::argo_expr::{Env, Program, Value};
use kobza_model::Json;
use kobza_runtime::Submission;
use kobza_store::{ObjectQuery, Write};
use serde::Deserialize;
use serde_json::{Map, json};

use super::start::Origin;
use super::{Answer, ArgoError, ArgoState, OBJECT, blocking, select};
use crate::{Kind, Object};

pub(super) fn routes() -> Router<ArgoState> {
    Router::new()
        .route("/api/v1/workflow-templates/{namespace}", get(list_templates).post(create_template))
        .route("/api/v1/workflow-templates/{namespace}/lint", post(lint_template))
        .route(
            "/api/v1/workflow-templates/{namespace}/{name}",
            get(get_template).put(update_template).delete(delete_template),
        )
        .route("/api/v1/cluster-workflow-templates", get(list_cluster).post(create_cluster))
        .route("/api/v1/cluster-workflow-templates/lint", post(lint_cluster))
        .route(
            "/api/v1/cluster-workflow-templates/{name}",
            get(get_cluster).put(update_cluster).delete(delete_cluster),
        )
        .route("/api/v1/cron-workflows/{namespace}", get(list_cron).post(create_cron))
        .route("/api/v1/cron-workflows/{namespace}/lint", post(lint_cron))
        .route(
            "/api/v1/cron-workflows/{namespace}/{name}",
            get(get_cron).put(update_cron).delete(delete_cron),
        )
        .route(
            "/api/v1/workflow-event-bindings/{namespace}",
            get(list_bindings).post(create_binding),
        )
        .route("/api/v1/workflow-event-bindings/{namespace}/{name}", delete(delete_binding))
        .route("/api/v1/events/{namespace}/{discriminator}", post(event))
        .route("/api/v1/events/{namespace}/", post(event_plain))
        .route("/api/v1/sync/{namespace}", post(put_sync))
        .route(
            "/api/v1/sync/{namespace}/{key}",
            get(get_sync).put(put_sync_key).delete(delete_sync),
        )
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    #[serde(rename = "listOptions.labelSelector")]
    labels: String,
    #[serde(rename = "namePattern")]
    pattern: String,
    fields: String,
}

/// Longest list of objects.
const LIST_MAX: usize = 10_000;

impl ArgoState {
    /// All objects of a kind in a namespace.
    pub(crate) fn objects(&self, kind: Kind, namespace: &str) -> Result<Vec<Json>, ArgoError> {
        let prefix = format!("{}/", kind.as_str());
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.views.list_objects(&ObjectQuery {
                kind: OBJECT,
                namespace: Some(namespace),
                prefix: &prefix,
                descending: false,
                cursor: cursor.as_deref(),
                limit: 500,
            })?;
            found.extend(page.items.into_iter().map(|o| o.value));
            cursor = page.next;
            if cursor.is_none() || found.len() >= LIST_MAX {
                return Ok(found);
            }
        }
    }

    pub(super) fn object_of(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Json, ArgoError> {
        let key = format!("{}/{name}", kind.as_str());
        self.store
            .object(OBJECT, namespace, &key)?
            .ok_or_else(|| ArgoError::not_found(format!("{}.argoproj.io \"{name}\"", plural(kind))))
    }

    /// Keeps an object; a new one must not be there yet, a changed one must.
    pub(crate) async fn keep(
        &self,
        namespace: &str,
        mut object: Object,
        new: bool,
    ) -> Result<Json, ArgoError> {
        let name = match object.name() {
            Some(name) => name.to_owned(),
            None => return Err(ArgoError::invalid("metadata.name is required")),
        };
        let (state, space) = (self.clone(), namespace.to_owned());
        let kind = object.kind;
        let object = blocking(move || {
            state.lint(&space, &object)?;
            let there = state.object_of(kind, &space, object.name().unwrap_or_default()).ok();
            let metadata = &mut object.json["metadata"];
            match (&there, new) {
                (Some(_), true) => {
                    return Err(ArgoError::exists(format!(
                        "{}.argoproj.io \"{}\"",
                        plural(kind),
                        metadata["name"].as_str().unwrap_or_default()
                    )));
                }
                (None, false) => return Err(ArgoError::not_found(plural(kind))),
                (Some(there), false) => {
                    for key in ["uid", "creationTimestamp"] {
                        metadata[key] = there["metadata"][key].clone();
                    }
                }
                (None, true) => {
                    metadata["uid"] = Json::from(uuid::Uuid::new_v4().to_string());
                    metadata["creationTimestamp"] =
                        Json::from(crate::values::seconds(kobza_runtime::wall_now()));
                }
            }
            if kind == Kind::CronWorkflow
                && let Some(fields) = object.json.as_object_mut()
            {
                // Its status follows from what happened, whatever a client sends.
                fields.shift_remove("status");
            }
            let metadata = &mut object.json["metadata"];
            if kind != Kind::ClusterWorkflowTemplate {
                metadata["namespace"] = Json::from(space.as_str());
            }
            let before: u64 = there
                .and_then(|t| t["metadata"]["resourceVersion"].as_str()?.parse().ok())
                .unwrap_or(0);
            metadata["resourceVersion"] = Json::from((before + 1).to_string());
            let definition = match kind {
                Kind::CronWorkflow => Some(state.cron_definition(&space, &object)?),
                _ => None,
            };
            Ok((object.json, definition))
        })
        .await?;
        let (object, definition) = object;
        let (define, triggers) = definition.unzip();
        let write = Write::PutObject {
            kind: OBJECT,
            namespace: namespace.to_owned(),
            key: format!("{}/{name}", kind.as_str()),
            value: Some(object.clone()),
        };
        let writes = std::iter::once(write).chain(define).collect();
        self.handle.submit(Submission { commands: Vec::new(), writes }).await?;
        let Some(triggers) = triggers else { return Ok(object) };
        let paused = object["spec"]["suspend"].as_bool().unwrap_or(false);
        self.reschedule(namespace, &name, triggers, paused).await?;
        let state = self.clone();
        blocking(move || state.cron_shown(object)).await
    }
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::WorkflowTemplate => "workflowtemplates",
        Kind::ClusterWorkflowTemplate => "clusterworkflowtemplates",
        Kind::CronWorkflow => "cronworkflows",
        Kind::WorkflowEventBinding => "workfloweventbindings",
        _ => "objects",
    }
}

fn object_in(body: &Json, field: &str, kind: Kind) -> Result<Object, ArgoError> {
    let mut json = body
        .get(field)
        .filter(|o| o.is_object())
        .cloned()
        .ok_or_else(|| ArgoError::invalid(format!("the request has no field {field:?}")))?;
    if json["kind"].as_str().is_none_or(str::is_empty) {
        json["kind"] = Json::from(kind.as_str());
    }
    let object = Object::from_json(json)?;
    if object.kind != kind {
        return Err(ArgoError::invalid(format!("{field} is a {}", object.kind.as_str())));
    }
    Ok(object)
}

async fn listed(state: ArgoState, kind: Kind, namespace: String, wanted: Wanted) -> Answer {
    let items = blocking(move || {
        let mut items = Vec::new();
        for object in state.objects(kind, &namespace)? {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().unwrap_or_default();
            if name.contains(&wanted.pattern)
                && select::labels_match(&wanted.labels, &metadata["labels"])
                    .map_err(ArgoError::invalid)?
            {
                items.push(match kind {
                    Kind::CronWorkflow => state.cron_shown(object)?,
                    _ => object,
                });
            }
        }
        Ok(select::fields(json!({ "metadata": {}, "items": items }), &wanted.fields))
    });
    items.await.map(Body)
}

async fn got(state: ArgoState, kind: Kind, namespace: String, name: String) -> Answer {
    blocking(move || {
        let object = state.object_of(kind, &namespace, &name)?;
        match kind {
            Kind::CronWorkflow => state.cron_shown(object),
            _ => Ok(object),
        }
    })
    .await
    .map(Body)
}

async fn removed(state: ArgoState, kind: Kind, namespace: String, name: String) -> Answer {
    let (reading, space, wanted) = (state.clone(), namespace.clone(), name.clone());
    blocking(move || reading.object_of(kind, &space, &wanted)).await?;
    if kind == Kind::CronWorkflow {
        super::cron::removed(&state, &namespace, &name).await?;
    }
    let key = format!("{}/{name}", kind.as_str());
    let write = Write::PutObject { kind: OBJECT, namespace, key, value: None };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    Ok(Body(json!({})))
}

async fn linted(state: ArgoState, namespace: String, object: Object) -> Answer {
    blocking(move || {
        state.lint(&namespace, &object)?;
        Ok(Body(object.json))
    })
    .await
}

macro_rules! namespaced {
    ($kind:expr, $field:literal, $list:ident, $create:ident, $lint:ident, $get:ident, $update:ident, $delete:ident) => {
        async fn $list(
            State(state): State<ArgoState>,
            Path(namespace): Path<String>,
            Query(wanted): Query<Wanted>,
        ) -> Answer {
            listed(state, $kind, namespace, wanted).await
        }

        async fn $create(
            State(state): State<ArgoState>,
            Path(namespace): Path<String>,
            Body(body): Body<Json>,
        ) -> Answer {
            let object = object_in(&body, $field, $kind)?;
            state.keep(&namespace, object, true).await.map(Body)
        }

        async fn $lint(
            State(state): State<ArgoState>,
            Path(namespace): Path<String>,
            Body(body): Body<Json>,
        ) -> Answer {
            linted(state, namespace, object_in(&body, $field, $kind)?).await
        }

        async fn $get(
            State(state): State<ArgoState>,
            Path((namespace, name)): Path<(String, String)>,
        ) -> Answer {
            got(state, $kind, namespace, name).await
        }

        async fn $update(
            State(state): State<ArgoState>,
            Path((namespace, _)): Path<(String, String)>,
            Body(body): Body<Json>,
        ) -> Answer {
            let object = object_in(&body, $field, $kind)?;
            state.keep(&namespace, object, false).await.map(Body)
        }

        async fn $delete(
            State(state): State<ArgoState>,
            Path((namespace, name)): Path<(String, String)>,
        ) -> Answer {
            removed(state, $kind, namespace, name).await
        }
    };
}

namespaced!(
    Kind::WorkflowTemplate,
    "template",
    list_templates,
    create_template,
    lint_template,
    get_template,
    update_template,
    delete_template
);
namespaced!(
    Kind::CronWorkflow,
    "cronWorkflow",
    list_cron,
    create_cron,
    lint_cron,
    get_cron,
    update_cron,
    delete_cron
);

async fn list_cluster(State(state): State<ArgoState>, Query(wanted): Query<Wanted>) -> Answer {
    listed(state, Kind::ClusterWorkflowTemplate, String::new(), wanted).await
}

async fn create_cluster(State(state): State<ArgoState>, Body(body): Body<Json>) -> Answer {
    let object = object_in(&body, "template", Kind::ClusterWorkflowTemplate)?;
    state.keep("", object, true).await.map(Body)
}

async fn lint_cluster(State(state): State<ArgoState>, Body(body): Body<Json>) -> Answer {
    let object = object_in(&body, "template", Kind::ClusterWorkflowTemplate)?;
    linted(state, String::new(), object).await
}

async fn get_cluster(State(state): State<ArgoState>, Path(name): Path<String>) -> Answer {
    got(state, Kind::ClusterWorkflowTemplate, String::new(), name).await
}

async fn update_cluster(
    State(state): State<ArgoState>,
    Path(_): Path<String>,
    Body(body): Body<Json>,
) -> Answer {
    let object = object_in(&body, "template", Kind::ClusterWorkflowTemplate)?;
    state.keep("", object, false).await.map(Body)
}

async fn delete_cluster(State(state): State<ArgoState>, Path(name): Path<String>) -> Answer {
    removed(state, Kind::ClusterWorkflowTemplate, String::new(), name).await
}

async fn list_bindings(State(state): State<ArgoState>, Path(namespace): Path<String>) -> Answer {
    listed(state, Kind::WorkflowEventBinding, namespace, Wanted::default()).await
}

async fn create_binding(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    Body(body): Body<Json>,
) -> Answer {
    let object = object_in(&body, "workflowEventBinding", Kind::WorkflowEventBinding)?;
    let selector = object.json["spec"]["event"]["selector"].as_str().unwrap_or_default();
    Program::parse(selector).map_err(|error| {
        ArgoError::invalid(format!("spec.event.selector {selector:?}: {error}"))
    })?;
    state.keep(&namespace, object, true).await.map(Body)
}

async fn delete_binding(
    State(state): State<ArgoState>,
    Path((namespace, name)): Path<(String, String)>,
) -> Answer {
    removed(state, Kind::WorkflowEventBinding, namespace, name).await
}

async fn event_plain(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Body(payload): Body<Json>,
) -> Answer {
    received(state, namespace, String::new(), headers, payload).await
}

async fn event(
    State(state): State<ArgoState>,
    Path((namespace, discriminator)): Path<(String, String)>,
    headers: HeaderMap,
    Body(payload): Body<Json>,
) -> Answer {
    received(state, namespace, discriminator, headers, payload).await
}

/// An event: every binding whose selector holds starts a workflow.
async fn received(
    state: ArgoState,
    namespace: String,
    discriminator: String,
    headers: HeaderMap,
    payload: Json,
) -> Answer {
    let mut metadata = Map::new();
    for name in headers.keys() {
        // Credentials of the caller are none of a workflow's business.
        if matches!(name.as_str(), "authorization" | "cookie") {
            continue;
        }
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        metadata.insert(name.as_str().to_owned(), values.collect());
    }
    let seen = json!({ "payload": payload, "metadata": metadata, "discriminator": discriminator });
    let mut env = Env::default();
    for (name, value) in seen.as_object().into_iter().flatten() {
        env.variables.insert(name.clone(), Value::from(value));
    }
    let (reading, space) = (state.clone(), namespace.clone());
    let bindings = blocking(move || reading.objects(Kind::WorkflowEventBinding, &space)).await?;
    for binding in bindings {
        let selector = binding["spec"]["event"]["selector"].as_str().unwrap_or("false");
        let holds = Program::parse(selector).and_then(|p| p.eval(&env));
        // One bad binding must not keep the others from their event.
        if !matches!(holds, Ok(Value::Bool(true))) {
            continue;
        }
        let submit = &binding["spec"]["submit"];
        if !submit.is_object() {
            continue;
        }
        let mut parameters = std::collections::BTreeMap::new();
        for parameter in submit["arguments"]["parameters"].as_array().into_iter().flatten() {
            let Some(name) = parameter["name"].as_str() else { continue };
            let value = match parameter["valueFrom"]["event"].as_str() {
                Some(text) => Program::parse(text)
                    .and_then(|p| p.eval(&env))
                    .map_err(|e| ArgoError::invalid(format!("{text:?}: {e}")))?
                    .to_text(),
                None => parameter["value"].as_str().unwrap_or_default().to_owned(),
            };
            parameters.insert(name.to_owned(), value);
        }
        let reference = &submit["workflowTemplateRef"];
        let mut metadata = submit["metadata"].as_object().cloned().unwrap_or_default();
        if !metadata.contains_key("name") && !metadata.contains_key("generateName") {
            let prefix = format!("{}-", reference["name"].as_str().unwrap_or("event"));
            metadata.insert("generateName".to_owned(), Json::from(prefix));
        }
        let object = Object::from_json(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata,
            "spec": { "workflowTemplateRef": reference },
        }))?;
        let mut labels = Map::new();
        labels.insert(
            "workflows.argoproj.io/workflow-event-binding".to_owned(),
            binding["metadata"]["name"].clone(),
        );
        let origin = Origin { parameters, labels, trigger: Some("event"), ..Origin::default() };
        state.create(&namespace, object, origin).await?;
    }
    Ok(Body(json!({})))
}

async fn put_limit(state: ArgoState, namespace: String, key: String, body: Json) -> Answer {
    let limit = body["limit"]
        .as_u64()
        .filter(|n| *n > 0)
        .ok_or_else(|| ArgoError::invalid("limit must be greater than zero"))?;
    if body["type"].as_str().is_some_and(|t| t == "CONFIG_MAP") {
        return Err(ArgoError::unimplemented(
            "limits in ConfigMaps are changed by writing the ConfigMap",
        ));
    }
    let value = json!({ "type": "DATABASE", "namespace": namespace, "key": key, "limit": limit });
    let write = Write::PutObject {
        kind: OBJECT,
        namespace,
        key: format!("SyncLimit/{key}"),
        value: Some(value.clone()),
    };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    Ok(Body(value))
}

async fn put_sync(
    State(state): State<ArgoState>,
    Path(namespace): Path<String>,
    Body(body): Body<Json>,
) -> Answer {
    let key = body["key"].as_str().unwrap_or_default().to_owned();
    if key.is_empty() {
        return Err(ArgoError::invalid("key is required"));
    }
    put_limit(state, namespace, key, body).await
}

async fn put_sync_key(
    State(state): State<ArgoState>,
    Path((namespace, key)): Path<(String, String)>,
    Body(body): Body<Json>,
) -> Answer {
    put_limit(state, namespace, key, body).await
}

async fn get_sync(
    State(state): State<ArgoState>,
    Path((namespace, key)): Path<(String, String)>,
) -> Answer {
    blocking(move || {
        let found = state.store.object(OBJECT, &namespace, &format!("SyncLimit/{key}"))?;
        found.map(Body).ok_or_else(|| ArgoError::not_found(format!("sync limit {key:?}")))
    })
    .await
}

async fn delete_sync(
    State(state): State<ArgoState>,
    Path((namespace, key)): Path<(String, String)>,
) -> Answer {
    let key = format!("SyncLimit/{key}");
    let write = Write::PutObject { kind: OBJECT, namespace, key, value: None };
    state.handle.submit(Submission { commands: Vec::new(), writes: vec![write] }).await?;
    Ok(Body(json!({})))
}
