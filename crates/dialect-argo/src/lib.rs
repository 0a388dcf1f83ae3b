//! Argo Workflows: its YAML compiled to the engine's forms, its expressions and conditions, its
//! node status and its REST routes.
//!
//! The pure half answers the engine's questions ([`ArgoDialect`]); the outer half is the parser, the
//! runner of one leaf ([`exec`]) and the wire.

mod arguments;
mod compile;
pub mod cron;
mod decide;
mod depends;
mod document;
pub mod exec;
mod launch;
mod limits;
mod lint;
mod loops;
mod metrics;
mod names;
mod normal;
mod outputs;
mod pod;
mod repository;
pub mod rest;
mod retry;
mod status;
mod values;

use kobza_engine::{Decision, Launch, Question};
use kobza_runtime::{Dialect, ExecutorName, Facts, LaunchSpec};

pub use compile::{CompileOptions, Library, compile, effective_spec, lint};
pub use decide::RECURSION_MAX;
pub use document::{Diagnostic, FILE_BYTES_MAX, Kind, Object, parse};
pub use launch::{ArgoSettings, ExecSpec, Image, Mount};
pub use limits::{NeededLimit, limits};
pub use loops::LOOP_MAX;
pub use names::{fnv32a, node_id, pod_name};
pub use status::{RunData, nodes, workflow_object, workflow_phase};

/// The dialect as the runtime calls it.
#[derive(Clone, Debug, Default)]
pub struct ArgoDialect {
    settings: ArgoSettings,
}

impl ArgoDialect {
    #[must_use]
    pub fn new(settings: ArgoSettings) -> Self {
        Self { settings }
    }
}

impl Dialect for ArgoDialect {
    fn name(&self) -> &'static str {
        "argo"
    }

    fn decide(&self, question: &Question, facts: &dyn Facts) -> Decision {
        decide::decide(question, facts, &self.settings)
    }

    fn launch(
        &self,
        launch: &Launch,
        facts: &dyn Facts,
    ) -> Result<(ExecutorName, LaunchSpec), String> {
        launch::launch(launch, facts, &self.settings).map(|spec| ("process", spec))
    }
}
