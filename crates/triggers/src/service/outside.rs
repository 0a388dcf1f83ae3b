//! Timetables and partitions that only somebody outside can answer for.

use super::Service;
use super::handle::Request;
use crate::{Mapped, MappingQuestion, Next, OutsideQuestion};

impl Service {
    /// Asks what has to be asked, on threads where that may take its time.
    pub(super) fn ask_outside(&mut self) {
        let now = self.now();
        for question in self.triggers.take_questions() {
            let requests = self.requests.clone();
            tokio::task::spawn_blocking(move || {
                let answer = question.timetable.ask(question.last.as_ref(), now);
                // The service may have ended: it will ask again when it begins anew.
                let _ended = requests.blocking_send(Request::Answered { question, answer });
            });
        }
    }

    /// Asks which partitions updates belong to, on threads where that may take its time.
    pub(super) fn ask_mappings(&mut self) {
        for question in self.triggers.take_mappings() {
            let requests = self.requests.clone();
            tokio::task::spawn_blocking(move || {
                let answer = question.mapping.map(&question.event, &question.held);
                // The service may have ended: it will ask again when it begins anew.
                let _ended = requests.blocking_send(Request::Mapped { question, answer });
            });
        }
    }

    pub(super) async fn mapped(
        &mut self,
        question: &MappingQuestion,
        answer: Result<Result<Vec<Mapped>, String>, String>,
    ) {
        if let Err(error) | Ok(Err(error)) = &answer {
            let trigger = question.trigger.object_key();
            tracing::warn!(trigger, error, "a partition was not mapped");
        }
        let steps = self.triggers.mapped(question, answer, self.now());
        if !steps.is_empty() {
            self.commit(steps).await;
        }
    }

    pub(super) async fn answered(
        &mut self,
        question: &OutsideQuestion,
        answer: Result<Next, String>,
    ) {
        if let Err(error) = &answer {
            let trigger = question.trigger.object_key();
            tracing::warn!(trigger, error, "a timetable was not answered");
        }
        let steps = self.triggers.answered(question, answer, self.now());
        if !steps.is_empty() {
            self.commit(steps).await;
        }
    }
}
