//! A Luigi scheduler alone, for trials with the real client: `luigi_server PORT [FOLDER]` prints its
//! address and serves until it is killed. With a folder its state is durable, through the runtime
//! and the store; without one it lives in memory. Test hooks are on. `LUIGI_CFG` holds the text of a
//! `luigi.cfg`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kobza_dialect_luigi::{
    LuigiConfig, LuigiDialect, LuigiHttp, MachineHost, MemoryHost, RuntimeHost, TestHooks,
    ensure_run, router,
};
use kobza_model::RunId;
use kobza_runtime::{Handle, Runtime, RuntimeOptions, channel};
use kobza_store::{SqliteOptions, SqliteStore};

fn runtime(folder: &Path) -> Result<(Runtime, Handle), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    let store = Arc::new(SqliteStore::open(folder, SqliteOptions::default())?);
    let options = RuntimeOptions {
        engine: kobza_engine::EngineOptions::default(),
        owner: "luigi".to_owned(),
        store,
        dialects: vec![Arc::new(LuigiDialect)],
        lookup: None,
    };
    let (handle, inbox) = channel();
    let runtime = Runtime::start(options, &handle, inbox, BTreeMap::new())?;
    Ok((runtime, handle))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().and_then(|port| port.parse().ok()).unwrap_or(0);
    let config = match std::env::var("LUIGI_CFG") {
        Ok(text) => LuigiConfig::from_cfg(&text)?,
        Err(_) => LuigiConfig::default(),
    };
    let fresh = RunId(uuid::Uuid::now_v7());
    let (host, run): (Arc<dyn MachineHost>, RunId) = match args.next() {
        Some(folder) => {
            let (_runtime, handle) = runtime(Path::new(&folder))?;
            let run = ensure_run(&handle, "default", &config, fresh).await?;
            (Arc::new(RuntimeHost { handle }), run)
        }
        None => (Arc::new(MemoryHost::new(fresh, config)), fresh),
    };
    let state = LuigiHttp {
        host,
        run,
        ui: "/".into(),
        check_password: None,
        allowed_origins: Arc::new([]),
        hooks: Some(Arc::new(TestHooks::default())),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("http://{}/luigi", listener.local_addr()?);
    let app = axum::Router::new().nest("/luigi", router(state));
    Ok(axum::serve(listener, app).await?)
}
