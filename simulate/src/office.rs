//! Ordinary office work: the haystack.
//!
//! Guarantee: nothing here comes from the attacker's network, and what looks like an attack has an innocent reason: a
//! mistyped password, a rule for newsletters made at one's own desk, a calendar shared, Outlook synchronising its
//! rules. Rules of detection are judged by what they say about these.
//!
//! Everything a person does on one day happens in one session, a function of seed, person and day; so a stream of
//! single records and a whole day made at once show the same tenant.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::Record;
use crate::dice::Dice;
use crate::people::{Person, Session, Tenant, with_port};
use crate::records::entra::{self, Change};
use crate::records::exchange::{self, FOREST, Runner};
use crate::records::mailbox::{self, Access, BindShape, Client, INBOX, Message, RuleChange, SENT_ITEMS};
use crate::records::{EXCHANGE_ONLINE_APP, defender, sharepoint, teams};

const SUBJECTS: [&str; 14] = [
    "Minutes of this morning",
    "RE: Minutes of this morning",
    "Invoice for the new chairs",
    "Holiday plan",
    "FW: Parking places",
    "Question about the offer",
    "RE: Question about the offer",
    "Weekly summary",
    "Lunch on Thursday?",
    "Réunion déplacée à 15 h",
    "Payment reminder (copy)",
    "Price list, new version",
    "Thank you!",
    "Besprechung verschoben – bitte bestätigen",
];

const SYSTEM_ACCOUNTS: [&str; 3] = [
    "NT AUTHORITY\\SYSTEM (Microsoft.Exchange.ServiceHost)",
    "NT AUTHORITY\\SYSTEM (MSExchangeMailboxAssistants)",
    "NT AUTHORITY\\SYSTEM (w3wp)",
];

/// One kind of ordinary event.
#[derive(Debug, Clone, Copy)]
enum Activity {
    Read,
    Synchronise,
    Send,
    Discard,
    OpenFile,
    ChangeFile,
    DownloadFile,
    UploadFile,
    ShareFile,
    Chat,
    FetchToken,
    ShareCalendar,
    MakeRule,
}

/// How often each kind comes, out of a thousand.
const MIX: [(u64, Activity); 13] = [
    (330, Activity::Read),
    (80, Activity::Synchronise),
    (95, Activity::Send),
    (85, Activity::Discard),
    (150, Activity::OpenFile),
    (70, Activity::ChangeFile),
    (40, Activity::DownloadFile),
    (20, Activity::UploadFile),
    (8, Activity::ShareFile),
    (75, Activity::Chat),
    (40, Activity::FetchToken),
    (5, Activity::ShareCalendar),
    (2, Activity::MakeRule),
];

pub(crate) struct Office {
    pub(crate) tenant: Tenant,
    pub(crate) staff: Vec<Person>,
    pub(crate) administrator: Person,
    seed: u64,
}

impl Office {
    pub(crate) fn new(seed: u64, users: u32, tenant: Tenant) -> Office {
        let staff = (0..users.max(2)).map(|number| Person::new(seed, number, &tenant)).collect();
        Office { administrator: Person::administrator(seed, &tenant), staff, tenant, seed }
    }

    /// The session of a person's day: from the office or from home, never from anywhere else.
    pub(crate) fn session(&self, person: &Person, number: usize, day: u64) -> Session {
        let mut dice = Dice::new(self.seed, "session", (day << 32) | number as u64);
        let ip = if dice.percent(65) { &person.office_ip } else { &person.home_ip };
        Session { id: dice.guid(), ip: ip.clone(), browser: person.browser }
    }

