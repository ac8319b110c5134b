//! Flows of Power Automate (type 30).

use chrono::{DateTime, Utc};

use super::{Draft, GENERAL, Opening};
use crate::Record;
use crate::dice::Dice;
use crate::people::{Person, Session, Tenant};

/// `CreateFlow` or `EditFlow`; connectors are names with commas between them.
pub(crate) fn change(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    (person, session): (&Person, &Session),
    (operation, connectors): (&str, &str),
) -> Record {
    let id = dice.guid();
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation,
            record_type: 30,
            result: None,
            user_key: &person.object_id,
            user_type: 0,
            workload: "MicrosoftFlow",
            client_ip: Some(&session.ip),
            object_id: None,
            user_id: &person.user_name,
        },
    );
    let environment = format!("Default-{}", tenant.id);
    draft.put("FlowConnectorNames", connectors);
    draft.put("FlowDetailsUrl", format!("https://admin.flow.example/environments/{environment}/flows/{}", dice.guid()));
    draft.put("LicenseDisplayName", "Power Automate P1");
    draft.put("SharingPermission", 3);
    draft.close(GENERAL)
}
