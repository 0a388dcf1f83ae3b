//! The trigger rules' gates, judged by the engine, against what the real Airflow's own code said.
//!
//! `conformance/airflow/rules.py` writes the table, `tests/airflow` runs it and names the file by
//! `KOBZA_AIRFLOW_RULES`.

#![allow(clippy::unwrap_used)]

use std::io::BufRead;

use kobza_dialect_airflow::compile::gates::{Constraints, gate};
use kobza_dialect_airflow::rules::RULES;
use kobza_engine::{Counts, decide_counting};
use kobza_model::{EdgeClass, Gate, GateVerdict, Outcome};
use serde_json::Value as Json;

fn count(counts: &mut Counts, letters: &str, class: impl Fn(char) -> EdgeClass) {
    for letter in letters.chars() {
        let class = class(letter) as usize;
        counts.totals[class] += 1;
        let outcome = match letter.to_ascii_lowercase() {
            's' => Outcome::Succeeded,
            'k' => Outcome::Skipped,
            'f' => Outcome::Failed,
            'u' => Outcome::UpstreamFailed,
            'r' => Outcome::Removed,
            _ => continue,
        };
        counts.outcomes[class][outcome as usize] += 1;
    }
}

/// What Kobza says in a case of the table.
fn says(rule: &str, position: &str, map_index: i64, direct: &str, indirect: &str) -> &'static str {
    let constraints = Constraints {
        indirect_setups: position == "setups" && !indirect.is_empty(),
        scope: position == "scope" && !indirect.is_empty(),
        mapped_over: false,
        instances: map_index >= 0,
    };
    let Some(Gate::Counting(rows)) = gate(rule, constraints) else { panic!("no rule {rule}") };
    let mut counts = Counts { index: u32::try_from(map_index).unwrap_or(0), ..Counts::default() };
    let own = |letter: char| match letter.is_uppercase() {
        true => EdgeClass::Setup,
        false => EdgeClass::Data,
    };
    count(&mut counts, direct, own);
    let class = if position == "scope" { EdgeClass::Teardown } else { EdgeClass::Order };
    count(&mut counts, indirect, |_| class);
    match decide_counting(&rows, &counts) {
        GateVerdict::Wait => "wait",
        GateVerdict::Run => "run",
        GateVerdict::Skip => "skipped",
        GateVerdict::UpstreamFail => "upstream_failed",
        GateVerdict::Remove => "removed",
    }
}

#[test]
fn every_rule_says_what_airflow_says() {
    let Ok(path) = std::env::var("KOBZA_AIRFLOW_RULES") else {
        eprintln!("KOBZA_AIRFLOW_RULES is not set: no table to compare with");
        return;
    };
    let file = std::fs::File::open(path).unwrap();
    let (mut cases, mut wrong) = (0, Vec::new());
    for line in std::io::BufReader::new(file).lines() {
        let line = line.unwrap();
        let case: Json = serde_json::from_str(&line).unwrap();
        let text = |at: usize| case[at].as_str().unwrap();
        let ours = says(text(0), text(1), case[2].as_i64().unwrap(), text(3), text(4));
        cases += 1;
        if ours != text(5) {
            wrong.push(format!("{line}: Kobza says {ours}"));
        }
    }
    println!("{cases} cases of {} rules", RULES.len());
    let first = wrong.iter().take(30).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {cases} differ:\n{first}", wrong.len());
    assert!(cases > 300_000, "the table has only {cases} cases");
}

/// The same without the table: what each rule says of one task that succeeded, failed, was skipped.
#[test]
fn one_upstream_task() {
    let expected = |rule: &str| match rule {
        "all_success" | "none_failed" | "none_failed_min_one_success" => match rule {
            "none_failed" => ["run", "upstream_failed", "run"],
            _ => ["run", "upstream_failed", "skipped"],
        },
        "all_done_min_one_success" => ["run", "upstream_failed", "skipped"],
        "one_success" => ["run", "upstream_failed", "skipped"],
        "all_failed" | "one_failed" => ["skipped", "run", "skipped"],
        "one_done" | "none_skipped" => ["run", "run", "skipped"],
        "all_skipped" => ["skipped", "skipped", "run"],
        _ => ["run", "run", "run"],
    };
    for rule in RULES {
        let ours = ["s", "f", "k"].map(|direct| says(rule, "plain", -1, direct, ""));
        assert_eq!(ours, expected(rule), "{rule}");
    }
}