    /// One thing a person does.
    pub(crate) fn activity(&self, dice: &mut Dice, at: DateTime<Utc>, person: &Person, session: &Session) -> Record {
        let tenant = &self.tenant;
        let client = if person.has_desktop { Client::Desktop } else { Client::Web };
        let access = Access { person, session, client };
        let who = (person, session);
        match activity_kind(dice) {
            Activity::Read => self.read(dice, at, Access { client: Client::Web, ..access }),
            // Only the desktop program synchronises; the others read once more.
            Activity::Synchronise if client == Client::Desktop => {
                let path = *dice.pick(&[INBOX, INBOX, SENT_ITEMS, "\\Archive"]);
                mailbox::sync(tenant, dice, at, access, path)
            }
            Activity::Synchronise => self.read(dice, at, access),
            Activity::Send => {
                let message = ordinary_message(dice);
                mailbox::send(tenant, dice, at, access, &message)
            }
            Activity::Discard => {
                let messages: Vec<Message> = (0..dice.between(1, 5)).map(|_| ordinary_message(dice)).collect();
                mailbox::delete(tenant, dice, at, access, ("MoveToDeletedItems", INBOX), &messages)
            }
            Activity::OpenFile => sharepoint::file(tenant, dice, at, who, "FileAccessed"),
            Activity::ChangeFile => sharepoint::file(tenant, dice, at, who, "FileModified"),
            Activity::DownloadFile => sharepoint::file(tenant, dice, at, who, "FileDownloaded"),
            Activity::UploadFile => sharepoint::file(tenant, dice, at, who, "FileUploaded"),
            Activity::ShareFile => sharepoint::share(tenant, dice, at, who),
            Activity::Chat => teams::activity(tenant, dice, at, person),
            Activity::FetchToken => {
                let flow = dice.guid();
                entra::sign_in(tenant, dice, at, who, &entra::TOKEN_FETCHED, &flow)
            }
            Activity::ShareCalendar => mailbox::share_calendar(tenant, dice, at, access),
            Activity::MakeRule => self.make_rule(dice, at, access),
        }
    }

    fn read(&self, dice: &mut Dice, at: DateTime<Utc>, access: Access<'_>) -> Record {
        let shape = if dice.percent(30) { BindShape::Newer } else { BindShape::Classic };
        let messages = (0..dice.between(1, 8)).map(|_| ordinary_message(dice)).collect();
        let path = *dice.pick(&[INBOX, INBOX, INBOX, SENT_ITEMS]);
        mailbox::bind(&self.tenant, dice, at, access, shape, &[(path, messages)])
    }

    /// A tidy person's rule, made where that person always works.
    fn make_rule(&self, dice: &mut Dice, at: DateTime<Utc>, access: Access<'_>) -> Record {
        let person = access.person;
        let (name, from, folder) = *dice.pick(&[
            ("Newsletters", "news@letters.example.net", "Newsletters"),
            ("Build messages", "builds@tools.example.net", "Machines"),
            ("Travel", "tickets@travel.example.net", "Travel"),
        ]);
        if access.client == Client::Desktop {
            let condition = format!("{{([DisplayType=0], ((SenderSearchKey Equal SMTP:{})))}}", from.to_uppercase());
            let actions = json!([{
                "ActionType": "Move",
                "DestinationFolderId": format!("AAAAA{}", dice.hex(20)),
                "FolderIsInThisStore": "True",
            }]);
            let rule = RuleChange::Add { name, condition: &condition, actions };
            return mailbox::update_inbox_rules(&self.tenant, dice, at, access, &rule);
        }
        let client = with_port(&access.session.ip, dice.between(40_000, 60_000));
        let runner =
            Runner::Human { person, client: &client, session: &access.session.id, app_id: EXCHANGE_ONLINE_APP };
        let object = format!("{FOREST}/{}/{}\\{name}", self.tenant.organization, person.alias);
        exchange::cmdlet(
            &self.tenant,
            dice,
            at,
            &runner,
            ("New-InboxRule", &object),
            &[
                ("AlwaysDeleteOutlookRulesBlob", "False"),
                ("Force", "False"),
                ("From", from),
                ("Name", name),
                ("MoveToFolder", folder),
                ("StopProcessingRules", "True"),
            ],
        )
    }

