//! Airflow: its DAGs, as its own packages serialise them, on Kobza's engine.
//!
//! The pure half reads a serialised DAG ([`dag`]), compiles it to the engine's forms ([`compile`])
//! and answers the engine's questions ([`AirflowDialect`]). Tasks run in the stock task runner: what
//! it is told, how the shim supervises it ([`task`]), what answers its questions
//! ([`desk`]) and what wakes those that wait ([`triggerer`]).

pub mod again;
pub mod compile;
mod custom;
pub mod dag;
pub mod dated;
mod decide;
pub mod desk;
pub mod ends;
pub mod ids;
mod launch;
pub mod manual;
pub mod parser;
mod partitions;
mod past;
pub mod people;
pub mod remarks;
pub mod rest;
pub mod retry;
pub mod rules;
pub mod schedule;
pub mod shown;
pub mod slots;
pub mod start;
pub mod states;
pub mod task;
pub mod timetable;
pub mod triggerer;

use kobza_engine::{Decision, Launch, Question};
use kobza_runtime::{Dialect, ExecutorName, Facts, LaunchSpec};

pub use compile::{
    AssetNames, Bundle, Compiled, Weights, asset_names, compile, conf, own_weights, task_limit,
};
pub use launch::{
    ADAPTER, MAX_MAP_LENGTH, Origin, Place, WAITERS, base, dag_run, environment, max_tries, run_id,
};
pub use past::PAST;

/// The dialect as the runtime calls it.
#[derive(Clone, Debug, Default)]
pub struct AirflowDialect {}

impl Dialect for AirflowDialect {
    fn name(&self) -> &'static str {
        "airflow"
    }

    fn decide(&self, question: &Question, facts: &dyn Facts) -> Decision {
        decide::decide(question, facts)
    }

    fn launch(
        &self,
        launch: &Launch,
        facts: &dyn Facts,
    ) -> Result<(ExecutorName, LaunchSpec), String> {
        launch::launch(launch, facts)
    }
}
