//! Match: one record against all rules. Stateless. Which detections hold is asked only of those that the index leaves
//! ([`Index`]), and only the rules made from one that holds are looked at; [`Matcher::naive`] asks all of them, and both
//! must put out the same.
//!
//! What comes out carries everything correlate needs, so that a record is looked at once: the group key, the values an
//! operator compares, the weight, the values shown. All of it is bounded, because records are written by attackers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use schemas::Event;
use schemas::field;
use schemas::json::key_id;
use schemas::message::{Match, MatchMessage, Observation};
use schemas::path::{Path, Scalar};
use schemas::tenant::Tenant;

use crate::decimal::Decimal;
use crate::index::Index;
use crate::places::Places;
use crate::rule::model::{Member, Reads};
use crate::rule::predicate::Scratch;
use crate::rule::{Kind, Rule, RuleSet};

/// Most values of one field that are shown, and the longest shown value.
const SHOWN_VALUES_MAX: usize = 10;
const SHOWN_BYTES_MAX: usize = 500;

/// Most groups one record joins: a field of the group key may have several values.
const GROUPS_MAX: usize = 64;

/// Longest part of a group key or compared value; a longer one is cut and told apart by its hash.
const KEY_BYTES_MAX: usize = 500;

/// Most values of one record that an operator compares.
const VALUES_MAX: usize = 1_000;

/// Most that one record counts for. Microsoft's own bulk records stand for thousands of items, not millions.
const WEIGHT_MAX: u64 = 1_000_000;

/// All rules, ready to be asked.
#[derive(Debug)]
pub struct Matcher {
    rules: RuleSet,
    /// Each tenant's configured domains, lower-case.
    domains: BTreeMap<Tenant, Vec<String>>,
    /// The detection rules.
    detections: Vec<Arc<Rule>>,
    index: Index,
    /// For each rule, which detections it is made from.
    parts: Vec<Parts>,
    /// For each detection, the rules that are made from it.
    users: Vec<Vec<usize>>,
    /// The rules that learn from every record.
    observers: Vec<usize>,
    /// Where addresses are; none if nobody has said.
    places: Option<Arc<dyn Places>>,
    /// Where mailbox owners are read from: Microsoft writes it, and no caller of a cmdlet can.
    owner: Path,
    mailbox: Path,
}

/// The detections, by position, that a rule asks of.
#[derive(Debug, Default)]
struct Parts {
    /// The rule itself, or the members of a correlation in their order.
    members: Vec<usize>,
    learn_from: Vec<usize>,
}

/// What of a record does not count, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// Ids of the correlations for which it counts nothing: it has no value for their group key, or none to compare.
    pub dropped: Vec<String>,
    /// The exceptions that took it from a rule: their numbers, see [`RuleSet::exceptions`].
    pub excepted: Vec<usize>,
}

/// Which detections hold for one record: their positions, in order. Most records have none, which costs nothing.
struct Selected(Vec<usize>);

impl Selected {
    fn holds(&self, position: usize) -> bool {
        self.0.binary_search(&position).is_ok()
    }

    fn any(&self, positions: &[usize]) -> bool {
        !self.0.is_empty() && positions.iter().any(|position| self.holds(*position))
    }
}

/// The domains a record names that are not known to be the tenant's own.
enum Outside {
    /// The rule does not ask.
    NotAsked,
    /// Decided by the configured domains: there is one.
    Decided,
    /// No domains are configured: these are the candidates.
    Candidates(Vec<String>),
    /// There is none: the rule does not select the record.
    Nothing,
}

