//! The options of the command line, and nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use runtime::config::{Cloud, Guid};
use schemas::finding::Level;
use schemas::tenant::Tenant;
use serde::{Deserialize, Serialize};

/// harrier watches the audit records of Microsoft 365 tenants, alerts, and keeps every record so that one can ask
/// long after: how were we breached, when, was it the only account, what was taken, what was left behind.
#[derive(Debug, Parser)]
#[command(name = "harrier", version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for log and archive; alone it is configuration enough.
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Rules beside the embedded pack: files or folders. Repeatable.
    #[arg(long = "rules", global = true, value_name = "PATH")]
    pub rules: Vec<PathBuf>,
    /// Only warnings and errors on stderr, no progress.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Say what each step does, on stderr.
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play an account takeover against a fake tenant and show what harrier makes of it.
    Demo(Demo),
    /// Run the services: poll, detect, archive, notify.
    Run(Run),
    /// Read records from files, judge and archive them, and say what was found.
    Import(Import),
    /// Fetch what the feeds no longer have, from Microsoft's audit search.
    Backfill(Backfill),
    /// Ask the archive in SQL.
    Sql(Sql),
    /// Prove that the archive is whole, compact it, or get a record back as it was received.
    Archive(Archive),
    /// List findings, or show one.
    Findings(Findings),
    /// What happened around a user, address, session, finding or incident.
    Timeline(Timeline),
    /// Check, test and list detection rules.
    Rules(Rules),
    /// Have it told when what an intruder used is seen again.
    Watch(Watch),
    /// Check configuration, rules, secrets and sinks, and ask Microsoft about each tenant; starts and changes nothing.
    Check(Check),
    /// How complete each feed is, and what is missing; from the log alone.
    Status(Status),
    /// Set up a tenant: the commands to paste, the configuration, a check.
    Init(Init),
    /// What could not be used, with its place and reason.
    DeadLetters(DeadLetters),
    /// Try the sinks of the configuration.
    Sink(Sink),
    /// Play a fake Microsoft 365 tenant on a loopback address.
    Simulate(Simulate),
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Seed of the played world: the same seed plays the same records.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct Run {
    /// Which services this process runs.
    #[arg(long, value_enum, default_value_t = Role::All)]
    pub role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    All,
    Ingest,
    Detect,
    Archive,
    Notify,
    /// The archive for PostgreSQL clients, read-only: a process of its own, and not among all.
    Sql,
}

#[derive(Debug, Args)]
pub struct Import {
    /// Files: JSON lines, a JSON array, a content blob, or a Purview / Search-UnifiedAuditLog CSV.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Which tenant the records are of: a name of your choice, a-z 0-9 and '-'.
    #[arg(long)]
    pub tenant: Tenant,
    /// The tenant's mail domains: what is not named is outside. Without them they are learnt from mailbox owners.
    #[arg(long, value_delimiter = ',')]
    pub domains: Vec<String>,
    /// The files hold all records of the tenant from here to there, such as 2026-11-01T00:00:00Z..2026-12-01T00:00:00Z:
    /// what did not happen in that time can then be told.
    #[arg(long, value_name = "FROM..TO", value_parser = stretch)]
    pub complete: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Deliver findings that these records cause. Without it an import alerts nobody.
    #[arg(long)]
    pub notify: bool,
    /// Exit with code 3 if there are new findings at this level or above.
    #[arg(long, value_parser = level)]
    pub fail_on: Option<Level>,
}

#[derive(Debug, Args)]
pub struct Watch {
    #[command(subcommand)]
    pub action: WatchAction,
}

#[derive(Debug, Subcommand)]
pub enum WatchAction {
    /// Put something on the list; a finding says who uses it, and who has used it before.
    Add {
        /// What kind of thing it is.
        #[arg(value_enum, required_unless_present = "finding", requires = "values")]
        kind: Option<WatchKind>,
        /// The things themselves.
        #[arg(value_name = "VALUE")]
        values: Vec<String>,
        /// Every address, session and forwarding target of this finding.
        #[arg(long, value_name = "ID", conflicts_with = "kind")]
        finding: Option<String>,
        /// Why, and who decided it: for whoever reads the finding or tidies the list.
        #[arg(long)]
        reason: String,
    },
    /// What is on the list, since when and why.
    List,
    /// Take something off the list.
    Remove {
        #[arg(value_enum)]
        kind: WatchKind,
        #[arg(required = true, value_name = "VALUE")]
        values: Vec<String>,
    },
}

