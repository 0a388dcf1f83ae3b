//! Each case of the recorded file.

use std::collections::BTreeMap;
use std::io::BufRead;

use kobza_dialect_airflow::retry::{RetryPolicy, Try};
use kobza_dialect_airflow::timetable::*;
use kobza_model::Timestamp;
use serde_json::Value as Json;

fn time(value: &Json) -> Option<Timestamp> {
    value.as_i64().map(Timestamp)
}

fn info(value: &Json) -> Option<RunInfo> {
    if value.is_null() {
        return None;
    }
    let data = time(&value["start"])
        .map(|start| DataInterval { start, end: time(&value["end"]).unwrap() });
    let info = RunInfo {
        run_after: time(&value["run_after"]).unwrap(),
        data_interval: data,
        partition_date: time(&value["partition_date"]),
        partition_key: value["partition_key"].as_str().map(str::to_owned),
    };
    assert_eq!(info.logical_date(), time(&value["logical_date"]));
    Some(info)
}

/// What Airflow answered: a value, or an error of whatever kind.
fn answer<T>(value: &Json, read: impl Fn(&Json) -> T) -> Result<T, ()> {
    if value.get("error").is_some() { Err(()) } else { Ok(read(&value["value"])) }
}

/// Compares one case; how many comparisons it was.
fn check(case: &Json) -> Result<usize, String> {
    let differs =
        |what: &dyn std::fmt::Debug, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
            Err(format!("{what:?}: Kobza says {ours:?}, Airflow {theirs:?}"))
        };
    let timetable =
        || Timetable::parse(&case["timetable"]).map_err(|e| format!("cannot be read: {e}"));
    let cases = || case["cases"].as_array().map_or(&[][..], Vec::as_slice);
    match case["kind"].as_str().unwrap() {
        "walk" => {
            let timetable = timetable()?;
            let restriction = Restriction {
                earliest: time(&case["restriction"]["earliest"]),
                latest: time(&case["restriction"]["latest"]),
                catchup: case["restriction"]["catchup"].as_bool().unwrap(),
            };
            let steps = case["steps"].as_array().unwrap();
            for step in steps {
                let asked = Asked { restriction, now: time(&step["now"]).unwrap() };
                let last = info(&step["last"]);
                let ours = timetable.next(last.as_ref(), &asked);
                let theirs = answer(&step["answer"], info);
                if ours.clone().map_err(drop) != theirs {
                    return differs(&(asked, last), &ours, &theirs);
                }
            }
            Ok(steps.len())
        }
        "manual" => {
            let timetable = timetable()?;
            for case in cases() {
                let at = time(&case["at"]).unwrap();
                let ours = timetable.manual_data_interval(at);
                let theirs = answer(&case["answer"], |value| DataInterval {
                    start: time(&value[0]).unwrap(),
                    end: time(&value[1]).unwrap(),
                });
                if ours.clone().map_err(drop) != theirs {
                    return differs(&at, &ours, &theirs);
                }
            }
            Ok(cases().len())
        }
        "run_id" => {
            let timetable = timetable()?;
            for case in cases() {
                let word = case["type"].as_str().unwrap();
                let run_type = RunType::ALL.into_iter().find(|kind| kind.word() == word).unwrap();
                let offset = i32::try_from(case["offset"].as_i64().unwrap()).unwrap();
                let run_after = isoformat_at(time(&case["run_after"]).unwrap(), offset);
                let key = case["partition_key"].as_str();
                let ours = timetable.run_id(run_type, &run_after, key, "RANDOM12").unwrap();
                let theirs = case["run_id"].as_str().unwrap();
                if ours != theirs || RunType::of_run_id(theirs) != run_type {
                    return differs(&case, &ours, &theirs);
                }
            }
            Ok(cases().len())
        }
        "partitions" => {
            let Timetable::CronPartition(timetable) = timetable()? else {
                return Err("is not of partitions".to_owned());
            };
            let ours = timetable
                .between(time(&case["earliest"]).unwrap(), time(&case["latest"]).unwrap())
                .and_then(|runs| runs.take(50).collect::<Result<Vec<_>, _>>());
            let theirs = answer(&case["answer"], |list| {
                list.as_array().unwrap().iter().map(|i| info(i).unwrap()).collect::<Vec<_>>()
            });
            if ours.clone().map_err(drop) != theirs {
                return differs(&"partitions", &ours, &theirs);
            }
            let dates = case["dates"].as_array().unwrap();
            for (run, date) in ours.iter().flatten().zip(dates) {
                let ours = timetable.date(run.partition_key.as_deref().unwrap());
                let theirs = answer(date, |at| time(at).unwrap());
                if ours.clone().map_err(drop) != theirs {
                    return differs(&run, &ours, &theirs);
                }
            }
            Ok(1 + dates.len())
        }
        "cron" => {
            let cron = Cron::parse(case["text"].as_str().unwrap());
            if cron.clone().map(drop).map_err(drop) != answer(&case["answer"], |_| ()) {
                return differs(&case["text"], &cron, &case["answer"]);
            }
            for case in cases() {
                let cron = cron.as_ref().unwrap();
                let at: jiff::civil::DateTime = case["at"].as_str().unwrap().parse().unwrap();
                for (name, ours) in [("get_next", cron.next(at)), ("get_prev", cron.prev(at))] {
                    let theirs =
                        answer(&case[name], |value| value.as_str().unwrap().parse().unwrap());
                    if ours.clone().map_err(drop) != theirs {
                        return differs(&(name, at), &ours, &theirs);
                    }
                }
            }
            Ok(1 + 2 * cases().len())
        }
        "assets" => {
            let timetable = timetable()?;
            let mut ours: Vec<&str> = timetable
                .assets()
                .map(AssetCondition::leaves)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|leaf| match leaf {
                    AssetCondition::Asset(asset) => Some(asset.name.as_str()),
                    _ => None,
                })
                .collect();
            ours.sort_unstable();
            if serde_json::json!(ours) != case["assets"] {
                return differs(&"assets", &ours, &case["assets"]);
            }
            Ok(1)
        }
        "retry" => {
            let seconds = |value: &Json| value.as_i64().map(|micros| micros as f64 / 1e6);
            let policy = RetryPolicy {
                delay: seconds(&case["delay"]).unwrap(),
                exponential_backoff: case["backoff"].as_f64().unwrap(),
                max_delay: seconds(&case["max_delay"]),
            };
            let tried = Try {
                dag_id: case["dag_id"].as_str().unwrap(),
                logical_date: time(&case["logical_date"]),
                number: u32::try_from(case["try_number"].as_u64().unwrap()).unwrap(),
            };
            let ours = policy.delay(case["task_id"].as_str().unwrap(), tried);
            if Some(ours) != seconds(&case["wait"]) {
                return differs(&"wait", &ours, &case["wait"]);
            }
            Ok(1)
        }
        other => Err(format!("no case of kind {other}")),
    }
}

