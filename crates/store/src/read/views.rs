//! [`Views`] for everything that can be read.

use kobza_model::{
    ExpansionRow, Json, LimitRow, RunId, RunRow, RunState, ScopeRow, TaskId, TaskNo, TaskRow,
    Timestamp,
};

use super::{Queries, Reads, assets, events, load, objects, runs, tasks, with, workflows};
use crate::{
    AssetEvent, AssetEventFilter, AssetSummary, CheckResult, EventPage, GridRun, Materialization,
    ObjectQuery, Origin, Page, PartitionStatus, RunFilter, StoreError, StoredObject,
    StoredWorkflow, TaskCount, TaskFilter, VersionSummary, ViewError, Views, WorkflowFilter,
    WorkflowSummary,
};

type Result<T> = std::result::Result<T, ViewError>;

/// Reads something that can be refused for its cursor.
fn view<T>(
    store: &(impl Reads + ?Sized),
    mut read: impl FnMut(&mut dyn Queries) -> Result<T>,
) -> Result<T> {
    with(store, |queries| match read(queries) {
        Ok(answer) => Ok(Ok(answer)),
        Err(ViewError::Cursor) => Ok(Err(ViewError::Cursor)),
        Err(ViewError::Store(error)) => Err(error),
    })?
}

fn plain<T>(
    store: &(impl Reads + ?Sized),
    read: impl FnMut(&mut dyn Queries) -> std::result::Result<T, StoreError>,
) -> Result<T> {
    with(store, read).map_err(ViewError::Store)
}

impl<S: Reads> Views for S {
    fn list_runs(&self, f: &RunFilter, cursor: Option<&str>, limit: u32) -> Result<Page<RunRow>> {
        view(self, |q| runs::list(q, f, cursor, limit))
    }

    fn get_run(&self, run: RunId) -> Result<Option<RunRow>> {
        plain(self, |q| Ok(load::find_run(q, run)?.map(|(_, run)| run)))
    }

    fn list_tasks(
        &self,
        run: RunId,
        filter: &TaskFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<TaskRow>> {
        view(self, |q| tasks::list(q, run, filter, cursor, limit))
    }

    fn get_task(&self, task: TaskId) -> Result<Option<TaskRow>> {
        plain(self, |q| tasks::get(q, task))
    }

    fn list_attempts(&self, task: TaskId) -> Result<Vec<TaskRow>> {
        plain(self, |q| tasks::attempts(q, task))
    }

    fn task_outputs(&self, task: TaskId) -> Result<Vec<(String, Json)>> {
        plain(self, |q| load::outputs(q, task))
    }

    fn run_outputs(&self, run: RunId) -> Result<Vec<(TaskNo, String, Json)>> {
        plain(self, |q| load::run_outputs(q, run))
    }

    fn task_output(&self, task: TaskId, key: &str) -> Result<Option<Json>> {
        plain(self, |q| tasks::output(q, task, key))
    }

    fn artifact_tasks(&self, run: RunId, cursor: Option<&str>, limit: u32) -> Result<Page<TaskNo>> {
        view(self, |q| tasks::with_artifacts(q, run, cursor, limit))
    }

    fn task_counts(&self, run: RunId) -> Result<Vec<TaskCount>> {
        plain(self, |q| tasks::counts(q, run))
    }

    fn run_scopes(&self, run: RunId) -> Result<Vec<ScopeRow>> {
        plain(self, |q| match load::run_number(q, run)? {
            Some(number) => load::scopes(q, run, number),
            None => Ok(Vec::new()),
        })
    }

    fn run_expansions(&self, run: RunId) -> Result<Vec<ExpansionRow>> {
        plain(self, |q| match load::run_number(q, run)? {
            Some(number) => load::expansions(q, run, number),
            None => Ok(Vec::new()),
        })
    }

    fn grid(&self, namespace: &str, workflow: &str, runs: u32) -> Result<Vec<GridRun>> {
        plain(self, |q| tasks::grid(q, namespace, workflow, runs))
    }

    fn list_workflows(
        &self,
        filter: &WorkflowFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<WorkflowSummary>> {
        view(self, |q| workflows::list(q, filter, cursor, limit))
    }

    fn get_workflow(
        &self,
        namespace: &str,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<StoredWorkflow>> {
        plain(self, |q| load::workflow(q, namespace, name, version))
    }

    fn workflow_versions(&self, namespace: &str, name: &str) -> Result<Vec<VersionSummary>> {
        plain(self, |q| workflows::versions(q, namespace, name))
    }

    fn run_totals(&self, namespaces: &[String]) -> Result<Vec<(RunState, u64)>> {
        plain(self, |q| runs::totals(q, namespaces))
    }

    fn ended_by_hour(
        &self,
        namespaces: &[String],
        from: Timestamp,
    ) -> Result<Vec<(Timestamp, RunState, u64)>> {
        plain(self, |q| runs::ended_by_hour(q, namespaces, from))
    }

    fn artifact_texts(&self, each: &mut dyn FnMut(&str)) -> Result<()> {
        plain(self, |q| tasks::artifact_texts(q, each))
    }

    fn events_since(&self, after: u64, limit: u32, run: Option<RunId>) -> Result<EventPage> {
        plain(self, |q| events::since(q, after, limit, run))
    }

    fn get_object(&self, kind: &str, namespace: &str, key: &str) -> Result<Option<StoredObject>> {
        plain(self, |q| objects::get(q, kind, namespace, key))
    }

    fn list_objects(&self, query: &ObjectQuery<'_>) -> Result<Page<StoredObject>> {
        view(self, |q| objects::list(q, query))
    }

    fn list_limits(&self) -> Result<Vec<LimitRow>> {
        plain(self, load::limits)
    }

    fn asset_events(
        &self,
        namespace: &str,
        name: &str,
        wanted: &AssetEventFilter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AssetEvent>> {
        plain(self, |q| assets::events(q, (namespace, name), wanted, before, limit))
    }

    fn list_assets(
        &self,
        namespaces: &[String],
        search: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<AssetSummary>> {
        view(self, |q| assets::list(q, namespaces, search, cursor, limit))
    }

    fn get_asset(&self, namespace: &str, name: &str) -> Result<Option<AssetSummary>> {
        plain(self, |q| assets::get(q, namespace, name))
    }

    fn asset_history(
        &self,
        namespace: &str,
        name: &str,
        partition: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Materialization>> {
        view(self, |q| assets::history(q, (namespace, name), partition, cursor, limit))
    }

    fn asset_origins(&self, namespace: &str, limit: u32) -> Result<Vec<Origin>> {
        plain(self, |q| assets::origins(q, namespace, limit))
    }

    fn asset_partitions(
        &self,
        namespace: &str,
        name: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<PartitionStatus>> {
        view(self, |q| assets::partitions(q, (namespace, name), cursor, limit))
    }

    fn asset_checks(&self, namespace: &str, name: &str) -> Result<Vec<CheckResult>> {
        plain(self, |q| assets::checks(q, namespace, name))
    }
}
