//! What the playlist of a live stream shows, in the order in which it came to.
//!
//! A list that players follow only grows at its end (RFC 8216, 6.2.2): an entry gets its number for good when it
//! is listed, and what is done only after a later segment was listed stays out.

use headwater_protocol::TaskId;
use rusqlite::{Connection, OptionalExtension, params};

/// Lists what can be by now: segments that are done, up to the first that is still on its way. An entry that
/// does not follow on the one before it counts up `breaks`, of which players must know.
pub(super) fn advance(c: &Connection, stream: &str) -> rusqlite::Result<()> {
    let found = c
        .prepare_cached("SELECT run, listed_to, next_entry, breaks FROM streams WHERE stream=?")?
        .query_row([stream], |row| {
            let last: Option<i64> = row.get(1)?;
            Ok((row.get::<_, i64>(0)?, last, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
        })
        .optional()?;
    let Some((run, mut last, mut entry, mut breaks)) = found else { return Ok(()) };
    // With min(), SQLite takes the other columns from the row that has it: the first that was done. One that is
    // pushed again after it was done holds up nothing.
    let mut ready = c.prepare_cached(
        "SELECT segment, task, min(ended) FROM tasks
         WHERE stream=?1 AND run=?2 AND state='done' AND segment > ?3
         AND segment < coalesce((SELECT min(segment) FROM tasks AS open
             WHERE stream=?1 AND run=?2 AND state IN ('waiting','running') AND segment > ?3
             AND NOT EXISTS(SELECT 1 FROM tasks AS twin WHERE twin.stream=?1 AND twin.run=?2
                 AND twin.state='done' AND twin.segment=open.segment)), 9223372036854775807)
         GROUP BY segment ORDER BY segment",
    )?;
    let ready: Vec<(i64, String)> = ready
        .query_map(params![stream, run, last.unwrap_or(-1)], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    if ready.is_empty() {
        return Ok(());
    }
    let mut list = c.prepare_cached("UPDATE tasks SET entry=?, breaks=? WHERE task=?")?;
    for (segment, task) in ready {
        let follows = match last {
            Some(last) => segment == last + 1,
            // The first of an encoder that began anew follows on nothing.
            None => entry == 0,
        };
        breaks += i64::from(!follows);
        list.execute(params![entry, breaks, task])?;
        (last, entry) = (Some(segment), entry + 1);
    }
    c.prepare_cached(
        "UPDATE streams SET shown=run, shown_ladder=ladder, shown_resolution=resolution, listed_to=?,
         next_entry=?, breaks=? WHERE stream=?",
    )?
    .execute(params![last, entry, breaks, stream])?;
    Ok(())
}

/// The same for a task that has just ended.
pub(super) fn advance_for(c: &Connection, task: &TaskId) -> rusqlite::Result<()> {
    let stream: Option<String> = c
        .prepare_cached("SELECT stream FROM tasks WHERE task=?")?
        .query_row([task.as_str()], |row| row.get(0))
        .optional()?;
    stream.map_or(Ok(()), |stream| advance(c, &stream))
}
