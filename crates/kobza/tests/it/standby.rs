//! Two servers on one PostgreSQL store: the standby shows, refuses writes, and takes over from one
//! that is killed or frozen. Skipped, saying so, without a database in KOBZA_TEST_POSTGRES.

use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::kill::{WHOLE, lines, slow};
use crate::machine::{Folder, agent, answer, kill, text, until};

struct Member {
    child: Child,
    url: String,
}

impl Member {
    fn start(folder: &Folder, store: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let child = folder
            .command(&["server", "--listen", &listen, "--data", "data"])
            .env("KOBZA_STORE", store)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let member = Self { child, url: format!("http://{listen}") };
        until("the server answers", || {
            agent().get(format!("{}/health", member.url)).call().is_ok()
        });
        member
    }

    fn get(&self, path: &str) -> (u16, Value) {
        answer(agent().get(format!("{}{path}", self.url)).call())
    }

    fn post(&self, path: &str, kind: &str, body: &str) -> (u16, Value) {
        answer(agent().post(format!("{}{path}", self.url)).header("content-type", kind).send(body))
    }

    fn wait_active(&self) {
        until("the server is active", || self.get("/ready").0 == 200);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        kill(self.child.id(), "-CONT");
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Something ends the active server in the middle of a task; the standby goes on with that task.
fn takes_over(name: &str, end: impl Fn(&mut Member)) {
    let Ok(base) = std::env::var("KOBZA_TEST_POSTGRES") else {
        eprintln!("skipped: KOBZA_TEST_POSTGRES is not set");
        return;
    };
    let separator = if base.contains('?') { '&' } else { '?' };
    let id = format!("kobza_it_{name}_{}", std::process::id());
    let store = format!("{base}{separator}schema={id}");
    let folder = Folder::new();
    let doctor = || folder.command(&["doctor"]).env("KOBZA_STORE", &store).output().unwrap();
    let early = doctor();
    assert!(text(&early.stdout).contains("does not exist yet"), "{early:?}");
    let mut first = Member::start(&folder, &store);
    first.wait_active();
    let looked = doctor();
    assert!(looked.status.success(), "{looked:?}");
    assert!(text(&looked.stdout).contains("PostgreSQL: "), "{looked:?}");
    let slow = slow(&folder);
    assert_eq!(first.post("/api/v1/workflows", "application/yaml", &slow).0, 201);
    let (_, run) = first.post("/api/v1/workflows/slow/runs", "application/json", "{}");
    let run = format!("/api/v1/runs/{}", run["id"].as_str().unwrap());
    until("the slow task runs", || lines(&folder).len() == 2);

    let second = Member::start(&folder, &store);
    until("the standby knows the active one", || {
        let (status, refused) = second.post("/api/v1/workflows", "application/yaml", &slow);
        assert_eq!((status, refused["error"]["code"].as_str()), (503, Some("standby")));
        refused["error"]["message"].as_str().unwrap().contains(&first.url)
    });
    assert_eq!(second.get("/health").1["status"], "standby");
    assert_eq!(second.get("/ready").0, 503);
    assert_eq!(second.get(&run).1["state"], "running");

    end(&mut first);
    let ended = Instant::now();
    second.wait_active();
    eprintln!("{name}: the standby was active after {} ms", ended.elapsed().as_millis());
    folder.write("go", "");
    until("the run ends", || second.get(&run).1["state"] == "succeeded");
    kill(first.child.id(), "-CONT");
    until("the old server has gone", || first.child.try_wait().unwrap().is_some());
    // It goes on where it was: nothing ran twice.
    assert_eq!(lines(&folder), WHOLE);
}

#[test]
fn a_standby_takes_over_from_a_killed_server() {
    takes_over("killed", |server| {
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    });
}

#[test]
fn a_standby_takes_over_from_a_frozen_server() {
    takes_over("frozen", |server| kill(server.child.id(), "-STOP"));
}
