//! Many changes in one request.

use kobza_model::Json;
use serde::Deserialize;
use serde_json::json;

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::lens::Lens;
use super::mark::Target;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bulk {
    actions: Vec<Action>,
}

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
enum Action {
    Create {
        entities: Vec<Json>,
        #[serde(default)]
        action_on_existence: OnExistence,
    },
    Update {
        entities: Vec<Json>,
        #[serde(default)]
        update_mask: Option<Vec<String>>,
        #[serde(default)]
        action_on_non_existence: OnAbsence,
    },
    Delete {
        entities: Vec<Json>,
        #[serde(default)]
        action_on_non_existence: OnAbsence,
    },
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
enum OnExistence {
    #[default]
    Fail,
    Skip,
    Overwrite,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
enum OnAbsence {
    #[default]
    Fail,
    Skip,
}

/// A kind of things that can be changed many at a time.
pub(crate) trait Things {
    /// What one is called, for people.
    const WHAT: &'static str;

    /// The key of an entity: of a text, the text.
    fn key(&self, entity: &Json) -> Result<String, RestError>;
    fn exists(&self, key: &str) -> Result<bool, RestError>;
    fn create(&self, entity: Json) -> Result<(), RestError>;
    fn update(&self, key: &str, entity: Json, mask: Option<&[String]>) -> Result<(), RestError>;
    fn delete(&self, key: &str, entity: &Json) -> Result<(), RestError>;
}

#[derive(Default)]
struct Outcome {
    success: Vec<String>,
    errors: Vec<Json>,
}

impl Outcome {
    fn error(&mut self, error: &RestError) {
        self.errors.push(json!({"error": error.words(), "status_code": error.status.as_u16()}));
    }

    fn take(&mut self, key: String, result: Result<(), RestError>) {
        match result {
            Ok(()) => self.success.push(key),
            Err(error) => self.error(&error),
        }
    }

    fn told(self) -> Json {
        json!({"success": self.success, "errors": self.errors})
    }
}

/// Entities with their keys.
type Keyed = Vec<(String, Json)>;

/// Entities with their keys, split by whether they exist. An entity without a key is an error.
fn split<T: Things>(
    things: &T,
    entities: Vec<Json>,
    outcome: &mut Outcome,
) -> Result<(Keyed, Keyed), RestError> {
    let (mut there, mut absent) = (Vec::new(), Vec::new());
    for entity in entities {
        match things.key(&entity) {
            Ok(key) if things.exists(&key)? => there.push((key, entity)),
            Ok(key) => absent.push((key, entity)),
            Err(error) => outcome.error(&error),
        }
    }
    Ok((there, absent))
}

fn names(entities: &[(String, Json)]) -> String {
    entities.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ")
}

pub(crate) fn apply<T: Things>(call: &Call, things: &T) -> Result<Reply, RestError> {
    let bulk: Bulk = call.body()?;
    let mut body = json!({"create": null, "update": null, "delete": null});
    for action in bulk.actions {
        let mut outcome = Outcome::default();
        let missing = |absent: &[(String, Json)]| {
            RestError::not_found(format!("The {}: {} were not found", T::WHAT, names(absent)))
        };
        let word = match action {
            Action::Create { entities, action_on_existence } => {
                let (there, absent) = split(things, entities, &mut outcome)?;
                if action_on_existence == OnExistence::Fail && !there.is_empty() {
                    let words = format!("The {}: {} already exist", T::WHAT, names(&there));
                    outcome.error(&RestError::conflict(words));
                } else {
                    for (key, entity) in absent {
                        outcome.take(key, things.create(entity));
                    }
                    if action_on_existence == OnExistence::Overwrite {
                        for (key, entity) in there {
                            let result = things.update(&key, entity, None);
                            outcome.take(key, result);
                        }
                    }
                }
                "create"
            }
            Action::Update { entities, update_mask, action_on_non_existence } => {
                let (there, absent) = split(things, entities, &mut outcome)?;
                if action_on_non_existence == OnAbsence::Fail && !absent.is_empty() {
                    outcome.error(&missing(&absent));
                } else {
                    for (key, entity) in there {
                        let result = things.update(&key, entity, update_mask.as_deref());
                        outcome.take(key, result);
                    }
                }
                "update"
            }
            Action::Delete { entities, action_on_non_existence } => {
                let (there, absent) = split(things, entities, &mut outcome)?;
                if action_on_non_existence == OnAbsence::Fail && !absent.is_empty() {
                    outcome.error(&missing(&absent));
                } else {
                    for (key, entity) in there {
                        let result = things.delete(&key, &entity);
                        outcome.take(key, result);
                    }
                }
                "delete"
            }
        };
        body[word] = outcome.told();
    }
    Reply::ok(body)
}

fn not_made(what: &str) -> RestError {
    RestError::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        format!("{what} bulk create is not supported"),
    )
}

struct Runs<'a> {
    rest: &'a Rest,
    call: &'a Call,
}

