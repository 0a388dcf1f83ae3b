//! What goes out: notifications, traces and lineage, each made from the durable event log.
//!
//! An outlet keeps its own place in the log. The place moves only after what came before it was
//! taken care of, so that nothing is lost by a crash; what is repeated has the same ids.

mod config;
mod email;
mod follow;
mod ids;
mod lineage;
mod notify;
mod send;
mod traces;

use std::sync::Arc;

use kobza_runtime::Handle;
use kobza_store::{Store, Views};

pub use config::{Config, ConfigError};

/// A value of a namespace by (kind, namespace, name), decrypted.
pub type Lookup = dyn Fn(&str, &str, &str) -> Option<kobza_model::Json> + Send + Sync;

/// What outlets work with.
#[derive(Clone)]
pub struct Parts {
    pub handle: Handle,
    pub store: Arc<dyn Store>,
    pub views: Arc<dyn Views>,
    pub lookup: Arc<Lookup>,
}

/// Starts a thread for each outlet that is configured; they end with the process.
pub fn start(config: Config, parts: &Parts) -> std::io::Result<()> {
    if let Some(traces) = config.traces {
        follow::start(parts.clone(), Box::new(traces::Traces::new(traces)))?;
    }
    if let Some(lineage) = config.lineage {
        follow::start(parts.clone(), Box::new(lineage::Lineage::new(lineage)))?;
    }
    if !config.notify.is_empty() {
        let rules = Arc::new(config.notify);
        let new = notify::deliver(parts.clone(), rules.clone())?;
        follow::start(parts.clone(), Box::new(notify::Notify::new(rules, new)))?;
    }
    Ok(())
}
