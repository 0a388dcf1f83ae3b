//! Cron workflows: their schedules as triggers, and whether a slot starts a workflow.

use kobza_expr::argo_expr::{Env, Program, Value};
use kobza_expr::argo_template::{Found, Variables, substitute};
use kobza_expr::govaluate;
use kobza_model::{Json, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::document::Diagnostic;

/// The label of a workflow that a cron workflow made: its name.
pub const CRON_LABEL: &str = "workflows.argoproj.io/cron-workflow";
/// The annotation with the slot's time.
pub const SCHEDULED_ANNOTATION: &str = "workflows.argoproj.io/scheduled-time";

/// Finished workflows that are kept when the cron workflow does not say how many.
const KEEP_SUCCEEDED: usize = 3;
const KEEP_FAILED: usize = 1;

/// The name of the definition that carries a cron workflow's triggers. Names of workflows have no
/// colon, so that it is nobody else's.
#[must_use]
pub fn definition_name(cron: &str) -> String {
    format!("{cron}:cron")
}

/// The triggers of a cron workflow's spec.
pub fn triggers(spec: &Json) -> Result<Json, Diagnostic> {
    let schedules: Vec<&str> =
        spec["schedules"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    if schedules.is_empty() {
        return Err(Diagnostic::new(
            "spec.schedules",
            "cron workflow must have at least one schedule",
        )
        .hint("five fields such as `0 3 * * *`, or @daily, or @every 1h"));
    }
    let overlap = match spec["concurrencyPolicy"].as_str().unwrap_or("") {
        "" | "Allow" => "allow",
        "Forbid" => "skip",
        "Replace" => "cancel",
        other => {
            return Err(Diagnostic::new(
                "spec.concurrencyPolicy",
                format!("'{other}' is not a valid concurrencyPolicy"),
            )
            .hint("Allow, Forbid or Replace"));
        }
    };
    let catch_up = match &spec["startingDeadlineSeconds"] {
        Json::Null => json!("none"),
        seconds => match seconds.as_i64().filter(|n| *n >= 0) {
            Some(0) => json!("none"),
            Some(seconds) => json!({ "last": format!("{seconds}s") }),
            None => {
                return Err(Diagnostic::new(
                    "spec.startingDeadlineSeconds",
                    "startingDeadlineSeconds must be positive",
                )
                .hint("how late a missed start may still be made up for"));
            }
        },
    };
    let mut common = json!({
        "overlap": overlap, "catchup": catch_up,
        "paused": spec["suspend"].as_bool().unwrap_or(false),
    });
    if let Some(zone) = spec["timezone"].as_str().filter(|zone| !zone.is_empty()) {
        common["timezone"] = Json::from(zone);
    }
    let mut triggers = Vec::new();
    let mut patterns = Vec::new();
    for (at, schedule) in schedules.iter().enumerate() {
        let path = format!("spec.schedules[{at}]");
        let schedule = schedule.trim();
        let mut trigger = common.clone();
        if let Some(every) = schedule.strip_prefix("@every ") {
            trigger["every"] = Json::from(every.trim());
            trigger["name"] = Json::from(format!("every-{at}"));
        } else {
            trigger["cron"] = Json::from(standard(schedule, &path)?);
        }
        // Each is read by itself, so that an error names its place.
        kobza_schedule::Schedule::parse(&trigger).map_err(|error| {
            let path =
                if error.field.starts_with("timezone") { "spec.timezone".to_owned() } else { path };
            let mut wrong = Diagnostic::new(
                path,
                format!("cron schedule {schedule:?} is malformed: {}", error.message),
            );
            wrong.hint = error.hint;
            wrong
        })?;
        match trigger.get("cron").cloned() {
            Some(pattern) => patterns.push(pattern),
            None => triggers.push(trigger),
        }
    }
    if !patterns.is_empty() {
        let mut trigger = common;
        trigger["name"] = Json::from("cron");
        trigger["cron"] = Json::Array(patterns);
        triggers.push(trigger);
    }
    Ok(Json::Array(triggers))
}

/// A pattern of five fields, or a preset.
fn standard(schedule: &str, path: &str) -> Result<String, Diagnostic> {
    if schedule.starts_with('@') {
        return Ok(schedule.to_owned());
    }
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        return Err(Diagnostic::new(path, "a schedule must not have a time zone")
            .hint("write it in spec.timezone"));
    }
    let fields = schedule.split_whitespace().count();
    if fields != 5 {
        return Err(Diagnostic::new(
            path,
            format!(
                "cron schedule {schedule:?} is malformed: expected exactly 5 fields, found {fields}"
            ),
        )
        .hint("minute, hour, day of the month, month, day of the week"));
    }
    Ok(schedule.replace('?', "*"))
}

/// What a cron workflow has done, as it is kept beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CronRecord {
    pub succeeded: i64,
    pub failed: i64,
    /// Finished workflows that were counted and still exist.
    pub counted: Vec<String>,
    /// The slot of the newest workflow.
    pub last: Option<Timestamp>,
    /// Its stop strategy holds: it starts nothing more.
    pub stopped: bool,
}

