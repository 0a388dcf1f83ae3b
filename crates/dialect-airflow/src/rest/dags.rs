//! DAGs: lists, one, pausing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kobza_model::{Json, RunState, Timestamp};
use kobza_runtime::{Submission, wall_now};
use kobza_store::{RunFilter, WorkflowFilter, WorkflowSummary, Write, kinds};
use kobza_triggers::service::TriggerView;
use kobza_triggers::{Next, Timetables as _};
use serde::Deserialize;
use serde_json::{Map, json};

use super::answer::{Call, Reply, RestError};
use super::definitions::Digest;
use super::lens::Lens;
use super::listing::{Filter, LIMIT_MAX, Listing};
use super::table::{Route, get, operate};
use super::{NAMESPACE, Rest};
use crate::dag::plain;
use crate::schedule::DagTimetables;
use crate::states::{run_word, runs_of};
use crate::timetable::{AssetCondition, Timetable};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/dags", list),
        operate("PATCH", "/api/v2/dags", patch_many),
        get("/api/v2/dags/{dag_id}", one),
        operate("PATCH", "/api/v2/dags/{dag_id}", patch),
        get("/api/v2/dags/{dag_id}/details", details),
        get("/api/v2/dagStats", stats),
        get("/api/v2/dagTags", tags),
    ]
}

const DAGS: Listing = Listing {
    key: "dags",
    filters: &[
        Filter::Text("dag_id", "dag_id"),
        Filter::Text("dag_display_name", "dag_display_name"),
        Filter::Any("owners", "owners"),
        Filter::Flag("paused", "is_paused"),
        Filter::Flag("has_import_errors", "has_import_errors"),
        Filter::Flag("has_asset_schedule", "_has_asset_schedule"),
        Filter::Flag("is_favorite", "_is_favorite"),
        Filter::Any("last_dag_run_state", "_last_run/state"),
        Filter::Any("dag_run_state", "_last_run/state"),
        Filter::Time("dag_run_start_date", "_last_run/start_date"),
        Filter::Time("dag_run_end_date", "_last_run/end_date"),
        Filter::Any("bundle_name", "bundle_name"),
        Filter::Any("bundle_version", "bundle_version"),
        Filter::Any("timetable_type", "_timetable_type"),
    ],
    order: &[
        ("dag_id", "dag_id"),
        ("dag_display_name", "dag_display_name"),
        ("next_dagrun", "next_dagrun_logical_date"),
        ("state", "_last_run/state"),
        ("start_date", "_last_run/start_date"),
        ("last_run_state", "_last_run/state"),
        ("last_run_run_after", "_last_run/run_after"),
        ("last_run_start_date", "_last_run/start_date"),
        ("last_run_end_date", "_last_run/end_date"),
    ],
};

/// What changes while a DAG stays the same.
struct Around {
    /// Files that do not parse.
    faults: BTreeSet<String>,
    /// By DAG: when the next run is made, and for which data.
    next: BTreeMap<String, Json>,
}

impl Around {
    fn read(rest: &Rest) -> Result<Self, RestError> {
        let faults = rest.objects(kinds::IMPORT_ERROR, "")?.into_iter().map(|o| o.key).collect();
        let triggers = rest.block_on(rest.triggers.list(Some(NAMESPACE)));
        let triggers = triggers.map_err(|error| RestError::internal(error.to_string()))?;
        let mut next = BTreeMap::new();
        for view in triggers {
            if view.key.name == "timetable"
                && let Some(at) = view.next
            {
                next.insert(view.key.workflow.clone(), planned(&view, at));
            }
        }
        Ok(Self { faults, next })
    }

