//! The supervisor of a stock task runner, as far as a shim can be one: what a task leaves is taken
//! here, what it asks goes to the server, and how it ended follows from what it said and how its
//! process ended, as in Airflow's own supervisor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Span};
use kobza_model::{Cause, Json, NodeNo, Outcome, Timestamp};
use kobza_runtime::{Ended, Protocol, Said, Step};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::carry::{Carry, Waiting};
use super::log::Logs;
use super::masks::secrets_of;
use super::msgpack::{Frames, frame};
use super::outlets::published;
use super::requests::{DeferTask, Refused, Request, XComPlace};

/// What a task leaves is shown after so long, while it runs.
const SHOW_AFTER: Duration = Duration::from_millis(250);
/// The XCom by which branching operators say what they chose.
pub const SKIPMIXIN: &str = "skipmixin_key";

/// What the supervisor must know of a task: the field `airflow` of `LaunchSpec::extra`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    /// `StartupDetails` but for its start date, if that is the moment of the start.
    pub startup: Json,
    pub carry: Carry,
    /// XCom keys that the task has deleted.
    #[serde(default)]
    pub deleted: BTreeSet<String>,
    /// Longest list that a mapped task may be made from.
    pub max_map_length: u64,
    /// Of the run: what it publishes belongs to it.
    #[serde(default)]
    pub partition: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    /// A request of the task, by its frame.
    Passed(u64),
    /// Which nodes a decision skips.
    Skips(u64),
}

#[derive(Debug)]
pub struct Supervisor {
    brief: Brief,
    start_date: Timestamp,
    frames: Frames,
    logs: Logs,
    asked: BTreeMap<u64, Asked>,
    next_ask: u64,
    /// Left and not yet told.
    held: Vec<(String, Json)>,
    skips: Vec<NodeNo>,
    /// Of `TaskState`, which counts only once the process has ended well.
    state: Option<String>,
    /// An end or a wait was told.
    over: bool,
    refused: bool,
}

impl Supervisor {
    /// For the task that a launch's extra describes.
    pub fn of(extra: &Json) -> Result<Self, String> {
        let brief = extra.get("airflow").ok_or("the launch describes no Airflow task")?;
        let brief = Brief::deserialize(brief).map_err(|e| format!("the Airflow task: {e}"))?;
        Ok(Self {
            brief,
            start_date: Timestamp(0),
            frames: Frames::default(),
            logs: Logs::default(),
            asked: BTreeMap::new(),
            next_ask: 0,
            held: Vec::new(),
            skips: Vec::new(),
            state: None,
            over: false,
            refused: false,
        })
    }

    fn is_own(&self, place: &XComPlace) -> bool {
        let ti = &self.brief.startup["ti"];
        let index = ti["map_index"].as_i64().unwrap_or(-1);
        place.dag_id == ti["dag_id"]
            && place.run_id == ti["run_id"]
            && place.task_id == ti["task_id"]
            && place.map_index.unwrap_or(index) == index
    }

    fn should_retry(&self) -> bool {
        self.brief.startup["ti_context"]["should_retry"] == true
    }

