//! Thirty ordinary days of five hundred people, and ten attacks among them: what the rule pack is judged by.
//!
//! Guarantee: a function of the seed alone. Not yet fixed: the sha256 of seed 1 belongs into the test below before any
//! rule is judged by this month, so that the month cannot be tuned on rules. Whatever looks hostile in [`Month::day`] outside a [`Tale`] has
//! an innocent reason: a journey, a new phone, a network that changed under a running session, a mail-merge.
//!
//! Days are made one by one, because a whole month in memory would be a quarter of a gigabyte.

use chrono::{DateTime, TimeDelta, Utc};

use crate::Record;
use crate::dice::Dice;
use crate::office::Office;
use crate::people::{Browser, Person, Session, Tenant, with_port};
use crate::records::entra::{self, Change};
use crate::records::exchange::{self, FOREST, Runner};
use crate::records::mailbox::{self, Access, BindShape, Client, INBOX, Message};
use crate::records::{EXCHANGE_ONLINE_APP, sharepoint};
use crate::stories::{self, Tale};

/// 1 June 2026, a Monday.
const FIRST_SECOND: i64 = 1_780_272_000;
const USERS: u32 = 500;
const OPENING_HOUR: i64 = 7;
const WORKING_SECONDS: i64 = 9 * 3_600;
const DOMAIN: &str = "contoso.example";
/// What the company moves its old mail and files with, from day 9 to day 11.
const MIGRATION_APP: &str = "5b1f7c52-7d0e-4a52-9a0e-0d7f3c1be0a1";

static PHONES: [Browser; 2] = [
    Browser {
        agent: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.2 Mobile/15E148 Safari/604.1",
        system: "Ios",
        name: "Safari",
    },
    Browser {
        agent: "Mozilla/5.0 (Linux; Android 14; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/132.0.0.0 Mobile Safari/537.36",
        system: "Android",
        name: "Chrome",
    },
];

/// The month of one seed.
pub struct Month {
    pub(crate) office: Office,
    pub(crate) seed: u64,
    tales: Vec<Tale>,
}

impl Month {
    pub const DAYS: u64 = 30;

    pub fn new(seed: u64) -> Month {
        let tenant = Tenant::new("22222222-2222-2222-2222-222222222222", DOMAIN);
        let mut month = Month { office: Office::new(seed, USERS, tenant), seed, tales: Vec::new() };
        month.tales = stories::tell(&month);
        month
    }

