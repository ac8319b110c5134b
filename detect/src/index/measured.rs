//! Which of a rule's witnesses the fewest records have: measured on what comes.
//!
//! Some of the first records are asked for every alternative of every witness. When enough were, each rule is put where
//! its best witness says, once and for good: another rule set is measured anew. What is measured changes which rules are
//! asked in vain, never what is found, so it may be of a few records, and of whichever come first.

use schemas::Event;

use super::{Bucket, Known, Places, Probe};

/// Every so many records one is measured: it is asked for all there is, where others are asked for what may be.
pub(super) const EVERY: usize = if cfg!(test) { 1 } else { 32 };

/// So many are measured. A text that one in a hundred records has was seen then, nearly always.
const SAMPLES: usize = if cfg!(test) { 4 } else { 512 };

/// How often alternatives were seen so far.
#[derive(Debug)]
pub(super) struct Measuring {
    detections: Vec<Known>,
    /// All alternatives, by their number.
    bucket: Bucket,
    /// Of each detection, the number of its first.
    firsts: Vec<usize>,
    /// By number.
    seen: Vec<u64>,
    samples: usize,
}

impl Measuring {
    /// None where there is nothing to choose.
    pub fn new(detections: Vec<Known>) -> Option<Measuring> {
        let (mut bucket, mut firsts, mut count) = (Bucket::default(), Vec::with_capacity(detections.len()), 0);
        for known in &detections {
            firsts.push(count);
            // Of those with one witness nothing need be known.
            if let Some(witness) = known.witness.as_ref().filter(|witness| witness.is_several()) {
                witness.each(&mut |(field, needle)| {
                    bucket.add(field, needle, count);
                    count += 1;
                });
            }
        }
        (count > 0).then(|| Measuring { detections, bucket, firsts, seen: vec![0; count], samples: 0 })
    }

    /// Measures a record.
    pub fn take_in(&mut self, event: &Event) {
        let mut probe = Probe::new(event, self.seen.len());
        self.bucket.ask(&mut probe);
        probe.found.each_once().into_iter().for_each(|number| self.seen[number] += 1);
        self.samples += 1;
    }

    pub fn is_enough(&self) -> bool {
        self.samples >= SAMPLES
    }

    /// Where the detections are found after what was measured.
    pub fn places(&self) -> Places {
        let seen = |detection: usize, place: usize| self.seen.get(self.firsts[detection] + place).copied();
        Places::new(&self.detections, |detection, place| seen(detection, place).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::admit::tests::event;
    use crate::matcher::Matcher;
    use crate::rule::{RuleSet, Source, Tuning};

    #[test]
    fn a_rule_is_known_by_what_is_rare_and_not_by_what_is_long() {
        let text = "title: R\nid: r\nlogsource: {product: m365}\ndetection:\n  s:\n    Operation: Send\n    \
                    ClientInfoString|contains: Client=OWA;Action=ViaProxy\n    Subject|contains: bill\n  condition: s\n";
        let rules =
            RuleSet::load(vec![Source { file: "r.yml".into(), text: text.into() }], &Tuning::default()).unwrap();
        let matcher = Matcher::new(rules, BTreeMap::new());
        let sent = |subject: &str| {
            event(&format!(
                r#"{{"Id":"1","CreationTime":"2026-10-05T08:00:00","Operation":"Send","ClientInfoString":"Client=OWA;Action=ViaProxy","Subject":"{subject}"}}"#
            ))
        };
        assert_eq!(matcher.candidates(&sent("lunch")).count(), 1, "guessed by the longer text");
        for _ in 0..super::SAMPLES {
            matcher.candidates(&sent("lunch")).for_each(drop);
        }
        assert_eq!(matcher.candidates(&sent("lunch")).count(), 0, "measured: all records have that");
        assert_eq!(matcher.candidates(&sent("a bill")).count(), 1);
    }
}
