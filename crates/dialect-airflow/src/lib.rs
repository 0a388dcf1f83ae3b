//! Airflow: its DAGs, as its own packages serialise them, on Kobza's engine.
//!
//! The pure half reads a serialised DAG ([`dag`]), compiles it to the engine's forms ([`compile`])
//! and answers the engine's questions ([`AirflowDialect`]).

pub mod compile;
pub mod dag;
mod decide;
mod past;
pub mod retry;
pub mod rules;
pub mod states;
pub mod timetable;

use kobza_engine::{Decision, Launch, Question};
use kobza_runtime::{Dialect, ExecutorName, Facts, LaunchSpec};

pub use compile::{Bundle, Compiled, compile, conf, task_limit};
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
        _launch: &Launch,
        _facts: &dyn Facts,
    ) -> Result<(ExecutorName, LaunchSpec), String> {
        Err("tasks of Airflow are not run yet".to_owned())
    }
}
