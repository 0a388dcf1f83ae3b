//! TLS to PostgreSQL: what each `sslmode` wants, for the store and for `sql` tasks.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::cluster::Cluster;
use crate::machine::{Folder, Server, text};

/// A statement by the binary's own body of `sql` tasks: its output, or its last words.
fn sql(folder: &Folder, url: &str, statement: &str) -> Result<String, String> {
    let mut command = folder.command(&["exec", "sql"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let spec = json!({"url": url, "statement": statement}).to_string();
    child.stdin.take().unwrap().write_all(spec.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn each_mode_verifies_what_it_says() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = Folder::new();
    let (ca, other) = (cluster.file("ca.pem"), cluster.file("other.pem"));
    let encrypted = "select ssl as encrypted from pg_stat_ssl where pid = pg_backend_pid()";
    let ask =
        |host: &str, parameters: &str| sql(&folder, &cluster.url(host, parameters), encrypted);
    for (host, parameters, works) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), Err("no encryption")),
        ("127.0.0.1", String::new(), Ok("true")),
        ("127.0.0.1", "sslmode=prefer".to_owned(), Ok("true")),
        ("127.0.0.1", "sslmode=require".to_owned(), Ok("true")),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={other}"), Err("certificate")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}"), Ok("true")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other}"), Err("certificate")),
        // Nobody that this machine trusts has signed it.
        ("127.0.0.1", "sslmode=verify-ca".to_owned(), Err("certificate")),
        // It was made for another name.
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}"), Err("certificate")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={ca}"), Ok("true")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}"), Err("certificate")),
        ("localhost", "sslmode=verify-full&sslrootcert=/nowhere".to_owned(), Err("/nowhere")),
        ("localhost", "sslmode=sometimes".to_owned(), Err("sslmode")),
    ] {
        match (ask(host, &parameters), works) {
            (Ok(output), Ok(word)) => assert!(output.contains(word), "{parameters}: {output}"),
            (Err(error), Err(word)) => assert!(error.contains(word), "{parameters}: {error}"),
            (found, _) => panic!("{host} {parameters}: {found:?}"),
        }
    }
    // Who may come unencrypted does when the server cannot do better.
    sql(&folder, &cluster.local_url(), "create role plain login").unwrap();
    let plain = cluster.url("127.0.0.1", "sslmode=disable").replace("kobza@", "plain@");
    assert!(sql(&folder, &plain, encrypted).unwrap().contains("false"));
}

#[test]
fn a_store_over_tls() {
    let Some(cluster) = Cluster::start() else { return };
    let folder = Folder::new();
    let store = |file: &str| {
        let parameters = format!("sslmode=verify-full&sslrootcert={}", cluster.file(file));
        cluster.url("localhost", &parameters)
    };
    let good = store("ca.pem");
    let server = Server::start_under(&folder, &[("KOBZA_STORE", &good)]);
    let yaml = "name: w\ntasks: {a: {noop: true}}\n";
    assert_eq!(server.post("/api/v1/workflows", "application/yaml", yaml).0, 201);
    let (_, run) = server.post("/api/v1/workflows/w/runs", "application/json", "{}");
    assert_eq!(server.wait_run(run["id"].as_str().unwrap()), "succeeded");
    let question = "select count(*) > 0 and bool_and(ssl) as all_encrypted from pg_stat_ssl
                    join pg_stat_activity using (pid) where application_name = 'kobza'
                    and pid <> pg_backend_pid()";
    let told = sql(&folder, &cluster.local_url(), question).unwrap();
    assert!(told.contains("true"), "{told}");
    drop(server);
    let bad = store("other.pem").replace("kobza@", "kobza:hunter2@");
    let mut command = folder.command(&["server", "--data", "other", "--listen", "127.0.0.1:0"]);
    let output = command.env("KOBZA_STORE", &bad).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("certificate") && !message.contains("hunter2"), "{message}");
}
