//! What Microsoft itself noticed: mail verdicts (type 28), clicks on rewritten links (type 41), alerts (type 40).

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::mailbox::Message;
use super::{Draft, GENERAL, Opening, timed_id, timestamp};
use crate::Record;
use crate::dice::Dice;
use crate::people::{Person, Tenant};

/// A message with a verdict.
pub(crate) struct Verdict<'a> {
    pub(crate) message: &'a Message,
    pub(crate) recipient: &'a Person,
    pub(crate) sender: &'a str,
    pub(crate) sender_ip: &'a str,
    pub(crate) verdict: &'a str,
    pub(crate) method: &'a str,
    pub(crate) policy: &'a str,
    pub(crate) action: &'a str,
}

/// Policy and action are names, although the schema calls them numbers.
pub(crate) fn mail_verdict(tenant: &Tenant, dice: &mut Dice, at: DateTime<Utc>, mail: &Verdict<'_>) -> Record {
    let network_id = dice.guid();
    let object_id = format!("{network_id}{}", dice.between(1_000_000_000_000, 9_000_000_000_000));
    let id = dice.guid();
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation: "TIMailData",
            record_type: 28,
            result: None,
            user_key: "ThreatIntel",
            user_type: 4,
            workload: "ThreatIntelligence",
            client_ip: None,
            object_id: Some(&object_id),
            user_id: "ThreatIntel",
        },
    );
    draft.put("AttachmentData", json!([]));
    draft.put("DetectionMethod", mail.method);
    draft.put("DetectionType", if mail.action == "NoAction" { "Retroactive" } else { "Inline" });
    draft.put("EventDeepLink", format!("https://security.example.invalid/?id={network_id}"));
    draft.put("InternetMessageId", mail.message.internet_id.clone());
    draft.put("MessageTime", timestamp(at - TimeDelta::seconds(35)));
    draft.put("NetworkMessageId", network_id);
    draft.put("P1Sender", mail.sender);
    draft.put("P2Sender", mail.sender);
    draft.put("Policy", mail.policy);
    draft.put("PolicyAction", mail.action);
    draft.put("Recipients", json!([mail.recipient.user_name]));
    draft.put("SenderIp", mail.sender_ip);
    draft.put("Subject", mail.message.subject.clone());
    draft.put("Verdict", mail.verdict);
    draft.close(GENERAL)
}

/// A click on a rewritten link; action 4 is "the warning was clicked away".
pub(crate) fn link_click(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    (person, ip): (&Person, &str),
    url: &str,
) -> Record {
    let id = dice.guid();
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation: "TIUrlClickData",
            record_type: 41,
            result: None,
            user_key: "ThreatIntel",
            user_type: 4,
            workload: "ThreatIntelligence",
            client_ip: None,
            object_id: Some(url),
            user_id: &person.user_name,
        },
    );
    draft.put("AppName", "Mail");
    draft.put("URLClickAction", 4);
    draft.put("SourceId", dice.guid());
    draft.put("TimeOfClick", timestamp(at - TimeDelta::seconds(4)));
    draft.put("URL", url);
    draft.put("UserIp", ip);
    draft.close(GENERAL)
}

/// Microsoft's own alert about forwarding; `reid` in its data is the id of the record that caused it.
pub(crate) fn forwarding_alert(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    person: &Person,
    cause: &Record,
) -> Record {
    const NAME: &str = "Creation of forwarding/redirect rule";
    let (alert_id, policy_id, rule_id) = (dice.guid(), dice.guid(), dice.guid());
    let id = timed_id(dice, at);
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation: "AlertTriggered",
            record_type: 40,
            result: Some("Succeeded"),
            user_key: "SecurityComplianceAlerts",
            user_type: 4,
            workload: "SecurityComplianceCenter",
            client_ip: None,
            object_id: Some(&alert_id),
            user_id: "SecurityComplianceAlerts",
        },
    );
    let window = cause.created.format("%Y-%m-%dT%H:%M:00.0000000Z").to_string();
    let window_end = (cause.created + TimeDelta::minutes(1)).format("%Y-%m-%dT%H:%M:00.0000000Z").to_string();
    let data = json!({
        "f3u": person.user_name, "ts": window, "te": window_end, "op": "MailRedirect", "wl": "Exchange",
        "tid": tenant.id, "tdc": "1", "reid": cause.id, "rid": rule_id, "cid": policy_id,
        "ad": "Somebody set a mailbox to pass its mail on.", "lon": "MailRedirect", "an": NAME, "sev": "Informational",
    });
    draft.put("AlertId", alert_id);
    draft.put("AlertLinks", json!([{"AlertLinkHref": ""}]));
    draft.put("AlertType", "System");
    draft.put("Category", "ThreatManagement");
    draft.put("Comments", "New alert");
    draft.put("Data", data.to_string());
    draft.put("Name", NAME);
    draft.put("PolicyId", policy_id);
    draft.put("Severity", "Informational");
    draft.put("Source", "Office 365 Security & Compliance");
    draft.put("Status", "Active");
    draft.close(GENERAL)
}
