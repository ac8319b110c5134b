//! `harrier sql` without a query: a shell, or, where nobody types, the statements that come on stdin.
//!
//! Each statement sees the archive as it is when it is asked. A mistake ends the statement, never the shell; Ctrl-C ends
//! a query that takes too long. What was typed is kept beside the archive, readable by its owner only, because questions
//! name people as well.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use archive::sql::Sql;
use archive::sql::named::{NamedQuery, QUERIES};
use archive::sql::output::Format;
use archive::table::TABLES;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::sql;
use crate::exit::Outcome;

const HISTORY_FILE_NAME: &str = "sql_history";

/// Most statements kept.
const HISTORY_MAX: usize = 1_000;

/// Longest input on stdin: far above any query that is planned.
const STDIN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Words that are completed beside the names of tables and columns.
const WORDS: &[&str] = &[
    "SELECT",
    "DISTINCT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "HAVING",
    "WITH",
    "JOIN",
    "LEFT JOIN",
    "ON",
    "AND",
    "OR",
    "NOT",
    "IN",
    "LIKE",
    "ILIKE",
    "BETWEEN",
    "IS NULL",
    "IS NOT NULL",
    "AS",
    "DESC",
    "count(*)",
    "array_agg(",
    "date_trunc('day', ",
    "param(raw, '",
    "field(raw, '",
    "DESCRIBE",
    "EXPLAIN",
    "UNION ALL",
    "INTERVAL '",
];

/// What begins with a backslash, and what it does.
const COMMANDS: &[(&str, &str)] = &[
    ("\\?", "this list"),
    ("\\d [TABLE]", "the tables, or the columns of one with their meaning"),
    ("\\queries [NAME]", "the questions of an incident, or the text of one"),
    ("\\ask NAME PARAMETER=VALUE ...", "ask one of them: \\ask intruder user=kim@contoso.com since=7d"),
    ("\\format NAME", "table, json, ndjson or csv"),
    ("\\timing", "say how long each answer took, or not"),
    ("\\pager", "show answers page by page, or not"),
    ("\\q", "leave"),
];

/// The shell as it stands.
struct Shell<'s> {
    sql: &'s Sql,
    format: Format,
    timing: bool,
    pager: bool,
}

/// What comes after a line.
#[derive(PartialEq, Eq)]
enum Next {
    Go,
    Leave,
}

pub async fn run(sql: &Sql, data_dir: &Path, format: Format) -> anyhow::Result<Outcome> {
    let is_typed = std::io::stdin().is_terminal();
    let mut shell = Shell { sql, format, timing: is_typed, pager: is_typed && std::io::stdout().is_terminal() };
    if is_typed { shell.type_in(data_dir).await } else { shell.read_in().await }
}

