//! What a client may set for itself, and what it may ask: a closed list. Pure.
//!
//! Nothing that decides what a query may take or see is among it, but for a time shorter than the one that is allowed.

use std::time::Duration;

use super::failure::Failure;

/// Longest value that is kept.
const VALUE_BYTES_MAX: usize = 1024;

/// What may be done with a variable.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Any value, which changes nothing here.
    Free,
    /// One of these, by the letters and digits of its beginning; the value shown stays.
    Beginning(&'static [&'static str]),
    /// Any value is taken, and changes nothing: the value shown stays, and the client is told.
    Kept(&'static str),
    /// Time that one statement may take: never more than is allowed.
    Time,
    /// May be asked for only.
    Shown,
}

/// Names in lower case, as they are shown, what they are at first, what may become of them.
const VARIABLES: &[(&str, &str, Rule)] = &[
    ("DateStyle", "ISO, MDY", Rule::Beginning(&["iso"])),
    ("IntervalStyle", "postgres", Rule::Beginning(&["postgres"])),
    ("TimeZone", "UTC", Rule::Kept("times are always in UTC here")),
    ("application_name", "", Rule::Free),
    ("bytea_output", "hex", Rule::Beginning(&["hex"])),
    ("client_encoding", "UTF8", Rule::Beginning(&["utf8", "unicode"])),
    ("client_min_messages", "notice", Rule::Free),
    ("default_transaction_isolation", "read committed", Rule::Beginning(&["readcommitted", "readuncommitted"])),
    ("default_transaction_read_only", "on", Rule::Kept("the archive is read-only")),
    ("extra_float_digits", "1", Rule::Free),
    ("geqo", "on", Rule::Free),
    ("idle_in_transaction_session_timeout", "0", Rule::Free),
    ("in_hot_standby", "off", Rule::Shown),
    ("integer_datetimes", "on", Rule::Shown),
    ("is_superuser", "off", Rule::Shown),
    ("jit", "off", Rule::Free),
    ("lc_collate", "C.UTF-8", Rule::Shown),
    ("lc_ctype", "C.UTF-8", Rule::Shown),
    ("lc_messages", "C.UTF-8", Rule::Free),
    ("lock_timeout", "0", Rule::Free),
    ("max_identifier_length", "63", Rule::Shown),
    ("max_index_keys", "32", Rule::Shown),
    ("quote_all_identifiers", "off", Rule::Free),
    ("row_security", "on", Rule::Free),
    ("search_path", "public", Rule::Kept("the tables of the archive are in public")),
    ("server_encoding", "UTF8", Rule::Shown),
    ("server_version", SERVER_VERSION, Rule::Shown),
    ("server_version_num", "150000", Rule::Shown),
    ("standard_conforming_strings", "on", Rule::Beginning(&["on", "true", "1"])),
    ("statement_timeout", "0", Rule::Time),
    ("synchronize_seqscans", "on", Rule::Free),
    ("transaction_isolation", "read committed", Rule::Beginning(&["readcommitted", "readuncommitted"])),
    ("transaction_read_only", "on", Rule::Kept("the archive is read-only")),
];

/// Clients choose how they ask by the number it begins with.
pub(super) const SERVER_VERSION: &str = concat!("15.0 (harrier ", env!("CARGO_PKG_VERSION"), ")");

/// Those that a client is told of when it has signed in, and when they change.
const REPORTED: [&str; 11] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "server_encoding",
    "server_version",
    "standard_conforming_strings",
    "TimeZone",
];

/// The variables of one connection.
#[derive(Clone, Debug)]
pub(super) struct Variables {
    values: Vec<String>,
    time: Option<Duration>,
}

/// What a client is told when it has set something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub reported: Option<(&'static str, String)>,
    pub warning: Option<&'static str>,
}

impl Default for Variables {
    fn default() -> Variables {
        Variables { values: VARIABLES.iter().map(|(_, value, _)| (*value).to_owned()).collect(), time: None }
    }
}

impl Variables {
    pub(super) fn get(&self, name: &str) -> Option<(&'static str, &str)> {
        let at = find(name)?;
        Some((VARIABLES[at].0, self.values.get(at)?))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        VARIABLES.iter().zip(&self.values).map(|((name, ..), value)| (*name, value.as_str()))
    }

