//! States and notes of task instances, set by hand.

use std::collections::{BTreeMap, BTreeSet};

use kobza_engine::Command;
use kobza_model::{Outcome, RunRow, TaskId, TaskRow};
use kobza_runtime::SubmitError;
use serde::Deserialize;
use serde_json::json;

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::clear::{around, has_failed};
use super::definitions::Digest;
use super::lens::Lens;
use super::table::{Route, look, operate};
use crate::desk::map_index;
use crate::states::task_word;

pub(crate) fn routes() -> Vec<Route> {
    const ONE: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}";
    const MAPPED: &str =
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}";
    const GROUP: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskGroupInstances/{group_id}";
    vec![
        operate("PATCH", ONE, patch),
        operate("PATCH", MAPPED, patch),
        operate("PATCH", GROUP, patch),
        look(
            "PATCH",
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/dry_run",
            preview,
        ),
        look(
            "PATCH",
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}/dry_run",
            preview,
        ),
        look(
            "PATCH",
            "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskGroupInstances/{group_id}/dry_run",
            preview,
        ),
    ]
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Patch {
    pub(crate) new_state: Option<String>,
    #[serde(deserialize_with = "super::runs::given")]
    pub(crate) note: Option<Option<String>>,
    pub(crate) include_upstream: bool,
    pub(crate) include_downstream: bool,
    pub(crate) include_future: bool,
    pub(crate) include_past: bool,
}

/// How far each task is from the first ones.
pub(crate) fn depths(digest: &Digest) -> BTreeMap<String, usize> {
    let mut depths: BTreeMap<String, usize> = BTreeMap::new();
    let mut above: BTreeMap<&str, usize> = digest.tasks.keys().map(|n| (n.as_str(), 0)).collect();
    for task in digest.tasks.values() {
        for below in &task.downstream {
            if let Some(count) = above.get_mut(below.as_str()) {
                *count += 1;
            }
        }
    }
    let mut open: Vec<&str> =
        above.iter().filter(|(_, n)| **n == 0).map(|(name, _)| *name).collect();
    while let Some(name) = open.pop() {
        let depth = *depths.entry(name.to_owned()).or_default();
        for below in digest.tasks.get(name).map(|t| t.downstream.as_slice()).unwrap_or_default() {
            let other = depths.entry(below.clone()).or_default();
            *other = (*other).max(depth + 1);
            if let Some(count) = above.get_mut(below.as_str()) {
                *count -= 1;
                if *count == 0 {
                    open.push(below);
                }
            }
        }
    }
    depths
}

