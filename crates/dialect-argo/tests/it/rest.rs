//! The REST routes over the real loop and store; bodies run in threads of the test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use kobza_blobs::LogStore;
use kobza_dialect_argo::rest::{ArgoState, router};
use kobza_dialect_argo::{ArgoDialect, ArgoSettings, ExecSpec, exec};
use kobza_engine::{EngineOptions, KillReason, Report, ReportBody};
use kobza_model::{Cause, Json, LaunchId, Outcome};
use kobza_runtime::{
    Executor, Handle, LaunchSpec, ReportSink as _, Runtime, RuntimeOptions, channel, wall_now,
};
use kobza_store::{SqliteOptions, SqliteStore};
use serde_json::json;
use tower::ServiceExt as _;

/// Runs leaves in threads; a body that should go on for ever ends when it is killed.
struct Threads {
    handle: Handle,
    folder: PathBuf,
}

fn finish(handle: &Handle, launch: LaunchId, ended: exec::Report, killed: bool) {
    let good = ended.exit_code == 0 && !killed;
    let outcome = match (good, killed) {
        (true, _) => Outcome::Succeeded,
        (_, true) => Outcome::Cancelled,
        _ => Outcome::Failed,
    };
    let body = ReportBody::Finished {
        outcome,
        cause: if outcome == Outcome::Failed { Cause::Code } else { Cause::None },
        message: ended.message,
        exit_code: Some(ended.exit_code),
        outputs: ended.outputs.into_iter().collect(),
        skips: Vec::new(),
        jitter: 0.0,
    };
    handle.report(Report { launch, at: wall_now(), body }, Box::new(|| {}));
}

impl Executor for Threads {
    fn launch(&self, launch: LaunchId, spec: LaunchSpec) {
        let handle = self.handle.clone();
        let folder = self.folder.join(launch.to_string());
        std::thread::spawn(move || {
            handle.report(
                Report { launch, at: wall_now(), body: ReportBody::Started },
                Box::new(|| {}),
            );
            let spec: ExecSpec =
                serde_json::from_str(&spec.stdin.expect("a description")).expect("a description");
            if spec.template["container"]["command"][0] == "for-ever" {
                return;
            }
            finish(&handle, launch, exec::run(&spec, &folder), false);
        });
    }

    fn kill(&self, launch: LaunchId, _: KillReason) {
        let handle = self.handle.clone();
        std::thread::spawn(move || {
            finish(&handle, launch, exec::Report { exit_code: 143, ..Default::default() }, true);
        });
    }

    fn adopt(&self, _: Vec<LaunchId>) {}
}

