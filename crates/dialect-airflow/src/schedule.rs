//! How the trigger service makes a DAG's scheduled runs: its timetable as the service asks it.

use std::fmt;
use std::sync::Arc;

use kobza_model::{Json, Timestamp};
use kobza_triggers::{Next, Tick, Timetables};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha1::{Digest as _, Sha1};

use crate::dag::Dag;
use crate::timetable::{
    Asked, DataInterval, Restriction, RunInfo, RunType, Timetable, TimetableError, isoformat,
    random_suffix,
};

/// How long to wait before a custom timetable that wants no run is asked again, in microseconds:
/// Airflow asks whenever it has read the file, twice a minute.
const ASK_AGAIN: i64 = 30_000_000;

/// Answers for timetables of the user's own, from the Python that has their classes. May block.
pub trait CustomTimetables: Send + Sync {
    /// `next_dagrun_info_v2`.
    fn next(
        &self,
        class: &str,
        data: &Json,
        last: Option<&RunInfo>,
        asked: &Asked,
    ) -> Result<Option<RunInfo>, String>;

    /// `generate_run_id`.
    fn run_id(&self, class: &str, data: &Json, info: &RunInfo) -> Result<String, String>;
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
}

/// The `triggers` of a DAG's workflow; null if time makes no runs of it. What assets make is no part
/// of it.
pub fn triggers(dag: &Dag) -> Result<Json, TimetableError> {
    let timetable = Timetable::parse(&dag.timetable)?;
    if !timetable.is_timed() {
        return Ok(Json::Null);
    }
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
    };
    Ok(json!([{"name": "timetable", "timetable": definition}]))
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

    /// The custom class that has to be asked: its own, or the one in a timetable of assets or time.
    fn custom_class(&self) -> Option<(&str, &Json)> {
        let mut timetable = &self.timetable;
        while let Timetable::AssetOrTime { timetable: inner, .. } = timetable {
            timetable = inner;
        }
        match timetable {
            Timetable::Custom { class, data } => Some((class, data)),
            _ => None,
        }
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
        if self.custom_class().is_some() {
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
        let (class, data) = self.custom_class().ok_or("the timetable answers for itself")?;
        let custom = self.custom.as_ref().ok_or_else(|| {
            format!("{class:.200} is a custom timetable, and no Python with Airflow is set up")
        })?;
        let last = last.map(info);
        match custom.next(class, data, last.as_ref(), &self.asked(now))? {
            Some(info) => {
                let run_id = custom.run_id(class, data, &info)?;
                Ok(Next::Tick(self.tick(info, run_id)))
            }
            None => Ok(Next::Later(now.saturating_add_micros(ASK_AGAIN))),
        }
    }

    fn max_active(&self) -> Option<u32> {
        Some(self.definition.max_active_runs)
    }
}
