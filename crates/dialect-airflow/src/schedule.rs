//! How the trigger service makes a DAG's scheduled runs: its timetable as the service asks it.

use std::fmt;
use std::sync::Arc;

use kobza_model::{Json, Timestamp};
use kobza_triggers::backfill::Only;
use kobza_triggers::{Next, PartitionMapping, Tick, TickRange, Timetables};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha1::{Digest as _, Sha1};

use crate::compile::AssetNames;
use crate::dag::Dag;
use crate::ids::asset_name;
use crate::partitions::DagPartitions;
use crate::timetable::{
    Asked, AssetCondition, DataInterval, Restriction, RunInfo, RunType, Timetable, TimetableError,
    isoformat, random_suffix,
};

/// How long to wait before a custom timetable that wants no run is asked again, in microseconds:
/// Airflow asks whenever it has read the file, twice a minute.
const ASK_AGAIN: i64 = 30_000_000;
/// Runs of a range beyond which a backfill is refused anyway.
const INFOS_MAX: usize = 100_001;

/// Answers for timetables of the user's own, from the Python that has their classes. May block.
pub trait CustomTimetables: Send + Sync {
    /// The next run of a serialised timetable, and its id.
    fn next(
        &self,
        timetable: &Json,
        last: Option<&RunInfo>,
        asked: &Asked,
    ) -> Result<Option<(RunInfo, String)>, String>;

    /// The data of a run that somebody starts.
    fn manual(&self, timetable: &Json, at: Timestamp) -> Result<DataInterval, String>;

    /// All runs of a range; none if it has no periods.
    fn between(
        &self,
        timetable: &Json,
        earliest: Timestamp,
        latest: Timestamp,
    ) -> Result<Option<Vec<RunInfo>>, String>;

    /// Which partitions of a DAG an update belongs to: a question of `kobza_airflow.answer`, and its
    /// answer. The outer error: nobody could be asked.
    fn partition(&self, question: Json) -> Result<Result<Json, String>, String>;
}

/// The timetables of DAGs, for [`kobza_triggers`].
#[derive(Clone, Default)]
pub struct DagTimetables {
    custom: Option<Arc<dyn CustomTimetables>>,
}

impl fmt::Debug for DagTimetables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DagTimetables(custom: {})", self.custom.is_some())
    }
}

impl DagTimetables {
    /// Without `custom`, DAGs with timetables of the user's own say that nobody can answer.
    #[must_use]
    pub fn new(custom: Option<Arc<dyn CustomTimetables>>) -> Self {
        Self { custom }
    }
}

impl Timetables for DagTimetables {
    fn open(&self, definition: &Json) -> Result<Arc<dyn kobza_triggers::Timetable>, String> {
        let definition: Definition =
            serde_json::from_value(definition.clone()).map_err(|e| e.to_string())?;
        let timetable =
            Timetable::parse(&definition.timetable).map_err(|error| error.to_string())?;
        Ok(Arc::new(DagTimetable { definition, timetable, custom: self.custom.clone() }))
    }

    fn open_mapping(&self, definition: &Json) -> Result<Arc<dyn PartitionMapping>, String> {
        Ok(Arc::new(DagPartitions::open(definition, self.custom.clone())?))
    }
}

/// What a DAG's trigger says about its schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Definition {
    dialect: String,
    dag_id: String,
    /// For people.
    text: String,
    /// As serialised.
    timetable: Json,
    catchup: bool,
    earliest: Option<Timestamp>,
    latest: Option<Timestamp>,
    max_active_runs: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    depends_on_past: bool,
    /// Whether the DAG says that it has no backfills.
    #[serde(default, skip_serializing_if = "is_false")]
    no_backfill: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The `triggers` of a DAG's workflow: of its timetable, and of the assets that it is scheduled by;
