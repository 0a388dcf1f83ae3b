//! Assets, as DAGs name them, and what happened to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kobza_engine::Command;
use kobza_model::{Json, RunRow, TaskId, Timestamp, Workflow};
use kobza_store::Materialization;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Call, Reply, RestError};
use super::definitions::Digest;
use super::listing::{Filter, Listing};
use super::table::{Route, get, operate};
use super::{NAMESPACE, Rest};
use crate::dag::plain;
use crate::desk::map_index;
use crate::ids::{self, asset_name};
use crate::states::run_word;
use crate::timetable::{AssetCondition, Timetable};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/assets", list),
        get("/api/v2/assets/aliases", aliases),
        get("/api/v2/assets/aliases/{asset_alias_id}", alias),
        get("/api/v2/assets/events", events),
        operate("POST", "/api/v2/assets/events", publish),
        get("/api/v2/assets/{asset_id}", one),
        operate("POST", "/api/v2/assets/{asset_id}/materialize", materialize),
    ]
}

/// Most events that a list looks through.
const EVENTS_MAX: usize = 10_000;

/// The number of an asset.
pub(crate) fn asset_id(name: &str, uri: &str) -> u64 {
    ids::number("asset", &format!("{name}\n{uri}"))
}

/// An asset by its name and URI.
type Key = (String, String);

/// The assets of a version of a DAG.
#[derive(Default)]
pub(crate) struct DagAssets {
    /// Group, extra and the names of its watchers.
    known: BTreeMap<Key, (String, Json, Vec<String>)>,
    /// Those that start its runs.
    schedule: BTreeSet<Key>,
    /// By task.
    produced: BTreeSet<(Key, String)>,
    consumed: BTreeSet<(Key, String)>,
    /// Groups by name.
    aliases: BTreeMap<String, String>,
}

impl DagAssets {
    pub(crate) fn read(workflow: &Workflow, timetable: Option<&Timetable>) -> Self {
        let mut found = Self::default();
        for leaf in
            timetable.and_then(Timetable::assets).map(AssetCondition::leaves).into_iter().flatten()
        {
            match leaf {
                AssetCondition::Asset(asset) => {
                    let key = (asset.name.clone(), asset.uri.clone());
                    let watchers = asset.watchers.iter().map(|(name, _)| name.clone()).collect();
                    let fact = (asset.group.clone(), plain(&asset.extra), watchers);
                    found.known.insert(key.clone(), fact);
                    found.schedule.insert(key);
                }
                AssetCondition::Alias { name, group } => {
                    found.aliases.insert(name.clone(), group.clone());
                }
                _ => {}
            }
        }
        let nodes = super::definitions::graph(workflow).map(|graph| graph.nodes.as_slice());
        for node in nodes.unwrap_or_default() {
            let raw = &node.arguments["task"];
            let shared = plain(&raw["partial_kwargs"]);
            for (field, produces) in [("outlets", true), ("inlets", false)] {
                let entries = raw[field].as_array().or_else(|| shared[field].as_array());
                for entry in entries.into_iter().flatten() {
                    found.entry(entry, &node.name, produces);
                }
            }
        }
        found
    }

    fn entry(&mut self, entry: &Json, task: &str, produces: bool) {
        let kind = entry["__type"].as_str().unwrap_or_default();
        let own = if entry["__var"].is_object() { &entry["__var"] } else { entry };
        let text = |field: &str| own[field].as_str().map(str::to_owned);
        let group = text("group").unwrap_or_else(|| "asset".to_owned());
        match (kind, text("name"), text("uri")) {
            ("asset", Some(name), Some(uri)) => {
                let key = (name, uri);
                let fact = (group, plain(&own["extra"]), Vec::new());
                self.known.entry(key.clone()).or_insert(fact);
                let side = if produces { &mut self.produced } else { &mut self.consumed };
                side.insert((key, task.to_owned()));
            }
            ("asset_alias", Some(name), _) => {
                self.aliases.insert(name, group);
            }
            _ => {}
        }
    }

    /// Whether an asset of such a name or URI starts its runs.
    pub(crate) fn scheduled_by(&self, part: &str) -> bool {
        let has = |text: &str| text.to_lowercase().contains(part);
        self.schedule.iter().any(|(name, uri)| has(name) || has(uri))
    }
}

/// All assets that some DAG names.
struct All {
    dags: Vec<Arc<Digest>>,
    known: BTreeMap<Key, (String, Json, Vec<String>)>,
}

