//! Secrets by reference, and a change of the key.

use serde_json::json;

use crate::machine::{Folder, Server, until};

const USES: &str = "name: w\ntasks:\n  a: {shell: 'printf %s {{ secret.key }} > PLACE; echo it is {{ \
                    secret.key }}'}\n";

/// What a task got as the secret `key`, and its log.
fn used(folder: &Folder, server: &Server) -> (String, String) {
    let place = folder.path().join("used").display().to_string();
    server.post("/api/v1/workflows", "application/yaml", &USES.replace("PLACE", &place));
    let (_, run) = server.post("/api/v1/workflows/w/runs", "application/json", "{}");
    let id = run["id"].as_str().unwrap();
    assert_eq!(server.wait_run(id), "succeeded", "{}", server.run(id));
    let tasks = server.get(&format!("/api/v1/runs/{id}/tasks")).1;
    let task = tasks["items"][0]["id"].as_str().unwrap().to_owned();
    let log = format!("/api/v1/tasks/{task}/attempts/1/log");
    until("the log is there", || server.get(&log).1.to_string().contains("it is"));
    (folder.read("used"), server.get(&log).1.to_string())
}

#[test]
fn a_secret_by_reference_is_read_when_it_is_used_and_masked() {
    let folder = Folder::new();
    let file = folder.write("password", "hunter2\n");
    let server = Server::start(&folder);
    let body = json!({"from": {"file": file}}).to_string();
    let (status, put) = server.put("/api/v1/variables/key", &body);
    assert_eq!((status, &put["secret"], &put["value"]), (200, &json!(true), &json!(null)), "{put}");
    let (got, log) = used(&folder, &server);
    assert_eq!(got, "hunter2");
    assert!(!log.contains("hunter2"), "{log}");
    folder.write("password", "swordfish");
    assert_eq!(used(&folder, &server).0, "swordfish");
    for wrong in [
        json!({"from": {"file": "x"}}),
        json!({"from": {"env": "KOBZA_STORE"}}),
        json!({"from": {}}),
    ] {
        assert_eq!(server.put("/api/v1/variables/key", &wrong.to_string()).0, 400, "{wrong}");
    }
}

#[test]
fn secrets_outlive_a_change_of_the_key() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    assert_eq!(
        server.put("/api/v1/variables/key", r#"{"value": "hunter2", "secret": true}"#).0,
        200
    );
    drop(server);
    let data = folder.path().join("data");
    std::fs::rename(data.join("secret.key"), data.join("secret.key.old")).unwrap();
    let server = Server::start(&folder);
    assert_eq!(used(&folder, &server).0, "hunter2");
    drop(server);
    // The old one is not needed any more.
    std::fs::remove_file(data.join("secret.key.old")).unwrap();
    let server = Server::start(&folder);
    assert_eq!(used(&folder, &server).0, "hunter2");
}
