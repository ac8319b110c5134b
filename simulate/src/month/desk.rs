//! What administrators, programs, departments and strangers do all month.

use chrono::{DateTime, TimeDelta, Utc};

use super::habits::through;
use super::{DOMAIN, Edit, Month, WORKING_SECONDS, hosting_address, is_resting};
use crate::Record;
use crate::dice::Dice;
use crate::people::{Browser, Session};
use crate::records::entra;
use crate::records::mailbox::{self, Access, BindShape, Client, INBOX, Message};
use crate::records::{sharepoint, teams};

/// What the company moves its old mail and files with, from day 9 to day 11.
const MIGRATION_APP: &str = "5b1f7c52-7d0e-4a52-9a0e-0d7f3c1be0a1";
/// What keeps copies of some mailboxes for the law, since long ago.
const ARCHIVE_APP: &str = "c7a9f3d0-53c1-4f1d-8a1e-2a6e0c9f5b11";
/// The new customer register, which reads the mail of sales from day 17.
const CUSTOMER_APP: &str = "e2d64a18-0b7f-4c52-93a4-6f0b8d7c2e35";
/// A command line for administrators, which Microsoft makes.
const COMMAND_LINE_APP: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

/// Those who try passwords from everywhere; the second names what old mail programs do.
static GUESSERS: [Browser; 3] = [
    Browser {
        agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
        system: "Windows 10",
        name: "Chrome",
    },
    Browser { agent: "BAV2ROPC", system: "", name: "" },
    Browser { agent: "python-requests/2.32.3", system: "", name: "" },
];

impl Month {
    /// Guests, joiners, shared mailboxes, a role for a colleague, a rule of mail flow, keys that ran out.
    pub(super) fn help_desk(&self, dice: &mut Dice, (day, opening): (u64, DateTime<Utc>), records: &mut Vec<Record>) {
        let admin = self.administrator(dice.index(4));
        let ip = &admin.office_ip;
        let moment = |dice: &mut Dice| opening + TimeDelta::seconds(dice.between(600, 30_000));
        for _ in 0..dice.between(0, 4) {
            let host = &self.office.staff[dice.index(self.office.staff.len())];
            let guest = format!("visitor{}_partner.example.net#EXT#@{DOMAIN}", dice.between(1, 400));
            let (at, edit) = (moment(dice), Edit::new("Invite external user.", "User", &guest).from(&host.office_ip));
            records.push(self.edit(dice, at, host, edit));
        }
        if dice.percent(40) {
            let joiner = format!("joiner{}@{DOMAIN}", dice.between(1, 9_999));
            let (at, edit) = (moment(dice), Edit::new("Add user.", "User", &joiner).from(""));
            records.push(self.edit(dice, at, admin, edit));
        }
        let person = &self.office.staff[dice.index(self.office.staff.len())];
        if dice.percent(5) {
            let edit = Edit::new("Add member to role.", "Role", &person.user_name).from(ip).on(person).role(
                "Reports Reader",
                "4a5d8f65-41da-4de4-8968-e035b65339cf",
                "ReportsReaders",
            );
            let at = moment(dice);
            records.push(self.edit(dice, at, admin, edit));
        }
        let office_mail = [("Identity", "office.mail"), ("User", &person.user_name), ("AutoMapping", "True")];
        let footer = [("Name", "Legal footer"), ("ApplyHtmlDisclaimerText", "<p>Contoso</p>")];
        let allowed = [("ListType", "Sender"), ("Allow", "True"), ("Entries", "news@letters.example.net")];
        let cmdlets = [
            (
                15,
                ("Add-MailboxPermission", "office.mail"),
                [&office_mail[..], &[("AccessRights", "FullAccess")]].concat(),
            ),
            (
                5,
                ("Add-RecipientPermission", "office.mail"),
                [&office_mail[..2], &[("AccessRights", "SendAs")]].concat(),
            ),
            (8, ("Set-TransportRule", ""), footer.to_vec()),
            (10, ("New-TenantAllowBlockListItems", ""), allowed.to_vec()),
        ];
        for (share, what, parameters) in cmdlets {
            if dice.percent(share) {
                let at = moment(dice);
                records.push(self.cmdlet(dice, at, (admin, ip, ""), what, &parameters));
            }
        }
        if matches!(day, 2 | 18) {
            let policy = dice.guid();
            let edit = Edit::new("Update conditional access policy.", "Policy", &policy)
                .from(ip)
                .at(vec![("Require second factor outside the office".to_owned(), 1)])
                .set(
                    "ConditionalAccessPolicy",
                    "{\"state\":\"enabled\",\"conditions\":{\"locations\":{\"excludeLocations\":[\"AllTrusted\"]}}}",
                );
            let at = moment(dice);
            records.push(self.edit(dice, at, admin, edit));
        }
        if day == 22 {
            for name in ["Project North", "Project South"] {
                let at = moment(dice);
                records.push(teams::team_deleted(&self.office.tenant, dice, at, person, name));
            }
        }
        // The command line asks for a code that is typed into a browser.
        if day % 4 == 1 {
            let developer = &self.office.staff[100 + (day as usize / 4) % 3];
            let session = self.session(developer, 100 + (day as usize / 4) % 3, day);
            let (at, flow) = (moment(dice), dice.guid());
            let who = (developer, &session);
            let signed = entra::sign_in(&self.office.tenant, dice, at, who, &entra::DEVICE_CODE_CONFIRMED, &flow);
            records.push(through(signed, COMMAND_LINE_APP));
        }
    }