/// null if neither makes runs of it.
pub fn triggers(dag: &Dag, names: &AssetNames) -> Result<(Json, Vec<String>), TimetableError> {
    let timetable = Timetable::parse(&dag.timetable)?;
    let mut unnamed = Vec::new();
    let mut triggers = Vec::new();
    if timetable.is_timed() {
        triggers.push(timed(dag, &timetable));
    }
    if let Some(assets) = timetable.assets() {
        let mut condition = match part(assets, names, &mut unnamed) {
            Json::String(name) => json!({"all": [name]}),
            object => object,
        };
        condition["max_active"] = json!(dag.max_active_runs.max(1));
        let partitioned = matches!(timetable, Timetable::PartitionedAsset { .. });
        condition["updates"] = json!(if partitioned { "partitions" } else { "whole" });
        if partitioned {
            condition["mapping"] = json!({"dialect": "airflow", "timetable": dag.timetable, "assets": named(assets, names)});
        }
        triggers.push(json!({"name": "assets", "assets": condition}));
    }
    let triggers = if triggers.is_empty() { Json::Null } else { Json::Array(triggers) };
    Ok((triggers, unnamed))
}

/// An asset condition as triggers have it. Names that nobody describes are told too.
fn part(assets: &AssetCondition, names: &AssetNames, unnamed: &mut Vec<String>) -> Json {
    match assets {
        AssetCondition::All(parts) | AssetCondition::Any(parts) if parts.len() == 1 => {
            part(&parts[0], names, unnamed)
        }
        AssetCondition::All(parts) => {
            json!({"all": parts.iter().map(|p| part(p, names, unnamed)).collect::<Vec<_>>()})
        }
        AssetCondition::Any(parts) => {
            json!({"any": parts.iter().map(|p| part(p, names, unnamed)).collect::<Vec<_>>()})
        }
        AssetCondition::NameRef(name) => match names.get(name) {
            Some(uri) => json!(asset_name(uri)),
            None => {
                unnamed.push(name.clone());
                json!(topic(assets))
            }
        },
        leaf => json!(topic(leaf)),
    }
}

/// The addresses of the assets that a condition names.
fn named(assets: &AssetCondition, names: &AssetNames) -> AssetNames {
    let leaves = assets.leaves().into_iter();
    let found = leaves.filter_map(|leaf| match leaf {
        AssetCondition::NameRef(name) => Some((name.clone(), names.get(name)?.clone())),
        _ => None,
    });
    found.collect()
}

/// The name that updates of an asset have here.
#[must_use]
pub fn topic(leaf: &AssetCondition) -> String {
    match leaf {
        AssetCondition::Asset(asset) => asset_name(&asset.uri),
        AssetCondition::UriRef(uri) => asset_name(uri),
        AssetCondition::Alias { name, .. } | AssetCondition::NameRef(name) => asset_name(name),
        // No leaves.
        AssetCondition::All(_) | AssetCondition::Any(_) => String::new(),
    }
}

fn timed(dag: &Dag, timetable: &Timetable) -> Json {
    let restriction = restriction(dag);
    let limit = timetable.active_runs_limit().unwrap_or(u32::MAX);
    let definition = Definition {
        dialect: "airflow".to_owned(),
        dag_id: dag.dag_id.clone(),
        text: timetable.summary(),
        timetable: dag.timetable.clone(),
        catchup: restriction.catchup,
        earliest: restriction.earliest,
        latest: restriction.latest,
        max_active_runs: dag.max_active_runs.max(1).min(limit),
        depends_on_past: dag.tasks.iter().any(|task| task.depends_on_past),
        no_backfill: dag
            .allowed_run_types
            .as_ref()
            .is_some_and(|allowed| !allowed.iter().any(|kind| kind == "backfill")),
    };
    json!({"name": "timetable", "timetable": definition})
}

