//! Runs that triggers and backfills start, as Airflow makes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kobza_engine::{ClearOptions, Command, StartRun, StopMode};
use kobza_model::{Json, RunId, RunState, TaskId, Timestamp};
use kobza_store::{Materialization, StoredWorkflow, ViewError};
use kobza_triggers::backfill::BackfillItem;
use kobza_triggers::service::{DialectStart, NoStart, StartAs, Starter};
use kobza_triggers::{BackfillPiece, EventWindow, StartSpec};
use serde_json::json;
use sha1::{Digest as _, Sha1};

use crate::desk::{Desk, map_index};
use crate::schedule::topic;
use crate::timetable::{AssetCondition, RunType, Timetable, isoformat, random_suffix};

/// Events that one run is told of, the newest: they travel in its row.
const EVENTS_MAX: usize = 1_000;

/// Starts the runs of slots.
#[derive(Debug)]
pub struct DagStarter(pub Arc<Desk>);

impl Starter for DagStarter {
    fn start(
        &self,
        namespace: &str,
        stored: &StoredWorkflow,
        mut start: StartSpec,
        _now: Timestamp,
    ) -> Result<DialectStart, NoStart> {
        let conf = std::mem::replace(&mut start.params, Json::Null);
        let conf = if conf.is_null() { json!({}) } else { conf };
        (self.0.starts.check)(&stored.workflow, conf.clone()).map_err(NoStart::Refused)?;
        let unreadable = |error: ViewError| NoStart::Unreadable(error.to_string());
        if let Some(piece) = start.backfill.take() {
            return self.backfilled(namespace, stored, start, &piece, conf).map_err(unreadable);
        }
        if let Some(window) = start.window.take() {
            let dag = &stored.workflow.source["airflow"]["dag"];
            let timetable =
                Timetable::parse(&dag["timetable"]).map_err(|e| NoStart::Refused(e.to_string()))?;
            // Without catch-up, what happened before the DAG was scheduled by it does not count.
            let all = window.first && dag["catchup"] == Json::Bool(true);
            let date = window.date;
            let window = EventWindow { after: if all { 0 } else { window.after }, ..window };
            let events = match timetable.assets() {
                Some(assets) => self.0.consumed(namespace, assets, &window).map_err(unreadable)?,
                None => Vec::new(),
            };
            let random = random(&[&stored.workflow.name, &start.key]);
            start.key = RunType::AssetTriggered.run_id(None, &isoformat(start.at), &random);
            start.extra = json!({"airflow": {
                "logical_date": null,
                "run_after": start.at,
                "run_type": RunType::AssetTriggered.word(),
                "triggered_by": "asset",
                "partition_key": start.partition,
                "partition_date": date,
                "consumed_events": events,
            }});
        }
        Ok(new_run(namespace, stored, start, conf))
    }

    fn stop_mode(&self) -> StopMode {
        StopMode::Cancel
    }

    fn newest(
        &self,
        namespace: &str,
        dag_id: &str,
        item: &BackfillItem,
    ) -> Option<Result<Option<(RunId, RunState)>, String>> {
        let extra = &item.tick.as_ref()?.extra;
        let found = self.run_of(namespace, dag_id, extra).map_err(|e| e.to_string());
        Some(found.map(|run| run.map(|row| (row.run, row.state))))
    }
}

impl DagStarter {
    /// The run that is there for the date of a tick.
    fn run_of(
        &self,
        namespace: &str,
        dag_id: &str,
        extra: &Json,
    ) -> Result<Option<kobza_model::RunRow>, ViewError> {
        let Desk { dated, views, .. } = &*self.0;
        let date = |name: &str| extra["airflow"][name].as_str()?.parse::<Timestamp>().ok();
        if let Some(date) = date("partition_date") {
            return dated.run_of_partition(views.as_ref(), (namespace, dag_id), date);
        }
        match date("logical_date") {
            Some(date) => dated.run_at(views.as_ref(), (namespace, dag_id), date),
            None => Ok(None),
        }
    }

    /// A run of a backfill: one that is there already begins anew, unless it is of a partition,
    /// which gets another one.
    fn backfilled(
        &self,
        namespace: &str,
        stored: &StoredWorkflow,
        mut start: StartSpec,
        piece: &BackfillPiece,
        conf: Json,
    ) -> Result<DialectStart, ViewError> {
        let dag_id = &stored.workflow.name;
        let known = self.run_of(namespace, dag_id, &start.extra)?;
        let mut own = start.extra["airflow"].take();
        own["run_type"] = json!(RunType::Backfill.word());
        own["triggered_by"] = json!("backfill");
        own["triggering_user"] = json!(piece.created_by);
        own["backfill"] = json!(piece.id);
        own["first_of_backfill"] = json!(piece.position == 0);
        let is_partition = own["partition_key"].is_string();
        if let Some(row) = known.filter(|_| !is_partition) {
            let mut extra = row.extra.clone();
            if !extra.is_object() {
                extra = json!({});
            }
            if extra["airflow"].is_null() {
                extra["airflow"] = json!({});
            }
            for name in ["run_type", "triggered_by", "backfill", "first_of_backfill"] {
                extra["airflow"][name] = own[name].clone();
            }
            let params = conf.as_object().is_some_and(|fields| !fields.is_empty());
            let clear = Command::Clear {
                run: row.run,
                tasks: Vec::new(),
                options: ClearOptions::default(),
            };
            let annotate = Command::Annotate {
                run: row.run,
                labels: None,
                params: params.then_some(conf),
                extra: Some(extra),
            };
            return Ok(DialectStart {
                commands: vec![annotate, clear],
                run: StartAs::Again(row.run),
                writes: Vec::new(),
            });
        }
        let run_after = isoformat(start.at);
        let random = random(&[dag_id, &start.key]);
        let timetable = Timetable::parse(&stored.workflow.source["airflow"]["dag"]["timetable"]);
        let id = match (&timetable, own["partition_key"].as_str()) {
            (Ok(timetable), Some(key)) => {
                timetable.run_id(RunType::Backfill, &run_after, Some(key), &random).ok()
            }
            _ => None,
        };
        start.key = id.unwrap_or_else(|| format!("{}__{run_after}", RunType::Backfill));
        start.extra = json!({"airflow": own});
        Ok(new_run(namespace, stored, start, conf))
    }
}

