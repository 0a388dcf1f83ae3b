//! Whether and when a failed attempt is followed by another.

use kobza_engine::Decision;
use kobza_expr::argo_expr::Value;
use kobza_expr::argo_template::substitute;
use kobza_model::{Cause, Json, TaskRow};
use kobza_runtime::Facts;
use serde_json::json;

use crate::arguments::expression;
use crate::compile::duration_ms;
use crate::names::{phase, template_json};
use crate::values::Values;

/// Texts of failures that pass by themselves: networks, quotas, conflicts.
const TRANSIENT: &[&str] = &[
    "connection reset by peer",
    "connection refused",
    "connection timed out",
    "i/o timeout",
    "tls handshake timeout",
    "net/http: request canceled",
    "no such host",
    "temporary failure in name resolution",
    "exceeded quota",
    "too many requests",
    "the server was unable to return a response",
    "the operation cannot be fulfilled on",
    "http2: client connection lost",
    "unexpected eof",
    "broken pipe",
];

pub(crate) fn decide(task: &TaskRow, facts: &dyn Facts) -> Decision {
    answer(task, facts).unwrap_or_else(|message| Decision::GiveUp { message: Some(message) })
}

fn give_up(message: impl Into<String>) -> Result<Decision, String> {
    Ok(Decision::GiveUp { message: Some(message.into()) })
}

fn answer(task: &TaskRow, facts: &dyn Facts) -> Result<Decision, String> {
    let template = template_json(facts.workflow(), task.template);
    let strategy = &template["retryStrategy"];
    let mut values = Values::new(facts, Some(task.scope));
    values.inputs = std::sync::Arc::new(task.inputs.clone());
    let text = |json: &Json, key: &str| -> Result<Option<String>, String> {
        match json[key].as_str().filter(|t| !t.is_empty()) {
            None => Ok(None),
            Some(text) => substitute(text, &values).map(Some).map_err(|e| e.to_string()),
        }
    };
    let attempts = u64::from(task.attempt.max(1));
    // How it waits, and whether there is time left at all.
    let backoff = &strategy["backoff"];
    let mut delay_ms = 0u64;
    if let Some(duration) = text(backoff, "duration")? {
        let base = duration_ms(&duration)
            .ok_or_else(|| format!("retryStrategy.backoff.duration {duration:?} is no duration"))?;
        let factor = match text(backoff, "factor")? {
            None => 1.0,
            Some(factor) => factor
                .parse::<f64>()
                .map_err(|_| format!("retryStrategy.backoff.factor {factor:?} is no number"))?,
        };
        let exponent = i32::try_from(attempts - 1).unwrap_or(i32::MAX);
        let mut delay = base as f64 * factor.max(0.0).powi(exponent);
        if let Some(cap) = text(backoff, "cap")?.as_deref().and_then(duration_ms) {
            delay = delay.min(cap as f64);
        }
        delay_ms = delay.clamp(0.0, 1e13) as u64;
        if let Some(limit) = text(backoff, "maxDuration")?.as_deref().and_then(duration_ms) {
            let first = task.created_at;
            let used = u64::try_from((facts.now().0 - first.0).max(0) / 1000).unwrap_or(u64::MAX);
            if used >= limit {
                return give_up("Max duration limit exceeded");
            }
            if used.saturating_add(delay_ms) > limit {
                return give_up("Backoff would exceed max duration limit");
            }
        }
    }
    let word = phase_of_failure(facts, task);
    let message = task.message.clone().unwrap_or_default();
    let condition = strategy["expression"].as_str().filter(|e| !e.is_empty());
    let policy = strategy["retryPolicy"].as_str().unwrap_or(match condition {
        Some(_) => "Always",
        None => "OnFailure",
    });
    let transient = || {
        let lower = message.to_lowercase();
        TRANSIENT.iter().any(|t| lower.contains(t))
    };
    let retries = match policy {
        "Always" => true,
        "OnError" => word == "Error",
        "OnTransientError" => word == "Error" && transient() || transient(),
        "OnFailure" => word == "Failed",
        other => return Err(format!("{other:?} is not a valid RetryPolicy")),
    };
    if !retries {
        return Ok(Decision::GiveUp { message: task.message.clone() });
    }
    if let Some(limit) = text(strategy, "limit")? {
        let limit: i64 = limit
            .trim()
            .parse()
            .map_err(|_| format!("retryStrategy.limit {limit:?} is not a number"))?;
        if i64::try_from(attempts).unwrap_or(i64::MAX) > limit {
            return give_up("No more retries left");
        }
    }
    let exit = task.exit_code.map_or("-1".to_owned(), |code| code.to_string());
    let started = task.started_at.unwrap_or(task.created_at);
    let seconds = (facts.now().0 - started.0).max(0) / 1_000_000;
    let last = [
        ("exitCode", exit),
        ("status", word.to_owned()),
        ("duration", seconds.to_string()),
        ("message", message),
    ];
    if let Some(condition) = condition {
        for (name, value) in &last {
            values.own.insert(format!("lastRetry.{name}"), value.clone());
        }
        values.own.insert("retries".to_owned(), (attempts - 1).to_string());
        let bare = condition.trim();
        let bare = bare
            .strip_prefix("{{=")
            .and_then(|b| b.strip_suffix("}}"))
            .map_or_else(|| bare.to_owned(), str::to_owned);
        let bare = substitute(&bare, &values).map_err(|e| e.to_string())?;
        match expression(&bare, &values)? {
            Value::Bool(true) => {}
            Value::Bool(false) => return give_up("retryStrategy.expression evaluated to false"),
            other => {
                return Err(format!("retryStrategy.expression is {}, not a bool", other.kind()));
            }
        }
    }
    // The next attempt's texts may refer to this one.
    let last = last.into_iter().map(|(name, value)| (name.to_owned(), Json::from(value))).collect();
    Ok(Decision::Retry {
        delay_ms: Some(delay_ms),
        carry: json!({ "lastRetry": Json::Object(last) }),
    })
}

/// The phase of the attempt that just failed, while the task waits for this answer.
fn phase_of_failure(facts: &dyn Facts, task: &TaskRow) -> &'static str {
    let ended = TaskRow { state: kobza_model::TaskState::Failed, ..task.clone() };
    debug_assert_ne!(ended.cause, Cause::Cache);
    phase(facts.workflow(), &ended)
}