    fn request(&mut self, id: u64, body: Json, now: Timestamp, steps: &mut Vec<Step>) {
        let request = match Request::parse(&body) {
            Ok(request) => request,
            Err(refused) => return steps.push(refuse(id, &refused)),
        };
        match request {
            Request::SetXCom { place, value, mapped_length, .. } if self.is_own(&place) => {
                self.set_xcom(id, place.key, value, mapped_length, steps);
            }
            Request::DeleteXCom(place) if self.is_own(&place) => {
                self.held.retain(|(key, _)| *key != place.key);
                self.brief.deleted.insert(place.key);
                self.hold("$deleted", json!(self.brief.deleted), steps);
                steps.push(reply(id, &Json::Null));
            }
            Request::SetRenderedFields { rendered_fields } => {
                self.hold("$rendered", rendered_fields, steps);
                steps.push(reply(id, &Json::Null));
            }
            Request::SetRenderedMapIndex { rendered_map_index } => {
                self.hold("$map_index", json!(rendered_map_index), steps);
                steps.push(reply(id, &Json::Null));
            }
            Request::MaskSecret { value, name } => {
                let mut secrets = Vec::new();
                secrets_of(&value, name.as_deref(), &mut secrets);
                steps.push(Step::Mask(secrets));
                steps.push(reply(id, &Json::Null));
            }
            Request::ResendLoggingFD => {
                // The number is the receiver's own; it takes the descriptor that comes along.
                let body = json!([id, {"type": "SentFDs", "fds": [0]}]);
                steps.push(Step::SendWithLog(frame(&body)));
            }
            Request::GetTaskRescheduleStartDate { .. } => {
                let date = self.brief.carry.first_reschedule;
                let body = json!({"type": "TaskRescheduleStartDate", "start_date": date});
                steps.push(reply(id, &body));
            }
            Request::SkipDownstreamTasks { tasks } => {
                self.ask(Asked::Skips(id), json!({"type": "Skips", "tasks": tasks}), steps);
            }
            Request::SucceedTask { task_outlets, outlet_events, rendered_map_index, .. } => {
                self.map_index(rendered_map_index);
                let outlets = task_outlets.unwrap_or_default();
                let events = outlet_events.unwrap_or_default();
                let partition = self.brief.partition.as_deref();
                let date = &self.brief.startup["ti_context"]["dag_run"]["partition_date"];
                let published = published(&outlets, &events, partition, date);
                let ended = Ended { published, ..self.ended_as(Outcome::Succeeded, None) };
                self.say(Said::Ended(Box::new(ended)), steps);
                steps.push(reply(id, &Json::Null));
            }
            Request::RetryTask {
                rendered_map_index, retry_delay_seconds, retry_reason, ..
            } => {
                self.map_index(rendered_map_index);
                let seconds = retry_delay_seconds.map(|seconds| json!(seconds));
                self.held.extend(seconds.map(|seconds| ("$retry_delay".to_owned(), seconds)));
                let message = retry_reason.or_else(|| self.logs.last_error());
                let ended = self.ended_as(Outcome::Failed, message);
                self.say(Said::Ended(Box::new(ended)), steps);
                steps.push(reply(id, &Json::Null));
            }
            Request::TaskState { state, rendered_map_index, .. } => {
                self.map_index(rendered_map_index);
                self.state = Some(state);
                steps.push(reply(id, &Json::Null));
            }
            Request::DeferTask(defer) => self.defer(id, defer, now, steps),
            Request::RescheduleTask { reschedule_date, .. } => {
                let Ok(until) = reschedule_date.parse::<Timestamp>() else {
                    let refused = Refused::api(422, "the reschedule date is no instant");
                    return steps.push(refuse(id, &refused));
                };
                self.tell(steps);
                let old = self.brief.carry.clone();
                let carry = Carry {
                    reschedules: old.reschedules + 1,
                    first_reschedule: old.first_reschedule.or(Some(self.start_date)),
                    ..Carry::default()
                };
                self.say(Said::Rescheduled { until, carry: json!(carry) }, steps);
                steps.push(reply(id, &Json::Null));
            }
            Request::AwaitInputTask { timeout, next_method, next_kwargs, rendered_map_index } => {
                self.map_index(rendered_map_index);
                self.tell(steps);
                let carry = Carry {
                    next_method: Some(next_method),
                    next_kwargs,
                    timeout_at: timeout.as_deref().and_then(|text| after(now, text)),
                    start_date: Some(self.start_date),
                    ..self.brief.carry.clone()
                };
                self.say(Said::Suspended { carry: json!(carry) }, steps);
                steps.push(reply(id, &Json::Null));
            }
            _ => self.ask(Asked::Passed(id), body, steps),
        }
    }

