//! The file of settings, and the folder of workflows that is watched.

use serde_json::{Value, json};

use crate::machine::{Folder, Server, agent, answer, text, until};

fn row<'a>(report: &'a Value, key: &str) -> &'a Value {
    report["settings"].as_array().unwrap().iter().find(|row| row["key"] == key).unwrap()
}

#[test]
fn doctor_shows_each_setting_with_its_source() {
    let folder = Folder::new();
    folder.write(
        "kobza.toml",
        "slots = 7\nstore = 'postgres://me:hunter2@db/x'\n[log]\nfilter = 'warn'\n",
    );
    let mut command = folder.command(&["doctor", "--slots", "9", "-o", "json"]);
    command.env("KOBZA_LISTEN", "127.0.0.1:1234");
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(*row(&report, "slots"), json!({"key": "slots", "value": "9", "source": "--slots"}));
    assert_eq!(row(&report, "listen")["source"], "KOBZA_LISTEN");
    assert_eq!(row(&report, "log.filter")["source"], "kobza.toml:4");
    assert_eq!(row(&report, "store")["value"], "postgres://me:***@db/x");
    assert_eq!(row(&report, "keep")["value"], Value::Null);
    assert!(!report.to_string().contains("hunter2"));
    folder.write("kobza.toml", "slot = 7\n");
    for command in [&["doctor"][..], &["server"], &["runs"]] {
        let output = folder.kobza(command);
        assert_eq!(output.status.code(), Some(2));
        let message = text(&output.stderr);
        assert!(message.contains("kobza.toml:1:1: slot: there is no such setting"), "{message}");
        assert!(message.contains("hint: did you mean slots?"), "{message}");
    }
}

#[test]
fn a_server_takes_its_settings_from_the_file() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("flows")).unwrap();
    folder.write("flows/w.yaml", "name: w\ntasks: {a: {noop: true}}\n");
    folder.write("kobza.toml", "workflows = 'flows'\nhosts = ['kobza.example']\n");
    let server = Server::start(&folder);
    assert_eq!(server.get("/api/v1/workflows/w").0, 200);
    for (host, status) in [("kobza.example", 200), ("KOBZA.example:99", 200), ("evil.example", 421)]
    {
        let url = format!("{}/api/v1/workflows", server.url);
        assert_eq!(answer(agent().get(url).header("host", host).call()).0, status, "{host}");
    }
}

const GOOD: &str = "name: w\ntasks:\n  a: {noop: true}\n";

#[test]
fn changes_of_the_folder_are_taken_up_and_a_broken_file_leaves_the_last_good_version() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("flows")).unwrap();
    folder.write("flows/w.yaml", GOOD);
    let server = Server::start_with(&folder, &["--workflows", "flows"]);
    let get = |name: &str| server.get(&format!("/api/v1/workflows/{name}"));
    let first = get("w").1["version"].clone();
    assert!(first.is_string());

    folder.write(
        "flows/w.yaml",
        "name: w\nschedule: {cron: '0 0 1 1 *'}\ntasks:\n  b: {noop: true}\n",
    );
    until("the change is in force", || get("w").1["version"] != first);
    until("its schedule is in force", || get("w").1["next_run_at"].is_string());
    let second = get("w").1["version"].clone();

    folder.write("flows/w.yaml", "name: w\ntasks:\n  b: {nop: true}\n");
    until("the mistake is shown", || get("w").1["error"]["line"] == 3);
    assert_eq!(get("w").1["version"], second);
    let (status, run) = server.post("/api/v1/workflows/w/runs", "application/json", "{}");
    assert_eq!(status, 201, "{run}");
    assert_eq!(server.wait_run(run["id"].as_str().unwrap()), "succeeded");

    folder.write("flows/w.yaml", GOOD);
    until("the mistake is mended", || get("w").1["error"].is_null());
    assert_eq!(get("w").1["version"], first);

    // A new folder is watched as well, and a name that is taken is told.
    std::fs::create_dir(folder.path().join("flows/deep")).unwrap();
    folder.write("flows/deep/x.yml", GOOD.replace("name: w", "name: x"));
    until("a new file is in force", || get("x").0 == 200);
    folder.write("flows/deep/y.yml", GOOD);
    until("the second definition is told", || {
        get("w").1["error"]["message"].as_str().is_some_and(|m| m.contains("is defined in"))
    });
    std::fs::remove_file(folder.path().join("flows/deep/y.yml")).unwrap();
    until("that is mended too", || get("w").1["error"].is_null());

    std::fs::remove_file(folder.path().join("flows/deep/x.yml")).unwrap();
    let gone = |answer: Value| {
        answer["error"]["message"].as_str().is_some_and(|m| m.contains("x.yml is gone"))
    };
    until("the workflow without a file says so", || gone(get("x").1));
    drop(server);
    let server = Server::start_with(&folder, &["--workflows", "flows"]);
    assert!(gone(server.get("/api/v1/workflows/x").1), "also after a restart");
    let delete = agent().delete(format!("{}/api/v1/workflows/x", server.url)).call();
    assert_eq!(answer(delete).0, 204);
    assert_eq!(server.get("/api/v1/workflows/x").0, 404);
}
