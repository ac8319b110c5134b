//! Which windows are to be searched, and how they shrink. Pure.
//!
//! Guarantee: the windows of a plan, together with those that were done before, cover the whole stretch without a hole;
//! cutting one gives two that cover it.

use std::collections::BTreeMap;

use chrono::{DateTime, DurationRound, SecondsFormat, TimeDelta, Utc};

use crate::ledger::{BlobRow, BlobState};

/// The first size of a window. A day of a large tenant is below the limit of a million, mostly.
pub const WINDOW: TimeDelta = TimeDelta::hours(24);

/// Smaller is not asked for: a million records in a second would be another problem.
pub const WINDOW_MIN: TimeDelta = TimeDelta::seconds(2);

/// A window whose search fails, for whatever reason, is not cut further than this: smaller ones fail as well.
pub const FAILED_WINDOW_MIN: TimeDelta = TimeDelta::hours(2);

/// From `start` up to, and not including, `end`; whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
}

/// A window to be searched, with the search that an earlier run began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Todo {
    pub window: Window,
    pub query: Option<String>,
}

impl Window {
    /// Its name in the ledger.
    pub fn id(self) -> String {
        let stamp = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        format!("{}/{}", stamp(self.start), stamp(self.end))
    }

    fn parse(id: &str) -> Option<Window> {
        let (start, end) = id.split_once('/')?;
        let window = Window { start: start.parse().ok()?, end: end.parse().ok()? };
        (window.start < window.end).then_some(window)
    }

    /// Two halves; none if they would be smaller than half of `least`.
    pub fn cut(self, least: TimeDelta) -> Option<(Window, Window)> {
        let half = TimeDelta::seconds((self.end - self.start).num_seconds() / 2);
        if half < least / 2 {
            return None;
        }
        let middle = self.start + half;
        Some((Window { end: middle, ..self }, Window { start: middle, ..self }))
    }
}

/// What is to be done for a stretch, latest first, and how many windows an earlier run has done.
pub fn plan(rows: &BTreeMap<String, BlobRow>, from: DateTime<Utc>, until: DateTime<Utc>) -> (Vec<Todo>, u64) {
    let second = |time: DateTime<Utc>| time.duration_trunc(TimeDelta::seconds(1)).unwrap_or(time);
    let (from, until) = (second(from), second(until));
    let mut known: Vec<(Window, &BlobRow)> =
        rows.iter().filter_map(|(id, row)| Some((Window::parse(id)?, row))).collect();
    known.retain(|(window, _)| window.start < until && window.end > from);
    known.sort_by_key(|(window, _)| *window);
    let (mut todo, mut done, mut at) = (Vec::new(), 0, from);
    for (window, row) in known {
        // All before `at` is spoken of already; what of this window lies behind it, only if it is done.
        if window.start < at {
            if matches!(row.state, BlobState::Committed { .. }) && window.end > at {
                at = window.end;
                done += 1;
            }
            continue;
        }
        fill(at, window.start, &mut todo);
        at = window.end;
        match &row.state {
            BlobState::Committed { .. } => done += 1,
            // A gap is asked for again: the service may know better today.
            _ => todo.push(Todo { window, query: Some(row.uri.clone()).filter(|query| !query.is_empty()) }),
        }
    }
    fill(at, until, &mut todo);
    todo.reverse();
    (todo, done)
}

/// What was searched sooner after it had happened may have been on its way still: Microsoft promises no time, and says that
/// some of it takes a day.
const SETTLED_AFTER: TimeDelta = TimeDelta::days(1);

/// The stretch, both ends in it, if all of it was searched when it had settled and every record was one; only up to where
/// that is so.
pub fn whole(
    rows: &BTreeMap<String, BlobRow>,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let unsettled = rows.iter().filter_map(|(id, row)| {
        let (window, BlobState::Committed { at, .. }) = (Window::parse(id)?, &row.state) else { return None };
        (window.end > from && window.end + SETTLED_AFTER > *at).then_some(window.start)
    });
    let until = unsettled.min().map_or(until, |start| start.min(until));
    let (todo, _) = plan(rows, from, until);
    let overlaps = |id: &str| Window::parse(id).is_some_and(|window| window.start < until && window.end > from);
    let is_rejecting = |row: &BlobRow| matches!(row.state, BlobState::Committed { rejected: 1.., .. });
    let is_whole = todo.is_empty() && !rows.iter().any(|(id, row)| overlaps(id) && is_rejecting(row));
    // A window is searched up to its end and not beyond.
    is_whole.then(|| (from, until - TimeDelta::seconds(1))).filter(|(since, until)| since <= until)
}

