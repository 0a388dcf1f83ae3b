//! How everybody else talks to the loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use kobza_engine::{Command, Engine, Refusal, Reply, Report};
use kobza_model::{EngineTime, Event, Now, Timestamp};
use kobza_store::Write;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::metrics::Metrics;
use crate::ports::{Answer, Ask, ReportSink};

/// Messages that the inbox holds; when it is full, callers wait.
pub const INBOX_CAPACITY: usize = 8192;

/// Commands and writes that belong together: one transaction.
///
/// Commands are applied in order. The first that is refused ends the submission: those before it
/// stay applied, those after it and all `writes` are dropped, and the caller gets the refusal.
#[derive(Debug, Default)]
pub struct Submission {
    pub commands: Vec<Command>,
    pub writes: Vec<Write>,
}

impl From<Command> for Submission {
    fn from(command: Command) -> Self {
        Self { commands: vec![command], writes: Vec::new() }
    }
}

/// Why a submission was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The key of a new run is taken; the run that has it.
    #[error("a run with the key {key:?} exists already: {run}")]
    KeyTaken { key: String, run: kobza_model::RunId },
    /// The store could not take it; nothing happened.
    #[error("the store could not take it, nothing was changed: {0}")]
    Store(String),
    /// Whether it happened is unknown.
    #[error("the connection to the store broke during the commit; look before you repeat: {0}")]
    Unknown(String),
    #[error("the server is stopping")]
    Stopped,
}

pub(crate) type ReplyTo = Box<dyn FnOnce(Result<Vec<Reply>, SubmitError>) + Send>;

pub(crate) enum Message {
    Submit { submission: Submission, reply: ReplyTo },
    Report { report: Report, on_durable: Box<dyn FnOnce() + Send> },
    Ask { ask: Ask, on_answer: Box<dyn FnOnce(Answer) + Send> },
    Query(Box<dyn FnOnce(&Engine) + Send>),
    Now(oneshot::Sender<Now>),
    Stop,
}

/// A message with the time at which it came.
pub(crate) struct Queued {
    pub(crate) at: Instant,
    pub(crate) message: Message,
}

impl From<Message> for Queued {
    fn from(message: Message) -> Self {
        Self { at: Instant::now(), message }
    }
}

/// Events of one commit, as followers get them.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Sequence number of the first of `events`.
    pub first: u64,
    pub events: Arc<Vec<Event>>,
}

/// A handle on the loop; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inbox: mpsc::Sender<Queued>,
    pub(crate) events: broadcast::Sender<Committed>,
    pub(crate) next_event: watch::Receiver<u64>,
    pub(crate) metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    /// Carries out a submission; answers once it is durable. Waits while the inbox is full.
    pub async fn submit(
        &self,
        submission: impl Into<Submission>,
    ) -> Result<Vec<Reply>, SubmitError> {
        let (sender, receiver) = oneshot::channel();
        let reply: ReplyTo = Box::new(move |result| {
            // A caller that went away does not want the answer.
            let _gone = sender.send(result);
        });
        self.inbox
            .send(Message::Submit { submission: submission.into(), reply }.into())
            .await
            .map_err(|_| SubmitError::Stopped)?;
        receiver.await.map_err(|_| SubmitError::Stopped)?
    }

    /// As `submit`, for threads outside of an async runtime.
    pub fn submit_blocking(
        &self,
        submission: impl Into<Submission>,
    ) -> Result<Vec<Reply>, SubmitError> {
        let (sender, receiver) = oneshot::channel();
        let reply: ReplyTo = Box::new(move |result| {
            let _gone = sender.send(result);
        });
        self.inbox
            .blocking_send(Message::Submit { submission: submission.into(), reply }.into())
            .map_err(|_| SubmitError::Stopped)?;
        receiver.blocking_recv().map_err(|_| SubmitError::Stopped)?
    }

    /// Looks at the engine's memory, between two batches.
    pub async fn query<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, SubmitError> {
        let (sender, receiver) = oneshot::channel();
        let query = Message::Query(Box::new(move |engine| {
            let _gone = sender.send(look(engine));
        }));
        self.inbox.send(query.into()).await.map_err(|_| SubmitError::Stopped)?;
        receiver.await.map_err(|_| SubmitError::Stopped)
    }

    /// As `query`, for threads outside of an async runtime.
    pub fn query_blocking<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, SubmitError> {
        let (sender, receiver) = oneshot::channel();
        let query = Message::Query(Box::new(move |engine| {
            let _gone = sender.send(look(engine));
        }));
        self.inbox.blocking_send(query.into()).map_err(|_| SubmitError::Stopped)?;
        receiver.blocking_recv().map_err(|_| SubmitError::Stopped)
    }

    /// What the clocks show, for threads outside of an async runtime.
    pub fn now_blocking(&self) -> Result<Now, SubmitError> {
        let (sender, receiver) = oneshot::channel();
        self.inbox.blocking_send(Message::Now(sender).into()).map_err(|_| SubmitError::Stopped)?;
        receiver.blocking_recv().map_err(|_| SubmitError::Stopped)
    }

    /// Events from now on. A follower that falls behind gets `Lagged` and reads the store.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Committed> {
        self.events.subscribe()
    }

    /// Sequence number that the next event will have; changes with each commit.
    #[must_use]
    pub fn next_event(&self) -> watch::Receiver<u64> {
        self.next_event.clone()
    }

    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Lets the loop end after what it has in hand.
    pub fn stop(&self) {
        // A full inbox drains by itself; a closed one has stopped already.
        if let Err(mpsc::error::TrySendError::Full(message)) =
            self.inbox.try_send(Message::Stop.into())
        {
            let inbox = self.inbox.clone();
            std::thread::spawn(move || {
                // A closed inbox has stopped already.
                let _stopped = inbox.blocking_send(message);
            });
        }
    }
}

impl ReportSink for Handle {
    fn report(&self, report: Report, on_durable: Box<dyn FnOnce() + Send>) {
        // When the loop has stopped, the report stays in the executor's spool.
        let _stopped = self.inbox.blocking_send(Message::Report { report, on_durable }.into());
    }

    fn engine_time(&self, wall: Timestamp) -> EngineTime {
        let offset = self.metrics.clock_offset.load(Ordering::Relaxed);
        EngineTime(wall.0.saturating_sub(offset))
    }

    fn ask(&self, ask: Ask, on_answer: Box<dyn FnOnce(Answer) + Send>) {
        // When the loop has stopped, the next server is asked.
        let _stopped = self.inbox.blocking_send(Message::Ask { ask, on_answer }.into());
    }
}
