//! Named places where a test may kill the process: between two effects, where a crash would hurt most.
//!
//! `HARRIER_FAILPOINT=archive_before_commit:3` ends the process, without unwinding or flushing anything, when that place
//! is reached for the third time. Without the variable a failpoint is one atomic load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

struct Armed {
    name: String,
    remaining: AtomicU32,
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

/// Ends the process if this failpoint is armed and its time has come.
pub fn reached(name: &str) {
    let armed = ARMED.get_or_init(|| std::env::var("HARRIER_FAILPOINT").ok().and_then(|text| parse(&text)));
    if let Some(armed) = armed
        && armed.name == name
        && armed.remaining.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // Like `kill -9`: nothing is flushed, nothing is dropped.
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<Armed> {
    let (name, times) = text.split_once(':').unwrap_or((text, "1"));
    let remaining = AtomicU32::new(times.parse().ok().filter(|&times| times > 0)?);
    Some(Armed { name: name.to_owned(), remaining })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_is_a_name_and_a_count() {
        let armed = parse("x:3").unwrap();
        assert_eq!((armed.name.as_str(), armed.remaining.into_inner()), ("x", 3));
        assert_eq!(parse("x").unwrap().remaining.into_inner(), 1);
        assert!(parse("x:0").is_none() && parse("x:y").is_none());
        reached("not armed");
    }
}
