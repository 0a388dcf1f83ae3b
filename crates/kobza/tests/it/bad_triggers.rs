//! Schedules that mean nothing, backfills that are too large, stores that are taken.

use serde_json::json;

use crate::machine::{Folder, Server, text};

/// (trigger, what the message must say)
const TRIGGERS: &[(&str, &str)] = &[
    ("{cron: \"61 * * * *\"}", "schedule.cron.minute"),
    ("{cron: \"* * *\"}", "has 3 fields"),
    ("{cron: \"0 0 30 2 *\"}", "never happens"),
    ("{cron: \"0 2 * * *\", timezone: Mars/Base}", "IANA time zone"),
    ("{rrule: \"FREQ=DAILY\"}", "nothing to count from"),
    ("{rrule: \"DTSTART:20260101T020000\\nRRULE:FREQ=SOMETIMES\"}", "schedule.rrule"),
    (
        "{rrule: \"DTSTART:20260101T020000\\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30\"}",
        "never happens",
    ),
    ("{at: \"2026-02-30T00:00:00\"}", "is not a time"),
    ("{interval: 0s}", "duration"),
    ("{cron: \"0 2 * * *\", interval: 1h}", "both `cron` and `interval`"),
    ("{cron: \"0 2 * * *\", overlap: maybe}", "maybe"),
    ("{cron: \"0 2 * * *\", jitter: 2d}", "at most a day"),
    ("{cron: \"0 2 * * *\", start: 2026-02-01, end: 2026-01-01}", "later than the start"),
    ("{webhook: {path: p, scheme: github}}", "secret"),
    ("{file: ../in.csv}", "absolute path"),
];

fn workflow(trigger: &str) -> String {
    format!("name: w\nschedule: {trigger}\ntasks: {{a: {{noop: true}}}}\n")
}

#[test]
fn schedules_that_mean_nothing_are_refused_when_they_are_made() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    for (trigger, says) in TRIGGERS {
        folder.write("w.yaml", workflow(trigger));
        let check = folder.kobza(&["check", "w.yaml"]);
        let message = text(&check.stderr);
        assert_eq!(check.status.code(), Some(2), "{trigger}: {message}");
        assert!(message.starts_with("w.yaml:2:"), "{trigger}: {message}");
        assert!(message.contains(says), "{trigger}: {message}");
        let (status, answer) =
            server.post("/api/v1/workflows", "application/yaml", &workflow(trigger));
        assert_eq!(status, 422, "{trigger}: {answer}");
    }
    assert_eq!(server.get("/api/v1/workflows").1["items"], json!([]), "nothing is kept");
}

#[test]
fn a_backfill_of_ten_million_is_refused_with_its_count() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    // Not due itself while the test runs.
    let yaml = workflow("{cron: \"* * * * *\", start: 2100-01-01}");
    assert_eq!(server.post("/api/v1/workflows", "application/yaml", &yaml).0, 201);
    for dry_run in [true, false] {
        // Twenty years of minutes: 10,519,200.
        let body = json!({
            "workflow": "w", "from": "2000-01-01", "to": "2019-12-31", "dry_run": dry_run,
        });
        let (status, answer) =
            server.post("/api/v1/backfills", "application/json", &body.to_string());
        assert!((400..500).contains(&status), "{status} {answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            message.contains("more than 1000000 runs") && message.contains("at most 100000"),
            "{answer}"
        );
    }
    for (body, says) in [
        (json!({"workflow": "w", "from": "2026-02-30", "to": "2026-03-01"}), "2026-02-30"),
        (json!({"workflow": "w", "from": "2026-03-02", "to": "2026-03-01"}), "earlier"),
        (json!({"workflow": "w"}), "does not say"),
        (json!({"workflow": "w", "partitions": []}), "nothing in this range"),
        (
            json!({"workflow": "w", "from": "2026-03-01", "to": "2026-03-01", "parallelism": 0}),
            "parallelism",
        ),
    ] {
        let (status, answer) =
            server.post("/api/v1/backfills", "application/json", &body.to_string());
        assert!((400..500).contains(&status), "{body}: {status} {answer}");
        assert!(answer.to_string().contains(says), "{body}: {answer}");
    }
    assert_eq!(server.get("/api/v1/backfills").1["items"], json!([]));
    assert_eq!(server.get("/api/v1/runs").1["items"], json!([]));
}

#[test]
fn the_second_server_on_a_store_says_so() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let second = folder.kobza(&["server", "--data", "data", "--listen", "127.0.0.1:0"]);
    let message = text(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{message}");
    assert!(message.contains("data is in use by process"), "{message}");
    assert_eq!(server.get("/ready").0, 200, "the first goes on");
}

#[test]
fn a_backfill_over_partitions_runs_each_once() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let yaml = "name: w\ntasks: {a: {shell: 'echo of {{ partition }}'}}\n";
    assert_eq!(server.post("/api/v1/workflows", "application/yaml", yaml).0, 201);
    let body = json!({"workflow": "w", "partitions": ["eu", "us"]}).to_string();
    let (status, made) = server.post("/api/v1/backfills", "application/json", &body);
    assert_eq!(status, 201, "{made}");
    let path = format!("/api/v1/backfills/{}", made["id"].as_str().unwrap());
    crate::machine::until("the backfill ends", || server.get(&path).1["state"] == "succeeded");
    let slots = server.get(&format!("{path}/slots")).1;
    let partitions: Vec<_> =
        slots["items"].as_array().unwrap().iter().map(|s| s["partition"].clone()).collect();
    assert_eq!(partitions, ["eu", "us"]);
}
