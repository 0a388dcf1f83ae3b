//! Custom metrics: what workflows and templates define, as series that Prometheus reads.
//!
//! Names and meanings are Argo's: a counter or gauge is called `argo_workflows_NAME` without any
//! suffix, so that dashboards go on working.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kobza_expr::argo_expr::{Env, Value};
use kobza_expr::argo_template::{Found, Variables, substitute};
use kobza_expr::govaluate;
use kobza_model::Json;

/// Series of all metrics together: labels may hold anything, and must not fill the memory.
const SERIES_MAX: usize = 10_000;
/// Where names begin.
const PREFIX: &str = "argo_workflows_";
/// Upper ends of a histogram's buckets, at most.
const BUCKETS_MAX: usize = 100;

/// Variables by their whole names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plain(pub(crate) BTreeMap<String, String>);

impl Variables for Plain {
    fn find(&self, name: &str) -> Found {
        self.0.get(name).map_or(Found::Unknown, |value| Found::Text(value.clone()))
    }

    fn env(&self, _: &[Vec<String>]) -> Option<Env> {
        Some(Env::from_dotted(self.0.iter().map(|(k, v)| (k.as_str(), Value::str(v)))))
    }

    fn must_know(&self, _: &str) -> bool {
        true
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Seconds since something began, until it ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    /// Microseconds since 1970.
    pub(crate) from: i64,
    pub(crate) until: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
enum Sample {
    Value(f64),
    /// A gauge that grows while its task runs.
    Grows(Span),
    Buckets {
        counts: Vec<u64>,
        count: u64,
        sum: f64,
    },
}

#[derive(Debug)]
struct Family {
    kind: Kind,
    help: String,
    buckets: Vec<f64>,
    series: BTreeMap<Vec<(String, String)>, Sample>,
}

/// All custom metrics since the start of this server.
#[derive(Debug, Default)]
pub(crate) struct Custom {
    families: BTreeMap<String, Family>,
    series: usize,
}

/// What happened to what a metric belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) variables: &'a Plain,
    pub(crate) span: Span,
}

impl Custom {
    /// Takes the metrics of one template or workflow in; answers what is wrong with them. Those that
    /// grow are taken when it starts, and again at its end; all others at its end.
    pub(crate) fn observe(&mut self, definitions: &Json, moment: Moment<'_>) -> Vec<String> {
        let mut wrong = Vec::new();
        for definition in definitions["prometheus"].as_array().into_iter().flatten() {
            let realtime = definition["gauge"]["realtime"].as_bool().unwrap_or(false);
            if !realtime && moment.span.until.is_none() {
                continue;
            }
            if let Err(error) = self.one(definition, realtime, moment) {
                let name = definition["name"].as_str().unwrap_or_default();
                wrong.push(format!("metric {name:?}: {error}"));
            }
        }
        wrong
    }