    /// The tenant's own domain, for rules that ask what is outside.
    pub fn domain(&self) -> &'static str {
        DOMAIN
    }

    pub fn tales(&self) -> &[Tale] {
        &self.tales
    }

    /// All records of one day, stories included, in event-time order.
    pub fn day(&self, day: u64) -> Vec<Record> {
        let mut records = Vec::new();
        let opening = opening(day);
        for (number, person) in self.office.staff.iter().enumerate() {
            self.person_day((day, opening), number, person, &mut records);
        }
        let mut dice = Dice::new(self.seed, "month service", day);
        for _ in 0..USERS / 2 {
            let at = opening + TimeDelta::seconds(dice.between(-7 * 3_600, 16 * 3_600));
            records.push(self.office.automation(&mut dice, at));
        }
        for _ in 0..dice.between(4, 12) {
            let at = opening + TimeDelta::seconds(dice.between(0, WORKING_SECONDS));
            records.push(self.office.spam(&mut dice, at));
        }
        if !is_resting(day) {
            self.office.administration(day, opening, &mut records);
            self.help_desk(&mut dice, opening, &mut records);
            self.campaigns(&mut dice, (day, opening), &mut records);
        }
        let told = self.tales.iter().flat_map(|tale| &tale.records);
        records.extend(told.filter(|record| day_of(record.created) == day).cloned());
        records.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        records
    }

    /// Where a person works from. A journey takes half a working week, in a hotel and its country's network, with the
    /// person's own computer; every journey begins on a Monday.
    fn session(&self, person: &Person, number: usize, day: u64) -> Session {
        let usual = self.office.session(person, number, day);
        let mut journey = Dice::new(self.seed, "journey", (day / 7) << 32 | number as u64);
        if journey.percent(3) && (day % 7) < 3 {
            let ip = format!("198.18.{}.{}", journey.between(0, 200), journey.between(1, 250));
            return Session { ip, ..usual };
        }
        usual
    }

    fn person_day(
        &self,
        (day, opening): (u64, DateTime<Utc>),
        number: usize,
        person: &Person,
        records: &mut Vec<Record>,
    ) {
        let mut dice = Dice::new(self.seed, "month day", (day << 32) | number as u64);
        if is_resting(day) && dice.percent(85) {
            return;
        }
        let mut session = self.session(person, number, day);
        let arrival = dice.between(0, 4_500);
        self.office.arrival(&mut dice, opening + TimeDelta::seconds(arrival), (person, &session), records);
        let count = if is_resting(day) { dice.between(1, 4) } else { dice.between(10, 18) };
        // Wi-Fi to cable, office to train, IPv4 to its IPv6 twin: the session lives on with another address.
        let moves = dice.percent(12);
        let step = (WORKING_SECONDS - arrival) / count;
        for turn in 0..count {
            if moves && turn == count / 2 {
                session.ip = self.other_network(&mut dice, person, number);
            }
            let at = opening + TimeDelta::seconds(arrival + 90 + turn * step + dice.between(0, step));
            records.push(self.office.activity(&mut dice, at, person, &session));
        }
        if person.has_desktop && dice.percent(6) {
            self.office.resynchronise_rules(&mut dice, opening, person, &session, records);
        }
        if number % 3 == 0 {
            self.phone(&mut dice, (day, opening), number, person, records);
        }
        if dice.percent(1) && dice.percent(40) {
            self.new_password(&mut dice, opening, (person, &session), records);
        }
    }

    fn other_network(&self, dice: &mut Dice, person: &Person, number: usize) -> String {
        match dice.index(3) {
            0 => person.office_ip.clone(),
            1 => format!("2001:db8:ff:{:x}::{:x}", number, dice.between(1, 0xffff)),
            _ => mobile_address(dice),
        }
    }

    /// A third of the staff read mail on a phone, whose operator gives it an address at every turn. On one day of the
    /// month a few have a new phone: another system, and a new method for the second factor.
    fn phone(
        &self,
        dice: &mut Dice,
        (day, opening): (u64, DateTime<Utc>),
        number: usize,
        person: &Person,
        records: &mut Vec<Record>,
    ) {
        let changed_on = Dice::new(self.seed, "new phone", number as u64).between(0, 150);
        let before = number % 2;
        let browser = &PHONES[if day as i64 >= changed_on { 1 - before } else { before }];
        let mut session = Session { id: dice.guid(), ip: mobile_address(dice), browser };
        if day as i64 == changed_on {
            let at = opening + TimeDelta::seconds(dice.between(600, 9_000));
            let operations = ["User registered security info", "User deleted security info"];
            for (turn, operation) in operations.into_iter().enumerate() {
                let at = at + TimeDelta::seconds(turn as i64 * 95);
                let ip = person.home_ip.clone();
                let edit = Edit::new(operation, "UserManagement", &person.user_name).from(&ip).on(person);
                records.push(self.edit(dice, at, person, edit));
            }
        }
        let flow = dice.guid();
        let evening = opening + TimeDelta::seconds(dice.between(11 * 3_600, 14 * 3_600));
        let outcome = if dice.percent(30) { &entra::SIGNED_IN } else { &entra::TOKEN_FETCHED };
        records.push(entra::sign_in(&self.office.tenant, dice, evening, (person, &session), outcome, &flow));
        for turn in 0..dice.between(1, 4) {
            session.ip = if dice.percent(50) { person.home_ip.clone() } else { mobile_address(dice) };
            let at = evening + TimeDelta::seconds(60 + turn * 700);
            let access = Access { person, session: &session, client: Client::Web };
            let messages = self.messages(dice, 1, 6);
            records.push(mailbox::bind(&self.office.tenant, dice, at, access, BindShape::Newer, &[(INBOX, messages)]));
        }
    }

    /// A forgotten password: some wrong ones, then the reset at the self-service page or by the help desk.
    fn new_password(
        &self,
        dice: &mut Dice,
        opening: DateTime<Utc>,
        who: (&Person, &Session),
        records: &mut Vec<Record>,
    ) {
        let (person, session) = who;
        let at = opening + TimeDelta::seconds(dice.between(0, 20_000));
        let flow = dice.guid();
        for turn in 0..dice.between(2, 5) {
            let at = at + TimeDelta::seconds(turn * 21);
            records.push(entra::sign_in(&self.office.tenant, dice, at, who, &entra::WRONG_PASSWORD, &flow));
        }
        let by_help_desk = dice.percent(50);
        let actor = if by_help_desk { &self.office.administrator } else { person };
        let ip = if by_help_desk { &self.office.administrator.office_ip } else { &session.ip };
        let operation = if by_help_desk { "Reset user password." } else { "Change user password." };
        let edit = Edit::new(operation, "UserManagement", &person.user_name).from(ip).on(person);
        records.push(self.edit(dice, at + TimeDelta::minutes(9), actor, edit));
        records.push(entra::sign_in(
            &self.office.tenant,
            dice,
            at + TimeDelta::minutes(12),
            who,
            &entra::SIGNED_IN,
            &flow,
        ));
    }

    /// What administrators do all month: guests, joiners, shared mailboxes, a role for a colleague.
    fn help_desk(&self, dice: &mut Dice, opening: DateTime<Utc>, records: &mut Vec<Record>) {
        let admin = &self.office.administrator;
        for _ in 0..dice.between(0, 4) {
            let host = &self.office.staff[dice.index(self.office.staff.len())];
            let guest = format!("visitor{}_partner.example.net#EXT#@{DOMAIN}", dice.between(1, 400));
            let at = opening + TimeDelta::seconds(dice.between(600, 30_000));
            let edit = Edit::new("Invite external user.", "UserManagement", &guest).from(&host.office_ip);
            records.push(self.edit(dice, at, host, edit));
        }
        if dice.percent(40) {
            let joiner = format!("joiner{}@{DOMAIN}", dice.between(1, 9_999));
            let at = opening + TimeDelta::seconds(dice.between(600, 30_000));
            let edit = Edit::new("Add user.", "UserManagement", &joiner).from(&admin.office_ip);
            records.push(self.edit(dice, at, admin, edit));
        }
        if dice.percent(4) {
            let person = &self.office.staff[dice.index(self.office.staff.len())];
            let at = opening + TimeDelta::seconds(dice.between(600, 30_000));
            let edit = Edit::new("Add member to role.", "RoleManagement", &person.user_name)
                .from(&admin.office_ip)
                .on(person)
                .set("Role.DisplayName", "\"Reports Reader\"");
            records.push(self.edit(dice, at, admin, edit));
        }
        if dice.percent(25) {
            let person = &self.office.staff[dice.index(self.office.staff.len())];
            let at = opening + TimeDelta::seconds(dice.between(600, 30_000));
            let parameters = [
                ("Identity", "office.mail"),
                ("User", person.user_name.as_str()),
                ("AccessRights", "FullAccess"),
                ("AutoMapping", "True"),
            ];
            let what = ("Add-MailboxPermission", "office.mail");
            records.push(self.cmdlet(dice, at, (admin, &admin.office_ip, ""), what, &parameters));
        }
        if dice.percent(8) {
            let at = opening + TimeDelta::seconds(dice.between(600, 30_000));
            let parameters = [("Name", "Legal footer"), ("ApplyHtmlDisclaimerText", "<p>Contoso</p>")];
            let what = ("New-TransportRule", "Legal footer");
            records.push(self.cmdlet(dice, at, (admin, &admin.office_ip, ""), what, &parameters));
        }
    }

    /// Much at once, for a good reason: newsletter on Tuesdays, letters to customers, a move of old mail and files.
    fn campaigns(&self, dice: &mut Dice, (day, opening): (u64, DateTime<Utc>), records: &mut Vec<Record>) {
        let tenant = &self.office.tenant;
        let mut send_many = |dice: &mut Dice, number: usize, count: i64, subject: &str| {
            let person = &self.office.staff[number];
            let session = self.session(person, number, day);
            let access = Access { person, session: &session, client: Client::Desktop };
            for turn in 0..count {
                let message = Message::new(dice, subject);
                let at = opening + TimeDelta::seconds(10_800 + turn * 3);
                records.push(mailbox::send(tenant, dice, at, access, &message));
            }
        };
        if day % 7 == 1 {
            send_many(dice, 40, 240, "What is new this week");
        }
        if matches!(day, 4 | 16 | 25) {
            send_many(dice, 77 + day as usize, 130, "Your contract: what changes in autumn");
        }
        if !(9..12).contains(&day) {
            return;
        }
        for (number, person) in self.office.staff.iter().enumerate().skip(day as usize % 9 * 40).take(40) {
            let session =
                Session { id: dice.guid(), ip: self.office.administrator.office_ip.clone(), browser: person.browser };
            let access = Access { person, session: &session, client: Client::App(MIGRATION_APP) };
            let at = opening + TimeDelta::seconds(14 * 3_600 + number as i64 * 20);
            records.push(mailbox::sync(tenant, dice, at, access, INBOX));
        }
        let mover = &self.office.staff[12];
        let session = self.session(mover, 12, day);
        for turn in 0..400 {
            let at = opening + TimeDelta::seconds(3_600 + turn * 4);
            let operation = if turn % 2 == 0 { "FileDownloaded" } else { "FileUploaded" };
            records.push(sharepoint::file(tenant, dice, at, (mover, &session), operation));
        }
    }

    pub(crate) fn messages(&self, dice: &mut Dice, low: i64, high: i64) -> Vec<Message> {
        (0..dice.between(low, high)).map(|_| Message::new(dice, "")).collect()
    }

    pub(crate) fn edit(&self, dice: &mut Dice, at: DateTime<Utc>, actor: &Person, edit: Edit<'_>) -> Record {
        let (inter, intra) = (dice.guid(), dice.guid());
        let change = Change {
            actor,
            client_ip: edit.ip,
            operation: edit.operation,
            category: edit.category,
            user_agent: edit.agent,
            object_id: edit.object_id,
            modified: edit.modified,
            target: edit.target,
            inter_systems_id: &inter,
            intra_system_id: &intra,
        };
        entra::change(&self.office.tenant, dice, at, change)
    }

    /// A cmdlet by a person: who, address, session.
    pub(crate) fn cmdlet(
        &self,
        dice: &mut Dice,
        at: DateTime<Utc>,
        (person, ip, session): (&Person, &str, &str),
        (operation, object): (&str, &str),
        parameters: &[(&str, &str)],
    ) -> Record {
        let client = with_port(ip, dice.between(40_000, 60_000));
        let runner = Runner::Human { person, client: &client, session, app_id: EXCHANGE_ONLINE_APP };
        let object = format!("{FOREST}/{}/{object}", self.office.tenant.organization);
        exchange::cmdlet(&self.office.tenant, dice, at, &runner, (operation, &object), parameters)
    }
}

