//! Which rule set is in force: what the log says, never what a process was configured with.
//!
//! # The guarantee
//!
//! Each partition of `records` goes from one rule set to the next at one offset, whichever process works on it, however
//! often it changes hands, and every record is judged by exactly the set that is in force at its offset. So a roll-out
//! to many detectors is one change, and what was found does not depend on which of them restarted first.
//!
//! | step | by whom | what is committed |
//! |---|---|---|
//! | offered | a process that starts | its rule book, into partition 0 of `records` |
//! | decided | match of partition 0 | the next epoch: into every partition of `records`, and its book into every one of `matches` |
//! | followed | match of each partition | that it judges by this epoch from here on, into every partition of `matches` |
//! | forgotten | correlate | books that every partition of `records` has left behind |
//!
//! One decides, because several could disagree about the order of two offers. It decides by the log alone: a book that
//! is in force already changes nothing, and one that was offered before and has been replaced comes back only where the
//! offer says so. Else a detector that happens to restart in the middle of a roll-out would take everybody back. What has
//! been replaced is known by its rules as well: a tenant's domains may have been added since, and are no new rules.
//!
//! Until a log has its first rule set nothing is judged; the first then holds for what came before it as well.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use runtime::log::{Log, LogError, Output, ReadLimit, StateChange, Store, To, Topic, Txn};
use schemas::envelope::Envelope;
use schemas::message::{Followed, MatchMessage, RulesOfEpoch};
use schemas::{RuleBook, RuleText};
use serde::{Deserialize, Serialize};

use super::Error;
use super::judging_again::Behind;
use crate::matcher::Matcher;
use crate::places::Atlas;
use crate::rule::{Rule, RuleErrors, RuleSet, Source, Tuning};

/// Compiled books kept: the one in force, the one before it, and two to spare. A matcher of a thousand rules is
/// megabytes.
const COMPILED_MAX: usize = 4;

/// Names of replaced books and rules, kept to know them again.
const EARLIER_MAX: usize = 1_000;

/// Largest book. The pack is 0.4 MB; three thousand rules with their samples are about 15.
pub const BOOK_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Rows of [`Store::Rules`].
const FOLLOWING: &[u8] = b"following";
const DECIDED: &[u8] = b"decided";
const BEHIND: &[u8] = b"behind";

/// Which rules of the set in force have not been shown all of the archive yet, and how far they are, as is committed.
pub async fn rules_behind(log: &dyn Log) -> Result<Behind, Error> {
    let rows = log.look(Store::Rules).await?;
    let row = rows.into_iter().find(|(key, _)| key == BEHIND);
    row.map_or(Ok(Behind::default()), |(_, value)| read(&value))
}

/// Asks for a rule set. `again`: also if it was in force before and has been replaced since.
pub async fn offer(log: &dyn Log, book: &RuleBook, again: bool) -> Result<(), LogError> {
    let value = Envelope::RulesOffered { book: book.clone(), again }.encode();
    let output = Output { topic: Topic::Records, to: To::Partition(0), value };
    log.commit(Txn { outputs: vec![output], ..Txn::default() }).await.map(drop)
}

/// The rules of a book, without its places.
pub fn compile(book: &RuleBook) -> Result<Matcher, RuleErrors> {
    let source = |RuleText { file, text }: &RuleText| Source { file: file.clone(), text: text.clone() };
    let tuning = match &book.tuning {
        None => Tuning::default(),
        Some(tuning) => Tuning::parse(&tuning.file, &tuning.text)?,
    };
    let rules = RuleSet::load(book.files.iter().map(source).collect(), &tuning)?;
    Ok(Matcher::new(rules, book.domains.clone()))
}

/// Compiles each book once for all partitions of a process.
pub(super) struct Compiler {
    atlas: Arc<dyn Atlas>,
    compiled: Mutex<VecDeque<(String, Arc<Matcher>)>>,
}

#[cfg(test)]
impl Default for Compiler {
    fn default() -> Compiler {
        Compiler::new(Arc::new(crate::places::NoPlaces))
    }
}

impl Compiler {
    pub(super) fn new(atlas: Arc<dyn Atlas>) -> Compiler {
        Compiler { atlas, compiled: Mutex::default() }
    }

