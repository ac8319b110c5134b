//! Microsoft Teams (type 25): no address, no result, and pairs of `Key` and `Value` where others say `Name`.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Draft, GENERAL, Opening};
use crate::Record;
use crate::dice::{Dice, fingerprint};
use crate::people::{Person, Tenant};

const TEAMS: [&str; 4] = ["Operations", "Sales", "Projects", "Whole company"];

pub(crate) fn activity(tenant: &Tenant, dice: &mut Dice, at: DateTime<Utc>, person: &Person) -> Record {
    let operation = *dice.pick(&["MessageSent", "MessageSent", "MessageCreatedHasLink", "MemberAdded", "TabAdded"]);
    let team = *dice.pick(&TEAMS);
    let by_service = operation == "MemberAdded";
    let id = dice.guid();
    let (user_key, user_id) = if by_service {
        (tenant.id.as_str(), "Microsoft Teams Sync")
    } else {
        (person.object_id.as_str(), person.user_name.as_str())
    };
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation,
            record_type: 25,
            result: None,
            user_key,
            user_type: if by_service { 5 } else { 0 },
            workload: "MicrosoftTeams",
            client_ip: None,
            object_id: None,
            user_id,
        },
    );
    let mut identity = Dice::new(fingerprint(tenant.id.as_bytes()), team, 0);
    draft.put("AADGroupId", identity.guid());
    draft.put("CommunicationType", "Team");
    draft.put("ExtraProperties", json!([{"Key": "UserAgent", "Value": "n/a"}]));
    if by_service {
        draft.put("Members", json!([{"DisplayName": person.display_name, "Role": 2, "UPN": person.user_name}]));
    } else {
        draft.put("MessageId", at.timestamp_millis().to_string());
        draft.put("MessageSizeInBytes", dice.between(40, 4_000));
    }
    draft.put("TeamGuid", format!("19:{}@thread.tacv2", identity.hex(32).to_lowercase()));
    draft.put("ItemName", team);
    draft.put("TeamName", team);
    draft.close(GENERAL)
}

/// A chat with one other person, inside or outside: `ChatCreated`, `MessageSent` or `MessageCreatedHasLink`.
pub(crate) fn chat(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    (person, ip): (&Person, &str),
    (operation, other): (&str, &str),
) -> Record {
    let id = dice.guid();
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation,
            record_type: 25,
            result: None,
            user_key: &person.object_id,
            user_type: 0,
            workload: "MicrosoftTeams",
            client_ip: Some(ip),
            object_id: None,
            user_id: &person.user_name,
        },
    );
    let mut thread = Dice::new(fingerprint(person.object_id.as_bytes()), other, 0);
    let domain = other.split_once('@').map_or(other, |(_, domain)| domain);
    let foreign = domain != tenant.domain;
    draft.put("ChatThreadId", format!("19:{}_{}@unq.gbl.spaces", person.object_id, thread.guid()));
    draft.put("CommunicationType", "OneOnOne");
    draft.put("ExtraProperties", json!([]));
    if operation == "ChatCreated" {
        draft.put("Members", json!([{"DisplayName": other, "Role": 1, "UPN": other}]));
    } else {
        draft.put("MessageId", at.timestamp_millis().to_string());
        draft.put("MessageSizeInBytes", dice.between(40, 4_000));
    }
    if operation == "MessageCreatedHasLink" {
        draft.put(
            "MessageURLs",
            json!([format!(
                "https://{}.example.net/page/{}",
                dice.pick(&["news", "shop", "wiki"]),
                dice.between(1, 900)
            )]),
        );
    }
    draft.put(
        "ParticipantInfo",
        json!({
            "HasForeignTenantUsers": foreign,
            "HasGuestUsers": false,
            "HasOtherGuestUsers": false,
            "ParticipatingDomains": [tenant.domain, domain],
        }),
    );
    draft.close(GENERAL)
}

/// A team that is over.
pub(crate) fn team_deleted(tenant: &Tenant, dice: &mut Dice, at: DateTime<Utc>, person: &Person, name: &str) -> Record {
    let id = dice.guid();
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation: "TeamDeleted",
            record_type: 25,
            result: None,
            user_key: &person.object_id,
            user_type: 0,
            workload: "MicrosoftTeams",
            client_ip: None,
            object_id: None,
            user_id: &person.user_name,
        },
    );
    draft.put("TeamGuid", format!("19:{}@thread.tacv2", dice.hex(32).to_lowercase()));
    draft.put("TeamName", name);
    draft.close(GENERAL)
}
