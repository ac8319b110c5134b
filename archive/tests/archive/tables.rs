//! The tables that are made of records beside `events`, and the page that documents all of them.

use archive::sql::named::{PARAMETERS, QUERIES};
use archive::table::TABLES;

use crate::world::World;

/// What a query gives of the rows that these records make, line by line.
async fn rows_of(records: &[&str], query: &str) -> Vec<String> {
    let world = World::new();
    world.records(0, &records.iter().map(|record| (*record, 'a')).collect::<Vec<_>>()).await;
    world.drain().await;
    let rows = world.lines(query).await;
    // An archive from before this table: its rows are made of what `events` holds, and the log is not asked.
    for table in ["mail_items", "sign_ins"] {
        let _ = std::fs::remove_dir_all(world.folder.join("archive").join(table));
    }
    world.drain().await;
    assert_eq!(world.lines(query).await, rows, "begun from events");
    // And then it follows the log.
    world.records(1, &records.iter().map(|record| (*record, 'a')).collect::<Vec<_>>()).await;
    world.drain().await;
    assert_eq!(world.lines(query).await.len(), 2 * rows.len());
    rows
}

const ITEMS: &str = "SELECT concat_ws(' | ', event_id, CAST(item AS VARCHAR), access, mailbox_owner, folder, \
    internet_message_id, subject, CAST(size_bytes AS VARCHAR)) AS row FROM mail_items ORDER BY event_id, item";

fn texts(lines: &[String]) -> Vec<String> {
    let row =
        |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["row"].as_str().unwrap().to_owned();
    lines.iter().map(row).collect()
}

#[tokio::test]
async fn every_message_folder_and_throttled_day_is_a_row() {
    let records = [
        r#"{"Id":"a","CreationTime":"2026-11-20T10:00:00","RecordType":50,"Operation":"MailItemsAccessed","MailboxOwnerUPN":"O@t.example","OperationProperties":[{"Name":"MailAccessType","Value":"Bind"},{"Name":"IsThrottled","Value":"True"}],"Folders":[{"Path":"\\Inbox","FolderItems":[{"InternetMessageId":"<1@x>","SizeInBytes":7},{"InternetMessageId":"<2@x>"}]},{"Path":"\\Sent","FolderItems":[{"InternetMessageId":"<3@x>"}]}]}"#,
        r#"{"Id":"b","CreationTime":"2026-11-20T10:00:00","RecordType":2,"Operation":"MailItemsAccessed","MailboxOwnerUPN":"o@t.example","OperationProperties":[{"Name":"MailAccessType","Value":"Sync"}],"Item":{"Id":"x","ParentFolder":{"Name":"Inbox","Path":"Not Available"}}}"#,
        r#"{"Id":"c","CreationTime":"2026-11-20T10:00:00","RecordType":2,"Operation":"SendAs","Item":{"InternetMessageId":"<4@x>","Subject":"s","ParentFolder":{"Path":"\\Drafts"}}}"#,
        r#"{"Id":"d","CreationTime":"2026-11-20T10:00:00","RecordType":3,"Operation":"HardDelete","AffectedItems":[{"InternetMessageId":"<5@x>","Subject":"a"},{"Subject":"b"}]}"#,
        r#"{"Id":"e","CreationTime":"2026-11-20T10:00:00","RecordType":3,"Operation":"Move"}"#,
        r#"{"Id":"f","CreationTime":"2026-11-20T10:00:00","RecordType":50,"Operation":"MailItemsAccessed","Folders":"odd","Item":[[]],"AffectedItems":7}"#,
        r#"{"Id":"g","CreationTime":"2026-11-20T10:00:00","RecordType":1,"Operation":"New-InboxRule"}"#,
    ];
    let rows = rows_of(&records, ITEMS).await;
    let expected = [
        r"a | 1 | throttled | o@t.example",
        r"a | 2 | bind | o@t.example | \Inbox | <1@x> | 7",
        r"a | 3 | bind | o@t.example | \Inbox | <2@x>",
        r"a | 4 | bind | o@t.example | \Sent | <3@x>",
        r"b | 1 | sync | o@t.example | Inbox",
        r"c | 1 | send | \Drafts | <4@x> | s",
        r"d | 1 | delete | <5@x> | a",
        r"d | 2 | delete | b",
        r"e | 1 | move",
    ];
    let rows = texts(&rows);
    assert_eq!(rows[..9], expected);
    assert!(rows[9..].iter().all(|row| row.starts_with("f | ") && row.ends_with("bind")), "{rows:?}");
}