    fn set_xcom(
        &mut self,
        id: u64,
        key: String,
        value: Json,
        mapped_length: Option<u64>,
        steps: &mut Vec<Step>,
    ) {
        if key.starts_with('$') {
            let words =
                format!("the XCom key {key:?} begins with a $, which Kobza keeps to itself");
            return steps.push(refuse(id, &Refused::api(400, words)));
        }
        if let Some(length) = mapped_length {
            let limit = self.brief.max_map_length;
            if length > limit {
                let words = format!(
                    "pushed value is too large to map as a downstream's dependency: {length} items, the limit is {limit}"
                );
                return steps.push(refuse(id, &Refused::api(400, words)));
            }
            self.held.push(("$mapped_length".to_owned(), json!(length)));
        }
        if self.brief.deleted.remove(&key) {
            self.held.push(("$deleted".to_owned(), json!(self.brief.deleted)));
        }
        let decides = (key == SKIPMIXIN).then(|| json!({"type": "Skips", "choice": value}));
        self.hold(&key, value, steps);
        match decides {
            Some(question) => self.ask(Asked::Skips(id), question, steps),
            None => steps.push(reply(id, &Json::Null)),
        }
    }

    fn defer(&mut self, id: u64, defer: DeferTask, now: Timestamp, steps: &mut Vec<Step>) {
        self.map_index(defer.rendered_map_index);
        self.tell(steps);
        let timeout_at = defer.trigger_timeout.as_deref().and_then(|text| after(now, text));
        let carry = Carry {
            next_method: Some(defer.next_method),
            next_kwargs: defer.next_kwargs,
            trigger: Some(Waiting {
                classpath: defer.classpath,
                kwargs: defer.trigger_kwargs,
                queue: defer.queue,
            }),
            timeout_at,
            start_date: Some(self.start_date),
            ..self.brief.carry.clone()
        };
        self.say(Said::Deferred { until: timeout_at, carry: json!(carry) }, steps);
        steps.push(reply(id, &Json::Null));
    }

    fn map_index(&mut self, rendered: Option<String>) {
        if let Some(rendered) = rendered {
            self.held.push(("$map_index".to_owned(), json!(rendered)));
        }
    }

    /// Asks the server, which by then has what the task left before.
    fn ask(&mut self, asked: Asked, body: Json, steps: &mut Vec<Step>) {
        self.tell(steps);
        let number = self.next_ask;
        self.next_ask += 1;
        self.asked.insert(number, asked);
        steps.push(Step::Ask { number, body });
    }

    fn hold(&mut self, key: &str, value: Json, steps: &mut Vec<Step>) {
        if self.held.is_empty() {
            steps.push(Step::Wake(SHOW_AFTER));
        }
        self.held.push((key.to_owned(), value));
    }

    fn tell(&mut self, steps: &mut Vec<Step>) {
        if !self.held.is_empty() {
            steps.push(Step::Say(Said::Outputs(std::mem::take(&mut self.held))));
        }
    }

    fn ended_as(&mut self, outcome: Outcome, message: Option<String>) -> Ended {
        let cause = if outcome == Outcome::Succeeded { Cause::None } else { Cause::Code };
        Ended {
            outcome,
            cause,
            message,
            outputs: std::mem::take(&mut self.held),
            skips: std::mem::take(&mut self.skips),
            published: Vec::new(),
        }
    }

    /// Only the first end or wait counts.
    fn say(&mut self, said: Said, steps: &mut Vec<Step>) {
        if !std::mem::replace(&mut self.over, true) {
            steps.push(Step::Say(said));
        }
    }
}

impl Protocol for Supervisor {
    fn begin(&mut self, now: Timestamp) -> Vec<Step> {
        self.start_date = self.brief.carry.start_date.unwrap_or(now);
        let mut startup = self.brief.startup.clone();
        startup["start_date"] = json!(self.start_date);
        vec![Step::Send(frame(&json!([0, startup])))]
    }

