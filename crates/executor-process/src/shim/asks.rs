//! What running bodies ask of their run's dialect, and the answers.

use kobza_model::{Json, LaunchId};
use kobza_runtime::Answer;

use super::loop_state::Shim;
use crate::wire::{FromShim, encode};

/// Questions of one body at a time; a well-behaved one waits for each answer.
const ASKS_AT_ONCE: usize = 64;

impl Shim {
    pub(super) fn asked(&mut self, serial: u64, number: u64, body: Json) {
        // Who asks has begun, and the server hears that first.
        self.tell_begun(serial);
        self.flush_client();
        let Some(task) = self.tasks.get(&serial) else { return };
        if self.asks_of(serial).count() >= ASKS_AT_ONCE {
            let words = format!("more than {ASKS_AT_ONCE} questions wait for an answer");
            return self.hear(serial, number, &Answer::refused(words));
        }
        let mut frame = Vec::new();
        let ask = FromShim::Ask { launch: task.launch, number, body };
        if let Err(error) = encode(&ask, &mut frame) {
            return self.hear(serial, number, &Answer::refused(error.to_string()));
        }
        self.tell(&frame);
        self.asks.insert((serial, number), frame);
    }

    pub(super) fn answered(&mut self, launch: LaunchId, number: u64, mut answer: Answer) {
        let Some(&serial) = self.known.get(&launch) else { return };
        // A repeated question is answered twice; one answer is enough.
        if self.asks.remove(&(serial, number)).is_none() {
            return;
        }
        if let Err(error) = self.mask(serial, &answer.secrets) {
            // What cannot be masked is not handed out.
            answer = Answer::refused(error);
        }
        self.hear(serial, number, &answer);
    }

    fn hear(&mut self, serial: u64, number: u64, answer: &Answer) {
        if let Some(warm) = &mut self.warm {
            warm.answer(serial, number, answer);
        }
    }

    fn asks_of(&self, serial: u64) -> impl Iterator<Item = (u64, u64)> {
        self.asks.range((serial, 0)..=(serial, u64::MAX)).map(|(key, _)| *key)
    }

    /// Nobody waits for these answers any more.
    pub(super) fn forget_asks(&mut self, serial: u64) {
        for key in self.asks_of(serial).collect::<Vec<_>>() {
            self.asks.remove(&key);
        }
    }
}
