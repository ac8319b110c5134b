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