    fn dag(&self, digest: &Digest, paused: bool) -> Json {
        let mut told = digest.fixed.clone();
        told["is_paused"] = json!(paused);
        let file = told["relative_fileloc"].as_str().unwrap_or_default();
        told["has_import_errors"] = json!(self.faults.contains(file));
        let next = self.next.get(&digest.dag_id);
        for (name, field) in [
            ("next_dagrun_logical_date", "logical_date"),
            ("next_dagrun_data_interval_start", "start"),
            ("next_dagrun_data_interval_end", "end"),
            ("next_dagrun_run_after", "run_after"),
        ] {
            told[name] = next.map(|next| next[field].clone()).unwrap_or_default();
        }
        told["_is_favorite"] = json!(false);
        told
    }
}

/// The run that a schedule makes next: its timetable knows, or it is only known when.
fn planned(view: &TriggerView, at: Timestamp) -> Json {
    let timetable = DagTimetables::default().open(&view.row.spec["timetable"]);
    let next = timetable.map(|timetable| timetable.next(view.row.last.as_ref(), wall_now()));
    match next {
        Ok(Next::Tick(tick)) => {
            let (start, end) = tick.interval.unzip();
            json!({
                "logical_date": tick.extra["airflow"]["logical_date"],
                "start": start, "end": end, "run_after": tick.at,
            })
        }
        _ => json!({"run_after": at}),
    }
}