    fn one(&mut self, definition: &Json, realtime: bool, moment: Moment<'_>) -> Result<(), String> {
        let text = |text: &str| substitute(text, moment.variables).map_err(|e| e.to_string());
        if let Some(when) = definition["when"].as_str().filter(|w| !w.trim().is_empty()) {
            let when = text(when)?;
            if !govaluate::evaluate(&when).map_err(|e| format!("when '{when}': {e}"))? {
                return Ok(());
            }
        }
        let name = definition["name"].as_str().unwrap_or_default();
        if !good_name(name, true) {
            return Err("its name may have letters, digits, `_` and `:` only".to_owned());
        }
        let mut labels = Vec::new();
        for label in definition["labels"].as_array().into_iter().flatten() {
            let key = label["key"].as_str().unwrap_or_default();
            if !good_name(key, false) {
                return Err(format!("label {key:?} may have letters, digits and `_` only"));
            }
            labels.push((key.to_owned(), text(label["value"].as_str().unwrap_or_default())?));
        }
        labels.sort();
        let kinds =
            [("counter", Kind::Counter), ("gauge", Kind::Gauge), ("histogram", Kind::Histogram)];
        let (word, kind) = kinds
            .into_iter()
            .find(|(word, _)| definition[*word].is_object())
            .ok_or("it is none of counter, gauge and histogram")?;
        let body = &definition[word];
        let value = || -> Result<f64, String> {
            let written = match &body["value"] {
                Json::String(value) => text(value)?,
                Json::Number(number) => number.to_string(),
                _ => return Err(format!("{word}.value is missing")),
            };
            let number: f64 =
                written.trim().parse().map_err(|_| format!("{written:?} is not a number"))?;
            if number.is_finite() { Ok(number) } else { Err(format!("{written:?} is not finite")) }
        };
        let family = self.families.entry(format!("{PREFIX}{name}")).or_insert_with(|| Family {
            kind,
            help: definition["help"].as_str().unwrap_or_default().to_owned(),
            buckets: buckets(&body["buckets"]),
            series: BTreeMap::new(),
        });
        if family.kind != kind {
            return Err(format!("it is a {:?} elsewhere", family.kind).to_lowercase());
        }
        if !family.series.contains_key(&labels) {
            if self.series >= SERIES_MAX {
                return Err(format!("there are {SERIES_MAX} series already"));
            }
            self.series += 1;
        }
        let start = match kind {
            Kind::Histogram => {
                Sample::Buckets { counts: vec![0; family.buckets.len()], count: 0, sum: 0.0 }
            }
            _ => Sample::Value(0.0),
        };
        let limits = &family.buckets;
        let sample = family.series.entry(labels).or_insert(start);
        if realtime {
            *sample = Sample::Grows(moment.span);
            return Ok(());
        }
        let value = value()?;
        match sample {
            Sample::Buckets { counts, count, sum } => {
                for (limit, bucket) in limits.iter().zip(counts.iter_mut()) {
                    *bucket += u64::from(value <= *limit);
                }
                *count += 1;
                *sum += value;
            }
            Sample::Value(old) => {
                *old = match (kind, body["operation"].as_str()) {
                    (Kind::Counter, _) if value < 0.0 => {
                        return Err("a counter cannot go down".to_owned());
                    }
                    (Kind::Counter, _) | (_, Some("Add")) => *old + value,
                    (_, Some("Sub")) => *old - value,
                    _ => value,
                }
            }
            grows @ Sample::Grows(_) => *grows = Sample::Value(value),
        }
        Ok(())
    }

    /// As OpenMetrics, without the mark of the end. `now` in microseconds since 1970.
    pub(crate) fn write(&self, out: &mut String, now: i64) {
        for (name, family) in &self.families {
            // Counters in this format would need a suffix that Argo's do not have.
            let (family_name, kind) = match (family.kind, name.strip_suffix("_total")) {
                (Kind::Counter, Some(short)) => (short, "counter"),
                (Kind::Counter, None) => (name.as_str(), "unknown"),
                (Kind::Gauge, _) => (name.as_str(), "gauge"),
                (Kind::Histogram, _) => (name.as_str(), "histogram"),
            };
            // Writing into a String cannot fail.
            let _infallible = writeln!(out, "# HELP {family_name} {}", escaped(&family.help));
            let _infallible = writeln!(out, "# TYPE {family_name} {kind}");
            for (labels, sample) in &family.series {
                let series = |more: Option<String>| {
                    let own =
                        labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value)));
                    let all: Vec<String> = own.chain(more).collect();
                    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
                };
                let _infallible = match sample {
                    Sample::Value(value) => writeln!(out, "{name}{} {value:?}", series(None)),
                    Sample::Grows(span) => {
                        let micros = span.until.unwrap_or(now).saturating_sub(span.from).max(0);
                        writeln!(out, "{name}{} {:?}", series(None), micros as f64 / 1e6)
                    }
                    Sample::Buckets { counts, count, sum } => {
                        for (limit, counted) in family.buckets.iter().zip(counts) {
                            let bucket = series(Some(format!("le=\"{limit:?}\"")));
                            let _infallible = writeln!(out, "{name}_bucket{bucket} {counted}");
                        }
                        let all = series(Some("le=\"+Inf\"".to_owned()));
                        let _infallible = writeln!(out, "{name}_bucket{all} {count}");
                        let own = series(None);
                        writeln!(out, "{name}_sum{own} {sum:?}\n{name}_count{own} {count}")
                    }
                };
            }
        }
    }
}