fn new_run(
    namespace: &str,
    stored: &StoredWorkflow,
    start: StartSpec,
    params: Json,
) -> DialectStart {
    let run = Box::new(StartRun {
        run: start.run,
        namespace: namespace.to_owned(),
        workflow: stored.workflow.clone(),
        version: stored.version.clone(),
        params,
        key: Some(start.key),
        trigger: start.trigger.to_owned(),
        interval: start.interval,
        partition: start.partition,
        labels: start.labels,
        parent: None,
        priority: 0,
        extra: start.extra,
    });
    DialectStart { commands: Vec::new(), run: StartAs::New(run), writes: Vec::new() }
}

/// Eight characters that are the same for the same purpose.
fn random(purpose: &[&str]) -> String {
    let digest = Sha1::digest(purpose.join("#").as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    random_suffix(bytes)
}

impl Desk {
    /// What happened to the assets of a condition in a window, oldest first, as a run is told of it.
    fn consumed(
        &self,
        namespace: &str,
        assets: &AssetCondition,
        window: &EventWindow,
    ) -> Result<Vec<Json>, ViewError> {
        let mut leaves: BTreeMap<String, &AssetCondition> = BTreeMap::new();
        for leaf in assets.leaves() {
            leaves.insert(topic(leaf), leaf);
            // What is known by its name has its updates under its address.
            if let AssetCondition::NameRef(name) = leaf
                && let Ok(Some(known)) = self.asset_of(namespace, Some(name), None)
                && let Some(uri) = known["uri"].as_str()
            {
                leaves.insert(crate::ids::asset_name(uri), leaf);
            }
        }
        let mut events: Vec<(Materialization, &str, &AssetCondition)> = Vec::new();
        for (name, leaf) in &leaves {
            let mut cursor = None::<String>;
            loop {
                let page =
                    self.views.asset_history(namespace, name, None, cursor.as_deref(), 1000)?;
                let past = page.items.last().is_none_or(|event| event.seq <= window.after);
                let own = page.items.into_iter().filter(|event| {
                    event.seq > window.after
                        && event.seq <= window.through
                        && match &window.picked {
                            Some(numbers) => numbers.contains(&event.seq),
                            None => event.partition.is_none(),
                        }
                });
                events.extend(own.map(|event| (event, name.as_str(), *leaf)));
                match page.next {
                    Some(next) if !past && events.len() < 2 * EVENTS_MAX => cursor = Some(next),
                    _ => break,
                }
            }
        }
        events.sort_by_key(|(event, _, _)| event.seq);
        let mut told = Vec::new();
        let mut seen = BTreeSet::new();
        for (event, name, leaf) in &events {
            let metadata: Json = serde_json::from_str(&event.metadata).unwrap_or_default();
            // What came by an alias is there under its own name too.
            if let (AssetCondition::Alias { .. }, Some(uri)) = (leaf, metadata["uri"].as_str())
                && leaves.contains_key(&crate::ids::asset_name(uri))
            {
                continue;
            }
            if seen.insert(event.seq) {
                told.push(self.consumed_event(event, &metadata, name, leaf)?);
            }
        }
        if told.len() > EVENTS_MAX {
            let left_out = told.len() - EVENTS_MAX;
            tracing::warn!(left_out, "a run is told of the newest {EVENTS_MAX} asset events only");
            told.drain(..left_out);
        }
        Ok(told)
    }

    /// `AssetEventDagRunReference`.
    fn consumed_event(
        &self,
        event: &Materialization,
        metadata: &Json,
        name: &str,
        leaf: &AssetCondition,
    ) -> Result<Json, ViewError> {
        let asset = match leaf {
            AssetCondition::Asset(asset) => {
                let extra = if asset.extra.is_object() { asset.extra.clone() } else { json!({}) };
                json!({"name": asset.name, "uri": asset.uri, "extra": extra})
            }
            _ => json!({
                "name": metadata["name"].as_str().unwrap_or(name),
                "uri": metadata["uri"].as_str().unwrap_or(name),
                "extra": metadata.get("asset_extra").filter(|e| e.is_object()).cloned()
                    .unwrap_or_else(|| json!({})),
            }),
        };
        let aliases = metadata["aliases"].as_array().into_iter().flatten();
        let aliases: Vec<Json> =
            aliases.chain(metadata.get("alias")).map(|name| json!({"name": name})).collect();
        let run = event.run.map(|run| self.views.get_run(run)).transpose()?.flatten();
        let task = match (event.run, event.task) {
            (Some(run), Some(task)) => self.views.get_task(TaskId { run, task })?,
            _ => None,
        };
        Ok(json!({
            "asset": asset,
            "extra": crate::desk::event_extra(metadata),
            "source_task_id": task.as_ref().map(|task| task.name.clone()),
            "source_dag_id": run.as_ref().map(|run| run.workflow.clone()),
            "source_run_id": run.as_ref().map(crate::run_id),
            "source_map_index": task.as_ref().map(map_index),
            "source_aliases": aliases,
            "timestamp": event.at,
            "partition_key": event.partition,
        }))
    }
}
