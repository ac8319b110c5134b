//! The table of fields: what harrier knows about a record, by name.
//!
//! One line here is a column of `events`, a name that rules may use, a way of reading it and a line of the
//! documentation (`DESCRIBE events`). Adding a field is adding a line; files written before it read as null.

use crate::envelope::Origin;
use crate::event::{DefectKind, Event, Value};
use crate::normalise::{address, forwarding, identity, operation, text, when};
use crate::path::Scalar;

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Boolean,
    /// A moment, UTC, to the microsecond.
    Time,
    TextList,
}

/// One field.
pub struct Field {
    /// The name in rules, columns and documentation.
    pub name: &'static str,
    pub kind: Kind,
    /// Where it is read from, in order of preference: paths into the record. Empty for what comes with the delivery.
    pub sources: &'static [&'static str],
    /// What it means, for the one who asks `DESCRIBE`.
    pub doc: &'static str,
    pub(crate) read: Read,
}

/// How a field's value is had.
#[derive(Clone, Copy)]
pub(crate) enum Read {
    /// From the circumstances of the delivery.
    Delivery(fn(&Origin) -> Value),
    /// The first source whose value the function can read.
    First(fn(&Scalar<'_>) -> Reading),
    /// From the record as a whole and the fields above it in the table, never below: so no field waits for itself.
    Computed(fn(&Event) -> Reading),
}

/// What reading one source gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reading {
    /// A value.
    Value(Value),
    /// A value to work with, and what is odd about it.
    Odd(Value, DefectKind),
    /// The source says nothing (empty, `<null>`, `Not Available`): look at the next one, without a defect.
    Nothing,
    /// The source says something that is not of this field's type: look on, and note a defect.
    Unreadable,
}

/// A position in [`FIELDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(u16);

impl FieldId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Its line in the table.
    pub fn field(self) -> &'static Field {
        &FIELDS[self.index()]
    }
}

/// The field of that name. `raw` is none: an event does not carry a second copy of its bytes, the archive writes them
/// from the delivery, and rules read the parsed record.
pub fn by_name(name: &str) -> Option<FieldId> {
    FIELDS.iter().position(|field| field.name == name && name != "raw").map(|index| FieldId(index as u16))
}

