//! Bad definitions, parameters and bodies: one clear error each, exit 2 or 1, nothing changed.

use std::io::{Read as _, Write as _};

use crate::machine::{Folder, Server, text};

/// (file content, what the message must name)
const DEFINITIONS: &[(&str, &[&str])] = &[
    ("name: w\ntasks:\n  a: {noop: true, needs: b}\n  b: {noop: true, needs: a}\n", &["a", "b"]),
    ("name: w\ntasks:\n  a: {noop: true, nedes: b}\n", &["nedes", "needs"]),
    ("name: w\ntasks:\n  a: {noop: true, priority: high}\n", &["priority"]),
    ("name: w\nname: v\ntasks:\n  a: {noop: true}\n", &["name"]),
    (
        "name: w\ntasks:\n  extract: {noop: true}\n  b: {noop: true, needs: extrat}\n",
        &["extrat", "extract"],
    ),
    ("name: w\ntasks:\n  a: {shell: 'echo {{ params. }}'}\n", &["tasks.a"]),
    ("name: ../w\ntasks:\n  a: {noop: true}\n", &["name"]),
    ("name: w\ntasks:\n  a/b: {noop: true}\n", &["a/b"]),
    ("name: w\ntasks: [1, 2]\n", &["tasks"]),
    ("name: w\ntasks:\n  ..: {noop: true}\n", &[".."]),
    ("name: w\ntasks:\n  \"a\\0\": {noop: true}\n", &["\\0"]),
    ("name: w\ntasks:\n  \"a\\nb\": {noop: true}\n", &["\\n"]),
    ("", &[]),
    ("- just\n- a list\n", &["mapping"]),
];

#[test]
fn definitions() {
    let folder = Folder::new();
    for (number, (source, named)) in DEFINITIONS.iter().enumerate() {
        let name = format!("bad{number}.yaml");
        folder.write(&name, source);
        let output = folder.kobza(&["run", &name]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{source}\n{message}");
        assert!(message.starts_with(&format!("{name}:")), "no place: {message}");
        for word in *named {
            assert!(message.contains(word), "{word:?} not in {message}");
        }
    }
    assert!(!folder.path().join(".kobza").exists(), "a refused definition leaves no store");
}

/// The API refuses each with 422 and the words of the command line, and keeps nothing.
#[test]
fn the_same_over_the_api() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    let post = |body: &str| server.post("/api/v1/workflows", "application/yaml", body);
    for (source, _) in DEFINITIONS {
        folder.write("body.yaml", source);
        let told = text(&folder.kobza(&["check", "body.yaml"]).stderr);
        let (status, answer) = post(source);
        assert_eq!(status, 422, "{source}\n{answer}");
        let first = &answer["error"]["fields"][0];
        assert_eq!(first["file"], "body.yaml");
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(told.lines().next().unwrap(), message);
        assert!(first["line"].as_u64().unwrap() > 0 && first["column"].as_u64().unwrap() > 0);
        if let Some(hint) = first["hint"].as_str() {
            assert!(told.contains(hint), "{told}\n{hint}");
        }
    }
    let long = "n".repeat(10_000);
    let (status, answer) = post(&format!("name: w\ntasks:\n  {long}: {{noop: true}}\n"));
    assert_eq!(status, 422);
    assert!(answer.to_string().contains("has at most 1024 characters"), "{answer}");
    let (status, answer) = post(&format!("name: {long}\ntasks:\n  a: {{noop: true}}\n"));
    assert_eq!(status, 422);
    assert!(answer.to_string().contains("has at most 500 characters"), "{answer}");
    let (status, answer) = post(&"#".repeat((16 << 20) + 1));
    assert_eq!(status, 422, "{answer}");
    assert!(answer.to_string().contains("at most 16777216 (16 MiB)"), "{answer}");
    // 100 MiB are refused before they are sent; a client that sends them all the same, and looks for
    // the answer only then, gets it too.
    for sent in [0, 100 << 20] {
        let mut link = std::net::TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let length = 100 << 20;
        write!(link, "POST /api/v1/workflows HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n").unwrap();
        let piece = vec![b'#'; 1 << 20];
        for _ in 0..sent / piece.len() {
            link.write_all(&piece).unwrap();
        }
        let mut answer = String::new();
        link.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
        assert!(answer.contains("at most 16777216 (16 MiB)"), "{answer}");
    }
    assert_eq!(server.get("/api/v1/workflows").1["items"], serde_json::json!([]));

    assert_eq!(post("name: w\nparams: {n: {type: integer}}\ntasks:\n  a: {noop: true}\n").0, 201);
    let long = format!("\"{long}\"");
    for (field, value) in [
        ("params", "{\"n\": \"x\"}"),
        ("params", "{\"n\": 1, \"m\": 1}"),
        ("key", "\"..\""),
        ("key", "\"a/b\""),
        ("key", "\"a\\u0000b\""),
        ("key", &long),
        ("partition", "\"..\""),
        ("partition", "\"a\\nb\""),
        ("partition", &long),
        ("labels", "{\"a\\nb\": \"x\"}"),
    ] {
        let params = if field == "params" { "" } else { ", \"params\": {\"n\": 1}" };
        let body = format!("{{\"{field}\": {value}{params}}}");
        let (status, answer) = server.post("/api/v1/workflows/w/runs", "application/json", &body);
        assert_eq!(status, 422, "{field}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().starts_with(field), "{answer}");
    }
    let (status, _) = server.post("/api/v1/workflows/w/runs", "application/json", "[{\"n\": 1}]");
    assert_eq!(status, 400, "a list is no object");
    assert_eq!(server.get("/api/v1/runs").1["items"], serde_json::json!([]));
}

#[test]
fn hostile_files() {
    let folder = Folder::new();
    let bomb = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let refs = vec![format!("*a{}", level - 1); 9].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
        }
        text
    };
    folder.write("bomb.yaml", bomb);
    folder.write("binary.yaml", [0x6e, 0x61, 0xff, 0xfe, 0x00]);
    let large = std::fs::File::create(folder.path().join("large.yaml")).unwrap();
    large.set_len(100 * 1024 * 1024).unwrap();
    folder.write("deep.yaml", "[".repeat(200_000));
    for name in ["bomb.yaml", "binary.yaml", "large.yaml", "deep.yaml", "absent.yaml"] {
        let output = folder.kobza(&["check", name]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert!(message.contains(name), "{message}");
        assert!(message.len() < 4096, "{name}: a message of {} bytes", message.len());
    }
}