    /// As [`Compiler::matcher`], on a thread that may be busy for as long as it takes: leases are renewed meanwhile.
    async fn matcher_aside(self: &Arc<Self>, epoch: u64, book: &RuleBook) -> Result<Arc<Matcher>, Error> {
        let (compiler, book) = (self.clone(), book.clone());
        tokio::task::spawn_blocking(move || compiler.matcher(epoch, &book)).await.map_err(|_| Error::Worker)?
    }

    pub(super) fn matcher(&self, epoch: u64, book: &RuleBook) -> Result<Arc<Matcher>, Error> {
        let name = book.name();
        // Held while it compiles, so that the partitions wait for one compilation instead of making one each.
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, matcher)) = compiled.iter().find(|(known, _)| *known == name) {
            return Ok(matcher.clone());
        }
        let mut matcher = compile(book).map_err(|errors| Error::Rules { epoch, errors })?;
        if let Some(places) = &book.places {
            matcher = matcher.with_places(self.atlas.open(places)?);
        }
        let matcher = Arc::new(matcher);
        compiled.truncate(COMPILED_MAX - 1);
        compiled.push_front((name, matcher.clone()));
        Ok(matcher)
    }
}

/// A set in force.
#[derive(Clone)]
pub(super) struct InForce {
    pub(super) epoch: u64,
    pub(super) matcher: Arc<Matcher>,
}

/// The newest decision, known to match of partition 0 only.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Decided {
    epoch: u64,
    book: RuleBook,
    /// The name under which it was offered: without the domains that were in force already.
    offered: String,
    /// What has been replaced, oldest first: offers by their names, and rules by those of books without domains.
    earlier: VecDeque<String>,
}

impl Decided {
    /// The decision after an offer; none if it changes nothing.
    fn after(&self, book: RuleBook, again: bool) -> Option<Decided> {
        let before = (self.epoch > 0).then_some(&self.book);
        let (offered, rules) = (book.name(), book.rules_name());
        let book = book.over(before);
        let is_replaced = self.earlier.contains(&offered) || self.earlier.contains(&rules);
        if before.is_some_and(|before| before.name() == book.name()) || (!again && is_replaced) {
            return None;
        }
        let mut earlier = self.earlier.clone();
        // What comes back has not been replaced any more.
        earlier.retain(|name| *name != offered && *name != rules);
        let replaced = before.into_iter().flat_map(|before| [self.offered.clone(), before.rules_name()]);
        earlier.extend(replaced.filter(|name| *name != offered && *name != rules));
        while earlier.len() > EARLIER_MAX {
            earlier.pop_front();
        }
        Some(Decided { epoch: self.epoch + 1, book, offered, earlier })
    }
}

/// What match of one partition knows of rule sets, and has to commit about them.
pub(super) struct Follower {
    partition: u32,
    compiler: Arc<Compiler>,
    following: Option<InForce>,
    decided: Decided,
    /// The rules that have not been shown all of the archive; known to match of partition 0 only.
    behind: Behind,
    /// How far the log was looked through for the first rule set.
    looked: u64,
    /// What comes before all that a new set makes.
    announced: Vec<Output>,
    /// What comes after all that an old set has made, of this batch too.
    followed: Vec<Output>,
    state: Vec<StateChange>,
}

impl Follower {
    /// What is committed.
    pub(super) async fn load(log: &dyn Log, partition: u32, compiler: Arc<Compiler>) -> Result<Follower, Error> {
        let mut follower = Follower {
            partition,
            compiler,
            following: None,
            decided: Decided::default(),
            behind: Behind::default(),
            looked: 0,
            announced: Vec::new(),
            followed: Vec::new(),
            state: Vec::new(),
        };
        for (key, value) in log.scan(Store::Rules, partition, &[]).await? {
            match key.as_slice() {
                FOLLOWING => {
                    let RulesOfEpoch { epoch, book } = read(&value)?;
                    let matcher = follower.compiler.matcher_aside(epoch, &book).await?;
                    follower.following = Some(InForce { epoch, matcher });
                }
                DECIDED => follower.decided = read(&value)?,
                BEHIND => follower.behind = read(&value)?,
                _ => return Err(Error::RuleState),
            }
        }
        Ok(follower)
    }

    pub(super) fn in_force(&self) -> Option<&InForce> {
        self.following.as_ref()
    }