impl Shell<'_> {
    /// Statements from stdin, one after the other, up to the first that fails.
    async fn read_in(&mut self) -> anyhow::Result<Outcome> {
        let mut text = String::new();
        std::io::stdin().take(STDIN_BYTES_MAX + 1).read_to_string(&mut text)?;
        anyhow::ensure!(text.len() as u64 <= STDIN_BYTES_MAX, "more than 16 MiB of statements");
        let (mut statements, rest) = split(&text);
        statements.extend(Some(rest).filter(|rest| !rest.trim().is_empty()));
        anyhow::ensure!(!statements.is_empty(), "no query");
        for statement in statements {
            self.answer(statement).await?;
        }
        Ok(Outcome::Done)
    }

    async fn type_in(&mut self, data_dir: &Path) -> anyhow::Result<Outcome> {
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let mut editor: Editor<Typist, FileHistory> = Editor::with_config(config)?;
        editor.set_helper(Some(Typist::new()));
        let history = history(data_dir);
        if let Some(path) = &history {
            // A history that cannot be read is an empty one.
            let _ = editor.load_history(path);
        }
        println!(
            "The archive of {}, read-only. \\? for help, \\q to leave; a statement ends with ;",
            data_dir.display()
        );
        loop {
            // Typing blocks; nothing else waits for this thread.
            let line = tokio::task::block_in_place(|| editor.readline("harrier> "));
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => {
                    editor.add_history_entry(&line)?;
                    if let Some(path) = &history {
                        let _ = editor.append_history(path);
                    }
                    if self.line(&line).await? == Next::Leave {
                        return Ok(Outcome::Done);
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(Outcome::Done),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Does what a line asks for, and tells what went wrong.
    async fn line(&mut self, line: &str) -> anyhow::Result<Next> {
        let line = line.trim();
        if line.starts_with('\\') {
            return self.command(line).await;
        }
        let (mut statements, rest) = split(line);
        statements.extend(Some(rest).filter(|rest| !rest.trim().is_empty()));
        for statement in statements {
            self.tell(self.interruptible(self.answer(statement)).await)?;
        }
        Ok(Next::Go)
    }

    async fn command(&mut self, line: &str) -> anyhow::Result<Next> {
        let mut words = line.split_whitespace();
        let (command, rest) = (words.next().unwrap_or_default(), words.collect::<Vec<_>>());
        match (command, rest.as_slice()) {
            ("\\q" | "\\quit", _) => return Ok(Next::Leave),
            ("\\?" | "\\help", _) => COMMANDS.iter().for_each(|(name, what)| println!("{name:32} {what}")),
            ("\\d", []) => TABLES.iter().for_each(|table| println!("{}", table.name)),
            ("\\d", [table, ..]) => match TABLES.iter().find(|known| known.name == *table) {
                Some(table) => self.tell(self.answer(&format!("DESCRIBE {}", table.name)).await)?,
                None => eprintln!("there is no table of that name: \\d lists them"),
            },
            ("\\queries", rest) => self.tell(sql::list(rest.first().unwrap_or(&"")).map(drop))?,
            ("\\ask", [name, parameters @ ..]) => {
                let asked = self.ask(name, parameters);
                self.tell(self.interruptible(asked).await)?;
            }
            ("\\format", [name]) => match sql::format_named(name) {
                Some(Format::Parquet) | None => eprintln!("a format is table, json, ndjson or csv"),
                Some(format) => self.format = format,
            },
            ("\\timing", _) => self.timing = !self.timing,
            ("\\pager", _) => self.pager = !self.pager,
            _ => eprintln!("no such command: \\? lists them"),
        }
        Ok(Next::Go)
    }

    async fn ask(&self, name: &str, parameters: &[&str]) -> anyhow::Result<()> {
        let parameters = parameters.iter().map(|text| sql::parameter(text)).collect::<anyhow::Result<Vec<_>>>()?;
        sql::ask(self.sql, sql::found(name)?, &parameters, self.format).await.map(drop)
    }

    async fn answer(&self, statement: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let rows = self.sql.query(statement).await?;
        let pager = if self.pager { pager() } else { None };
        let written = match pager {
            None => sql::write(rows, self.format, std::io::stdout()).await?,
            Some(mut pager) => {
                let written = match pager.stdin.take() {
                    Some(input) => sql::write(rows, self.format, input).await,
                    None => Ok(0),
                };
                tokio::task::block_in_place(|| pager.wait())?;
                // Who has seen enough closes the pager before the end.
                match written {
                    Err(error) if crate::exit::is_broken_pipe(&error) => return Ok(()),
                    written => written?,
                }
            }
        };
        if self.timing {
            eprintln!("{written} rows in {}", spelt(began.elapsed()));
        }
        Ok(())
    }

    /// Ends with Ctrl-C.
    async fn interruptible(&self, answer: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        tokio::select! {
            answered = answer => answered,
            asked = tokio::signal::ctrl_c() => {
                asked?;
                anyhow::bail!("interrupted")
            }
        }
    }

    fn tell(&self, answered: anyhow::Result<()>) -> std::io::Result<()> {
        match answered {
            Ok(()) => Ok(()),
            Err(error) => writeln!(std::io::stderr(), "{}", crate::exit::told(&error)),
        }
    }
}

/// The pager, if there is one. It may start nothing and write nothing: what it shows was written by attackers.
fn pager() -> Option<std::process::Child> {
    let mut less = Command::new("less");
    less.args(["-FSX"]).env("LESSSECURE", "1").env_remove("LESSOPEN").env_remove("LESS").stdin(Stdio::piped());
    less.spawn().ok()
}

fn spelt(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// The file of what was typed; none where it cannot be written.
fn history(data_dir: &Path) -> Option<PathBuf> {
    let path = data_dir.join(HISTORY_FILE_NAME);
    OpenOptions::new().append(true).create(true).mode(0o600).open(&path).ok()?;
    Some(path)
}

/// The statements of a text, and what stands after the last semicolon. Those in quotes and comments end nothing.
fn split(text: &str) -> (Vec<&str>, &str) {
    let (mut statements, mut start) = (Vec::new(), 0);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let at = text.len() - rest.len();
        let skipped = match next {
            '\'' | '"' => rest[1..].find(next).map(|end| end + 2),
            '-' if rest.starts_with("--") => rest.find('\n'),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map(|end| end + 4),
            ';' => {
                let statement = text[start..at].trim();
                statements.extend(Some(statement).filter(|statement| !statement.is_empty()));
                start = at + 1;
                Some(1)
            }
            other => Some(other.len_utf8()),
        };
        // What is opened and not closed goes to the end.
        rest = skipped.map_or("", |skipped| &rest[skipped..]);
    }
    (statements, &text[start..])
}

/// Helps whoever types.
struct Typist {
    words: Vec<String>,
}

impl Typist {
    fn new() -> Typist {
        let columns = TABLES.iter().flat_map(|table| table.columns().into_iter().map(|column| column.name.to_string()));
        let named = QUERIES.iter().map(|query: &NamedQuery| format!("\\ask {}", query.name));
        let commands = COMMANDS.iter().filter_map(|(name, _)| name.split(' ').next()).map(str::to_owned);
        let mut words: Vec<String> = TABLES.iter().map(|table| table.name.to_owned()).chain(columns).collect();
        words.extend(WORDS.iter().map(|word| (*word).to_owned()).chain(named).chain(commands));
        words.sort();
        words.dedup();
        Typist { words }
    }

    /// The words that go on from what stands before a place, and where they begin. As upper or lower as it was begun.
    fn completed(&self, line: &str, at: usize) -> (usize, Vec<String>) {
        let before = &line[..at];
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '\\');
        let command = before.starts_with("\\ask ") && before.split_whitespace().count() <= 2;
        let start = if command { 0 } else { before.rfind(|c| !is_part(c)).map_or(0, |last| last + 1) };
        let begun = &before[start..];
        if begun.is_empty() {
            return (at, Vec::new());
        }
        let folded = begun.to_lowercase();
        let last = before[..start].split_whitespace().next_back().unwrap_or_default().to_lowercase();
        let is_table = |word: &String| TABLES.iter().any(|table| table.name == *word);
        let wants_table = ["from", "join", "describe", "\\d"].contains(&last.as_str());
        let goes_on = self
            .words
            .iter()
            .filter(|word| word.to_lowercase().starts_with(&folded) && (!wants_table || is_table(word)));
        let is_lower = begun.chars().any(char::is_lowercase);
        let cased = |word: &String| {
            if is_lower && word.chars().next().is_some_and(char::is_uppercase) {
                word.to_lowercase()
            } else {
                word.clone()
            }
        };
        (start, goes_on.map(cased).collect())
    }
}

impl Completer for Typist {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.completed(line, at))
    }
}