struct Server {
    router: axum::Router,
    handle: Handle,
    runtime: Option<Runtime>,
    _folder: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store =
            Arc::new(SqliteStore::open(folder.path(), SqliteOptions::default()).expect("a store"));
        let (handle, inbox) = channel();
        let threads: Arc<dyn Executor> =
            Arc::new(Threads { handle: handle.clone(), folder: folder.path().join("work") });
        let dialect = ArgoDialect::new(ArgoSettings {
            program: "kobza".to_owned(),
            artifacts: folder.path().join("artifacts"),
            volumes: folder.path().join("volumes"),
            isolate: true,
            ..ArgoSettings::default()
        });
        let runtime = Runtime::start(
            RuntimeOptions {
                engine: EngineOptions::default(),
                owner: "test".to_owned(),
                store: store.clone(),
                dialects: vec![Arc::new(dialect)],
                lookup: None,
            },
            &handle,
            inbox,
            BTreeMap::from([("process", threads)]),
        )
        .expect("a loop");
        let state = ArgoState {
            handle: handle.clone(),
            store: store.clone(),
            views: store,
            logs: LogStore::new(folder.path().join("logs")),
            check_token: Some(Arc::new(|token| token == "good")),
            artifacts: folder.path().join("artifacts"),
            lookup: Arc::new(|_, _, _| None),
            schedules: None,
            seal: None,
        };
        Self { router: router(state), handle, runtime: Some(runtime), _folder: folder }
    }

    async fn call(&self, method: &str, path: &str, body: Option<Json>) -> (StatusCode, Json) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", "Bearer good")
            .header("content-type", "application/json")
            .body(body.map_or_else(Body::empty, |b| Body::from(b.to_string())))
            .expect("a request");
        let answer = self.router.clone().oneshot(request).await.expect("an answer");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Json::Null))
    }

    async fn good(&self, method: &str, path: &str, body: Option<Json>) -> Json {
        let (status, json) = self.call(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {json}");
        json
    }

    /// Reads a workflow until it is as wanted; looks again whenever something was committed.
    async fn until(&self, name: &str, holds: impl Fn(&Json) -> bool) -> Json {
        let mut changed = self.handle.next_event();
        loop {
            changed.mark_unchanged();
            let object = self.good("GET", &format!("/api/v1/workflows/argo/{name}"), None).await;
            if holds(&object) {
                return object;
            }
            let waited =
                tokio::time::timeout(std::time::Duration::from_secs(60), changed.changed()).await;
            waited.unwrap_or_else(|_| panic!("stands still: {object:#}")).expect("a loop");
        }
    }

    async fn ended(&self, name: &str) -> Json {
        self.until(name, |w| !w["status"]["finishedAt"].is_null()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(runtime) = self.runtime.take() {
            // A loop that failed has failed the test already.
            let _ended = runtime.join();
        }
    }
}

fn workflow(name: &str, templates: Json) -> Json {
    json!({ "workflow": {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": { "generateName": name, "labels": { "team": "a" } },
        "spec": {
            "entrypoint": "main", "templates": templates,
            "arguments": { "parameters": [{ "name": "word", "value": 5 }] },
        },
    }})
}

#[tokio::test]
async fn a_workflow_is_made_watched_and_deleted() {
    let server = Server::new();
    let templates = json!([{
        "name": "main", "steps": [
            [{ "name": "a", "template": "say" }],
            [{ "name": "b", "template": "say", "when": "{{steps.a.outputs.result}} == 5" }],
        ],
    }, {
        "name": "say",
        "container": { "image": "busybox", "command": ["echo"], "args": ["{{workflow.parameters.word}}"] },
    }]);
    let path = "/api/v1/workflows/argo";
    let made = server.good("POST", path, Some(workflow("hello-", templates.clone()))).await;
    let name = made["metadata"]["name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("hello-") && name.len() == 11, "{name}");
    assert_eq!(made["status"]["phase"], "Running", "clients wait for this at once");
    let ended = server.ended(&name).await;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{ended:#}");
    assert_eq!(ended["status"]["progress"], "2/2");
    assert_eq!(ended["metadata"]["labels"]["workflows.argoproj.io/completed"], "true");
    let nodes = ended["status"]["nodes"].as_object().expect("nodes");
    let b = nodes.values().find(|n| n["displayName"] == "b").expect("b");
    assert_eq!((&b["phase"], &b["type"]), (&json!("Succeeded"), &json!("Pod")));
    assert_eq!(b["outputs"], json!({ "result": "5", "exitCode": "0" }));

    let list = server
        .good("GET", &format!("{path}?listOptions.labelSelector=team%3Da,workflows.argoproj.io/phase%20in%20(Succeeded)&fields=items.metadata.name,items.status.phase"), None)
        .await;
    assert_eq!(
        list["items"],
        json!([{ "metadata": { "name": name }, "status": { "phase": "Succeeded" } }])
    );
    let none =
        server.good("GET", &format!("{path}?listOptions.labelSelector=team%3Db"), None).await;
    assert_eq!(none["items"], json!([]));

    let again = server
        .good("PUT", &format!("{path}/{name}/resubmit"), Some(json!({ "parameters": ["word=6"] })))
        .await;
    let second = again["metadata"]["name"].as_str().expect("a name").to_owned();
    let ended = server.ended(&second).await;
    let nodes = ended["status"]["nodes"].as_object().expect("nodes");
    let b = nodes.values().find(|n| n["displayName"] == "b").expect("b");
    assert_eq!(b["message"], "when '6 == 5' evaluated false");

    server.good("DELETE", &format!("{path}/{name}"), None).await;
    let (status, error) = server.call("GET", &format!("{path}/{name}"), None).await;
    assert_eq!((status, &error["code"]), (StatusCode::NOT_FOUND, &json!(5)));
}

#[tokio::test]
async fn workflows_are_stopped_retried_and_resumed() {
    let server = Server::new();
    let path = "/api/v1/workflows/argo";
    let forever =
        json!([{ "name": "main", "container": { "image": "x", "command": ["for-ever"] } }]);
    let made = server.good("POST", path, Some(workflow("long-", forever))).await;
    let name = made["metadata"]["name"].as_str().expect("a name").to_owned();
    server
        .until(&name, |w| {
            w["status"]["nodes"]
                .as_object()
                .is_some_and(|n| n.values().any(|n| n["phase"] == "Running"))
        })
        .await;
    server.good("PUT", &format!("{path}/{name}/stop"), Some(json!({}))).await;
    let ended = server.ended(&name).await;
    assert_eq!(ended["status"]["phase"], "Failed");
    assert_eq!(ended["status"]["message"], "Stopped with strategy 'Stop'");
    assert_eq!(ended["spec"]["shutdown"], "Stop");
    let (status, _) = server.call("PUT", &format!("{path}/{name}/stop"), Some(json!({}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);

    let flaky = json!([{ "name": "main", "container": {
        "image": "x", "command": ["sh", "-c"], "args": ["exit 3"],
    }}]);
    let made = server.good("POST", path, Some(workflow("flaky-", flaky))).await;
    let name = made["metadata"]["name"].as_str().expect("a name").to_owned();
    let ended = server.ended(&name).await;
    assert_eq!(ended["status"]["message"], "main: Error (exit code 3)");
    server.good("PUT", &format!("{path}/{name}/retry"), Some(json!({}))).await;
    server.ended(&name).await;

    let waits = json!([
        { "name": "main", "steps": [
            [{ "name": "approve", "template": "wait" }],
            [{ "name": "say", "template": "say", "arguments": { "parameters": [
                { "name": "w", "value": "{{steps.approve.outputs.parameters.answer}}" },
            ]}}],
        ]},
        { "name": "wait", "suspend": {}, "outputs": { "parameters": [
            { "name": "answer", "valueFrom": { "supplied": {} } },
        ]}},
        { "name": "say", "inputs": { "parameters": [{ "name": "w" }] },
          "container": { "image": "x", "command": ["test"], "args": ["{{inputs.parameters.w}}", "=", "yes"] } },
    ]);
    let made = server.good("POST", path, Some(workflow("wait-", waits))).await;
    let name = made["metadata"]["name"].as_str().expect("a name").to_owned();
    let running = |w: &Json| {
        w["status"]["nodes"].as_object().is_some_and(|n| n.values().any(|n| n["type"] == "Suspend"))
    };
    server.until(&name, running).await;
    let (status, error) =
        server.call("PUT", &format!("{path}/{name}/resume"), Some(json!({}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error["message"].as_str().expect("a message").contains("'answer' has not been set"));
    let set = json!({ "nodeFieldSelector": "displayName=approve", "outputParameters": "{\"answer\": \"yes\"}" });
    server.good("PUT", &format!("{path}/{name}/set"), Some(set)).await;
    let ended = server.ended(&name).await;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{ended:#}");
}

#[tokio::test]
async fn templates_cron_workflows_and_events() {
    let server = Server::new();
    let template = json!({ "template": {
        "metadata": { "name": "shared" },
        "spec": {
            "entrypoint": "main",
            "arguments": { "parameters": [{ "name": "m", "value": "x", "enum": ["x", "y"] }] },
            "templates": [{ "name": "main", "container": {
                "image": "argoproj/argosay:v2", "args": ["echo", "{{workflow.parameters.m}}"] } }],
        },
    }});
    let at = "/api/v1/workflow-templates/argo";
    server.good("POST", at, Some(template.clone())).await;
    let (status, error) = server.call("POST", at, Some(template.clone())).await;
    assert_eq!((status, &error["code"]), (StatusCode::CONFLICT, &json!(6)));
    let list = server.good("GET", at, None).await;
    assert_eq!(list["items"][0]["metadata"]["name"], "shared");
    let submit = |parameter: &str| {
        json!({ "resourceKind": "WorkflowTemplate", "resourceName": "shared",
                "submitOptions": { "parameters": [parameter], "labels": "a=b" } })
    };
    let runs = "/api/v1/workflows/argo/submit";
    let made = server.good("POST", runs, Some(submit("m=y"))).await;
    let name = made["metadata"]["name"].as_str().expect("a name").to_owned();
    assert_eq!(made["metadata"]["labels"]["workflows.argoproj.io/workflow-template"], "shared");
    let ended = server.ended(&name).await;
    assert_eq!(ended["status"]["phase"], "Succeeded", "{ended:#}");
    let node = ended["status"]["nodes"][&name].clone();
    assert_eq!(node["templateScope"], "namespaced/shared");
    let (status, error) = server.call("POST", runs, Some(submit("m=z"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");

    let bad = json!({ "template": { "metadata": { "name": "bad" }, "spec": {
        "templates": [{ "name": "m", "steps": [[{ "name": "a", "template": "gone" }]] }] } } });
    let (status, error) = server.call("POST", &format!("{at}/lint"), Some(bad)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("templates.m.steps[0].a template name 'gone' undefined"), "{message}");

    let cron = json!({ "cronWorkflow": { "metadata": { "name": "c" }, "spec": {
        "schedule": "0 0 * * *",
        "workflowSpec": { "entrypoint": "m", "templates": [{ "name": "m", "suspend": {} }] } } } });
    let made = server.good("POST", "/api/v1/cron-workflows/argo", Some(cron)).await;
    assert_eq!(made["spec"]["schedules"], json!(["0 0 * * *"]));
    let paused = server.good("PUT", "/api/v1/cron-workflows/argo/c/suspend", Some(json!({}))).await;
    assert_eq!(paused["spec"]["suspend"], true);

    let (status, _) = server.call("GET", "/api/v1/nonsense", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let request = Request::get("/api/v1/version").body(Body::empty()).expect("a request");
    let answer = server.router.clone().oneshot(request).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}
