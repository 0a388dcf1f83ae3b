//! Triggers that follow a dialect's timetable.

use std::sync::Arc;

use kobza_model::{Json, Timestamp};
use serde_json::json;

use super::{PUNCTUAL, Trigger};
use crate::row::SlotOutcome;
use crate::spec::TriggerKind;
use crate::step::{StartSpec, Step, run_id};
use crate::timetable::{Next, Tick, Timetable, TimetableDialects};

/// Ticks that one look decides: a long catch-up lets other triggers in between.
const TICKS_AT_ONCE: usize = 100;
/// Pause after somebody outside could not answer, in microseconds.
const ASK_AGAIN: i64 = 60_000_000;

/// A timetable and what it said last.
pub(crate) struct Timed {
    timetable: Result<Arc<dyn Timetable>, String>,
    plan: Plan,
    /// Why it does not go on.
    problem: Option<String>,
}

/// Not kept: after a restart the timetable is asked again.
#[derive(Clone)]
enum Plan {
    Unknown,
    /// And when the timetable said so.
    Tick(Box<Tick>, Timestamp),
    Never,
    Later(Timestamp),
    /// To be asked outside.
    Ask,
    /// Asked, not answered.
    Asked,
}

/// What only somebody outside can answer.
pub(crate) struct Outside {
    pub(crate) timetable: Arc<dyn Timetable>,
    pub(crate) last: Option<Tick>,
}

impl Trigger {
    /// Finds the timetable of its definition; what was planned is forgotten.
    pub(crate) fn open(&mut self, dialects: &TimetableDialects) {
        self.open_mapping(dialects);
        let TriggerKind::Timetable { dialect, definition } = &self.spec.kind else {
            self.timed = None;
            return;
        };
        let timetable = match dialects.get(dialect) {
            Some(dialect) => dialect.open(definition),
            None => Err(format!("this server has no timetables of {dialect:.60}")),
        };
        let problem = timetable.as_ref().err().cloned();
        self.timed = Some(Timed { timetable, plan: Plan::Unknown, problem });
    }

    /// Why its timetable does not go on.
    pub(crate) fn problem(&self) -> Option<&str> {
        let timed = self.timed.as_ref().and_then(|timed| timed.problem.as_deref());
        timed.or_else(|| self.mapping_problem())
    }

    /// As many of its runs as may be are unfinished.
    fn is_full(&self, timetable: &dyn Timetable) -> bool {
        timetable.max_active().is_some_and(|most| self.row.active.len() >= most as usize)
    }

    pub(super) fn tick_due(&self) -> Option<Timestamp> {
        let timed = self.timed.as_ref()?;
        let timetable = timed.timetable.as_ref().ok()?;
        if self.is_full(timetable.as_ref()) {
            return None;
        }
        match &timed.plan {
            Plan::Unknown => Some(Timestamp(i64::MIN)),
            Plan::Tick(tick, _) => Some(tick.at),
            Plan::Later(at) => Some(*at),
            Plan::Never | Plan::Ask | Plan::Asked => None,
        }
    }

    pub(super) fn take_ticks(&mut self, now: Timestamp, steps: &mut Vec<Step>) {
        for _ in 0..TICKS_AT_ONCE {
            let Some(tick) = self.tick_taken(now) else { return };
            steps.push(self.start_tick(tick, now));
        }
    }

    /// The next tick, if its time has come.
    fn tick_taken(&mut self, now: Timestamp) -> Option<Tick> {
        let timetable = Arc::clone(self.timed.as_ref()?.timetable.as_ref().ok()?);
        if self.is_full(timetable.as_ref()) {
            return None;
        }
        let last = self.row.last.as_ref();
        let timed = self.timed.as_mut()?;
        let stale = match &timed.plan {
            Plan::Unknown => true,
            Plan::Later(at) => *at <= now,
            // Its time has passed while nobody looked: a timetable that does not catch up may want
            // another one.
            Plan::Tick(tick, planned) => {
                let late = tick.at.saturating_add_micros(PUNCTUAL);
                late < now && *planned < late
            }
            Plan::Never | Plan::Ask | Plan::Asked => false,
        };
        if stale {
            timed.take_answer(timetable.next(last, now), last, now);
        }
        match &timed.plan {
            Plan::Tick(tick, _) if tick.at <= now => {
                let tick = tick.clone();
                timed.plan = Plan::Unknown;
                Some(*tick)
            }
            _ => None,
        }
    }

