//! Everything that ever happened in the fake tenant.
//!
//! Guarantee: a pure function of [`Options`]: same options, same bytes. No clock is read; all times count back from
//! `Options::end`.

use chrono::{DateTime, SubsecRound, TimeDelta, Timelike, Utc};

use crate::office::Office;
use crate::people::Tenant;
use crate::{Options, Scenario, takeover};

/// All unique records, in event-time order, and the story hidden among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    pub records: Vec<Record>,
    pub story: Story,
}

/// One audit record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub id: String,
    pub content_type: &'static str,
    /// Event time, in whole seconds as in the record.
    pub created: DateTime<Utc>,
    /// The record, in the key order Microsoft uses.
    pub json: String,
    /// Belongs to the story.
    pub malicious: bool,
}

/// The truth a detector is measured against; empty for a quiet scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Story {
    pub victim: String,
    pub attacker_ips: Vec<String>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub name: &'static str,
    pub record_ids: Vec<String>,
}

/// The last ordinary record lies this long before the end: even a fresh record needs a moment to be delivered.
const QUIET_END: TimeDelta = TimeDelta::minutes(3);
const OPENING_HOUR: i64 = 8;
/// The hour of the office's day at which the played world ends.
const CLOSING_HOUR: i64 = 17;

impl World {
    pub fn generate(options: &Options) -> World {
        let office = Office::new(options.seed, options.users, Tenant::new(&options.tenant_id, &options.domain));
        let end = options.end.trunc_subsecs(0);
        let mut records = Vec::new();
        for days_ago in (0..=i64::from(options.days)).rev() {
            let opening = opening(end) - TimeDelta::days(days_ago);
            office.day(days_ago as u64, opening, is_resting(days_ago), &mut records);
        }
        let story = match options.story {
            Scenario::Quiet => Story::default(),
            Scenario::Takeover => {
                let (mut told, story) = takeover::play(&office, options.seed, end);
                records.append(&mut told);
                story
            }
        };
        records.retain(|record| record.created <= end - QUIET_END);
        records.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        World { records, story }
    }
}

/// Eight in the morning of the story day. The office lies in the time zone where `end` is in the late afternoon, so
/// that the story plays among people at work whatever the hour it is asked for.
fn opening(end: DateTime<Utc>) -> DateTime<Utc> {
    let minutes = i64::from(end.minute());
    end - TimeDelta::minutes((CLOSING_HOUR - OPENING_HOUR) * 60 + minutes) - TimeDelta::seconds(i64::from(end.second()))
}

/// Two days in seven, counted back from the story day for the same reason: the calendar must not change the test.
fn is_resting(days_ago: i64) -> bool {
    matches!(days_ago % 7, 4 | 5)
}

#[cfg(test)]
mod tests;