impl Validator for Typist {
    /// A statement goes on over lines until its semicolon.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input().trim();
        let is_whole = input.is_empty() || input.starts_with('\\') || split(input).1.trim().is_empty();
        Ok(if is_whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Typist {
    type Hint = String;
}

impl Highlighter for Typist {}

impl Helper for Typist {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_that_are_meant() {
        for (text, statements, rest) in [
            ("", vec![], ""),
            ("SELECT 1; SELECT ';', \";\" ;", vec!["SELECT 1", "SELECT ';', \";\""], ""),
            ("SELECT 'it''s; ' -- no; end\n; x", vec!["SELECT 'it''s; ' -- no; end"], " x"),
            ("SELECT /* ; */ 1;;", vec!["SELECT /* ; */ 1"], ""),
            ("SELECT 'open; ", vec![], "SELECT 'open; "),
            ("-- only", vec![], "-- only"),
            ("SELECT 'ä;é';", vec!["SELECT 'ä;é'"], ""),
        ] {
            assert_eq!(split(text), (statements, rest), "{text}");
        }
    }

    #[test]
    fn names_are_completed_where_they_stand() {
        let typist = Typist::new();
        let completed = |line: &str| typist.completed(line, line.len());
        assert_eq!(completed("SELECT user_i"), (7, vec!["user_id".to_owned()]));
        assert_eq!(completed("SELECT count(*) FROM mail_i"), (21, vec!["mail_items".to_owned()]));
        assert_eq!(completed("SELECT 1 FROM even"), (14, vec!["events".to_owned()]));
        assert_eq!(completed("sel"), (0, vec!["select".to_owned()]));
        assert_eq!(completed("SEL"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(completed("\\ask intr"), (0, vec!["\\ask intruder".to_owned()]));
        assert_eq!(completed("SELECT "), (7, vec![]));
    }
}