    /// Applications that people agree to: harmless ones on most days, and once one that the whole company gets.
    pub(super) fn consents(&self, dice: &mut Dice, (day, opening): (u64, DateTime<Utc>), records: &mut Vec<Record>) {
        let at = opening + TimeDelta::seconds(dice.between(600, 30_000));
        if day == 17 {
            let admin = self.administrator(1);
            let target =
                entra::target("ServicePrincipal", &dice.guid(), &[("Customer register", 1), (CUSTOMER_APP, 2)]);
            let edit = Edit::new("Add app role assignment to service principal.", "ServicePrincipal", CUSTOMER_APP)
                .from(&admin.office_ip)
                .at(target.clone())
                .set("AppRole.Value", "Mail.Read")
                .set("ServicePrincipal.AppId", CUSTOMER_APP);
            records.push(self.edit(dice, at, admin, edit));
            let edit = Edit::new("Consent to application.", "ServicePrincipal", CUSTOMER_APP)
                .from(&admin.office_ip)
                .at(target)
                .set("ConsentContext.IsAdminConsent", "True")
                .set("ConsentContext.OnBehalfOfAll", "True")
                .set("ConsentAction.Permissions", &permissions("AllPrincipals", "User.Read openid"));
            records.push(self.edit(dice, at, admin, edit));
        }
        if dice.percent(45) {
            let number = dice.index(self.office.staff.len());
            let person = &self.office.staff[number];
            let session = self.session(person, number, day);
            let (application, service) = (dice.guid(), dice.guid());
            let (name, scopes) = *dice.pick(&[
                ("Polls", "openid profile User.Read"),
                ("Whiteboard", "User.Read offline_access"),
                ("Meeting planner", "User.Read Calendars.Read"),
            ]);
            let target = entra::target("ServicePrincipal", &service, &[(name, 1), (&application, 2)]);
            let edit = Edit::new("Consent to application.", "ServicePrincipal", &application)
                .from(&session.ip)
                .with(session.browser)
                .at(target)
                .set("ConsentContext.IsAdminConsent", "False")
                .set("ConsentContext.OnBehalfOfAll", "False")
                .set("ConsentAction.Permissions", &permissions("Principal", scopes));
            records.push(self.edit(dice, at, person, edit));
        }
    }

    /// Programs with a token of their own, every day and night.
    pub(super) fn programs(&self, dice: &mut Dice, (day, opening): (u64, DateTime<Utc>), records: &mut Vec<Record>) {
        let mut read = |dice: &mut Dice, application: &str, number: usize, second: i64| {
            let person = &self.office.staff[number];
            let ip = format!("2001:db8:f900:1::{:x}", 1 + number % 7);
            let session = Session { id: dice.guid(), ip, browser: person.browser };
            let access = Access { person, session: &session, client: Client::App(application) };
            let messages = self.messages(dice, 2, 11);
            let at = opening + TimeDelta::seconds(second);
            records.push(mailbox::bind(&self.office.tenant, dice, at, access, BindShape::Newer, &[(INBOX, messages)]));
        };
        for number in (0..60).map(|turn| turn * 8 + 1) {
            read(dice, ARCHIVE_APP, number, -20_000 + number as i64 * 9);
        }
        if day >= 17 && !is_resting(day) {
            for number in 300..340 {
                read(dice, CUSTOMER_APP, number, number as i64 * 40);
            }
        }
    }

    /// What every tenant sees: passwords tried from everywhere, each address once or twice, and none is right.
    pub(super) fn strangers(&self, dice: &mut Dice, opening: DateTime<Utc>, records: &mut Vec<Record>) {
        for _ in 0..dice.between(12, 34) {
            let person = &self.office.staff[dice.index(self.office.staff.len())];
            let session = Session { id: dice.guid(), ip: hosting_address(dice), browser: dice.pick(&GUESSERS) };
            let at = opening + TimeDelta::seconds(dice.between(-7 * 3_600, 16 * 3_600));
            for turn in 0..dice.between(1, 3) {
                let (flow, at) = (dice.guid(), at + TimeDelta::seconds(turn * 3));
                let outcome = if dice.percent(20) { &entra::LOCKED } else { &entra::WRONG_PASSWORD };
                records.push(entra::sign_in(&self.office.tenant, dice, at, (person, &session), outcome, &flow));
            }
        }
    }

    /// Much at once, for a good reason: newsletters on Tuesdays, letters to customers, pictures for the press, a move of
    /// old mail and files.
    pub(super) fn campaigns(&self, dice: &mut Dice, (day, opening): (u64, DateTime<Utc>), records: &mut Vec<Record>) {
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
        if day == 10 {
            let (number, at) = (41, opening + TimeDelta::seconds(WORKING_SECONDS / 2));
            let (person, session) = (&self.office.staff[number], self.session(&self.office.staff[number], number, day));
            for turn in 0..18 {
                let at = at + TimeDelta::seconds(turn * 25);
                records.push(sharepoint::link(tenant, dice, at, (person, &session), "AnonymousLinkCreated"));
            }
        }
        if !(9..12).contains(&day) {
            return;
        }
        let admin = &self.office.administrator;
        for (number, person) in self.office.staff.iter().enumerate().skip((day as usize - 9) * 160).take(160) {
            let session = Session { id: dice.guid(), ip: admin.office_ip.clone(), browser: person.browser };
            let access = Access { person, session: &session, client: Client::App(MIGRATION_APP) };
            let at = opening + TimeDelta::seconds(10 * 3_600 + number as i64 * 20);
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
}

/// The text in which a consent lists its permissions, as it is sent since 2025.
pub(crate) fn permissions(consent_type: &str, scopes: &str) -> String {
    format!(
        "[] => [[Id: a, ClientId: b, PrincipalId: , ResourceId: c, ConsentType: {consent_type}, Scope:  {scopes}, \
         CreatedDateTime: , LastModifiedDateTime ]]; "
    )
}
