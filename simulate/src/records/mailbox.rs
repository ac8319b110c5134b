//! What happens inside mailboxes: reading (types 50 and 2), sending and rule changes (type 2), deleting (type 3).
//!
//! Binds carry only `ClientIPAddress`; the others carry `ClientIP` as well. The newer shape of a bind has no
//! `SessionId` and no `IsThrottled`: its session is `AppAccessContext.AADSessionId`. Both shapes are produced.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::exchange::{server, server_name};
use super::{Draft, EXCHANGE, EXCHANGE_ONLINE_APP, Opening, timed_id, timestamp};
use crate::Record;
use crate::dice::Dice;
use crate::people::{Person, Session, Tenant};

/// The program that opens the mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client<'a> {
    Web,
    Desktop,
    /// An application with a token, by application id.
    App(&'a str),
}

/// Whose mailbox, from where, with what.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub(crate) person: &'a Person,
    pub(crate) session: &'a Session,
    pub(crate) client: Client<'a>,
}

/// One message, as every record that touches it must name it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) internet_id: String,
    pub(crate) item_id: String,
    pub(crate) subject: String,
    pub(crate) size_bytes: i64,
    pub(crate) attachments: Option<String>,
}

impl Message {
    pub(crate) fn new(dice: &mut Dice, subject: &str) -> Message {
        let server = server_name(dice);
        let (prefix, suffix) = (dice.hex(18), dice.hex(28));
        Message {
            internet_id: format!("<{server}{prefix}@{server}.eurprd07.prod.outlook.com>"),
            item_id: format!("RgAAAAD{suffix}AAAJ"),
            subject: subject.to_owned(),
            size_bytes: dice.between(2_400, 96_000),
            attachments: None,
        }
    }
}

pub(crate) const INBOX: &str = "\\Inbox";
pub(crate) const SENT_ITEMS: &str = "\\Sent Items";
pub(crate) const DELETED_ITEMS: &str = "\\Deleted Items";
pub(crate) const DRAFTS: &str = "\\Drafts";

fn open(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    access: Access<'_>,
    operation: &str,
    record_type: u32,
) -> Draft {
    let Access { person, session, client } = access;
    let id = if record_type == 50 { dice.guid() } else { timed_id(dice, at) };
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation,
            record_type,
            result: Some("Succeeded"),
            user_key: &person.puid,
            user_type: 0,
            workload: "Exchange",
            client_ip: (record_type != 50).then_some(session.ip.as_str()),
            object_id: None,
            user_id: &person.user_name,
        },
    );
    let information = match client {
        Client::Web if dice.percent(50) => "Client=OWA;Action=ViaProxy".to_owned(),
        Client::Web => format!("Client=OWA;{};", session.browser.agent),
        Client::Desktop => "Client=MSExchangeRPC".to_owned(),
        Client::App(_) => "Client=REST;;".to_owned(),
    };
    match client {
        Client::Web => draft.put("AppId", EXCHANGE_ONLINE_APP),
        Client::App(id) => draft.put("AppId", id),
        Client::Desktop => {}
    }
    draft.put("ClientIPAddress", session.ip.clone());
    draft.put("ClientInfoString", information);
    draft.put("ExternalAccess", false);
    draft.put("InternalLogonType", 0);
    draft.put("LogonType", 0);
    draft.put("LogonUserSid", person.sid.clone());
    draft.put("MailboxGuid", person.mailbox.clone());
    draft.put("MailboxOwnerSid", person.sid.clone());
    draft.put("MailboxOwnerUPN", person.user_name.clone());
    draft.put("OrganizationName", tenant.organization.clone());
    draft.put("OriginatingServer", format!("{}\r\n", server(dice)));
    draft
}

fn put_program(draft: &mut Draft, client: Client<'_>) {
    match client {
        Client::Desktop => {
            draft.put("ClientProcessName", "OUTLOOK.EXE");
            draft.put("ClientVersion", "16.0.18429.20132");
        }
        Client::App(id) => draft.put("ClientAppId", id),
        Client::Web => {}
    }
}

/// A folder's id is a function of mailbox and path, so that records of one folder agree.
fn folder(person: &Person, path: &str) -> Value {
    json!({"Id": folder_id(person, path), "Path": path})
}

fn folder_id(person: &Person, path: &str) -> String {
    let mut dice = Dice::new(crate::dice::fingerprint(person.mailbox.as_bytes()), path, 0);
    format!("LgAAAAB{}AAAB", dice.hex(28))
}

/// Which of its shapes a bind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BindShape {
    Classic,
    /// Bind recording stopped: more than a thousand binds within a day.
    Throttled,
    Newer,
}