/// What a slot does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    Start,
    /// Nothing, and why.
    Skip(String),
    /// Nothing, now and later.
    Stop(String),
}

struct CronValues {
    env: Env,
}

impl Variables for CronValues {
    fn find(&self, name: &str) -> Found {
        match Program::parse(name).and_then(|program| program.eval(&self.env)) {
            Ok(Value::Nil) | Err(_) => Found::Unknown,
            Ok(value) => Found::Text(value.to_text()),
        }
    }

    fn env(&self, _: &[Vec<String>]) -> Option<Env> {
        Some(self.env.clone())
    }

    fn must_know(&self, name: &str) -> bool {
        name.starts_with("cronworkflow.")
    }
}

fn environment(cron: &Json, record: &CronRecord, now: Timestamp) -> Env {
    let metadata = &cron["metadata"];
    let utc = |at: Timestamp| at.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
    let labels = |key: &str| metadata.get(key).cloned().unwrap_or_else(|| json!({}));
    let last = record.last.map_or(Value::Nil, |at| Value::Time(Box::new(utc(at))));
    let value = Value::map([
        ("name".to_owned(), Value::from(&metadata["name"])),
        ("namespace".to_owned(), Value::from(&metadata["namespace"])),
        ("labels".to_owned(), Value::from(&labels("labels"))),
        ("annotations".to_owned(), Value::from(&labels("annotations"))),
        ("lastScheduledTime".to_owned(), last),
        ("failed".to_owned(), Value::Int(record.failed)),
        ("succeeded".to_owned(), Value::Int(record.succeeded)),
    ]);
    let mut env = Env { now: Some(now.to_jiff()), ..Env::default() };
    env.variables.insert("cronworkflow".to_owned(), value);
    env
}

/// Whether the stop strategy holds.
pub fn stops(cron: &Json, record: &CronRecord, now: Timestamp) -> Result<bool, String> {
    let strategy = &cron["spec"]["stopStrategy"];
    let text = strategy["expression"].as_str().or(strategy["condition"].as_str());
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(false) };
    let env = environment(cron, record, now);
    match Program::parse(text).and_then(|program| program.eval(&env)) {
        Ok(Value::Bool(stops)) => Ok(stops),
        Ok(other) => Err(format!("stopStrategy.expression {text:?} is {}, no bool", other.kind())),
        Err(error) => Err(format!("stopStrategy.expression {text:?}: {error}")),
    }
}

/// What a slot does that has come.
pub fn decide(cron: &Json, record: &CronRecord, now: Timestamp) -> Result<Slot, String> {
    if cron["spec"]["suspend"].as_bool().unwrap_or(false) {
        return Ok(Slot::Skip("the cron workflow is suspended".to_owned()));
    }
    if record.stopped || stops(cron, record, now)? {
        return Ok(Slot::Stop("its stop strategy holds".to_owned()));
    }
    let Some(when) = cron["spec"]["when"].as_str().filter(|when| !when.trim().is_empty()) else {
        return Ok(Slot::Start);
    };
    let values = CronValues { env: environment(cron, record, now) };
    let text = substitute(when, &values).map_err(|error| format!("when: {error}"))?;
    match govaluate::evaluate(&text) {
        Ok(true) => Ok(Slot::Start),
        Ok(false) => Ok(Slot::Skip(format!("when '{text}' evaluated false"))),
        Err(error) => Err(format!("invalid 'when' expression '{text}': {error}")),
    }
}