impl Rest {
    /// All DAGs that some file has.
    pub(crate) fn summaries(&self, last_runs: u32) -> Result<Vec<WorkflowSummary>, RestError> {
        let filter = WorkflowFilter {
            namespaces: vec![NAMESPACE.to_owned()],
            dialect: Some("airflow".to_owned()),
            last_runs,
            ..WorkflowFilter::default()
        };
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = self.desk.views.list_workflows(&filter, cursor.as_deref(), 1000)?;
            all.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// All current versions.
    pub(crate) fn current(&self) -> Result<Vec<Arc<Digest>>, RestError> {
        let mut all = Vec::new();
        for summary in self.summaries(0)? {
            all.extend(self.digest(&summary.name, Some(&summary.version))?);
        }
        Ok(all)
    }

    fn pause(&self, dag_ids: &[String], paused: bool) -> Result<(), RestError> {
        let write = |name: &String| Write::PauseWorkflow {
            namespace: NAMESPACE.to_owned(),
            name: name.clone(),
            paused,
        };
        let writes = dag_ids.iter().map(write).collect();
        self.submit(Submission { commands: Vec::new(), writes })?;
        for dag_id in dag_ids {
            self.block_on(self.triggers.set_workflow_paused(NAMESPACE, dag_id, paused))
                .map_err(|error| RestError::internal(error.to_string()))?;
        }
        Ok(())
    }
}

fn items(rest: &Rest, call: &Call) -> Result<Vec<(Json, ())>, RestError> {
    let around = Around::read(rest)?;
    let wanted: Vec<&str> = call.query.all("tags").collect();
    let every = call.query.one("tags_match_mode") == Some("all");
    let asset = call.query.one("asset_dependency").map(str::to_lowercase);
    let mut items = Vec::new();
    for summary in rest.summaries(1)? {
        let Some(digest) = rest.digest(&summary.name, Some(&summary.version))? else { continue };
        let has = |tag: &&str| summary.tags.iter().any(|own| own == tag);
        if !wanted.is_empty()
            && !(if every { wanted.iter().all(has) } else { wanted.iter().any(has) })
        {
            continue;
        }
        if let Some(part) = &asset
            && !digest.assets.scheduled_by(part)
        {
            continue;
        }
        let mut told = around.dag(&digest, summary.paused);
        if let Some(run) = summary.last_runs.first() {
            told["_last_run"] = json!({
                "state": run_word(run.state), "start_date": run.started_at,
                "end_date": run.ended_at, "run_after": crate::dag_run(run)["run_after"],
            });
        }
        items.push((told, ()));
    }
    Ok(items)
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    DAGS.page(call, items(rest, call)?, |item, ()| Ok(item))
}

fn told(rest: &Rest, call: &Call) -> Result<(Arc<Digest>, Json), RestError> {
    let digest = rest.dag(call.param("dag_id"))?;
    let stored = rest.desk.views.get_workflow(NAMESPACE, &digest.dag_id, None)?;
    let paused = stored.is_some_and(|stored| stored.paused);
    let told = super::listing::visible(Around::read(rest)?.dag(&digest, paused));
    Ok((digest, told))
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    Reply::ok(told(rest, call)?.1)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    is_paused: bool,
}

fn only_paused(call: &Call) -> Result<(), RestError> {
    if call.mask().is_some_and(|mask| mask != ["is_paused"]) {
        return Err(RestError::bad("Only `is_paused` field can be updated through the REST API"));
    }
    Ok(())
}

fn patch(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let body: Patch = call.body()?;
    only_paused(call)?;
    let digest = rest.dag(call.param("dag_id"))?;
    rest.pause(std::slice::from_ref(&digest.dag_id), body.is_paused)?;
    one(rest, call)
}

/// Pauses what a list's filters choose.
fn patch_many(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let body: Patch = call.body()?;
    only_paused(call)?;
    let mut chosen = items(rest, call)?;
    DAGS.keep(&call.query, &mut chosen)?;
    let total = chosen.len();
    let names: Vec<String> =
        chosen.iter().filter_map(|(dag, ())| dag["dag_id"].as_str().map(str::to_owned)).collect();
    rest.pause(&names, body.is_paused)?;
    let shown = chosen.into_iter().take(usize::try_from(LIMIT_MAX).unwrap_or(100));
    let shown: Vec<Json> = shown
        .map(|(mut dag, ())| {
            dag["is_paused"] = json!(body.is_paused);
            super::listing::visible(dag)
        })
        .collect();
    Reply::ok(json!({"dags": shown, "total_entries": total}))
}

fn details(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (digest, mut told) = told(rest, call)?;
    let dag = digest.dag();
    let date = |name: &str| {
        #[expect(clippy::cast_possible_truncation, reason = "seconds of a date")]
        plain(&dag[name]).as_f64().map(|seconds| Timestamp((seconds * 1e6) as i64))
    };
    let params: Map<String, Json> = dag["params"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pair| Some((pair[0].as_str()?.to_owned(), param(&plain(&pair[1])))))
        .collect();
    let running = RunFilter {
        namespaces: vec![NAMESPACE.to_owned()],
        workflow: Some(digest.dag_id.clone()),
        states: runs_of("running").unwrap_or_default().to_vec(),
        ..RunFilter::default()
    };
    let running = rest.desk.views.list_runs(&running, None, 1000)?.items.len();
    let timetable = Timetable::parse(&dag["timetable"]).ok();
    let more = json!({
        "catchup": dag["catchup"] == true,
        "dag_run_timeout": plain(&dag["dagrun_timeout"]).as_f64().map(duration),
        "asset_expression": timetable.as_ref().and_then(Timetable::assets).map(expression),
        "doc_md": dag["doc_md"],
        "start_date": date("start_date"),
        "end_date": date("end_date"),
        "is_paused_upon_creation": dag["is_paused_upon_creation"],
        "params": params,
        "render_template_as_native_obj": dag["render_template_as_native_obj"] == true,
        "template_search_path": dag["template_searchpath"],
        "timezone": dag["timezone"].as_str().unwrap_or("UTC"),
        "last_parsed": digest.created_at,
        "default_args": plain(&dag["default_args"]).as_object(),
        "rerun_with_latest_version": dag["rerun_with_latest_version"],
        "owner_links": plain(&dag["owner_links"]).as_object(),
        "is_favorite": false,
        "active_runs_count": running,
        "concurrency": told["max_active_tasks"],
        "latest_dag_version": Lens::new(rest).version(&digest.dag_id, &digest.version)?,
    });
    if let (Json::Object(told), Json::Object(more)) = (&mut told, more) {
        told.extend(more);
    }
    Reply::ok(told)
}

/// A parameter as Airflow shows it.
pub(crate) fn param(param: &Json) -> Json {
    json!({
        "value": param["default"],
        "schema": param["schema"].as_object().cloned().unwrap_or_default(),
        "description": param["description"],
        "source": param["source"],
    })
}

/// Seconds as an ISO 8601 duration.
fn duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let micros = (seconds.max(0.0) * 1e6).round() as u64;
    let (days, rest) = (micros / 86_400_000_000, micros % 86_400_000_000);
    let (whole, part) = (rest / 1_000_000, rest % 1_000_000);
    let mut text = "P".to_owned();
    if days > 0 {
        text += &format!("{days}D");
    }
    if rest > 0 || days == 0 {
        let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
        text.push('T');
        if hours > 0 {
            text += &format!("{hours}H");
        }
        if minutes > 0 {
            text += &format!("{minutes}M");
        }
        if part > 0 {
            text += &format!("{seconds}.{part:06}S");
        } else if seconds > 0 || whole == 0 {
            text += &format!("{seconds}S");
        }
    }
    text
}

