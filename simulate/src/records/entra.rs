//! Sign-ins (type 15) and changes of the directory (type 8).
//!
//! `ResultStatus` of a sign-in says nothing about its outcome: more than half of the wrong passwords carry `Success`.
//! Readers must decide by operation and error number, so both spellings are produced.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Draft, ENTRA, EXCHANGE_ONLINE_APP, GRAPH_APP, OFFICE_DESKTOP_APP, Opening, SHAREPOINT_ONLINE_APP, pairs};
use crate::Record;
use crate::dice::Dice;
use crate::people::{Person, Session, Tenant};

/// How a sign-in went, in the service's words.
#[derive(Debug)]
pub(crate) struct Outcome {
    operation: &'static str,
    result: &'static str,
    detail: &'static str,
    request: &'static str,
    number: &'static str,
    name: Option<&'static str>,
}

const fn success(request: &'static str, number: &'static str) -> Outcome {
    Outcome { operation: "UserLoggedIn", result: "Success", detail: "Success", request, number, name: None }
}

const fn refusal(
    result: &'static str,
    detail: &'static str,
    request: &'static str,
    error: (&'static str, &'static str),
) -> Outcome {
    Outcome { operation: "UserLoginFailed", result, detail, request, number: error.0, name: Some(error.1) }
}

pub(crate) static SIGNED_IN: Outcome = success("OAuth2:Authorize", "0");
pub(crate) static TOKEN_FETCHED: Outcome = success("OAuth2:Token", "0");
/// The page that asks to stay signed in: a success with an error number.
pub(crate) static KEPT_SIGNED_IN: Outcome = success("Login:reprocess", "50140");
pub(crate) static WRONG_PASSWORD: Outcome =
    refusal("Failed", "UserError", "OAuth2:Token", ("50126", "InvalidUserNameOrPassword"));
pub(crate) static WRONG_PASSWORD_CALLED_SUCCESS: Outcome =
    refusal("Success", "UserError", "Login:login", ("50126", "InvalidUserNameOrPassword"));
pub(crate) static SECOND_FACTOR_DEMANDED: Outcome =
    refusal("Success", "Redirect", "OAuth2:Authorize", ("50074", "UserStrongAuthClientAuthNRequiredInterrupt"));
pub(crate) static SECOND_FACTOR_TIMED_OUT: Outcome =
    refusal("Success", "UserError", "SAS:EndAuth", ("500121", "AuthenticationFailedSasError"));
/// Somebody confirmed on one device that another one may sign in.
pub(crate) static DEVICE_CODE_CONFIRMED: Outcome = success("Cmsi:Cmsi", "0");
pub(crate) static LOCKED: Outcome = refusal("Failed", "UserError", "OAuth2:Token", ("50053", "IdsLocked"));
pub(crate) static SILENT_PROBE: Outcome =
    refusal("Success", "Redirect", "OAuth2:Authorize", ("50058", "UserInformationNotProvided"));

/// Records of one flow share `flow`, and the second.
pub(crate) fn sign_in(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    (person, session): (&Person, &Session),
    outcome: &Outcome,
    flow: &str,
) -> Record {
    let id = dice.guid();
    let resource = *dice.pick(&[EXCHANGE_ONLINE_APP, EXCHANGE_ONLINE_APP, SHAREPOINT_ONLINE_APP, GRAPH_APP, "Unknown"]);
    let application = *dice.pick(&[OFFICE_DESKTOP_APP, EXCHANGE_ONLINE_APP, "4765445b-32c6-49b0-83e6-1d93765276ca"]);
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id: id.clone(),
            operation: outcome.operation,
            record_type: 15,
            result: Some(outcome.result),
            user_key: &person.object_id,
            user_type: 0,
            workload: "AzureActiveDirectory",
            client_ip: Some(&session.ip),
            object_id: Some(resource),
            user_id: &person.user_name,
        },
    );
    let mut extended = vec![
        ("ResultStatusDetail", outcome.detail),
        ("UserAgent", session.browser.agent),
        ("RequestType", outcome.request),
    ];
    if outcome.request.starts_with("Login") {
        extended.insert(2, ("UserAuthenticationMethod", "1"));
    }
    draft.put("AzureActiveDirectoryEventType", 1);
    draft.put("ExtendedProperties", pairs(&extended));
    draft.put("ModifiedProperties", json!([]));
    draft.put("Actor", json!([{"ID": person.object_id, "Type": 0}, {"ID": person.user_name, "Type": 5}]));
    draft.put("ActorContextId", tenant.id.clone());
    draft.put("ActorIpAddress", session.ip.clone());
    draft.put("InterSystemsId", flow);
    draft.put("IntraSystemId", id);
    draft.put("SupportTicketId", "");
    draft.put("Target", json!([{"ID": resource, "Type": 0}]));
    draft.put("TargetContextId", tenant.id.clone());
    draft.put("ApplicationId", application);
    // Many token requests say nothing of the device, and so nothing of the session.
    let is_silent = outcome.operation == "UserLoggedIn" && outcome.request == "OAuth2:Token" && dice.percent(60);
    if !is_silent {
        draft.put("DeviceProperties", device(session));
    }
    draft.put("ErrorNumber", outcome.number);
    draft.put_some("LogonError", outcome.name);
    draft.close(ENTRA)
}

