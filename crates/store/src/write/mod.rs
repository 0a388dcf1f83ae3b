//! Rare writes, once for both databases. What comes by the thousand each writes in its own way.

mod assets;
mod definitions;
mod retention;

use std::collections::HashMap;

use kobza_model::{RunId, RunState, Timestamp};

pub(crate) use assets::asset_event;
pub(crate) use definitions::{apply, limits};

use crate::StoreError;
use crate::read::{Statements, all};

type Result<T> = std::result::Result<T, StoreError>;

/// Forget everything remembered beyond so many runs; it is only a cache.
const RUNS_REMEMBERED: usize = 200_000;

pub(crate) const HOUR_MICROS: i64 = 3_600_000_000;

/// Numbers by name, and the last known state of active runs. Only a cache of committed rows and of
/// those of the transaction at hand: dropped whole when that fails.
#[derive(Default)]
pub(crate) struct Memory {
    words: HashMap<String, i64>,
    workflows: HashMap<(String, String), i64>,
    pub(crate) runs: HashMap<RunId, KnownRun>,
    next_run: Option<i64>,
}

#[derive(Clone, Debug)]
pub(crate) struct KnownRun {
    pub(crate) number: i64,
    pub(crate) workflow: i64,
    pub(crate) state: RunState,
    /// The hour it ended in, if it has ended.
    pub(crate) ended: Option<i64>,
    pub(crate) labels: Option<String>,
}

/// The hour of the epoch that a finished run ended in.
pub(crate) fn ended_hour(state: RunState, ended_at: Option<Timestamp>) -> Option<i64> {
    ended_at.filter(|_| state.is_finished()).map(|at| at.0 / HOUR_MICROS)
}

impl Memory {
    /// The number of a word, given to it when it is new.
    pub(crate) fn word(&mut self, tx: &mut dyn Statements, word: &str) -> Result<i64> {
        if let Some(number) = self.words.get(word) {
            return Ok(*number);
        }
        let sql = "INSERT INTO word (word) VALUES (?1) ON CONFLICT (word) DO NOTHING";
        tx.execute(sql, &[word.into()])?;
        let sql = "SELECT word_no FROM word WHERE word = ?1";
        let number = one(all(tx, sql, &[word.into()], |row| row.int(0))?)?;
        self.words.insert(word.to_owned(), number);
        Ok(number)
    }

    /// The number of a workflow's name, given to it when it is new.
    pub(crate) fn workflow(
        &mut self,
        tx: &mut dyn Statements,
        namespace: &str,
        name: &str,
    ) -> Result<i64> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(number) = self.workflows.get(&key) {
            return Ok(*number);
        }
        let values = [namespace.into(), name.into()];
        let sql = "INSERT INTO workflow (namespace, name) VALUES (?1, ?2)
                   ON CONFLICT (namespace, name) DO NOTHING";
        tx.execute(sql, &values)?;
        let sql = "SELECT workflow_no FROM workflow WHERE namespace = ?1 AND name = ?2";
        let number = one(all(tx, sql, &values, |row| row.int(0))?)?;
        self.workflows.insert(key, number);
        Ok(number)
    }

    /// A run that is in the store already.
    pub(crate) fn known_run(
        &mut self,
        tx: &mut dyn Statements,
        run: RunId,
    ) -> Result<Option<&KnownRun>> {
        if !self.runs.contains_key(&run) {
            let sql = "SELECT run_no, workflow_no, state, labels, ended_at FROM run WHERE id = ?1";
            let found = all(tx, sql, &[run.into()], |row| {
                let state = crate::codec::run_state(row.number(2)?)?;
                Ok(KnownRun {
                    number: row.int(0)?,
                    workflow: row.int(1)?,
                    state,
                    ended: ended_hour(state, row.opt_int(4)?.map(Timestamp)),
                    labels: row.opt_text(3)?,
                })
            })?;
            self.runs.extend(found.into_iter().map(|known| (run, known)));
        }
        Ok(self.runs.get(&run))
    }

    /// The number of a run that must be there, since something of it is written.
    pub(crate) fn run_number(&mut self, tx: &mut dyn Statements, run: RunId) -> Result<i64> {
        match self.known_run(tx, run)? {
            Some(known) => Ok(known.number),
            None => Err(StoreError(format!("run {run} is not in the store"))),
        }
    }

    pub(crate) fn next_run_number(&mut self, tx: &mut dyn Statements) -> Result<i64> {
        let number = match self.next_run {
            Some(number) => number,
            None => {
                let sql = "SELECT coalesce(max(run_no), 0) + 1 FROM run";
                one(all(tx, sql, &[], |row| row.int(0))?)?
            }
        };
        self.next_run = Some(number + 1);
        Ok(number)
    }

    /// After a commit: finished runs hardly ever change again.
    pub(crate) fn forget_finished(&mut self, runs: &[kobza_model::RunRow]) {
        for row in runs.iter().filter(|row| row.state.is_finished()) {
            self.runs.remove(&row.run);
        }
        if self.runs.len() > RUNS_REMEMBERED {
            self.runs.clear();
        }
    }
}

fn one<T>(rows: Vec<T>) -> Result<T> {
    rows.into_iter().next().ok_or_else(|| StoreError("a row that was just written is gone".into()))
}

/// Keeps the number of runs of a workflow in a state.
pub(crate) fn count_run(
    tx: &mut dyn Statements,
    workflow: i64,
    state: RunState,
    by: i64,
) -> Result<()> {
    let sql = "INSERT INTO run_total (workflow_no, state, runs) VALUES (?1, ?2, ?3)
               ON CONFLICT (workflow_no, state) DO UPDATE SET
                  runs = run_total.runs + excluded.runs";
    tx.execute(sql, &[workflow.into(), (state as i64).into(), by.into()]).map(drop)
}

/// Keeps the number of runs of a namespace that ended in an hour.
pub(crate) fn count_ended(
    tx: &mut dyn Statements,
    memory: &mut Memory,
    namespace: &str,
    (hour, state): (i64, RunState),
    by: i64,
) -> Result<()> {
    let namespace = memory.word(tx, namespace)?;
    let sql = "INSERT INTO run_hour (namespace, hour, state, runs) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (namespace, hour, state) DO UPDATE SET
                  runs = run_hour.runs + excluded.runs";
    let values = [namespace.into(), hour.into(), (state as i64).into(), by.into()];
    tx.execute(sql, &values).map(drop)
}

/// Replaces the index rows of a run's labels.
pub(crate) fn relabel(
    tx: &mut dyn Statements,
    run: i64,
    created_at: kobza_model::Timestamp,
    before: Option<&str>,
    now: &kobza_model::Json,
) -> Result<()> {
    let before = crate::codec::json_value(before)?;
    for (key, value) in crate::labels::pairs(&before) {
        let sql = "DELETE FROM run_label
                   WHERE key = ?1 AND value = ?2 AND created_at = ?3 AND run_no = ?4";
        tx.execute(sql, &[key.into(), value.into(), created_at.0.into(), run.into()])?;
    }
    for (key, value) in crate::labels::pairs(now) {
        let sql = "INSERT INTO run_label (key, value, created_at, run_no)
                   VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        tx.execute(sql, &[key.into(), value.into(), created_at.0.into(), run.into()])?;
    }
    Ok(())
}
