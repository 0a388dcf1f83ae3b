//! The scheduler on the real runtime and store: what was answered is kept, and the run shows it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use kobza_dialect_luigi::{LuigiConfig, LuigiDialect, LuigiHttp, RuntimeHost, ensure_run, router};
use kobza_model::{RunId, TaskState};
use kobza_runtime::{Handle, Runtime, RuntimeOptions, channel};
use kobza_store::{SqliteOptions, SqliteStore, Store as _};
use serde_json::{Value, json};
use tower::ServiceExt as _;

struct Server {
    runtime: Runtime,
    handle: Handle,
    store: Arc<SqliteStore>,
    run: RunId,
    routes: axum::Router,
}

impl Server {
    async fn start(folder: &Path, fresh: u128, config: LuigiConfig) -> Self {
        let store = Arc::new(SqliteStore::open(folder, SqliteOptions::default()).unwrap());
        let options = RuntimeOptions {
            engine: kobza_engine::EngineOptions::default(),
            owner: "test".to_owned(),
            store: store.clone(),
            dialects: vec![Arc::new(LuigiDialect)],
            lookup: None,
        };
        let (handle, inbox) = channel();
        let runtime = Runtime::start(options, &handle, inbox, BTreeMap::new()).unwrap();
        let fresh = RunId(uuid::Uuid::from_u128(fresh));
        let run = ensure_run(&handle, "default", &config, fresh).await.unwrap();
        let password = |user: &str, password: &str| user == "me" && password == "pw";
        let state = LuigiHttp {
            host: Arc::new(RuntimeHost { handle: handle.clone() }),
            run,
            ui: "/ui".into(),
            check_password: Some(Arc::new(password)),
            allowed_origins: Arc::new(["https://old.example".to_owned()]),
            hooks: None,
        };
        let routes = axum::Router::new().nest("/luigi", router(state));
        Self { runtime, handle, store, run, routes }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn call(&self, method: &str, arguments: Value) -> Value {
        let request = Request::post(format!("/luigi/api/{method}"))
            .header("authorization", "Basic bWU6cHc=")
            .header("content-type", "application/json")
            .body(Body::from(arguments.to_string()))
            .unwrap();
        let (status, text) = self.send(request).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["response"].clone()
    }

    async fn stop(self) {
        self.handle.stop();
        tokio::task::spawn_blocking(move || self.runtime.join().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_restarted_server_knows_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = LuigiConfig::default();
    config.resources.insert("db".to_owned(), 2.0);
    let server = Server::start(folder.path(), 1, config.clone()).await;
    let first = server.run;
    let add = |id: &str, deps: Value| {
        json!({"worker": "w", "task_id": id, "family": "F", "params": {"n": "1"}, "deps": deps,
            "resources": {"db": 1}})
    };
    server.call("add_task", add("top", json!(["low"]))).await;
    server.call("add_task", add("low", json!([]))).await;
    assert_eq!(
        server.call("get_work", json!({"worker": "w", "host": "h"})).await["task_id"],
        "low"
    );
    let before = server.call("task_list", json!({})).await;
    server.stop().await;

    config.resources.insert("db".to_owned(), 5.0);
    let server = Server::start(folder.path(), 2, config).await;
    assert_eq!(server.run, first, "the standing run is found again");
    assert_eq!(server.call("task_list", json!({})).await, before);
    assert_eq!(server.call("resource_list", json!({})).await[0]["num_total"], 5);
    let done = json!({"worker": "w", "task_id": "low", "status": "DONE", "runnable": null});
    server.call("add_task", done).await;
    let failed = json!({"worker": "w", "task_id": "top", "status": "FAILED",
        "expl": "\"Traceback\\nValueError: boom\\n\""});
    assert_eq!(
        server.call("get_work", json!({"worker": "w", "host": "h"})).await["task_id"],
        "top"
    );
    server.call("add_task", failed).await;

    let image = server.store.run_image(server.run).unwrap().unwrap();
    let shown = |name: &str| image.tasks.iter().find(|t| t.name == name).unwrap().clone();
    assert_eq!(shown("low").state, TaskState::Succeeded);
    let top = shown("top");
    assert_eq!((top.state, top.message.as_deref()), (TaskState::Failed, Some("ValueError: boom")));
    assert_eq!((&top.extra["upstream"], &top.inputs), (&json!(["low"]), &json!({"n": "1"})));
    server.stop().await;
}

#[tokio::test]
async fn who_may_call() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), 1, LuigiConfig::default()).await;
    let get = |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(format!("/luigi{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    };
    let own = ("authorization", "Basic bWU6cHc=");
    let status = async |request| server.send(request).await.0;
    assert_eq!(status(get("/api/is_paused", &[])).await, StatusCode::UNAUTHORIZED);
    let wrong = ("authorization", "Basic bWU6bm8=");
    assert_eq!(status(get("/api/is_paused", &[wrong])).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(get("/api/is_paused", &[own])).await, StatusCode::OK);
    for foreign in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        assert_eq!(status(get("/api/pause", &[own, foreign])).await, StatusCode::FORBIDDEN);
    }
    for fine in [("origin", "https://old.example"), ("sec-fetch-site", "same-origin")] {
        assert_eq!(status(get("/api/is_paused", &[own, fine])).await, StatusCode::OK);
    }
    let same = [own, ("host", "k:1"), ("origin", "http://k:1")];
    assert_eq!(status(get("/api/is_paused", &same)).await, StatusCode::OK);
    assert_eq!(status(get("/api/no_such", &[own])).await, StatusCode::NOT_FOUND);
    assert_eq!(status(get("/api/$tick", &[own])).await, StatusCode::NOT_FOUND);
    assert_eq!(status(get("/ctl/new", &[own])).await, StatusCode::NOT_FOUND);
    let garbage = get("/api/add_task?data=%7B", &[own]);
    assert_eq!(status(garbage).await, StatusCode::BAD_REQUEST);
    let (code, text) = server.send(get("/api/is_paused?data=%7B%7D", &[own])).await;
    assert_eq!((code, text.as_str()), (StatusCode::OK, "{\"response\": {\"paused\": false}}"));
    let head = Request::head("/luigi").header(own.0, own.1).body(Body::empty()).unwrap();
    assert_eq!(status(head).await, StatusCode::NO_CONTENT);
    let (code, text) = server.send(get("/metrics", &[own])).await;
    assert!(code == StatusCode::OK && text.contains("luigi_task_started_total"), "{text}");
    server.stop().await;
}
