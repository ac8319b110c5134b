//! Who did it, in whose mailbox, and the keys that join records.
//!
//! Keys are compared byte for byte everywhere later, so they are made comparable here, once: workloads differ in the
//! case of one and the same UPN or GUID. What stands for nothing (`<null>`, `Not Available`, an all-zero GUID) must not
//! become a key, because it would join everything with everything.

use crate::document::Node;
use crate::event::{DefectKind, Event, Value};
use crate::field::{self, Reading};
use crate::normalise::{first, sources, text};
use crate::path::{Path, Scalar};

/// Longest record id that is used as it is: Microsoft's are GUIDs. It becomes part of keys that are kept for years.
const RECORD_ID_BYTES_MAX: usize = 256;

/// The record id. A record without a usable one gets an id from its content: the same record delivered twice gets the
/// same id, two different records do not.
pub(crate) fn record_id(event: &Event) -> Reading {
    let made = || Value::Text(format!("content:{:032x}", event.content_hash()));
    match first(sources(field::ID), id_text, event.record()) {
        Reading::Nothing => Reading::Odd(made(), DefectKind::Missing),
        Reading::Unreadable => Reading::Odd(made(), DefectKind::Unreadable),
        id => id,
    }
}

fn id_text(scalar: &Scalar<'_>) -> Reading {
    match (scalar, text::saying(scalar)) {
        (_, None) => Reading::Nothing,
        (Scalar::Text(_), Some(id)) if id.len() <= RECORD_ID_BYTES_MAX => lower(&id),
        _ => Reading::Unreadable,
    }
}

/// A person's or a service's name, lower-case: SharePoint lower-cases UPNs, Exchange keeps their case.
pub(crate) fn user(scalar: &Scalar<'_>) -> Reading {
    match text::saying(scalar) {
        Some(user) => lower(&user),
        None => Reading::Nothing,
    }
}

/// An id that joins records and is compared without regard to case.
pub(crate) fn key(scalar: &Scalar<'_>) -> Reading {
    match text::saying(scalar).filter(|key| identifies(key)) {
        Some(key) => lower(&key),
        None => Reading::Nothing,
    }
}

/// An id that joins records and differs by case: the unique token id is base64.
pub(crate) fn case_sensitive_key(scalar: &Scalar<'_>) -> Reading {
    match text::saying(scalar).filter(|key| identifies(key)) {
        Some(key) => Reading::Value(Value::Text(key.trim().to_owned())),
        None => Reading::Nothing,
    }
}

/// False for what stands in the place of an id and is none: `Unknown`, and ids of zeros.
fn identifies(key: &str) -> bool {
    let key = key.trim();
    !key.eq_ignore_ascii_case("Unknown") && key.bytes().any(|byte| !matches!(byte, b'0' | b'-' | b'{' | b'}'))
}

fn lower(text: &str) -> Reading {
    Reading::Value(Value::Text(text.trim().to_lowercase()))
}

/// The kind of actor.
pub(crate) fn user_type(scalar: &Scalar<'_>) -> Reading {
    text::enumerated(scalar, |name| position(USER_TYPES, name))
}

/// How a mailbox was opened.
pub(crate) fn logon_type(scalar: &Scalar<'_>) -> Reading {
    text::enumerated(scalar, |name| match name {
        "Delegate" => Some(2),
        name => position(LOGON_TYPES, name),
    })
}

/// By number.
const USER_TYPES: &[&str] = &[
    "Regular",
    "Reserved",
    "Admin",
    "DCAdmin",
    "System",
    "Application",
    "ServicePrincipal",
    "CustomPolicy",
    "SystemPolicy",
    "PartnerTechnician",
    "Guest",
];

/// By number.
const LOGON_TYPES: &[&str] =
    &["Owner", "Admin", "Delegated", "Transport", "SystemService", "BestAccess", "DelegatedAdmin"];

fn position(names: &[&str], name: &str) -> Option<i64> {
    names.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|at| at as i64)
}