impl All {
    fn read(rest: &Rest) -> Result<Self, RestError> {
        let dags = rest.current()?;
        let mut known = BTreeMap::new();
        for dag in &dags {
            for (key, fact) in &dag.assets.known {
                known.entry(key.clone()).or_insert_with(|| fact.clone());
            }
        }
        Ok(Self { dags, known })
    }

    fn by_id(&self, id: i64) -> Option<&Key> {
        self.known.keys().find(|(name, uri)| i64::try_from(asset_id(name, uri)) == Ok(id))
    }

    fn aliases(&self) -> BTreeMap<&str, &str> {
        let all = self.dags.iter().flat_map(|dag| &dag.assets.aliases);
        all.map(|(name, group)| (name.as_str(), group.as_str())).collect()
    }

    fn told(&self, rest: &Rest, key: &Key) -> Result<Json, RestError> {
        let (name, uri) = key;
        let (group, extra, watchers) = self.known.get(key).cloned().unwrap_or_default();
        let mut since: Option<(Timestamp, Timestamp)> = None;
        let (mut scheduled, mut producing, mut consuming) = (Vec::new(), Vec::new(), Vec::new());
        for dag in &self.dags {
            if !dag.assets.known.contains_key(key) {
                continue;
            }
            let at = dag.created_at;
            since = Some(since.map_or((at, at), |(from, to)| (from.min(at), to.max(at))));
            let dated = |mut entry: Json| {
                entry["created_at"] = json!(at);
                entry["updated_at"] = json!(at);
                entry
            };
            if dag.assets.schedule.contains(key) {
                scheduled.push(dated(json!({"dag_id": dag.dag_id})));
            }
            for (side, list) in
                [(&dag.assets.produced, &mut producing), (&dag.assets.consumed, &mut consuming)]
            {
                for (_, task) in side.iter().filter(|(own, _)| own == key) {
                    list.push(dated(json!({"dag_id": dag.dag_id, "task_id": task})));
                }
            }
        }
        let (created, updated) = since.unwrap_or_default();
        let watchers: Vec<Json> = watchers
            .iter()
            .map(|watcher| {
                let id = ids::number("watcher", &format!("{uri}\n{watcher}"));
                json!({"name": watcher, "trigger_id": id, "created_date": created})
            })
            .collect();
        let mut by = Vec::new();
        for (alias, group) in self.aliases() {
            let published = rest.desk.assets_by_alias(NAMESPACE, alias)?;
            if published["assets"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|a| a["uri"] == uri.as_str())
            {
                by.push(alias_told(alias, group));
            }
        }
        let state = rest.desk.views.get_asset(NAMESPACE, &asset_name(uri))?;
        let last = state.and_then(|state| state.materialized_seq.zip(state.materialized_at));
        Ok(json!({
            "id": asset_id(name, uri), "name": name, "uri": uri, "group": group,
            "extra": extra.as_object().cloned().unwrap_or_default(),
            "created_at": created, "updated_at": updated, "scheduled_dags": scheduled,
            "producing_tasks": producing, "consuming_tasks": consuming, "aliases": by,
            "watchers": watchers,
            "last_asset_event": last.map(|(seq, at)| json!({"id": seq, "timestamp": at})),
        }))
    }
}

fn alias_told(name: &str, group: &str) -> Json {
    json!({"id": ids::number("alias", name), "name": name, "group": group})
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const ASSETS: Listing = Listing {
        key: "assets",
        filters: &[
            Filter::Text("name", "name"),
            Filter::Text("uri", "uri"),
            Filter::Any("dag_ids", "_dags"),
        ],
        order: &[
            ("id", "name"),
            ("name", "name"),
            ("uri", "uri"),
            ("created_at", "created_at"),
            ("updated_at", "updated_at"),
        ],
    };
    let all = All::read(rest)?;
    let mut items = Vec::new();
    for key in all.known.keys() {
        let mut told = all.told(rest, key)?;
        let of = all.dags.iter().filter(|dag| dag.assets.known.contains_key(key));
        told["_dags"] = json!(of.map(|dag| dag.dag_id.as_str()).collect::<Vec<_>>());
        items.push(told);
    }
    ASSETS.simple(call, items)
}

