//! Why a rule finds something in some records, or does not: what each line asked and what the record has, what would have
//! to be otherwise, and for a window how far it came ("7 of 10").
//!
//! Pure: records in, a page of text out. Whether a record is selected, counted or found is asked of the matcher and of
//! [`Offline`], never decided here. Values of records are escaped: nothing in them acts on a terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::Event;
use schemas::envelope::Received;
use schemas::event::NotARecord;
use schemas::message::{Match, MatchMessage};
use schemas::text::escape_controls;

use crate::matcher::Matcher;
use crate::offline::Offline;
use crate::rule::model::{Sequence, Step};
use crate::rule::trace::{Joined, Trace, Traced};
use crate::rule::{Kind, Operator, Rule};

/// Most records that are explained at once: one story, not an archive. How far a sequence came is computed naively, each
/// record against each other.
pub const RECORDS_MAX: usize = 2_000;

/// Most groups of a correlation that are told, those that came farthest first, and most findings.
const GROUPS_SHOWN_MAX: usize = 5;
const FINDINGS_SHOWN_MAX: usize = 5;

/// The page for a rule and some records.
pub fn explain(matcher: &Matcher, rule: &Rule, records: &[Received]) -> Result<String, NotARecord> {
    let events = records.iter().map(Event::read).collect::<Result<Vec<_>, _>>()?;
    let mut offline = Offline::new(matcher.rules(), matcher);
    offline.feed(records)?;
    // What is shown is the whole story.
    offline.complete(DateTime::<Utc>::MAX_UTC);
    let mut page = Page { out: String::new(), matcher, rule, events: &events };
    page.head();
    match &rule.kind {
        Kind::Detection(_) => page.detection(rule, ""),
        Kind::Correlation { members, .. } => {
            let names: BTreeSet<&str> = members.iter().map(|member| member.rule.as_str()).collect();
            names.iter().filter_map(|name| matcher.rules().find(name)).for_each(|member| page.detection(member, "  "));
            page.windows();
        }
    }
    page.findings(&offline);
    Ok(page.out)
}

struct Page<'a> {
    out: String,
    matcher: &'a Matcher,
    rule: &'a Rule,
    events: &'a [Event],
}

