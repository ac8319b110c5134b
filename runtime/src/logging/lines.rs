//! Turns events into lines.

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use schemas::text::escape_controls;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::Form;
use super::limit::Limiter;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Longest value. An error's text is a few hundred characters; what is longer was never meant for a line.
const VALUE_CHARACTERS_MAX: usize = 2_000;

/// Most fields of a line, those of its spans included.
const FIELDS_MAX: usize = 50;

/// The keys of a JSON line that are not fields of the event; a field of such a name gets a `_` at its end.
const OWN_KEYS: [&str; 5] = ["time", "level", "target", "message", "held_back"];

/// Writes a line for each event.
pub(super) struct Lines {
    form: Form,
    metrics: Arc<Metrics>,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    limiter: Limiter<About>,
    out: Box<dyn Write + Send>,
}

/// What a line says apart from its time and fields.
#[derive(Clone, Debug)]
struct About {
    level: Level,
    target: &'static str,
    message: String,
    /// The `event` field: what a line without a message is about.
    event: Option<Value>,
}

impl Lines {
    pub fn new(form: Form, metrics: Arc<Metrics>, clock: Clock, out: Box<dyn Write + Send>) -> Lines {
        Lines { form, metrics, clock, state: Mutex::new(State { limiter: Limiter::default(), out }) }
    }

    fn line(&self, time: DateTime<Utc>, about: &About, fields: &[(&'static str, Value)]) -> String {
        match self.form {
            Form::Short => short(time, about, fields),
            Form::Json => json(time, about, fields),
        }
    }

    fn write(&self, place: usize, about: &About, fields: &Fields) {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for (about, held_back) in state.limiter.over(now) {
            let mut fields = vec![("held_back", held_back.into())];
            fields.extend(about.event.clone().map(|event| ("event", event)));
            text.push_str(&self.line(now, &about, &fields));
        }
        let limited = about.level <= Level::INFO;
        if !limited || state.limiter.admit(now, hash_of(about, fields), place, about) {
            text.push_str(&self.line(now, about, &fields.0));
        } else {
            self.metrics.own.log_messages_held_back.inc();
        }
        // There is nobody to tell that stderr is gone.
        let _ = state.out.write_all(text.as_bytes());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        self.metrics.own.log_messages.with([level_name(*metadata.level())]).inc();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.take_message();
        // The event's own fields first, then those of its spans, from the inside outwards.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Fields>() {
                outer.0.iter().for_each(|(name, value)| fields.add(name, value.clone()));
            }
        }
        let named = fields.0.iter().find(|(name, _)| *name == "event").map(|(_, value)| value.clone());
        let about = About { level: *metadata.level(), target: metadata.target(), message, event: named };
        // Each place has metadata of its own, which lives as long as the program.
        self.write(std::ptr::from_ref(metadata) as usize, &about, &fields);
    }
}

/// The fields of an event or a span, in their order, ready to be shown.
#[derive(Debug, Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// The first value of a name stays.
    fn add(&mut self, name: &'static str, value: Value) {
        if self.0.len() < FIELDS_MAX && !self.0.iter().any(|(known, _)| *known == name) {
            self.0.push((name, value));
        }
    }

    fn add_text(&mut self, field: &Field, text: &str) {
        let cut: String = text.chars().take(VALUE_CHARACTERS_MAX).collect();
        let ellipsis = if cut.len() < text.len() { "..." } else { "" };
        self.add(field.name(), format!("{}{ellipsis}", escape_controls(&cut)).into());
    }

    fn take_message(&mut self) -> String {
        let Some(at) = self.0.iter().position(|(name, _)| *name == "message") else { return self.event_in_words() };
        match self.0.remove(at).1 {
            Value::String(message) => message,
            other => other.to_string(),
        }
    }
}

impl Fields {
    /// What a line says that has a name and no message.
    fn event_in_words(&self) -> String {
        let event = self.0.iter().find(|(name, _)| *name == "event").and_then(|(_, value)| value.as_str());
        event.map_or(String::new(), |event| event.replace('_', " "))
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add_text(field, &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value.into());
    }
}

fn hash_of(about: &About, fields: &Fields) -> u64 {
    let mut hasher = DefaultHasher::new();
    (about.level.as_str(), about.target, &about.message).hash(&mut hasher);
    for (name, value) in &fields.0 {
        (name, value.to_string()).hash(&mut hasher);
    }
    hasher.finish()
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// `2026-11-22T10:00:00Z warn  ingest: microsoft refuses a listing tenant=contoso code=429`
fn short(time: DateTime<Utc>, about: &About, fields: &[(&'static str, Value)]) -> String {
    let time = time.to_rfc3339_opts(SecondsFormat::Secs, true);
    // The crate is enough for a person; the module is in the JSON line.
    let target = about.target.split("::").next().unwrap_or(about.target);
    let mut line = format!("{time} {:5} {target}: {}", level_name(about.level), about.message);
    for (name, value) in fields {
        // Writing into a string cannot fail.
        let _ = match value {
            // What could be taken for another field is put in quotes.
            Value::String(text) if text.is_empty() || text.contains([' ', '"', '=']) => {
                write!(line, " {name}={text:?}")
            }
            Value::String(text) => write!(line, " {name}={text}"),
            other => write!(line, " {name}={other}"),
        };
    }
    line.push('\n');
    line
}

fn json(time: DateTime<Utc>, about: &About, fields: &[(&'static str, Value)]) -> String {
    let mut object = Map::new();
    object.insert("time".into(), time.to_rfc3339_opts(SecondsFormat::Millis, true).into());
    object.insert("level".into(), level_name(about.level).into());
    object.insert("target".into(), about.target.into());
    object.insert("message".into(), about.message.clone().into());
    for (name, value) in fields {
        let own = OWN_KEYS.contains(name) && *name != "held_back";
        object.insert(if own { format!("{name}_") } else { (*name).to_owned() }, value.clone());
    }
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    line
}
