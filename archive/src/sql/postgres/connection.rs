//! A client that has signed in: its messages one after the other, in the simple and the extended protocol.
//!
//! Transactions are kept count of, because drivers do; nothing is done in one. Each question has a snapshot of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use runtime::shutdown::Shutdown;
use schemas::text::escape_controls;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::super::QueryError;
use super::super::limits::QUERY_BYTES_MAX;
use super::failure::{Failure, Severity};
use super::message::{Bind, Message, Subject};
use super::portal::{Portal, Prepared, Running, Trouble, Watch};
use super::reply::Status;
use super::sign_in::Stream;
use super::statement::{self, Statement, Words};
use super::types::{Column, Format, parameter, told_oid};
use super::variables::{Told, unknown};
use super::wire::{Ended, Wire};
use super::{
    IDLE_MAX, KEPT_BYTES_MAX, MESSAGE_BYTES_MAX, PORTALS_MAX, PREPARED_MAX, STATEMENTS_MAX, Session, Shared, question,
};

/// What of a question is put into the log.
const LOGGED_CHARACTERS_MAX: usize = 2_000;

pub(super) struct Connection {
    wire: Wire<Box<dyn Stream>>,
    session: Session,
    cancels: watch::Receiver<u64>,
    shared: Arc<Shared>,
    peer: SocketAddr,
    status: Status,
    prepared: HashMap<String, Prepared>,
    portals: HashMap<String, Portal>,
    /// After a failure of the extended protocol nothing is heard until the client draws a line.
    is_skipping: bool,
}

/// What housekeeping answers with.
struct Said {
    rows: Vec<Vec<String>>,
    tag: String,
}

impl From<&str> for Said {
    fn from(tag: &str) -> Said {
        Said { rows: Vec::new(), tag: tag.to_owned() }
    }
}

impl Connection {
    pub(super) fn new(
        wire: Wire<Box<dyn Stream>>,
        session: Session,
        cancels: watch::Receiver<u64>,
        shared: Arc<Shared>,
        peer: SocketAddr,
    ) -> Connection {
        let (prepared, portals) = (HashMap::new(), HashMap::new());
        Connection { wire, session, cancels, shared, peer, status: Status::Idle, prepared, portals, is_skipping: false }
    }

