//! A Luigi scheduler in memory, with test hooks, for trials with the real client:
//! `luigi_memory [PORT]` prints its address and serves until it is killed.

use std::sync::Arc;

use kobza_dialect_luigi::{LuigiConfig, LuigiHttp, MemoryHost, TestHooks, router};
use kobza_model::RunId;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
    let config = match std::env::var("LUIGI_CFG") {
        Ok(text) => LuigiConfig::from_cfg(&text).map_err(std::io::Error::other)?,
        Err(_) => LuigiConfig::default(),
    };
    let run = RunId(uuid::Uuid::from_u128(1));
    let host = Arc::new(MemoryHost::new(run, config));
    let ticker = host.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            let now = ticker.now();
            let _nothing = ticker.call_at(now, "$tick", &serde_json::Value::Null);
        }
    });
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
    axum::serve(listener, app).await
}