impl Runs<'_> {
    fn place(&self, entity: &Json) -> Result<(String, String), RestError> {
        let id = entity.as_str().or_else(|| entity["dag_run_id"].as_str());
        let id = id.ok_or_else(|| RestError::field(&["body", "dag_run_id"], "Field required"))?;
        let own = entity.get("dag_id").and_then(Json::as_str);
        let dag_id = match (self.call.param("dag_id"), own) {
            ("~", Some(own)) => own,
            ("~", None) => {
                return Err(RestError::bad(format!(
                    "When the URL dag_id is '~', every entry must provide a concrete dag_id (missing \
                     on dag_run_id: '{id}')."
                )));
            }
            (url, Some(own)) if own != url => {
                return Err(RestError::bad(format!(
                    "Entry dag_id '{own}' does not match the URL dag_id '{url}'."
                )));
            }
            (url, _) => url,
        };
        Ok((dag_id.to_owned(), id.to_owned()))
    }

    fn run(&self, entity: &Json) -> Result<kobza_model::RunRow, RestError> {
        let (dag_id, id) = self.place(entity)?;
        self.rest.run(&dag_id, &id)
    }
}

impl Things for Runs<'_> {
    const WHAT: &'static str = "dag runs";

    fn key(&self, entity: &Json) -> Result<String, RestError> {
        let (dag_id, id) = self.place(entity)?;
        Ok(format!("{dag_id}.{id}"))
    }

    fn exists(&self, key: &str) -> Result<bool, RestError> {
        // A DAG's id may have dots, and so may a run's.
        for (at, _) in key.match_indices('.') {
            let run = self.rest.desk.find_run(super::NAMESPACE, &key[..at], &key[at + 1..])?;
            if run.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn create(&self, _: Json) -> Result<(), RestError> {
        Err(not_made("Dag runs"))
    }

    fn update(&self, _: &str, entity: Json, mask: Option<&[String]>) -> Result<(), RestError> {
        let run = self.run(&entity)?;
        let has = |name: &str| mask.is_none_or(|mask| mask.iter().any(|one| one == name));
        let mut fields = entity.as_object().cloned().unwrap_or_default();
        fields.retain(|name, _| (name == "state" || name == "note") && has(name));
        let patch = serde_json::from_value(Json::Object(fields))
            .map_err(|error| RestError::field(&["body"], error.to_string()))?;
        super::runs::change(self.rest, &run, patch, &self.call.caller)
    }

    fn delete(&self, _: &str, entity: &Json) -> Result<(), RestError> {
        super::runs::delete_run(self.rest, &self.run(entity)?)
    }
}

pub(crate) fn runs(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    apply(call, &Runs { rest, call })
}

struct Instances<'a> {
    rest: &'a Rest,
    call: &'a Call,
}

impl Instances<'_> {
    fn run(&self, entity: &Json) -> Result<kobza_model::RunRow, RestError> {
        let part = |name: &str| {
            let url = self.call.param(name);
            let own = entity.get(name).and_then(Json::as_str);
            if url == "~" { own } else { own.or(Some(url)).filter(|own| *own == url) }
        };
        match (part("dag_id"), part("dag_run_id")) {
            (Some(dag_id), Some(run_id)) => self.rest.run(dag_id, run_id),
            _ => Err(RestError::bad("the entry's dag_id and dag_run_id do not fit the URL")),
        }
    }
}

fn task_of(entity: &Json) -> Result<&str, RestError> {
    let name = entity.as_str().or_else(|| entity["task_id"].as_str());
    name.ok_or_else(|| RestError::field(&["body", "task_id"], "Field required"))
}

