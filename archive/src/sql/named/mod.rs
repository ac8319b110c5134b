//! Questions of an incident that have a name: one `.sql` file each, one line each in [`QUERIES`].
//!
//! A file begins with what it answers, what that covers and what it cannot see, because an analyst must know before the
//! answer is passed on. All of them rest on who the intruder is taken to be, which is found first, step by step, in the
//! folder `known/`: small answers are held, so that what follows reads them and not the archive again. Parameters are
//! bound as values and never become part of the text of a query.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;

/// What is found before any question is asked, each from those before it: a table that questions may name.
static KNOWN: &[Known] = &[
    Known { name: "acts", text: include_str!("known/acts.sql") },
    Known { name: "suspected", text: include_str!("known/suspected.sql") },
    Known { name: "own", text: include_str!("known/own.sql") },
    Known { name: "addresses", text: include_str!("known/addresses.sql") },
    Known { name: "sessions", text: include_str!("known/sessions.sql") },
    Known { name: "seen", text: include_str!("known/seen.sql") },
    Known { name: "applications", text: include_str!("known/applications.sql") },
    Known { name: "intruder", text: include_str!("known/intruder.sql") },
];

/// How much of them is held in all. What has no room is read from the archive again wherever it is named, which is slow
/// but never wrong.
const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;

struct Known {
    name: &'static str,
    text: &'static str,
}

/// Every named query, in the order in which one asks them.
pub static QUERIES: &[NamedQuery] = &[
    NamedQuery { name: "intruder", body: include_str!("intruder.sql") },
    NamedQuery { name: "entry", body: include_str!("entry.sql") },
    NamedQuery { name: "when", body: include_str!("when.sql") },
    NamedQuery { name: "accounts", body: include_str!("accounts.sql") },
    NamedQuery { name: "taken", body: include_str!("taken.sql") },
    NamedQuery { name: "messages", body: include_str!("messages.sql") },
    NamedQuery { name: "launched", body: include_str!("launched.sql") },
    NamedQuery { name: "left_behind", body: include_str!("left_behind.sql") },
];

/// What may be given to a named query, as NAME=VALUE.
pub static PARAMETERS: &[Parameter] = &[
    Parameter { name: "user", kind: Kind::Address, default: None, doc: "the account, by its user principal name" },
    Parameter { name: "since", kind: Kind::Time, default: Some("1970-01-01T00:00:00Z"), doc: "events from here on" },
    Parameter { name: "until", kind: Kind::Time, default: Some("2200-01-01T00:00:00Z"), doc: "events before" },
    Parameter {
        name: "ip",
        kind: Kind::Text,
        default: Some(""),
        doc: "the intruder's addresses, with commas between; without ip and session those of the findings",
    },
    Parameter {
        name: "session",
        kind: Kind::Text,
        default: Some(""),
        doc: "the intruder's sessions, with commas between",
    },
    Parameter { name: "tenant", kind: Kind::Text, default: Some(""), doc: "only this tenant" },
];

/// A question with a name.
#[derive(Debug)]
pub struct NamedQuery {
    pub name: &'static str,
    body: &'static str,
}

/// A value that a question needs or takes.
#[derive(Debug)]
pub struct Parameter {
    pub name: &'static str,
    kind: Kind,
    /// Without one it must be given.
    pub default: Option<&'static str>,
    pub doc: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    /// Compared in lower case.
    Address,
    Time,
}

/// What is wrong with what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    #[error("there is no parameter {0:?}; there are {names}", names = names())]
    Unknown(String),
    #[error("the parameter {0} is given twice")]
    Twice(String),
    #[error("the query needs {name}=...: {doc}", name = .0, doc = .1)]
    Missing(&'static str, &'static str),
    #[error("{name}: {reason}")]
    Unreadable { name: &'static str, reason: String },
}

fn names() -> String {
    PARAMETERS.iter().map(|parameter| parameter.name).collect::<Vec<_>>().join(", ")
}

