//! Task instances: how many, in which states, and those of earlier runs.

use std::collections::BTreeSet;

use kobza_model::{Json, RunRow, TaskRow, Timestamp};
use kobza_store::TaskFilter;
use serde_json::{Map, json};

use super::Desk;
use super::runs::logical_date;
use crate::states::task_word;
use crate::task::{Refused, TaskInstances};

/// Airflow's map index.
pub(crate) fn map_index(row: &TaskRow) -> i64 {
    row.index.map_or(-1, i64::from)
}

impl Desk {
    /// A run's task instances by task and map index: of a mapped task the instances once there are
    /// any, before that the one that stands for them.
    pub(crate) fn instances_of(
        &self,
        run: &RunRow,
        names: Option<&[String]>,
    ) -> Result<Vec<TaskRow>, Refused> {
        let mut rows = Vec::new();
        let filters = match names {
            Some(names) => names.iter().map(|name| Some(name.clone())).collect(),
            None => vec![None],
        };
        for name in filters {
            let filter = TaskFilter { name, ..TaskFilter::default() };
            let mut cursor = None::<String>;
            loop {
                let page = self.views.list_tasks(run.run, &filter, cursor.as_deref(), 1000)?;
                // What has no node is no task of the DAG.
                rows.extend(page.items.into_iter().filter(|row| row.node.is_some()));
                match page.next {
                    Some(next) => cursor = Some(next),
                    None => break,
                }
            }
        }
        let expanded: BTreeSet<String> =
            rows.iter().filter(|row| row.index.is_some()).map(|row| row.name.clone()).collect();
        rows.retain(|row| row.index.is_some() || !expanded.contains(&row.name));
        rows.sort_by(|a, b| (&a.name, a.index).cmp(&(&b.name, b.index)));
        Ok(rows)
    }

    /// One task instance.
    pub(crate) fn instance(
        &self,
        run: &RunRow,
        task_id: &str,
        index: i64,
    ) -> Result<Option<TaskRow>, Refused> {
        let mut filter = TaskFilter { name: Some(task_id.to_owned()), ..TaskFilter::default() };
        if let Ok(index) = u32::try_from(index) {
            filter.index_from = Some(index);
            filter.index_until = index.checked_add(1);
        }
        let page = self.views.list_tasks(run.run, &filter, None, 10)?;
        Ok(page.items.into_iter().find(|row| row.node.is_some() && map_index(row) == index))
    }

    fn matching(
        &self,
        namespace: &str,
        which: &TaskInstances,
        group: Option<&[String]>,
    ) -> Result<Vec<(RunRow, TaskRow)>, Refused> {
        let dates = which.logical_dates.as_deref();
        let runs = self.runs_by(namespace, &which.dag_id, dates, which.run_ids.as_deref())?;
        let mut found = Vec::new();
        for run in runs {
            let names = match group {
                Some(names) => Some(names),
                None => which.task_ids.as_deref().filter(|names| !names.is_empty()),
            };
            let index = which.map_index.filter(|index| *index >= 0);
            for row in self.instances_of(&run, names)? {
                if index.is_none_or(|index| map_index(&row) == index) {
                    found.push((run.clone(), row));
                }
            }
        }
        Ok(found)
    }

    pub(super) fn instance_count(
        &self,
        namespace: &str,
        which: &TaskInstances,
    ) -> Result<Json, Refused> {
        let group = self.group(namespace, which)?;
        let mut found = self.matching(namespace, which, group.as_deref())?;
        if let (Some(_), Some(names)) = (&group, which.task_ids.as_deref()) {
            found.retain(|(_, row)| names.is_empty() || names.contains(&row.name));
        }
        if let Some(states) = which.states.as_deref().filter(|states| !states.is_empty()) {
            found.retain(|(_, row)| {
                let word = task_word(row.state, row.cause);
                states.iter().any(|state| {
                    let state = state.as_deref().filter(|state| *state != "null");
                    state == word
                })
            });
        }
        Ok(json!({"type": "TICount", "count": found.len()}))
    }

    pub(super) fn instance_states(
        &self,
        namespace: &str,
        which: &TaskInstances,
    ) -> Result<Json, Refused> {
        let group = self.group(namespace, which)?;
        let mut found = Vec::new();
        if group.is_none() || which.task_ids.as_deref().is_some_and(|names| !names.is_empty()) {
            found = self.matching(namespace, which, None)?;
        }
        if let Some(names) = &group {
            found.extend(self.matching(namespace, which, Some(names))?);
        }
        let mut runs = Map::new();
        for (run, row) in found {
            let name = match map_index(&row) {
                -1 => row.name.clone(),
                index => format!("{}_{index}", row.name),
            };
            let states = runs.entry(crate::run_id(&run)).or_insert_with(|| json!({}));
            states[name] = json!(task_word(row.state, row.cause));
        }
        Ok(json!({"type": "TaskStatesResult", "task_states": runs}))
    }

