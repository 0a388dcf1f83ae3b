//! Pools: Kobza's limits.

use std::collections::BTreeMap;

use kobza_engine::{Command, LimitView};
use kobza_model::{Json, TaskState};
use kobza_store::TaskFilter;
use serde::Deserialize;
use serde_json::json;

use super::Rest;
use super::answer::{Call, Reply, RestError};
use super::bulk::Things;
use super::listing::{Filter, Listing};
use super::table::{Route, edit, get};
use super::variables::{no_team, read};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        get("/api/v2/pools", list),
        edit("POST", "/api/v2/pools", create),
        edit("PATCH", "/api/v2/pools", |rest, call| super::bulk::apply(call, &Pools(rest))),
        get("/api/v2/pools/{*pool_name}", one),
        edit("PATCH", "/api/v2/pools/{*pool_name}", patch),
        edit("DELETE", "/api/v2/pools/{*pool_name}", delete),
    ]
}

/// The pool of tasks that name none.
const DEFAULT_POOL: &str = "default_pool";
/// Limits that are no pools begin so: of one task over all runs, and the engine's own.
const NO_POOLS: [&str; 2] = ["airflow ", "$"];

fn is_pool(name: &str) -> bool {
    !NO_POOLS.iter().any(|prefix| name.starts_with(prefix))
}

impl Rest {
    fn pools(&self) -> Result<Vec<Json>, RestError> {
        let looked = self.desk.handle.query_blocking(|engine| {
            let limits: Vec<LimitView> = engine
                .limits()
                .into_iter()
                .filter(|limit| limit.capacity.is_some() && is_pool(&limit.name))
                .collect();
            let queued: Vec<u32> = limits
                .iter()
                .map(|limit| {
                    let queued =
                        |id| engine.task_row(id).is_some_and(|row| row.state == TaskState::Queued);
                    limit.holders.iter().filter(|(id, _)| queued(*id)).map(|(_, units)| units).sum()
                })
                .collect();
            limits.into_iter().zip(queued).collect::<Vec<_>>()
        })?;
        let deferred = self.deferred()?;
        Ok(looked
            .iter()
            .map(|(limit, queued)| {
                let capacity = limit.capacity.unwrap_or(0);
                let unlimited = capacity == u32::MAX;
                let slots = if unlimited { -1 } else { i64::from(capacity) };
                let open = if unlimited { -1 } else { i64::from(capacity) - i64::from(limit.used) };
                json!({
                    "name": limit.name, "slots": slots, "description": limit.description,
                    "include_deferred": false, "occupied_slots": limit.used,
                    "running_slots": limit.used.saturating_sub(*queued), "queued_slots": queued,
                    "scheduled_slots": limit.waiters.len(), "open_slots": open,
                    "deferred_slots": deferred.get(&limit.name).unwrap_or(&0), "team_name": null,
                })
            })
            .collect())
    }

    /// Slots of tasks that wait for triggers, by pool; they are not taken.
    fn deferred(&self) -> Result<BTreeMap<String, u32>, RestError> {
        let mut slots = BTreeMap::new();
        let filter = kobza_store::RunFilter {
            namespaces: vec![super::NAMESPACE.to_owned()],
            states: super::dags::live(),
            ..Default::default()
        };
        let runs = self.desk.views.list_runs(&filter, None, 1000)?.items;
        for run in runs.into_iter().filter(|run| run.dialect == "airflow") {
            let waits = TaskFilter { states: vec![TaskState::Deferred], ..TaskFilter::default() };
            let rows = self.desk.views.list_tasks(run.run, &waits, None, 1000)?.items;
            if rows.is_empty() {
                continue;
            }
            let Some(digest) = self.digest(&run.workflow, Some(&run.version))? else { continue };
            for row in rows {
                if let Some(task) = digest.tasks.get(&row.name) {
                    *slots.entry(task.pool.clone()).or_default() += task.pool_slots;
                }
            }
        }
        Ok(slots)
    }
}

fn list(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    const POOLS: Listing = Listing {
        key: "pools",
        filters: &[Filter::Text("pool_name", "name")],
        order: &[("name", "name"), ("id", "name"), ("pool", "name"), ("slots", "slots")],
    };
    POOLS.simple(call, rest.pools()?)
}

fn find(rest: &Rest, name: &str) -> Result<Json, RestError> {
    rest.pools()?
        .into_iter()
        .find(|pool| pool["name"] == name)
        .ok_or_else(|| RestError::not_found(format!("The Pool with name: `{name}` was not found")))
}