/// A change of the directory, before it has a time and an actor.
pub(crate) struct Edit<'a> {
    operation: &'a str,
    category: &'a str,
    object_id: &'a str,
    ip: Option<&'a str>,
    agent: Option<&'a str>,
    modified: Vec<(&'a str, String, &'a str)>,
    target: Vec<(String, u8)>,
}

impl<'a> Edit<'a> {
    pub(crate) fn new(operation: &'a str, category: &'a str, object_id: &'a str) -> Edit<'a> {
        let target = vec![(object_id.to_owned(), 5)];
        Edit { operation, category, object_id, ip: None, agent: None, modified: Vec::new(), target }
    }

    pub(crate) fn from(mut self, ip: &'a str) -> Edit<'a> {
        self.ip = Some(ip);
        self
    }

    pub(crate) fn with(mut self, browser: &'a Browser) -> Edit<'a> {
        self.agent = Some(browser.agent);
        self
    }

    pub(crate) fn on(mut self, person: &Person) -> Edit<'a> {
        self.target = entra::target("User", &person.object_id, &[(&person.user_name, 5), (&person.puid, 3)]);
        self
    }

    pub(crate) fn at(mut self, target: Vec<(String, u8)>) -> Edit<'a> {
        self.target = target;
        self
    }

    pub(crate) fn set(mut self, name: &'a str, value: &str) -> Edit<'a> {
        self.modified.push((name, value.to_owned(), ""));
        self
    }
}

fn mobile_address(dice: &mut Dice) -> String {
    format!("198.19.{}.{}", dice.between(0, 40), dice.between(1, 250))
}

pub(crate) fn opening(day: u64) -> DateTime<Utc> {
    DateTime::from_timestamp(FIRST_SECOND, 0).unwrap_or_default()
        + TimeDelta::days(day as i64)
        + TimeDelta::hours(OPENING_HOUR)
}

fn day_of(at: DateTime<Utc>) -> u64 {
    (at.timestamp() - FIRST_SECOND).max(0) as u64 / 86_400
}

pub(crate) fn is_resting(day: u64) -> bool {
    day % 7 > 4
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use sha2::{Digest, Sha256};

    use super::*;

    /// To be written before any rule is judged by the month. Whoever changes it then looks at every rule anew.
    const SHA256_OF_SEED_1: &str = "";

    #[test]
    #[ignore = "the month is not fixed yet: its sum is to be written above"]
    fn the_month_of_seed_1_is_fixed() {
        let month = Month::new(1);
        let mut hash = Sha256::new();
        let (mut ids, mut told) = (HashSet::new(), 0);
        for day in 0..Month::DAYS {
            for record in month.day(day) {
                hash.update(record.json.as_bytes());
                hash.update(b"\n");
                told += usize::from(record.malicious);
                assert!(ids.insert(record.id), "an id came twice");
            }
        }
        assert_eq!(month.tales().len(), 10);
        assert_eq!(told, month.tales().iter().map(|tale| tale.records.len()).sum::<usize>(), "no story is cut off");
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, SHA256_OF_SEED_1, "{} records", ids.len());
    }
}