impl NamedQuery {
    pub fn find(name: &str) -> Option<&'static NamedQuery> {
        QUERIES.iter().find(|query| query.name == name)
    }

    /// The question it answers.
    pub fn question(&self) -> String {
        self.remarks("-- ")
    }

    /// What the answer covers.
    pub fn covers(&self) -> String {
        self.remarks("-- covers: ")
    }

    /// What the answer says nothing about, though the reader may think so.
    pub fn cannot_see(&self) -> String {
        self.remarks("-- cannot see: ")
    }

    /// The remark that begins so, with the lines that go on from it.
    fn remarks(&self, begin: &str) -> String {
        let lines = self.body.lines();
        let mut lines = lines.skip_while(|line| !line.starts_with(begin));
        let first = lines.next().and_then(|line| line.strip_prefix(begin)).unwrap_or_default();
        let more = lines.map_while(|line| line.strip_prefix("--   "));
        std::iter::once(first).chain(more).collect::<Vec<_>>().join(" ")
    }

    /// The query, with all it rests on.
    pub fn text(&self) -> String {
        let known = KNOWN.iter().map(|known| format!("-- {}:\n{};\n\n", known.name, known.text.trim_end()));
        known.chain([self.body.trim_end().to_owned(), ";\n".to_owned()]).collect()
    }

    /// Plans it, after what it rests on has been found.
    pub(super) async fn plan(
        &self,
        context: &SessionContext,
        values: &[(String, ScalarValue)],
    ) -> Result<DataFrame, DataFusionError> {
        let mut left = HELD_BYTES_MAX;
        for known in KNOWN {
            let rows = bound(context, known.text, values).await?;
            let table = match held(rows.clone(), &mut left).await? {
                Some(table) => table,
                None => rows.into_view(),
            };
            context.register_table(known.name, table)?;
        }
        bound(context, self.body, values).await
    }
}

async fn bound(
    context: &SessionContext,
    text: &str,
    values: &[(String, ScalarValue)],
) -> Result<DataFrame, DataFusionError> {
    context.sql(text).await?.with_param_values(values.to_vec())
}

/// The rows in memory, if there is room left for them.
async fn held(rows: DataFrame, left: &mut usize) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    let mut stream = rows.execute_stream().await?;
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await? {
        bytes += batch.get_array_memory_size();
        if bytes > *left {
            return Ok(None);
        }
        batches.push(batch);
    }
    *left -= bytes;
    Ok(Some(Arc::new(MemTable::try_new(stream.schema(), vec![batches])?)))
}

/// The values of all parameters. `moment` reads times, because some of them are so long ago from now.
pub(super) fn values(
    given: &[(String, String)],
    moment: impl Fn(&str) -> Result<DateTime<Utc>, String>,
) -> Result<Vec<(String, ScalarValue)>, ParameterError> {
    for (position, (name, _)) in given.iter().enumerate() {
        if PARAMETERS.iter().all(|parameter| parameter.name != name) {
            return Err(ParameterError::Unknown(name.clone()));
        }
        if given[..position].iter().any(|(earlier, _)| earlier == name) {
            return Err(ParameterError::Twice(name.clone()));
        }
    }
    let value = |parameter: &'static Parameter| {
        let given = given.iter().find(|(name, _)| name == parameter.name).map(|(_, value)| value.as_str());
        let text = given.or(parameter.default).ok_or(ParameterError::Missing(parameter.name, parameter.doc))?;
        let value = match parameter.kind {
            Kind::Text => ScalarValue::Utf8(Some(text.to_owned())),
            Kind::Address => ScalarValue::Utf8(Some(text.trim().to_lowercase())),
            Kind::Time => {
                let unreadable = |reason| ParameterError::Unreadable { name: parameter.name, reason };
                let micros = moment(text).map_err(unreadable)?.timestamp_micros();
                ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))
            }
        };
        Ok((parameter.name.to_owned(), value))
    };
    PARAMETERS.iter().map(value).collect()
}
