//! Events that are not confirmed yet: in memory for the next connection, and in a file for the case
//! that the shim dies.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kobza_model::{Cause, LaunchId, Outcome, Timestamp};
use kobza_runtime::{Ended, Said};

use crate::clock::wall_now;
use crate::wire::{Event, EventBody, Finished, FromShim, SPOOL, encode};

/// The file is written anew when it has this many bytes and most of them are confirmed.
const COMPACT_BYTES: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    file: File,
    written: u64,
    next: u64,
    unconfirmed: BTreeMap<u64, (LaunchId, bool, Vec<u8>)>,
    unconfirmed_bytes: u64,
    /// Not yet in the file.
    pending: Vec<u8>,
}

impl Spool {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join(SPOOL);
        let file = open(&path)?;
        Ok(Self {
            path,
            file,
            written: 0,
            next: 1,
            unconfirmed: BTreeMap::new(),
            unconfirmed_bytes: 0,
            pending: Vec::new(),
        })
    }

    /// Adds an event.
    pub(super) fn push(&mut self, launch: LaunchId, body: EventBody) {
        self.push_at(launch, wall_now(), body);
    }

    /// Adds an event that happened a moment ago.
    pub(super) fn push_at(&mut self, launch: LaunchId, at: Timestamp, body: EventBody) {
        let number = self.next;
        self.next += 1;
        let last = body.is_last();
        let mut event = Event { number, launch, at: at.0, body };
        let mut frame = Vec::new();
        if let Err(error) = encode(&FromShim::Event(event.clone()), &mut frame) {
            // Only outputs can be that large.
            let message = format!("the outputs cannot be reported: {error}");
            if let EventBody::Said(said) = &mut event.body {
                *said = Said::Ended(Box::new(Ended {
                    outcome: Outcome::Failed,
                    cause: Cause::Limit,
                    message: Some(message),
                    ..Ended::default()
                }));
            } else if let EventBody::Finished(finished) = &mut event.body {
                **finished = Finished {
                    outcome: Outcome::Failed,
                    cause: Cause::Limit,
                    message: Some(message),
                    exit_code: finished.exit_code,
                    outputs: Vec::new(),
                    log: finished.log.clone(),
                };
            }
            frame.clear();
            if let Err(error) = encode(&FromShim::Event(event), &mut frame) {
                eprintln!("kobza shim: event {number} of {launch}: {error}");
                return;
            }
        }
        self.unconfirmed_bytes += frame.len() as u64;
        self.pending.extend_from_slice(&frame);
        self.unconfirmed.insert(number, (launch, last, frame));
    }

    /// Forgets a confirmed event. Answers its launch if it was the last of it.
    pub(super) fn confirm(&mut self, number: u64) -> Option<LaunchId> {
        let (launch, last, frame) = self.unconfirmed.remove(&number)?;
        self.unconfirmed_bytes -= frame.len() as u64;
        last.then_some(launch)
    }

    /// The first unconfirmed event behind `number`.
    pub(super) fn after(&self, number: u64) -> Option<(u64, &[u8])> {
        let (&number, (_, _, frame)) = self.unconfirmed.range(number + 1..).next()?;
        Some((number, frame))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unconfirmed.is_empty()
    }

    /// Brings the file up to date. Not synced to disk: it is for the death of the shim, not of the
    /// machine. A full disk costs the repetition after such a death, nothing else.
    pub(super) fn flush(&mut self) {
        let confirmed =
            (self.written + self.pending.len() as u64) - self.unconfirmed_bytes.min(self.written);
        if self.unconfirmed.is_empty() {
            self.pending.clear();
            if self.written > 0 && self.file.set_len(0).is_ok() {
                self.written = 0;
            }
        } else if self.written > COMPACT_BYTES && confirmed > self.written / 2 {
            self.pending.clear();
            if let Err(error) = self.compact() {
                eprintln!("kobza shim: spool: {error}");
            }
        } else if !self.pending.is_empty() {
            match self.file.write_all(&self.pending) {
                Ok(()) => self.written += self.pending.len() as u64,
                Err(error) => {
                    eprintln!("kobza shim: spool: {error}");
                    let _ = self.file.set_len(self.written);
                }
            }
            self.pending.clear();
        }
    }

    fn compact(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = open(&new)?;
        let frames: Vec<u8> =
            self.unconfirmed.values().flat_map(|(_, _, frame)| frame.iter().copied()).collect();
        file.write_all(&frames)?;
        std::fs::rename(&new, &self.path)?;
        self.file = file;
        self.written = frames.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Append, so that after `set_len` the next write is at the new end.
    let file = options.create(true).append(true).mode(0o600).open(path)?;
    file.set_len(0)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frames;
    use kobza_model::TaskNo;

    fn launch(launch: u32) -> LaunchId {
        let run = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        LaunchId { run, task: TaskNo(0), launch }
    }

    fn on_disk(spool: &Spool) -> Vec<u64> {
        let mut frames = Frames::default();
        frames.push(&std::fs::read(&spool.path).unwrap());
        let mut numbers = Vec::new();
        while let Some(FromShim::Event(event)) = frames.next().unwrap() {
            numbers.push(event.number);
        }
        numbers
    }

    #[test]
    fn unconfirmed_events_are_kept_and_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(folder.path()).unwrap();
        for i in 0..3 {
            spool.push(launch(i), EventBody::Started { pid: 7 });
        }
        spool.flush();
        assert_eq!(on_disk(&spool), [1, 2, 3]);
        assert_eq!(spool.confirm(2), None, "not the last event of its launch");
        assert_eq!(spool.confirm(2), None);
        assert_eq!(spool.after(1).unwrap().0, 3);
        spool.compact().unwrap();
        assert_eq!(on_disk(&spool), [1, 3]);
        spool.push(launch(9), EventBody::Started { pid: 7 });
        spool.flush();
        assert_eq!(on_disk(&spool), [1, 3, 4]);
        for number in [1, 3, 4] {
            spool.confirm(number);
        }
        spool.flush();
        assert!(spool.is_empty() && on_disk(&spool).is_empty());
        assert!(spool.after(0).is_none());
    }
}