/// Messages opened one by one, summed up over two minutes. Newer shapes carry item ids and sizes.
pub(crate) fn bind(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    access: Access<'_>,
    shape: BindShape,
    folders: &[(&str, Vec<Message>)],
) -> Record {
    let mut draft = open(tenant, dice, at, access, "MailItemsAccessed", 50);
    let newer = shape == BindShape::Newer;
    if !newer {
        draft.put("SessionId", access.session.id.clone());
    }
    put_program(&mut draft, access.client);
    let mut properties = vec![json!({"Name": "MailAccessType", "Value": "Bind"})];
    if !newer {
        let throttled = if shape == BindShape::Throttled { "True" } else { "False" };
        properties.push(json!({"Name": "IsThrottled", "Value": throttled}));
    }
    draft.put("OperationProperties", properties);
    if newer {
        draft.put("TokenObjectId", access.person.object_id.clone());
        draft.put("TokenTenantId", tenant.id.clone());
    }
    let count: usize = folders.iter().map(|(_, messages)| messages.len()).sum();
    let folders: Vec<Value> = folders
        .iter()
        .map(|(path, messages)| {
            let items: Vec<Value> = messages.iter().map(|message| folder_item(message, newer)).collect();
            json!({"FolderItems": items, "Id": folder_id(access.person, path), "Path": path})
        })
        .collect();
    draft.put("Folders", folders);
    draft.put("OperationCount", count);
    if newer {
        draft.put(
            "AppAccessContext",
            json!({
                "AADSessionId": access.session.id,
                "APIId": EXCHANGE_ONLINE_APP,
                "ClientAppId": match access.client { Client::App(id) => id, _ => EXCHANGE_ONLINE_APP },
                "IssuedAtTime": timestamp(at - chrono::TimeDelta::minutes(40)),
                "UniqueTokenId": format!("{}AA", dice.hex(20)),
            }),
        );
    }
    draft.close(EXCHANGE)
}

fn folder_item(message: &Message, newer: bool) -> Value {
    if newer {
        json!({"Id": message.item_id, "InternetMessageId": message.internet_id, "SizeInBytes": message.size_bytes})
    } else {
        json!({"InternetMessageId": message.internet_id})
    }
}

/// A folder downloaded whole: all its mail must be taken as read.
pub(crate) fn sync(tenant: &Tenant, dice: &mut Dice, at: DateTime<Utc>, access: Access<'_>, path: &str) -> Record {
    let mut draft = open(tenant, dice, at, access, "MailItemsAccessed", 2);
    draft.put("SessionId", access.session.id.clone());
    put_program(&mut draft, access.client);
    draft.put("OperationProperties", super::pairs(&[("MailAccessType", "Sync"), ("IsThrottled", "False")]));
    let id = folder_id(access.person, path);
    let name = path.trim_start_matches('\\');
    draft.put("Item", json!({"Id": id, "ParentFolder": {"Id": id, "Name": name, "Path": "Not Available"}}));
    draft.close(EXCHANGE)
}

/// A message sent. Recipients are not in this record.
pub(crate) fn send(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    access: Access<'_>,
    message: &Message,
) -> Record {
    let mut draft = open(tenant, dice, at, access, "Send", 2);
    draft.put("SessionId", access.session.id.clone());
    put_program(&mut draft, access.client);
    let path = if access.client == Client::Desktop { "\\Outbox" } else { DRAFTS };
    let mut item = json!({
        "Id": message.item_id,
        "InternetMessageId": message.internet_id,
        "ParentFolder": folder(access.person, path),
        "SizeInBytes": message.size_bytes,
        "Subject": message.subject,
    });
    if let Some(attachments) = &message.attachments {
        item["Attachments"] = json!(attachments);
    }
    draft.put("Item", item);
    draft.close(EXCHANGE)
}

/// A message sent by a delegate in the name of the mailbox it lies in: `SendAs` or `SendOnBehalf`.
pub(crate) fn send_for(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    access: Access<'_>,
    (operation, owner): (&str, &Person),
) -> Record {
    let mut draft = open(tenant, dice, at, access, operation, 2);
    draft.put("LogonType", 2);
    draft.put("MailboxGuid", owner.mailbox.clone());
    draft.put("MailboxOwnerSid", owner.sid.clone());
    draft.put("MailboxOwnerUPN", owner.user_name.clone());
    draft.put("SessionId", access.session.id.clone());
    put_program(&mut draft, access.client);
    let message = Message::new(dice, "Appointment");
    draft.put(
        "Item",
        json!({
            "Id": message.item_id,
            "InternetMessageId": message.internet_id,
            "ParentFolder": folder(owner, DRAFTS),
            "SizeInBytes": message.size_bytes,
            "Subject": message.subject,
        }),
    );
    let (address, mailbox) = match operation {
        "SendAs" => ("SendAsUserSmtp", "SendAsUserMailboxGuid"),
        _ => ("SendOnBehalfOfUserSmtp", "SendOnBehalfOfUserMailboxGuid"),
    };
    draft.put(address, owner.user_name.clone());
    draft.put(mailbox, owner.mailbox.clone());
    draft.close(EXCHANGE)
}

