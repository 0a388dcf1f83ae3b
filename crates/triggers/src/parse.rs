//! Reading triggers from JSON (that is, from YAML or the API).

use std::collections::BTreeSet;

use kobza_expr::native;
use kobza_model::{Json, RunState, Timestamp, validate_name};
use kobza_schedule::{At, Schedule, ScheduleError, Zone, parse_duration};

use crate::spec::{Batching, CatchUp, Debounce, Overlap, TriggerKind, TriggerSpec, WebhookScheme};

/// Most triggers of one workflow.
const MAX_TRIGGERS: usize = 100;
/// Most slots that a catch-up starts, unless told otherwise; and at most.
const CATCH_UP_DEFAULT: u32 = 1_000;
const CATCH_UP_MAX: u32 = 100_000;
/// A slot is still punctual so long after its time.
const GRACE: i64 = 60_000_000;
const DAY: i64 = 86_400_000_000;
/// Most events of one batch: they travel in the trigger's row and the run's parameters.
const MAX_BATCH: u64 = 1_000;
const BATCH_TIMEOUT: i64 = 60_000_000;

const COMMON: [&str; 13] = [
    "name",
    "description",
    "params",
    "filter",
    "debounce",
    "batch",
    "catchup",
    "overlap",
    "jitter",
    "paused",
    "enabled",
    "start",
    "end",
];
const KINDS: [&str; 11] = [
    "cron",
    "interval",
    "every",
    "at",
    "rrule",
    "assets",
    "webhook",
    "run",
    "file",
    "event",
    "timetable",
];

/// Reads the triggers of a workflow: null, one trigger, a list of them, or an object with
/// `schedule` (one or a list; a text is a cron pattern) and `triggers` (one or a list). Errors come
/// all at once, each with the path of its field.
pub fn parse_triggers(value: &Json) -> Result<Vec<TriggerSpec>, Vec<ScheduleError>> {
    let written: Vec<(String, &Json)> = match value.as_object() {
        Some(fields) if fields.contains_key("schedule") || fields.contains_key("triggers") => {
            ["schedule", "triggers"]
                .into_iter()
                .filter_map(|path| Some((path, fields.get(path)?)))
                .flat_map(|(path, value)| listed(path, value))
                .collect()
        }
        _ => listed("triggers", value),
    };
    if written.len() > MAX_TRIGGERS {
        let message = format!("a workflow has at most {MAX_TRIGGERS} triggers");
        return Err(vec![ScheduleError::new("triggers", message)]);
    }
    let (mut specs, mut errors) = (Vec::new(), Vec::new());
    let mut names = BTreeSet::new();
    for (path, value) in written {
        match parse_trigger(value, &names) {
            Ok(spec) if names.insert(spec.name.clone()) => specs.push(spec),
            Ok(spec) => {
                let message = format!("{:?} is there twice", spec.name);
                errors.push(ScheduleError::new(format!("{path}.name"), message));
            }
            Err(error) => errors.push(error.inside(&path)),
        }
    }
    if errors.is_empty() { Ok(specs) } else { Err(errors) }
}

/// One trigger or a list of them, each with its path.
fn listed<'a>(path: &str, value: &'a Json) -> Vec<(String, &'a Json)> {
    match value {
        Json::Null => Vec::new(),
        Json::Array(items) => {
            items.iter().enumerate().map(|(n, item)| (format!("{path}[{n}]"), item)).collect()
        }
        one => vec![(path.to_owned(), one)],
    }
}