impl Matcher {
    /// `domains`: what is inside, by tenant, with all subdomains. A tenant without any has none configured.
    pub fn new(rules: RuleSet, domains: BTreeMap<Tenant, Vec<String>>) -> Matcher {
        let is_detection = |rule: &&Arc<Rule>| matches!(rule.kind, Kind::Detection(_));
        let detections: Vec<Arc<Rule>> = rules.rules().iter().filter(is_detection).cloned().collect();
        let positions: BTreeMap<&str, usize> =
            detections.iter().enumerate().map(|(position, rule)| (rule.name.as_str(), position)).collect();
        let of = |names: &mut dyn Iterator<Item = &String>| -> Vec<usize> {
            names.filter_map(|name| positions.get(name.as_str()).copied()).collect()
        };
        let parts = rules.rules().iter().map(|rule| match &rule.kind {
            Kind::Detection(_) => Parts { members: of(&mut [&rule.name].into_iter()), learn_from: Vec::new() },
            Kind::Correlation { members, learn_from } => Parts {
                members: of(&mut members.iter().map(|member| &member.rule)),
                learn_from: of(&mut learn_from.iter()),
            },
        });
        let parts: Vec<Parts> = parts.collect();
        let mut users = vec![Vec::new(); detections.len()];
        for (rule, parts) in parts.iter().enumerate() {
            parts.members.iter().chain(&parts.learn_from).for_each(|position| users[*position].push(rule));
        }
        let learns = |(_, rule): &(usize, &Arc<Rule>)| rule.outside.is_some() && rule.generates;
        let observers = rules.rules().iter().enumerate().filter(learns).map(|(at, _)| at).collect();
        let index = Index::new(detections.iter().filter_map(|rule| rule.detection()));
        let lower = |names: Vec<String>| names.iter().map(|name| name.trim_matches('.').to_lowercase()).collect();
        let domains = domains.into_iter().map(|(tenant, names)| (tenant, lower(names))).collect();
        let (owner, mailbox) = (Path::parse("MailboxOwnerUPN"), Path::parse("MailboxGuid"));
        Matcher { rules, domains, detections, index, parts, users, observers, places: None, owner, mailbox }
    }

    /// The same with a table of places. Rules that ask for one count nothing without it.
    #[must_use]
    pub fn with_places(self, places: Arc<dyn Places>) -> Matcher {
        Matcher { places: Some(places), ..self }
    }