    /// Serves the client until it goes, and returns why it is over.
    pub(super) async fn run(mut self, shutdown: &Shutdown) -> &'static str {
        self.wire.replies.ready(self.status);
        if self.wire.flush().await.is_err() {
            return "gone";
        }
        loop {
            let next = timeout(IDLE_MAX, self.wire.message(MESSAGE_BYTES_MAX));
            let (failure, why) = match shutdown.unless(next).await {
                None => (Some(Failure::fatal("57P01", "harrier is stopping")), "stopping"),
                Some(Err(_)) => {
                    self.shared.limit("idle_time");
                    (Some(Failure::fatal("57P05", "the connection was idle for too long")), "idle")
                }
                Some(Ok(Ok(Message::Terminate))) => (None, "left"),
                Some(Ok(Ok(message))) => match self.take(message, shutdown).await {
                    Ok(()) => continue,
                    Err(Trouble::Failure(failure)) => (Some(failure), "failed"),
                    Err(Trouble::Ended(ended)) => (ended.failure(), "gone"),
                },
                Some(Ok(Err(ended))) => {
                    if matches!(ended, Ended::TooLong { .. }) {
                        self.shared.limit("message_bytes");
                    }
                    (ended.failure(), "gone")
                }
            };
            // What was being asked ends before the client is told.
            self.portals.clear();
            self.wire.farewell(failure.as_ref()).await;
            return why;
        }
    }

    /// Takes one message. An error ends the connection.
    async fn take(&mut self, message: Message, shutdown: &Shutdown) -> Result<(), Trouble> {
        if self.is_skipping && message != Message::Sync {
            return Ok(());
        }
        let is_simple = matches!(message, Message::Query(_));
        let taken = match message {
            Message::Query(text) => self.simple(&text, shutdown).await,
            Message::Parse { name, query, types } => self.parse(name, &query, &types, shutdown).await,
            Message::Bind(bind) => self.bind(bind).map_err(Trouble::from),
            Message::Describe(subject, name) => self.describe(subject, &name).map_err(Trouble::from),
            Message::Execute { portal, rows_max } => self.execute(&portal, rows_max, shutdown).await,
            Message::Close(Subject::Statement, name) => {
                self.prepared.remove(&name);
                self.wire.replies.closed();
                Ok(())
            }
            Message::Close(Subject::Portal, name) => {
                self.portals.remove(&name);
                self.wire.replies.closed();
                Ok(())
            }
            Message::Flush => self.wire.flush().await.map_err(Trouble::from),
            Message::Sync => {
                self.is_skipping = false;
                if self.status == Status::Idle {
                    self.portals.clear();
                }
                return self.ready().await;
            }
            Message::Copy => Ok(()),
            Message::Call => Err(Failure::not_offered("calling a function by its number").into()),
            Message::Password(_) => Err(Failure::fatal("08P01", "nobody has asked for a password").into()),
            Message::Terminate => Ok(()),
        };
        match taken {
            Err(Trouble::Failure(failure)) if failure.severity == Severity::Error => {
                self.wire.replies.failure(&failure);
                if self.status == Status::Open {
                    self.status = Status::Failed;
                }
                self.is_skipping = !is_simple;
            }
            taken => taken?,
        }
        if is_simple { self.ready().await } else { self.unburdened().await }
    }

    async fn ready(&mut self) -> Result<(), Trouble> {
        self.wire.replies.ready(self.status);
        Ok(self.wire.flush().await?)
    }

    /// A client that draws no line must not make answers pile up.
    async fn unburdened(&mut self) -> Result<(), Trouble> {
        if self.wire.is_full() { Ok(self.wire.flush().await?) } else { Ok(()) }
    }

    /// The statements of a text, one after the other, until one fails.
    async fn simple(&mut self, text: &str, shutdown: &Shutdown) -> Result<(), Trouble> {
        self.prepared.remove("");
        self.portals.remove("");
        let statements = cut(text)?;
        if statements.is_empty() {
            self.wire.replies.empty();
        }
        if statements.len() > STATEMENTS_MAX {
            self.shared.limit("statements");
            return Err(Failure::new("54000", format!("at most {STATEMENTS_MAX} statements are taken at once")).into());
        }
        for words in statements {
            match self.allowed(statement::read(words)?)? {
                Statement::Question(words) => {
                    let asked = Instant::now();
                    let session = Arc::new(self.session.clone());
                    let mut watch = watching(&mut self.wire, &mut self.cancels, shutdown, &self.shared);
                    let mut sent = 0;
                    let answered = answer(&mut watch, &session, words.clone(), &mut sent).await;
                    self.asked(&words, sent, asked, &answered);
                    answered?;
                    self.wire.replies.complete(&format!("SELECT {sent}"));
                }
                housekeeping => {
                    let columns = shown(&housekeeping);
                    let said = self.keep_house(housekeeping)?;
                    if let Some(columns) = columns {
                        self.wire.replies.columns(&columns, &vec![Format::Text; columns.len()]);
                    }
                    self.say(said)?;
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, said: Said) -> Result<(), Failure> {
        for row in &said.rows {
            self.wire.replies.row(row.len(), |out| {
                for value in row {
                    bytes::BufMut::put_i32(out, value.len() as i32);
                    out.extend_from_slice(value.as_bytes());
                }
                Ok(())
            })?;
        }
        self.wire.replies.complete(&said.tag);
        Ok(())
    }

    /// A statement, if one is taken now: in a transaction that has failed only its end is.
    fn allowed(&self, statement: Statement) -> Result<Statement, Failure> {
        let ends = matches!(statement, Statement::Commit | Statement::Rollback | Statement::Nothing("ROLLBACK"));
        if self.status == Status::Failed && !ends {
            return Err(Failure::new("25P02", "the transaction has failed: end it with ROLLBACK"));
        }
        Ok(statement)
    }

    fn keep_house(&mut self, statement: Statement) -> Result<Said, Failure> {
        let said = match statement {
            Statement::Empty | Statement::Question(_) => Said::from(""),
            Statement::Begin => {
                self.status = Status::Open;
                Said::from("BEGIN")
            }
            Statement::Commit | Statement::Rollback => {
                let is_kept = self.status != Status::Failed && statement == Statement::Commit;
                self.status = Status::Idle;
                self.portals.clear();
                Said::from(if is_kept { "COMMIT" } else { "ROLLBACK" })
            }
            Statement::Nothing("ROLLBACK") => {
                // Back to a point before the failure.
                self.status = if self.status == Status::Idle { Status::Idle } else { Status::Open };
                Said::from("ROLLBACK")
            }
            Statement::Nothing(tag) => Said::from(tag),
            Statement::Set { name, value } => {
                let told = self.session.variables.set(&name, &value)?;
                self.tell(told);
                Said::from("SET")
            }
            Statement::Reset(name) => {
                let told = self.session.variables.reset(name.as_deref())?;
                self.tell(told);
                Said::from("RESET")
            }
            Statement::Show(name) if name == "all" => {
                let all = self.session.variables.all();
                let rows = all.map(|(name, value)| vec![name.to_owned(), value.to_owned(), String::new()]).collect();
                Said { rows, tag: "SHOW".to_owned() }
            }
            Statement::Show(name) => {
                let (_, value) = self.session.variables.get(&name).ok_or_else(unknown)?;
                Said { rows: vec![vec![value.to_owned()]], tag: "SHOW".to_owned() }
            }
            Statement::Deallocate(name) => {
                match name {
                    Some(name) => drop(self.prepared.remove(&name)),
                    None => self.prepared.clear(),
                }
                Said::from("DEALLOCATE")
            }
            Statement::DiscardAll => {
                self.prepared.clear();
                self.portals.clear();
                let told = self.session.variables.reset(None)?;
                self.tell(told);
                Said::from("DISCARD ALL")
            }
        };
        Ok(said)
    }

    fn tell(&mut self, told: Told) {
        if let Some((name, value)) = told.reported {
            self.wire.replies.parameter(name, &value);
        }
        if let Some(warning) = told.warning {
            self.wire.replies.warning("01000", warning);
        }
    }

    async fn parse(&mut self, name: String, text: &str, types: &[u32], shutdown: &Shutdown) -> Result<(), Trouble> {
        let mut statements = cut(text)?;
        if statements.len() > 1 {
            return Err(Failure::new("42601", "one statement is prepared at a time").into());
        }
        if name.is_empty() {
            self.prepared.remove("");
        } else if self.prepared.contains_key(&name) {
            return Err(Failure::new("42P05", "a statement of this name is prepared already").into());
        }
        let room = self.prepared.len() < PREPARED_MAX;
        self.has_room(room, "prepared", text.len())?;
        let statement = self.allowed(statement::read(statements.pop().unwrap_or_default())?)?;
        let given = types;
        let (parameters, columns) = match &statement {
            Statement::Question(words) => {
                let types = types.iter().map(|oid| parameter(*oid)).collect::<Result<_, _>>()?;
                let session = Arc::new(self.session.clone());
                let sql = self.shared.sql.clone();
                let mut watch = watching(&mut self.wire, &mut self.cancels, shutdown, &self.shared);
                let describing = question::describe(&sql, &session, words.clone(), types);
                let described = watch.over_now(describing).await??;
                (described.parameters, Some(Column::of_all(&described.schema)))
            }
            housekeeping => (Vec::new(), shown(housekeeping)),
        };
        let statement =
            if let Statement::Question(_) = statement { Statement::Question(Words::new()) } else { statement };
        let given = given.iter().copied().map(Some).chain(std::iter::repeat(None));
        let oids = parameters.iter().zip(given).map(|(data_type, given)| told_oid(data_type, given)).collect();
        self.prepared.insert(name, Prepared { statement, text: text.into(), parameters, oids, columns });
        self.wire.replies.parsed();
        Ok(())
    }

    /// Whether there is room for one more thing of so many bytes.
    fn has_room(&self, is_room: bool, limit: &'static str, bytes: usize) -> Result<(), Failure> {
        let prepared: usize = self.prepared.values().map(|prepared| prepared.text.len()).sum();
        let portals: usize = self.portals.values().map(|portal| portal.bytes).sum();
        if is_room && prepared + portals + bytes <= KEPT_BYTES_MAX {
            return Ok(());
        }
        self.shared.limit(limit);
        Err(Failure::new("53400", "the connection keeps too many statements or values: close some, or DEALLOCATE ALL"))
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Failure> {
        let Bind { portal, statement, formats, values, result_formats } = bind;
        let prepared = self
            .prepared
            .get(&statement)
            .ok_or_else(|| Failure::new("26000", "nothing is prepared under this name"))?;
        if prepared.parameters.len() != values.len() {
            return Err(Failure::new("08P01", "there are not as many values as parameters"));
        }
        let formats = Format::of_each(&formats, values.len())?;
        let bytes = values.iter().flatten().map(bytes::Bytes::len).sum::<usize>();
        let given = values.iter().zip(formats).zip(&prepared.parameters);
        let given =
            given.map(|((value, format), data_type)| super::parameter::read(value.as_deref(), format, data_type));
        let values = given.collect::<Result<_, _>>()?;
        let columns = prepared.columns.clone();
        let formats = Format::of_each(&result_formats, columns.as_ref().map_or(0, Vec::len))?;
        let (statement, text, running) = (prepared.statement.clone(), prepared.text.clone(), None);
        if portal.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&portal) {
            return Err(Failure::new("42P03", "a portal of this name is open already"));
        }
        self.has_room(self.portals.len() < PORTALS_MAX, "portals", bytes)?;
        self.portals
            .insert(portal, Portal { statement, text, values, columns, formats, bytes, running, is_done: false });
        self.wire.replies.bound();
        Ok(())
    }

    fn describe(&mut self, subject: Subject, name: &str) -> Result<(), Failure> {
        let replies = &mut self.wire.replies;
        let columns = match subject {
            Subject::Statement => {
                let prepared = self
                    .prepared
                    .get(name)
                    .ok_or_else(|| Failure::new("26000", "nothing is prepared under this name"))?;
                replies.parameters(&prepared.oids);
                prepared.columns.as_ref().map(|columns| (columns, vec![Format::Text; columns.len()]))
            }
            Subject::Portal => {
                let portal = self.portals.get(name).ok_or_else(no_portal)?;
                portal.columns.as_ref().map(|columns| (columns, portal.formats.clone()))
            }
        };
        match columns {
            Some((columns, formats)) => replies.columns(columns, &formats),
            None => replies.no_data(),
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, rows_max: usize, shutdown: &Shutdown) -> Result<(), Trouble> {
        // Out of the map while it is worked on: what fails is gone.
        let mut portal = self.portals.remove(name).ok_or_else(no_portal)?;
        let statement = self.allowed(portal.statement.clone())?;
        let words = match statement {
            Statement::Question(_) => cut(&portal.text)?.pop().unwrap_or_default(),
            Statement::Empty => {
                self.wire.replies.empty();
                return Ok(());
            }
            housekeeping => {
                let said = self.keep_house(housekeeping)?;
                return Ok(self.say(said)?);
            }
        };
        let mut sent = 0;
        if !portal.is_done {
            let asked = Instant::now();
            let session = Arc::new(self.session.clone());
            let mut watch = watching(&mut self.wire, &mut self.cancels, shutdown, &self.shared);
            let rows_max = (rows_max > 0).then_some(rows_max as u64);
            let answered = go_on(&mut watch, &session, &words, &mut portal, rows_max, &mut sent).await;
            self.asked(&words, sent, asked, &answered);
            portal.is_done = answered?;
        }
        if portal.is_done {
            portal.running = None;
            self.wire.replies.complete(&format!("SELECT {sent}"));
        } else {
            self.wire.replies.suspended();
        }
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }

    /// Who asked what, for whoever must account for it later. Values of parameters are not in it.
    fn asked<T>(&self, words: &Words, rows: u64, asked: Instant, answered: &Result<T, Trouble>) {
        let outcome = match answered {
            Ok(_) => "ok",
            Err(Trouble::Failure(failure)) => failure.code,
            Err(Trouble::Ended(_)) => "gone",
        };
        let result = match outcome {
            "ok" => "answered",
            "57014" | "gone" => "ended",
            _ => "failed",
        };
        self.shared.metrics.postgres.queries.with([result]).add(1);
        let text: String = words.iter().map(ToString::to_string).collect();
        let text: String = text.chars().take(LOGGED_CHARACTERS_MAX).collect();
        tracing::info!(
            event = "postgres_query",
            user = escape_controls(&self.session.user),
            address = %self.peer,
            process = self.session.process,
            query = escape_controls(&text),
            rows,
            milliseconds = asked.elapsed().as_millis() as u64,
            outcome,
        );
    }
}

fn no_portal() -> Failure {
    Failure::new("34000", "there is no portal of this name")
}

fn cut(text: &str) -> Result<Vec<Words>, Failure> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(QueryError::TooLong { bytes: text.len() }.into());
    }
    statement::cut(text)
}

/// The columns of what housekeeping shows.
fn shown(statement: &Statement) -> Option<Vec<Column>> {
    match statement {
        Statement::Show(name) if name == "all" => Some(["name", "setting", "description"].map(Column::text).into()),
        Statement::Show(name) => Some(vec![Column::text(name)]),
        _ => None,
    }
}

fn watching<'a>(
    wire: &'a mut Wire<Box<dyn Stream>>,
    cancels: &'a mut watch::Receiver<u64>,
    shutdown: &'a Shutdown,
    shared: &'a Shared,
) -> Watch<'a> {
    Watch { wire, cancels, shutdown, shared }
}

/// All rows of a question, after what its columns are.
async fn answer(watch: &mut Watch<'_>, session: &Arc<Session>, words: Words, sent: &mut u64) -> Result<(), Trouble> {
    let mut running = Running::begin(watch, session, words, Vec::new(), None).await?;
    let formats = vec![Format::Text; running.columns.len()];
    watch.wire.replies.columns(&running.columns, &formats);
    let all = running.send(watch, None).await;
    *sent = running.sent;
    all.map(drop)
}

/// The next rows of a portal. Whether they were the last.
async fn go_on(
    watch: &mut Watch<'_>,
    session: &Arc<Session>,
    words: &Words,
    portal: &mut Portal,
    rows_max: Option<u64>,
    sent: &mut u64,
) -> Result<bool, Trouble> {
    let running = match &mut portal.running {
        Some(running) => running,
        None => {
            let (values, formats) = (portal.values.clone(), Some(portal.formats.clone()));
            portal.running.insert(Running::begin(watch, session, words.clone(), values, formats).await?)
        }
    };
    let before = running.sent;
    let all = running.send(watch, rows_max).await;
    *sent = running.sent - before;
    all
}