impl Things for Instances<'_> {
    const WHAT: &'static str = "task instances";

    fn key(&self, entity: &Json) -> Result<String, RestError> {
        let index = entity["map_index"].as_i64();
        let run = self.run(entity)?;
        let name = task_of(entity)?;
        let index = index.map_or_else(String::new, |index| format!("[{index}]"));
        Ok(format!("{}.{}.{name}{index}", run.workflow, crate::run_id(&run)))
    }

    // Whether it is there is found when it is changed.
    fn exists(&self, _: &str) -> Result<bool, RestError> {
        Ok(true)
    }

    fn create(&self, _: Json) -> Result<(), RestError> {
        Err(not_made("Task instances"))
    }

    fn update(&self, _: &str, entity: Json, mask: Option<&[String]>) -> Result<(), RestError> {
        let run = self.run(&entity)?;
        let name = task_of(&entity)?.to_owned();
        let index = entity["map_index"].as_i64();
        let has = |name: &str| mask.is_none_or(|mask| mask.iter().any(|one| one == name));
        let mut fields = entity.as_object().cloned().unwrap_or_default();
        for place in ["task_id", "map_index", "dag_id", "dag_run_id"] {
            fields.remove(place);
        }
        fields.retain(|name, _| name.starts_with("include_") || has(name));
        let patch = serde_json::from_value(Json::Object(fields))
            .map_err(|error| RestError::field(&["body"], error.to_string()))?;
        let target = Target::Task(&name, index);
        super::mark::change(self.rest, &run, &target, &patch, &self.call.caller)?;
        Ok(())
    }

    fn delete(&self, _: &str, _: &Json) -> Result<(), RestError> {
        Err(RestError::unserved(
            "deleting task instances is not served by Kobza: clear or mark them, or delete the run",
        ))
    }
}

pub(crate) fn instances(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    apply(call, &Instances { rest, call })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClearRuns {
    #[serde(default)]
    partition_key: Option<String>,
    #[serde(default)]
    partition_date_start: Option<String>,
    #[serde(default)]
    partition_date_end: Option<String>,
    #[serde(default = "yes")]
    dry_run: bool,
    #[serde(default)]
    only_failed: bool,
    #[serde(default)]
    only_new: bool,
    #[serde(default)]
    run_on_latest_version: Option<bool>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    dag_runs: Vec<Json>,
}

fn yes() -> bool {
    true
}

/// Clears some runs as a whole.
pub(crate) fn clear_runs(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let body: ClearRuns = call.body()?;
    let by_date = body.partition_date_start.is_some() || body.partition_date_end.is_some();
    let modes = [!body.dag_runs.is_empty(), body.partition_key.is_some(), by_date];
    if modes.iter().filter(|mode| **mode).count() != 1 {
        return Err(RestError::field(
            &["body"],
            "Exactly one of dag_runs (non-empty), partition_key, or a partition date window \
             (partition_date_start / partition_date_end) must be provided.",
        ));
    }
    if body.only_new {
        return Err(RestError::unserved(
            "only_new is not served by Kobza: a run keeps the tasks of its version",
        ));
    }
    let places = Runs { rest, call };
    let mut chosen = Vec::new();
    if body.dag_runs.is_empty() {
        let at = |name: &str, text: &Option<String>| {
            text.as_ref().map(|text| super::listing::instant(&["body", name], text)).transpose()
        };
        let from = at("partition_date_start", &body.partition_date_start)?;
        let to = at("partition_date_end", &body.partition_date_end)?;
        rest.dag(call.param("dag_id"))?;
        for run in rest.runs_of(call.param("dag_id"))? {
            let own = &run.extra["airflow"];
            let date = own["partition_date"].as_str().and_then(|at| at.parse().ok());
            let dated = |date: kobza_model::Timestamp| {
                from.is_none_or(|from| date >= from) && to.is_none_or(|to| date <= to)
            };
            let fits = match &body.partition_key {
                Some(key) => own["partition_key"] == key.as_str(),
                None => date.is_some_and(dated),
            };
            if fits {
                chosen.push(run);
            }
        }
    } else {
        for entity in &body.dag_runs {
            chosen.push(places.run(entity)?);
        }
    }
    let lens = Lens::new(rest);
    let mut picked = Vec::new();
    for run in chosen {
        let mut rows = rest.desk.instances_of(&run, None)?;
        rows.retain(|row| !body.only_failed || super::clear::has_failed(row.state));
        picked.push((run, rows));
    }
    if body.dry_run {
        let mut shown = Vec::new();
        for (run, rows) in &picked {
            for row in rows {
                shown.push(lens.instance(run, row)?);
            }
        }
        return Reply::ok(json!({"total_entries": shown.len(), "task_instances": shown}));
    }
    let latest = body.run_on_latest_version == Some(true);
    let options = super::clear::Options { latest, ..Default::default() };
    for (run, rows) in &picked {
        rest.check_clear(run, rows, options)?;
    }
    let mut shown = Vec::new();
    for (run, rows) in picked {
        rest.clear(&run, &rows)?;
        let now = rest.desk.views.get_run(run.run)?.unwrap_or(run);
        if body.note.is_some() {
            rest.note_run(&now, body.note.clone())?;
        }
        let now = rest.desk.views.get_run(now.run)?.unwrap_or(now);
        shown.push(lens.run(&now)?);
    }
    Reply::ok(json!({"total_entries": shown.len(), "dag_runs": shown}))
}