    fn start_tick(&mut self, tick: Tick, now: Timestamp) -> Step {
        let (namespace, workflow) = (self.key.namespace.clone(), self.key.workflow.clone());
        let run = run_id(&[&namespace, &workflow, &self.key.name, &tick.key], now);
        let slot = tick.slot.to_jiff().to_string();
        let late = now.0.saturating_sub(tick.at.0) > PUNCTUAL;
        let reason = if late { "catch-up of a missed tick" } else { "the timetable is due" };
        let mut row = self.slot_row(tick.slot, SlotOutcome::Started, reason, now);
        row.run = Some(run);
        if let Some(timed) = &self.timed
            && timed.timetable.as_ref().is_ok_and(|timetable| timetable.max_active().is_some())
        {
            self.row.active.push(run);
        }
        self.row.cursor = self.row.cursor.max(tick.at);
        self.row.last = Some(tick.clone());
        let params = match &self.spec.params {
            Json::Null => json!({}),
            params => params.clone(),
        };
        let mut step = self.step(vec![(slot.clone(), row)]);
        step.start = Some(StartSpec {
            run,
            key: tick.key,
            trigger: self.spec.kind.word(),
            at: tick.at,
            window: None,
            backfill: None,
            interval: tick.interval,
            partition: tick.partition,
            params,
            labels: json!({"trigger": self.key.name, "slot": slot}),
            extra: tick.extra,
        });
        step
    }

    /// Forgets what was planned, as after a pause.
    pub(super) fn plan_anew(&mut self) {
        if let Some(timed) = &mut self.timed {
            timed.plan = Plan::Unknown;
        }
    }

    /// Whether somebody outside has to be asked.
    pub(crate) fn asks(&self) -> bool {
        self.timed.as_ref().is_some_and(|timed| matches!(timed.plan, Plan::Ask))
    }

    /// What to ask outside; [`Self::answered`] takes the answer.
    pub(crate) fn take_question(&mut self) -> Option<Outside> {
        let timed = self.timed.as_mut().filter(|timed| matches!(timed.plan, Plan::Ask))?;
        let timetable = Arc::clone(timed.timetable.as_ref().ok()?);
        timed.plan = Plan::Asked;
        Some(Outside { timetable, last: self.row.last.clone() })
    }

    /// The answer from outside to a question after `last`.
    pub(crate) fn answered(
        &mut self,
        last: Option<&Tick>,
        answer: Result<Next, String>,
        now: Timestamp,
        steps: &mut Vec<Step>,
    ) {
        let asked = |timed: &&mut Timed| matches!(timed.plan, Plan::Asked);
        let Some(timed) = self.timed.as_mut().filter(asked) else { return };
        if self.row.last.as_ref() != last {
            timed.plan = Plan::Unknown;
            return;
        }
        match answer {
            Ok(Next::Ask) => {
                timed.plan = Plan::Never;
                timed.problem = Some("nobody outside knows either".to_owned());
            }
            Ok(next) => timed.take_answer(next, last, now),
            Err(problem) => {
                timed.plan = Plan::Later(now.saturating_add_micros(ASK_AGAIN));
                timed.problem = Some(problem);
            }
        }
        self.tick(now, steps);
    }
}

impl Timed {
    fn take_answer(&mut self, next: Next, last: Option<&Tick>, now: Timestamp) {
        self.problem = None;
        self.plan = match next {
            // The same run again and again would be no progress.
            Next::Tick(tick) if last.is_some_and(|last| last.key == tick.key) => {
                self.problem = Some(format!("the timetable does not get past {}", tick.key));
                Plan::Never
            }
            Next::Tick(tick) => Plan::Tick(Box::new(tick), now),
            Next::Never => Plan::Never,
            Next::Later(at) => Plan::Later(at.max(now.saturating_add_micros(1))),
            Next::Ask => Plan::Ask,
            Next::Failed(problem) => {
                self.problem = Some(problem);
                Plan::Never
            }
        };
    }
}
