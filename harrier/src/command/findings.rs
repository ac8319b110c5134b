//! `harrier findings`: list and show.

use std::io::Write;

use crate::cli::{Findings, FindingsAction, Global};
use crate::exit::Outcome;

pub async fn run(global: &Global, options: &Findings) -> anyhow::Result<Outcome> {
    let sql = super::archive(global).await?;
    let mut out = std::io::stdout().lock();
    match &options.action {
        FindingsAction::Show { id } => {
            write!(out, "{}", investigate::findings::page(&investigate::findings::find(&sql, id).await?))?
        }
        FindingsAction::List { min_level, json } => {
            let findings = investigate::findings::standing(&sql).await?;
            for finding in findings.iter().filter(|finding| finding.rule.level >= *min_level) {
                if *json {
                    writeln!(out, "{}", serde_json::to_string(finding)?)?;
                } else {
                    writeln!(
                        out,
                        "{}  {}",
                        &finding.id[..finding.id.len().min(12)],
                        investigate::findings::line(finding)
                    )?;
                }
            }
            if findings.is_empty() {
                eprintln!("no findings. That is no proof of peace: see SELECT * FROM coverage");
            }
        }
    }
    Ok(Outcome::Done)
}
