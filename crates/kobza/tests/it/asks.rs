//! What running Python tasks ask the server: values, secrets, over its death.

use crate::machine::{Folder, Server, text, until};

const ASKS: &str = r#"
import os, threading, time
import kobza

HERE = os.path.dirname(os.path.abspath(__file__))

def asks():
    open(os.path.join(HERE, "up"), "w").write("up")
    while not os.path.exists(os.path.join(HERE, "go")):
        time.sleep(0.01)
    open(os.path.join(HERE, "asking"), "w").write("up")
    word = kobza.secret("word")
    print("heard", word)
    heard = []
    thread = threading.Thread(target=lambda: heard.append(kobza.variable("limits")))
    thread.start()
    thread.join()
    db = kobza.connection("db")
    print(db["url"], db["extra"])
    try:
        kobza.secret("absent")
    except kobza.NoContext as error:
        print(error)
    if os.fork() == 0:
        try:
            kobza.secret("word")
        except kobza.NoContext as error:
            print("in a child:", error)
        os._exit(0)
    os.wait()
    return [len(word), heard[0]["most"]]

def tells():
    raise ValueError(kobza.secret("word"))
"#;

fn values(server: &Server) {
    for (path, body) in [
        ("variables/word", r#"{"value": "hunter2000", "secret": true}"#),
        ("variables/limits", r#"{"value": {"most": 7}}"#),
        (
            "connections/db",
            r#"{"kind": "postgres", "fields": {"host": "h", "user": "u"},
                "secrets": {"password": "p4ssword", "extra": "pl4nt"}}"#,
        ),
    ] {
        let (status, answer) = server.put(&format!("/api/v1/{path}"), body);
        assert!(status < 300, "{answer}");
    }
}

#[test]
fn a_task_hears_values_from_the_next_server_too() {
    let folder = Folder::new();
    let file = folder.write("asks.py", ASKS);
    let server = Server::start(&folder);
    values(&server);
    let yaml = format!(
        "name: asks\ntasks:\n  asks: {{python: {{function: asks, file: {0}}}}}\n  \
         tells: {{python: {{function: tells, file: {0}, mode: reuse}}, needs: asks}}\n",
        file.display()
    );
    let (status, answer) = server.post("/api/v1/workflows", "application/yaml", &yaml);
    assert_eq!(status, 201, "{answer}");
    let (_, run) = server.post("/api/v1/workflows/asks/runs", "application/json", "{}");
    let id = run["id"].as_str().unwrap();
    until("the task runs", || folder.read("up") == "up");
    let port = server.port();
    server.kill_9();
    folder.write("go", "");
    until("the task asks", || folder.read("asking") == "up");
    let server = Server::start_on(&folder, port);
    assert_eq!(server.wait_run(id), "failed");
    let (_, tasks) = server.get(&format!("/api/v1/runs/{id}/tasks"));
    let task = |name: &str| {
        let all = tasks["items"].as_array().unwrap();
        all.iter().find(|task| task["name"] == name).unwrap().clone()
    };
    assert_eq!(task("asks")["state"], "succeeded", "{tasks}");
    let said = task("tells")["message"].as_str().unwrap().to_owned();
    assert!(said.starts_with("ValueError: *** (asks.py:"), "{said}");
    let log = format!("/api/v1/tasks/{}/attempts/1/log", task("asks")["id"].as_str().unwrap());
    let log: Vec<_> = server.get(&log).1["lines"].as_array().unwrap().clone();
    let log: String = log.iter().map(|l| format!("{}\n", l["text"].as_str().unwrap())).collect();
    for line in [
        "heard ***",
        "postgres://u:***@h/ ***",
        "there is no secret \"absent\" in namespace \"default\"",
        "in a child: only the task's own process can ask the server",
    ] {
        assert!(log.contains(line), "{line:?} not in {log}");
    }
}

/// The same by `kobza run`, whose values come from the environment; nothing of it is left behind.
#[test]
fn a_run_without_a_server_has_values_from_the_environment() {
    let folder = Folder::new();
    folder.write("asks.py", ASKS);
    folder.write("go", "");
    folder.write("asks.yaml", "name: a\ntasks: {t: {python: {function: tells, file: asks.py}}}\n");
    let mut command = folder.command(&["run", "asks.yaml", "-o", "json"]);
    let output = command.env("KOBZA_SECRET_WORD", "hunter2000").output().unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("ValueError: ***"), "{said}");
    let log = text(&folder.kobza(&["logs", "t"]).stdout);
    assert!(!log.is_empty() && !(log + &said).contains("hunter2000"));
    let found = std::process::Command::new("grep")
        .args(["-rlF", "hunter2000", "."])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(text(&found.stdout), "", "the secret lies in a file");
}