/// What an intruder can be known again by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchKind {
    /// An IP address, or a network: 198.51.100.0/24.
    Address,
    /// The id of an application.
    Application,
    /// What a program calls itself, as in user_agent, whole.
    Client,
    /// A session's id.
    Session,
    /// A mail address that mail is forwarded to, or all of a domain: @evil.example.
    Target,
}

#[derive(Debug, Args)]
pub struct Check {
    /// Ask nobody: only what can be seen on this machine.
    #[arg(long)]
    pub offline: bool,
}

#[derive(Debug, Args)]
pub struct Status {
    /// Only this tenant.
    #[arg(long)]
    pub tenant: Option<Tenant>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is not given is asked for, where there is a terminal to ask at.
#[derive(Debug, Args)]
pub struct Init {
    /// Your name for the tenant: a-z, 0-9 and '-'.
    #[arg(long)]
    pub name: Option<Tenant>,
    /// The tenant's id, a GUID.
    #[arg(long)]
    pub tenant_id: Option<Guid>,
    /// The application's id, a GUID. Without it the commands that make the application are printed first.
    #[arg(long)]
    pub client_id: Option<Guid>,
    /// Microsoft's cloud: global, gcc, gcc-high, dod or china.
    #[arg(long, value_parser = cloud, default_value = "global")]
    pub cloud: Cloud,
    /// Mail domains of the tenant; what is not named is outside.
    #[arg(long, value_delimiter = ',')]
    pub domains: Vec<String>,
    /// How the application signs in.
    #[arg(long, value_enum, default_value_t = CredentialKind::Certificate)]
    pub credential: CredentialKind,
    /// The credential's file; relative to the configuration.
    #[arg(long, value_name = "FILE")]
    pub credential_file: Option<PathBuf>,
    /// Read the client secret from stdin and write it to its file.
    #[arg(long)]
    pub secret_stdin: bool,
    /// Where findings go: stdout, file:PATH, or webhook:PATH with PATH a file that holds the address. Repeatable.
    #[arg(long, value_parser = sink_choice)]
    pub sink: Vec<SinkChoice>,
    /// Address of a proxy or a fake tenant that stands for all of Microsoft's hosts.
    #[arg(long, value_name = "URL")]
    pub endpoints: Option<String>,
    /// Overwrite a configuration that is there.
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CredentialKind {
    Certificate,
    Federated,
    Secret,
}

/// A sink of a new configuration.
#[derive(Clone, Debug)]
pub enum SinkChoice {
    Stdout,
    File(PathBuf),
    Webhook(PathBuf),
}

fn sink_choice(text: &str) -> Result<SinkChoice, String> {
    match text.split_once(':') {
        None if text == "stdout" => Ok(SinkChoice::Stdout),
        Some(("file", path)) if !path.is_empty() => Ok(SinkChoice::File(path.into())),
        // The address itself would be a secret in the arguments.
        Some(("webhook", path)) if !path.is_empty() && !path.contains("://") => Ok(SinkChoice::Webhook(path.into())),
        _ => Err("stdout, file:PATH, or webhook:PATH with PATH a file that holds the address".to_owned()),
    }
}

fn cloud(text: &str) -> Result<Cloud, String> {
    let known = Cloud::ALL.into_iter().find(|cloud| cloud.as_str() == text);
    known.ok_or_else(|| format!("one of {}", Cloud::ALL.map(Cloud::as_str).join(", ")))
}

#[derive(Debug, Args)]
pub struct Backfill {
    /// Which tenant; may be left out where there is only one.
    #[arg(long)]
    pub tenant: Option<Tenant>,
    /// From here on, by the time of the events: RFC 3339, or so long ago [default: 180d, what Audit (Standard) keeps].
    #[arg(long, value_parser = moment)]
    pub since: Option<DateTime<Utc>>,
    /// Up to here [default: 6d ago, because the feeds have the rest].
    #[arg(long, value_parser = moment)]
    pub until: Option<DateTime<Utc>>,
    /// Deliver findings that these records cause. Without it a backfill alerts nobody.
    #[arg(long)]
    pub notify: bool,
}

#[derive(Debug, Args)]
pub struct Sql {
    /// The query; with --query, the first of its parameters. Without one: a shell, or the statements on stdin.
    #[arg(allow_hyphen_values = true, value_name = "QUERY")]
    pub query: Option<String>,
    /// Parameters of a named query, such as user=alice@contoso.example since=7d ip=203.0.113.77.
    #[arg(value_name = "NAME=VALUE", requires = "named")]
    pub parameters: Vec<String>,
    /// Read the query from a file.
    #[arg(long, short = 'f', conflicts_with = "query")]
    pub file: Option<PathBuf>,
    /// Ask a question of an incident by its name; --queries lists them.
    #[arg(long = "query", value_name = "NAME", conflicts_with = "file")]
    pub named: Option<String>,
    /// The named queries, what each covers and cannot see; with a name, its text.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["file", "query", "named"])]
    pub queries: Option<String>,
    /// How to print the answer. A table for people has at most 100,000 rows.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// How long the answer may take, to its last row.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub timeout_secs: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Ndjson,
    Csv,
    Parquet,
}

#[derive(Debug, Args)]
pub struct Archive {
    #[command(subcommand)]
    pub action: ArchiveAction,
}

#[derive(Debug, Subcommand)]
pub enum ArchiveAction {
    /// Check every commit and file against what was signed, offline. Exits with 1 if anything is not as it was written.
    Verify {
        /// A head that was kept elsewhere, as this command prints them, or a file of what a sink with `archive_heads` was
        /// told: without one, an archive that was brought back to an older state looks whole. Repeatable.
        #[arg(long = "head", value_name = "HASH|@FILE")]
        heads: Vec<String>,
        /// Keys that commits may be signed with. Without one the key that lies in the data folder, which proves little to
        /// others: whoever can alter the archive can replace it. Repeatable.
        #[arg(long = "public-key", value_name = "FILE")]
        public_keys: Vec<PathBuf>,
    },
    /// Make large files of small ones now, beside a running service or without one.
    Compact,
    /// Tables with their files, rows and bytes.
    Stats,
    /// The bytes of a record, exactly as received, on stdout.
    Raw {
        /// The record's id.
        id: String,
        /// Only of this tenant.
        #[arg(long)]
        tenant: Option<Tenant>,
        /// Of several contents under one id the one whose SHA-256 begins so.
        #[arg(long, value_name = "HEX", default_value = "")]
        sha256: String,
    },
    /// Take a person's data out, signed for. Says what would go; --yes does it.
    Erase(Erase),
}

#[derive(Debug, Args)]
pub struct Erase {
    /// Of this tenant.
    #[arg(long)]
    pub tenant: Tenant,
    /// What this user has done. Repeatable.
    #[arg(long = "user", value_name = "UPN", required_unless_present = "mailboxes")]
    pub users: Vec<String>,
    /// What was done in this mailbox, by whomever. Repeatable.
    #[arg(long = "mailbox", value_name = "ADDRESS")]
    pub mailboxes: Vec<String>,
    /// Why. It is signed and stays for ever, and must not name the person.
    #[arg(long)]
    pub reason: String,
    /// Who decided it; stays as well.
    #[arg(long, value_name = "NAME")]
    pub by: String,
    /// Only from this day on (UTC).
    #[arg(long, value_name = "DAY")]
    pub from: Option<NaiveDate>,
    /// Only up to this day (UTC), and with it.
    #[arg(long, value_name = "DAY")]
    pub until: Option<NaiveDate>,
    /// Do it.
    #[arg(long)]
    pub yes: bool,
    /// Delete the replaced files at once, and not a day later: whoever reads an older state then finds them missing.
    #[arg(long, requires = "yes")]
    pub now: bool,
}

#[derive(Debug, Args)]
pub struct Findings {
    #[command(subcommand)]
    pub action: FindingsAction,
}

#[derive(Debug, Subcommand)]
pub enum FindingsAction {
    /// The findings that stand, earliest first.
    List {
        /// Only this level and above.
        #[arg(long, value_parser = level, default_value = "informational")]
        min_level: Level,
        /// Whole findings as lines of JSON.
        #[arg(long)]
        json: bool,
    },
    /// One finding, with its reason, evidence and what to do next.
    Show {
        /// The finding's id, or the beginning of it.
        id: String,
    },
}

#[derive(Debug, Args)]
pub struct Timeline {
    /// A user, mailbox, address, session id, application id, finding id or incident id.
    pub value: String,
    /// From here on: RFC 3339, or so long ago, such as 7d or 12h.
    #[arg(long, value_parser = moment)]
    pub since: Option<DateTime<Utc>>,
    /// Up to here: RFC 3339, or so long ago.
    #[arg(long, value_parser = moment)]
    pub until: Option<DateTime<Utc>>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Rules {
    #[command(subcommand)]
    pub action: RulesAction,
}

#[derive(Debug, Subcommand)]
pub enum RulesAction {
    /// Load every rule and report all problems at once.
    Check,
    /// Run the tests that rules carry, each in several orders of arrival.
    Test {
        /// Only rules with this id or name.
        rule: Option<String>,
    },
    /// Every rule: level, name, title.
    List,
    /// Why a rule finds something in some records, or does not: line by line, and how far windows came.
    Explain {
        /// The rule's id or name.
        rule: String,
        /// A file with one record, or with several: lines of JSON, or an array.
        #[arg(value_name = "RECORD.json")]
        file: PathBuf,
        /// The tenant's mail domains: what is not named is outside.
        #[arg(long, value_delimiter = ',')]
        domains: Vec<String>,
    },
    /// What each rule costs on records of one's own: how often it is asked, and for how long.
    Bench {
        /// A file of records: lines of JSON, or an array.
        #[arg(value_name = "RECORDS.json")]
        file: PathBuf,
    },
    /// Judge the archive again, and say what is different from what stands there or from what other rules find.
    Backtest(Backtest),
    /// What each rule can see of a tenant: live, unheard (its operations have not occurred), cold (still learning) or
    /// deaf (what it needs is missing), and which mailboxes are not audited. From the archive alone.
    Coverage(RulesCoverage),
    /// What the tuning file excepts: by whom, why, until when, and how many records each exception took from its rule.
    Exceptions(RulesExceptions),
    /// A JSON Schema of rule files, for editors that complete and check while a rule is written.
    Schema,
    /// Put these rules in force for every detector of the log, also if they were replaced before.
    Publish,
}

#[derive(Debug, Args)]
pub struct Backtest {
    /// Findings that begin from here on: RFC 3339, or so long ago, such as 30d [default: all of the archive].
    #[arg(long, value_parser = moment)]
    pub since: Option<DateTime<Utc>>,
    /// Up to here; what goes on is cut off there.
    #[arg(long, value_parser = moment)]
    pub until: Option<DateTime<Utc>>,
    /// Compare with these rules, a file or a folder, in the place of those beside the pack. Without it, with the findings
    /// that stand in the archive.
    #[arg(long, value_name = "OLD")]
    pub against: Option<PathBuf>,
    /// Only this tenant.
    #[arg(long)]
    pub tenant: Option<Tenant>,
    /// The tenant's mail domains, beside those of the configuration: those that its import was given.
    #[arg(long, value_delimiter = ',', requires = "tenant")]
    pub domains: Vec<String>,
    /// Every finding that is not the same, as lines of JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RulesCoverage {
    /// Records from here on: RFC 3339, or so long ago, such as 30d [default: 30 days before the end].
    #[arg(long, value_parser = moment)]
    pub since: Option<DateTime<Utc>>,
    /// Up to here [default: the tenant's last record].
    #[arg(long, value_parser = moment)]
    pub until: Option<DateTime<Utc>>,
    /// Only this tenant.
    #[arg(long)]
    pub tenant: Option<Tenant>,
    /// Every rule, those that see all they need included.
    #[arg(long)]
    pub all: bool,
    /// Every rule as a line of JSON.
    #[arg(long, conflicts_with = "all")]
    pub json: bool,
    /// A layer for the ATT&CK Navigator instead: for each technique the rules that can see it, of one tenant.
    #[arg(long, conflicts_with_all = ["all", "json"])]
    pub layer: bool,
}

#[derive(Debug, Args)]
pub struct RulesExceptions {
    /// Records from here on: RFC 3339, or so long ago, such as 30d [default: 30 days before the end].
    #[arg(long, value_parser = moment)]
    pub since: Option<DateTime<Utc>>,
    /// Up to here [default: now].
    #[arg(long, value_parser = moment)]
    pub until: Option<DateTime<Utc>>,
    /// Only this tenant.
    #[arg(long)]
    pub tenant: Option<Tenant>,
    /// Every exception as a line of JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DeadLetters {
    #[command(subcommand)]
    pub action: DeadLettersAction,
}

#[derive(Debug, Subcommand)]
pub enum DeadLettersAction {
    /// The newest first.
    List {
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
}

#[derive(Debug, Args)]
pub struct Sink {
    #[command(subcommand)]
    pub action: SinkAction,
}

#[derive(Debug, Subcommand)]
pub enum SinkAction {
    /// Send one message that says it is a trial.
    Test {
        /// The sink's name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct Simulate {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// What is played: quiet or takeover.
    #[arg(long, default_value = "takeover")]
    pub scenario: String,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Ordinary users.
    #[arg(long, default_value_t = 20)]
    pub users: u32,
    /// Days of ordinary traffic before the story.
    #[arg(long, default_value_t = 14)]
    pub days: u32,
    /// Faults by name, or `all`.
    #[arg(long, value_delimiter = ',', long_help = format!("Faults by name, or all:{}", simulate::Fault::help()))]
    pub faults: Vec<String>,
    /// What is set up wrongly in the tenant, by name, such as auditing_off or no_consent.
    #[arg(long, value_delimiter = ',')]
    pub broken: Vec<String>,
    /// The certificate (PEM) that the application may sign in with.
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// The moment the story ends (RFC 3339); now, if not given. With it, two runs play the same world.
    #[arg(long, value_parser = moment)]
    pub end: Option<DateTime<Utc>>,
    /// Write the configuration that reaches this tenant, and its secret, into this folder.
    #[arg(long, value_name = "DIR")]
    pub write_config: Option<PathBuf>,
}

fn level(text: &str) -> Result<Level, String> {
    Level::ALL
        .into_iter()
        .find(|level| level.as_str() == text)
        .ok_or_else(|| format!("one of {}", Level::ALL.map(Level::as_str).join(", ")))
}

/// Two moments in RFC 3339, the later one second. No lengths of time: what is in a file does not depend on when it is read.
fn stretch(text: &str) -> Result<(DateTime<Utc>, DateTime<Utc>), String> {
    let time = |text: &str| DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let times = text.split_once("..").and_then(|(from, to)| Some((time(from).ok()?, time(to).ok()?)));
    match times {
        Some((from, to)) if from < to => Ok((from, to)),
        Some(_) => Err("the first moment is not before the second".to_owned()),
        None => Err("two times, such as 2026-11-01T00:00:00Z..2026-12-01T00:00:00Z".to_owned()),
    }
}

/// RFC 3339, or a length of time before now.
pub fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let ago = runtime::config::parse_duration(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
    ago.map(|ago| Utc::now() - ago)
        .ok_or_else(|| "a time such as 2026-11-22T10:00:00Z, or a length such as 7d".to_owned())
}