fn parse_trigger(value: &Json, taken: &BTreeSet<String>) -> Result<TriggerSpec, ScheduleError> {
    let wrapped;
    let object = match value {
        Json::String(pattern) => {
            wrapped = serde_json::json!({"cron": pattern});
            wrapped.as_object()
        }
        other => other.as_object(),
    };
    let object = object.ok_or_else(|| {
        ScheduleError::new("", "must be an object")
            .hint("for example {cron: \"0 2 * * *\", timezone: Europe/Kyiv}")
    })?;
    let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| object.contains_key(*kind)).collect();
    let [kind] = kinds[..] else {
        let message = match kinds.len() {
            0 => "does not say what triggers it".to_owned(),
            _ => format!("has both {} and {}", kinds[0], kinds[1]),
        };
        return Err(
            ScheduleError::new("", message).hint(format!("give one of {}", KINDS.join(", ")))
        );
    };
    let extra: &[&str] = match kind {
        "cron" | "at" | "rrule" => &["timezone"],
        "interval" | "every" => &["timezone", "anchor"],
        _ => &[],
    };
    let known = |key: &str| key == kind || COMMON.contains(&key) || extra.contains(&key);
    if let Some(key) = object.keys().find(|key| !known(key)) {
        let mut fields: Vec<&str> = extra.iter().chain(&COMMON).copied().collect();
        fields.sort_unstable();
        return Err(ScheduleError::new(
            key.chars().take(60).collect::<String>(),
            "is not known here",
        )
        .hint(format!("with {kind} there may be {}", fields.join(", "))));
    }
    let reader = Reader { object };
    let kind = match kind {
        "assets" => crate::condition::parse_kind(&object["assets"])?,
        "webhook" => parse_webhook(&object["webhook"]).map_err(|e| e.inside("webhook"))?,
        "run" => parse_run_end(&object["run"]).map_err(|e| e.inside("run"))?,
        "file" => parse_file(&object["file"]).map_err(|e| e.inside("file"))?,
        "event" => parse_event(&object["event"]).map_err(|e| e.inside("event"))?,
        "timetable" => parse_timetable(&object["timetable"]).map_err(|e| e.inside("timetable"))?,
        _ => TriggerKind::Schedule(Schedule::parse(&Json::Object(object.clone()))?),
    };
    let scheduled = matches!(kind, TriggerKind::Schedule(_));
    for (field, only) in
        [("catchup", true), ("jitter", true), ("debounce", false), ("batch", false)]
    {
        if object.contains_key(field) && scheduled != only {
            let message = format!("means nothing for {}", kind.word());
            return Err(ScheduleError::new(field, message));
        }
    }
    if matches!(kind, TriggerKind::Timetable { .. })
        && let Some(field) =
            ["filter", "overlap", "start", "end"].into_iter().find(|f| object.contains_key(*f))
    {
        return Err(ScheduleError::new(field, "is the timetable's own business"));
    }
    let zone = reader.text("timezone")?.map_or_else(|| Ok(Zone::utc()), Zone::parse)?;
    let name = match reader.text("name")? {
        Some(name) => {
            validate_name(name).map_err(|e| ScheduleError::new("name", e.to_string()))?;
            if name.contains('@') {
                return Err(ScheduleError::new("name", "must not contain @"));
            }
            name.to_owned()
        }
        None => free_name(kind.word(), taken),
    };
    let filter = reader.text("filter")?.map(str::to_owned);
    if let Some(filter) = &filter {
        native::check_expression(filter)
            .map_err(|e| ScheduleError::new("filter", e.to_string()))?;
    }
    let params = object.get("params").cloned().unwrap_or(Json::Null);
    check_params(&params, 0)?;
    let (start, end) = (reader.time("start", &zone)?, reader.time("end", &zone)?);
    if let (Some(start), Some(end)) = (start, end)
        && end <= start
    {
        return Err(ScheduleError::new("end", "the end must be later than the start"));
    }
    let jitter = reader.duration("jitter")?.unwrap_or(0);
    if jitter > DAY {
        return Err(ScheduleError::new("jitter", "is at most a day"));
    }
    Ok(TriggerSpec {
        name,
        params,
        filter,
        debounce: reader.debounce()?,
        batch: reader.batch()?,
        catch_up: reader.catch_up()?,
        overlap: reader.overlap()?,
        jitter,
        paused: reader.flag("paused")?.unwrap_or(false) || reader.flag("enabled")? == Some(false),
        start,
        end,
        source: Json::Object(object.clone()),
        kind,
    })
}

fn free_name(word: &str, taken: &BTreeSet<String>) -> String {
    if !taken.contains(word) {
        return word.to_owned();
    }
    let mut number = 2;
    while taken.contains(&format!("{word}-{number}")) {
        number += 1;
    }
    format!("{word}-{number}")
}

