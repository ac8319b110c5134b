//! What single people do now and then: phones, forgotten passwords, holidays, links, rules, flows.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Month, PHONES, WORKING_SECONDS, has_private_vpn, hosting_address, mobile_address};
use crate::Record;
use crate::dice::Dice;
use crate::people::{Person, Session};
use crate::records::entra;
use crate::records::mailbox::{self, Access, BindShape, Client, INBOX};
use crate::records::{flow, sharepoint, teams};

use super::Edit;

/// On which devices, applications register: the broker of every Windows and every phone.
const BROKER_APP: &str = "29d9ed98-a469-4536-ade2-f981bc1d605e";

impl Month {
    pub(super) fn other_network(&self, dice: &mut Dice, person: &Person, number: usize) -> String {
        if has_private_vpn(number) {
            return hosting_address(dice);
        }
        match dice.index(3) {
            0 => person.office_ip.clone(),
            1 => format!("2001:db8:ff:{:x}::{:x}", number, dice.between(1, 0xffff)),
            _ => mobile_address(dice),
        }
    }

    /// A third of the staff read mail on a phone, whose operator gives it an address at every turn. On one day of the
    /// month some have a new phone: another system, and a new method for the second factor.
    pub(super) fn phone(
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
            records.push(self.new_method(dice, at, person));
            let at = at + TimeDelta::seconds(95);
            records.push(self.new_method(dice, at, person));
        }
        let flow = dice.guid();
        let evening = opening + TimeDelta::seconds(dice.between(10 * 3_600, 13 * 3_600));
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

    /// A forgotten password: some wrong ones, then the reset at the self-service page or by the help desk. A phone that
    /// was not told goes on with the old one for hours.
    pub(super) fn new_password(
        &self,
        dice: &mut Dice,
        opening: DateTime<Utc>,
        who: (&Person, &Session),
        records: &mut Vec<Record>,
    ) {
        let (person, session) = who;
        let tenant = &self.office.tenant;
        let at = opening + TimeDelta::seconds(dice.between(0, 12_000));
        let flow = dice.guid();
        for turn in 0..dice.between(2, 5) {
            let at = at + TimeDelta::seconds(turn * 21);
            records.push(entra::sign_in(tenant, dice, at, who, &entra::WRONG_PASSWORD, &flow));
        }
        let by_help_desk = dice.percent(50);
        let actor = if by_help_desk { &self.office.administrator } else { person };
        let operation = if by_help_desk { "Reset user password." } else { "Change user password." };
        let edit = Edit::new(operation, "User", &person.user_name).from("").on(person);
        records.push(self.edit(dice, at + TimeDelta::minutes(9), actor, edit));
        let at = at + TimeDelta::minutes(12);
        records.push(entra::sign_in(tenant, dice, at, who, &entra::SIGNED_IN, &flow));
        if dice.percent(40) {
            let phone = Session { id: dice.guid(), ip: person.home_ip.clone(), browser: &PHONES[session.id.len() % 2] };
            for turn in 0..30 {
                let at = at + TimeDelta::minutes(15 + turn * 11);
                let flow = dice.guid();
                let outcome = if turn > 11 && turn % 3 == 0 { &entra::LOCKED } else { &entra::WRONG_PASSWORD };
                records.push(entra::sign_in(tenant, dice, at, (person, &phone), outcome, &flow));
            }
        }
    }