/// What a change is about.
pub(crate) enum Target<'a> {
    Task(&'a str, Option<i64>),
    Group(&'a str),
}

/// What a change concerns: the instances that are named, and those that are to have the state.
struct Concerned {
    own: Vec<TaskRow>,
    marked: Vec<(RunRow, Vec<TaskRow>)>,
    names: BTreeSet<String>,
}

fn concerned(
    rest: &Rest,
    run: &RunRow,
    target: &Target<'_>,
    body: &Patch,
) -> Result<Concerned, RestError> {
    let digest = rest.digest(&run.workflow, Some(&run.version))?;
    let digest = match digest {
        Some(digest) => digest,
        None => rest.dag(&run.workflow)?,
    };
    let (named, index): (BTreeSet<String>, Option<i64>) = match target {
        Target::Task(name, index) => {
            if !digest.tasks.contains_key(*name) {
                return Err(RestError::not_found(format!(
                    "Task '{name}' not found in DAG '{}'",
                    run.workflow
                )));
            }
            (BTreeSet::from([(*name).to_owned()]), *index)
        }
        Target::Group(group) => {
            let names = super::instances::group_of(rest, &run.workflow, group)?;
            (names.into_iter().collect(), None)
        }
    };
    let of = |run: &RunRow, names: &BTreeSet<String>| -> Result<Vec<TaskRow>, RestError> {
        let names: Vec<String> = names.iter().cloned().collect();
        let mut rows = rest.desk.instances_of(run, Some(&names))?;
        rows.retain(|row| {
            !named.contains(&row.name) || index.is_none_or(|index| map_index(row) == index)
        });
        Ok(rows)
    };
    let own = of(run, &named)?;
    if own.is_empty() {
        return Err(RestError::not_found(format!(
            "The Task Instance with dag_id: `{}`, run_id: `{}`, task_id: `{}` and map_index: `{}` was \
             not found",
            run.workflow,
            crate::run_id(run),
            named.iter().cloned().collect::<Vec<_>>().join(", "),
            index.map_or_else(|| "None".to_owned(), |index| index.to_string()),
        )));
    }
    let mut names = named.clone();
    if body.include_upstream {
        names.extend(digest.relatives(&named, false));
    }
    if body.include_downstream {
        names.extend(digest.relatives(&named, true));
    }
    let mut marked = Vec::new();
    if body.new_state.is_some() {
        for run in around(rest, run, body.include_past, body.include_future)? {
            let rows = of(&run, &names)?;
            marked.push((run, rows));
        }
    }
    Ok(Concerned { own, marked, names: named })
}

fn outcome(state: &str) -> Result<Outcome, RestError> {
    match state {
        "success" => Ok(Outcome::Succeeded),
        "failed" => Ok(Outcome::Failed),
        "skipped" => Ok(Outcome::Skipped),
        other => Err(RestError::field(
            &["body", "new_state"],
            format!("'{other}' is not in ['success', 'failed', 'skipped']"),
        )),
    }
}

pub(crate) fn change(
    rest: &Rest,
    run: &RunRow,
    target: &Target<'_>,
    body: &Patch,
    by: &str,
) -> Result<Vec<TaskRow>, RestError> {
    let wanted = body.new_state.as_deref().map(outcome).transpose()?;
    let concerned = concerned(rest, run, target, body)?;
    if let Some(note) = &body.note {
        rest.note_tasks(&concerned.own, run, note.as_deref(), by)?;
    }
    let Some(wanted) = wanted else { return Ok(concerned.own) };
    let digest = rest.digest(&run.workflow, Some(&run.version))?;
    for (run, mut rows) in concerned.marked {
        let depth = digest.as_ref().map(|digest| depths(digest)).unwrap_or_default();
        // The last ones first: what is to be marked does not begin meanwhile.
        rows.sort_by_key(|row| std::cmp::Reverse(depth.get(&row.name).copied().unwrap_or(0)));
        for row in rows.iter().filter(|row| row.state != wanted.state()) {
            let task = TaskId { run: row.run, task: row.task };
            let mark = Command::Mark { task, outcome: wanted, by: by.to_owned() };
            match rest.desk.handle.submit_blocking(mark) {
                Ok(_) => {}
                Err(SubmitError::Refused(refusal)) if rows.len() == 1 => {
                    return Err(SubmitError::Refused(refusal).into());
                }
                Err(SubmitError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // What failed below because of them begins anew.
        if let Some(digest) = &digest {
            let marked: BTreeSet<_> = rows.iter().map(|row| row.task).collect();
            let below: Vec<String> = digest.relatives(&concerned.names, true).into_iter().collect();
            let mut failed = rest.desk.instances_of(&run, Some(&below))?;
            failed.retain(|row| has_failed(row.state) && !marked.contains(&row.task));
            rest.clear(&run, &failed)?;
        }
    }
    Ok(concerned.own)
}

fn target(call: &Call) -> Result<Target<'_>, RestError> {
    let group = call.param("group_id");
    if group.is_empty() {
        Ok(Target::Task(call.param("task_id"), call.given_map_index()?))
    } else {
        Ok(Target::Group(group))
    }
}

fn read(call: &Call) -> Result<Patch, RestError> {
    let mut body: Patch = call.body()?;
    if let Some(mask) = call.mask() {
        let has = |name: &str| mask.iter().any(|one| one == name);
        body.new_state = body.new_state.filter(|_| has("new_state"));
        body.note = body.note.filter(|_| has("note"));
    }
    Ok(body)
}

fn patch(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (body, run) = (read(call)?, rest.run_of(call)?);
    let rows = change(rest, &run, &target(call)?, &body, &call.caller)?;
    let lens = Lens::new(rest);
    let run = rest.desk.views.get_run(run.run)?.unwrap_or(run);
    let mut shown = Vec::new();
    for row in rows {
        let now = rest.desk.instance(&run, &row.name, map_index(&row))?;
        shown.push(lens.instance(&run, now.as_ref().unwrap_or(&row))?);
    }
    Reply::ok(json!({"total_entries": shown.len(), "task_instances": shown}))
}

/// What a change would concern.
fn preview(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let (body, run) = (read(call)?, rest.run_of(call)?);
    let wanted = body.new_state.as_deref().map(outcome).transpose()?;
    let concerned = concerned(rest, &run, &target(call)?, &body)?;
    let lens = Lens::new(rest);
    let mut shown = Vec::new();
    match wanted {
        None => {
            for row in &concerned.own {
                shown.push(lens.instance(&run, row)?);
            }
        }
        Some(wanted) => {
            let word = task_word(wanted.state(), kobza_model::Cause::Hand);
            for (run, rows) in &concerned.marked {
                for row in rows.iter().filter(|row| row.state != wanted.state()) {
                    let mut told = lens.instance(run, row)?;
                    told["state"] = json!(word);
                    shown.push(told);
                }
            }
        }
    }
    Reply::ok(json!({"total_entries": shown.len(), "task_instances": shown}))
}
