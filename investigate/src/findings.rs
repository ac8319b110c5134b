//! Findings as an analyst reads them.

use archive::sql::Sql;
use schemas::Finding;
use schemas::text::escape_controls;
use serde::Deserialize;

use crate::error::Error;
use crate::rows;

#[derive(Deserialize)]
struct Row {
    finding: String,
}

/// The findings that stand, earliest first.
pub async fn standing(sql: &Sql) -> Result<Vec<Finding>, Error> {
    let text = "SELECT finding FROM findings WHERE status IN ('open', 'final') ORDER BY first_event, id";
    let rows: Vec<Row> = rows::query(sql, text, &[]).await?;
    rows.iter().map(|row| Ok(serde_json::from_str(&row.finding)?)).collect()
}

/// One finding by its id, or by the beginning of it.
pub async fn find(sql: &Sql, id: &str) -> Result<Finding, Error> {
    let text = "SELECT finding FROM findings WHERE starts_with(id, $id) ORDER BY id LIMIT 1";
    let rows: Vec<Row> = rows::query(sql, text, &[("id", id)]).await?;
    let row = rows.first().ok_or_else(|| Error::NoFinding(escape_controls(id)))?;
    Ok(serde_json::from_str(&row.finding)?)
}

/// One line for a list.
pub fn line(finding: &Finding) -> String {
    format!(
        "{}  {:13}  {}  {}",
        finding.first_event.format("%F %T"),
        finding.rule.level.as_str(),
        escape_controls(&finding.rule.title),
        escape_controls(&finding.entity),
    )
}

/// The whole finding for a person.
pub fn page(finding: &Finding) -> String {
    let mut out = String::new();
    let mut say = |name: &str, text: &str| {
        if !text.is_empty() {
            out.push_str(&format!("{name:<12}{}\n", escape_controls(text)));
        }
    };
    say("finding", &finding.id);
    say("title", &finding.rule.title);
    say("level", finding.rule.level.as_str());
    say("status", finding.status.as_str());
    say("tenant", finding.tenant.as_str());
    say("incident", finding.incident_id.as_deref().unwrap_or_default());
    say("when (UTC)", &format!("{} to {}", finding.first_event.format("%F %T"), finding.last_event.format("%F %T")));
    say("records", &finding.event_count.to_string());
    say("reason", &finding.reason);
    for note in &finding.notes {
        say("note", note);
    }
    for entity in &finding.entities {
        say(&entity.kind, &entity.id);
    }
    say("attack", &finding.rule.attack.join(", "));
    say("answers", &finding.rule.answers.join(", "));
    for text in &finding.rule.false_positives {
        say("may be", text);
    }
    for (number, step) in finding.next.iter().enumerate() {
        say(&format!("next {}", number + 1), &step.text);
        say("", step.command.as_deref().unwrap_or_default());
    }
    for id in finding.evidence.iter().take(schemas::finding::EVIDENCE_SHOWN_MAX) {
        say("evidence", id);
    }
    if finding.evidence.len() > schemas::finding::EVIDENCE_SHOWN_MAX {
        say(
            "evidence",
            &format!(
                "and {} more: SELECT event_id FROM evidence WHERE finding_id = '{}'",
                finding.evidence.len() - schemas::finding::EVIDENCE_SHOWN_MAX,
                finding.id
            ),
        );
    }
    out
}
