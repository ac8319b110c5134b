//! `mail_items`: one row for each message that was read, sent, deleted or moved, and for each folder that was taken whole.
//!
//! A record of `MailItemsAccessed` stands for many messages, and may stand for more than it names: *Sync* is a folder, and
//! *throttled* a day of which nothing more was recorded. Each is a row of its own, so that a join by message never passes
//! over what has no message.

use std::sync::LazyLock;

use schemas::document::Node;
use schemas::envelope::Received;
use schemas::message::Topic;
use schemas::path::{Path, Scalar};
use schemas::{Event, field};

use super::{Cell, Column, Kind, Row, Table, optional, text};

/// Rows of one record. Microsoft's own name some hundred messages; one that is made up must not become millions of rows.
const ITEMS_MAX: usize = 10_000;

pub static MAIL_ITEMS: Table = Table {
    name: "mail_items",
    doc: "One row for each message read, sent, deleted or moved, for each folder downloaded whole, and for each day of which Microsoft recorded no more reading.",
    columns,
    partition_columns: &["tenant", "day"],
    statistics: &["event_time"],
    bloom_filters: &["event_id", "mailbox_owner", "user_id", "client_ip", "session_id", "internet_message_id"],
    topic: Topic::Verdicts,
    sorted_by: &["mailbox_owner", "event_time", "event_id", "item"],
    rows_of_event: Some(rows),
};

fn columns() -> Vec<Column> {
    vec![
        Column::new("tenant", Kind::Text, "The tenant's name."),
        Column::new("event_id", Kind::Text, "events.id: the record that tells of it."),
        Column::new("item", Kind::Integer, "Counts the rows of a record from 1."),
        Column::new("event_time", Kind::Time, "When it happened (UTC). Reading is summed up over two minutes."),
        Column::new("operation", Kind::Text, "events.operation."),
        Column::new(
            "access",
            Kind::Text,
            "bind (a message was opened), sync (a folder was downloaded: take all of it as read), throttled (nothing more was recorded for 24 hours: take everything as read), send, delete or move.",
        ),
        Column::new("user_id", Kind::Text, "events.user_id: who did it."),
        Column::new("mailbox_owner", Kind::Text, "events.mailbox_owner: whose mailbox it was."),
        Column::new("client_ip", Kind::Text, "events.client_ip."),
        Column::new("session_id", Kind::Text, "events.session_id."),
        Column::new("token_id", Kind::Text, "events.token_id."),
        Column::new("app_id", Kind::Text, "events.app_id."),
        Column::new("user_agent", Kind::Text, "events.user_agent."),
        Column::new("folder", Kind::Text, "The folder, by its path or else its name."),
        Column::new(
            "internet_message_id",
            Kind::Text,
            "The message, as mail systems name it; null for a whole folder or day.",
        ),
        Column::new("subject", Kind::Text, "The subject, where the record has it."),
        Column::new("size_bytes", Kind::Integer, "The message's size, where the record has it."),
        Column::new(
            "items_left_out",
            Kind::Integer,
            "In the last row of a record that names more than 10,000: how many more.",
        ),
        Column::new("day", Kind::Date, "The UTC day of event_time, by which the table is partitioned."),
    ]
}

/// What a record says of one message or folder.
#[derive(Debug, Default)]
struct Item {
    access: &'static str,
    folder: Option<String>,
    internet_message_id: Option<String>,
    subject: Option<String>,
    size_bytes: Option<i64>,
}

fn rows<'e>(event: &'e Event, _: &'e Received, push: &mut dyn FnMut(Row<'e>)) {
    let Some(items) = items(event) else { return };
    let left_out = items.len().saturating_sub(ITEMS_MAX);
    let count = items.len() - left_out;
    for (index, item) in items.into_iter().take(ITEMS_MAX).enumerate() {
        let is_last = index + 1 == count;
        push(row(event, index, item, if is_last { left_out } else { 0 }));
    }
}

