//! The command line against a server, by its address and a token.

use std::io::Write as _;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::machine::{Folder, Server, text, until};

/// A folder with a server beside it, and who asks.
struct Asker {
    folder: Folder,
    server: Server,
    token: Option<String>,
}

impl Asker {
    fn new() -> Self {
        let folder = Folder::new();
        let server = Server::start(&folder);
        Self { folder, server, token: None }
    }

    fn output(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.folder.command(args);
        command.env("KOBZA_SERVER", &self.server.url).stdin(Stdio::piped());
        command.env_remove("KOBZA_TOKEN").stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(token) = &self.token {
            command.env("KOBZA_TOKEN", token);
        }
        let mut child = command.spawn().unwrap();
        // One that reads nothing may have ended already.
        let _gone = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn says(&self, args: &[&str]) -> String {
        let output = self.output(args, "");
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout).trim_end().to_owned()
    }

    fn json(&self, args: &[&str]) -> Value {
        let said = self.says(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{args:?}: {e}: {said}"))
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.output(args, "");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }
}

const DAILY: &str = "name: daily
schedule: {cron: '0 2 * * *', start: 2100-01-01}
params: {who: {type: string, default: you}}
tasks:
  hello: {shell: 'echo hello {{ params.who }}'}
  wait: {approval: {message: 'go on?'}, needs: hello}
";

#[test]
fn workflows_runs_tasks_and_logs() {
    let asker = Asker::new();
    asker.folder.write("daily.yaml", DAILY);
    asker.folder.write("broken.yaml", "name: b\ntasks:\n  a: {nop: 1}\n");
    assert!(asker.says(&["workflows", "put", "daily.yaml"]).contains("daily"));
    assert!(asker.fails(&["workflows", "put", "broken.yaml"]).contains("broken.yaml:3:"));
    assert!(asker.says(&["workflows"]).contains("0 2 * * *"));
    assert_eq!(asker.json(&["workflows", "show", "daily"])["name"], "daily");
    assert_eq!(asker.json(&["workflows", "versions", "daily"]).as_array().unwrap().len(), 1);
    let run = asker.says(&["workflows", "start", "daily", "-p", "who=world"]);
    let detail = || asker.json(&["runs", "show", &run]);
    assert_eq!(detail()["params"]["who"], "world");
    until("the approval waits", || asker.json(&["why", "wait"])["state"] == "suspended");
    assert!(asker.says(&["why", "wait"]).contains("it waits for a person"));
    assert_eq!(asker.says(&["logs", "-f", "hello"]), "hello world");
    let tasks = asker.json(&["tasks", &run]);
    assert_eq!(tasks.as_array().unwrap().len(), 2);
    assert_eq!(asker.json(&["tasks", "--state", "suspended"])[0]["name"], "wait");
    assert!(asker.says(&["runs", "cancel", &run]).starts_with("the run is"));
    until("it is cancelled", || detail()["state"] == "cancelled");
    let waited = asker.output(&["runs", "wait", &run], "");
    assert_eq!(waited.status.code(), Some(1), "the exit code is the run's");
    let again = asker.says(&["runs", "rerun", &run]);
    assert_ne!(again, run);
    assert_eq!(asker.json(&["runs", "--workflow", "daily"]).as_array().unwrap().len(), 2);
    asker.says(&["runs", "pause", &again]);
    asker.says(&["runs", "resume", &again]);
    asker.says(&["runs", "cancel", &again]);
    asker.says(&["runs", "delete", &run]);
    let message = asker.fails(&["runs", "show", &run]);
    assert!(message.contains("there is no run"), "{message}");
    asker.says(&["workflows", "pause", "daily"]);
    assert_eq!(asker.json(&["workflows", "show", "daily"])["paused"], true);
    asker.says(&["workflows", "resume", "daily"]);
    asker.says(&["workflows", "delete", "daily"]);
    assert_eq!(asker.json(&["workflows"]).as_array().unwrap().len(), 0);
}

#[test]
fn a_log_is_followed_while_it_grows() {
    let asker = Asker::new();
    let yaml = "name: w\ntasks:\n  a: {shell: 'echo one; until [ -e PLACE/go ]; do sleep 0.05; done; \
                echo two'}\n";
    let yaml = yaml.replace("PLACE", &asker.folder.path().display().to_string());
    asker.folder.write("w.yaml", yaml);
    asker.says(&["workflows", "put", "w.yaml"]);
    asker.says(&["workflows", "start", "w"]);
    until("the first line is there", || {
        text(&asker.output(&["logs", "a"], "").stdout).contains("one")
    });
    for place in [&["--server", &asker.server.url][..], &["--data", "data"]] {
        let args = [&["logs", "-f", "a"], place].concat();
        let mut command = asker.folder.command(&args);
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        asker.folder.write("go", "");
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stdout), "one\ntwo\n", "{place:?}");
    }
}