    /// Away: an answer to all mail on the first day, and now and then a look at it from a hotel, on the phone.
    pub(super) fn on_holiday(
        &self,
        dice: &mut Dice,
        (is_first, opening): (bool, DateTime<Utc>),
        (number, person): (usize, &Person),
        records: &mut Vec<Record>,
    ) {
        if is_first {
            let parameters = [("Identity", person.alias.as_str()), ("AutoReplyState", "Scheduled")];
            let what = ("Set-MailboxAutoReplyConfiguration", person.alias.as_str());
            records.push(self.cmdlet(dice, opening, (person, &person.home_ip, ""), what, &parameters));
        }
        if !dice.percent(35) {
            return;
        }
        let mut hotel = Dice::new(self.seed, "holiday hotel", number as u64);
        let ip = format!("198.18.{}.{}", hotel.between(128, 256), hotel.between(1, 250));
        let session = Session { id: dice.guid(), ip, browser: &PHONES[number % 2] };
        let at = opening + TimeDelta::seconds(dice.between(0, WORKING_SECONDS));
        let flow = dice.guid();
        let tenant = &self.office.tenant;
        records.push(entra::sign_in(tenant, dice, at, (person, &session), &entra::SIGNED_IN, &flow));
        let access = Access { person, session: &session, client: Client::Web };
        let messages = self.messages(dice, 2, 12);
        let at = at + TimeDelta::seconds(40);
        records.push(mailbox::bind(tenant, dice, at, access, BindShape::Newer, &[(INBOX, messages)]));
    }

    /// All the mail of two weeks, read or thrown away in a morning.
    pub(super) fn back_at_work(
        &self,
        dice: &mut Dice,
        opening: DateTime<Utc>,
        (person, session): (&Person, &Session),
        records: &mut Vec<Record>,
    ) {
        let tenant = &self.office.tenant;
        let client = if person.has_desktop { Client::Desktop } else { Client::Web };
        for turn in 0..dice.between(6, 14) {
            let at = opening + TimeDelta::seconds(5_000 + turn * 240);
            let access = Access { person, session, client: Client::Web };
            let messages = self.messages(dice, 8, 20);
            records.push(mailbox::bind(tenant, dice, at, access, BindShape::Newer, &[(INBOX, messages)]));
            let messages = self.messages(dice, 5, 30);
            let access = Access { client, ..access };
            records.push(mailbox::delete(tenant, dice, at, access, ("MoveToDeletedItems", INBOX), &messages));
        }
    }

    /// Each of these happens to somebody nearly every day.
    pub(super) fn now_and_then(
        &self,
        dice: &mut Dice,
        opening: DateTime<Utc>,
        (number, who): (usize, (&Person, &Session)),
        records: &mut Vec<Record>,
    ) {
        let (person, session) = who;
        let tenant = &self.office.tenant;
        let at = opening + TimeDelta::seconds(dice.between(3_000, WORKING_SECONDS));
        let other = &self.office.staff[dice.index(self.office.staff.len())];
        // One in a thousand of person and day is one in two days of the tenant.
        match dice.index(1_000) {
            0..=7 => records.push(sharepoint::link(tenant, dice, at, who, "AnonymousLinkCreated")),
            8..=39 => records.push(sharepoint::link(tenant, dice, at, who, "CompanyLinkCreated")),
            40..=79 => {
                let outside = format!("contact{}@partner{}.example.net", dice.between(1, 40), dice.between(1, 9));
                let name = if dice.percent(40) { &outside } else { &other.user_name };
                for operation in ["ChatCreated", "MessageSent", "MessageCreatedHasLink"] {
                    records.push(teams::chat(tenant, dice, at, (person, &session.ip), (operation, name)));
                }
            }
            80..=81 => {
                let connectors =
                    *dice.pick(&["Office 365 Outlook,SharePoint", "SharePoint,Approvals", "Microsoft Teams"]);
                records.push(flow::change(tenant, dice, at, who, ("CreateFlow", connectors)));
            }
            82..=83 => self.new_computer(dice, at, who, records),
            84 => self.rule_of_a_tidy_person(dice, at, who, records),
            // A prompt on a telephone that lies elsewhere.
            85..=87 => {
                let flow = dice.guid();
                for turn in 0..dice.between(2, 5) {
                    let at = at + TimeDelta::seconds(turn * 70);
                    records.push(entra::sign_in(tenant, dice, at, who, &entra::SECOND_FACTOR_TIMED_OUT, &flow));
                }
            }
            88 if number % 10 == 1 => {
                for turn in 0..dice.between(100, 320) {
                    let at = at + TimeDelta::seconds(turn * 2);
                    records.push(sharepoint::file(tenant, dice, at, who, "FileDeleted"));
                }
            }
            // Somebody new has the calendar of a colleague.
            89 => {
                let parameters = [
                    ("Identity", format!("{}:\\Calendar", person.alias)),
                    ("User", other.user_name.clone()),
                    ("AccessRights", "Editor".to_owned()),
                ];
                let parameters: Vec<(&str, &str)> =
                    parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let what = ("Add-MailboxFolderPermission", person.alias.as_str());
                records.push(self.cmdlet(dice, at, (person, &session.ip, &session.id), what, &parameters));
            }
            _ => {}
        }
        // Assistants write for the one they work for, day after day.
        if number % 40 == 11 {
            let owner = &self.office.staff[number - 11];
            let access = Access { person, session, client: Client::Desktop };
            let operation = if number % 80 == 11 { "SendAs" } else { "SendOnBehalf" };
            for turn in 0..dice.between(1, 5) {
                let at = at + TimeDelta::minutes(turn * 13);
                records.push(mailbox::send_for(tenant, dice, at, access, (operation, owner)));
            }
        }
    }