    /// Measures on these records what the rules are known by, instead of on the first that come. It changes how many are
    /// asked in vain, and nothing else.
    pub fn measure<'e>(&self, events: impl Iterator<Item = &'e Event>) {
        self.index.measure(events);
    }

    /// The rules it asks.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Appends what the rules make of a record, in epoch 0: only the log knows which it is.
    pub fn matches(&self, event: &Event, out: &mut Vec<MatchMessage>) -> Aside {
        let selected = self.selected(event, self.index.candidates(event).into_iter());
        let mut rules = self.observers.clone();
        rules.extend(selected.0.iter().flat_map(|position| &self.users[*position]));
        rules.sort_unstable();
        rules.dedup();
        self.judge(event, &selected, rules.into_iter(), out)
    }

    /// The detection rules that the index leaves in the running for a record: those that are asked.
    pub fn candidates(&self, event: &Event) -> impl Iterator<Item = &Rule> {
        self.index
            .candidates(event)
            .into_iter()
            .filter_map(|position| self.detections.get(position).map(|rule| &**rule))
    }

    /// Whether the condition of a detection rule holds for a record, exceptions and domains aside.
    pub fn holds(rule: &Rule, event: &Event) -> bool {
        rule.detection().is_some_and(|detection| detection.matches(event, &mut Scratch::default()))
    }

    /// The same, asking every rule: the meaning of [`Matcher::matches`], for comparing.
    pub fn naive(&self, event: &Event, out: &mut Vec<MatchMessage>) -> Aside {
        let selected = self.selected(event, 0..self.detections.len());
        self.judge(event, &selected, 0..self.parts.len(), out)
    }

    fn judge(
        &self,
        event: &Event,
        selected: &Selected,
        rules: impl Iterator<Item = usize>,
        out: &mut Vec<MatchMessage>,
    ) -> Aside {
        let mut aside = Aside::default();
        for (rule, parts) in rules.map(|at| (&self.rules.rules()[at], &self.parts[at])) {
            if rule.outside.is_some() && rule.generates {
                self.observe_owner(rule, event, out);
            }
            // An exception takes triggers away, never what a baseline learns: what is known stays known.
            let triggers = selected.any(&parts.members) && !self.is_excepted(&rule.id, event, &mut aside);
            match &rule.kind {
                Kind::Detection(_) if triggers && rule.generates => self.by_itself(rule, event, out),
                Kind::Detection(_) => {}
                // One that only serves others is judged inside them.
                Kind::Correlation { .. } if !rule.generates => {}
                Kind::Correlation { members, .. } => {
                    for (member, position) in members.iter().zip(&parts.members) {
                        let counts =
                            triggers && selected.holds(*position) && self.counts(*position, member, event, &mut aside);
                        if counts && !self.emit(rule, member, event, out) {
                            aside.dropped.push(rule.id.clone());
                        }
                    }
                    if selected.any(&parts.learn_from) {
                        learn(rule, event, out);
                    }
                }
            }
        }
        aside.dropped.dedup();
        aside.excepted.sort_unstable();
        aside.excepted.dedup();
        aside
    }

    /// The detections whose conditions hold, before exceptions and domains. The candidates come in order.
    fn selected(&self, event: &Event, candidates: impl Iterator<Item = usize>) -> Selected {
        let mut scratch = Scratch::default();
        let holds = |position: &usize| {
            self.detections[*position].detection().is_some_and(|detection| detection.matches(event, &mut scratch))
        };
        Selected(candidates.filter(holds).collect())
    }

    /// Whether a detection that holds counts for a correlation. Where no domains are configured every domain counts as
    /// outside: a window cannot be taken back, and unknown is never taken for inside.
    fn counts(&self, position: usize, member: &Member, event: &Event, aside: &mut Aside) -> bool {
        let rule = &self.detections[position];
        let mut on_the_way = member.through.iter().chain([&rule.id]);
        !on_the_way.any(|id| self.is_excepted(id, event, aside))
            && !matches!(self.outside(rule, event), Outside::Nothing)
    }

    fn is_excepted(&self, rule_id: &str, event: &Event, aside: &mut Aside) -> bool {
        let found = self.rules.exceptions_of(rule_id).find(|(_, exception)| exception.excludes(event));
        aside.excepted.extend(found.map(|(number, _)| number));
        found.is_some()
    }

    /// Whether a rule with `x-outside` leaves out a record, because no domain that it names is outside.
    pub(crate) fn names_nothing_outside(&self, rule: &Rule, event: &Event) -> bool {
        matches!(self.outside(rule, event), Outside::Nothing)
    }

    fn by_itself(&self, rule: &Rule, event: &Event, out: &mut Vec<MatchMessage>) {
        let group_by = paths(&rule.group_by);
        // A missing part of the key is an empty one: what happened is told even if nobody is named.
        let groups = groups(&group_by, event, true);
        let message = |shard, group, values| Match { values, ..message(rule, event, shard, group) };
        match self.outside(rule, event) {
            Outside::Nothing => {}
            Outside::NotAsked | Outside::Decided => {
                for group in groups {
                    let shard = shard(&group);
                    out.push(MatchMessage::Match(message(shard, group, Vec::new())));
                }
            }
            Outside::Candidates(domains) => {
                for group in groups {
                    out.push(MatchMessage::Match(message(String::new(), group, domains.clone())));
                }
            }
        }
    }

    fn outside(&self, rule: &Rule, event: &Event) -> Outside {
        let Some(path) = &rule.outside else {
            return Outside::NotAsked;
        };
        let mut values = Vec::new();
        path.select(event, &mut values);
        let named: BTreeSet<String> = values.iter().flat_map(|value| domains_in(&value.to_text())).collect();
        let configured = self.domains.get(event.tenant()).filter(|own| !own.is_empty());
        match configured {
            _ if named.is_empty() => Outside::Nothing,
            None => Outside::Candidates(named.into_iter().take(VALUES_MAX).collect()),
            Some(own) if named.iter().any(|name| !own.iter().any(|own| is_within(name, own))) => Outside::Decided,
            Some(_) => Outside::Nothing,
        }
    }

    /// Teaches an `x-outside` rule a domain that is the tenant's own: that of a mailbox owner, as the service wrote it.
    fn observe_owner(&self, rule: &Rule, event: &Event, out: &mut Vec<MatchMessage>) {
        if self.domains.get(event.tenant()).is_some_and(|own| !own.is_empty()) {
            return;
        }
        let mut owners = Vec::new();
        self.owner.select(event, &mut owners);
        let mut owners: Vec<String> = owners.iter().map(|owner| owner.to_text().into_owned()).collect();
        let by_owner = *event.get(field::LOGON_TYPE) == schemas::Value::Integer(0);
        if by_owner && self.mailbox.select(event, &mut Vec::new()) {
            owners.extend(event.text(field::USER_ID).map(str::to_owned));
        }
        let domains: BTreeSet<String> = owners.iter().flat_map(|owner| domains_in(owner)).collect();
        for value in domains {
            out.push(observation(rule, event, String::new(), value));
        }
    }

    /// Appends the matches of a correlation. False if the record has no group, or nothing to compare.
    fn emit(&self, rule: &Rule, member: &Member, event: &Event, out: &mut Vec<MatchMessage>) -> bool {
        let keys = groups(&member.group_by, event, false);
        if member.reads == Reads::Places && self.places.is_none() {
            return true;
        }
        let values = match member.reads {
            Reads::Nothing => Vec::new(),
            Reads::Texts => texts(&member.values, event),
            Reads::Numbers => numbers(&member.values, event),
            Reads::Places => self.places(&member.values, event),
        };
        if keys.is_empty() || member.reads != Reads::Nothing && values.is_empty() {
            return false;
        }
        for key in keys {
            let part = |positions: &Vec<usize>| -> Vec<String> {
                positions.iter().filter_map(|at| key.get(*at).cloned()).collect()
            };
            let (group, within) = match member.levels.split_first() {
                None => (key, Vec::new()),
                Some((outer, rest)) => (part(outer), rest.iter().map(part).chain([key.clone()]).collect()),
            };
            out.push(MatchMessage::Match(Match {
                member: member.name.clone(),
                within,
                values: values.clone(),
                weight: weight(member.weight.as_ref(), event),
                ..message(rule, event, shard(&group), group)
            }));
        }
        true
    }

    /// Where the address of the first path is, and what else tells the record's computer from others, as one text; nothing
    /// where that is not known.
    fn places(&self, paths: &[Path], event: &Event) -> Vec<String> {
        let (Some(places), Some((address, differs))) = (&self.places, paths.split_first()) else { return Vec::new() };
        let place = |address: String| places.place(address.parse::<IpAddr>().ok()?.to_canonical());
        let Some(place) = keys(address, event).into_iter().find_map(place) else { return Vec::new() };
        let differs = groups(differs, event, false).into_iter().next().unwrap_or_default();
        vec![format!("{place}|{}", shard(&differs))]
    }
}