/// How many finished workflows are kept: those that succeeded, and the others.
#[must_use]
pub fn history_limits(spec: &Json) -> (usize, usize) {
    let limit = |key: &str, default: usize| {
        spec[key].as_u64().map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    (
        limit("successfulJobsHistoryLimit", KEEP_SUCCEEDED),
        limit("failedJobsHistoryLimit", KEEP_FAILED),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn schedules_become_triggers() {
        let read = |spec: Json| triggers(&spec);
        let two =
            read(json!({ "schedules": ["0 3 * * *", "*/5 ? * * *"], "timezone": "Europe/Berlin",
            "concurrencyPolicy": "Forbid", "startingDeadlineSeconds": 30 }))
            .expect("triggers");
        assert_eq!(
            two,
            json!([{ "name": "cron", "cron": ["0 3 * * *", "*/5 * * * *"], "timezone": "Europe/Berlin",
                "overlap": "skip", "catchup": { "last": "30s" }, "paused": false }])
        );
        let every =
            read(json!({ "schedules": ["@every 90s"], "suspend": true })).expect("triggers");
        assert_eq!(every[0]["every"], "90s");
        assert_eq!(every[0]["paused"], true);
        for (spec, path, part) in [
            (json!({}), "spec.schedules", "at least one"),
            (json!({ "schedules": ["* * *"] }), "spec.schedules[0]", "expected exactly 5 fields"),
            (json!({ "schedules": ["* * * * *", "61 * * * *"] }), "spec.schedules[1]", "malformed"),
            (json!({ "schedules": ["* * * * *"], "timezone": "Mars/X" }), "spec.timezone", ""),
            (
                json!({ "schedules": ["* * * * *"], "concurrencyPolicy": "x" }),
                "spec.concurrencyPolicy",
                "'x'",
            ),
            (json!({ "schedules": ["TZ=UTC * * * * *"] }), "spec.schedules[0]", "time zone"),
            (
                json!({ "schedules": ["* * * * *"], "startingDeadlineSeconds": -1 }),
                "spec.startingDeadlineSeconds",
                "positive",
            ),
        ] {
            let wrong = read(spec.clone()).expect_err("a mistake");
            assert_eq!(wrong.path, path, "{spec}");
            assert!(wrong.message.contains(part), "{wrong}");
        }
    }

    #[test]
    fn conditions_hold_or_not() {
        let now = at("2026-05-01T12:00:00Z");
        let last = Some(at("2026-05-01T11:58:00Z"));
        let when = "{{= cronworkflow.lastScheduledTime == nil || (now() - cronworkflow.lastScheduledTime).Seconds() > 360 }}";
        let cron = json!({ "metadata": { "name": "c" }, "spec": { "when": when } });
        let record = |last| CronRecord { last, ..CronRecord::default() };
        assert_eq!(decide(&cron, &record(None), now), Ok(Slot::Start));
        assert_eq!(
            decide(&cron, &record(last), now),
            Ok(Slot::Skip("when 'false' evaluated false".to_owned()))
        );
        let cron =
            json!({ "spec": { "stopStrategy": { "expression": "cronworkflow.failed >= 2" } } });
        let failed = |failed| CronRecord { failed, ..CronRecord::default() };
        assert_eq!(decide(&cron, &failed(1), now), Ok(Slot::Start));
        assert!(matches!(decide(&cron, &failed(2), now), Ok(Slot::Stop(_))));
        let cron = json!({ "metadata": { "name": "c" }, "spec": { "when": "{{cronworkflow.name}} == d" } });
        assert!(matches!(decide(&cron, &record(None), now), Ok(Slot::Skip(_))));
        assert!(decide(&json!({ "spec": { "when": "1 +" } }), &record(None), now).is_err());
    }
}