macro_rules! fields {
    ($($id:ident $name:literal $kind:ident $read:expr, [$($source:literal),*], $doc:literal;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Position { $($id),* }
        $(#[doc = $doc] pub const $id: FieldId = FieldId(Position::$id as u16);)*
        /// Every field, in the order of the columns of `events`.
        pub static FIELDS: &[Field] = &[$(Field {
            name: $name, kind: Kind::$kind, sources: &[$($source),*], doc: $doc, read: $read,
        }),*];
    };
}

use Read::{Computed, Delivery, First};

fields! {
    TENANT "tenant" Text Delivery(|r| Value::Text(r.tenant.as_str().to_owned())), [],
        "The tenant's name in the configuration, or --tenant of an import.";
    ID "id" Text Computed(identity::record_id), ["Id"],
        "The record's id, lower-case; made from its content ('content:' and a hash) where it has none. With the tenant it names the record.";
    EVENT_TIME "event_time" Time First(when::utc), ["CreationTime", "CreationDate"],
        "When it happened (UTC), as the record says. 1970-01-01 where it does not say.";
    RECEIVED_TIME "received_time" Time Delivery(|r| Value::Time(r.received)), [],
        "When harrier received it (UTC). Microsoft delivers minutes to days after the event.";
    SOURCE "source" Text Delivery(|r| text::of(&r.source)), [],
        "The door it came through: management_activity, import.";
    CONTENT_TYPE "content_type" Text Delivery(|r| text::of(&r.content_type)), [],
        "The feed it came in (Audit.Exchange); null for an import.";
    BLOB_ID "blob_id" Text Delivery(|r| text::of(&r.blob_id)), [],
        "The content blob, or the file and line of an import.";
    RECORD_TYPE "record_type" Integer First(operation::record_type), ["RecordType"],
        "Microsoft's number for the kind of record.";
    RECORD_TYPE_NAME "record_type_name" Text Computed(operation::record_type_name), ["RecordType"],
        "Microsoft's name for record_type; null for a number this version does not know.";
    WORKLOAD "workload" Text First(text::trimmed), ["Workload"],
        "The service: Exchange, AzureActiveDirectory, SharePoint, OneDrive, MicrosoftTeams, SecurityComplianceCenter and others.";
    OPERATION "operation" Text First(text::verbatim), ["Operation"],
        "The activity exactly as written, full stops, dashes and trailing spaces included.";
    OPERATION_KEY "operation_key" Text Computed(operation::key), ["Operation"],
        "The activity for comparing: trimmed, final full stop removed, dashes as '-', lower-case.";
    ERROR_NUMBER "error_number" Integer First(text::integer), ["ErrorNumber", "ErrorCode"],
        "The sign-in error (AADSTS number): 50126 is a wrong password, 50053 a locked account.";
    OUTCOME "outcome" Text Computed(operation::outcome), ["Operation", "ErrorNumber", "ErrorCode", "LogonError", "ResultStatus"],
        "success, failure, interrupted (a sign-in that was neither), or unknown. For sign-ins from Operation and ErrorNumber, never from ResultStatus, which says Success on failures.";
    USER_ID "user_id" Text First(identity::user), ["UserId"],
        "The actor, lower-case: who did it. The owner of the mailbox is mailbox_owner.";
    USER_KEY "user_key" Text First(text::trimmed), ["UserKey"],
        "Another id of the actor; its shape depends on the workload.";
    ACTOR_OBJECT_ID "actor_object_id" Text First(identity::key), ["TokenObjectId"],
        "The directory object of the actor's token, lower-case: it survives a change of the UPN.";
    ACTOR_TENANT_ID "actor_tenant_id" Text First(identity::key), ["TokenTenantId", "ActorContextId"],
        "The actor's home tenant, lower-case; another one than organization_id is a guest, a partner or an outsider.";
    USER_TYPE "user_type" Integer First(identity::user_type), ["UserType"],
        "0 regular, 2 admin (also any person running an Exchange cmdlet), 3 Microsoft's datacenter, 4 system, 5 application, 6 service principal, 10 guest.";
    LOGON_TYPE "logon_type" Integer First(identity::logon_type), ["LogonType"],
        "How a mailbox was opened: 0 owner, 1 admin, 2 delegate.";
    MAILBOX_OWNER "mailbox_owner" Text Computed(identity::mailbox_owner), ["MailboxOwnerUPN", "Parameters.Mailbox", "Parameters.Identity", "ObjectId"],
        "Whose mailbox it happened in, lower-case: a UPN, or the alias or object id that the record names it by; null where no mailbox is involved.";
    CLIENT_IP "client_ip" Text First(address::ip), ["ClientIPAddress", "ClientIP", "ActorIpAddress", "ActorIP", "UserIp", "SenderIp"],
        "The address it came from, without port and brackets; ::ffff: forms as IPv4. It is often one of Microsoft's own.";
    CLIENT_PORT "client_port" Integer Computed(address::port), ["ClientIPAddress", "ClientIP", "ActorIpAddress", "ActorIP"],
        "The port written with the address, where there is one.";
    CLIENT_NETWORK "client_network" Text Computed(address::network), [],
        "The network of client_ip: /24 of an IPv4 address, /48 of an IPv6 address. What 'unusual address' compares by default.";
    SESSION_ID "session_id" Text First(identity::key), ["SessionId", "AppAccessContext.AADSessionId", "DeviceProperties.SessionId"],
        "The browser session, lower-case: joins a sign-in to all that was done with it.";
    TOKEN_ID "token_id" Text First(identity::case_sensitive_key), ["AppAccessContext.UniqueTokenId", "UniqueTokenIdentifier"],
        "The access token, case-sensitive: joins a token to its actions.";
    TOKEN_ISSUED_TIME "token_issued_time" Time First(when::utc), ["AppAccessContext.IssuedAtTime"],
        "When the token was issued (UTC): leads to the root sign-in where session_id is missing.";
    DEVICE_ID "device_id" Text First(identity::key), ["DeviceId", "DeviceProperties.Id"],
        "The device, lower-case; only registered devices have one.";
    APP_ID "app_id" Text First(identity::key), ["AppId", "ClientAppId", "ApplicationId", "AppAccessContext.ClientAppId"],
        "The application that acted, lower-case.";
    OBJECT_ID "object_id" Text First(text::verbatim), ["ObjectId"],
        "What it was done to; the meaning depends on the workload: a URL, a cmdlet's object, a directory object.";
    ORGANIZATION_ID "organization_id" Text First(identity::key), ["OrganizationId"],
        "Microsoft's id of the tenant, lower-case.";
    USER_AGENT "user_agent" Text First(text::trimmed), ["UserAgent", "ExtendedProperties.UserAgent", "ExtendedProperties.additionalDetails.User-Agent", "ClientInfoString"],
        "What the client says it is.";
    INTER_SYSTEMS_ID "inter_systems_id" Text First(identity::key), ["InterSystemsId"],
        "Correlation id of one Entra gesture: one consent writes several records that share it.";
    INTERNET_MESSAGE_IDS "internet_message_ids" TextList Computed(operation::internet_message_ids), ["Item.InternetMessageId", "Folders.FolderItems.InternetMessageId", "Messages.MessageItems.InternetMessageId", "AffectedItems.InternetMessageId", "InternetMessageId", "ExchangeMetaData.MessageID"],
        "The messages it touched: joins what was read, sent and deleted. The first 10,000.";
    NETWORK_MESSAGE_ID "network_message_id" Text First(identity::key), ["NetworkMessageId"],
        "Exchange Online's own id of a message, lower-case: joins Defender's records to message trace and clicked links.";
    MAIL_ACCESS_TYPE "mail_access_type" Text First(text::trimmed), ["OperationProperties.MailAccessType"],
        "Bind (single messages) or Sync (a whole folder was downloaded).";
    IS_THROTTLED "is_throttled" Boolean First(text::boolean), ["OperationProperties.IsThrottled"],
        "True: over 1,000 binds in a day, and Microsoft records no more of them for 24 hours. Assume that everything was read.";
    ITEM_COUNT "item_count" Integer Computed(operation::item_count), ["OperationCount", "Folders.FolderItems", "AffectedItems"],
        "How many items the record stands for: messages of a MailItemsAccessed record, affected items of a bulk deletion, else 1.";
    FORWARD_TARGETS "forward_targets" TextList Computed(forwarding::targets), ["Parameters.ForwardTo", "Parameters.RedirectTo", "Parameters.ForwardAsAttachmentTo", "Parameters.ForwardingSmtpAddress", "Parameters.BlindCopyTo", "Parameters.CopyTo", "Parameters.RedirectMessageTo", "Parameters.AddToRecipients", "Parameters.ForwardingAddress", "Parameters.JournalEmailAddress", "OperationProperties.RuleActions", "OperationProperties.Actions", "OperationProperties.ServerRule"],
        "Every mail address that a rule, a mailbox setting or a transport rule sends mail to, lower-case, sorted. The first 1,000.";
    RAW "raw" Text Delivery(|_| Value::Null), [],
        "The record exactly as received. param(raw, 'ForwardTo') reads its name/value arrays by name.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_field_is_documented() {
        for (index, field) in FIELDS.iter().enumerate() {
            let expected = (field.name != "raw").then_some(FieldId(index as u16));
            assert_eq!(by_name(field.name), expected, "{}", field.name);
            assert!(field.doc.ends_with('.'), "{}", field.name);
        }
    }
}
