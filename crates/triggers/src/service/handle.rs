//! How the server talks to the service.

use std::sync::Arc;

use kobza_model::{Json, RunId, RunState, Timestamp};
use kobza_store::kinds;
use tokio::sync::{mpsc, oneshot, watch};

use super::work::newest;
use super::{Service, TriggerError};
use crate::backfill::{
    Backfill, BackfillItem, BackfillRow, BackfillSpec, ItemStatus, Items, Preview,
};
use crate::files::Sighting;
use crate::row::{SlotRow, TriggerRow};
use crate::spec::TriggerKind;
use crate::{
    EventBody, Mapped, MappingQuestion, Next, OutsideQuestion, TriggerEvent, TriggerKey,
    TriggerSpec, Triggers, parse_triggers, webhook,
};

type Reply<T> = oneshot::Sender<Result<T, TriggerError>>;
type Change = Box<dyn FnOnce(&mut Triggers, Timestamp, u64) -> Vec<crate::Step> + Send>;

pub(super) enum Request {
    Change {
        act: Change,
        workflow: Option<(String, String)>,
        reply: Reply<()>,
    },
    Event {
        namespace: String,
        event: TriggerEvent,
        reply: Reply<Vec<(TriggerKey, SlotRow)>>,
    },
    Look(Box<dyn FnOnce(&mut Service) + Send>),
    CreateBackfill {
        namespace: String,
        id: String,
        spec: BackfillSpec,
        items: Arc<Items>,
        by: String,
        reply: Reply<BackfillRow>,
    },
    /// What somebody outside said to a partition.
    Mapped {
        question: MappingQuestion,
        answer: Result<Result<Vec<Mapped>, String>, String>,
    },
    /// The pieces of a stored backfill.
    Items {
        place: (String, String),
        items: Result<Arc<Items>, String>,
    },
    ChangeBackfill {
        namespace: String,
        id: String,
        action: BackfillAction,
        reply: Reply<BackfillRow>,
    },
    Sighted {
        key: TriggerKey,
        files: Vec<Sighting>,
    },
    /// What somebody outside said to a timetable's question.
    Answered {
        question: OutsideQuestion,
        answer: Result<Next, String>,
    },
    Stop,
}

/// What can be done to a backfill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackfillAction {
    Pause,
    Resume,
    Cancel,
    RerunFailed,
}

/// A trigger for people and programs.
#[derive(Clone, Debug)]
pub struct TriggerView {
    pub key: TriggerKey,
    /// `schedule`, `asset`, ...
    pub kind: &'static str,
    pub spec: TriggerSpec,
    pub row: TriggerRow,
    /// When it will act next, if that is known.
    pub next: Option<Timestamp>,
}

/// A piece of a backfill that is not begun yet.
#[derive(Clone, Debug)]
pub struct PreviewItem {
    pub item: BackfillItem,
    pub newest: Option<(RunId, RunState)>,
    /// Whether it would run.
    pub runs: bool,
}

/// A handle on the service; cheap to clone.
#[derive(Clone, Debug)]
pub struct TriggerHandle {
    requests: mpsc::Sender<Request>,
    /// Closed when the service's thread has let go of everything.
    ended: watch::Receiver<()>,
}