#[test]
fn every_recorded_case_is_equal_to_the_microsecond() {
    let Ok(path) = std::env::var("KOBZA_AIRFLOW_TIMETABLES") else {
        eprintln!("KOBZA_AIRFLOW_TIMETABLES is not set: nothing recorded to compare with");
        return;
    };
    let file = std::fs::File::open(&path).unwrap();
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, line) in std::io::BufReader::new(file).lines().enumerate() {
        let case: Json = serde_json::from_str(&line.unwrap()).unwrap();
        let kind = case["kind"].as_str().unwrap().to_owned();
        let count = counts.entry(kind).or_default();
        count.0 += 1;
        match check(&case) {
            Ok(comparisons) => count.1 += comparisons,
            Err(error) => {
                let about = case.get("timetable").unwrap_or(&case);
                wrong.push(format!("line {}: {about:.300}: {error}", number + 1));
            }
        }
    }
    let cases: usize = counts.values().map(|count| count.0).sum();
    for (kind, (cases, comparisons)) in &counts {
        println!("{kind}: {cases} cases, {comparisons} comparisons");
    }
    let first = wrong.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {cases} cases differ:\n{first}", wrong.len());
    assert!(cases >= 2000 || std::env::var("KOBZA_AIRFLOW_FEW").is_ok(), "only {cases} cases");
}
