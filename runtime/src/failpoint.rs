//! Named places where a test may end or stop the process, and switches that take a guarantee away: for tests only.
//!
//! A failpoint stands between two effects, where a crash would hurt most. `HARRIER_FAILPOINT=archive_before_commit:3`
//! ends the process, without unwinding or flushing anything, when that place is reached for the third time;
//! `archive_before_commit:3:stop` sends it SIGSTOP instead, so that somebody else may take over what it holds.
//!
//! A negative control shows that the fault bench sees what it is there to see: `HARRIER_BREAK=admit-off` switches off
//! one of [`BREAKS`]. It works in builds with debug assertions only, and [`refusal`] says so for all others. A crate's own
//! tests may know further names, which a process refuses.
//!
//! Without the variables each is one atomic load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

struct Armed {
    name: String,
    remaining: AtomicU32,
    stops: bool,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Ends or stops the process if this failpoint is armed and its time has come.
pub fn reached(name: &str) {
    reached_if(|armed| armed == name);
}

/// As [`reached`], at a place that several come to: `archive_before_commit@events` means one of them.
pub fn reached_by(name: &str, who: &str) {
    reached_if(|armed| match armed.split_once('@') {
        None => armed == name,
        Some((armed, meant)) => armed == name && meant == who,
    });
}

fn reached_if(is_meant: impl Fn(&str) -> bool) {
    let armed = ARMED.get_or_init(|| std::env::var("HARRIER_FAILPOINT").ok().and_then(|text| parse(&text)));
    if let Some(armed) = armed
        && is_meant(&armed.name)
        && armed.remaining.fetch_sub(1, Ordering::Relaxed) == 1
    {
        if armed.stops {
            // Returns once somebody sends SIGCONT. Were there no `kill`, the test would see that nobody has stopped.
            let _ = std::process::Command::new("kill").args(["-STOP", &std::process::id().to_string()]).status();
            return;
        }
        // Like `kill -9`: nothing is flushed, nothing is dropped.
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<Armed> {
    let mut parts = text.split(':');
    let name = parts.next()?.to_owned();
    let remaining = AtomicU32::new(parts.next().unwrap_or("1").parse().ok().filter(|&times| times > 0)?);
    let stops = match parts.next() {
        None => false,
        Some("stop") => true,
        Some(_) => return None,
    };
    Some(Armed { name, remaining, stops })
}

const BREAK: &str = "HARRIER_BREAK";

/// Guarantees that can be switched off, to show that the fault bench notices.
pub const BREAKS: [&str; 5] = [
    "offsets-before-outputs",
    "output-outside-the-transaction",
    "state-before-offsets",
    "archive-without-put-if-absent",
    "admit-off",
];

static BROKEN: OnceLock<Option<String>> = OnceLock::new();

/// Whether this guarantee is switched off. Never, in a build without debug assertions.
pub fn is_broken(name: &str) -> bool {
    cfg!(debug_assertions) && BROKEN.get_or_init(|| std::env::var(BREAK).ok()).as_deref() == Some(name)
}

/// Why a process that was asked to break a guarantee must not start, if so.
pub fn refusal() -> Option<String> {
    let asked = std::env::var(BREAK).ok()?;
    if !cfg!(debug_assertions) {
        return Some(format!("{BREAK} is set: it is for tests, and this build refuses it"));
    }
    (!BREAKS.contains(&asked.as_str())).then(|| format!("{BREAK}: `{asked}` is none of {}", BREAKS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_is_a_name_a_count_and_what_it_does() {
        let armed = parse("x:3").unwrap();
        assert_eq!((armed.name.as_str(), armed.remaining.into_inner(), armed.stops), ("x", 3, false));
        assert_eq!(parse("x").unwrap().remaining.into_inner(), 1);
        assert!(parse("x:2:stop").unwrap().stops);
        assert!(parse("x:0").is_none() && parse("x:y").is_none() && parse("x:1:jump").is_none());
        reached("not armed");
        assert!(!is_broken("admit-off") && refusal().is_none());
    }
}