pub(crate) fn good_name(name: &str, colons: bool) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(good)
}

fn buckets(written: &Json) -> Vec<f64> {
    let number = |value: &Json| match value {
        Json::String(text) => text.parse().ok(),
        other => other.as_f64(),
    };
    let mut limits: Vec<f64> = written
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(number)
        .filter(|limit: &f64| limit.is_finite())
        .take(BUCKETS_MAX)
        .collect();
    limits.sort_by(f64::total_cmp);
    limits.dedup();
    limits
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(values: &[(&str, &str)], from: i64, until: Option<i64>) -> (Plain, Span) {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        (Plain(values), Span { from, until })
    }

    #[test]
    fn series_are_kept_and_written() {
        let definitions = json!({ "prometheus": [
            { "name": "runs", "help": "how many", "counter": { "value": "1" },
              "labels": [{ "key": "who", "value": "{{inputs.parameters.who}}" }] },
            { "name": "good", "when": "{{status}} == Succeeded", "counter": { "value": "1" } },
            { "name": "takes", "gauge": { "realtime": true, "value": "{{duration}}" } },
            { "name": "left", "gauge": { "value": "{{outputs.parameters.n}}", "operation": "Sub" } },
            { "name": "sizes", "histogram": { "value": "{{=asInt(outputs.parameters.n) * 2}}",
              "buckets": [10, "2.5"] } },
        ] });
        let mut custom = Custom::default();
        let (variables, span) = at(&[("inputs.parameters.who", "a\"b")], 1_000_000, None);
        let started = Moment { variables: &variables, span };
        assert_eq!(custom.observe(&definitions, started), Vec::<String>::new());
        let mut out = String::new();
        custom.write(&mut out, 3_500_000);
        assert_eq!(out.lines().last(), Some("argo_workflows_takes 2.5"));
        for status in ["Succeeded", "Failed"] {
            let values = [
                ("inputs.parameters.who", "a\"b"),
                ("status", status),
                ("outputs.parameters.n", "3"),
            ];
            let (variables, span) = at(&values, 1_000_000, Some(2_000_000));
            let ended = Moment { variables: &variables, span };
            assert_eq!(custom.observe(&definitions, ended), Vec::<String>::new());
        }
        let mut out = String::new();
        custom.write(&mut out, 9_000_000);
        for line in [
            "argo_workflows_runs{who=\"a\\\"b\"} 2.0",
            "argo_workflows_good 1.0",
            "argo_workflows_takes 1.0",
            "argo_workflows_left -6.0",
            "argo_workflows_sizes_bucket{le=\"2.5\"} 0",
            "argo_workflows_sizes_bucket{le=\"10.0\"} 2",
            "argo_workflows_sizes_sum 12.0",
        ] {
            assert!(out.lines().any(|l| l == line), "{line}:\n{out}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for (definition, part) in [
            (json!({ "name": "a b", "counter": { "value": "1" } }), "letters"),
            (json!({ "name": "a", "counter": { "value": "x" } }), "not a number"),
            (json!({ "name": "a", "counter": { "value": "{{nothing}}" } }), "nothing"),
            (json!({ "name": "a" }), "none of"),
            (json!({ "name": "a", "when": "(", "counter": { "value": "1" } }), "when"),
        ] {
            let (variables, span) = at(&[], 0, Some(1));
            let moment = Moment { variables: &variables, span };
            let wrong = Custom::default().observe(&json!({ "prometheus": [definition] }), moment);
            assert!(wrong[0].contains(part), "{wrong:?}");
        }
    }
}