/// What the dates of a DAG and its tasks leave of its schedule.
#[must_use]
pub fn restriction(dag: &Dag) -> Restriction {
    let instant = |seconds: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "saturates")]
        Timestamp((seconds * 1e6).round_ties_even() as i64)
    };
    let starts = dag.tasks.iter().filter_map(|task| task.start_date).chain(dag.start_date);
    let ends: Vec<Timestamp> =
        dag.tasks.iter().filter_map(|task| task.end_date).map(instant).collect();
    let own_end = dag.end_date.map(instant);
    // A task without an end keeps the others' from counting.
    let latest =
        if ends.len() == dag.tasks.len() { ends.into_iter().chain(own_end).max() } else { own_end };
    Restriction { earliest: starts.map(instant).min(), latest, catchup: dag.catchup }
}

fn custom_of(timetable: &Timetable) -> Option<Json> {
    match timetable {
        Timetable::AssetOrTime { timetable, .. } => custom_of(timetable),
        Timetable::Custom { class, data } => Some(json!({"__type": class, "__var": data})),
        _ => None,
    }
}

/// The data of a run that somebody starts for a date. Only Python knows it of a timetable of the
/// user's own: without one, it is the date itself.
pub fn manual_interval(
    timetable: &Json,
    at: Timestamp,
    custom: Option<&dyn CustomTimetables>,
) -> Result<DataInterval, String> {
    let timetable = Timetable::parse(timetable).map_err(|error| error.to_string())?;
    match (custom_of(&timetable), custom) {
        (Some(timetable), Some(custom)) => custom.manual(&timetable, at),
        (Some(_), None) => Ok(DataInterval { start: at, end: at }),
        (None, _) => timetable.manual_data_interval(at).map_err(|error| error.to_string()),
    }
}

/// One DAG's timetable.
struct DagTimetable {
    definition: Definition,
    timetable: Timetable,
    custom: Option<Arc<dyn CustomTimetables>>,
}

impl fmt::Debug for DagTimetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DagTimetable({} {:?})", self.definition.dag_id, self.timetable)
    }
}

impl DagTimetable {
    fn asked(&self, now: Timestamp) -> Asked {
        let Definition { earliest, latest, catchup, .. } = self.definition;
        Asked { restriction: Restriction { earliest, latest, catchup }, now }
    }

    /// The custom timetable that has to be asked, as serialised: its own, or the one in a timetable
    /// of assets or time.
    fn custom_timetable(&self) -> Option<Json> {
        custom_of(&self.timetable)
    }

    fn custom(&self, timetable: &Json) -> Result<&Arc<dyn CustomTimetables>, String> {
        self.custom.as_ref().ok_or_else(|| {
            let class = timetable["__type"].as_str().unwrap_or_default();
            format!("{class:.200} is a custom timetable, and no Python with Airflow is set up")
        })
    }

    /// All runs of a range that a backfill may make.
    fn infos(&self, range: &TickRange) -> Result<Vec<RunInfo>, String> {
        let no_periods = || {
            let dag_id = &self.definition.dag_id;
            format!("{dag_id} has a non-periodic schedule that does not support backfills")
        };
        if let Some(timetable) = self.custom_timetable() {
            let custom = self.custom(&timetable)?;
            return custom.between(&timetable, range.from, range.to)?.ok_or_else(no_periods);
        }
        let timetable = match &self.timetable {
            Timetable::AssetOrTime { timetable, .. } => timetable.as_ref(),
            timetable => timetable,
        };
        if matches!(timetable, Timetable::Once | Timetable::Continuous | Timetable::Null) {
            return Err(no_periods());
        }
        if let Timetable::CronPartition(timetable) = timetable {
            let found = timetable.between(range.from, range.to).map_err(|e| e.to_string())?;
            return found.take(INFOS_MAX).collect::<Result<_, _>>().map_err(|e| e.to_string());
        }
        let restriction =
            Restriction { earliest: Some(range.from), latest: Some(range.to), catchup: true };
        let asked = Asked { restriction, now: range.to };
        let mut infos: Vec<RunInfo> = Vec::new();
        while infos.len() < INFOS_MAX
            && let Some(info) = timetable.next(infos.last(), &asked).map_err(|e| e.to_string())?
        {
            infos.push(info);
        }
        Ok(infos)
    }