fn check_params(params: &Json, depth: usize) -> Result<(), ScheduleError> {
    let error = |message: String| ScheduleError::new("params", message);
    match params {
        Json::Object(_) | Json::Null => {}
        _ if depth == 0 => return Err(error("must be an object".to_owned())),
        _ => {}
    }
    if depth > 16 {
        return Err(error("is nested too deeply".to_owned()));
    }
    match params {
        Json::String(text) => {
            native::check(text, native::Mode::Text).map(|_| ()).map_err(|e| error(e.to_string()))
        }
        Json::Array(items) => items.iter().try_for_each(|item| check_params(item, depth + 1)),
        Json::Object(fields) => fields.values().try_for_each(|v| check_params(v, depth + 1)),
        _ => Ok(()),
    }
}

fn parse_webhook(value: &Json) -> Result<TriggerKind, ScheduleError> {
    let object = match value {
        Json::String(path) => return webhook(path, None, None),
        Json::Object(object) => object,
        _ => {
            return Err(ScheduleError::new("", "must be a name or an object")
                .hint("for example {path: orders, secret: name-of-a-secret}"));
        }
    };
    only(object, &["path", "scheme", "secret", "methods"])?;
    let reader = Reader { object };
    let scheme = match reader.text("scheme")? {
        None => None,
        Some("github") => Some(WebhookScheme::GitHub),
        Some("slack") => Some(WebhookScheme::Slack),
        Some("standard") => Some(WebhookScheme::Standard),
        Some("gitlab") => Some(WebhookScheme::GitLab),
        Some(_) => {
            return Err(ScheduleError::new("scheme", "is not known")
                .hint("schemes are standard, github, slack and gitlab"));
        }
    };
    let path = reader.text("path")?.ok_or_else(|| ScheduleError::new("path", "is missing"))?;
    webhook(path, scheme, reader.text("secret")?)
}

fn webhook(
    path: &str,
    scheme: Option<WebhookScheme>,
    secret: Option<&str>,
) -> Result<TriggerKind, ScheduleError> {
    validate_name(path).map_err(|e| ScheduleError::new("path", e.to_string()))?;
    if let Some(secret) = secret {
        validate_name(secret).map_err(|e| {
            ScheduleError::new("secret", e.to_string())
                .hint("give the name of a secret, never its value")
        })?;
    }
    if scheme.is_some() && secret.is_none() {
        return Err(ScheduleError::new("secret", "is missing")
            .hint("give the name of the secret that deliveries are signed with"));
    }
    Ok(TriggerKind::Webhook { path: path.to_owned(), scheme, secret: secret.map(str::to_owned) })
}

fn parse_event(value: &Json) -> Result<TriggerKind, ScheduleError> {
    let name = match value {
        Json::String(name) => name.clone(),
        Json::Object(object) => {
            only(object, &["name"])?;
            Reader { object }.text("name")?.unwrap_or_default().to_owned()
        }
        _ => return Err(ScheduleError::new("", "must be a name")),
    };
    validate_name(&name).map_err(|e| ScheduleError::new("", e.to_string()))?;
    Ok(TriggerKind::Event { name })
}

fn parse_timetable(value: &Json) -> Result<TriggerKind, ScheduleError> {
    let dialect = value.get("dialect").and_then(Json::as_str);
    let dialect = dialect.ok_or_else(|| ScheduleError::new("dialect", "must be a name"))?;
    validate_name(dialect).map_err(|e| ScheduleError::new("dialect", e.to_string()))?;
    Ok(TriggerKind::Timetable { dialect: dialect.to_owned(), definition: value.clone() })
}

fn parse_run_end(value: &Json) -> Result<TriggerKind, ScheduleError> {
    let (workflow, states) = match value {
        Json::String(workflow) => (workflow.clone(), vec![RunState::Succeeded]),
        Json::Object(object) => {
            only(object, &["workflow", "states"])?;
            let workflow = Reader { object }.text("workflow")?.unwrap_or_default().to_owned();
            let states = match object.get("states") {
                None => vec![RunState::Succeeded],
                Some(states) => states
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|state| match state.as_str() {
                        Some("succeeded") => Some(RunState::Succeeded),
                        Some("failed") => Some(RunState::Failed),
                        Some("cancelled") => Some(RunState::Cancelled),
                        _ => None,
                    })
                    .collect::<Option<Vec<_>>>()
                    .filter(|states| !states.is_empty())
                    .ok_or_else(|| {
                        ScheduleError::new("states", "must be a list of states")
                            .hint("states are succeeded, failed and cancelled")
                    })?,
            };
            (workflow, states)
        }
        _ => return Err(ScheduleError::new("", "must be a workflow's name or an object")),
    };
    validate_name(&workflow).map_err(|e| ScheduleError::new("workflow", e.to_string()))?;
    Ok(TriggerKind::RunEnd { workflow, states })
}