    /// What Microsoft's automation does to mailboxes all day and night.
    pub(crate) fn automation(&self, dice: &mut Dice, at: DateTime<Utc>) -> Record {
        let number = dice.index(self.staff.len());
        let alias = self.staff.get(number).map_or("", |person| person.alias.as_str());
        let account = *dice.pick(&SYSTEM_ACCOUNTS);
        let object = format!("{FOREST}/{}/{alias}", self.tenant.organization);
        let runner = Runner::System { account };
        let (operation, parameters): (&str, &[(&str, &str)]) = *dice.pick(&[
            (
                "Set-Mailbox",
                &[("Identity", ""), ("RecoverableItemsQuota", "30 GB (32,212,254,720 bytes)"), ("Force", "True")]
                    as &[_],
            ),
            ("Set-Mailbox", &[("Identity", ""), ("ElcProcessingDisabled", "False"), ("Force", "True")] as &[_]),
            ("Set-User", &[("Identity", ""), ("SeniorityIndex", "0")] as &[_]),
            ("Set-AdminAuditLogConfig", &[("IgnoreDehydratedFlag", "True"), ("AdminAuditLogEnabled", "True")] as &[_]),
        ]);
        let parameters: Vec<(&str, &str)> = parameters
            .iter()
            .map(|(name, value)| (*name, if *name == "Identity" { object.as_str() } else { *value }))
            .collect();
        let settings = format!("{}\\Admin Audit Log Settings", self.tenant.organization);
        let object = if operation == "Set-AdminAuditLogConfig" { &settings } else { &object };
        exchange::cmdlet(&self.tenant, dice, at, &runner, (operation, object), &parameters)
    }

    /// How a person's day begins: now and then a slip, then in.
    pub(crate) fn arrival(
        &self,
        dice: &mut Dice,
        at: DateTime<Utc>,
        who: (&Person, &Session),
        records: &mut Vec<Record>,
    ) {
        let flow = dice.guid();
        let mut moment = at;
        let mut add = |dice: &mut Dice, outcome, wait: i64| {
            records.push(entra::sign_in(&self.tenant, dice, moment, who, outcome, &flow));
            moment += TimeDelta::seconds(wait);
        };
        if dice.percent(25) {
            add(dice, &entra::SILENT_PROBE, 0);
        }
        if dice.percent(9) {
            let wait = dice.between(5, 30);
            add(dice, &entra::WRONG_PASSWORD_CALLED_SUCCESS, wait);
        }
        if dice.percent(4) {
            add(dice, &entra::WRONG_PASSWORD, 12);
        }
        if dice.percent(30) {
            add(dice, &entra::SECOND_FACTOR_DEMANDED, 14);
        }
        if dice.percent(2) {
            add(dice, &entra::SECOND_FACTOR_TIMED_OUT, 40);
        }
        if dice.percent(40) {
            add(dice, &entra::KEPT_SIGNED_IN, 0);
        }
        add(dice, &entra::SIGNED_IN, 0);
    }

    /// One day of the whole tenant. `opening` is eight in the morning there; `day` counts for the sessions.
    pub(crate) fn day(&self, day: u64, opening: DateTime<Utc>, resting: bool, records: &mut Vec<Record>) {
        const WORKING_SECONDS: i64 = 9 * 3_600 + 1_800;
        for (number, person) in self.staff.iter().enumerate() {
            let mut dice = Dice::new(self.seed, "day", (day << 32) | number as u64);
            if resting && dice.percent(85) {
                continue;
            }
            let session = self.session(person, number, day);
            let arrival = dice.between(0, 4_500);
            self.arrival(&mut dice, opening + TimeDelta::seconds(arrival), (person, &session), records);
            let count = if resting { dice.between(2, 6) } else { dice.between(24, 46) };
            for _ in 0..count {
                let at = opening + TimeDelta::seconds(dice.between(arrival + 90, WORKING_SECONDS));
                records.push(self.activity(&mut dice, at, person, &session));
            }
            if person.has_desktop && dice.percent(6) {
                self.resynchronise_rules(&mut dice, opening, person, &session, records);
            }
        }
        let mut dice = Dice::new(self.seed, "automation", day);
        for _ in 0..self.staff.len() * 2 / 3 + 4 {
            let at = opening + TimeDelta::seconds(dice.between(-8 * 3_600, 16 * 3_600));
            records.push(self.automation(&mut dice, at));
        }
        for _ in 0..dice.between(1, 4) {
            let at = opening + TimeDelta::seconds(dice.between(0, WORKING_SECONDS));
            records.push(self.spam(&mut dice, at));
        }
        if !resting {
            self.administration(day, opening, records);
        }
    }

    /// A handful of rules handed back to the server: changes that change nothing.
    pub(crate) fn resynchronise_rules(
        &self,
        dice: &mut Dice,
        opening: DateTime<Utc>,
        person: &Person,
        session: &Session,
        records: &mut Vec<Record>,
    ) {
        let at = opening + TimeDelta::seconds(dice.between(4_600, 20_000));
        let access = Access { person, session, client: Client::Desktop };
        for _ in 0..dice.between(3, 9) {
            let rule = RuleChange::Resync { rule_id: dice.next() as i64 };
            records.push(mailbox::update_inbox_rules(&self.tenant, dice, at, access, &rule));
        }
    }

