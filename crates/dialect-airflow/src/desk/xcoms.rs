//! XComs: the outputs of tasks.

use std::sync::Arc;

use kobza_engine::{Command, Report, ReportBody};
use kobza_model::{Json, LaunchId, RunRow, TaskId, TaskNo, TaskRow};
use kobza_runtime::wall_now;
use serde_json::json;

use super::runs::logical_date;
use super::{Asker, Desk};
use crate::task::{Refused, XComPlace};

/// Keys that the task has deleted.
pub(crate) const DELETED: &str = "$deleted";

impl Desk {
    pub(super) fn get_xcom(
        &self,
        asker: Asker,
        own: &RunRow,
        place: &XComPlace,
        prior: bool,
    ) -> Result<Json, Refused> {
        let index = place.map_index.filter(|index| *index >= 0).unwrap_or(-1);
        let mut value = None;
        for run in self.runs_for(asker, own, place, prior)? {
            let task = self.instance(&run, &place.task_id, index)?;
            if let Some(task) = task {
                value = self.xcom(TaskId { run: run.run, task: task.task }, &place.key)?;
            }
            if value.is_some() {
                break;
            }
        }
        // A value that does not exist is none, as ever.
        Ok(json!({"type": "XComResult", "key": place.key, "value": value}))
    }

    /// The run that is meant, or with earlier dates it and those before it, the newest first.
    fn runs_for(
        &self,
        asker: Asker,
        own: &RunRow,
        place: &XComPlace,
        prior: bool,
    ) -> Result<Vec<RunRow>, Refused> {
        let run = if crate::run_id(own) == place.run_id && own.workflow == place.dag_id {
            if self.task_of(asker)?.name == place.task_id {
                self.settle()?;
            }
            Some(own.clone())
        } else {
            self.find_run(&own.namespace, &place.dag_id, &place.run_id)?
        };
        let date = run.as_ref().and_then(logical_date);
        match (run, date, prior) {
            (run, None, _) | (run, _, false) => Ok(run.into_iter().collect()),
            (_, Some(date), true) => {
                let all = self.runs(&own.namespace, &place.dag_id)?;
                let mut dated: Vec<_> = all
                    .into_iter()
                    .filter_map(|run| Some((logical_date(&run)?, run)))
                    .filter(|(at, _)| *at <= date)
                    .collect();
                dated.sort_by(|(a, _), (b, _)| b.cmp(a));
                Ok(dated.into_iter().map(|(_, run)| run).collect())
            }
        }
    }

    pub(crate) fn xcom(&self, task: TaskId, key: &str) -> Result<Option<Json>, Refused> {
        let Some(value) = self.views.task_output(task, key)? else { return Ok(None) };
        Ok((!self.is_deleted(task, key)?).then_some(value))
    }

    fn is_deleted(&self, task: TaskId, key: &str) -> Result<bool, Refused> {
        let deleted = self.views.task_output(task, DELETED)?;
        let keys = deleted.as_ref().and_then(Json::as_array);
        Ok(keys.is_some_and(|keys| keys.iter().any(|one| one == key)))
    }

    /// For another task than the asker: its supervisor takes what is its own.
    pub(crate) fn set_xcom(
        &self,
        own: &RunRow,
        place: XComPlace,
        value: Json,
    ) -> Result<Json, Refused> {
        if place.key.starts_with('$') {
            return Err(Refused::api(400, "XCom keys that begin with a $ are Kobza's own"));
        }
        let task = self.placed(own, &place)?;
        let mut outputs = Vec::new();
        let id = TaskId { run: task.run, task: task.task };
        if self.is_deleted(id, &place.key)? {
            let kept = self.views.task_output(id, DELETED)?.unwrap_or_default();
            let kept = kept.as_array().cloned().unwrap_or_default();
            let kept: Vec<Json> = kept.into_iter().filter(|key| *key != place.key).collect();
            outputs.push((DELETED.to_owned(), Json::Array(kept)));
        }
        outputs.push((place.key, value));
        self.leave(&task, outputs)?;
        Ok(Json::Null)
    }

    pub(crate) fn delete_xcom(&self, own: &RunRow, place: &XComPlace) -> Result<Json, Refused> {
        let task = self.placed(own, place)?;
        let id = TaskId { run: task.run, task: task.task };
        let mut keys = self.views.task_output(id, DELETED)?.unwrap_or_else(|| json!([]));
        if let Json::Array(keys) = &mut keys
            && !keys.iter().any(|key| *key == place.key)
        {
            keys.push(json!(place.key));
        }
        self.leave(&task, vec![(DELETED.to_owned(), keys)])?;
        Ok(Json::Null)
    }

    fn placed(&self, own: &RunRow, place: &XComPlace) -> Result<TaskRow, Refused> {
        let run = self.find_run(&own.namespace, &place.dag_id, &place.run_id)?;
        let index = place.map_index.unwrap_or(-1);
        let task = match &run {
            Some(run) => self.instance(run, &place.task_id, index)?,
            None => None,
        };
        task.ok_or_else(|| {
            let XComPlace { dag_id, run_id, task_id, .. } = place;
            Refused::api(404, format!("there is no task {task_id} [{index}] in {dag_id} {run_id}"))
        })
    }

