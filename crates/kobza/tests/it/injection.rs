//! Parameters are data, whatever they hold and whichever kind of task takes them: they never become
//! code, a template, or another path.

use serde_json::json;

use crate::machine::{Folder, Server, until};

/// Values that would do something if anything took them for code. `PWNED` is a file.
fn hostile(folder: &Folder) -> Vec<String> {
    let pwned = folder.path().join("pwned").display().to_string();
    [
        "'; touch PWNED; echo '",
        "\"; touch PWNED; echo \"",
        "$(touch PWNED)",
        "`touch PWNED`",
        "${IFS}&&touch${IFS}PWNED",
        "a\ntouch PWNED\n",
        "| touch PWNED",
        "{{ secret.canary }}",
        "{% for x in [1] %}{{ secret.canary }}{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{{=sprig.env('HOME')}}",
        "{{workflow.parameters.other}}",
        "__import__('os').system('touch PWNED')",
        "'); drop table kept; --",
        "' or '1'='1",
        "%s %(x)s {0} $HOME \\x00",
        "-rf --help -o PWNED",
        "../../../../etc/passwd",
    ]
    .map(|value| value.replace("PWNED", &pwned))
    .into()
}

const NATIVE: &str = r#"
name: native
params: {evil: {type: string}}
connections: {db: {url: "sqlite:DB"}}
tasks:
  shell:
    shell: |
      printf '%s' {{ params.evil }} > OUT/shell-quoted
      printf '%s' "{{ params.evil }}" > OUT/shell-double
      cat > OUT/shell-here <<END
      {{ params.evil }}
      END
  bash: {shell: {command: "printf '%s' {{ params.evil }} > OUT/bash", shell: bash}}
  python: {python: {function: keep, file: OUT/keep.py}, with: {value: "{{ params.evil }}"}}
  make: {sql: "create table if not exists kept (value text)", connection: db}
  sql: {sql: "insert into kept values ({{ params.evil }})", connection: db, needs: make}
  count: {sql: "select count(*) as n, max(value) as value from kept", connection: db, needs: sql}
  each: {shell: "printf '%s' {{ item }} > OUT/item-{{ index }}", map: ["{{ params.evil }}", b]}
  when: {noop: true, when: "{{ params.evil == 'never' }}"}
  page: {http: {url: "HTTP/api/v1/search?q={{ params.evil | urlencode }}", expect: [200]}}
  group:
    group:
      tasks: {inner: {shell: "printf '%s' {{ params.evil }} > OUT/inner"}}
"#;

const KEEP: &str = "def keep(value):\n    open('OUT/python', 'w', newline='').write(value)\n";

/// Argo pastes parameters into its containers' texts; here they go where Argo keeps them data: an
/// argument of its own, an environment variable, a parameter of a parameter.
const ARGO: &str = r#"{"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"name": "argo"},
"spec": {"entrypoint": "main", "arguments": {"parameters": [{"name": "evil", "value": "none"}, {"name": "other", "value": "SECRET-OTHER"}]},
"templates": [
 {"name": "main", "steps": [[{"name": "a", "template": "say", "arguments": {"parameters": [{"name": "p", "value": "{{workflow.parameters.evil}}"}]}}]]},
 {"name": "say", "inputs": {"parameters": [{"name": "p"}]}, "container": {"image": "alpine",
  "command": ["sh", "-c", "printf %s \"$1\"; printf %s \"$EVIL\" >&2", "x"], "args": ["{{inputs.parameters.p}}"],
  "env": [{"name": "EVIL", "value": "{{inputs.parameters.p}}"}]}}]}}"#;

#[test]
fn parameters_never_become_code() {
    let folder = Folder::new();
    let out = folder.path().display().to_string();
    let server = Server::start(&folder);
    let fill = |text: &str| {
        let database = folder.path().join("db.sqlite").display().to_string();
        text.replace("OUT", &out).replace("DB", &database).replace("HTTP", &server.url)
    };
    folder.write("keep.py", fill(KEEP));
    let canary = r#"{"value": "the-canary-sings", "secret": true}"#;
    assert_eq!(server.put("/api/v1/variables/canary", canary).0, 200);
    for definition in [fill(NATIVE), ARGO.to_owned()] {
        let (status, answer) = server.post("/api/v1/workflows", "application/yaml", &definition);
        assert_eq!(status, 201, "{answer}");
    }
    for evil in hostile(&folder) {
        let body = json!({"params": {"evil": evil}}).to_string();
        let run = |name: &str| {
            let path = format!("/api/v1/workflows/{name}/runs");
            let (status, run) = server.post(&path, "application/json", &body);
            assert_eq!(status, 201, "{run}");
            let id = run["id"].as_str().unwrap().to_owned();
            assert_eq!(server.wait_run(&id), "succeeded", "{evil:?}: {}", server.run(&id));
            server.get(&format!("/api/v1/runs/{id}/tasks?limit=100")).1["items"].clone()
        };
        let tasks = run("native");
        assert!(!folder.path().join("pwned").exists(), "{evil:?} became code");
        for kept in ["shell-quoted", "shell-double", "bash", "python", "item-0", "inner"] {
            assert_eq!(folder.read(kept), evil, "{kept}");
        }
        assert_eq!(folder.read("shell-here"), format!("{evil}\n"));
        let named = |name: &str| {
            let all = tasks.as_array().unwrap();
            all.iter().find(|t| t["name"] == name).unwrap()["id"].as_str().unwrap().to_owned()
        };
        let count = named("count");
        let (_, outputs) = server.get(&format!("/api/v1/tasks/{count}/outputs"));
        assert!(!outputs.to_string().contains("the-canary-sings"), "{outputs}");
        assert!(outputs.to_string().contains('1'), "the table is there: {outputs}");
        let tasks = run("argo");
        let task = tasks.as_array().unwrap().iter().find(|t| t["kind"] != "hook");
        let all = tasks.as_array().unwrap();
        let leaf = all.iter().rfind(|t| t["attempt"] == 1).or(task).unwrap();
        let log = format!("/api/v1/tasks/{}/attempts/1/log", leaf["id"].as_str().unwrap());
        let mut said = serde_json::Value::Null;
        until("Argo's log is there", || {
            said = server.get(&log).1;
            said["lines"].as_array().is_some_and(|lines| lines.len() > 1)
        });
        let of = |stream: &str| {
            let lines = said["lines"].as_array().unwrap().iter();
            let own = lines.filter(|l| l["stream"] == stream);
            own.map(|l| l["text"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(of("out"), evil.trim_end_matches('\n'), "Argo's argument");
        assert_eq!(of("err"), evil.trim_end_matches('\n'), "Argo's environment");
        assert!(!folder.path().join("pwned").exists(), "{evil:?} became code in Argo's container");
    }
}
