//! The environment with Airflow that the settings name, and what reads DAG files in it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use kobza_dialect_airflow::parser::ParseHost;
use kobza_dialect_airflow::schedule::CustomTimetables;
use kobza_dialect_airflow::{Bundle, Place};
use kobza_model::Json;

use crate::airflow_host::Nursery;
use crate::compose::Host;
use crate::config::Settings;
use crate::failure::Failure;

/// The bundle's name, as Airflow's own default has it.
pub(crate) const BUNDLE: &str = "dags-folder";
/// The namespace of DAGs.
pub(crate) const NAMESPACE: &str = "default";

/// A folder of DAG files and what reads them.
pub(crate) struct Airflow {
    pub(crate) bundle: Bundle,
    pub(crate) parser: Arc<ParseHost>,
}

impl Airflow {
    /// As the settings have it, if they do.
    pub(crate) fn of(settings: &Settings, host: &Host) -> Result<Option<Self>, Failure> {
        let Some(folder) = settings.path("airflow.dags") else { return Ok(None) };
        let python = settings.path("airflow.python").ok_or_else(|| {
            Failure::hint(
                "`airflow.dags` needs `airflow.python`",
                "name the interpreter of the environment that has Airflow",
            )
        })?;
        // The link of an environment is what makes it one: it is not followed.
        let python = match python.components().count() {
            0 | 1 => python.to_owned(),
            _ => std::path::absolute(python)?,
        };
        let python = python
            .to_str()
            .ok_or_else(|| Failure::new(format!("{} is not UTF-8", python.display())))?;
        let airflow = Self::open(folder, python, host)?;
        let custom: Arc<dyn CustomTimetables> = airflow.parser.clone();
        host.desk.set_custom(custom);
        Ok(Some(airflow))
    }

    fn open(folder: &Path, python: &str, host: &Host) -> Result<Self, Failure> {
        let hint = "`airflow.dags` names a folder of DAG files";
        let folder = std::fs::canonicalize(folder)
            .map_err(|e| Failure::hint(format!("{}: {e}", folder.display()), hint))?;
        if !folder.is_dir() {
            return Err(Failure::hint(format!("{} is not a folder", folder.display()), hint));
        }
        let path = folder
            .to_str()
            .ok_or_else(|| Failure::new(format!("{} is not UTF-8", folder.display())))?;
        let bundle = Bundle {
            name: BUNDLE.to_owned(),
            path: path.to_owned(),
            python: python.to_owned(),
            version: None,
        };
        let place = Place {
            name: bundle.name.clone(),
            path: bundle.path.clone(),
            python: bundle.python.clone(),
            version: None,
        };
        let desk = host.desk.clone();
        let answers = Arc::new(move |request: &Json| desk.answer_definition(NAMESPACE, request));
        let nursery = Nursery {
            executor: host.executor.clone(),
            ends: host.ends.clone(),
            logs: host.logs.clone(),
            place,
            number: AtomicU32::new(0),
        };
        let parser = ParseHost::hosted(python.to_owned(), Arc::new(nursery), answers);
        Ok(Self { bundle, parser: Arc::new(parser) })
    }
}
