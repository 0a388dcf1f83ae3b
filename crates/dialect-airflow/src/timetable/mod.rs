//! When a DAG's runs are due and what data they cover: Airflow's timetables, read from the
//! serialised DAG. Pure: what time it is comes in as data.

mod assets;
mod calendar;
mod cron;
mod delta;
mod error;
mod field;
mod interval;
mod parse;
mod partition;
mod run_id;
mod simple;
mod trigger;

use kobza_model::{Json, Timestamp};

pub use assets::{Asset, AssetCondition};
pub use calendar::{CronInZone, Zone};
pub use cron::Cron;
pub use delta::{Delta, RelativeDelta};
pub use error::TimetableError;
pub use interval::Intervals;
pub use partition::{CronPartition, Partitions};
pub(crate) use run_id::python_str;
pub use run_id::{RunType, isoformat, isoformat_at, random_suffix};
pub use simple::Events;
pub use trigger::{MultipleCronTrigger, RunImmediately, Ticks, TriggerTimetable};

/// The period of data of a run; both ends may be the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataInterval {
    pub start: Timestamp,
    pub end: Timestamp,
}

/// A run that a timetable asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunInfo {
    /// It is not made before.
    pub run_after: Timestamp,
    /// None for a run of a partition.
    pub data_interval: Option<DataInterval>,
    pub partition_date: Option<Timestamp>,
    pub partition_key: Option<String>,
}

impl RunInfo {
    fn exact(at: Timestamp) -> Self {
        Self::over(DataInterval { start: at, end: at })
    }

    /// Made at the end of its data.
    fn over(data: DataInterval) -> Self {
        Self {
            run_after: data.end,
            data_interval: Some(data),
            partition_date: None,
            partition_key: None,
        }
    }

    /// What users know the run by: the start of its data.
    #[must_use]
    pub fn logical_date(&self) -> Option<Timestamp> {
        self.data_interval.map(|data| data.start)
    }
}

/// What start and end dates leave of a schedule. Both are part of what is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restriction {
    /// The earliest start date of the DAG and its tasks.
    pub earliest: Option<Timestamp>,
    /// The last end date, if the DAG and all its tasks have one, or the DAG alone.
    pub latest: Option<Timestamp>,
    /// Whether runs that were missed are made; if not, only the newest.
    pub catchup: bool,
}

/// What a question for the next run says about the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    pub restriction: Restriction,
    pub now: Timestamp,
}

/// A DAG's timetable.
#[derive(Clone, PartialEq, Debug)]
pub enum Timetable {
    /// Never by itself.
    Null,
    /// As soon as it may, and never again.
    Once,
    /// Again as soon as a run has ended.
    Continuous,
    /// `CronTriggerTimetable`, `DeltaTriggerTimetable`.
    Trigger(TriggerTimetable),
    MultipleCronTrigger(MultipleCronTrigger),
    /// `CronDataIntervalTimetable`, `DeltaDataIntervalTimetable`.
    DataInterval(Intervals),
    Events(Events),
    AssetTriggered(AssetCondition),
    AssetOrTime {
        assets: AssetCondition,
        timetable: Box<Timetable>,
    },
    CronPartition(CronPartition),
    /// When partitions of assets are updated. How their keys map is a matter of Python classes,
    /// kept as serialised.
    PartitionedAsset {
        assets: AssetCondition,
        mappers: Json,
        default_mapper: Json,
    },
    /// Never by itself; its tasks say which partitions they made.
    PartitionedAtRuntime,
    /// A class of the user's own.
    Custom {
        /// Its import path.
        class: String,
        /// Its own serialised form.
        data: Json,
    },
}

impl Timetable {
    /// Reads `{"__type", "__var"}` of a serialised DAG.
    pub fn parse(value: &Json) -> Result<Self, TimetableError> {
        parse::timetable(value)
    }

    /// The next run after `last`, the last one that this made (by schedule or backfill); none: not
    /// now, though maybe when asked later.
    pub fn next(
        &self,
        last: Option<&RunInfo>,
        asked: &Asked,
    ) -> Result<Option<RunInfo>, TimetableError> {
        let data = last.and_then(|last| last.data_interval.as_ref());
        match self {
            Self::Null
            | Self::PartitionedAtRuntime
            | Self::AssetTriggered(_)
            | Self::PartitionedAsset { .. } => Ok(None),
            Self::Once => Ok(simple::once(data, asked)),
            Self::Continuous => simple::continuous(data, asked),
            Self::Trigger(timetable) => timetable.next(data, asked),
            Self::MultipleCronTrigger(timetable) => timetable.next(data, asked),
            Self::DataInterval(timetable) => timetable.next(data, asked),
            Self::Events(timetable) => Ok(timetable.next(data, asked)),
            Self::AssetOrTime { timetable, .. } => match &**timetable {
                // Airflow asks it as if it had no partitions.
                Self::CronPartition(inner) => inner.trigger.next(data, asked),
                inner => inner.next(last, asked),
            },
            Self::CronPartition(timetable) => timetable.next(last, asked),
            Self::Custom { class, .. } => Err(TimetableError::Custom(class.clone())),
        }
    }

