//! An endless office, record by record, for measurements over millions of records.
//!
//! Guarantee: memory does not grow with the count, event times never go back, and the mix and size of records are those
//! of the ordinary days of a [`World`](crate::World). The ninety days begin at a fixed date, so that two runs compare.

use chrono::{DateTime, TimeDelta, Utc};

use crate::Record;
use crate::dice::Dice;
use crate::office::Office;
use crate::people::Tenant;

const SPAN_SECONDS: f64 = 90.0 * 86_400.0;
/// 1 June 2026, a Monday.
const FIRST_SECOND: i64 = 1_780_272_000;
const DAY_SECONDS: i64 = 86_400;
/// Out of a hundred records, how many Microsoft's automation makes.
const AUTOMATION_PERCENT: u64 = 9;

/// `count` ordinary records of a tenant with `users` people, in event-time order over ninety days.
pub fn traffic(seed: u64, users: u32, count: usize) -> impl Iterator<Item = Record> {
    let tenant = Tenant::new("11111111-1111-1111-1111-111111111111", "contoso.example");
    let office = Office::new(seed, users, tenant);
    let mut dice = Dice::new(seed, "traffic", 0);
    (0..count).map(move |index| {
        let at = moment(index as f64 / count as f64);
        if dice.percent(AUTOMATION_PERCENT) {
            return office.automation(&mut dice, at);
        }
        let number = dice.index(office.staff.len());
        let person = office.staff.get(number).unwrap_or(&office.administrator);
        let day = at.timestamp().div_euclid(DAY_SECONDS) as u64;
        let session = office.session(person, number, day);
        office.activity(&mut dice, at, person, &session)
    })
}

/// Spreads a share of all records over the days so that most of a day's records fall into office hours.
fn moment(share: f64) -> DateTime<Utc> {
    let days = share * SPAN_SECONDS / DAY_SECONDS as f64;
    let within = days.fract();
    // A tenth before seven, eight tenths until six in the evening, a tenth after.
    let hour = match within {
        early if early < 0.1 => early / 0.1 * 7.0,
        late if late >= 0.9 => 18.0 + (late - 0.9) / 0.1 * 6.0,
        office => 7.0 + (office - 0.1) / 0.8 * 11.0,
    };
    let seconds = days.floor() as i64 * DAY_SECONDS + ((hour * 3_600.0) as i64).min(DAY_SECONDS - 1);
    DateTime::from_timestamp(FIRST_SECOND, 0).unwrap_or_default() + TimeDelta::seconds(seconds)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    #[test]
    fn is_ordered_unique_realistic_and_repeatable() {
        const COUNT: usize = 20_000;
        let records: Vec<Record> = traffic(3, 500, COUNT).collect();
        assert!(records.is_sorted_by_key(|record| record.created));
        let ids: HashSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(ids.len(), COUNT);
        let average = records.iter().map(|record| record.json.len()).sum::<usize>() / COUNT;
        assert!((1_000..1_900).contains(&average), "average size {average}");
        let days = (records[COUNT - 1].created - records[0].created).num_days();
        assert!((88..=90).contains(&days), "{days}");
        let mut types: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &records {
            *types.entry(record.content_type).or_default() += 1;
        }
        assert_eq!(types.len(), 4, "{types:?}");
        assert!(records.iter().take(500).eq(traffic(3, 500, COUNT).take(500).collect::<Vec<_>>().iter()));
    }
}
