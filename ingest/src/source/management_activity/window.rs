//! Which stretch to list next. Pure.
//!
//! Guarantee: no window is wider than the service allows or reaches further back than it lets us; each reaches back over
//! the one before it, and none begins at the moment of a blob: the service answers that with a partial one.

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use url::Url;

use super::settings::Pace;
use super::skew::Moment;
use crate::ledger::FeedRow;

/// A window being listed.
#[derive(Clone, Debug)]
pub struct Window {
    pub start: DateTime<Utc>,
    /// What the cursor becomes when all of it has been listed.
    pub cursor_after: DateTime<Utc>,
    /// Whether it reaches the present.
    pub is_last: bool,
    /// The page to read; none for the first.
    pub page: Option<Url>,
    pub end: DateTime<Utc>,
    pub pages: u32,
    /// A stretch before `start` that was never listed and cannot be any more.
    pub is_behind: bool,
}

/// The next window: from the cursor less the overlap, or as far back as the service reaches.
pub fn front(row: &FeedRow, pace: &Pace, moment: Moment) -> Window {
    let floor = moment.high - pace.reach;
    let wanted = row.cursor.map_or(floor, |cursor| (cursor - pace.overlap).min(moment.low));
    // To the whole second: down, so that nothing is left out, but not over the floor.
    let start = if wanted > floor { second(wanted) } else { second(floor) + TimeDelta::seconds(1) };
    let far = start + pace.window;
    let is_last = far >= moment.low;
    // The service takes an end in the future: what is listed by either clock is listed, but counted only up to the
    // earlier one.
    let end = if is_last { second(moment.high) + TimeDelta::seconds(1) } else { far };
    let cursor_after = if is_last { moment.low } else { far };
    let is_behind = row.cursor.is_some_and(|cursor| cursor < start);
    Window { start, cursor_after, is_last, page: None, end: end.min(far), pages: 0, is_behind }
}

/// The next window of a sweep: up to the cursor, each reaching back into the one before it for the same reason as at the
/// front.
pub fn sweep(swept_to: Option<DateTime<Utc>>, cursor: DateTime<Utc>, pace: &Pace, moment: Moment) -> Window {
    let floor = second(moment.high - pace.reach) + TimeDelta::seconds(1);
    let start = swept_to.map_or(floor, |swept_to| second(swept_to - pace.overlap).max(floor));
    let far = start + pace.window;
    let is_last = far >= cursor;
    let end = if is_last { second(cursor) + TimeDelta::seconds(1) } else { far };
    // A cursor that is older than the floor leaves nothing to sweep but a second.
    let end = end.clamp(start + TimeDelta::seconds(1), far);
    Window { start, cursor_after: end, is_last, page: None, end, pages: 0, is_behind: false }
}

pub fn second(time: DateTime<Utc>) -> DateTime<Utc> {
    time.duration_trunc(TimeDelta::seconds(1)).unwrap_or(time)
}