    fn leave(&self, task: &TaskRow, outputs: Vec<(String, Json)>) -> Result<(), Refused> {
        let launch = LaunchId { run: task.run, task: task.task, launch: task.launch };
        let body = ReportBody::Outputs(outputs);
        self.handle.submit_blocking(Command::Report(Report { launch, at: wall_now(), body }))?;
        Ok(())
    }

    /// The instances of a task that have left this XCom, by map index.
    fn sequence(
        &self,
        asker: Asker,
        run: &RunRow,
        place: &XComPlace,
    ) -> Result<Arc<Vec<TaskNo>>, Refused> {
        let key = (asker.launch, run.run, place.task_id.clone(), place.key.clone());
        if let Some(list) = self.remembered(&key) {
            return Ok(list);
        }
        let mut having = Vec::new();
        for row in self.instances_of(run, Some(std::slice::from_ref(&place.task_id)))? {
            if self.xcom(TaskId { run: run.run, task: row.task }, &place.key)?.is_some() {
                having.push(row.task);
            }
        }
        let list = Arc::new(having);
        self.remember(key, &list);
        Ok(list)
    }

    fn sequence_run(&self, own: &RunRow, place: &XComPlace) -> Result<Option<RunRow>, Refused> {
        self.find_run(&own.namespace, &place.dag_id, &place.run_id)
    }

    pub(super) fn xcom_count(
        &self,
        asker: Asker,
        own: &RunRow,
        place: &XComPlace,
    ) -> Result<Json, Refused> {
        let count = match self.sequence_run(own, place)? {
            Some(run) => self.sequence(asker, &run, place)?.len(),
            None => 0,
        };
        Ok(json!({"type": "XComCountResponse", "len": count}))
    }

    pub(super) fn xcom_item(
        &self,
        asker: Asker,
        own: &RunRow,
        place: &XComPlace,
        offset: i64,
    ) -> Result<Json, Refused> {
        let missing = || {
            let XComPlace { key, dag_id, run_id, task_id, .. } = place;
            let detail = json!({"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "key": key, "offset": offset});
            Refused::not_found("XCOM_NOT_FOUND", detail)
        };
        let run = self.sequence_run(own, place)?.ok_or_else(missing)?;
        let list = self.sequence(asker, &run, place)?;
        let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
        let at = if offset < 0 { offset + length } else { offset };
        let task = usize::try_from(at).ok().and_then(|at| list.get(at)).ok_or_else(missing)?;
        let value = self.xcom(TaskId { run: run.run, task: *task }, &place.key)?;
        Ok(json!({"type": "XComSequenceIndexResult", "root": value}))
    }

    pub(super) fn xcom_slice(
        &self,
        asker: Asker,
        own: &RunRow,
        place: &XComPlace,
        slice: (Option<i64>, Option<i64>, Option<i64>),
        prior: bool,
    ) -> Result<Json, Refused> {
        let mut values = Vec::new();
        for run in self.runs_for(asker, own, place, prior)? {
            let list = self.sequence(asker, &run, place)?;
            for at in places(list.len(), slice) {
                values.extend(self.xcom(TaskId { run: run.run, task: list[at] }, &place.key)?);
            }
        }
        Ok(json!({"type": "XComSequenceSliceResult", "root": values}))
    }
}

/// The places that Python's slice of a list names, in its order.
fn places(
    length: usize,
    (start, stop, step): (Option<i64>, Option<i64>, Option<i64>),
) -> Vec<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let step = step.filter(|step| *step != 0).unwrap_or(1);
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |given: Option<i64>, default: i64| match given {
        None => default,
        Some(at) if at < 0 => (at + length).clamp(low, high),
        Some(at) => at.clamp(low, high),
    };
    let (begin, end) = if step > 0 { (low, high) } else { (high, low) };
    let (mut at, stop) = (bound(start, begin), bound(stop, end));
    let mut out = Vec::new();
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        out.extend(usize::try_from(at));
        at += step;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_as_in_python() {
        let all = |a, b, c| places(5, (a, b, c));
        assert_eq!(all(None, None, None), [0, 1, 2, 3, 4]);
        assert_eq!(all(Some(1), Some(4), Some(2)), [1, 3]);
        assert_eq!(all(Some(-2), None, None), [3, 4]);
        assert_eq!(all(None, Some(-1), None), [0, 1, 2, 3]);
        assert_eq!(all(None, None, Some(-1)), [4, 3, 2, 1, 0]);
        assert_eq!(all(Some(3), Some(0), Some(-2)), [3, 1]);
        assert_eq!(all(Some(9), None, None), [0; 0]);
        assert_eq!(all(Some(-9), Some(2), None), [0, 1]);
        assert_eq!(places(0, (None, None, Some(-1))), [0; 0]);
    }
}
