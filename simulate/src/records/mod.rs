//! The shapes of audit records, one file per workload.
//!
//! Guarantee: keys in the order the service writes them, and the oddities kept: no `Z` on `CreationTime`, numbers that
//! are strings, name/value entries without a value, addresses in five spellings. Code that reads records is tested
//! against what is really sent, so nothing here is tidied.

pub(crate) mod defender;
pub(crate) mod entra;
pub(crate) mod exchange;
pub(crate) mod flow;
pub(crate) mod mailbox;
pub(crate) mod sharepoint;
pub(crate) mod teams;

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Map, Value, json};

use crate::Record;
use crate::dice::{Dice, format_guid};
use crate::people::Tenant;

pub(crate) const ENTRA: &str = "Audit.AzureActiveDirectory";
pub(crate) const EXCHANGE: &str = "Audit.Exchange";
pub(crate) const SHAREPOINT: &str = "Audit.SharePoint";
pub(crate) const GENERAL: &str = "Audit.General";
pub(crate) const DATA_LOSS: &str = "DLP.All";

/// In the order the service documents them. `DLP.All` exists and is empty here.
pub(crate) const CONTENT_TYPES: [&str; 5] = [ENTRA, EXCHANGE, SHAREPOINT, GENERAL, DATA_LOSS];

/// The well-known application ids of Microsoft that records name.
pub(crate) const EXCHANGE_ONLINE_APP: &str = "00000002-0000-0ff1-ce00-000000000000";
pub(crate) const SHAREPOINT_ONLINE_APP: &str = "00000003-0000-0ff1-ce00-000000000000";
pub(crate) const GRAPH_APP: &str = "00000003-0000-0000-c000-000000000000";
pub(crate) const OFFICE_DESKTOP_APP: &str = "d3590ed6-52b3-4102-aeff-aad2292ab01c";

/// The common fields of a record, before those of its workload.
pub(crate) struct Opening<'a> {
    pub(crate) at: DateTime<Utc>,
    pub(crate) id: String,
    pub(crate) operation: &'a str,
    pub(crate) record_type: u32,
    pub(crate) result: Option<&'a str>,
    pub(crate) user_key: &'a str,
    pub(crate) user_type: u8,
    pub(crate) workload: &'a str,
    pub(crate) client_ip: Option<&'a str>,
    pub(crate) object_id: Option<&'a str>,
    pub(crate) user_id: &'a str,
}

/// A record under construction.
pub(crate) struct Draft {
    id: String,
    at: DateTime<Utc>,
    fields: Map<String, Value>,
}

impl Draft {
    pub(crate) fn open(tenant: &Tenant, opening: Opening<'_>) -> Draft {
        let mut draft = Draft { id: opening.id, at: opening.at.trunc_subsecs(0), fields: Map::new() };
        draft.put("CreationTime", timestamp(opening.at));
        draft.put("Id", draft.id.clone());
        draft.put("Operation", opening.operation);
        draft.put("OrganizationId", tenant.id.clone());
        draft.put("RecordType", opening.record_type);
        draft.put_some("ResultStatus", opening.result);
        draft.put("UserKey", opening.user_key);
        draft.put("UserType", opening.user_type);
        draft.put("Version", 1);
        draft.put("Workload", opening.workload);
        draft.put_some("ClientIP", opening.client_ip);
        draft.put_some("ObjectId", opening.object_id);
        draft.put("UserId", opening.user_id);
        draft
    }

    pub(crate) fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    pub(crate) fn put_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    pub(crate) fn close(self, content_type: &'static str) -> Record {
        Record {
            id: self.id,
            content_type,
            created: self.at,
            json: Value::Object(self.fields).to_string(),
            malicious: false,
        }
    }
}

/// UTC without saying so, whole seconds.
pub(crate) fn timestamp(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S").to_string()
}

/// `[{"Name": .., "Value": ..}]`, the service's way of writing a map.
pub(crate) fn pairs(entries: &[(&str, &str)]) -> Value {
    entries.iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect()
}

/// The id of Exchange, SharePoint and alert records: its last twelve digits are the top of the .NET tick count, so that
/// ids sort by time. Readers use it to order records within one second.
pub(crate) fn timed_id(dice: &mut Dice, at: DateTime<Utc>) -> String {
    const TICKS_BEFORE_1970: i64 = 621_355_968_000_000_000;
    let ticks = (TICKS_BEFORE_1970 + at.timestamp_micros() * 10) as u64;
    let high = (dice.next() & 0xffff_ffff_ffff_0fff) | 0x4000;
    format_guid(high, (dice.next() << 48) | (ticks >> 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timed_id_carries_its_second() {
        let at = DateTime::from_timestamp(1_795_255_471, 0).unwrap_or_default();
        let id = timed_id(&mut Dice::new(1, "id", 0), at);
        let top = u64::from_str_radix(&id[24..], 16).unwrap();
        let seconds = ((top << 16) as i64 - 621_355_968_000_000_000) / 10_000_000;
        assert!((at.timestamp() - seconds).abs() <= 1);
    }
}
