//! The server's fixed shapes, and what it refuses.

use serde_json::json;

use crate::machine::{Folder, Server, text};

#[test]
fn fixed_shapes() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let yaml = "name: w\nparams: {n: {type: integer, default: 3}}\ntasks:\n  a: {noop: true}\n  m: {noop: true, needs: a, map: {range: 3}}\n";
    let (status, put) = server.post("/api/v1/workflows", "application/yaml", yaml);
    assert_eq!(status, 201);
    assert_eq!(put["name"], "w");
    assert_eq!(put["version"].as_str().unwrap().len(), 64);
    let (status, run) =
        server.post("/api/v1/workflows/w/runs", "application/json", "{\"params\": {\"n\": 4}}");
    assert_eq!(status, 201);
    let id = run["id"].as_str().unwrap();
    assert_eq!(server.wait_run(id), "succeeded");
    let detail = server.run(id);
    for field in ["created_at", "started_at", "ended_at"] {
        assert!(detail[field].is_string(), "{field}: {detail}");
    }
    assert_eq!(detail["params"], json!({"n": 4}));
    let (_, tasks) = server.get(&format!("/api/v1/runs/{id}/tasks"));
    assert!(tasks["next"].is_null());
    let mut seen: Vec<(String, Option<u64>)> = Vec::new();
    for task in tasks["items"].as_array().unwrap() {
        assert_eq!(task["state"], "succeeded");
        assert_eq!(task["attempt"], 1);
        assert!(task["id"].as_str().unwrap().starts_with(id));
        seen.push((task["name"].as_str().unwrap().to_owned(), task["map_index"].as_u64()));
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            ("a".to_owned(), None),
            ("m".to_owned(), Some(0)),
            ("m".to_owned(), Some(1)),
            ("m".to_owned(), Some(2))
        ]
    );
    let (status, metrics) = server.get("/metrics");
    assert_eq!(status, 200);
    assert!(metrics.as_str().unwrap().contains("kobza_batches_total"));
}

#[test]
fn refusals() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let (status, error) = server.post(
        "/api/v1/workflows",
        "application/yaml",
        "name: w\ntasks:\n  a: {needs: b, noop: true}\n",
    );
    assert_eq!(status, 422);
    let field = &error["error"]["fields"][0];
    assert_eq!(field["line"], 3, "{error}");
    assert!(field["path"].as_str().unwrap().starts_with("tasks.a"), "{error}");
    assert_eq!(server.get("/api/v1/workflows/w").0, 404);

    server.post(
        "/api/v1/workflows",
        "application/yaml",
        "name: p\nparams: {n: {type: integer}}\ntasks:\n  a: {noop: true}\n",
    );
    for (body, expected) in [
        ("{\"params\": {\"n\": \"many\"}}", 422),
        ("{\"params\": {}}", 422),
        ("{\"params\": {\"n\": 1, \"other\": 2}}", 422),
        ("{\"parms\": {}}", 400),
        ("nonsense", 400),
    ] {
        let (status, answer) = server.post("/api/v1/workflows/p/runs", "application/json", body);
        assert_eq!(status, expected, "{body}: {answer}");
        assert!(answer["error"]["message"].is_string());
    }
    let (_, runs) = server.get("/api/v1/runs");
    assert_eq!(runs["items"], json!([]), "a refused run must not exist");
    assert_eq!(server.get("/api/v1/runs/not-a-run").0, 404);
    assert_eq!(server.get("/api/v1/nothing").0, 404);
    assert_eq!(server.post("/api/v1/workflows/nobody/runs", "application/json", "{}").0, 404);
}