fn found(all: &All, id: i64) -> Result<&Key, RestError> {
    all.by_id(id)
        .ok_or_else(|| RestError::not_found(format!("The Asset with ID: `{id}` was not found")))
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let all = All::read(rest)?;
    let key = found(&all, call.number("asset_id")?)?;
    Reply::ok(all.told(rest, key)?)
}

fn aliases(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const ALIASES: Listing = Listing {
        key: "asset_aliases",
        filters: &[Filter::Text("name", "name")],
        order: &[("id", "name"), ("name", "name")],
    };
    let all = All::read(rest)?;
    let items = all.aliases().into_iter().map(|(name, group)| alias_told(name, group)).collect();
    ALIASES.simple(call, items)
}

fn alias(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let id = call.number("asset_alias_id")?;
    let all = All::read(rest)?;
    let found = all.aliases().into_iter().map(|(name, group)| alias_told(name, group));
    Reply::ok(found.into_iter().find(|alias| alias["id"] == id).ok_or_else(|| {
        RestError::not_found(format!("The Asset Alias with ID: `{id}` was not found"))
    })?)
}

/// Runs by the events that they were told of: the asset's URI, and when.
struct Consumers(BTreeMap<(String, String), Vec<Json>>);

impl Consumers {
    fn read(rest: &Rest) -> Result<Self, RestError> {
        let mut found: BTreeMap<(String, String), Vec<Json>> = BTreeMap::new();
        for run in rest.runs_of("~")? {
            let events = run.extra["airflow"]["consumed_events"].as_array().cloned();
            let events = events.unwrap_or_default();
            for (place, event) in events.iter().enumerate() {
                let (Some(uri), Some(at)) =
                    (event["asset"]["uri"].as_str(), event["timestamp"].as_str())
                else {
                    continue;
                };
                let last = place + 1 == events.len();
                found
                    .entry((uri.to_owned(), at.to_owned()))
                    .or_default()
                    .push(reference(&run, last));
            }
        }
        Ok(Self(found))
    }

    fn of(&self, uri: &str, at: Timestamp) -> Vec<Json> {
        self.0.get(&(uri.to_owned(), at.to_string())).cloned().unwrap_or_default()
    }
}

fn reference(run: &RunRow, triggering: bool) -> Json {
    json!({
        "run_id": crate::run_id(run), "dag_id": run.workflow,
        "logical_date": run.extra["airflow"]["logical_date"],
        "start_date": run.started_at.unwrap_or(run.created_at), "end_date": run.ended_at,
        "state": run_word(run.state), "data_interval_start": run.interval_start,
        "data_interval_end": run.interval_end,
        "partition_key": run.extra["airflow"]["partition_key"], "triggering": triggering,
    })
}

fn event(
    rest: &Rest,
    key: &Key,
    group: &str,
    event: &Materialization,
    consumers: &Consumers,
) -> Result<Json, RestError> {
    let (name, uri) = key;
    let told: Json = serde_json::from_str(&event.metadata).unwrap_or_default();
    let run = event.run.map(|run| rest.desk.views.get_run(run)).transpose()?.flatten();
    let task = match (event.run, event.task) {
        (Some(run), Some(task)) => rest.desk.views.get_task(TaskId { run, task })?,
        _ => None,
    };
    Ok(json!({
        "id": event.seq, "asset_id": asset_id(name, uri), "uri": uri, "name": name, "group": group,
        "extra": crate::desk::event_extra(&told),
        "source_task_id": task.as_ref().map(|task| &task.name),
        "source_dag_id": run.as_ref().map(|run| &run.workflow),
        "source_run_id": run.as_ref().map(crate::run_id),
        "source_map_index": task.as_ref().map_or(-1, map_index),
        "created_dagruns": consumers.of(uri, event.at),
        "timestamp": event.at, "partition_key": event.partition,
    }))
}

impl Rest {
    fn history(&self, uri: &str) -> Result<Vec<Materialization>, RestError> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        while all.len() < EVENTS_MAX {
            let (name, cut) = (asset_name(uri), cursor.as_deref());
            let page = self.desk.views.asset_history(NAMESPACE, &name, None, cut, 1000)?;
            all.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        Ok(all)
    }
}

