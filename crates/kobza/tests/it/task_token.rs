//! A task's own token: its run, and nothing else, as long as it runs.

use serde_json::json;

use crate::machine::{Folder, Server, agent, answer, until};

fn workflow(folder: &Folder, name: &str) -> String {
    let place = folder.path().display();
    format!(
        "name: {name}\ntasks:\n  a: {{shell: 'echo \"$KOBZA_API_TOKEN\" > {place}/token-{name}; echo \
         mine is $KOBZA_API_TOKEN; until [ -e {place}/go ]; do sleep 0.05; done'}}\n  person: \
         {{approval: {{message: m, approvers: [ann]}}}}\n"
    )
}

#[test]
fn a_task_reaches_its_own_run_only_while_it_runs() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let start = |name: &str| {
        let yaml = workflow(&folder, name);
        assert_eq!(server.post("/api/v1/workflows", "application/yaml", &yaml).0, 201);
        let path = format!("/api/v1/workflows/{name}/runs");
        let (status, run) = server.post(&path, "application/json", "{}");
        assert_eq!(status, 201, "{run}");
        let token = format!("token-{name}");
        until("the task has its token", || folder.read(&token).ends_with('\n'));
        (run["id"].as_str().unwrap().to_owned(), folder.read(&token).trim().to_owned())
    };
    let (own, token) = start("own");
    let (other, _) = start("other");
    let ask = |method: &str, path: &str, token: &str| {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", server.url))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"));
        // Without its body: streams have no end.
        let answer = match method {
            "GET" | "DELETE" => agent().run(request.body(()).unwrap()),
            _ => agent().run(request.body("{\"approved\": true}").unwrap()),
        };
        answer.unwrap().status().as_u16()
    };
    assert!(token.starts_with("kobza_task_"), "{token}");
    // Without accounts everybody else may do everything: a task may not.
    for path in ["", "/tasks", "/graph", "/artifacts"] {
        assert_eq!(ask("GET", &format!("/api/v1/runs/{own}{path}"), &token), 200, "{path}");
        assert_eq!(ask("GET", &format!("/api/v1/runs/{other}{path}"), &token), 403, "{path}");
    }
    let tasks = server.get(&format!("/api/v1/runs/{own}/tasks")).1;
    let id = |name: &str| {
        let all = tasks["items"].as_array().unwrap();
        let task = all.iter().find(|t| t["name"] == name).unwrap();
        task["id"].as_str().unwrap().to_owned()
    };
    let log = format!("/api/v1/tasks/{}/attempts/1/log", id("a"));
    assert_eq!(ask("GET", &log, &token), 200);
    until("the log is there", || server.get(&log).1.to_string().contains("mine is"));
    assert!(!server.get(&log).1.to_string().contains("kobza_task_"), "it is masked");
    assert_eq!(ask("POST", &format!("/api/v1/tasks/{}/approve", id("person")), &token), 403);
    // Every route there is: of the other run, and what is of no run.
    let mut refused = 0;
    for route in kobza_api::access() {
        let Some(role) = route.role else { continue };
        let filled = |run: &str| {
            let first =
                if route.path.contains("/tasks/") { format!("{run}.0") } else { run.into() };
            let path = route.path.replace("{id}", &first).replace("{attempt}", "1");
            let path = path.replace("{artifact}", "x").replace("{name}", "own");
            path.replace("{key}", "x").replace("{version}", "1")
        };
        assert_eq!(
            ask(route.method, &filled(&other), &token),
            403,
            "{} {}",
            route.method,
            route.path
        );
        refused += 1;
        let reads = route.method == "GET";
        let mine = route.space == kobza_api::Space::Run;
        if !mine || role > kobza_api::Role::Operator {
            let status = ask(route.method, &filled(&own), &token);
            assert_eq!(status, 403, "{} {}", route.method, route.path);
        } else if reads {
            let status = ask(route.method, &filled(&own), &token);
            assert!(![401, 403].contains(&status), "{} {}: {status}", route.method, route.path);
        }
    }
    assert!(refused > 80);
    assert_eq!(ask("GET", &format!("/api/v1/runs/{own}"), &format!("{token}x")), 401);
    // Named approvers decide, and nobody else.
    let roles = json!({"*": "admin"});
    for name in ["ann", "bob"] {
        let body = json!({"name": name, "password": "correct horse", "roles": roles}).to_string();
        let request = agent().post(format!("{}/api/v1/users", server.url));
        let request = request.header("content-type", "application/json");
        let request = match name {
            "ann" => request,
            _ => request.header("authorization", basic("ann")),
        };
        assert_eq!(answer(request.send(&body)).0, 201);
    }
    let decide = |name: &str| {
        let path = format!("{}/api/v1/tasks/{}/approve", server.url, id("person"));
        let request = agent().post(path).header("authorization", basic(name));
        answer(request.header("content-type", "application/json").send("{\"approved\": true}"))
    };
    let (status, refused) = decide("bob");
    assert_eq!(status, 403, "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("ann may"), "{refused}");
    assert_eq!(decide("ann").0, 200);
    folder.write("go", "");
    let run = format!("/api/v1/runs/{own}");
    until("the token has ended with its task", || ask("GET", &run, &token) == 401);
}

fn basic(name: &str) -> String {
    use std::fmt::Write as _;
    // Base64 of a short text, by hand: three bytes make four letters.
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = "Basic ".to_owned();
    for chunk in format!("{name}:correct horse").as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = letters[(bits >> (18 - 6 * place)) as usize & 63] as char;
            let letter = if place <= chunk.len() { letter } else { '=' };
            write!(out, "{letter}").unwrap();
        }
    }
    out
}