/// Windows for a stretch that no row speaks of, at whole days where that is possible: another run then finds the same.
fn fill(mut from: DateTime<Utc>, until: DateTime<Utc>, todo: &mut Vec<Todo>) {
    while from < until {
        let day = from.duration_trunc(WINDOW).unwrap_or(from) + WINDOW;
        let end = day.min(until);
        todo.push(Todo { window: Window { start: from, end }, query: None });
        from = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(minutes: i64) -> DateTime<Utc> {
        "2026-05-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::minutes(minutes)
    }

    fn hour(number: i64) -> DateTime<Utc> {
        at(number * 60)
    }

    fn row(window: Window, state: BlobState) -> (String, BlobRow) {
        (window.id(), BlobRow { created: window.start, expires: None, uri: String::new(), state })
    }

    fn committed() -> BlobState {
        let at = at(0);
        BlobState::Committed { records: 0, rejected: 0, bytes: 0, sha256: String::new(), at, oldest_event: None }
    }

    #[test]
    fn days_are_asked_for_latest_first_and_what_is_done_is_left_out() {
        let (todo, done) = plan(&BTreeMap::new(), at(600), at(3 * 1_440));
        let windows: Vec<String> = todo.iter().map(|todo| todo.window.id()).collect();
        assert_eq!(
            windows,
            [
                "2026-05-03T00:00:00Z/2026-05-04T00:00:00Z",
                "2026-05-02T00:00:00Z/2026-05-03T00:00:00Z",
                "2026-05-01T10:00:00Z/2026-05-02T00:00:00Z"
            ]
        );
        assert_eq!(done, 0);
        let rows = BTreeMap::from([row(todo[1].window, committed()), row(todo[2].window, BlobState::Listed)]);
        let (again, done) = plan(&rows, at(600), at(3 * 1_440));
        assert_eq!((again.len(), done), (2, 1));
    }

    #[test]
    fn a_stretch_is_whole_once_all_of_it_was_searched_and_read() {
        let rejecting = |rejected| {
            let at = hour(9 + 24);
            BlobState::Committed { records: 9, rejected, bytes: 0, sha256: String::new(), at, oldest_event: None }
        };
        let window = |from, until| Window { start: hour(from), end: hour(until) };
        let mut rows = BTreeMap::from([row(window(0, 4), rejecting(0)), row(window(6, 9), rejecting(0))]);
        assert_eq!(whole(&rows, hour(0), hour(4)), Some((hour(0), hour(4) - TimeDelta::seconds(1))));
        assert_eq!(whole(&rows, hour(3), hour(7)), None, "two hours were not searched");
        rows.extend([row(window(4, 6), BlobState::Gone { reason: String::new(), at: at(0) })]);
        assert_eq!(whole(&rows, hour(3), hour(7)), None, "two hours cannot be had");
        rows.extend([row(window(4, 6), rejecting(0))]);
        assert!(whole(&rows, hour(3), hour(7)).is_some());
        rows.extend([row(window(6, 9), rejecting(1))]);
        assert_eq!(whole(&rows, hour(3), hour(7)), None, "something could not be read");
        assert!(whole(&rows, hour(3), hour(6)).is_some(), "it lies elsewhere");
        // Searched when it had hardly happened.
        rows.extend([row(window(6, 9), rejecting(0)), row(window(4, 6), committed())]);
        assert_eq!(whole(&rows, hour(0), hour(9)), Some((hour(0), hour(4) - TimeDelta::seconds(1))));
        assert_eq!(whole(&rows, hour(4), hour(9)), None);
    }

    proptest! {
        #[test]
        fn what_is_to_do_and_what_is_done_cover_all(
            cuts in proptest::collection::vec((0_i64..60, 1_i64..40, any::<bool>()), 0..8),
            from in 0_i64..50, length in 1_i64..60,
        ) {
            let rows: BTreeMap<String, BlobRow> = cuts
                .iter()
                .map(|(start, length, done)| {
                    let window = Window { start: hour(*start), end: hour(start + length) };
                    row(window, if *done { committed() } else { BlobState::Listed })
                })
                .collect();
            let (todo, _) = plan(&rows, hour(from), hour(from + length));
            for number in from..from + length {
                let has = |window: &Window| window.start <= hour(number) && hour(number) < window.end;
                let is_todo = todo.iter().any(|todo| has(&todo.window));
                let is_done = rows.iter().any(|(id, row)| {
                    matches!(row.state, BlobState::Committed { .. }) && has(&Window::parse(id).unwrap())
                });
                prop_assert!(is_todo || is_done, "{}", hour(number));
            }
        }

        #[test]
        fn halves_cover_the_whole_and_end(seconds in 1_i64..1_000_000) {
            let mut window = Window { start: at(0), end: at(0) + TimeDelta::seconds(seconds) };
            while let Some((one, other)) = window.cut(WINDOW_MIN) {
                prop_assert_eq!((one.start, one.end, other.end), (window.start, other.start, window.end));
                prop_assert!(one.start < one.end && other.start < other.end);
                window = if one.end - one.start > other.end - other.start { one } else { other };
            }
            prop_assert!(window.end - window.start < WINDOW_MIN);
        }
    }
}
