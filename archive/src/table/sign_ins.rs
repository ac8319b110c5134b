//! `sign_ins`: one row for each sign-in that the unified audit log tells of.

use std::sync::LazyLock;

use schemas::envelope::Received;
use schemas::message::Topic;
use schemas::path::{Path, Scalar};
use schemas::{Event, field};

use super::{Cell, Column, Kind, Row, Table, text};

pub static SIGN_INS: Table = Table {
    name: "sign_ins",
    doc: "One row for each sign-in of the unified audit log, failed ones among them. Entra's own sign-in log is not read yet.",
    columns,
    partition_columns: &["tenant", "day"],
    statistics: &["event_time"],
    bloom_filters: &["event_id", "user_id", "client_ip", "session_id", "token_id"],
    topic: Topic::Verdicts,
    sorted_by: &["user_id", "event_time", "event_id"],
    rows_of_event: Some(rows),
};

/// Columns that `events` has as well.
const FROM_EVENT: [(&str, field::FieldId); 15] = [
    ("event_id", field::ID),
    ("event_time", field::EVENT_TIME),
    ("operation", field::OPERATION),
    ("outcome", field::OUTCOME),
    ("error_number", field::ERROR_NUMBER),
    ("user_id", field::USER_ID),
    ("actor_object_id", field::ACTOR_OBJECT_ID),
    ("actor_tenant_id", field::ACTOR_TENANT_ID),
    ("client_ip", field::CLIENT_IP),
    ("client_network", field::CLIENT_NETWORK),
    ("session_id", field::SESSION_ID),
    ("token_id", field::TOKEN_ID),
    ("device_id", field::DEVICE_ID),
    ("app_id", field::APP_ID),
    ("user_agent", field::USER_AGENT),
];

/// Columns that only sign-ins have: name, path in the record, meaning.
const FROM_RECORD: [(&str, &str, &str); 9] = [
    ("target_id", "Target.ID", "What was signed in to: the first of the ids that the record names."),
    (
        "request_type",
        "ExtendedProperties.RequestType",
        "The step of the sign-in: OAuth2:Authorize, Login:login, SAS:ProcessAuth and others.",
    ),
    (
        "result_detail",
        "ExtendedProperties.ResultStatusDetail",
        "What became of the step: Success, Redirect, UserError and others.",
    ),
    (
        "authentication_method",
        "ExtendedProperties.UserAuthenticationMethod",
        "Microsoft's bit mask of the methods used.",
    ),
    ("device_name", "DeviceProperties.DisplayName", "The device's name, where it is registered."),
    ("operating_system", "DeviceProperties.OS", "The operating system that the client says it runs on."),
    ("browser", "DeviceProperties.BrowserType", "The browser that the client says it is."),
    (
        "is_compliant",
        "DeviceProperties.IsCompliant",
        "Whether the device is compliant, as the record has it: True or False.",
    ),
    ("logon_error", "LogonError", "Microsoft's name of the error."),
];

static PATHS: LazyLock<Vec<Path>> =
    LazyLock::new(|| FROM_RECORD.iter().map(|(_, path, _)| Path::of_record(path)).collect());

fn columns() -> Vec<Column> {
    let mut columns = vec![Column::new("tenant", Kind::Text, "The tenant's name.")];
    columns.extend(FROM_EVENT.iter().map(|(name, id)| {
        let field = id.field();
        Column { name, kind: field.kind.into(), doc: field.doc }
    }));
    columns.extend(FROM_RECORD.iter().map(|(name, _, doc)| Column::new(name, Kind::Text, doc)));
    columns.push(Column::new("day", Kind::Date, "The UTC day of event_time, by which the table is partitioned."));
    columns
}

fn rows<'e>(event: &'e Event, _: &'e Received, push: &mut dyn FnMut(Row<'e>)) {
    if !matches!(event.text(field::OPERATION_KEY), Some("userloggedin" | "userloginfailed")) {
        return;
    }
    let mut row: Row<'e> = vec![text(event.tenant().as_str())];
    row.extend(FROM_EVENT.iter().map(|(_, id)| Cell::Value(event.get(*id))));
    row.extend(PATHS.iter().map(|path| {
        let mut values = Vec::new();
        path.select_record(event.record(), &mut values);
        let first = values.iter().map(Scalar::to_text).find(|text| !text.is_empty());
        first.map_or(Cell::Null, |value| text(value.into_owned()))
    }));
    row.push(Cell::Date(event.time().date_naive()));
    push(row);
}
