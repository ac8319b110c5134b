//! Thirty ordinary days of five hundred people, and ten attacks among them: what the rule pack is judged by.
//!
//! Guarantee: a function of the seed alone, and fixed: the sums of seed 1 stand in the tests below. They were written
//! before any rule was judged by the month, so that the month cannot follow the rules; whoever changes it looks at every
//! rule anew. Whatever looks hostile in [`Month::day`] outside a [`Tale`] has an innocent reason, or belongs to what
//! every tenant sees: strangers who try passwords and never get in.
//!
//! Networks: the office is 192.0.2.0/24, homes are of 198.18.0.0/17, hotels of 198.18.128.0/17, mobile operators of
//! 198.19.0.0/17 and 2001:db8:ff::/48, and hosting, which private VPNs and attackers share, is 203.0.113.0/24,
//! 198.51.100.0/24 and 2001:db8:f000::/36. The tales may use any of them but the office.
//!
//! Days are made one by one, because a whole month in memory would be a quarter of a gigabyte.

mod desk;
mod edit;
mod habits;

use chrono::{DateTime, TimeDelta, Utc};

use crate::Record;
use crate::dice::Dice;
use crate::office::Office;
use crate::people::{Browser, Person, Session, Tenant, with_port};
use crate::records::EXCHANGE_ONLINE_APP;
use crate::records::entra::{self, Change};
use crate::records::exchange::{self, FOREST, Runner};
use crate::records::mailbox::Message;
use crate::stories::{self, Tale};

pub(crate) use desk::permissions;
pub(crate) use edit::Edit;
pub(crate) use habits::through;

/// 1 June 2026, a Monday.
const FIRST_SECOND: i64 = 1_780_272_000;
const USERS: u32 = 500;
const OPENING_HOUR: i64 = 7;
const WORKING_SECONDS: i64 = 9 * 3_600;
const DOMAIN: &str = "contoso.example";
/// Members of staff who administer beside their work; the fourth administrator does nothing else.
const DEPUTIES: [usize; 3] = [5, 133, 250];

