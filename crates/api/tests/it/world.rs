//! A listening server over a store of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobza_api::{ApiParts, ApiState, Catalog, Definition, Problem, Role, Vault};
use kobza_model::{Json, Timestamp, Workflow};
use kobza_runtime::{Handle, Runtime, RuntimeOptions, Submission, channel, wall_now};
use kobza_store::{ObjectQuery, SqliteOptions, SqliteStore, StoredObject, Views as _, Write};

/// Reads no definitions: nothing here stores one.
struct NoCatalog;

impl Catalog for NoCatalog {
    fn parse(&self, _: &[u8], _: &str) -> Result<Definition, Vec<Problem>> {
        Err(Vec::new())
    }

    fn params(&self, _: &Workflow, given: Json) -> Result<Json, Vec<Problem>> {
        Ok(given)
    }
}

pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) handle: Handle,
    store: Arc<SqliteStore>,
    tokio: Option<tokio::runtime::Runtime>,
    looped: Option<Runtime>,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path(), SqliteOptions::default()).unwrap());
        let (handle, inbox) = channel();
        let options = RuntimeOptions {
            engine: kobza_engine::EngineOptions::default(),
            owner: "test".to_owned(),
            store: store.clone(),
            dialects: Vec::new(),
            lookup: None,
        };
        let looped = Runtime::start(options, &handle, inbox, BTreeMap::new()).unwrap();
        let state = ApiState::new(ApiParts {
            handle: handle.clone(),
            store: store.clone(),
            views: store.clone(),
            logs: kobza_blobs::LogStore::new(folder.path().join("logs")),
            artifacts: Arc::new(
                kobza_blobs::ArtifactStore::open(folder.path().join("artifacts")).unwrap(),
            ),
            catalog: Arc::new(NoCatalog),
            started_at: wall_now(),
            hosts: Vec::new(),
            store_kind: "sqlite",
            vault: Arc::new(Vault::open(folder.path()).unwrap()),
            triggers: None,
            loopback: true,
            backup: None,
        });
        // Stands for another system's wire API.
        let other = axum::Router::new()
            .route("/thing", axum::routing::get(|| async { "read" }).post(|| async { "written" }));
        let other = kobza_api::protect(other, &state, Role::Operator, Role::Operator);
        let app = axum::Router::new().nest("/other", other).merge(kobza_api::router(state));
        let tokio = tokio::runtime::Runtime::new().unwrap();
        let listener = tokio.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio.spawn(async move { axum::serve(listener, app).await });
        Self { url, handle, store, tokio: Some(tokio), looped: Some(looped), _folder: folder }
    }

    pub(crate) fn write(&self, writes: Vec<Write>) {
        self.handle.submit_blocking(Submission { commands: Vec::new(), writes }).unwrap();
    }

    pub(crate) fn objects(&self, kind: &'static str) -> Vec<StoredObject> {
        let query = ObjectQuery { kind, limit: 100, ..Default::default() };
        self.store.list_objects(&query).unwrap().items
    }

    /// Text and id of a new token.
    pub(crate) fn token(
        &self,
        name: &str,
        role: Role,
        namespace: Option<&str>,
        expires_at: Option<Timestamp>,
    ) -> (String, String) {
        let (text, row, write) =
            kobza_api::token_write(name, role, namespace.map(str::to_owned), expires_at).unwrap();
        self.write(vec![write]);
        (text, row.id)
    }

    /// Status of an answer, without its body: streams have no end.
    pub(crate) fn status(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answer = match method {
            "GET" | "DELETE" => agent.run(request.body(()).unwrap()),
            _ => agent.run(request.body("{}").unwrap()),
        };
        answer.unwrap().status().as_u16()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(tokio) = self.tokio.take() {
            tokio.shutdown_background();
        }
        self.handle.stop();
        if let Some(looped) = self.looped.take() {
            let _ended = looped.join();
        }
    }
}
