//! Shards whose groups are hot almost at once tell, row for row of their findings, what shards tell that keep all.

use chrono::TimeDelta;
use proptest::collection::vec;
use proptest::prelude::*;
use schemas::finding::Finding;
use schemas::message::Match;

use super::super::tests::{a_match, rule};
use super::super::{Change, Past, Shard, look_back};
use super::*;
use crate::rule::model::{Sequence, Step};

const MINUTE: i64 = 60;

/// How many stories are played; more where `PROPTEST_CASES` says so.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(25)
}

/// What happens after a batch: nothing, a restart, or that everything before this minute is forgotten.
#[derive(Clone, Copy, Debug)]
enum After {
    Nothing,
    Restart,
    Forget(i64),
}

type Story = Vec<(Vec<Match>, After)>;

/// Many matches of one group within few hours, some of them variants of one id, some twice.
fn a_story() -> impl Strategy<Value = Story> {
    let one = (0..120_i64, 0..90_u64, 0..2_u64, 0..3_u64);
    // What a record says is a function of what tells it from others.
    let one = one.prop_map(|(minute, id, content, member)| Match {
        content,
        member: format!("m{member}"),
        values: vec![format!("v{}", (id + member) % 14)],
        weight: content * 3 + (id + member) % 4,
        fields: BTreeMap::from([("user".to_owned(), vec![format!("u{}", id * 7 % 40)])]),
        ..a_match(minute * MINUTE, &format!("e{id}"))
    });
    let after = prop_oneof![
        4 => Just(After::Nothing),
        2 => Just(After::Restart),
        1 => (0..120_i64).prop_map(After::Forget),
    ];
    (vec(one, 30..150), vec((1..12_usize, after), 160)).prop_flat_map(|(matches, cuts)| {
        let twice: Vec<Match> = matches.iter().step_by(4).cloned().collect();
        let all = [matches, twice].concat();
        Just(all).prop_shuffle().prop_map(move |all| {
            let mut rest = &all[..];
            let mut story = Story::new();
            for (size, after) in &cuts {
                let (batch, more) = rest.split_at((*size).min(rest.len()));
                rest = more;
                story.push((batch.to_vec(), *after));
            }
            story
        })
    })
}

fn an_operator() -> impl Strategy<Value = Operator> {
    let minutes = (0..9_i64).prop_map(TimeDelta::minutes);
    (0..5_u8, 1..12_u64, minutes).prop_map(|(which, at_least, timespan)| match which {
        0 => Operator::Each,
        1 => Operator::EventCount { at_least, timespan },
        2 => Operator::ValueCount { at_least, timespan },
        3 => Operator::Temporal { at_least: at_least as usize % 3 + 1, timespan },
        _ => {
            let step =
                |name: &str| Step { rule: name.to_owned(), same: None, pause: TimeDelta::minutes(at_least as i64 % 4) };
            Operator::TemporalOrdered(Sequence { steps: vec![step("m0"), step("m1")], timespan })
        }
    })
}

/// A shard, and what is committed of it.
struct Played {
    shard: Shard,
    crowd_from: usize,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    thinned: usize,
}

impl Played {
    fn new(crowd_from: usize) -> Played {
        let shard = Shard { crowd_from, ..Shard::default() };
        Played { shard, crowd_from, rows: BTreeMap::new(), thinned: 0 }
    }

    fn commit(&mut self, rows: &[(Vec<u8>, Option<Vec<u8>>)]) {
        for (row, value) in rows {
            match value {
                Some(value) => drop(self.rows.insert(row.clone(), value.clone())),
                None => assert!(self.rows.remove(row).is_some(), "a row goes that never was"),
            }
            self.thinned += usize::from(row[0] == b't' && value.is_some());
        }
    }

    fn loaded(&self) -> Shard {
        Shard { crowd_from: self.crowd_from, ..Shard::load(self.rows.clone()).unwrap() }
    }