pub(crate) static PHONES: [Browser; 2] = [
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
        let mut office = Office::new(seed, USERS, tenant);
        // Everybody lives in a network of his own or shares it with a few, as among the customers of one provider.
        for (number, person) in office.staff.iter_mut().enumerate() {
            let mut dice = Dice::new(seed, "home", number as u64);
            if !person.home_ip.contains(':') {
                person.home_ip = format!("198.18.{}.{}", dice.between(0, 128), dice.between(1, 250));
            }
        }
        let mut month = Month { office, seed, tales: Vec::new() };
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

    /// All records of one day in event-time order, stories included.
    pub fn day(&self, day: u64) -> Vec<Record> {
        let mut records = self.ordinary_day(day);
        let told = self.tales.iter().flat_map(|tale| &tale.records);
        records.extend(told.filter(|record| day_of(record.created) == day).cloned());
        records.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        records
    }

    fn ordinary_day(&self, day: u64) -> Vec<Record> {
        let mut records = Vec::new();
        let opening = opening(day);
        for (number, person) in self.office.staff.iter().enumerate() {
            self.person_day((day, opening), (number, person), &mut records);
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
        self.strangers(&mut dice, opening, &mut records);
        self.programs(&mut dice, (day, opening), &mut records);
        if !is_resting(day) {
            self.office.administration(day, opening, &mut records);
            self.help_desk(&mut dice, (day, opening), &mut records);
            self.consents(&mut dice, (day, opening), &mut records);
            self.campaigns(&mut dice, (day, opening), &mut records);
        }
        // Nothing of a day may fall into the next, or a record would be played twice or never.
        records.retain(|record| day_of(record.created) == day);
        records
    }

    /// Where a person works from. A journey takes half a working week, in a hotel and its country's network, with the
    /// person's own computer; every journey begins on a Monday.
    fn session(&self, person: &Person, number: usize, day: u64) -> Session {
        let usual = self.office.session(person, number, day);
        let mut journey = Dice::new(self.seed, "journey", ((day / 7) << 32) | number as u64);
        if journey.percent(3) && (day % 7) < 3 {
            let ip = format!("198.18.{}.{}", journey.between(128, 256), journey.between(1, 250));
            return Session { ip, ..usual };
        }
        usual
    }

    /// The first and the last day of a person's holidays, if there are any this month.
    fn holidays(&self, number: usize) -> Option<(u64, u64)> {
        let mut dice = Dice::new(self.seed, "holidays", number as u64);
        let first = dice.between(0, 24) as u64;
        dice.percent(12).then(|| (first, first + dice.between(4, 13) as u64))
    }

    fn person_day(
        &self,
        (day, opening): (u64, DateTime<Utc>),
        (number, person): (usize, &Person),
        records: &mut Vec<Record>,
    ) {
        let mut dice = Dice::new(self.seed, "month day", (day << 32) | number as u64);
        let holidays = self.holidays(number);
        if let Some((first, last)) = holidays
            && (first..=last).contains(&day)
        {
            self.on_holiday(&mut dice, (day == first, opening), (number, person), records);
            return;
        }
        if is_resting(day) && dice.percent(85) {
            return;
        }
        let mut session = self.session(person, number, day);
        let arrival = dice.between(0, 4_500);
        self.office.arrival(&mut dice, opening + TimeDelta::seconds(arrival), (person, &session), records);
        let count = if is_resting(day) { dice.between(1, 4) } else { dice.between(10, 18) };
        // Wi-Fi to cable, office to train, a private VPN switched on, IPv4 to its IPv6 twin: the session lives on.
        let moves = dice.percent(12) || (has_private_vpn(number) && dice.percent(30));
        let step = (WORKING_SECONDS - arrival) / count;
        for turn in 0..count {
            if moves && turn == count / 2 {
                session.ip = self.other_network(&mut dice, person, number);
            }
            let at = opening + TimeDelta::seconds(arrival + 90 + turn * step + dice.between(0, step));
            records.push(self.office.activity(&mut dice, at, person, &session));
        }
        let who = (person, &session);
        if person.has_desktop && dice.percent(6) {
            self.office.resynchronise_rules(&mut dice, opening, person, &session, records);
        }
        if number % 3 == 0 {
            self.phone(&mut dice, (day, opening), number, person, records);
        }
        if dice.percent(1) && dice.percent(40) {
            self.new_password(&mut dice, opening, who, records);
        }
        if holidays.is_some_and(|(_, last)| last + 1 == day) {
            self.back_at_work(&mut dice, opening, who, records);
        }
        self.now_and_then(&mut dice, opening, (number, who), records);
    }

    pub(crate) fn messages(&self, dice: &mut Dice, low: i64, high: i64) -> Vec<Message> {
        (0..dice.between(low, high)).map(|_| Message::new(dice, "")).collect()
    }

    /// Administrator number 0 to 3.
    pub(crate) fn administrator(&self, number: usize) -> &Person {
        match DEPUTIES.get(number) {
            Some(deputy) => &self.office.staff[*deputy],
            None => &self.office.administrator,
        }
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

    /// A new or another method of the second factor. The record is written in the name of Microsoft's registration
    /// service and has no address.
    pub(crate) fn new_method(&self, dice: &mut Dice, at: DateTime<Utc>, person: &Person) -> Record {
        let service = Person {
            user_name: "fim_password_service@support.onmicrosoft.com".to_owned(),
            puid: "100300008060F582".to_owned(),
            object_id: "00000000-0000-0000-0000-000000000000".to_owned(),
            ..Person::administrator(0, &self.office.tenant)
        };
        let edit = Edit::new("Update user.", "User", &person.user_name)
            .from("")
            .on(person)
            .set("StrongAuthenticationPhoneAppDetail", &entra::listed("PhoneAppVersion"))
            .set("Included Updated Properties", "StrongAuthenticationPhoneAppDetail")
            .set("TargetId.UserType", "Member");
        self.edit(dice, at, &service, edit)
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
        // A transport rule's record names no object.
        let object = match object {
            "" => String::new(),
            name => format!("{FOREST}/{}/{name}", self.office.tenant.organization),
        };
        exchange::cmdlet(&self.office.tenant, dice, at, &runner, (operation, &object), parameters)
    }
}

/// One in twenty-three has a private VPN, whose addresses are those of hosting companies.
fn has_private_vpn(number: usize) -> bool {
    number % 23 == 7
}

fn mobile_address(dice: &mut Dice) -> String {
    format!("198.19.{}.{}", dice.between(0, 40), dice.between(1, 250))
}

/// An address that anybody with a credit card can have.
pub(crate) fn hosting_address(dice: &mut Dice) -> String {
    match dice.index(3) {
        0 => format!("203.0.113.{}", dice.between(1, 250)),
        1 => format!("198.51.100.{}", dice.between(1, 250)),
        _ => {
            format!("2001:db8:f{:03x}:{:x}::{:x}", dice.between(0, 0x800), dice.between(0, 0xffff), dice.between(1, 99))
        }
    }
}

/// An address among people's homes: a proxy on somebody's television.
pub(crate) fn home_address(dice: &mut Dice) -> String {
    format!("198.18.{}.{}", dice.between(0, 128), dice.between(1, 250))
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
mod tests;
