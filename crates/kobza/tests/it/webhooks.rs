//! Deliveries of webhooks: proved, repeated, forged, and without a secret.

use serde_json::{Value, json};

use crate::machine::{Folder, Server, agent, answer};

const YAML: &str = "
name: w
params: {n: {type: integer, default: 0}}
triggers:
  - {name: signed, webhook: {path: orders, scheme: github, secret: hook}, params: {n: '{{ event.body.n }}'}}
  - {name: open, webhook: {path: open}}
tasks: {a: {noop: true}}
";

/// HMAC-SHA256 in hexadecimal, by another program.
fn signature(secret: &str, body: &str) -> String {
    let script = "import hashlib, hmac, sys; print(hmac.new(sys.argv[1].encode(), \
                  sys.argv[2].encode(), hashlib.sha256).hexdigest())";
    let output =
        std::process::Command::new("python3").args(["-c", script, secret, body]).output().unwrap();
    format!("sha256={}", String::from_utf8(output.stdout).unwrap().trim())
}

fn deliver(server: &Server, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let mut request = agent().post(format!("{}/api/v1/webhooks/{path}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.header("content-type", "application/json").send(body))
}

fn runs(server: &Server) -> Vec<Value> {
    server.get("/api/v1/runs?workflow=w&limit=100").1["items"].as_array().unwrap().clone()
}

#[test]
fn deliveries_are_proved_and_repetitions_start_nothing() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    assert_eq!(server.post("/api/v1/workflows", "application/yaml", YAML).0, 201);
    let body = r#"{"n": 7}"#;
    let right = signature("s3cret", body);
    let proved = [("x-hub-signature-256", right.as_str()), ("x-github-delivery", "d-1")];
    // Nobody is believed as long as the secret is missing.
    assert_eq!(deliver(&server, "orders", &proved, body).0, 503);
    let secret = r#"{"value": "s3cret", "secret": true}"#;
    assert_eq!(server.put("/api/v1/variables/hook", secret).0, 200);
    let forged = signature("other", body);
    for wrong in [
        vec![],
        vec![("x-hub-signature-256", forged.as_str()), ("x-github-delivery", "d-1")],
        vec![("x-hub-signature-256", "sha256=00")],
    ] {
        let (status, told) = deliver(&server, "orders", &wrong, body);
        assert_eq!((status, &told["error"]["code"]), (401, &json!("signature")), "{wrong:?}");
        assert!(!told.to_string().contains("s3cret"));
    }
    assert_eq!(deliver(&server, "orders", &proved, r#"{"n": 8}"#).0, 401, "another body");
    assert!(runs(&server).is_empty());
    let (status, first) = deliver(&server, "orders", &proved, body);
    assert_eq!((status, &first["decisions"][0]["started"]), (200, &json!(true)), "{first}");
    let (_, again) = deliver(&server, "orders", &proved, body);
    assert_eq!(again["decisions"][0]["run"], first["decisions"][0]["run"]);
    assert_eq!(runs(&server).len(), 1, "a repetition starts nothing");
    assert_eq!(runs(&server)[0]["params"], json!({"n": 7}));
    assert_eq!(deliver(&server, "nowhere", &proved, body).0, 404);
    let large = "x".repeat((1 << 20) + 1);
    assert_eq!(deliver(&server, "orders", &proved, &large).0, 413);
    let (_, audit) = server.get("/api/v1/audit?limit=100");
    let kept = audit["items"].as_array().unwrap();
    let hooks: Vec<&Value> = kept.iter().filter(|r| r["principal"] == "webhook").collect();
    assert_eq!(hooks.len(), 2, "those that proved themselves, and no others: {audit}");
}

#[test]
fn without_a_secret_only_who_may_start_runs_delivers() {
    let folder = Folder::new();
    let server = Server::start(&folder);
    assert_eq!(server.post("/api/v1/workflows", "application/yaml", YAML).0, 201);
    assert_eq!(deliver(&server, "open", &[], "{}").0, 200, "a local user without accounts");
    let token = |name: &str, role: &str, headers: &[(&str, &str)]| {
        let mut request = agent().post(format!("{}/api/v1/tokens", server.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = json!({"name": name, "role": role}).to_string();
        let (status, made) = answer(request.header("content-type", "application/json").send(&body));
        assert_eq!(status, 201, "{made}");
        format!("Bearer {}", made["token"].as_str().unwrap())
    };
    let admin = token("admin", "admin", &[]);
    let viewer = token("viewer", "viewer", &[("authorization", &admin)]);
    assert_eq!(deliver(&server, "open", &[], "{}").0, 401);
    assert_eq!(deliver(&server, "open", &[("authorization", &viewer)], "{}").0, 403);
    assert_eq!(deliver(&server, "open", &[("authorization", &admin)], "{}").0, 200);
}