    /// Looks for the first rule set of a log from this offset on. False while there is none.
    pub(super) async fn begin(&mut self, log: &dyn Log, from: u64) -> Result<bool, Error> {
        self.looked = self.looked.max(from);
        loop {
            let messages = log.read(Topic::Records, self.partition, self.looked, ReadLimit::default()).await?;
            let Some(last) = messages.last() else { return Ok(false) };
            let next = last.offset + 1;
            for message in &messages {
                match Envelope::decode(&message.value) {
                    Ok(Envelope::RulesOffered { book, again }) if self.partition == 0 => {
                        self.offered(book, again);
                        let RulesOfEpoch { epoch, book } = self.newest();
                        self.compiler.matcher_aside(epoch, &book).await?;
                        self.follow(epoch, book)?;
                    }
                    Ok(Envelope::RulesInForce { epoch, book }) => {
                        self.compiler.matcher_aside(epoch, &book).await?;
                        self.follow(epoch, book)?;
                    }
                    // What is no envelope is told when its turn comes.
                    _ => {}
                }
                if self.following.is_some() {
                    return Ok(true);
                }
            }
            self.looked = next;
        }
    }

    fn newest(&self) -> RulesOfEpoch {
        RulesOfEpoch { epoch: self.decided.epoch, book: self.decided.book.clone() }
    }

    /// Decides about an offer. Offers reach partition 0 only.
    pub(super) fn offered(&mut self, book: RuleBook, again: bool) {
        let Some(decided) = self.decided.after(book, again) else { return };
        tracing::info!(event = "rule_set_decided", epoch = decided.epoch, rule_set = decided.book.name());
        self.put(DECIDED, &decided);
        self.decided = decided;
        let RulesOfEpoch { epoch, book } = self.newest();
        let value = Envelope::RulesInForce { epoch, book: book.clone() }.encode();
        self.announced.push(Output { topic: Topic::Records, to: To::Everywhere, value });
        let message = MatchMessage::Rules(RulesOfEpoch { epoch, book });
        self.announced.push(Output { topic: Topic::Matches, to: To::Everywhere, value: message.encode() });
    }

    /// Judges by this set from here on.
    pub(super) fn follow(&mut self, epoch: u64, book: RuleBook) -> Result<(), Error> {
        if self.following.as_ref().is_some_and(|following| following.epoch >= epoch) {
            return Ok(());
        }
        let matcher = self.compiler.matcher(epoch, &book)?;
        tracing::info!(event = "rule_set_followed", partition = self.partition, epoch, rule_set = book.name());
        if self.partition == 0 {
            let before = self.following.as_ref().map(|before| before.matcher.rules());
            let behind = Behind::after(&self.behind, before, matcher.rules());
            let change = self.move_behind(behind);
            self.state.extend(change);
        }
        self.put(FOLLOWING, &RulesOfEpoch { epoch, book });
        self.following = Some(InForce { epoch, matcher });
        let message = MatchMessage::Followed(Followed { partition: self.partition, epoch });
        self.followed.push(Output { topic: Topic::Matches, to: To::Everywhere, value: message.encode() });
        Ok(())
    }

    pub(super) fn behind(&self) -> &Behind {
        &self.behind
    }

    /// Notes who is behind now. The change is to be committed with what made it.
    pub(super) fn move_behind(&mut self, behind: Behind) -> Option<StateChange> {
        if self.behind == behind {
            return None;
        }
        let value = serde_json::to_vec(&behind).unwrap_or_default();
        let value = Some(value).filter(|_| !behind.rules.is_empty());
        self.behind = behind;
        Some(StateChange { store: Store::Rules, partition: self.partition, key: BEHIND.to_vec(), value })
    }

    fn put<T: Serialize>(&mut self, key: &[u8], value: &T) {
        // Texts and numbers always serialise.
        let value = Some(serde_json::to_vec(value).unwrap_or_default());
        self.state.push(StateChange { store: Store::Rules, partition: self.partition, key: key.to_vec(), value });
    }

    /// Adds what is to be committed: a set before anything that it made, and that it is followed after everything that was
    /// made by the one before, which correlate may forget then.
    pub(super) fn take_into(&mut self, txn: &mut Txn) {
        txn.outputs.splice(0..0, self.announced.drain(..));
        txn.outputs.append(&mut self.followed);
        txn.state.append(&mut self.state);
    }
}