    /// A new laptop: it registers, it keeps the person's files, and Outlook fetches the mailbox.
    fn new_computer(
        &self,
        dice: &mut Dice,
        at: DateTime<Utc>,
        (person, session): (&Person, &Session),
        records: &mut Vec<Record>,
    ) {
        let tenant = &self.office.tenant;
        let (device, machine, flow) = (dice.guid(), dice.guid(), dice.guid());
        let signed = entra::sign_in(tenant, dice, at, (person, session), &entra::SIGNED_IN, &flow);
        records.push(through(signed, BROKER_APP));
        let name = format!("LAPTOP-{}", dice.hex(6));
        for operation in ["Add device.", "Add registered owner to device.", "Add registered users to device."] {
            let target = entra::target("Device", &device, &[(&name, 1)]);
            let edit = Edit::new(operation, "Device", &device).from(&session.ip).at(target);
            records.push(self.edit(dice, at + TimeDelta::seconds(9), person, edit));
        }
        for turn in 0..dice.between(60, 400) {
            let at = at + TimeDelta::seconds(90 + turn);
            records.push(sharepoint::synchronise(tenant, dice, at, (person, session), &machine));
        }
        if person.has_desktop {
            let access = Access { person, session, client: Client::Desktop };
            for path in [INBOX, mailbox::SENT_ITEMS, "\\Archive"] {
                records.push(mailbox::sync(tenant, dice, at + TimeDelta::seconds(300), access, path));
            }
        }
    }

    /// Rules that do what an intruder's do, for another reason.
    fn rule_of_a_tidy_person(
        &self,
        dice: &mut Dice,
        at: DateTime<Utc>,
        (person, session): (&Person, &Session),
        records: &mut Vec<Record>,
    ) {
        let other = &self.office.staff[dice.index(self.office.staff.len())];
        let action = *dice.pick(&[
            ("MoveToFolder", "Archive"),
            ("DeleteMessage", "True"),
            ("MarkAsRead", "True"),
            ("ForwardTo", "colleague"),
        ]);
        let action = if action.0 == "ForwardTo" { (action.0, other.user_name.as_str()) } else { action };
        let subject = *dice.pick(&["canteen", "out of office", "sales figures", "backup report", "invoice copy"]);
        let parameters = [("Force", "False"), ("Name", subject), ("SubjectContainsWords", subject), action];
        let object = format!("{}\\{subject}", person.alias);
        let who = (person, session.ip.as_str(), session.id.as_str());
        records.push(self.cmdlet(dice, at, who, ("New-InboxRule", &object), &parameters));
    }
}

/// The sign-in as an application of that id asked for it.
pub(crate) fn through(mut record: Record, application: &str) -> Record {
    const KEY: &str = "\"ApplicationId\":\"";
    if let Some(found) = record.json.find(KEY) {
        let from = found + KEY.len();
        record.json.replace_range(from..from + application.len(), application);
    }
    record
}