/// What a DAG waits for, as Airflow's pages read it.
fn expression(condition: &AssetCondition) -> Json {
    match condition {
        AssetCondition::All(all) => json!({"all": all.iter().map(expression).collect::<Vec<_>>()}),
        AssetCondition::Any(any) => json!({"any": any.iter().map(expression).collect::<Vec<_>>()}),
        AssetCondition::Asset(asset) => json!({"asset": {
            "id": super::assets::asset_id(&asset.name, &asset.uri),
            "uri": asset.uri, "name": asset.name, "group": asset.group,
        }}),
        AssetCondition::Alias { name, group } => json!({"alias": {"name": name, "group": group}}),
        AssetCondition::NameRef(name) => json!({"asset_ref": {"name": name}}),
        AssetCondition::UriRef(uri) => json!({"asset_ref": {"uri": uri}}),
    }
}

fn stats(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let wanted: Vec<&str> = call.query.all("dag_ids").collect();
    let mut dags = Vec::new();
    for summary in rest.summaries(0)? {
        if !wanted.is_empty() && !wanted.contains(&summary.name.as_str()) {
            continue;
        }
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (state, count) in &summary.totals {
            *counts.entry(run_word(*state)).or_default() += count;
        }
        let stat = |state: &str| json!({"state": state, "count": counts.get(state).unwrap_or(&0)});
        let stats: Vec<Json> = ["queued", "running", "success", "failed"].map(stat).to_vec();
        let digest = rest.digest(&summary.name, Some(&summary.version))?;
        let name =
            digest.map_or_else(|| summary.name.clone(), |digest| digest.display_name.clone());
        dags.push(json!({"dag_id": summary.name, "dag_display_name": name, "stats": stats}));
    }
    Reply::ok(json!({"total_entries": dags.len(), "dags": dags}))
}

fn tags(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const TAGS: Listing = Listing {
        key: "tags",
        filters: &[Filter::Text("tag_name", "name")],
        order: &[("name", "name")],
    };
    let all: BTreeSet<String> = rest.summaries(0)?.into_iter().flat_map(|one| one.tags).collect();
    let items = all.into_iter().map(|tag| (json!({"name": tag}), ())).collect();
    TAGS.page(call, items, |item, ()| Ok(item["name"].clone()))
}

/// Runs that have not ended.
pub(crate) fn live() -> Vec<RunState> {
    RunState::ALL.iter().copied().filter(|state| !state.is_finished()).collect()
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_in_iso_8601() {
        let of = |seconds| duration(seconds);
        assert_eq!(of(0.0), "PT0S");
        assert_eq!(of(3600.0), "PT1H");
        assert_eq!(of(90_061.5), "P1DT1H1M1.500000S");
        assert_eq!(of(172_800.0), "P2D");
        assert_eq!(of(61.0), "PT1M1S");
    }
}
