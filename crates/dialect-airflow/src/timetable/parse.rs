//! Timetables from the serialised DAG.

use kobza_model::{Json, Timestamp};

use super::calendar::{CronInZone, Zone};
use super::cron::Cron;
use super::delta::{Delta, micros_of_seconds};
use super::error::{TimetableError, shown};
use super::interval::Intervals;
use super::partition::CronPartition;
use super::simple::Events;
use super::trigger::{MultipleCronTrigger, RunImmediately, Ticks, TriggerTimetable};
use super::{AssetCondition, Timetable};

/// How many patterns a timetable may have.
const MAX_CRONS: usize = 1000;
/// How many ticks a partition may be away from its run.
const MAX_OFFSET: i64 = 10_000;

pub(super) fn timetable(value: &Json) -> Result<Timetable, TimetableError> {
    let class = value["__type"].as_str().ok_or_else(|| {
        TimetableError::invalid("timetable.__type", "must be the name of a timetable class")
    })?;
    let data = &value["__var"];
    let custom = || Timetable::Custom { class: class.to_owned(), data: data.clone() };
    // The SDK's classes are serialised by the names of these; a name of another module is a
    // user's class, whatever it is called.
    let Some(name) = class.strip_prefix("airflow.timetables.") else { return Ok(custom()) };
    let field = |name: &str, value: &Json| match value.is_null() {
        true => Err(TimetableError::invalid(name, "is missing")),
        false => Ok(value.clone()),
    };
    let read = || -> Result<Timetable, TimetableError> {
        Ok(match name {
            "simple.NullTimetable" => Timetable::Null,
            "simple.OnceTimetable" => Timetable::Once,
            "simple.ContinuousTimetable" => Timetable::Continuous,
            "simple.PartitionedAtRuntime" => Timetable::PartitionedAtRuntime,
            "simple.AssetTriggeredTimetable" => {
                Timetable::AssetTriggered(AssetCondition::parse(&data["asset_condition"])?)
            }
            "simple.PartitionedAssetTimetable" => Timetable::PartitionedAsset {
                assets: AssetCondition::parse(&data["asset_condition"])?,
                mappers: field("partition_mapper_config", &data["partition_mapper_config"])?,
                default_mapper: field(
                    "default_partition_mapper",
                    &data["default_partition_mapper"],
                )?,
            },
            "assets.AssetOrTimeSchedule" => {
                let inner = timetable(&data["timetable"]).map_err(|e| e.inside("timetable"))?;
                if inner.assets().is_some() {
                    return Err(TimetableError::invalid(
                        "timetable",
                        "is a timetable of assets in one of assets",
                    ));
                }
                Timetable::AssetOrTime {
                    assets: AssetCondition::parse(&data["asset_condition"])?,
                    timetable: Box::new(inner),
                }
            }
            "trigger.CronTriggerTimetable" => Timetable::Trigger(TriggerTimetable {
                ticks: Ticks::Cron(cron(&data["expression"], &data["timezone"])?),
                interval: Delta::parse(&data["interval"], "interval")?,
                run_immediately: run_immediately(&data["run_immediately"])?,
            }),
            "trigger.DeltaTriggerTimetable" => Timetable::Trigger(TriggerTimetable {
                ticks: Ticks::Delta(Delta::parse(&data["delta"], "delta")?),
                interval: Delta::parse(&data["interval"], "interval")?,
                run_immediately: RunImmediately::Yes,
            }),
            "trigger.MultipleCronTriggerTimetable" => multiple(data)?,
            "trigger.CronPartitionTimetable" => partition(data)?,
            "interval.CronDataIntervalTimetable" => Timetable::DataInterval(Intervals::Cron(cron(
                &data["expression"],
                &data["timezone"],
            )?)),
            "interval.DeltaDataIntervalTimetable" => {
                Timetable::DataInterval(Intervals::Delta(Delta::parse(&data["delta"], "delta")?))
            }
            "events.EventsTimetable" => events(data)?,
            _ => {
                return Err(TimetableError::invalid(
                    "__type",
                    format!("{} is not a timetable that this version knows", shown(class)),
                ));
            }
        })
    };
    read().map_err(|error| error.inside("timetable"))
}