#[tokio::test]
async fn a_record_of_very_many_messages_is_cut_and_says_so() {
    let items = vec![r#"{"InternetMessageId":"<1@x>"}"#; 10_007].join(",");
    let record = format!(
        r#"{{"Id":"a","CreationTime":"2026-11-20T10:00:00","Operation":"MailItemsAccessed","Folders":[{{"Path":"p","FolderItems":[{items}]}}]}}"#
    );
    let query = "SELECT count(*) AS n, sum(items_left_out) AS left_out FROM mail_items GROUP BY client_ip";
    let world = World::new();
    world.records(0, &[(&record, 'a')]).await;
    world.drain().await;
    assert_eq!(world.lines(query).await, [r#"{"n":10000,"left_out":7}"#]);
}

#[tokio::test]
async fn a_sign_in_is_a_row_with_what_only_sign_ins_have() {
    let records = [
        r#"{"Id":"a","CreationTime":"2026-11-20T10:00:00","RecordType":15,"Operation":"UserLoggedIn","UserId":"U@t.example","ActorIpAddress":"192.0.2.1","ExtendedProperties":[{"Name":"RequestType","Value":"OAuth2:Authorize"},{"Name":"ResultStatusDetail","Value":"Redirect"}],"DeviceProperties":[{"Name":"OS","Value":"Windows"},{"Name":"SessionId","Value":"S"}],"Target":[{"ID":"app","Type":0}]}"#,
        r#"{"Id":"b","CreationTime":"2026-11-20T10:00:00","RecordType":15,"Operation":"UserLoginFailed","UserId":"u@t.example","ErrorNumber":"50126","LogonError":"InvalidUserNameOrPassword"}"#,
        r#"{"Id":"c","CreationTime":"2026-11-20T10:00:00","RecordType":8,"Operation":"Add user."}"#,
    ];
    let query = "SELECT concat_ws(' | ', event_id, user_id, client_ip, session_id, outcome, CAST(error_number AS VARCHAR), \
        target_id, request_type, result_detail, operating_system, logon_error) AS row FROM sign_ins ORDER BY event_id";
    let rows = rows_of(&records, query).await;
    assert_eq!(
        texts(&rows),
        [
            "a | u@t.example | 192.0.2.1 | s | success | app | OAuth2:Authorize | Redirect | Windows",
            "b | u@t.example | failure | 50126 | InvalidUserNameOrPassword"
        ]
    );
}

/// The page of all tables and columns, as its test wants it.
fn page() -> String {
    let mut page = String::from(
        "# The tables of the archive\n\nMade from the code (`UPDATE_GOLDEN=1 cargo test -p archive --test archive`); do not \
         edit. `DESCRIBE events` says the same.\nA column that came later has no values in older rows.\n",
    );
    for table in TABLES {
        page += &format!("\n## {}\n\n{}\n\n| column | type | meaning |\n|---|---|---|\n", table.name, table.doc);
        for column in table.columns() {
            page += &format!("| `{}` | {} | {} |\n", column.name, column.kind.name(), column.doc.replace('|', "\\|"));
        }
    }
    page
}

/// The page of all named queries, as its test wants it.
fn queries() -> String {
    let mut page = String::from(
        "# Questions with a name\n\nMade from the code (`UPDATE_GOLDEN=1 cargo test -p archive --test archive`); do not edit. \
         `harrier sql --queries` says the same.\n\n    harrier sql --query intruder user=alice@contoso.example since=7d\n\n\
         Ask `intruder` first: the others rest on whom it names. What an answer covers and cannot see is printed beside it, with \
         what was\ncollected. Parameters are values and never become part of a query.\n\n| parameter | without it | meaning |\n|---|---|---|\n",
    );
    for parameter in PARAMETERS {
        let default =
            parameter.default.map_or("must be given".to_owned(), |value| format!("`{value}`").replace("``", "none"));
        page += &format!("| `{}` | {default} | {} |\n", parameter.name, parameter.doc);
    }
    for query in QUERIES {
        assert!(query.question().ends_with(['?', '.']), "{}: no question", query.name);
        assert!(!query.covers().is_empty() && !query.cannot_see().is_empty(), "{}: no remarks", query.name);
        page += &format!("\n## {}\n\n{}\n\n", query.name, query.question());
        page += &format!("* Covers {}\n* Cannot see {}\n", query.covers(), query.cannot_see());
    }
    page
}

#[test]
fn the_pages_of_tables_and_queries_are_what_the_code_says() {
    for (name, page) in [("TABLES.md", page()), ("QUERIES.md", queries())] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "archive/{name} is not current: UPDATE_GOLDEN=1 cargo test -p archive --test archive");
    }
}