#[test]
fn triggers_backfills_assets_and_limits() {
    let asker = Asker::new();
    asker.folder.write(
        "w.yaml",
        "name: w\nschedule: {cron: '0 2 * * *', start: 2100-01-01}\n\
         tasks: {a: {noop: true, produces: [lake/orders]}}\n",
    );
    asker.says(&["workflows", "put", "w.yaml"]);
    assert_eq!(asker.json(&["triggers"])[0]["kind"], "cron");
    assert!(asker.says(&["triggers", "upcoming", "w"]).contains("2100-01-0"));
    asker.says(&["triggers", "pause", "w"]);
    assert_eq!(asker.json(&["triggers", "show", "w"])["paused"], true);
    asker.says(&["triggers", "resume", "w"]);
    let run = asker.says(&["triggers", "fire", "w"]);
    asker.says(&["runs", "wait", &run]);
    asker.json(&["triggers", "decisions", "w"]);
    assert!(asker.fails(&["triggers", "show", "x"]).contains("there is no trigger"));

    let range = ["w", "--from", "2026-03-01", "--to", "2026-03-03"];
    let preview = asker.says(&[&["backfill", "preview"], &range[..]].concat());
    assert!(preview.contains("3 slots"), "{preview}");
    let id = asker.says(&[&["backfill", "start"], &range[..]].concat());
    until("the backfill ends", || asker.json(&["backfill", "show", &id])["state"] == "succeeded");
    assert_eq!(asker.json(&["backfill", "slots", &id]).as_array().unwrap().len(), 3);
    assert!(asker.says(&["backfill"]).contains(&id));
    asker.folder.write("slow.yaml", "name: slow\ntasks: {a: {approval: {message: m}}}\n");
    asker.says(&["workflows", "put", "slow.yaml"]);
    let partitions = ["backfill", "start", "slow", "--partition", "eu", "--partition", "us"];
    let id = asker.says(&partitions);
    asker.says(&["backfill", "pause", &id]);
    asker.says(&["backfill", "resume", &id]);
    asker.says(&["backfill", "cancel", &id]);

    assert!(asker.says(&["assets"]).contains("lake/orders"));
    assert_eq!(asker.json(&["assets", "show", "lake/orders"])["producers"][0], "w");
    assert!(!asker.json(&["assets", "history", "lake/orders"]).as_array().unwrap().is_empty());
    asker.json(&["assets", "partitions", "lake/orders"]);

    asker.says(&["limits", "set", "db", "3", "--description", "few connections"]);
    assert!(asker.says(&["limits"]).contains("few connections"));
    asker.says(&["limits", "holders", "db"]);
    asker.says(&["limits", "waiters", "db"]);
    asker.says(&["limits", "delete", "db"]);
}

#[test]
fn secrets_are_read_from_elsewhere_and_never_shown() {
    let asker = Asker::new();
    asker.says(&["variables", "set", "region", "eu"]);
    assert_eq!(asker.says(&["variables", "get", "region"]), "eu");
    let set = asker.output(&["variables", "set", "key", "--secret", "-"], "hunter2\n");
    assert!(set.status.success(), "{}", text(&set.stderr));
    asker.folder.write("password", "hunter2\n");
    let connection =
        ["connections", "set", "db", "--kind", "postgres", "--field", "host=db", "--secret"];
    asker.says(&[&connection[..], &["password=@password"]].concat());
    assert!(
        asker.fails(&[&connection[..], &["password=hunter2"]].concat()).contains("others can read")
    );
    for list in [&["variables"][..], &["connections"], &["variables", "-o", "json"]] {
        let said = asker.says(list);
        assert!(!said.contains("hunter2") && said.len() > 10, "{said}");
    }
    assert!(asker.fails(&["variables", "get", "key"]).contains("is secret"));
    asker.says(&["variables", "set", "home", "--secret", "env:HOME"]);
    assert_eq!(asker.json(&["variables"])[0]["from"]["env"], "HOME");
    let own = asker.fails(&["variables", "set", "x", "--secret", "env:KOBZA_SECRET_KEY"]);
    assert!(own.contains("is the server's own"), "{own}");
    asker.says(&["variables", "delete", "key"]);
    asker.says(&["connections", "delete", "db"]);
    assert!(asker.fails(&["connections", "delete", "db"]).contains("there is no connection"));
}

#[test]
fn accounts_and_what_a_token_may() {
    let mut asker = Asker::new();
    let admin = asker.says(&["tokens", "add", "admin", "--role", "admin"]);
    assert!(asker.fails(&["workflows"]).contains("who you are"), "now there is an account");
    asker.token = Some(admin.clone());
    let user = ["users", "add", "ann", "--role", "default=viewer"];
    assert!(asker.output(&user, "correct horse battery\n").status.success());
    assert!(asker.says(&["users"]).contains("default=viewer"));
    let viewer = asker.says(&["tokens", "add", "look", "--role", "viewer", "--expires-in", "1d"]);
    asker.token = Some(viewer);
    asker.says(&["workflows"]);
    let message = asker.fails(&["limits", "set", "x", "1"]);
    assert!(message.contains("error:") && !message.contains("kobza_"), "{message}");
    asker.token = Some("kobza_nonsense".to_owned());
    assert!(!asker.fails(&["workflows"]).contains("nonsense"));

    // From a file, which the file of settings may name.
    asker.token = None;
    asker.folder.write("token", format!("{admin}\n"));
    asker.folder.write("kobza.toml", "[client]\ntoken_file = 'token'\n");
    assert!(asker.says(&["tokens"]).contains("look"));
    asker.says(&["tokens", "delete", "look"]);
    asker.says(&["users", "delete", "ann"]);
    assert_eq!(asker.json(&["tokens"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let folder = Folder::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = folder.kobza(&["workflows", "--server", &format!("http://127.0.0.1:{port}")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("hint: is the server there?"),
        "{}",
        text(&output.stderr)
    );
    for wrong in ["127.0.0.1:1", "http://a:b@127.0.0.1:1"] {
        let output = folder.kobza(&["workflows", "--server", wrong]);
        let message = text(&output.stderr);
        assert!(output.status.code() == Some(2) && !message.contains("a:b"), "{message}");
    }
}