fn row(event: &Event, index: usize, item: Item, left_out: usize) -> Row<'_> {
    let of = |field| Cell::Value(event.get(field));
    let owned = |text: Option<String>| text.map_or(Cell::Null, super::text);
    vec![
        text(event.tenant().as_str()),
        of(field::ID),
        Cell::Integer(index as i64 + 1),
        of(field::EVENT_TIME),
        of(field::OPERATION),
        optional(Some(item.access)),
        of(field::USER_ID),
        of(field::MAILBOX_OWNER),
        of(field::CLIENT_IP),
        of(field::SESSION_ID),
        of(field::TOKEN_ID),
        of(field::APP_ID),
        of(field::USER_AGENT),
        owned(item.folder),
        owned(item.internet_message_id),
        owned(item.subject),
        item.size_bytes.map_or(Cell::Null, Cell::Integer),
        if left_out > 0 { Cell::Integer(left_out as i64) } else { Cell::Null },
        Cell::Date(event.time().date_naive()),
    ]
}

/// The items of a record; none, if it is not about mail.
fn items(event: &Event) -> Option<Vec<Item>> {
    let access = match event.text(field::OPERATION_KEY)? {
        "mailitemsaccessed" => return Some(accessed(event)),
        "send" | "sendas" | "sendonbehalf" => "send",
        "harddelete" | "softdelete" | "movetodeleteditems" => "delete",
        "move" => "move",
        _ => return None,
    };
    let list = if access == "send" { &ITEM } else { &AFFECTED };
    let mut items = Vec::new();
    list.for_each_member(event.record(), &mut |node| items.push(message(node, access, folder_of(node))));
    // A record that names nothing still says that something was done.
    if items.is_empty() {
        items.push(Item { access, ..Item::default() });
    }
    Some(items)
}

fn accessed(event: &Event) -> Vec<Item> {
    let is_sync = event.text(field::MAIL_ACCESS_TYPE).is_some_and(|kind| kind.eq_ignore_ascii_case("Sync"));
    let access = if is_sync { "sync" } else { "bind" };
    let mut items = Vec::new();
    FOLDERS.for_each_member(event.record(), &mut |folder| {
        let name = name_of(folder);
        if is_sync {
            items.push(Item { access, folder: name.clone(), ..Item::default() });
        }
        FOLDER_ITEMS.for_each_member(folder, &mut |node| items.push(message(node, access, name.clone())));
    });
    ITEM.for_each_member(event.record(), &mut |node| items.push(message(node, access, folder_of(node))));
    if items.is_empty() {
        items.push(Item { access, ..Item::default() });
    }
    if matches!(event.get(field::IS_THROTTLED), schemas::Value::Boolean(true)) {
        items.insert(0, Item { access: "throttled", ..Item::default() });
    }
    items
}

fn message(node: Node<'_>, access: &'static str, folder: Option<String>) -> Item {
    Item {
        access,
        folder,
        internet_message_id: one(node, &MESSAGE_ID),
        subject: one(node, &SUBJECT),
        size_bytes: one(node, &SIZE).and_then(|size| size.parse().ok()),
    }
}

fn folder_of(item: Node<'_>) -> Option<String> {
    item.get("ParentFolder").and_then(name_of)
}

fn name_of(folder: Node<'_>) -> Option<String> {
    let is_said = |name: &String| name != "Not Available";
    one(folder, &FOLDER_PATH).filter(is_said).or_else(|| one(folder, &FOLDER_NAME).filter(is_said))
}

/// The value at a path, as text; none, if there is none or it is empty.
fn one(node: Node<'_>, path: &Path) -> Option<String> {
    let mut values = Vec::new();
    path.select_record(node, &mut values);
    values.first().map(Scalar::to_text).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

macro_rules! paths {
    ($($name:ident $path:literal;)*) => { $(static $name: LazyLock<Path> = LazyLock::new(|| Path::of_record($path));)* };
}

paths! {
    FOLDERS "Folders";
    FOLDER_ITEMS "FolderItems";
    FOLDER_PATH "Path";
    FOLDER_NAME "Name";
    ITEM "Item";
    AFFECTED "AffectedItems";
    MESSAGE_ID "InternetMessageId";
    SUBJECT "Subject";
    SIZE "SizeInBytes";
}
