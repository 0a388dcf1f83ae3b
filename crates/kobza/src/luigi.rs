//! Luigi workers at `/luigi`: the standing run begins with their first call, and a next one after
//! somebody has ended it.

use std::sync::Arc;

use axum::Router;
use kobza_dialect_luigi::{
    Call, HostError, LuigiConfig, LuigiHttp, MachineHost, RuntimeHost, TestHooks, ensure_run,
};
use kobza_model::{Json, RunId};
use kobza_runtime::Handle;
use tokio::sync::RwLock;

use crate::failure::Failure;

/// Finds or starts the standing run once somebody asks, so that a server without Luigi has none.
struct LazyHost {
    runtime: RuntimeHost,
    config: LuigiConfig,
    run: RwLock<Option<RunId>>,
}

impl LazyHost {
    /// The standing run, another one than `ended`.
    async fn run(&self, ended: Option<RunId>) -> Result<RunId, HostError> {
        if let Some(run) = *self.run.read().await
            && Some(run) != ended
        {
            return Ok(run);
        }
        let mut known = self.run.write().await;
        // Of many callers one looks.
        if let Some(run) = *known
            && Some(run) != ended
        {
            return Ok(run);
        }
        let fresh = RunId(uuid::Uuid::now_v7());
        let run = ensure_run(&self.runtime.handle, "default", &self.config, fresh)
            .await
            .map_err(|e| HostError::Unavailable(e.to_string()))?;
        *known = Some(run);
        Ok(run)
    }
}

impl MachineHost for LazyHost {
    fn call(&self, _run: RunId, method: &str, arguments: Json) -> Call<'_> {
        let method = method.to_owned();
        Box::pin(async move {
            let run = self.run(None).await?;
            match self.runtime.call(run, &method, arguments.clone()).await {
                Err(HostError::Ended) => {
                    let next = self.run(Some(run)).await?;
                    self.runtime.call(next, &method, arguments).await
                }
                reply => reply,
            }
        })
    }
}

/// luigid's settings from a `luigi.cfg` or a TOML file.
pub(crate) fn config(path: Option<&std::path::Path>) -> Result<LuigiConfig, Failure> {
    let Some(path) = path else { return Ok(LuigiConfig::default()) };
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(format!("{}: {e}", path.display())))?;
    let toml = path.extension().is_some_and(|e| e == "toml");
    let config = if toml { LuigiConfig::from_toml(&text) } else { LuigiConfig::from_cfg(&text) };
    config.map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

pub(crate) fn router(handle: Handle, config: LuigiConfig, test_hooks: bool) -> Router {
    let host = LazyHost { runtime: RuntimeHost { handle }, config, run: RwLock::new(None) };
    kobza_dialect_luigi::router(LuigiHttp {
        host: Arc::new(host),
        run: RunId(uuid::Uuid::nil()),
        ui: Arc::from("/runs?workflow=luigi"),
        check_password: None,
        allowed_origins: Arc::new([]),
        hooks: test_hooks.then(|| Arc::new(TestHooks::default())),
    })
}