    pub(super) fn reported(&self) -> impl Iterator<Item = (&'static str, &str)> {
        REPORTED.iter().filter_map(|name| self.get(name))
    }

    /// How long a statement may take by the client's own wish.
    pub(super) fn time(&self) -> Option<Duration> {
        self.time
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<Told, Failure> {
        let at = find(name).ok_or_else(unknown)?;
        let (name, first, rule) = VARIABLES[at];
        let invalid = || Failure::new("22023", format!("{name} cannot have this value here"));
        if value.len() > VALUE_BYTES_MAX {
            return Err(invalid());
        }
        let is_default = value.eq_ignore_ascii_case("default");
        let value = if is_default { first } else { value };
        match rule {
            Rule::Shown => return Err(Failure::new("55P02", format!("{name} cannot be changed"))),
            Rule::Kept(_) if is_default => {}
            Rule::Kept(why) => return Ok(Told { warning: Some(why), reported: None }),
            Rule::Beginning(beginnings) => {
                let letters: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
                let letters = letters.to_ascii_lowercase();
                let fits = beginnings.iter().any(|beginning| letters.starts_with(beginning));
                return if is_default || fits { Ok(Told::default()) } else { Err(invalid()) };
            }
            Rule::Time => self.time = time(value).ok_or_else(invalid)?,
            Rule::Free => {}
        }
        if let Some(slot) = self.values.get_mut(at) {
            value.clone_into(slot);
        }
        let reported = REPORTED.contains(&name).then(|| (name, value.to_owned()));
        Ok(Told { reported, warning: None })
    }

    pub(super) fn reset(&mut self, name: Option<&str>) -> Result<Told, Failure> {
        match name {
            Some(name) => self.set(name, "default"),
            None => {
                *self = Variables::default();
                Ok(Told::default())
            }
        }
    }
}

/// Nothing that is not known is taken: a limit that somebody believes to have set would be none.
pub(super) fn unknown() -> Failure {
    Failure::new("42704", "there is no variable of this name that may be set or shown here")
}

fn find(name: &str) -> Option<usize> {
    VARIABLES.iter().position(|(known, ..)| known.eq_ignore_ascii_case(name))
}

/// Milliseconds, or with a unit; none for 0.
fn time(text: &str) -> Option<Option<Duration>> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let time = Duration::from_millis(number.checked_mul(milliseconds)?);
    Some((!time.is_zero()).then_some(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_no_harm_may_be_set_and_nothing_else() {
        let mut variables = Variables::default();
        assert_eq!(variables.set("client_encoding", "UTF-8"), Ok(Told::default()));
        assert_eq!(variables.set("CLIENT_ENCODING", "latin1").map_err(|failure| failure.code), Err("22023"));
        assert_eq!(
            variables.set("application_name", "psql").unwrap().reported,
            Some(("application_name", "psql".into()))
        );
        assert!(variables.set("timezone", "Europe/Berlin").unwrap().warning.is_some());
        assert_eq!(variables.get("TIMEZONE"), Some(("TimeZone", "UTC")));
        for name in ["datafusion.runtime.memory_limit", "session_authorization", "role", "work_mem", ""] {
            assert_eq!(variables.set(name, "1").map_err(|failure| failure.code), Err("42704"), "{name}");
        }
        assert!(variables.set("server_version", "9").is_err());
        assert!(variables.set("application_name", &"x".repeat(2_000)).is_err());
        for (text, milliseconds) in [("0", None), ("250", Some(250)), ("2s", Some(2_000)), ("1 min", Some(60_000))] {
            variables.set("statement_timeout", text).unwrap();
            assert_eq!(variables.time(), milliseconds.map(Duration::from_millis), "{text}");
        }
        for text in ["-1", "s", "1 year", "99999999999999999999", "9999999999999999999d"] {
            assert!(variables.set("statement_timeout", text).is_err(), "{text}");
        }
        variables.reset(None).unwrap();
        assert_eq!(variables.get("application_name"), Some(("application_name", "")));
    }
}
