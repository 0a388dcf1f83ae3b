//! Looking at folders, beside the loop.

use kobza_store::kinds;
use std::time::Duration;
use tokio::time::Instant;

use super::Service;
use super::handle::Request;
use crate::TriggerKey;
use crate::files::{Sighting, Watch, event, scan};
use crate::spec::TriggerKind;

impl Service {
    /// Starts the looks that are due; what they see comes back as requests.
    pub(super) fn look_at_files(&mut self) {
        let start = Instant::now();
        let watched: Vec<(TriggerKey, String, Duration)> = self
            .triggers
            .file_triggers()
            .filter_map(|(key, spec, row)| match &spec.kind {
                TriggerKind::File { pattern, every, .. } if !row.paused => {
                    let every = Duration::from_micros(every.unsigned_abs());
                    Some((key.clone(), pattern.clone(), every))
                }
                _ => None,
            })
            .collect();
        self.watches
            .retain(|key, _| watched.binary_search_by(|(other, _, _)| other.cmp(key)).is_ok());
        for (key, pattern, every) in watched {
            let (_, due) =
                self.watches.entry(key.clone()).or_insert_with(|| (Watch::default(), start));
            if *due > start {
                continue;
            }
            *due = start + every;
            let requests = self.requests.clone();
            tokio::task::spawn_blocking(move || {
                // The service has stopped, or is busy: the next look sees the same.
                let _missed = requests.try_send(Request::Sighted { files: scan(&pattern), key });
            });
        }
    }

    pub(super) async fn sighted(&mut self, key: TriggerKey, files: Vec<Sighting>) {
        let now = self.now();
        let Some((spec, row)) = self.triggers.get(&key) else { return };
        let TriggerKind::File { settle, .. } = spec.kind else { return };
        let since = row.created_at;
        let Some((watch, _)) = self.watches.get_mut(&key) else { return };
        let mut steps = Vec::new();
        for file in watch.look(files, since, settle, now) {
            let event = event(&key, file, now);
            let slot = key.slot_key(&event.id);
            match self.options.views.get_object(kinds::SLOT, &key.namespace, &slot) {
                // Decided before a restart.
                Ok(Some(_)) => {}
                Ok(None) => steps.extend(self.triggers.on_event(&key.namespace, &event, now)),
                Err(_) => {
                    self.watches.remove(&key);
                    return self.retry_later();
                }
            }
        }
        if !steps.is_empty() && self.commit(steps).await.incomplete {
            // See them as new again.
            self.watches.remove(&key);
        }
    }
}
