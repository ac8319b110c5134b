//! Exchange cmdlets (type 1): what administrators, Outlook on the web and, most of all, Microsoft's own automation run.

use chrono::{DateTime, Utc};

use super::{Draft, EXCHANGE, Opening, pairs, timed_id};
use crate::Record;
use crate::dice::Dice;
use crate::people::{Person, Tenant};

pub(crate) const FOREST: &str = "EURPR07A021.PROD.OUTLOOK.COM/Microsoft Exchange Hosted Organizations";

/// Who runs a cmdlet.
pub(crate) enum Runner<'a> {
    /// Any human is user type 2, whether administrator or not.
    Human { person: &'a Person, client: &'a str, session: &'a str, app_id: &'a str },
    /// The data centre: no address, user type 3.
    System { account: &'a str },
}

pub(crate) fn cmdlet(
    tenant: &Tenant,
    dice: &mut Dice,
    at: DateTime<Utc>,
    runner: &Runner<'_>,
    (operation, object_id): (&str, &str),
    parameters: &[(&str, &str)],
) -> Record {
    let (user_id, user_key, user_type, client_ip, app_id, session) = match *runner {
        Runner::Human { person, client, session, app_id } => {
            (person.user_name.as_str(), person.puid.as_str(), 2, Some(client), app_id, Some(session))
        }
        Runner::System { account } => (account, account, 3, None, "", None),
    };
    let id = timed_id(dice, at);
    let mut draft = Draft::open(
        tenant,
        Opening {
            at,
            id,
            operation,
            record_type: 1,
            result: Some("True"),
            user_key,
            user_type,
            workload: "Exchange",
            client_ip,
            object_id: Some(object_id),
            user_id,
        },
    );
    draft.put("AppId", app_id);
    draft.put("ClientAppId", "");
    draft.put("ExternalAccess", user_type == 3);
    draft.put("OrganizationName", tenant.organization.clone());
    draft.put("OriginatingServer", server(dice));
    draft.put("Parameters", pairs(parameters));
    draft.put_some("SessionId", session);
    draft.close(EXCHANGE)
}

/// A server with its version, which looks like an address and is none.
pub(crate) fn server(dice: &mut Dice) -> String {
    format!("{} (15.20.8{}.0{})", server_name(dice), dice.between(100, 400), dice.between(10, 30))
}

pub(crate) fn server_name(dice: &mut Dice) -> String {
    format!(
        "{}{:02}MB{:04}",
        dice.pick(&["AM0PR", "AS8PR", "DB9PR", "VI1PR"]),
        dice.between(1, 20),
        dice.between(1, 9_999)
    )
}