    /// The data of a run that somebody starts for `at`.
    pub fn manual_data_interval(&self, at: Timestamp) -> Result<DataInterval, TimetableError> {
        match self {
            Self::Null
            | Self::Once
            | Self::Continuous
            | Self::PartitionedAtRuntime
            | Self::AssetTriggered(_)
            | Self::PartitionedAsset { .. } => Ok(DataInterval { start: at, end: at }),
            Self::Trigger(timetable) => timetable.data(at),
            Self::MultipleCronTrigger(timetable) => timetable.data(at),
            Self::DataInterval(timetable) => timetable.data(at),
            Self::Events(timetable) => timetable.data(at),
            Self::AssetOrTime { timetable, .. } => timetable.manual_data_interval(at),
            Self::CronPartition(timetable) => timetable.trigger.data(at),
            Self::Custom { class, .. } => Err(TimetableError::Custom(class.clone())),
        }
    }

    /// The id of a run. `random` is for timetables whose ids end with eight random characters, see
    /// [`random_suffix`].
    pub fn run_id(
        &self,
        run_type: RunType,
        run_after: &str,
        partition_key: Option<&str>,
        random: &str,
    ) -> Result<String, TimetableError> {
        match self {
            Self::Custom { class, .. } => Err(TimetableError::Custom(class.clone())),
            Self::AssetOrTime { timetable, .. } if run_type != RunType::AssetTriggered => {
                timetable.run_id(run_type, run_after, partition_key, random)
            }
            Self::CronPartition(_) => Ok(match partition_key.filter(|key| !key.is_empty()) {
                Some(key) => format!("{run_type}__{run_after}__{key}__{random}"),
                None => format!("{run_type}__{run_after}__{random}"),
            }),
            _ => Ok(format!("{run_type}__{run_after}")),
        }
    }

    /// In a few words, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let trigger = |timetable: &TriggerTimetable| match &timetable.ticks {
            Ticks::Cron(cron) => cron.cron.text().to_owned(),
            Ticks::Delta(delta) => delta.summary(),
        };
        match self {
            Self::Null => "None".to_owned(),
            Self::Once => "@once".to_owned(),
            Self::Continuous => "@continuous".to_owned(),
            Self::Trigger(timetable) => trigger(timetable),
            Self::MultipleCronTrigger(timetable) => {
                timetable.timetables.iter().map(trigger).collect::<Vec<_>>().join(", ")
            }
            Self::DataInterval(Intervals::Cron(cron)) => cron.cron.text().to_owned(),
            Self::DataInterval(Intervals::Delta(delta)) => delta.summary(),
            Self::Events(timetable) => timetable
                .description
                .clone()
                .unwrap_or_else(|| format!("{} events", timetable.times.len())),
            Self::AssetTriggered(_) => "Asset".to_owned(),
            Self::AssetOrTime { timetable, .. } => format!("Asset or {}", timetable.summary()),
            Self::CronPartition(timetable) => trigger(&timetable.trigger),
            Self::PartitionedAsset { .. } => "Partitioned Asset".to_owned(),
            Self::PartitionedAtRuntime => "PartitionedAtRuntime".to_owned(),
            Self::Custom { class, .. } => class.rsplit('.').next().unwrap_or(class).to_owned(),
        }
    }

    /// Whether time ever makes a run of it.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        match self {
            Self::Null
            | Self::PartitionedAtRuntime
            | Self::AssetTriggered(_)
            | Self::PartitionedAsset { .. } => false,
            Self::AssetOrTime { timetable, .. } => timetable.is_timed(),
            _ => true,
        }
    }

    /// The assets whose updates make runs of it.
    #[must_use]
    pub fn assets(&self) -> Option<&AssetCondition> {
        match self {
            Self::AssetTriggered(assets)
            | Self::AssetOrTime { assets, .. }
            | Self::PartitionedAsset { assets, .. } => Some(assets),
            _ => None,
        }
    }

    /// How many runs of it may be active, whatever the DAG says.
    #[must_use]
    pub fn active_runs_limit(&self) -> Option<u32> {
        match self {
            Self::Continuous => Some(1),
            Self::AssetOrTime { timetable, .. } => timetable.active_runs_limit(),
            _ => None,
        }
    }

    /// Whether its runs are of partitions, without a logical date.
    #[must_use]
    pub fn is_partitioned(&self) -> bool {
        matches!(self, Self::CronPartition(_) | Self::PartitionedAsset { .. })
    }
}
