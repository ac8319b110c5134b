//! Ten attacks in the month: the truth that the rule pack is measured against.
//!
//! Guarantee: each tale is a chain of named steps in the order of time, by one attacker, on the accounts it names, and
//! all its records lie inside the month. Attackers differ in what they come with: a Linux machine at a hosting company,
//! the victim's own system behind somebody's home connection, a telephone, IPv6, or nothing of their own at all.

mod plots;

use chrono::{DateTime, TimeDelta, Utc};

use crate::dice::Dice;
use crate::month::{Edit, Month, is_resting, opening};
use crate::people::{Browser, Person, Session};
use crate::records::entra::{self, Outcome};
use crate::records::mailbox::{self, Access, BindShape, Client, INBOX, Message};
use crate::{Record, Step};

/// One attack.
#[derive(Debug, Clone)]
pub struct Tale {
    pub name: &'static str,
    /// Accounts that the attacker held.
    pub victims: Vec<String>,
    pub steps: Vec<Step>,
    pub(crate) records: Vec<Record>,
}

/// Tales begin when baselines have seen two weeks, and have a day or two each.
const FIRST_DAY: u64 = 14;

type Plot = fn(&mut Telling<'_>);

pub(crate) fn tell(month: &Month) -> Vec<Tale> {
    plots::PLOTS.iter().enumerate().map(|(number, plot)| Telling::tell(month, number, plot)).collect()
}

struct Telling<'m> {
    month: &'m Month,
    dice: Dice,
    at: DateTime<Utc>,
    victim: &'m Person,
    session: Session,
    tale: Tale,
}

impl<'m> Telling<'m> {
    fn tell(month: &'m Month, number: usize, plot: &plots::Entry) -> Tale {
        let mut dice = Dice::new(month.seed, "tale", number as u64);
        let mut day = FIRST_DAY + number as u64 * 13 / 10;
        while is_resting(day) {
            day += 1;
        }
        let victim = match plot.administrator {
            Some(number) => month.administrator(number),
            None => &month.office.staff[20 + number * 47 + dice.index(40)],
        };
        let session = Session { id: dice.guid(), ip: (plot.address)(&mut dice), browser: victim.browser };
        // Some work by day, some by night.
        let at = opening(day) + TimeDelta::minutes(dice.between(-240, 560));
        let tale =
            Tale { name: plot.name, victims: vec![victim.user_name.clone()], steps: Vec::new(), records: Vec::new() };
        let mut telling = Telling { month, dice, at, victim, session, tale };
        (plot.play)(&mut telling);
        telling.tale
    }

    /// What the attacker browses with; without it, the same as the victim.
    fn with(&mut self, browser: &'static Browser) {
        self.session.browser = browser;
    }

    fn wait(&mut self, low: i64, high: i64) {
        self.at += TimeDelta::minutes(self.dice.between(low, high));
    }

    fn step(&mut self, name: &'static str, mut records: Vec<Record>) {
        for record in &mut records {
            record.malicious = true;
        }
        self.tale.steps.push(Step { name, record_ids: records.iter().map(|record| record.id.clone()).collect() });
        self.tale.records.append(&mut records);
        self.wait(4, 25);
    }

    fn signed(&mut self, person: &Person, outcome: &Outcome, seconds: i64) -> Record {
        let (tenant, flow) = (&self.month.office.tenant, self.dice.guid());
        let at = self.at + TimeDelta::seconds(seconds);
        entra::sign_in(tenant, &mut self.dice, at, (person, &self.session), outcome, &flow)
    }

    fn sign_in(&mut self) {
        let records = [&entra::SECOND_FACTOR_DEMANDED, &entra::KEPT_SIGNED_IN, &entra::SIGNED_IN]
            .into_iter()
            .enumerate()
            .map(|(turn, outcome)| self.signed(self.victim, outcome, turn as i64 * 11))
            .collect();
        self.step("sign-in", records);
    }

    fn read(&mut self, person: &Person, client: Client<'_>, count: i64) -> Vec<Record> {
        let session = self.session.clone();
        let access = Access { person, session: &session, client };
        let mut records = Vec::new();
        for turn in 0..count {
            let at = self.at + TimeDelta::minutes(turn * 2);
            let messages = self.month.messages(&mut self.dice, 10, 40);
            let folders = [(INBOX, messages)];
            let tenant = &self.month.office.tenant;
            records.push(mailbox::bind(tenant, &mut self.dice, at, access, BindShape::Newer, &folders));
        }
        self.at += TimeDelta::minutes(count * 2);
        records
    }

    fn send(&mut self, count: i64, subject: &str) {
        let session = self.session.clone();
        let access = Access { person: self.victim, session: &session, client: Client::Web };
        let mut records = Vec::new();
        for turn in 0..count {
            let message = Message::new(&mut self.dice, subject);
            let at = self.at + TimeDelta::seconds(turn * 6);
            records.push(mailbox::send(&self.month.office.tenant, &mut self.dice, at, access, &message));
        }
        self.at += TimeDelta::seconds(count * 6);
        self.step("mail sent", records);
    }

    fn cmdlet(&mut self, name: &'static str, what: (&str, &str), parameters: &[(&str, &str)]) {
        let who = (self.victim, self.session.ip.as_str(), self.session.id.as_str());
        let record = self.month.cmdlet(&mut self.dice, self.at, who, what, parameters);
        self.step(name, vec![record]);
    }

    fn edit(&mut self, name: &'static str, edits: Vec<Edit<'_>>) {
        let (ip, browser) = (self.session.ip.clone(), self.session.browser);
        let mut records = Vec::new();
        for (turn, edit) in edits.into_iter().enumerate() {
            let at = self.at + TimeDelta::seconds(turn as i64 * 7);
            let edit = edit.from(&ip).with(browser);
            records.push(self.month.edit(&mut self.dice, at, self.victim, edit));
        }
        self.step(name, records);
    }
}