/// `HardDelete`, `SoftDelete` or `MoveToDeletedItems` of some messages of one folder.
pub(crate) fn delete(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    access: Access<'_>,
    (operation, path): (&str, &str),
    messages: &[Message],
) -> Record {
    let mut draft = open(tenant, dice, at, access, operation, 3);
    draft.put("SessionId", access.session.id.clone());
    put_program(&mut draft, access.client);
    let affected: Vec<Value> = messages
        .iter()
        .map(|message| {
            let mut item = json!({
                "Id": message.item_id,
                "InternetMessageId": message.internet_id,
                "ParentFolder": folder(access.person, path),
                "Subject": message.subject,
            });
            if let Some(attachments) = &message.attachments {
                item["Attachments"] = json!(attachments);
            }
            item
        })
        .collect();
    draft.put("AffectedItems", affected);
    draft.put("CrossMailboxOperation", false);
    if operation == "MoveToDeletedItems" {
        draft.put("DestFolder", folder(access.person, DELETED_ITEMS));
    }
    draft.put("Folder", folder(access.person, path));
    draft.close(EXCHANGE)
}

/// A rule as desktop Outlook reports it.
pub(crate) enum RuleChange<'a> {
    Add {
        name: &'a str,
        condition: &'a str,
        actions: Value,
    },
    /// The program synchronises rules it already has: nothing but the number is said.
    Resync {
        rule_id: i64,
    },
}

pub(crate) fn update_inbox_rules(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    access: Access<'_>,
    rule: &RuleChange<'_>,
) -> Record {
    let mut draft = open(tenant, dice, at, access, "UpdateInboxRules", 2);
    draft.put("SessionId", access.session.id.clone());
    put_program(&mut draft, access.client);
    draft.put("ClientRequestId", format!("{{{}}}", dice.guid().to_uppercase()));
    let properties = match rule {
        RuleChange::Add { name, condition, actions } => json!([
            {"Name": "RuleOperation", "Value": "AddMailboxRule"},
            {"Name": "RuleId", "Value": "0"},
            {"Name": "RuleState", "Value": "Enabled, ExitAfterExecution"},
            {"Name": "RuleCondition", "Value": condition},
            {"Name": "RuleName", "Value": name},
            {"Name": "RuleProvider", "Value": "RuleOrganizer"},
            {"Name": "RuleActions", "Value": actions.to_string()},
        ]),
        RuleChange::Resync { rule_id } => json!([
            {"Name": "RuleOperation", "Value": "ModifyMailboxRule"},
            {"Name": "RuleId", "Value": rule_id.to_string()},
            {"Name": "RuleState"},
            {"Name": "RuleCondition", "Value": "{}"},
            {"Name": "RuleName"},
            {"Name": "RuleProvider"},
            {"Name": "RuleActions", "Value": "[]"},
        ]),
    };
    draft.put("OperationProperties", properties);
    let id = folder_id(access.person, INBOX);
    draft.put(
        "Item",
        json!({
            "Id": id,
            "ImmutableId": "ErrorDuringIdConversion",
            "ParentFolder": {"Id": id, "Name": "Inbox", "Path": INBOX},
        }),
    );
    draft.put("AppAccessContext", json!({}));
    draft.close(EXCHANGE)
}

/// A calendar shared: the grant sits inside the folder, the address is the service's own.
pub(crate) fn share_calendar(tenant: &Tenant, dice: &mut Dice, at: DateTime<Utc>, access: Access<'_>) -> Record {
    let local = Session { ip: "::1".to_owned(), ..access.session.clone() };
    let mut draft = open(tenant, dice, at, Access { session: &local, ..access }, "ModifyFolderPermissions", 2);
    draft.put("SessionId", local.id.clone());
    let id = folder_id(access.person, "\\Calendar");
    draft.put(
        "Item",
        json!({"Id": id, "ParentFolder": {
            "Id": id, "Path": "\\Calendar", "MemberRights": "FreeBusySimple",
            "MemberSid": "S-1-1-0", "MemberUpn": "Everyone", "Name": "Calendar",
        }}),
    );
    draft.close(EXCHANGE)
}