fn parse_file(value: &Json) -> Result<TriggerKind, ScheduleError> {
    let (pattern, settle, every) = match value {
        Json::String(pattern) => (pattern.clone(), None, None),
        Json::Object(object) => {
            only(object, &["path", "settle", "every"])?;
            let reader = Reader { object };
            let path = reader.text("path")?.unwrap_or_default().to_owned();
            (path, reader.duration("settle")?, reader.duration("every")?)
        }
        _ => return Err(ScheduleError::new("", "must be a path or an object")),
    };
    let error = |message: &str| Err(ScheduleError::new("path", message));
    if !pattern.starts_with('/') || pattern.len() > 1_000 {
        return error("must be an absolute path of at most 1000 bytes, such as /data/in/*.csv");
    }
    if pattern.split('/').any(|part| part == "..") || pattern.contains(char::is_control) {
        return error("must not contain .. or control characters");
    }
    let folder = pattern.rsplit_once('/').map_or("", |(folder, _)| folder);
    if folder.contains(['*', '?']) || pattern.ends_with('/') {
        return error("may have wildcards in the last part only");
    }
    let every = every.unwrap_or(5_000_000).max(1_000_000);
    Ok(TriggerKind::File { pattern, settle: settle.unwrap_or(5_000_000), every })
}

fn only(object: &serde_json::Map<String, Json>, fields: &[&str]) -> Result<(), ScheduleError> {
    match object.keys().find(|key| !fields.contains(&key.as_str())) {
        Some(key) => {
            Err(ScheduleError::new(key.chars().take(60).collect::<String>(), "is not known here")
                .hint(format!("fields are {}", fields.join(", "))))
        }
        None => Ok(()),
    }
}

/// Typed access to the fields of an object.
struct Reader<'a> {
    object: &'a serde_json::Map<String, Json>,
}