fn cron(expression: &Json, zone: &Json) -> Result<CronInZone, TimetableError> {
    let text = expression
        .as_str()
        .ok_or_else(|| TimetableError::invalid("expression", "must be a text"))?;
    Ok(CronInZone { cron: Cron::parse(text)?, zone: Zone::parse(zone)? })
}

fn run_immediately(value: &Json) -> Result<RunImmediately, TimetableError> {
    match value {
        Json::Bool(true) => Ok(RunImmediately::Yes),
        Json::Bool(false) | Json::Null => Ok(RunImmediately::Tenth),
        // A whole number is neither true nor a duration to Airflow.
        Json::Number(number) if !number.is_f64() => Ok(RunImmediately::Tenth),
        Json::Number(number) => {
            let micros = number.as_f64().and_then(micros_of_seconds);
            micros
                .map(RunImmediately::Within)
                .ok_or_else(|| TimetableError::invalid("run_immediately", "is out of range"))
        }
        _ => Err(TimetableError::invalid("run_immediately", "must be true, false or seconds")),
    }
}

fn multiple(data: &Json) -> Result<Timetable, TimetableError> {
    let invalid = |message: &str| TimetableError::invalid("expressions", message);
    let texts = data["expressions"].as_array().ok_or_else(|| invalid("must be a list"))?;
    if texts.is_empty() || texts.len() > MAX_CRONS {
        return Err(invalid("must have 1 to 1000 patterns"));
    }
    let interval = Delta::parse(&data["interval"], "interval")?;
    let run_immediately = run_immediately(&data["run_immediately"])?;
    let timetables = texts.iter().map(|text| {
        Ok(TriggerTimetable {
            ticks: Ticks::Cron(cron(text, &data["timezone"])?),
            interval: interval.clone(),
            run_immediately,
        })
    });
    Ok(Timetable::MultipleCronTrigger(MultipleCronTrigger {
        timetables: timetables.collect::<Result<_, _>>()?,
    }))
}

fn partition(data: &Json) -> Result<Timetable, TimetableError> {
    let run_offset = match &data["run_offset"] {
        Json::Null => 0,
        value => value
            .as_i64()
            .filter(|offset| offset.abs() <= MAX_OFFSET)
            .ok_or_else(|| TimetableError::invalid("run_offset", "must be a small whole number"))?,
    };
    let key_format = data["key_format"]
        .as_str()
        .ok_or_else(|| TimetableError::invalid("key_format", "must be a text"))?;
    let timetable = CronPartition {
        trigger: TriggerTimetable {
            ticks: Ticks::Cron(cron(&data["expression"], &data["timezone"])?),
            interval: Delta::Fixed(0),
            run_immediately: run_immediately(&data["run_immediately"])?,
        },
        run_offset,
        key_format: key_format.to_owned(),
    };
    // Said now rather than at the first run.
    timetable
        .key(Timestamp(0))
        .map_err(|error| TimetableError::invalid("key_format", error.to_string()))?;
    Ok(Timetable::CronPartition(timetable))
}

fn events(data: &Json) -> Result<Timetable, TimetableError> {
    let dates = data["event_dates"]
        .as_array()
        .ok_or_else(|| TimetableError::invalid("event_dates", "must be a list"))?;
    let times = dates.iter().enumerate().map(|(at, date)| {
        let text = date.as_str();
        text.and_then(|text| text.parse::<Timestamp>().ok()).ok_or_else(|| {
            TimetableError::invalid(
                format!("event_dates[{at}]"),
                format!("{} is not a time with an offset", shown(&date.to_string())),
            )
        })
    });
    let restrict_to_events = data["restrict_to_events"]
        .as_bool()
        .ok_or_else(|| TimetableError::invalid("restrict_to_events", "must be true or false"))?;
    Ok(Timetable::Events(Events {
        times: times.collect::<Result<_, _>>()?,
        restrict_to_events,
        description: data["description"].as_str().map(str::to_owned),
    }))
}