    fn apply(&mut self, rule: &Rule, past: &Past<'_>, batch: &[Match]) -> Vec<Finding> {
        let after_restart = self.loaded().apply_after(rule, past, batch, &[]);
        let change = self.shard.apply_after(rule, past, batch, &[]);
        assert_eq!(after_restart, change, "a restart before this batch changes it");
        let again = self.shard.apply_after(rule, &Past { archived: &[], ..*past }, batch, &[]);
        assert_eq!(again, Change::default(), "the same batch twice changes something");
        self.commit(&change.rows);
        change.findings
    }

    fn end(&mut self, rule: &Rule, after: After, horizon: Option<DateTime<Utc>>) {
        match (after, look_back(rule), horizon) {
            (After::Restart, ..) => self.shard = self.loaded(),
            (After::Forget(_), Some(reach), Some(horizon)) => {
                let gone = self.shard.forget(reach, horizon, |_| false);
                assert_eq!(self.loaded().forget(reach, horizon, |_| false), gone);
                self.commit(&gone);
            }
            _ => {}
        }
    }
}

/// How many members became numbers, if both tell the same.
fn play(rule: &Rule, story: &Story) -> usize {
    let (mut hot, mut whole) = (Played::new(12), Played::new(usize::MAX));
    let (mut came, mut horizon): (Vec<Match>, Option<DateTime<Utc>>) = (Vec::new(), None);
    for (batch, after) in story {
        let past = Past { horizon, whole: &[], archived: &came };
        let (one, other) = (hot.apply(rule, &past, batch), whole.apply(rule, &past, batch));
        assert_eq!(one, other);
        came.extend(batch.iter().cloned());
        if let After::Forget(minute) = after {
            horizon = horizon.max(Some(a_match(minute * MINUTE, "").event_time));
        }
        hot.end(rule, *after, horizon);
        whole.end(rule, *after, horizon);
    }
    assert_eq!(whole.thinned, 0);
    hot.thinned
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_hot_group_tells_what_it_would_if_all_were_kept(operator in an_operator(), gap in 0..5_i64, story in a_story()) {
        play(&Rule { gap: TimeDelta::minutes(gap), ..rule(operator) }, &story);
    }
}

/// A minute apart, all of them in one episode: but for its ends and what it names, it is a crowd.
#[test]
fn of_a_long_episode_the_ends_and_the_first_are_whole() {
    let timespan = TimeDelta::minutes(3);
    let rule = rule(Operator::EventCount { at_least: 2, timespan });
    let mut hot = Played::new(12);
    for minute in 0..200 {
        let mut one = a_match(minute * MINUTE, &format!("e{minute}"));
        if minute == 50 {
            one.fields.insert("user".to_owned(), vec!["seen here first".to_owned()]);
        }
        hot.apply(&rule, &Past::default(), &[one]);
    }
    let group = hot.shard.groups.values().next().unwrap();
    let whole: Vec<i64> = group.members.keys().map(|key| (key.time.timestamp() - 1_790_000_000) / MINUTE).collect();
    // The first eight are named, at fifty a value is first seen, and three minutes from the end all are needed.
    assert_eq!(whole, [0, 1, 2, 3, 4, 5, 6, 7, 50, 196, 197, 198, 199]);
    assert_eq!((group.crowd.len(), hot.thinned), (187, 187));
    assert_eq!(hot.rows.keys().filter(|row| row[0] == b'm').count(), whole.len());
    let finding = hot.apply(&rule, &Past::default(), &[a_match(200 * MINUTE, "last")]).pop().unwrap();
    assert_eq!((finding.event_count, finding.evidence.len()), (201, 8));
    assert!(finding.notes[0].contains("number and weight are of all"), "{:?}", finding.notes);
    // What comes again is known, in whatever is left of it.
    assert_eq!(hot.apply(&rule, &Past::default(), &[a_match(100 * MINUTE, "e100"), a_match(0, "e0")]), []);
}