impl<'a> Reader<'a> {
    fn get(&self, field: &str) -> Option<&'a Json> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    fn text(&self, field: &str) -> Result<Option<&'a str>, ScheduleError> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(ScheduleError::new(field, "must be a text")),
        }
    }

    fn flag(&self, field: &str) -> Result<Option<bool>, ScheduleError> {
        match self.get(field) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(ScheduleError::new(field, "must be true or false")),
        }
    }

    fn time(&self, field: &str, zone: &Zone) -> Result<Option<Timestamp>, ScheduleError> {
        let time = self.text(field)?.map(|text| At::parse_time(text, zone));
        time.transpose().map_err(|e| e.inside(field))
    }

    fn duration(&self, field: &str) -> Result<Option<i64>, ScheduleError> {
        let value = match self.get(field) {
            None => return Ok(None),
            Some(Json::String(text)) => text.clone(),
            Some(Json::Number(seconds)) => seconds.to_string(),
            Some(_) => return Err(ScheduleError::new(field, "must be a duration such as 30s")),
        };
        parse_duration(&value).map(Some).map_err(|e| e.inside(field))
    }

    fn nested(&self, field: &str) -> Option<Reader<'a>> {
        self.get(field).and_then(Json::as_object).map(|object| Reader { object })
    }

    fn debounce(&self) -> Result<Option<Debounce>, ScheduleError> {
        let (quiet, max) = match self.nested("debounce") {
            Some(inner) => {
                only(inner.object, &["quiet", "max"]).map_err(|e| e.inside("debounce"))?;
                let inside = |e: ScheduleError| e.inside("debounce");
                let quiet = inner.duration("quiet").map_err(inside)?;
                (quiet, inner.duration("max").map_err(inside)?)
            }
            None => (self.duration("debounce")?, None),
        };
        let Some(quiet) = quiet else {
            return match self.get("debounce") {
                Some(_) => Err(ScheduleError::new("debounce.quiet", "is missing")),
                None => Ok(None),
            };
        };
        // Without a bound a steady stream of events would never start anything.
        Ok(Some(Debounce { quiet, max: max.unwrap_or(quiet.saturating_mul(20)).max(quiet) }))
    }

    fn batch(&self) -> Result<Option<Batching>, ScheduleError> {
        if self.get("batch").is_none() {
            return Ok(None);
        }
        let error = |field: &str, message: String| ScheduleError::new(field, message);
        let Some(inner) = self.nested("batch") else {
            return Err(
                error("batch", "must be an object".to_owned()).hint("{size: 100, timeout: 1m}")
            );
        };
        only(inner.object, &["size", "timeout", "within"]).map_err(|e| e.inside("batch"))?;
        let size = inner.get("size").and_then(Json::as_u64).unwrap_or(MAX_BATCH);
        if !(1..=MAX_BATCH).contains(&size) {
            return Err(error("batch.size", format!("must lie between 1 and {MAX_BATCH}")));
        }
        let within = match inner.get("timeout") {
            Some(_) => inner.duration("timeout"),
            None => inner.duration("within"),
        };
        // A batch that never fills must not wait for ever.
        let within = within.map_err(|e| e.inside("batch"))?.unwrap_or(BATCH_TIMEOUT);
        Ok(Some(Batching { size: usize::try_from(size).unwrap_or(1), within }))
    }

    fn catch_up(&self) -> Result<CatchUp, ScheduleError> {
        let limited = |limit: Option<&Json>| {
            let limit = limit.and_then(Json::as_u64).and_then(|limit| u32::try_from(limit).ok());
            let limit = limit.filter(|limit| (1..=CATCH_UP_MAX).contains(limit));
            limit.map(|limit| CatchUp::All { limit }).ok_or_else(|| {
                let message = format!("must lie between 1 and {CATCH_UP_MAX}");
                ScheduleError::new("limit", message).hint("or use a backfill")
            })
        };
        let bad = || {
            ScheduleError::new("catchup", "is not valid").hint(
                "write true, false, none, last, all, 100, {limit: 100}, {last: 1h} or {grace: 10m}",
            )
        };
        match self.get("catchup") {
            None => Ok(CatchUp::Last { within: None }),
            Some(Json::Bool(true)) => Ok(CatchUp::All { limit: CATCH_UP_DEFAULT }),
            Some(Json::Bool(false)) => Ok(CatchUp::None { grace: GRACE }),
            Some(Json::Number(_)) => limited(self.get("catchup")),
            Some(Json::String(word)) => match word.as_str() {
                "none" => Ok(CatchUp::None { grace: GRACE }),
                "last" => Ok(CatchUp::Last { within: None }),
                "all" => Ok(CatchUp::All { limit: CATCH_UP_DEFAULT }),
                _ => Err(bad()),
            },
            Some(Json::Object(object)) => {
                only(object, &["limit", "grace", "last"]).map_err(|e| e.inside("catchup"))?;
                let inner = Reader { object };
                let grace = inner.duration("grace").map_err(|e| e.inside("catchup"))?;
                let last = inner.duration("last").map_err(|e| e.inside("catchup"))?;
                match (inner.get("limit"), grace) {
                    (None, None) if last.is_some() => Ok(CatchUp::Last { within: last }),
                    _ if last.is_some() => Err(bad()),
                    (Some(limit), None) => limited(Some(limit)).map_err(|e| e.inside("catchup")),
                    (None, Some(grace)) => Ok(CatchUp::None { grace }),
                    _ => Err(bad()),
                }
            }
            Some(_) => Err(bad()),
        }
    }

    fn overlap(&self) -> Result<Overlap, ScheduleError> {
        match self.text("overlap")? {
            None | Some("allow") => Ok(Overlap::Allow),
            Some("skip") => Ok(Overlap::Skip),
            Some("queue" | "queue_one") => Ok(Overlap::QueueOne),
            Some("queue_all") => Ok(Overlap::QueueAll),
            Some("cancel" | "cancel_running") => Ok(Overlap::CancelRunning),
            Some(_) => Err(ScheduleError::new("overlap", "is not known")
                .hint("policies are allow, skip, queue, queue_all and cancel")),
        }
    }
}
