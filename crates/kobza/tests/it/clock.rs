//! The wall clock is set while the server runs: no slot is lost or fires twice, and what waits by
//! durations waits no longer. Skipped, saying so, where libfaketime is not installed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::machine::{Folder, Server, until};

fn library() -> Option<PathBuf> {
    let roots =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/lib64"];
    roots
        .iter()
        .map(|root| PathBuf::from(root).join("faketime/libfaketime.so.1"))
        .find(|p| p.exists())
}

/// Hours of the schedule for which there is a run, and how many runs there are.
fn hours(server: &Server) -> (BTreeSet<String>, usize) {
    let (_, found) = server.get("/api/v1/runs?workflow=hourly&limit=200");
    let items = found["items"].as_array().unwrap();
    let slots = items.iter().map(|run| run["interval_end"].as_str().unwrap().to_owned());
    (slots.collect(), items.len())
}

#[test]
fn the_wall_clock_is_set() {
    let Some(library) = library() else {
        eprintln!("skipped: libfaketime is not installed");
        return;
    };
    let folder = Folder::new();
    let set = |offset: &str| {
        // Renamed, since a half-written file is no time.
        folder.write("offset.new", offset);
        std::fs::rename(folder.path().join("offset.new"), folder.path().join("offset")).unwrap();
    };
    set("+0");
    let offset = folder.path().join("offset");
    let server = Server::start_under(
        &folder,
        &[
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ],
    );
    let put = |yaml: &str| {
        assert_eq!(server.post("/api/v1/workflows", "application/yaml", yaml).0, 201, "{yaml}");
    };
    put("name: hourly\nschedule: {cron: '0 * * * *', catchup: true}\ntasks:\n  a: {noop: true}\n");
    put("name: wakes\ntasks:\n  a: {noop: true}\n");
    let out = folder.path().to_string_lossy().into_owned();
    put(&format!(
        "name: retried\ntasks:\n  a:\n    shell: 'test -e {out}/again || {{ touch {out}/again; exit 1; }}'\n    retries: {{limit: 1, delay: 2s}}\n"
    ));
    let start = |name: &str| {
        let path = format!("/api/v1/workflows/{name}/runs");
        let (status, run) = server.post(&path, "application/json", "{}");
        assert_eq!(status, 201, "{run}");
        run["id"].as_str().unwrap().to_owned()
    };

    // Forward: what was passed over is made up for, an hour at a time.
    set("+3h");
    start("wakes");
    until("three hours are made up for", || hours(&server).0.len() >= 3);

    // Back, while a task waits for its retry: it waits two seconds, not a day.
    let retried = start("retried");
    until("it has failed once", || folder.path().join("again").exists());
    set("-1d");
    assert_eq!(server.wait_run(&retried), "succeeded");
    server.wait_run(&start("wakes"));

    // Forward again, past where it was: only the new hours come.
    set("+5h");
    start("wakes");
    until("the new hours come", || hours(&server).0.len() >= 5);
    let (slots, runs) = hours(&server);
    assert_eq!(slots.len(), runs, "an hour came twice: {slots:?}");
    let times: Vec<i64> = slots
        .iter()
        .map(|slot| slot.parse::<kobza_model::Timestamp>().unwrap().0 / 3_600_000_000)
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] + 1 == pair[1]), "an hour is missing: {slots:?}");
}