    /// The tasks of the group that is asked for.
    fn group(
        &self,
        namespace: &str,
        which: &TaskInstances,
    ) -> Result<Option<Vec<String>>, Refused> {
        let Some(group) = &which.task_group_id else { return Ok(None) };
        let stored = self.store.workflow(namespace, &which.dag_id, None)?;
        let tree =
            stored.map(|stored| stored.workflow.source["airflow"]["dag"]["task_group"].clone());
        let mut names = Vec::new();
        if tree.is_none_or(|tree| !tasks_of_group(&tree, group, &mut names)) {
            let words = format!("Task group {group} not found in DAG {}", which.dag_id);
            return Err(Refused::api(404, words));
        }
        // Without any task the group's own id is looked for.
        Ok(Some(if names.is_empty() { vec![group.clone()] } else { names }))
    }

    pub(super) fn previous_instance(
        &self,
        namespace: &str,
        (dag_id, task_id, index): (&str, &str, i64),
        before: Option<&str>,
        state: Option<&str>,
    ) -> Result<Json, Refused> {
        let before: Option<Timestamp> = before.and_then(|at| at.parse().ok());
        let mut dated: Vec<_> = self
            .runs(namespace, dag_id)?
            .into_iter()
            .filter_map(|run| Some((logical_date(&run)?, run)))
            .filter(|(at, _)| before.is_none_or(|before| *at < before))
            .collect();
        dated.sort_by(|(a, _), (b, _)| b.cmp(a));
        for (at, run) in dated {
            let Some(row) = self.instance(&run, task_id, index)? else { continue };
            let word = task_word(row.state, row.cause);
            if state.is_some_and(|state| word != Some(state)) {
                continue;
            }
            return Ok(json!({"type": "PreviousTIResult", "task_instance": {
                "task_id": task_id, "dag_id": dag_id, "run_id": crate::run_id(&run),
                "logical_date": at, "start_date": row.started_at, "end_date": row.ended_at,
                "state": word, "try_number": row.attempt, "map_index": index,
                "duration": seconds(&row),
            }}));
        }
        Ok(json!({"type": "PreviousTIResult", "task_instance": null}))
    }

    pub(super) fn breadcrumbs(
        &self,
        namespace: &str,
        dag_id: &str,
        run_id: &str,
    ) -> Result<Json, Refused> {
        let mut crumbs = Vec::new();
        if let Some(run) = self.find_run(namespace, dag_id, run_id)? {
            let stored = self.store.workflow(namespace, dag_id, Some(&run.version))?;
            for row in self.instances_of(&run, None)? {
                if row.state.is_finished() {
                    let operator = stored.as_ref().and_then(|stored| {
                        let node = super::skips::node(&stored.workflow, row.node?)?;
                        node.arguments["task"]["task_type"].as_str().map(str::to_owned)
                    });
                    crumbs.push(json!({
                        "task_id": row.name, "map_index": map_index(&row),
                        "state": task_word(row.state, row.cause), "operator": operator,
                        "duration": seconds(&row),
                    }));
                }
            }
        }
        Ok(json!({"type": "TaskBreadcrumbsResult", "breadcrumbs": crumbs}))
    }
}

#[expect(clippy::cast_precision_loss, reason = "durations are far from 2^53 microseconds")]
fn seconds(row: &TaskRow) -> Option<f64> {
    Some((row.ended_at?.0 - row.started_at?.0) as f64 / 1_000_000.0)
}

/// Collects the tasks of a group from the serialised tree. False if there is no such group.
pub(crate) fn tasks_of_group(tree: &Json, wanted: &str, names: &mut Vec<String>) -> bool {
    let Some(children) = tree["children"].as_object() else { return false };
    let inside = tree["_group_id"].as_str() == Some(wanted);
    let mut found = inside;
    for (id, child) in children {
        match child[0].as_str() {
            Some("operator") if inside => names.push(id.clone()),
            Some("taskgroup") => {
                let inner = child[1]["_group_id"].as_str().unwrap_or_default().to_owned();
                // Inside, all groups count.
                let name = if inside { inner.as_str() } else { wanted };
                found |= tasks_of_group(&child[1], name, names);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_the_tasks_of_their_groups() {
        let tree = json!({"_group_id": null, "children": {
            "a": ["operator", "a"],
            "g": ["taskgroup", {"_group_id": "g", "children": {
                "g.b": ["operator", "g.b"],
                "g.h": ["taskgroup", {"_group_id": "g.h", "children": {"g.h.c": ["operator", "g.h.c"]}}],
            }}],
        }});
        let of = |group| {
            let mut names = Vec::new();
            tasks_of_group(&tree, group, &mut names).then_some(names)
        };
        assert_eq!(of("g"), Some(vec!["g.b".to_owned(), "g.h.c".to_owned()]));
        assert_eq!(of("g.h"), Some(vec!["g.h.c".to_owned()]));
        assert_eq!(of("x"), None);
    }
}