impl TriggerHandle {
    pub(super) fn new(requests: mpsc::Sender<Request>, ended: watch::Receiver<()>) -> Self {
        Self { requests, ended }
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Request) -> Result<T, TriggerError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(make(reply)).await.map_err(|_| TriggerError::Stopped)?;
        answer.await.map_err(|_| TriggerError::Stopped)?
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Service) -> Result<T, TriggerError> + Send + 'static,
    ) -> Result<T, TriggerError> {
        self.ask(|reply| {
            Request::Look(Box::new(move |service| {
                // A caller that went away does not want the answer.
                let _gone = reply.send(look(service));
            }))
        })
        .await
    }

    /// Call after each change of a workflow's current version, with its `triggers`; null when it was
    /// deleted. Answers once the triggers' rows are durable.
    pub async fn set_workflow(
        &self,
        namespace: &str,
        workflow: &str,
        triggers: &Json,
    ) -> Result<(), TriggerError> {
        let specs = parse_triggers(triggers).map_err(|errors| {
            let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
            TriggerError::Invalid(all.join("; "))
        })?;
        let place = (namespace.to_owned(), workflow.to_owned());
        let (namespace, workflow) = place.clone();
        let act: Change = Box::new(move |triggers, now, seen| {
            triggers.set_workflow(&namespace, &workflow, specs, seen, now)
        });
        self.ask(|reply| Request::Change { act, workflow: Some(place), reply }).await
    }

    /// Call after a workflow was paused or resumed as a whole.
    pub async fn set_workflow_paused(
        &self,
        namespace: &str,
        workflow: &str,
        paused: bool,
    ) -> Result<(), TriggerError> {
        let (namespace, workflow) = (namespace.to_owned(), workflow.to_owned());
        let act: Change = Box::new(move |triggers, now, _| {
            triggers.set_workflow_paused(&namespace, &workflow, paused, now)
        });
        self.ask(|reply| Request::Change { act, workflow: None, reply }).await
    }

    /// Pauses or resumes one trigger.
    pub async fn set_paused(&self, key: &TriggerKey, paused: bool) -> Result<(), TriggerError> {
        let known = key.clone();
        self.look(move |service| found(service.triggers.get(&known).map(|_| ()), &known)).await?;
        let key = key.clone();
        let act: Change = Box::new(move |triggers, now, _| triggers.set_paused(&key, paused, now));
        self.ask(|reply| Request::Change { act, workflow: None, reply }).await
    }

    /// An event from outside, by name. Answers what was decided, once it is durable; an event
    /// whose id was decided before changes nothing.
    pub async fn send_event(
        &self,
        namespace: &str,
        event: TriggerEvent,
    ) -> Result<Vec<(TriggerKey, SlotRow)>, TriggerError> {
        let namespace = namespace.to_owned();
        self.ask(|reply| Request::Event { namespace, event, reply }).await
    }

    /// The webhook triggers at an address; usually one.
    pub async fn webhooks_at(
        &self,
        namespace: &str,
        path: &str,
    ) -> Result<Vec<TriggerView>, TriggerError> {
        let path = path.to_owned();
        self.views(Some(namespace), move |spec| {
            matches!(&spec.kind, TriggerKind::Webhook { path: own, .. } if *own == path)
        })
        .await
    }

    /// Verifies a delivery for a webhook trigger with its secret's value and starts what it
    /// triggers. `headers` have lower-case names. A trigger without a secret accepts deliveries of
    /// callers whom the server has authorised itself.
    pub async fn deliver(
        &self,
        view: &TriggerView,
        secret: Option<&[u8]>,
        headers: &[(String, String)],
        body: &[u8],
        now: Timestamp,
    ) -> Result<Vec<(TriggerKey, SlotRow)>, TriggerError> {
        let TriggerKind::Webhook { scheme, secret: named, .. } = &view.spec.kind else {
            return Err(TriggerError::Invalid("the trigger is no webhook".to_owned()));
        };
        let header = |name: &str| {
            headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
        };
        let refused = |e: webhook::WebhookError| TriggerError::Invalid(e.to_string());
        let id = match (named, secret) {
            (Some(_), Some(secret)) => {
                webhook::verify(*scheme, secret, header, body, now).map_err(refused)?
            }
            (Some(_), None) => return Err(refused(webhook::WebhookError::Secret)),
            (None, _) => webhook::unsigned_id(header, body, now).map_err(refused)?,
        };
        let text = || Json::String(String::from_utf8_lossy(body).into_owned());
        let body = EventBody::Webhook {
            workflow: view.key.workflow.clone(),
            trigger: view.key.name.clone(),
            body: serde_json::from_slice(body).unwrap_or_else(|_| text()),
        };
        let event = TriggerEvent { id, sequence: 0, at: now, body };
        self.send_event(&view.key.namespace, event).await
    }

    /// All triggers, of one namespace if given.
    pub async fn list(&self, namespace: Option<&str>) -> Result<Vec<TriggerView>, TriggerError> {
        self.views(namespace, |_| true).await
    }

    async fn views(
        &self,
        namespace: Option<&str>,
        fits: impl Fn(&TriggerSpec) -> bool + Send + 'static,
    ) -> Result<Vec<TriggerView>, TriggerError> {
        let namespace = namespace.map(str::to_owned);
        self.look(move |service| {
            let wanted = |key: &TriggerKey| namespace.as_ref().is_none_or(|n| *n == key.namespace);
            let all = service.triggers.iter().filter(|(key, spec, _)| wanted(key) && fits(spec));
            Ok(all
                .map(|(key, spec, row)| TriggerView {
                    key: key.clone(),
                    kind: spec.kind.word(),
                    spec: spec.clone(),
                    row: row.clone(),
                    next: service.triggers.due(key),
                })
                .collect())
        })
        .await
    }

    /// The pieces that a backfill means; a dialect may take its time to say.
    async fn items_of(&self, spec: &BackfillSpec) -> Result<Arc<Items>, TriggerError> {
        let known = self.look(|service| Ok((service.now(), service.options.timetables.clone())));
        let (now, dialects) = known.await?;
        let spec = spec.clone();
        let found = tokio::task::spawn_blocking(move || spec.items(now, &dialects)).await;
        let found = found.map_err(|e| TriggerError::Read(e.to_string()))?;
        found.map(Arc::new).map_err(|e| TriggerError::Invalid(e.to_string()))
    }

    /// What a backfill would do, and its first `told` pieces with their newest runs. Nothing is
    /// changed.
    pub async fn preview_backfill(
        &self,
        namespace: &str,
        spec: BackfillSpec,
        told: u64,
    ) -> Result<(Preview, Vec<PreviewItem>), TriggerError> {
        let items = self.items_of(&spec).await?;
        let namespace = namespace.to_owned();
        self.look(move |service| {
            let views = Arc::clone(&service.options.views);
            let workflow = spec.workflow.clone();
            service.workflow(&namespace, &workflow, None)?;
            let starter = service.starter(&namespace, &workflow);
            let run = |item: &BackfillItem| {
                newest(views.as_ref(), starter.as_deref(), &namespace, &workflow, item)
            };
            let status = |item: &BackfillItem| ItemStatus::of(run(item).map(|(_, state)| state));
            let preview = spec.preview(&items, status);
            let first = (0..preview.total.min(told)).filter_map(|position| {
                let item = items.get(position, spec.newest_first())?;
                let newest = run(&item);
                let runs = spec.wants(ItemStatus::of(newest.map(|(_, state)| state)));
                Some(PreviewItem { item, newest, runs })
            });
            Ok((preview, first.collect()))
        })
        .await
    }

    /// Makes a backfill and starts its first runs. `id` must be new.
    pub async fn create_backfill(
        &self,
        namespace: &str,
        id: &str,
        spec: BackfillSpec,
        by: &str,
    ) -> Result<BackfillRow, TriggerError> {
        let items = self.items_of(&spec).await?;
        let (namespace, id, by) = (namespace.to_owned(), id.to_owned(), by.to_owned());
        self.ask(|reply| Request::CreateBackfill { namespace, id, spec, items, by, reply }).await
    }

    pub async fn change_backfill(
        &self,
        namespace: &str,
        id: &str,
        action: BackfillAction,
    ) -> Result<BackfillRow, TriggerError> {
        let (namespace, id) = (namespace.to_owned(), id.to_owned());
        self.ask(|reply| Request::ChangeBackfill { namespace, id, action, reply }).await
    }

    /// A backfill's state, or nothing.
    pub async fn backfill(
        &self,
        namespace: &str,
        id: &str,
    ) -> Result<Option<BackfillRow>, TriggerError> {
        let place = (namespace.to_owned(), id.to_owned());
        self.look(move |service| Ok(service.backfills.get(&place).map(|b| b.row().clone()))).await
    }

    /// The pieces of a backfill, or nothing.
    pub async fn backfill_items(
        &self,
        namespace: &str,
        id: &str,
    ) -> Result<Option<Arc<Items>>, TriggerError> {
        let place = (namespace.to_owned(), id.to_owned());
        self.look(move |service| Ok(service.backfills.get(&place).map(|b| b.items().clone()))).await
    }

    /// All backfills of a namespace, newest first.
    pub async fn backfills(&self, namespace: &str) -> Result<Vec<BackfillRow>, TriggerError> {
        let namespace = namespace.to_owned();
        self.look(move |service| {
            let own = service.backfills.iter().filter(|((n, _), _)| *n == namespace);
            let mut rows: Vec<_> = own.map(|(_, backfill)| backfill.row().clone()).collect();
            rows.sort_by_key(|row| std::cmp::Reverse(row.created_at));
            Ok(rows)
        })
        .await
    }

    /// Ends the service after what it has in hand, and waits until it has.
    pub async fn stop(&self) {
        // It may have stopped already.
        let _gone = self.requests.send(Request::Stop).await;
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

fn found<T>(value: Option<T>, key: &TriggerKey) -> Result<T, TriggerError> {
    value.ok_or_else(|| TriggerError::Missing(format!("trigger {}", key.object_key())))
}

impl Service {
    pub(super) async fn serve(&mut self, request: Request) {
        match request {
            Request::Change { act, workflow, reply } => {
                if let Some(place) = workflow {
                    self.workflows.remove(&place);
                    // Its slots find it at hand; what cannot be read now is read when needed.
                    let read = self.workflow(&place.0, &place.1, None);
                    if read.is_ok_and(|stored| stored.workflow.triggers.is_null()) {
                        self.workflows.remove(&place);
                    }
                }
                let newest = self.options.runtime.next_event().borrow().saturating_sub(1);
                let (now, seen) = (self.now(), self.seen.max(newest));
                let steps = act(&mut self.triggers, now, seen);
                let result = self.commit(steps).await.into_result().map(|_| ());
                let _gone = reply.send(result);
            }
            Request::Event { namespace, event, reply } => {
                let result = self.outside_event(&namespace, &event).await;
                let _gone = reply.send(result);
            }
            Request::Look(look) => look(self),
            Request::CreateBackfill { namespace, id, spec, items, by, reply } => {
                let result = self.create_backfill(&namespace, &id, spec, items, &by).await;
                let _gone = reply.send(result);
            }
            Request::ChangeBackfill { namespace, id, action, reply } => {
                let result = self.change_backfill(namespace, id, action).await;
                let _gone = reply.send(result);
            }
            Request::Sighted { key, files } => self.sighted(key, files).await,
            Request::Answered { question, answer } => self.answered(&question, answer).await,
            Request::Mapped { question, answer } => self.mapped(&question, answer).await,
            Request::Items { place, items } => self.items_found(place, items).await,
            Request::Stop => {}
        }
    }

    async fn outside_event(
        &mut self,
        namespace: &str,
        event: &TriggerEvent,
    ) -> Result<Vec<(TriggerKey, SlotRow)>, TriggerError> {
        let now = self.now();
        let mut decided = Vec::new();
        for key in self.triggers.listeners(namespace, event) {
            let slot = key.slot_key(&event.id);
            if let Some(known) = self.options.views.get_object(kinds::SLOT, namespace, &slot)? {
                let row = serde_json::from_value(known.value)
                    .map_err(|e| TriggerError::Read(e.to_string()))?;
                decided.push((key, row));
                continue;
            }
            let steps = self.triggers.on_event_for(&key, event, now);
            decided.extend(self.commit(steps).await.into_result()?.slots);
        }
        Ok(decided)
    }

    async fn create_backfill(
        &mut self,
        namespace: &str,
        id: &str,
        spec: BackfillSpec,
        items: Arc<Items>,
        by: &str,
    ) -> Result<BackfillRow, TriggerError> {
        let place = (namespace.to_owned(), id.to_owned());
        if self.backfills.contains_key(&place) || id.contains('/') || id.is_empty() {
            return Err(TriggerError::Invalid(format!("the backfill id {id:?} is not usable")));
        }
        let stored = self.workflow(namespace, &spec.workflow, None)?;
        let is_rival = |other: &Backfill| {
            let row = other.row();
            row.spec.workflow == spec.workflow
                && row.spec.timetable().is_some()
                && !row.state.is_finished()
        };
        let mut own = self.backfills.iter().filter(|((other, _), _)| other == namespace);
        if spec.timetable().is_some()
            && let Some(((_, rival), _)) = own.find(|(_, other)| is_rival(other))
        {
            return Err(TriggerError::Invalid(format!(
                "the backfill {rival} of {} has not ended: there can be one at a time",
                spec.workflow
            )));
        }
        let now = self.now();
        self.items.insert(place.clone(), items.clone());
        let (backfill, step) =
            Backfill::create(id, namespace, spec, items, &stored.version, by, now);
        let row = backfill.row().clone();
        self.backfills.insert(place, backfill);
        self.commit_backfills(vec![step]).await.into_result()?;
        Ok(row)
    }

    /// Takes up a stored backfill whose pieces are known now.
    async fn items_found(&mut self, place: (String, String), items: Result<Arc<Items>, String>) {
        match items {
            Ok(items) => {
                self.items.insert(place.clone(), items);
                // The next look of the loop takes it up, with what has become of its runs.
                self.unread_backfills.insert(place);
                self.advance_backfills().await;
                if let Err(error) = self.check_active().await {
                    tracing::warn!(%error, "active runs could not be looked at");
                    self.retry_later();
                }
            }
            Err(error) => tracing::error!(backfill = place.1, error, "its pieces are not known"),
        }
    }

    async fn change_backfill(
        &mut self,
        namespace: String,
        id: String,
        action: BackfillAction,
    ) -> Result<BackfillRow, TriggerError> {
        let now = self.now();
        let missing = TriggerError::Missing(format!("backfill {id}"));
        let place = (namespace, id);
        let backfill = self.backfills.get_mut(&place).ok_or_else(|| missing.clone())?;
        let step = match action {
            BackfillAction::Pause => backfill.pause(),
            BackfillAction::Resume => backfill.resume(),
            BackfillAction::Cancel => backfill.cancel(now),
            BackfillAction::RerunFailed => backfill.rerun_failed(),
        };
        let Some(step) = step else {
            let state = backfill.row().state;
            return Err(TriggerError::Invalid(format!(
                "this has no effect on a backfill that is {state:?}"
            )));
        };
        self.commit_backfills(vec![step]).await.into_result()?;
        self.backfills.get(&place).map(|backfill| backfill.row().clone()).ok_or(missing)
    }
}