#[test]
fn a_second_server_on_the_same_store_stops() {
    let folder = Folder::new();
    let _server = Server::start(&folder);
    let second = folder.kobza(&["server", "--data", "data", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(2));
    assert!(text(&second.stderr).contains("kobza"), "{}", text(&second.stderr));
}

#[test]
fn only_loopback_without_authentication() {
    let folder = Folder::new();
    let output = folder.kobza(&["server", "--data", "data", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!folder.path().join("data").exists(), "nothing may change");
}

#[test]
fn other_sites_are_refused() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("{}/api/v1/workflows", server.url);
    let yaml = "name: w\ntasks: {a: {noop: true}}";
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let answer = agent
            .post(&url)
            .header(name, value)
            .header("content-type", "application/yaml")
            .send(yaml)
            .unwrap();
        assert_eq!(answer.status().as_u16(), 403, "{name}");
    }
    let answer = agent.get(&url).header("host", "rebound.example").call().unwrap();
    assert_eq!(answer.status().as_u16(), 421);
}

#[test]
fn backup_while_it_works_and_restore() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    server.post("/api/v1/workflows", "application/yaml", "name: w\ntasks: {a: {noop: true}}\n");
    let (_, run) = server.post("/api/v1/workflows/w/runs", "application/json", "{}");
    let id = run["id"].as_str().unwrap().to_owned();
    server.wait_run(&id);
    // Through the server, from wherever it can be reached; and beside it.
    for args in
        [["backup", "copy.db", "--server", &server.url], ["backup", "own.db", "--data", "data"]]
    {
        let backup = folder.kobza(&args);
        assert!(backup.status.success(), "{}", text(&backup.stderr));
        assert!(!folder.kobza(&args).status.success(), "an older copy stays");
    }
    let (_, later) = server.post("/api/v1/workflows/w/runs", "application/json", "{}");
    assert!(!folder.kobza(&["restore", "copy.db", "--data", "data", "--force"]).status.success());
    drop(server);
    assert!(!folder.kobza(&["restore", "copy.db", "--data", "data"]).status.success());
    let restore = folder.kobza(&["restore", "copy.db", "--data", "data", "--force"]);
    assert!(restore.status.success(), "{}", text(&restore.stderr));
    let server = Server::start(&folder);
    assert_eq!(server.run(&id)["state"], "succeeded");
    let later = later["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/api/v1/runs/{later}")).0, 404);
    drop(server);
    let doctor = folder.kobza(&["doctor", "--data", "data"]);
    assert!(text(&doctor.stdout).contains("sound"), "{}", text(&doctor.stdout));
}

#[test]
fn old_runs_are_deleted() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    server.post(
        "/api/v1/workflows",
        "application/yaml",
        "name: w\ntasks: {a: {shell: 'echo x'}}\n",
    );
    let (_, run) = server.post("/api/v1/workflows/w/runs", "application/json", "{}");
    let id = run["id"].as_str().unwrap().to_owned();
    server.wait_run(&id);
    let cached = "name: c\ntasks: {a: {shell: 'echo x', cache: {key: k}}}\n";
    server.post("/api/v1/workflows", "application/yaml", cached);
    let (_, run) = server.post("/api/v1/workflows/c/runs", "application/json", "{}");
    server.wait_run(run["id"].as_str().unwrap());
    let first = || server.get("/api/v1/events?after=0&limit=1").1["items"][0]["seq"].as_u64();
    assert_eq!(first(), Some(1));
    drop(server);
    let server = Server::start_with(&folder, &["--keep", "0s"]);
    crate::machine::until("the old run is deleted", || {
        server.get(&format!("/api/v1/runs/{id}")).0 == 404
    });
    crate::machine::until("the old events are deleted", || {
        server.get("/api/v1/events?after=0&limit=1").1["items"][0]["seq"] != 1
    });
    let data = folder.path().join("data/kobza.db");
    let count = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute( \
                 \"select count(*) from object where kind = 'cache'\").fetchone()[0])";
    crate::machine::until("the cached result is deleted", || {
        let asked = std::process::Command::new("python3").arg("-c").arg(count).arg(&data).output();
        text(&asked.unwrap().stdout).trim() == "0"
    });
}