/// The group keys of a record: one for each combination of values. None where a part is missing, unless that is an
/// empty part.
fn groups(group_by: &[Path], event: &Event, missing_is_empty: bool) -> Vec<Vec<String>> {
    let mut groups = vec![Vec::new()];
    for path in group_by {
        let mut parts = keys(path, event);
        if parts.is_empty() && missing_is_empty {
            parts.push(String::new());
        }
        let longer = |group: &Vec<String>, part: &String| group.iter().chain([part]).cloned().collect();
        groups = groups.iter().flat_map(|group| parts.iter().map(move |part| longer(group, part))).collect();
        groups.truncate(GROUPS_MAX);
    }
    groups
}

/// What a match says of a record whatever the operator.
fn message(rule: &Rule, event: &Event, shard: String, group: Vec<String>) -> Match {
    Match {
        tenant: event.tenant().clone(),
        rule_id: rule.id.clone(),
        epoch: 0,
        member: rule.name.clone(),
        shard,
        group,
        within: Vec::new(),
        event_id: event.id().to_owned(),
        content: (event.content_hash() >> 64) as u64,
        event_time: event.time(),
        received: event.received(),
        notify: event.notify(),
        values: Vec::new(),
        weight: weight(rule.weight.as_ref(), event),
        fields: shown(rule, event),
    }
}

