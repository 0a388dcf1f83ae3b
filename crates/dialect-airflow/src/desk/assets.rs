//! Assets, as DAGs name them, and what happened to them.

use std::collections::BTreeMap;

use kobza_model::{Json, RunId, Timestamp};
use kobza_store::{Materialization, WorkflowFilter};
use serde_json::json;

use super::Desk;
use super::instances::map_index;
use crate::ids::asset_name;
use crate::task::{AssetEvents, Refused};

/// Most events of an asset that a question looks through, from the newest on.
const EVENTS_MAX: usize = 10_000;
/// In the metadata of what was published by a reference.
const REFERENCE: &str = "\"ref\":true";

impl Desk {
    /// The asset with a name or URI, as some DAG describes it.
    pub(crate) fn asset_of(
        &self,
        namespace: &str,
        name: Option<&str>,
        uri: Option<&str>,
    ) -> Result<Option<Json>, Refused> {
        let filter = WorkflowFilter {
            namespaces: vec![namespace.to_owned()],
            dialect: Some("airflow".to_owned()),
            ..WorkflowFilter::default()
        };
        let mut cursor = None::<String>;
        loop {
            let page = self.views.list_workflows(&filter, cursor.as_deref(), 1000)?;
            for summary in page.items {
                let Some(stored) = self.store.workflow(namespace, &summary.name, None)? else {
                    continue;
                };
                let found = named(&stored.workflow.source["airflow"]["dag"], name, uri);
                if found.is_some() {
                    return Ok(found);
                }
            }
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(None),
            }
        }
    }

    /// Fills in what a task published by a reference alone: the asset that a DAG describes.
    pub fn name_asset(&self, run: RunId, asset: &mut String, metadata: &mut String) {
        if !metadata.contains(REFERENCE) {
            return;
        }
        let Ok(mut told) = serde_json::from_str::<Json>(metadata) else { return };
        let Ok(Some(row)) = self.views.get_run(run) else { return };
        if row.dialect != "airflow" || told["ref"] != Json::Bool(true) {
            return;
        }
        let (name, uri) = (told["name"].as_str(), told["uri"].as_str());
        // One that nobody describes stays as the task named it.
        if let Ok(Some(known)) = self.asset_of(&row.namespace, name, uri) {
            if let Some(uri) = known["uri"].as_str() {
                *asset = asset_name(uri);
            }
            (told["name"], told["uri"]) = (known["name"].clone(), known["uri"].clone());
            *metadata = told.to_string();
        }
    }

    pub(super) fn asset(
        &self,
        namespace: &str,
        name: Option<&str>,
        uri: Option<&str>,
    ) -> Result<Json, Refused> {
        Ok(match self.asset_of(namespace, name, uri)? {
            Some(mut asset) => {
                asset["type"] = json!("AssetResult");
                asset
            }
            None => {
                let asked = match name {
                    Some(name) => json!({"name": name}),
                    None => json!({"uri": uri}),
                };
                Refused::not_found("ASSET_NOT_FOUND", asked).body()
            }
        })
    }

    /// The assets that have been published by way of an alias.
    pub(crate) fn assets_by_alias(&self, namespace: &str, alias: &str) -> Result<Json, Refused> {
        let mut assets = BTreeMap::new();
        for event in self.history(namespace, &asset_name(alias), |_| true)? {
            let told: Json = serde_json::from_str(&event.metadata).unwrap_or_default();
            if let Some(uri) = told["uri"].as_str() {
                let asset = json!({
                    "name": told["name"], "uri": uri, "group": "asset",
                    "extra": told.get("asset_extra").filter(|e| e.is_object()).cloned().unwrap_or(json!({})),
                });
                assets.insert(uri.to_owned(), asset);
            }
        }
        let assets: Vec<Json> = assets.into_values().collect();
        Ok(json!({"type": "AssetsByAliasResult", "assets": assets}))
    }

    fn history(
        &self,
        namespace: &str,
        asset: &str,
        wanted: impl Fn(&Materialization) -> bool,
    ) -> Result<Vec<Materialization>, Refused> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        while all.len() < EVENTS_MAX {
            let page = self.views.asset_history(namespace, asset, None, cursor.as_deref(), 1000)?;
            all.extend(page.items.into_iter().filter(|event| wanted(event)));
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        Ok(all)
    }

    pub(super) fn asset_events(
        &self,
        namespace: &str,
        which: &AssetEvents,
    ) -> Result<Json, Refused> {
        let known = match &which.alias_name {
            Some(_) => None,
            None => self.asset_of(namespace, which.name.as_deref(), which.uri.as_deref())?,
        };
        let place = match (&which.alias_name, &known, &which.uri) {
            (Some(alias), _, _) => alias.clone(),
            (None, Some(asset), _) => asset["uri"].as_str().unwrap_or_default().to_owned(),
            (None, None, Some(uri)) => uri.clone(),
            (None, None, None) => {
                return Ok(json!({"type": "AssetEventsResult", "asset_events": []}));
            }
        };
        let instant = |text: &Option<String>| -> Option<Timestamp> { text.as_ref()?.parse().ok() };
        let (after, before) = (instant(&which.after), instant(&which.before));
        let mut events = self.history(namespace, &asset_name(&place), |event| {
            after.is_none_or(|at| event.at >= at) && before.is_none_or(|at| event.at <= at)
        })?;
        if which.ascending {
            events.reverse();
        }
        events.truncate(which.limit.map_or(usize::MAX, |limit| limit as usize));
        let mut told = Vec::with_capacity(events.len());
        for event in &events {
            told.push(self.asset_event(event, known.as_ref())?);
        }
        Ok(json!({"type": "AssetEventsResult", "asset_events": told}))
    }

    fn asset_event(&self, event: &Materialization, known: Option<&Json>) -> Result<Json, Refused> {
        let told: Json = serde_json::from_str(&event.metadata).unwrap_or_default();
        let asset = known.cloned().unwrap_or_else(
            || json!({"name": told["name"], "uri": told["uri"], "group": "asset", "extra": {}}),
        );
        let run = event.run.map(|run| self.views.get_run(run)).transpose()?.flatten();
        let task = match (event.run, event.task) {
            (Some(run), Some(task)) => self.views.get_task(kobza_model::TaskId { run, task })?,
            _ => None,
        };
        Ok(json!({
            "id": event.seq,
            "timestamp": event.at,
            "extra": event_extra(&told),
            "asset": asset,
            "created_dagruns": [],
            "source_task_id": task.as_ref().map(|task| task.name.clone()),
            "source_dag_id": run.as_ref().map(|run| run.workflow.clone()),
            "source_run_id": run.as_ref().map(crate::run_id),
            "source_map_index": task.as_ref().map_or(-1, map_index),
            "partition_key": event.partition,
        }))
    }
}