    fn heard(&mut self, bytes: &[u8], now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.refused {
            return steps;
        }
        self.frames.push(bytes);
        loop {
            let problem = match self.frames.take_frame() {
                Ok(None) => return steps,
                Ok(Some(Json::Array(mut parts))) if parts.len() >= 2 => {
                    match (parts[0].as_u64(), std::mem::take(&mut parts[1])) {
                        (Some(id), body @ Json::Object(_)) => {
                            self.request(id, body, now, &mut steps);
                            continue;
                        }
                        _ => "a frame that is no request".to_owned(),
                    }
                }
                Ok(Some(_)) => "a frame that is no request".to_owned(),
                Err(error) => error.to_string(),
            };
            self.refused = true;
            steps.push(Step::Refuse(format!(
                "the task does not speak the supervisor's protocol: it sent {problem}"
            )));
            return steps;
        }
    }

    fn logged(&mut self, bytes: &[u8]) -> Vec<Step> {
        let lines = self.logs.push(bytes);
        if lines.is_empty() { Vec::new() } else { vec![Step::Log(lines)] }
    }

    fn answered(&mut self, number: u64, answer: Result<Json, String>) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(asked) = self.asked.remove(&number) else { return steps };
        let body = answer.unwrap_or_else(|words| Refused::api(500, words).body());
        let failed = is_failure(&body);
        match asked {
            Asked::Passed(id) | Asked::Skips(id) if failed => {
                steps.push(Step::Send(frame(&json!([id, null, body]))));
            }
            Asked::Passed(id) => steps.push(reply(id, &body)),
            Asked::Skips(id) => {
                let nodes = body.get("nodes").and_then(|n| Vec::<NodeNo>::deserialize(n).ok());
                self.skips.extend(nodes.unwrap_or_default());
                steps.push(reply(id, &Json::Null));
            }
        }
        steps
    }

    fn woken(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.tell(&mut steps);
        steps
    }

    fn ended(&mut self, exit: Option<i32>) -> Vec<Step> {
        let mut steps = Vec::new();
        let rest = self.logs.finish();
        if !rest.is_empty() {
            steps.push(Step::Log(rest));
        }
        if self.over || exit.is_none() {
            self.tell(&mut steps);
            return steps;
        }
        let said = match (exit.unwrap_or(1), self.state.as_deref()) {
            (0, Some("skipped")) => self.ended_as(Outcome::Skipped, None),
            (0, Some("removed")) => self.ended_as(Outcome::Removed, None),
            // A process that ends well without a word has succeeded, Airflow says.
            (0, None) => self.ended_as(Outcome::Succeeded, None),
            (0, Some(_)) => {
                if self.should_retry() {
                    // It may be tried again and does not want to.
                    self.held.push(("$no_retry".to_owned(), json!(true)));
                }
                let message = self.logs.last_error();
                self.ended_as(Outcome::Failed, message)
            }
            (code, _) => {
                let message = self.logs.last_error().unwrap_or_else(|| format!("exit code {code}"));
                self.ended_as(Outcome::Failed, Some(message))
            }
        };
        self.say(Said::Ended(Box::new(said)), &mut steps);
        steps
    }
}

/// Whether an answer is raised in the task instead of being returned there.
pub(crate) fn is_failure(body: &Json) -> bool {
    let kind = body.get("error").and_then(Json::as_str);
    body.get("type").and_then(Json::as_str) == Some("ErrorResponse")
        && matches!(kind, Some("API_SERVER_ERROR" | "GENERIC_ERROR" | "PERMISSION_DENIED"))
}

fn reply(id: u64, body: &Json) -> Step {
    Step::Send(frame(&json!([id, body])))
}

fn refuse(id: u64, refused: &Refused) -> Step {
    Step::Send(frame(&json!([id, null, refused.body()])))
}

/// An instant that is an ISO 8601 duration later.
fn after(now: Timestamp, duration: &str) -> Option<Timestamp> {
    let micros = match duration.parse::<SignedDuration>() {
        Ok(duration) => i64::try_from(duration.as_micros()).ok()?,
        // With days.
        Err(_) => {
            let span: Span = duration.parse().ok()?;
            let hours = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
            i64::try_from(hours.as_micros()).ok()?
        }
    };
    Some(now.saturating_add_micros(micros))
}