/// What a new-value baseline learns from a record of one of its teachers.
fn learn(rule: &Rule, event: &Event, out: &mut Vec<MatchMessage>) {
    let group_by = match &rule.kind {
        // Aliases speak of the triggers; teachers are grouped by what the first of them is grouped by.
        Kind::Correlation { members, .. } => members.first().map_or(&[][..], |member| &member.group_by),
        Kind::Detection(_) => &[],
    };
    let values = texts(&rule.values, event);
    for group in groups(group_by, event, false) {
        let shard = shard(&group);
        out.extend(values.iter().map(|value| observation(rule, event, shard.clone(), value.clone())));
    }
}

fn observation(rule: &Rule, event: &Event, shard: String, value: String) -> MatchMessage {
    let (tenant, rule_id, day) = (event.tenant().clone(), rule.id.clone(), event.time().date_naive());
    MatchMessage::Observation(Observation { tenant, rule_id, epoch: 0, shard, value, day })
}

fn paths(names: &[String]) -> Vec<Path> {
    names.iter().map(|name| Path::parse(name)).collect()
}

/// The distinct values of a path as parts of keys: addresses of people in lower case, because Microsoft's services
/// disagree on their case. Null and empty ones are none.
fn keys(path: &Path, event: &Event) -> Vec<String> {
    let mut selected = Vec::new();
    path.select(event, &mut selected);
    let mut keys: Vec<String> = Vec::new();
    for scalar in selected {
        let text = scalar.to_text();
        let key = if text.contains('@') { text.to_lowercase() } else { text.into_owned() };
        let key = bounded(key);
        if !key.is_empty() && !keys.contains(&key) {
            keys.push(key);
        }
        if keys.len() >= VALUES_MAX {
            break;
        }
    }
    keys
}

/// What an operator compares: the values of one path, or each combination of the values of several as one text.
fn texts(paths: &[Path], event: &Event) -> Vec<String> {
    match paths {
        [] => Vec::new(),
        [path] => keys(path, event),
        _ => groups(paths, event, false).iter().map(|values| shard(values)).collect(),
    }
}

/// The numbers of a record, as one text: equal ones must not become one.
fn numbers(paths: &[Path], event: &Event) -> Vec<String> {
    let mut selected = Vec::new();
    for path in paths {
        path.select(event, &mut selected);
    }
    let numbers = selected.iter().take(VALUES_MAX).filter_map(Decimal::of);
    let texts: Vec<String> = numbers.map(|number| number.to_string()).collect();
    if texts.is_empty() { Vec::new() } else { vec![texts.join(" ")] }
}

fn bounded(key: String) -> String {
    if key.len() <= KEY_BYTES_MAX {
        return key;
    }
    let hash = key_id(&[&key]);
    format!("{}...{hash}", cut(&key, KEY_BYTES_MAX - hash.len() - 3))
}

/// The longest beginning of at most so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A group key as one text from which it could be read back: no two keys share a shard.
fn shard(group: &[String]) -> String {
    let escaped: Vec<String> = group.iter().map(|part| part.replace('\\', "\\\\").replace('|', "\\|")).collect();
    escaped.join("|")
}