/// What an event's metadata says beside the asset: of an event of another system, all of it.
pub(crate) fn event_extra(metadata: &Json) -> Json {
    let extra = if metadata.get("uri").is_some() { &metadata["extra"] } else { metadata };
    if extra.is_object() { extra.clone() } else { json!({}) }
}

/// The first description of an asset in a serialised DAG.
fn named(value: &Json, name: Option<&str>, uri: Option<&str>) -> Option<Json> {
    match value {
        Json::Object(map) => {
            let text = |field: &str| map.get(field).and_then(Json::as_str);
            if text("__type") == Some("asset") {
                // With its fields beside its type, or under it.
                let inner = map.get("__var").and_then(Json::as_object).unwrap_or(map);
                let text = |field: &str| inner.get(field).and_then(Json::as_str);
                let fits = name.is_none_or(|name| text("name") == Some(name))
                    && uri.is_none_or(|uri| text("uri") == Some(uri));
                if fits && let (Some(name), Some(uri)) = (text("name"), text("uri")) {
                    let extra = inner.get("extra").map(plain).filter(Json::is_object);
                    return Some(json!({
                        "name": name, "uri": uri, "group": text("group").unwrap_or("asset"),
                        "extra": extra.unwrap_or(json!({})),
                    }));
                }
            }
            map.values().find_map(|item| named(item, name, uri))
        }
        Json::Array(items) => items.iter().find_map(|item| named(item, name, uri)),
        _ => None,
    }
}

/// A value without the marks of its types.
fn plain(value: &Json) -> Json {
    match value {
        Json::Object(map) if map.contains_key("__type") => {
            map.get("__var").map(plain).unwrap_or_default()
        }
        Json::Object(map) => {
            Json::Object(map.iter().map(|(key, item)| (key.clone(), plain(item))).collect())
        }
        Json::Array(items) => Json::Array(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}