impl Page<'_> {
    /// One line, with nothing in it that acts.
    fn say(&mut self, indent: &str, text: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.out, "{indent}{}", escape_controls(text));
    }

    fn head(&mut self) {
        let rule = self.rule;
        self.say("", &format!("rule     {}: {} ({}:{})", rule.name, rule.title, rule.file, rule.line));
        match self.events {
            [event] => self.say("", &format!("record   {}", named(event))),
            events => self.say("", &format!("records  {}", events.len())),
        }
        if !rule.generates {
            self.say("", "note     it makes no findings by itself: it serves the correlations that refer to it");
        }
    }

    /// What a detection rule makes of the records: of one all there is to say, of many the one that came nearest.
    fn detection(&mut self, rule: &Rule, indent: &str) {
        let Some(detection) = rule.detection() else { return };
        let traced: Vec<Traced> = self.events.iter().map(|event| detection.trace(event)).collect();
        let selected = traced.iter().filter(|traced| traced.whole.holds).count();
        self.say("", "");
        let name = if rule.id == self.rule.id { "it".to_owned() } else { rule.name.clone() };
        let nearest = traced.iter().enumerate().min_by_key(|(_, traced)| traced.whole.distance(true));
        let Some((position, nearest)) = nearest else { return };
        let event = &self.events[position];
        if self.events.len() == 1 {
            let verb = if selected == 1 { "selects" } else { "does not select" };
            self.say(indent, &format!("{name} {verb} the record: {}", nearest.condition));
        } else {
            self.say(indent, &format!("{name} selects {selected} of {}: {}", self.events.len(), nearest.condition));
            if selected == 0 {
                self.say(indent, &format!("nearest to it is {}", named(event)));
            }
        }
        if selected == 0 || self.events.len() == 1 {
            let deeper = format!("{indent}  ");
            nearest.searches.iter().for_each(|search| self.trace(search, &deeper));
            if selected == 0 {
                self.say(indent, "it would, if:");
                self.changes(&nearest.whole, true, &deeper);
            }
        }
        self.withheld(rule, indent);
    }

    fn trace(&mut self, trace: &Trace, indent: &str) {
        let answer = if trace.holds { "yes" } else { "no " };
        let deeper = format!("{indent}  ");
        let joined = match trace.joined {
            Joined::AtLeast(least) => format!("at least {least} of:"),
            Joined::All if trace.said.is_empty() => "all of:".to_owned(),
            _ => String::new(),
        };
        let said = [trace.said.as_str(), &joined].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        let lone = trace.said.is_empty() && trace.parts.len() == 1;
        if !lone {
            self.say(indent, &format!("{answer}  {}", said.join(", ")));
        }
        if let Some(found) = &trace.found {
            self.say(indent, &format!("       {found}"));
        }
        // A search that is one map needs no line of its own for it.
        let parts = match trace.parts.as_slice() {
            [only] if only.said.is_empty() && only.joined == Joined::All => &only.parts[..],
            parts => parts,
        };
        parts.iter().for_each(|part| self.trace(part, if lone { indent } else { &deeper }));
    }

    /// What would have to be otherwise.
    fn changes(&mut self, trace: &Trace, wanted: bool, indent: &str) {
        if trace.holds == wanted {
            return;
        }
        let deeper = format!("{indent}  ");
        let turned: Vec<&Trace> = trace.parts.iter().filter(|part| part.holds != wanted).collect();
        let held = trace.parts.iter().filter(|part| part.holds).count();
        let needed = match (trace.joined, wanted) {
            (Joined::Line, _) => {
                let not = if wanted { "" } else { "not " };
                return self.say(indent, &format!("{not}{}", trace.said));
            }
            (Joined::Not, _) => return trace.parts.iter().for_each(|part| self.changes(part, !wanted, indent)),
            (Joined::All, true) => turned.len(),
            (Joined::All, false) => 1,
            (Joined::AtLeast(least), true) => least.saturating_sub(held),
            (Joined::AtLeast(least), false) => (held + 1).saturating_sub(least),
        };
        if needed >= turned.len() {
            turned.iter().for_each(|part| self.changes(part, wanted, indent));
        } else {
            self.say(indent, &format!("{needed} of:"));
            turned.iter().for_each(|part| self.changes(part, wanted, &deeper));
        }
    }

    /// Why records that are selected do not count: exceptions, and domains that are inside.
    fn withheld(&mut self, rule: &Rule, indent: &str) {
        let Some(detection) = rule.detection() else { return };
        let selected: Vec<&Event> =
            self.events.iter().filter(|event| detection.matches(event, &mut Default::default())).collect();
        let rules = self.matcher.rules().clone();
        for id in BTreeSet::from([&rule.id, &self.rule.id]) {
            for (_, exception) in rules.exceptions_of(id) {
                let taken = selected.iter().filter(|event| exception.excludes(event)).count();
                if taken > 0 {
                    let text = format!("an exception of {} takes away {taken}: {}", exception.owner, exception.reason);
                    self.say(indent, &text);
                }
            }
        }
        let inside = selected.iter().filter(|event| self.matcher.names_nothing_outside(rule, event)).count();
        if inside > 0 {
            self.say(indent, &format!("{inside} of them name no domain that is outside the tenant, and do not count"));
        }
    }

    /// How far the windows of a correlation came.
    fn windows(&mut self) {
        let mut groups: BTreeMap<Vec<String>, Vec<Match>> = BTreeMap::new();
        let mut keyless = 0;
        for event in self.events {
            let mut out = Vec::new();
            keyless += usize::from(self.matcher.naive(event, &mut out).dropped.contains(&self.rule.id));
            for message in out {
                if let MatchMessage::Match(matched) = message
                    && matched.rule_id == self.rule.id
                {
                    groups.entry(matched.group.clone()).or_default().push(matched);
                }
            }
        }
        self.say("", "");
        if keyless > 0 {
            let keys = self.rule.group_by.join(", ");
            let text = format!(
                "selected and left out: {keyless}, because they have no value for the group ({keys}), or none to compare"
            );
            self.say("", &text);
        }
        self.say("", &format!("asked of each group: {}", asked(self.rule)));
        let mut told: Vec<(f64, String)> = groups.into_iter().map(|(key, group)| self.group(&key, group)).collect();
        told.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        if told.is_empty() {
            self.say("", "no record counts for any group");
        }
        let more = told.len().saturating_sub(GROUPS_SHOWN_MAX);
        for (_, text) in told.into_iter().take(GROUPS_SHOWN_MAX) {
            self.say("  ", &text);
        }
        if more > 0 {
            self.say("  ", &format!("and {more} more groups that came less far"));
        }
    }

    /// How far one group came, as a share and in words.
    fn group(&self, key: &[String], mut group: Vec<Match>) -> (f64, String) {
        group.sort_by(|a, b| (a.event_time, &a.event_id).cmp(&(b.event_time, &b.event_id)));
        let parts = self.rule.group_by.iter().zip(key).map(|(name, value)| format!("{name} '{value}'"));
        let name = parts.collect::<Vec<_>>().join(", ");
        let name = if name.is_empty() { "all".to_owned() } else { name };
        let timespan = self.rule.operator.timespan();
        let peak = |keys: &dyn Fn(&Match) -> Vec<(String, u64)>| peak(&group, timespan, keys);
        let (seen, wanted) = match &self.rule.operator {
            _ if !self.rule.stages.is_empty() => return (0.0, format!("{name}: {}", counted(&group))),
            Operator::EventCount { at_least, .. } => (peak(&|one| vec![(one.event_id.clone(), one.weight)]), *at_least),
            Operator::ValueCount { at_least, .. } => {
                (peak(&|one| one.values.iter().map(|value| (value.to_lowercase(), 1)).collect()), *at_least)
            }
            Operator::Temporal { at_least, .. } => (peak(&|one| vec![(one.member.clone(), 1)]), *at_least as u64),
            Operator::TemporalOrdered(sequence) => (in_order(&group, sequence), sequence.steps.len() as u64),
            _ => return (0.0, format!("{name}: {}", counted(&group))),
        };
        let times = format!("between {} and {}", moment(seen.first), moment(seen.last));
        let text = format!("{name}: {} of {wanted} seen within {}, {times}", seen.amount, spelt(timespan));
        (seen.amount as f64 / wanted.max(1) as f64, text)
    }

    fn findings(&mut self, offline: &Offline<'_>) {
        let mut findings: Vec<_> = offline.standing().filter(|finding| finding.rule.id == self.rule.id).collect();
        findings.sort_by_key(|finding| (finding.first_event, &finding.id));
        self.say("", "");
        match findings.len() {
            0 => self.say("", "no finding"),
            1 => self.say("", "1 finding:"),
            count => self.say("", &format!("{count} findings:")),
        }
        for finding in findings.iter().take(FINDINGS_SHOWN_MAX) {
            self.say("  ", &finding.reason);
            finding.notes.iter().for_each(|note| self.say("    ", &format!("note: {note}")));
        }
    }
}