fn device(session: &Session) -> Value {
    pairs(&[
        ("OS", session.browser.system),
        ("BrowserType", session.browser.name),
        ("IsCompliantAndManaged", "False"),
        ("SessionId", &session.id),
    ])
}

/// A change of the directory. All records of one gesture share `inter_systems_id` and `intra_system_id`.
pub(crate) struct Change<'a> {
    pub(crate) actor: &'a Person,
    pub(crate) client_ip: Option<&'a str>,
    pub(crate) operation: &'a str,
    pub(crate) category: &'a str,
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) object_id: &'a str,
    /// Name, new value, old value.
    pub(crate) modified: Vec<(&'a str, String, &'a str)>,
    pub(crate) target: Vec<(String, u8)>,
    pub(crate) inter_systems_id: &'a str,
    pub(crate) intra_system_id: &'a str,
}

pub(crate) fn change(tenant: &Tenant, dice: &mut Dice, at: DateTime<Utc>, change: Change<'_>) -> Record {
    let actor = change.actor;
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id: dice.guid(),
            operation: change.operation,
            record_type: 8,
            result: Some("Success"),
            user_key: &format!("{}@{}", actor.puid, tenant.organization),
            user_type: 0,
            workload: "AzureActiveDirectory",
            client_ip: change.client_ip,
            object_id: Some(change.object_id),
            user_id: &actor.user_name,
        },
    );
    let details = change.user_agent.map_or_else(|| "{}".to_owned(), |agent| json!({"User-Agent": agent}).to_string());
    let modified: Value = change
        .modified
        .iter()
        .map(|(name, new, old)| json!({"Name": name, "NewValue": new, "OldValue": old}))
        .collect();
    let target: Value = change.target.iter().map(|(id, kind)| json!({"ID": id, "Type": kind})).collect();
    draft.put("AzureActiveDirectoryEventType", 1);
    draft.put(
        "ExtendedProperties",
        pairs(&[("additionalDetails", &details), ("extendedAuditEventCategory", change.category)]),
    );
    draft.put("ModifiedProperties", modified);
    draft.put("Actor", user_actor(actor));
    draft.put("ActorContextId", tenant.id.clone());
    draft.put_some("ActorIpAddress", change.client_ip);
    draft.put("InterSystemsId", change.inter_systems_id);
    draft.put("IntraSystemId", change.intra_system_id);
    draft.put("SupportTicketId", "");
    draft.put("Target", target);
    draft.put("TargetContextId", tenant.id.clone());
    draft.close(ENTRA)
}

fn user_actor(actor: &Person) -> Value {
    json!([
        {"ID": actor.user_name, "Type": 5},
        {"ID": actor.puid, "Type": 3},
        {"ID": format!("User_{}", actor.object_id), "Type": 2},
        {"ID": actor.object_id, "Type": 2},
        {"ID": "User", "Type": 2},
    ])
}

/// The flat list that describes one entity: type word with id, id, type word, then whatever names it has.
pub(crate) fn target(kind: &str, object_id: &str, names: &[(&str, u8)]) -> Vec<(String, u8)> {
    let mut list = vec![(format!("{kind}_{object_id}"), 2), (object_id.to_owned(), 2), (kind.to_owned(), 2)];
    list.extend(names.iter().map(|(name, kind)| ((*name).to_owned(), *kind)));
    list
}

/// A value as directory records write it: pretty-printed JSON with Windows line ends, in a string.
pub(crate) fn listed(value: &str) -> String {
    format!("[\r\n  {}\r\n]", Value::from(value))
}
