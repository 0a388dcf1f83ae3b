//! Fake executors: bodies that run, reports that are late, doubled or lost.

use std::collections::BTreeMap;

use kobza_engine::{Launch, ReportBody};
use kobza_model::*;

/// A body, as the executor sees it.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    pub(crate) launch: Launch,
    pub(crate) started: bool,
    pub(crate) killed: bool,
    /// Its end, once it has ended; repeated until it is acknowledged.
    pub(crate) report: Option<ReportBody>,
}

/// Outlives the server's crashes, as shims do.
#[derive(Default)]
pub(crate) struct Executor {
    pub(crate) bodies: BTreeMap<LaunchId, Body>,
}

impl Executor {
    /// Idempotent by launch id.
    pub(crate) fn launch(&mut self, launch: Launch) {
        self.bodies.entry(launch.id).or_insert(Body {
            launch,
            started: false,
            killed: false,
            report: None,
        });
    }

    pub(crate) fn kill(&mut self, id: LaunchId) {
        if let Some(body) = self.bodies.get_mut(&id) {
            body.killed = true;
        }
    }
}