fn named(event: &Event) -> String {
    let text = |id| event.text(id).unwrap_or("-");
    let (operation, user) = (text(schemas::field::OPERATION), text(schemas::field::USER_ID));
    format!("{} {operation} by {user} at {} UTC", event.id(), moment(event.time()))
}

fn moment(time: DateTime<Utc>) -> String {
    time.format("%F %T").to_string()
}

/// `1d 2h`, `10m`.
fn spelt(length: TimeDelta) -> String {
    let mut rest = length.num_seconds();
    let mut parts = Vec::new();
    for (unit, seconds) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest >= seconds {
            parts.push(format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// What an operator asks, in words.
fn asked(rule: &Rule) -> String {
    let within = spelt(rule.operator.timespan());
    match &rule.operator {
        Operator::Each | Operator::Outside => "each record that counts".to_owned(),
        Operator::EventCount { at_least, .. } => format!("records that weigh {at_least} within {within}"),
        Operator::ValueCount { at_least, .. } => format!("{at_least} distinct values within {within}"),
        Operator::Temporal { at_least, .. } => format!("records of {at_least} distinct rules within {within}"),
        Operator::TemporalOrdered(sequence) => {
            let steps: Vec<String> = sequence.steps.iter().map(asked_of_step).collect();
            format!("{} in this order within {within}", steps.join(", "))
        }
        Operator::Aggregate(_) => format!("a measure within its bounds, within {within}"),
        Operator::NewValue(new) => {
            let least = new.least.as_ref().map(|least| {
                let of = if least.of.is_empty() { String::new() } else { format!(" of {}", least.of.join(", ")) };
                format!("; and {} such records{of}, nearer than {}", least.events, spelt(rule.gap))
            });
            format!(
                "a value that was on none of the {} days before{}; the history must begin {} days before and have {} days \
                 with records{}",
                new.history_days,
                match new.known_after_days {
                    0 | 1 => String::new(),
                    days => format!(" (the last {} days do not count)", days - 1),
                },
                new.min_days,
                new.min_days_seen,
                least.unwrap_or_default()
            )
        }
        Operator::Absence(absence) => format!("none of {} within {within} after it", absence.expect.join(", ")),
        Operator::Travel(travel) => format!(
            "two places {} km apart or more, nearer in time than {} km/h allow, within {within}",
            travel.distance_km, travel.speed_kmh
        ),
        Operator::Spike(spike) => format!(
            "a weight of {} within {within}, far above the {} days before; without {} days of history a weight of {}",
            spike.floor, spike.history_days, spike.min_days, spike.cold_floor
        ),
    }
}

/// A step of a sequence, with what it shares and how long nothing counts after it.
fn asked_of_step(step: &Step) -> String {
    let same = step.same.as_ref().map(|field| format!(" with the same {field}")).unwrap_or_default();
    let pause = if step.pause.is_zero() { String::new() } else { format!(" and a pause of {}", spelt(step.pause)) };
    format!("{}{same}{pause}", step.rule)
}

fn counted(group: &[Match]) -> String {
    let weight: u64 = group.iter().fold(0, |sum, one| sum.saturating_add(one.weight));
    let members: BTreeSet<&str> = group.iter().map(|one| one.member.as_str()).collect();
    let members: Vec<&str> = members.into_iter().collect();
    format!("{} records that weigh {weight}, of {}", group.len(), members.join(", "))
}

/// The best that any window saw.
struct Seen {
    amount: u64,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
}

impl Seen {
    fn none() -> Seen {
        Seen { amount: 0, first: DateTime::UNIX_EPOCH, last: DateTime::UNIX_EPOCH }
    }

    fn best(self, other: Seen) -> Seen {
        if other.amount > self.amount { other } else { self }
    }
}

/// The window in which the distinct keys weigh most; of one key's weights the heaviest counts.
fn peak(group: &[Match], timespan: TimeDelta, keys: &dyn Fn(&Match) -> Vec<(String, u64)>) -> Seen {
    let keys: Vec<Vec<(String, u64)>> = group.iter().map(keys).collect();
    let mut best = Seen::none();
    let mut window = Window::default();
    let mut left = 0;
    for (right, one) in group.iter().enumerate() {
        keys[right].iter().for_each(|(key, weight)| window.enter(key, *weight));
        while one.event_time - group[left].event_time > timespan {
            keys[left].iter().for_each(|(key, weight)| window.leave(key, *weight));
            left += 1;
        }
        best = best.best(Seen { amount: window.amount, first: group[left].event_time, last: one.event_time });
    }
    best
}

/// Each key's weights in a window, how often each stands there, and the sum of the heaviest.
#[derive(Default)]
struct Window<'a> {
    weights: BTreeMap<&'a str, BTreeMap<u64, usize>>,
    amount: u64,
}

impl<'a> Window<'a> {
    fn heaviest(&self, key: &str) -> u64 {
        self.weights.get(key).and_then(|weights| weights.keys().next_back().copied()).unwrap_or(0)
    }

    fn enter(&mut self, key: &'a str, weight: u64) {
        let before = self.heaviest(key);
        *self.weights.entry(key).or_default().entry(weight).or_default() += 1;
        self.amount = self.amount - before + self.heaviest(key);
    }

    fn leave(&mut self, key: &'a str, weight: u64) {
        let before = self.heaviest(key);
        if let Some(weights) = self.weights.get_mut(key)
            && let Some(times) = weights.get_mut(&weight)
        {
            *times -= 1;
            if *times == 0 {
                weights.remove(&weight);
            }
        }
        self.amount = self.amount - before + self.heaviest(key);
    }
}

/// The longest beginning of the sequence that some window holds; where steps share a value, of some value's records.
fn in_order(group: &[Match], sequence: &Sequence) -> Seen {
    if !sequence.is_shared() {
        return best_beginning(&group.iter().collect::<Vec<_>>(), sequence);
    }
    let values: BTreeSet<String> =
        group.iter().flat_map(|one| one.values.iter().map(|value| value.to_lowercase())).collect();
    let of_value = |value: &String| {
        let has = |one: &&Match| one.values.iter().any(|own| own.to_lowercase() == *value);
        let its: Vec<&Match> = group.iter().filter(|one| !sequence.shares(&one.member) || has(one)).collect();
        best_beginning(&its, sequence)
    };
    values.iter().map(of_value).fold(Seen::none(), Seen::best)
}

/// Records of one moment may stand in any order.
fn best_beginning(group: &[&Match], sequence: &Sequence) -> Seen {
    let mut best = Seen::none();
    let first = sequence.steps.first().map(|step| &step.rule);
    for (start, anchor) in group.iter().enumerate().filter(|(_, one)| Some(&one.member) == first) {
        let mut left: Vec<&Match> = group[start..].to_vec();
        // Those of the anchor's own moment that are sorted before it may follow it.
        left.extend(group[..start].iter().rev().take_while(|one| one.event_time == anchor.event_time));
        let (mut from, mut at, mut amount) = (anchor.event_time, anchor.event_time, 0);
        for step in &sequence.steps {
            let fits = |one: &&Match| {
                one.member == step.rule
                    && one.event_time >= from
                    && one.event_time - anchor.event_time <= sequence.timespan
            };
            let next = left.iter().enumerate().filter(|(_, one)| fits(one)).min_by_key(|(_, one)| one.event_time);
            let Some((position, next)) = next.map(|(position, next)| (position, *next)) else { break };
            left.swap_remove(position);
            (at, amount) = (next.event_time, amount + 1);
            from = at.checked_add_signed(step.pause).unwrap_or(at);
        }
        best = best.best(Seen { amount, first: anchor.event_time, last: at });
        if best.amount == sequence.steps.len() as u64 {
            break;
        }
    }
    best
}