fn weight(path: Option<&Path>, event: &Event) -> u64 {
    let Some(path) = path else {
        return 1;
    };
    let mut values = Vec::new();
    path.select(event, &mut values);
    let number = |scalar: &Scalar<'_>| match scalar {
        Scalar::Integer(integer) => Some(*integer),
        // The cast saturates, and what is beyond is capped anyway.
        Scalar::Float(float) => Some(*float as i64),
        Scalar::Text(text) => text.trim().parse().ok(),
        Scalar::Null | Scalar::Boolean(_) => None,
    };
    let numbers: Vec<i64> = values.iter().filter_map(number).collect();
    if numbers.is_empty() {
        // The record is there, even where it does not say how much it stands for.
        return 1;
    }
    let sum = numbers.iter().fold(0_i64, |sum, number| sum.saturating_add((*number).max(0)));
    sum.unsigned_abs().min(WEIGHT_MAX)
}

fn shown(rule: &Rule, event: &Event) -> BTreeMap<String, Vec<String>> {
    let mut fields = BTreeMap::new();
    for (name, path) in &rule.shown {
        let mut selected = Vec::new();
        path.select(event, &mut selected);
        let mut texts: Vec<String> = Vec::new();
        for scalar in selected.iter().filter(|scalar| **scalar != Scalar::Null) {
            let text = scalar.to_text();
            let text = cut(&text, SHOWN_BYTES_MAX);
            if texts.len() < SHOWN_VALUES_MAX && !texts.iter().any(|known| known == text) {
                texts.push(text.to_owned());
            }
        }
        if !texts.is_empty() {
            fields.insert(name.clone(), texts);
        }
    }
    fields
}

/// The domains a text names: those of the mail addresses in it, or the domain that it is. Lower-case.
fn domains_in(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-');
    let domain = |text: &str| {
        let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
        let name = text[..end].trim_matches('.').to_lowercase();
        (!name.is_empty()).then_some(name)
    };
    if text.contains('@') {
        return text.split('@').skip(1).filter_map(domain).collect();
    }
    let text = text.trim();
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_domain = text.contains('.') && text.chars().all(is_part) && last.chars().any(char::is_alphabetic);
    if is_domain { domain(text).into_iter().collect() } else { Vec::new() }
}

/// Whether a domain is another one or below it.
fn is_within(name: &str, own: &str) -> bool {
    name == own || name.strip_suffix(own).is_some_and(|before| before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_found_in_every_form_of_an_address() {
        for (text, expected) in [
            ("a@B.com", vec!["b.com"]),
            ("smtp:a@b.com;c@d.org", vec!["b.com", "d.org"]),
            ("\"X\" [SMTP:x@evil.example]", vec!["evil.example"]),
            ("evil.example", vec!["evil.example"]),
            ("203.0.113.7", vec![]),
            ("j.doe@", vec![]),
            ("alias", vec![]),
            ("/o=ExchangeLabs/cn=x", vec![]),
        ] {
            assert_eq!(domains_in(text), expected, "{text}");
        }
        assert!(is_within("mail.contoso.com", "contoso.com"));
        assert!(!is_within("evilcontoso.com", "contoso.com"));
    }

    #[test]
    fn no_two_group_keys_share_a_shard() {
        let key = |parts: &[&str]| shard(&parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        let keys = [key(&["a|b"]), key(&["a", "b"]), key(&["a\\", "b"]), key(&["a\\|b"]), key(&["a", ""]), key(&["a"])];
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
        assert_eq!(key(&["u@x"]), "u@x");
    }

    #[test]
    fn what_is_cut_stays_text_and_stays_distinct() {
        let long = "é".repeat(400);
        assert!(bounded(long.clone()).len() <= KEY_BYTES_MAX);
        assert_ne!(bounded(long.clone() + "a"), bounded(long.clone() + "b"));
        assert_eq!(cut("éé", 3), "é");
    }
}