    pub(crate) fn spam(&self, dice: &mut Dice, at: DateTime<Utc>) -> Record {
        let recipient = self.staff.get(dice.index(self.staff.len())).unwrap_or(&self.administrator);
        let message = Message::new(dice, "You have been chosen");
        let verdict = defender::Verdict {
            message: &message,
            recipient,
            sender: "offers@bulk.example.org",
            sender_ip: "192.0.2.200",
            verdict: "Spam",
            method: "Bulk",
            policy: "Spam",
            action: "MoveToJMF",
        };
        defender::mail_verdict(&self.tenant, dice, at, &verdict)
    }

    /// The administrator's day: in from the office, and a few changes.
    pub(crate) fn administration(&self, day: u64, opening: DateTime<Utc>, records: &mut Vec<Record>) {
        let mut dice = Dice::new(self.seed, "administration", day);
        let admin = &self.administrator;
        let session = Session { id: dice.guid(), ip: admin.office_ip.clone(), browser: admin.browser };
        self.arrival(&mut dice, opening + TimeDelta::seconds(600), (admin, &session), records);
        for _ in 0..dice.between(0, 4) {
            let at = opening + TimeDelta::seconds(dice.between(1_500, 30_000));
            records.push(self.directory_change(&mut dice, at, &session));
        }
    }

    fn directory_change(&self, dice: &mut Dice, at: DateTime<Utc>, session: &Session) -> Record {
        let person = self.staff.get(dice.index(self.staff.len())).unwrap_or(&self.administrator);
        let (inter, intra) = (dice.guid(), dice.guid());
        let user = entra::target("User", &person.object_id, &[(&person.user_name, 5), (&person.puid, 3)]);
        let (application, key) = (dice.guid(), dice.guid());
        let application_object = format!("Application_{application}");
        let kind = dice.index(4);
        let (operation, category, object_id, modified, target) = match kind {
            0 => (
                "Update user.",
                "User",
                person.user_name.as_str(),
                vec![
                    ("TelephoneNumber", entra::listed("0000"), "[]"),
                    ("Included Updated Properties", "TelephoneNumber".to_owned(), ""),
                ],
                user,
            ),
            1 => (
                "Add member to group.",
                "Group",
                person.user_name.as_str(),
                vec![
                    ("Group.ObjectID", entra::listed(&application), "[]"),
                    ("Group.DisplayName", entra::listed("Projects"), "[]"),
                ],
                [user, entra::target("Group", &application, &[("Projects", 1)])].concat(),
            ),
            2 => ("Reset user password.", "User", person.user_name.as_str(), vec![], user),
            // The dash is an en dash and the blank at the end is sent.
            _ => (
                "Update application – Certificates and secrets management ",
                "Application",
                application_object.as_str(),
                vec![
                    (
                        "KeyDescription",
                        entra::listed(&format!(
                            "[KeyIdentifier={key},KeyType=Password,KeyUsage=Verify,DisplayName=yearly renewal]"
                        )),
                        "[]",
                    ),
                    ("Included Updated Properties", "KeyDescription".to_owned(), ""),
                ],
                entra::target("Application", &application, &[("Time sheets", 1)]),
            ),
        };
        let change = Change {
            actor: &self.administrator,
            client_ip: *dice.pick(&[None, None, Some(""), Some(session.ip.as_str())]),
            operation,
            category,
            user_agent: None,
            object_id,
            modified,
            target,
            inter_systems_id: &inter,
            intra_system_id: &intra,
        };
        entra::change(&self.tenant, dice, at, change)
    }
}

fn activity_kind(dice: &mut Dice) -> Activity {
    let mut throw = dice.next() % 1_000;
    for (share, activity) in MIX {
        if throw < share {
            return activity;
        }
        throw -= share;
    }
    Activity::Read
}

fn ordinary_message(dice: &mut Dice) -> Message {
    let subject = *dice.pick(&SUBJECTS);
    let mut message = Message::new(dice, subject);
    if dice.percent(15) {
        message.attachments =
            Some(format!("scan ({}).pdf ({}b); logo.png (2210b)", dice.between(1, 9), dice.between(9_000, 90_000)));
    }
    message
}
