//! Routes of templates, cron workflows and bindings.

use axum::extract::{Path, Query, State};
use axum::routing::{delete, get, post};
use axum::{Json as Body, Router};
use kobza_expr::argo_expr::Program;
use kobza_model::Json;
use kobza_runtime::Submission;
use kobza_store::{ObjectQuery, Write};
use serde::Deserialize;
use serde_json::json;

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
