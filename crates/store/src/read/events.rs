//! The event log, followed by its numbers.

use kobza_model::RunId;

use super::load::run_number;
use super::{Queries, Result, first, page_size};
use crate::{EventPage, codec};

/// Batches looked at for one page: a follower of everything may meet many small ones.
const BATCHES_AT_ONCE: usize = 1000;

pub(super) fn since(
    queries: &mut dyn Queries,
    after: u64,
    limit: u32,
    run: Option<RunId>,
) -> Result<EventPage> {
    let size = page_size(limit);
    let bounds = "SELECT (SELECT min(first_seq) FROM event_batch),
                         (SELECT next_event FROM shard WHERE shard = 0)";
    let bounds = first(queries, bounds, &[], |row| Ok((row.opt_number(0)?, row.number(1)?)))?;
    let (oldest, next): (Option<u64>, u64) = bounds.unwrap_or((None, 1));
    let newest = next.saturating_sub(1);
    let mut page = EventPage { events: Vec::new(), seen: after, oldest: oldest.unwrap_or(next) };
    let after_value = i64::try_from(after).unwrap_or(i64::MAX);
    let (sql, number) = match run {
        None => (
            format!(
                "SELECT first_seq, body FROM event_batch WHERE first_seq + count - 1 > ?1
                    AND first_seq >= coalesce(
                        (SELECT max(first_seq) FROM event_batch WHERE first_seq <= ?1), 0)
                 ORDER BY first_seq LIMIT {BATCHES_AT_ONCE}"
            ),
            None,
        ),
        Some(run) => {
            let Some(number) = run_number(queries, run)? else {
                return Ok(EventPage { seen: newest.max(after), ..page });
            };
            (
                format!(
                    "SELECT b.first_seq, b.body FROM event_of_run e
                     JOIN event_batch b ON b.first_seq = e.first_seq
                     WHERE e.run_no = ?2 AND b.first_seq + b.count - 1 > ?1
                     ORDER BY e.first_seq LIMIT {BATCHES_AT_ONCE}"
                ),
                Some(number),
            )
        }
    };
    let mut values = vec![after_value.into()];
    values.extend(number.map(super::Value::Int));
    let mut batches = 0;
    let mut full = false;
    queries.each(&sql, &values, &mut |cells| {
        batches += 1;
        if full {
            return Ok(());
        }
        let first_seq: u64 = cells.number(0)?;
        for (place, event) in codec::unpack_events(cells.blob(1)?)?.into_iter().enumerate() {
            let seq = first_seq + place as u64;
            if seq <= after || run.is_some_and(|run| event.run != Some(run)) {
                continue;
            }
            if page.events.len() == size {
                full = true;
                break;
            }
            page.seen = seq;
            page.events.push((seq, event));
        }
        Ok(())
    })?;
    if !full && batches < BATCHES_AT_ONCE {
        // Everything there is has been looked at.
        page.seen = newest.max(after);
    }
    Ok(page)
}