    fn tick(&self, info: RunInfo, run_id: String) -> Tick {
        let logical_date = info.logical_date();
        Tick {
            key: run_id,
            at: info.run_after,
            slot: logical_date.unwrap_or(info.run_after),
            interval: info.data_interval.map(|data| (data.start, data.end)),
            partition: info.partition_key.clone(),
            extra: json!({"airflow": {
                "logical_date": logical_date,
                "run_after": info.run_after,
                "run_type": RunType::Scheduled.word(),
                "triggered_by": "timetable",
                "partition_key": info.partition_key,
                "partition_date": info.partition_date,
            }}),
        }
    }

    /// Eight characters that are the same whenever the same run is planned.
    fn random(&self, info: &RunInfo) -> String {
        let words = format!("{}#{}", self.definition.dag_id, isoformat(info.run_after));
        let digest = Sha1::digest(words.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        random_suffix(bytes)
    }
}

fn info(tick: &Tick) -> RunInfo {
    let date = &tick.extra["airflow"]["partition_date"];
    RunInfo {
        run_after: tick.at,
        data_interval: tick.interval.map(|(start, end)| DataInterval { start, end }),
        partition_date: serde_json::from_value(date.clone()).unwrap_or_default(),
        partition_key: tick.partition.clone(),
    }
}

impl kobza_triggers::Timetable for DagTimetable {
    fn next(&self, last: Option<&Tick>, now: Timestamp) -> Next {
        if self.custom_timetable().is_some() {
            return Next::Ask;
        }
        let last = last.map(info);
        let info = match self.timetable.next(last.as_ref(), &self.asked(now)) {
            Ok(Some(info)) => info,
            Ok(None) => return Next::Never,
            Err(error) => return Next::Failed(error.to_string()),
        };
        let (run_after, random) = (isoformat(info.run_after), self.random(&info));
        let key = info.partition_key.as_deref();
        match self.timetable.run_id(RunType::Scheduled, &run_after, key, &random) {
            Ok(run_id) => Next::Tick(self.tick(info, run_id)),
            Err(error) => Next::Failed(error.to_string()),
        }
    }

    fn ask(&self, last: Option<&Tick>, now: Timestamp) -> Result<Next, String> {
        let timetable = self.custom_timetable().ok_or("the timetable answers for itself")?;
        let last = last.map(info);
        match self.custom(&timetable)?.next(&timetable, last.as_ref(), &self.asked(now))? {
            Some((info, run_id)) => Ok(Next::Tick(self.tick(info, run_id))),
            None => Ok(Next::Later(now.saturating_add_micros(ASK_AGAIN))),
        }
    }

    fn between(&self, range: &TickRange, now: Timestamp) -> Result<Vec<Tick>, String> {
        let Definition { dag_id, depends_on_past, no_backfill, .. } = &self.definition;
        if *no_backfill {
            return Err(format!("{dag_id} does not allow backfill runs"));
        }
        if range.from >= now {
            return Err("backfill cannot be executed for future dates".to_owned());
        }
        if *depends_on_past && range.newest_first {
            return Err(format!(
                "{dag_id} has tasks with depends_on_past: its backfills cannot run the newest first"
            ));
        }
        if *depends_on_past && range.only == Only::New {
            return Err(format!(
                "{dag_id} has tasks with depends_on_past: a backfill has to repeat runs that failed \
                 (missing), or all that ended (ended)"
            ));
        }
        let infos = self.infos(range)?.into_iter();
        // What has not come yet is not for a backfill.
        let past = infos.filter(|info| info.data_interval.is_none_or(|data| data.end < now));
        Ok(past.map(|info| self.tick(info, String::new())).collect())
    }

    fn max_active(&self) -> Option<u32> {
        Some(self.definition.max_active_runs)
    }
}
