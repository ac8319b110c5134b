//! A timeline for a terminal.

use schemas::text::escape_controls;
use unicode_width::UnicodeWidthStr;

use super::{Entry, Timeline};

/// The whole timeline as text. Nothing in it acts on the terminal.
pub fn print(timeline: &Timeline) -> String {
    let mut out = escape_controls(&timeline.value);
    match timeline.window {
        Some((first, last)) => out.push_str(&format!(
            "   {} to {} UTC   {} records ({})\n\n",
            first.format("%F %T"),
            last.format("%F %T"),
            timeline.records,
            timeline.window_reason
        )),
        None => out.push_str(&format!("   no records ({})\n\n", timeline.window_reason)),
    }
    let rows: Vec<[String; 5]> = timeline.entries.iter().map(row).collect();
    let heading = ["TIME (UTC)", "MARK", "ACTOR", "FROM", "WHAT"].map(str::to_owned);
    let widths: Vec<usize> =
        (0..4).map(|column| rows.iter().chain([&heading]).map(|row| row[column].width()).max().unwrap_or(0)).collect();
    if !rows.is_empty() {
        for row in [&heading].into_iter().chain(&rows) {
            for (cell, width) in row.iter().zip(&widths) {
                out.push_str(cell);
                out.push_str(&" ".repeat(width - cell.width() + 2));
            }
            out.push_str(&row[4]);
            out.push('\n');
        }
        out.push('\n');
    }
    if timeline.cut {
        out.push_str("There are more records than can be shown here: give --since and --until.\n\n");
    }
    for (index, finding) in timeline.findings.iter().enumerate() {
        let (level, title) = (escape_controls(&finding.level), escape_controls(&finding.title));
        out.push_str(&format!("[{}] {level}: {title}\n    {}\n", index + 1, escape_controls(&finding.reason)));
    }
    out.push_str("\nThis answer rests on:\n");
    for sentence in &timeline.coverage {
        out.push_str(&format!("  {}\n", escape_controls(sentence)));
    }
    out
}

fn row(entry: &Entry) -> [String; 5] {
    let last = if entry.last == entry.first {
        String::new()
    } else if entry.last.date_naive() == entry.first.date_naive() {
        format!(" .. {}", entry.last.format("%T"))
    } else {
        format!(" .. {}", entry.last.format("%m-%d %T"))
    };
    let mut what = escape_controls(&entry.operation);
    if entry.records > 1 {
        what.push_str(&format!(" x{}", entry.records));
    }
    if entry.items > entry.records as i64 {
        what.push_str(&format!(" ({} items)", entry.items));
    }
    for (before, text) in [(" ", &entry.outcome), (" in mailbox ", &entry.mailbox), (" -> ", &entry.what)] {
        if !text.is_empty() {
            what.push_str(before);
            what.push_str(&escape_controls(text));
        }
    }
    let marks = entry.marks.iter().map(|mark| format!("[{mark}]")).collect::<String>();
    [
        format!("{}{last}", entry.first.format("%F %T")),
        marks,
        escape_controls(&entry.actor),
        escape_controls(&entry.from),
        what,
    ]
}