const EVENTS: Listing = Listing {
    key: "asset_events",
    filters: &[
        Filter::Any("asset_id", "asset_id"),
        Filter::Any("source_dag_id", "source_dag_id"),
        Filter::Any("source_task_id", "source_task_id"),
        Filter::Any("source_run_id", "source_run_id"),
        Filter::Any("source_map_index", "source_map_index"),
        Filter::Text("name", "name"),
        Filter::Time("timestamp", "timestamp"),
    ],
    order: &[
        ("timestamp", "timestamp"),
        ("id", "id"),
        ("source_task_id", "source_task_id"),
        ("source_dag_id", "source_dag_id"),
        ("source_run_id", "source_run_id"),
        ("source_map_index", "source_map_index"),
        ("created_at", "timestamp"),
    ],
};

fn events(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let all = All::read(rest)?;
    let consumers = Consumers::read(rest)?;
    let wanted = call.query.number("asset_id")?;
    let mut items = Vec::new();
    for (key, (group, _, _)) in &all.known {
        if wanted.is_some_and(|id| i64::try_from(asset_id(&key.0, &key.1)) != Ok(id)) {
            continue;
        }
        for one in rest.history(&key.1)? {
            items.push(event(rest, key, group, &one, &consumers)?);
        }
    }
    EVENTS.simple(call, items)
}

/// The events that started a run.
pub(crate) fn of_run(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let run = rest.run_of(call)?;
    let all = All::read(rest)?;
    let consumers = Consumers::read(rest)?;
    let told = run.extra["airflow"]["consumed_events"].as_array().cloned().unwrap_or_default();
    let mut shown = Vec::new();
    for one in told {
        let text = |field: &str| one["asset"][field].as_str().unwrap_or_default().to_owned();
        let key = (text("name"), text("uri"));
        let at = one["timestamp"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let group = all.known.get(&key).map_or("asset", |(group, _, _)| group.as_str());
        let found = rest.history(&key.1)?.into_iter().find(|event| Some(event.at) == at);
        if let Some(found) = found {
            shown.push(event(rest, &key, group, &found, &consumers)?);
        }
    }
    Reply::ok(json!({"total_entries": shown.len(), "asset_events": shown}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publish {
    asset_id: i64,
    #[serde(default)]
    partition_key: Option<String>,
    #[serde(default)]
    extra: serde_json::Map<String, Json>,
    #[serde(default)]
    access_control: Option<Json>,
}

/// An event that somebody outside tells of.
fn publish(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let mut body: Publish = call.body()?;
    if body.access_control.is_some() {
        return Err(RestError::unserved(
            "access_control is not served by Kobza: there are no teams",
        ));
    }
    let all = All::read(rest)?;
    let id = body.asset_id;
    let key = all
        .by_id(id)
        .ok_or_else(|| RestError::not_found(format!("Asset with ID: `{id}` was not found")))?;
    let (group, extra, _) = &all.known[key];
    body.extra.insert("from_rest_api".to_owned(), json!(true));
    let metadata = json!({
        "name": key.0, "uri": key.1, "extra": body.extra,
        "asset_extra": extra.as_object().cloned().unwrap_or_default(),
    });
    let (asset, metadata) = (asset_name(&key.1), metadata.to_string());
    rest.submit(Command::Publish {
        asset: asset.clone(),
        partition: body.partition_key.clone(),
        metadata: metadata.clone(),
    })?;
    let page = rest.desk.views.asset_history(NAMESPACE, &asset, None, None, 100)?;
    let own = page.items.iter().find(|event| event.metadata == metadata);
    let own = own.ok_or_else(|| RestError::internal("the event is not in the asset's history"))?;
    Reply::ok(event(rest, key, group, own, &Consumers(BTreeMap::new()))?)
}

/// Starts the DAG that makes an asset.
fn materialize(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let all = All::read(rest)?;
    let id = call.number("asset_id")?;
    let key = found(&all, id)?;
    let makers: BTreeSet<&str> = all
        .dags
        .iter()
        .filter(|dag| dag.assets.produced.iter().any(|(own, _)| own == key))
        .map(|dag| dag.dag_id.as_str())
        .collect();
    let mut makers = makers.into_iter();
    match (makers.next(), makers.next()) {
        (None, _) => Err(RestError::not_found(format!("No Dag materializes asset with ID: {id}"))),
        (Some(_), Some(_)) => {
            Err(RestError::conflict(format!("More than one Dag materializes asset with ID: {id}")))
        }
        (Some(dag_id), None) => {
            let body = super::start::undated(call)?;
            super::start::begin(rest, call, dag_id, body, "asset_materialization")
        }
    }
}