fn read<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|_| Error::RuleState)
}

/// The sets that matches may still come from, as correlate of one partition knows them.
pub(super) struct Editions {
    partition: u32,
    compiler: Arc<Compiler>,
    sets: BTreeMap<u64, Arc<Matcher>>,
    /// The epoch that each partition of `records` has come to.
    followed: BTreeMap<u32, u64>,
}

/// Key prefixes of its rows in [`Store::Editions`].
const BOOK: u8 = b'b';
const FOLLOWED: u8 = b'f';

impl Editions {
    pub(super) async fn load(log: &dyn Log, partition: u32, compiler: Arc<Compiler>) -> Result<Editions, Error> {
        let mut editions = Editions { partition, compiler, sets: BTreeMap::new(), followed: BTreeMap::new() };
        for (key, value) in log.scan(Store::Editions, partition, &[]).await? {
            match key.first() {
                Some(&BOOK) => {
                    let RulesOfEpoch { epoch, book } = read(&value)?;
                    editions.sets.insert(epoch, editions.compiler.matcher_aside(epoch, &book).await?);
                }
                Some(&FOLLOWED) => {
                    let Followed { partition, epoch } = read(&value)?;
                    editions.followed.insert(partition, epoch);
                }
                _ => return Err(Error::RuleState),
            }
        }
        Ok(editions)
    }

    /// A rule as that epoch has it.
    pub(super) fn rule(&self, epoch: u64, id: &str) -> Option<&Arc<Rule>> {
        self.sets.get(&epoch)?.rules().get(id)
    }

    /// A rule of the newest set.
    pub(super) fn newest(&self, id: &str) -> Option<(u64, &Arc<Rule>)> {
        let (epoch, set) = self.sets.last_key_value()?;
        Some((*epoch, set.rules().get(id)?))
    }

    /// The rules of an epoch, to judge by them again.
    pub(super) fn matcher(&self, epoch: u64) -> Option<&Arc<Matcher>> {
        self.sets.get(&epoch)
    }

    /// Whether the newest set has another meaning for a rule of that epoch. Then what the old meaning makes of the last
    /// records before the change is not taken in any more: the new one is shown those records again, and a finding is
    /// told by one meaning at a time.
    pub(super) fn is_replaced(&self, epoch: u64, rule: &Rule) -> bool {
        let newest = self.sets.last_key_value().filter(|(newest, _)| **newest > epoch);
        let newest = newest.and_then(|(_, set)| set.rules().get(&rule.id));
        newest.is_some_and(|newest| newest.generates && newest.version != rule.version)
    }

    pub(super) fn add(&mut self, rules: RulesOfEpoch, out: &mut Vec<StateChange>) -> Result<(), Error> {
        self.sets.insert(rules.epoch, self.compiler.matcher(rules.epoch, &rules.book)?);
        self.put(BOOK, &rules.epoch.to_be_bytes(), Some(&rules), out);
        Ok(())
    }

    /// Notes how far a partition is, and forgets what all `partitions` have left behind.
    pub(super) fn followed(&mut self, followed: &Followed, partitions: u32, out: &mut Vec<StateChange>) {
        self.followed.insert(followed.partition, followed.epoch);
        self.put(FOLLOWED, &followed.partition.to_be_bytes(), Some(followed), out);
        if self.followed.len() < partitions as usize {
            return;
        }
        let needed = self.followed.values().copied().min().unwrap_or_default();
        for epoch in self.sets.keys().copied().take_while(|epoch| *epoch < needed).collect::<Vec<_>>() {
            self.sets.remove(&epoch);
            self.put::<RulesOfEpoch>(BOOK, &epoch.to_be_bytes(), None, out);
        }
    }

    fn put<T: Serialize>(&self, kind: u8, key: &[u8], value: Option<&T>, out: &mut Vec<StateChange>) {
        let value = value.map(|value| serde_json::to_vec(value).unwrap_or_default());
        let key = [&[kind][..], key].concat();
        out.push(StateChange { store: Store::Editions, partition: self.partition, key, value });
    }
}

#[cfg(test)]
mod tests;
