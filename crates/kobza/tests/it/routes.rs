//! Every route of every dialect, streams among them, takes the same credentials. The routes are read
//! from the dialects' sources, so that a new one is covered when it is written.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::machine::{Folder, Server, agent};

/// Where the routes of a dialect are mounted.
const MOUNTS: &[(&str, &str)] = &[("dialect-argo", "/argo"), ("dialect-luigi", "/luigi")];
/// Only with `--luigi-test-hooks`, which a server with accounts does not have here.
const HOOKS: &[&str] = &["/ctl/new", "/s/{id}/"];
const METHODS: &[&str] = &["get", "post", "put", "patch", "delete", "head"];

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Methods and paths of the `.route("PATH", get(..).post(..))` of a text.
fn routes_of(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in text.split(".route(").skip(1) {
        let Some((_, rest)) = part.split_once('"') else { continue };
        let (path, rest) = rest.split_once('"').unwrap();
        let mut depth = 1;
        let call: String = rest
            .chars()
            .take_while(|c| {
                depth += i32::from(*c == '(') - i32::from(*c == ')');
                depth > 0
            })
            .collect();
        for method in METHODS {
            let begins = |(at, _): &(usize, &str)| {
                call[..*at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_')
            };
            if call.match_indices(&format!("{method}(")).any(|m| begins(&m)) {
                found.push((method.to_uppercase(), path.to_owned()));
            }
        }
    }
    found
}

fn all_routes() -> Vec<(String, String)> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for (dialect, mount) in MOUNTS {
        let mut files = Vec::new();
        sources(&crates.join(dialect).join("src"), &mut files);
        for file in files {
            for (method, path) in routes_of(&std::fs::read_to_string(file).unwrap()) {
                if !HOOKS.iter().any(|hook| path.starts_with(hook)) {
                    all.push((method, format!("{mount}{path}")));
                }
            }
        }
    }
    all
}

#[test]
fn every_dialect_s_routes_refuse_who_may_not() {
    let routes = all_routes();
    assert!(routes.len() > 60, "{routes:?}");
    for stream in ["workflow-events", "stream/events", "/log"] {
        assert!(routes.iter().any(|(_, path)| path.contains(stream)), "{stream} is not covered");
    }
    let folder = Folder::new();
    let server = Server::start(&folder);
    let token = |name: &str, role: &str, only: Option<&str>| {
        let body = json!({"name": name, "role": role, "namespace": only});
        let request = agent().post(format!("{}/api/v1/tokens", server.url));
        let request = match std::fs::read_to_string(folder.path().join("admin")) {
            Ok(admin) => request.header("authorization", format!("Bearer {admin}")),
            Err(_) => request,
        };
        let (status, made) = crate::machine::answer(request.send_json(body));
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    };
    folder.write("admin", token("admin", "admin", None));
    let viewer = token("viewer", "viewer", None);
    let elsewhere = token("elsewhere", "admin", Some("other"));
    for (method, path) in &routes {
        // Names that no path has.
        let mut filled = String::new();
        for part in path.split('/').skip(1) {
            filled.push('/');
            filled.push_str(if part.starts_with('{') { "x" } else { part });
        }
        // The root of a mount is the mount itself.
        let filled =
            if path.matches('/').count() == 2 { filled.trim_end_matches('/') } else { &filled };
        // Where a redirect leads is another route.
        let plain: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .into();
        let ask = |given: Option<String>| {
            let request = ureq::http::Request::builder()
                .method(method.as_str())
                .uri(format!("{}{filled}", server.url))
                .header("content-type", "application/json");
            let request = match given {
                Some(given) => request.header("authorization", given),
                None => request,
            };
            // Without its body: streams have no end.
            let answer = match method.as_str() {
                "GET" | "DELETE" | "HEAD" => plain.run(request.body(()).unwrap()),
                _ => plain.run(request.body("{}").unwrap()),
            };
            answer.unwrap().status().as_u16()
        };
        assert_eq!(ask(None), 401, "{method} {filled} with nothing");
        for wrong in ["Bearer nonsense", "Bearer kobza_nonsense", "Basic !!!", "nonsense"] {
            assert_eq!(ask(Some(wrong.to_owned())), 401, "{method} {filled} with {wrong}");
        }
        let of_another = ask(Some(format!("Bearer {elsewhere}")));
        assert_eq!(of_another, 403, "{method} {filled} with another namespace's token");
        if !matches!(method.as_str(), "GET" | "HEAD") {
            let lesser = ask(Some(format!("Bearer {viewer}")));
            assert_eq!(lesser, 403, "{method} {filled} with a viewer's token");
        }
    }
}

/// Sends bytes as they are: clients tidy paths up.
fn raw(server: &Server, target: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut link = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    link.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    write!(link, "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // What came until then counts.
    let _cut = link.read_to_end(&mut answer);
    crate::machine::text(&answer)
}

/// Ways up, below whatever serves files: none leads out of it.
#[test]
fn no_path_leads_out() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    // Beside the data folder, and in it: neither is for anybody.
    folder.write("outside", "CANARY");
    let key = std::fs::read(folder.path().join("data/secret.key")).unwrap();
    let (_, put) = server.post(
        "/api/v1/workflows",
        "application/yaml",
        "name: w\ntasks: {a: {shell: 'echo x'}}\n",
    );
    assert_eq!(put["name"], "w");
    let (_, run) = server.post("/api/v1/workflows/w/runs", "application/json", "{}");
    let run = run["id"].as_str().unwrap();
    assert_eq!(server.wait_run(run), "succeeded");
    let mut bases: Vec<String> = [
        "/",
        "/assets/",
        "/static/",
        "/ui/",
        "/api/v1/",
        "/api/v1/workflows/",
        "/api/v1/assets/",
        "/api/v1/runs/",
        "/api/v1/tasks/",
        "/api/v1/variables/",
        "/luigi/",
        "/luigi/static/",
        "/luigi/api/",
        "/luigi/history/by_name/",
        "/argo/",
        "/argo/api/v1/workflows/",
        "/argo/artifacts/",
        "/argo/artifacts/default/w/",
        "/argo/artifact-files/default/workflows/w/w/outputs/",
        "/argo/input-artifacts/default/w/",
        "/argo/artifacts-by-uid/",
    ]
    .map(str::to_owned)
    .into();
    bases.push(format!("/api/v1/tasks/{run}.1/artifacts/"));
    bases.push(format!("/api/v1/tasks/{run}.1/attempts/"));
    let wanted = ["outside", "data/secret.key", "etc/passwd"];
    let ups = [
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%252f",
        "..\\",
        "..%5c",
        "....//",
        "..;/",
        "%c0%ae%c0%ae/",
        "..%00/",
        "%2f",
    ];
    for base in &bases {
        for up in ups {
            for depth in [1, 3, 8] {
                for file in wanted {
                    let target = format!("{base}{}{file}", up.repeat(depth));
                    let answer = raw(&server, &target);
                    let leaks = answer.contains("CANARY")
                        || answer.contains("root:x:")
                        || answer.contains("SQLite format")
                        || answer.as_bytes().windows(key.len()).any(|part| part == key);
                    assert!(!leaks, "{target}: {answer}");
                }
            }
        }
    }
}