/// Whose mailbox it happened in.
///
/// A mailbox record names its owner. A cmdlet names the mailbox it changes, if it is one that changes a mailbox
/// ([`MAILBOX_NOUNS`]); all others have no owner, because a wrong owner misleads more than none.
///
/// Cmdlets name a mailbox by its alias or object id, sign-ins by UPN. Where that name is the actor's own (the part of
/// the UPN before the `@`, the object id of the token), the actor's UPN is given, so that "someone else's mailbox" can
/// be asked for: an alias is unique in its organisation and nearly always that part of the UPN. A rule cmdlet that
/// names no mailbox at all works on the actor's own.
pub(crate) fn mailbox_owner(event: &Event) -> Reading {
    let [owner, parameters @ ..] = sources(field::MAILBOX_OWNER) else { return Reading::Nothing };
    if let Reading::Value(owner) = first(std::slice::from_ref(owner), user, event.record()) {
        return Reading::Value(owner);
    }
    let noun = event.text(field::OPERATION_KEY).and_then(|operation| operation.split_once('-')).map(|(_, noun)| noun);
    let Some(noun) = noun.filter(|noun| MAILBOX_NOUNS.contains(noun)) else { return Reading::Nothing };
    let is_rule = RULE_NOUNS.contains(&noun);
    let named = parameters.iter().enumerate().find_map(|(at, path)| {
        // Of a rule cmdlet, only `Mailbox` names a mailbox by itself; `Identity` may be the rule's own id.
        named_mailbox(path, event.record(), is_rule && at > 0)
    });
    let actor = event.text(field::USER_ID).filter(|user| user.contains('@'));
    let owner = match (named, actor) {
        (Some(named), Some(actor)) if is_actor(&named, actor, event) => actor.to_owned(),
        (Some(named), _) => named,
        (None, Some(actor)) if is_rule => actor.to_owned(),
        (None, _) => return Reading::Nothing,
    };
    Reading::Value(Value::Text(owner))
}

/// The mailbox that a cmdlet's argument names: `alex`, `alex@contoso.com`, `alex\rule`, `alex:\Inbox`,
/// `…/contoso.onmicrosoft.com/alex\rule`. The rule's name may contain anything, so the first backslash ends it.
fn named_mailbox(path: &Path, record: Node<'_>, part_of_rule: bool) -> Option<String> {
    let mut found = Vec::new();
    path.select_record(record, &mut found);
    found.iter().filter_map(text::saying).find_map(|argument| {
        let (mailbox, rule) = argument.split_once('\\').map_or((argument.as_ref(), None), |(a, b)| (a, Some(b)));
        let canonical = mailbox.contains('/');
        let mailbox = mailbox.trim().trim_end_matches(':').rsplit('/').next()?.trim();
        let names_a_mailbox = rule.is_some() || canonical || !part_of_rule;
        (names_a_mailbox && !mailbox.is_empty()).then(|| mailbox.to_lowercase())
    })
}

fn is_actor(mailbox: &str, actor: &str, event: &Event) -> bool {
    let alias = actor.split_once('@').map(|(alias, _)| alias);
    alias == Some(mailbox) || event.text(field::ACTOR_OBJECT_ID) == Some(mailbox)
}

/// What a cmdlet that changes one mailbox acts on: the part of its name after the dash, lower-case.
const MAILBOX_NOUNS: &[&str] = &[
    "calendarprocessing",
    "casmailbox",
    "clutter",
    "focusedinbox",
    "inboxrule",
    "mailbox",
    "mailboxauditbypassassociation",
    "mailboxautoreplyconfiguration",
    "mailboxcalendarconfiguration",
    "mailboxcalendarfolder",
    "mailboxexportrequest",
    "mailboxfolderpermission",
    "mailboximportrequest",
    "mailboxjunkemailconfiguration",
    "mailboxmessageconfiguration",
    "mailboxpermission",
    "mailboxpermissions",
    "mailboxregionalconfiguration",
    "recipientpermission",
    "recoverableitems",
    "sweeprule",
    "userphoto",
];

/// Those of them whose `Identity` is a rule in the mailbox.
const RULE_NOUNS: &[&str] = &["inboxrule", "sweeprule"];