fn one(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    Reply::ok(find(rest, call.param("pool_name"))?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(alias = "pool")]
    name: Option<String>,
    #[serde(default)]
    slots: Option<i64>,
    #[serde(default, deserialize_with = "super::runs::given")]
    description: Option<Option<String>>,
    #[serde(default)]
    include_deferred: Option<bool>,
    #[serde(default)]
    team_name: Option<String>,
}

impl Body {
    fn check(&self) -> Result<(), RestError> {
        no_team(self.team_name.as_ref())?;
        if self.include_deferred == Some(true) {
            return Err(RestError::unserved(
                "include_deferred=true is not served by Kobza: tasks that wait for a trigger hold no \
                 slot",
            ));
        }
        Ok(())
    }
}

struct Pools<'a>(&'a Rest);

impl Pools<'_> {
    fn set(&self, name: &str, slots: i64, description: Option<String>) -> Result<(), RestError> {
        let capacity = match slots {
            -1 => Some(u32::MAX),
            slots => u32::try_from(slots).ok().filter(|slots| *slots < u32::MAX),
        };
        let capacity = capacity.ok_or_else(|| {
            RestError::field(&["body", "slots"], "Input should be greater than or equal to -1")
        })?;
        let wrong = name.is_empty() || name.chars().count() > 256 || !is_pool(name);
        if wrong || name.chars().any(char::is_control) {
            let message = "String should have 1 to 256 characters, and not begin with 'airflow ' or \
                           '$'";
            return Err(RestError::field(&["body", "name"], message));
        }
        let name = name.to_owned();
        self.0.submit(Command::SetLimit { name, capacity, strict: false, description })
    }
}

impl Things for Pools<'_> {
    const WHAT: &'static str = "pools with these pool names";

    fn key(&self, entity: &Json) -> Result<String, RestError> {
        let name =
            entity.as_str().or_else(|| entity["name"].as_str()).or_else(|| entity["pool"].as_str());
        name.map(str::to_owned).ok_or_else(|| RestError::field(&["body", "name"], "Field required"))
    }

    fn exists(&self, key: &str) -> Result<bool, RestError> {
        Ok(self.0.desk.views.list_limits()?.iter().any(|limit| limit.name == key))
    }

    fn create(&self, entity: Json) -> Result<(), RestError> {
        let name = self.key(&entity)?;
        let body: Body = read(entity)?;
        body.check()?;
        let slots =
            body.slots.ok_or_else(|| RestError::field(&["body", "slots"], "Field required"))?;
        self.set(&name, slots, body.description.flatten())
    }

    fn update(&self, key: &str, entity: Json, mask: Option<&[String]>) -> Result<(), RestError> {
        let body: Body = read(entity)?;
        body.check()?;
        if body.name.as_deref().is_some_and(|name| name != key) {
            return Err(RestError::bad(
                "Invalid body, pool name from request body doesn't match uri parameter",
            ));
        }
        let own = |mask: &String| ["slots", "include_deferred"].contains(&mask.trim());
        if key == DEFAULT_POOL && !mask.is_some_and(|mask| mask.iter().all(own)) {
            return Err(RestError::bad(
                "Only slots and included_deferred can be modified on Default Pool",
            ));
        }
        let has = |name: &str| mask.is_none_or(|mask| mask.iter().any(|one| one == name));
        let old = self.0.desk.views.list_limits()?.into_iter().find(|limit| limit.name == key);
        let old = old.ok_or_else(|| {
            RestError::not_found(format!("The Pool with name: `{key}` was not found"))
        })?;
        let kept = if old.capacity == u32::MAX { -1 } else { i64::from(old.capacity) };
        let slots = body.slots.filter(|_| has("slots")).unwrap_or(kept);
        let description = body.description.filter(|_| has("description"));
        self.set(key, slots, description.unwrap_or(old.description))
    }

    fn delete(&self, key: &str, _: &Json) -> Result<(), RestError> {
        if key == DEFAULT_POOL {
            return Err(RestError::bad("Default Pool can't be deleted"));
        }
        self.0.submit(Command::RemoveLimit { name: key.to_owned() })
    }
}

fn create(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let entity: Json = call.body()?;
    let things = Pools(rest);
    let name = things.key(&entity)?;
    if things.exists(&name)? {
        return Err(RestError::conflict(format!("The Pool with name: `{name}` already exists")));
    }
    things.create(entity)?;
    Reply::created(find(rest, &name)?)
}

fn patch(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let name = call.param("pool_name");
    find(rest, name)?;
    Pools(rest).update(name, call.body()?, call.mask().as_deref())?;
    one(rest, call)
}

fn delete(rest: &Rest, call: &Call) -> Result<Reply, RestError> {
    let name = call.param("pool_name");
    find(rest, name)?;
    Pools(rest).delete(name, &Json::Null)?;
    Ok(Reply::Nothing)
}