#[test]
fn parameters() {
    let folder = Folder::new();
    folder.write(
        "p.yaml",
        "name: p\nparams: {n: {type: integer, minimum: 1}}\ntasks:\n  a: {noop: true}\n",
    );
    for args in [
        &["run", "p.yaml"][..],
        &["run", "p.yaml", "-p", "n=zero"],
        &["run", "p.yaml", "-p", "n=0"],
        &["run", "p.yaml", "-p", "m=1"],
        &["run", "p.yaml", "-p", "n"],
    ] {
        let output = folder.kobza(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
    assert!(folder.kobza(&["run", "p.yaml", "-p", "n=7"]).status.success());
    assert_eq!(folder.json(&["runs", "-o", "json"]).as_array().unwrap().len(), 1);
}

#[test]
fn parameters_never_become_commands() {
    let folder = Folder::new();
    folder.write(
        "q.yaml",
        "name: q\nparams: {x: {type: string}}\ntasks:\n  a: {shell: 'printf %s {{ params.x }}'}\n",
    );
    for hostile in [
        "$(touch owned)",
        "'; touch owned; '",
        "`touch owned`",
        "a\nb",
        "{{ 7 * 7 }}",
        "\"x\" && touch owned",
        "-n",
    ] {
        let json = serde_json::json!({"x": hostile}).to_string();
        let output = folder.kobza(&["run", "q.yaml", "--params-json", &json]);
        assert!(output.status.success(), "{hostile}: {}", text(&output.stderr));
        let log = folder.kobza(&["logs", "a"]);
        assert_eq!(text(&log.stdout).trim_end_matches('\n'), hostile);
    }
    assert!(!folder.path().join("owned").exists());
}

#[test]
fn bodies_that_misbehave() {
    let folder = Folder::new();
    folder.write(
        "m.yaml",
        "name: m
tasks:
  loud: {shell: 'yes | head -c 4000000', log_limit: 1MB}
  garbage: {shell: 'head -c 300000 /dev/urandom'}
  output: {shell: 'head -c 200000 /dev/zero | tr \"\\\\0\" x > $KOBZA_OUTPUT', output_limit: 64KiB}
  missing: {python: {function: nowhere.nothing}}
  slow: {shell: 'sleep 600', timeout: 200ms, grace: 1s}
  after: {shell: 'echo fine', needs: [loud, garbage]}
",
    );
    let run = folder.json(&["run", "m.yaml", "-o", "json"]);
    let task = |name: &str| {
        run["tasks"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap().clone()
    };
    assert_eq!(run["state"], "failed");
    for (name, state) in [
        ("loud", "succeeded"),
        ("garbage", "succeeded"),
        ("output", "failed"),
        ("missing", "failed"),
        ("slow", "failed"),
        ("after", "succeeded"),
    ] {
        assert_eq!(task(name)["state"], state, "{}", task(name));
    }
    assert!(text(&folder.kobza(&["logs", "loud"]).stdout).len() < 1_200_000);
    assert!(text(&folder.kobza(&["logs", "missing"]).stdout).contains("nowhere"));
}

#[test]
fn a_reader_that_goes_is_no_error() {
    let folder = Folder::new();
    folder.write("bad.yaml", "name: w\ntasks:\n  a: {noop: true, nedes: b}\n");
    let mut child = folder
        .command(&["check", "bad.yaml"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}
