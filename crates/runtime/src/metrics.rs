//! Figures of the loop, as Prometheus wants them.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A phase of the loop.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Phase {
    pub phase: &'static str,
}

/// What the loop counts.
#[derive(Debug)]
pub struct Metrics {
    pub commands: Counter,
    pub refused: Counter,
    pub batches: Counter,
    pub events: Counter,
    pub launches: Counter,
    pub runs_started: Counter,
    pub runs_ended: Counter,
    pub commit_failures: Counter,
    pub live_runs: Gauge,
    pub inbox: Gauge,
    pub phases: Family<Phase, Histogram>,
    /// How long the oldest message of each batch had waited.
    pub inbox_wait: Histogram,
    /// The last commit went well.
    pub healthy: AtomicBool,
    /// Wall time of the last turn of the loop, in microseconds.
    pub last_turn: AtomicU64,
    /// Wall time minus engine time at the last turn, in microseconds: shows timers as wall times.
    pub clock_offset: AtomicI64,
    registry: Registry,
    more: More,
}

/// Writes further series into the text.
type Writer = Box<dyn Fn(&mut String) + Send + Sync>;

/// Who else has series to show.
#[derive(Default)]
struct More(Mutex<Vec<Writer>>);

impl std::fmt::Debug for More {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("More")
    }
}

fn phase_histogram() -> Histogram {
    Histogram::new([0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("kobza");
        let (commands, refused) = (Counter::default(), Counter::default());
        let (batches, events, launches) =
            (Counter::default(), Counter::default(), Counter::default());
        let (runs_started, runs_ended) = (Counter::default(), Counter::default());
        let commit_failures = Counter::default();
        let (live_runs, inbox) = (Gauge::default(), Gauge::default());
        let inbox_wait = phase_histogram();
        let phases = Family::<Phase, Histogram>::new_with_constructor(phase_histogram);
        registry.register("commands", "Commands applied", commands.clone());
        registry.register("commands_refused", "Commands refused", refused.clone());
        registry.register("batches", "Batches committed", batches.clone());
        registry.register("events", "Events recorded", events.clone());
        registry.register("launches", "Bodies handed to executors", launches.clone());
        registry.register("runs_started", "Runs that left their queue", runs_started.clone());
        registry.register("runs_ended", "Runs that ended", runs_ended.clone());
        registry.register("commit_failures", "Commits that failed", commit_failures.clone());
        registry.register("live_runs", "Runs in the engine's memory", live_runs.clone());
        registry.register("inbox_messages", "Messages of the last batch", inbox.clone());
        registry.register("loop_phase_seconds", "Time in each phase of the loop", phases.clone());
        let about = "How long the oldest message of each batch had waited";
        registry.register("inbox_wait_seconds", about, inbox_wait.clone());
        Self {
            inbox_wait,
            commands,
            refused,
            batches,
            events,
            launches,
            runs_started,
            runs_ended,
            commit_failures,
            live_runs,
            inbox,
            phases,
            healthy: AtomicBool::new(true),
            last_turn: AtomicU64::new(0),
            clock_offset: AtomicI64::new(0),
            registry,
            more: More::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn phase(&self, phase: &'static str, took: Duration) {
        self.phases.get_or_create(&Phase { phase }).observe(took.as_secs_f64());
    }

    /// The text that Prometheus scrapes (OpenMetrics).
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _infallible = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        let end = "# EOF\n";
        if text.ends_with(end) {
            text.truncate(text.len() - end.len());
        }
        for writer in self.more.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            writer(&mut text);
        }
        text.push_str(end);
        text
    }

    /// Adds series of somebody else's to the text: `write` appends families in OpenMetrics.
    pub fn add(&self, write: impl Fn(&mut String) + Send + Sync + 'static) {
        let mut more = self.more.0.lock().unwrap_or_else(PoisonError::into_inner);
        more.push(Box::new(write));
    }
}
