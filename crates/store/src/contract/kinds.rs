//! The kinds of small keyed objects ([`crate::Write::PutObject`]): each is a name space of JSON
//! values by (namespace, key). Their shapes belong to the crates that write them.
//!
//! Objects that belong to no namespace use the empty one.

/// A value that definitions may read, by name.
pub const VARIABLE: &str = "variable";
/// How to reach an outside system; secrets inside are encrypted before they come here.
pub const CONNECTION: &str = "connection";
/// An encrypted value.
pub const SECRET: &str = "secret";
/// What starts runs, by name.
pub const TRIGGER: &str = "trigger";
/// A trigger's logical time and what became of it: `{trigger}/{time}`.
pub const SLOT: &str = "slot";
/// Why a trigger did or did not start a run: `{trigger}/{time}`.
pub const DECISION: &str = "decision";
/// A set of runs over intervals or partitions.
pub const BACKFILL: &str = "backfill";
/// The definition of a set of partitions.
pub const PARTITIONS: &str = "partitions";
/// An API token, by the hash's prefix; only its hash is kept.
pub const TOKEN: &str = "token";
/// A person, with a password hash and roles.
pub const USER: &str = "user";
/// Somebody who signed in, by the hash of the cookie.
pub const SESSION: &str = "session";
/// A write that somebody made: keys sort by time.
pub const AUDIT: &str = "audit";
/// The answer to an idempotency key.
pub const IDEMPOTENCY: &str = "idempotency";
/// A cached result of a task, by its cache key.
pub const CACHE: &str = "cache";
/// A person's note on a run or task, by its id.
pub const NOTE: &str = "note";
/// What definitions say about an asset.
pub const ASSET: &str = "asset";
/// A rule for notifications.
pub const NOTIFICATION_RULE: &str = "notification_rule";
/// A notification on its way.
pub const NOTIFICATION: &str = "notification";
/// A named map of settings (Argo's ConfigMap and the like).
pub const CONFIG_MAP: &str = "configmap";
/// An object of Argo's API (templates, cron workflows, bindings, names of runs): `{Kind}/{name}`.
pub const ARGO_OBJECT: &str = "argo_object";
/// What Airflow keeps beside runs: questions for people (`hitl/{task}`), what tasks and assets
/// remember (`task_state/{task}/{key}`, `asset_state/{asset}/{key}`).
pub const AIRFLOW_OBJECT: &str = "airflow_object";
/// A definition file that did not parse, with its error.
pub const IMPORT_ERROR: &str = "import_error";
/// An outside worker that was seen.
pub const WORKER: &str = "worker";
/// The installation's own settings.
pub const SETTING: &str = "setting";

/// Every kind above.
pub const ALL: &[&str] = &[
    VARIABLE,
    CONNECTION,
    SECRET,
    TRIGGER,
    SLOT,
    DECISION,
    BACKFILL,
    PARTITIONS,
    TOKEN,
    USER,
    SESSION,
    AUDIT,
    IDEMPOTENCY,
    CACHE,
    NOTE,
    ASSET,
    NOTIFICATION_RULE,
    NOTIFICATION,
    CONFIG_MAP,
    ARGO_OBJECT,
    AIRFLOW_OBJECT,
    IMPORT_ERROR,
    WORKER,
    SETTING,
];
