//! What a person sees of a run while it goes on: lines as tasks end, and on a terminal one line that
//! says what runs.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use kobza_model::{TaskId, TaskState};

use crate::compose::Host;
use crate::failure::Failure;
use crate::run::describe;

/// Shortest time between two drawings of the line.
const REDRAW: Duration = Duration::from_millis(100);
/// Longest: the clock in it goes on.
const TICK: Duration = Duration::from_secs(1);
/// Lines for tasks; beyond it only the sums are told (a map may have a million).
const MAX_LINES: u32 = 1000;
/// Running tasks that are named.
const MAX_NAMES: usize = 3;
/// Longest line, in characters: a longer one would be wrapped and not be wiped.
const MAX_WIDTH: usize = 79;

pub(crate) struct Progress {
    text: bool,
    terminal: bool,
    counts: BTreeMap<TaskState, i64>,
    states: BTreeMap<TaskId, TaskState>,
    /// Some of those that run.
    running: BTreeMap<TaskId, String>,
    printed: u32,
    started: Instant,
    drawn: Instant,
    changed: bool,
    width: usize,
}

impl Progress {
    pub(crate) fn new(text: bool) -> Self {
        Self {
            text,
            terminal: text && std::io::stderr().is_terminal(),
            counts: BTreeMap::new(),
            states: BTreeMap::new(),
            running: BTreeMap::new(),
            printed: 0,
            started: Instant::now(),
            drawn: Instant::now(),
            changed: false,
            width: 0,
        }
    }

    pub(crate) fn task(
        &mut self,
        host: &Host,
        id: TaskId,
        state: TaskState,
    ) -> Result<(), Failure> {
        if id.task.0 == 0 || !self.text {
            return Ok(());
        }
        self.changed = true;
        if let Some(old) = self.states.insert(id, state) {
            *self.counts.entry(old).or_default() -= 1;
        }
        *self.counts.entry(state).or_default() += 1;
        if state != TaskState::Running {
            self.running.remove(&id);
        } else if self.terminal
            && self.running.len() < MAX_NAMES
            && let Some(row) = host.store.get_task(id)?
            && !row.summary
        {
            let index = row.index.map_or(String::new(), |i| format!("[{i}]"));
            self.running.insert(id, format!("{}{index}", row.name));
        }
        if state.is_finished() {
            self.states.remove(&id);
            if self.printed < MAX_LINES
                && let Some(row) = host.store.get_task(id)?
                && !row.summary
            {
                self.printed += 1;
                self.line(&describe(&row));
                if self.printed == MAX_LINES {
                    self.line("(further tasks are counted, not listed)");
                }
            }
        }
        Ok(())
    }

    /// When the line wants to be drawn again though nothing happens.
    pub(crate) fn redraw_in(&self) -> Option<Duration> {
        let pause = if self.changed { REDRAW } else { TICK };
        self.terminal.then(|| pause.saturating_sub(self.drawn.elapsed()))
    }

    fn line(&mut self, text: &str) {
        self.wipe();
        crate::out::tell!("{text}");
    }

    fn wipe(&mut self) {
        if self.terminal && self.width > 0 {
            eprint_flush(&format!("\r{}\r", " ".repeat(self.width)));
            self.width = 0;
        }
    }

    pub(crate) fn draw(&mut self) {
        if !self.terminal || self.drawn.elapsed() < REDRAW {
            return;
        }
        self.drawn = Instant::now();
        self.changed = false;
        let text = self.shown();
        let width = text.chars().count();
        let pad = self.width.saturating_sub(width);
        eprint_flush(&format!("\r{text}{}", " ".repeat(pad)));
        self.width = width;
    }

    /// `0:07  2 running (load, check), 3 succeeded`
    fn shown(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        let mut parts = Vec::new();
        for (state, n) in self.counts.iter().filter(|(_, n)| **n > 0) {
            let mut part = format!("{n} {state}");
            if *state == TaskState::Running && !self.running.is_empty() {
                let names: Vec<&str> = self.running.values().map(String::as_str).collect();
                let more = if *n > names.len() as i64 { ", …" } else { "" };
                part.push_str(&format!(" ({}{more})", names.join(", ")));
            }
            parts.push(part);
        }
        let text = format!("{}:{:02}  {}", seconds / 60, seconds % 60, parts.join(", "));
        text.chars().take(MAX_WIDTH).collect()
    }

    pub(crate) fn end(&mut self) {
        self.wipe();
    }
}

fn eprint_flush(text: &str) {
    use std::io::Write as _;
    let mut terminal = std::io::stderr();
    // A terminal that went away needs no progress.
    let _gone = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}
