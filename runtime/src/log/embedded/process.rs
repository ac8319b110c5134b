//! Which process holds a lease, and whether it is still there.
//!
//! A process that was killed gives nothing back, and whoever starts next would wait for its leases to run out: half a
//! minute without a poll after every crash. On one host that wait is needless where one can see that the process is
//! gone. Only where one can see it: in the same PID namespace. Elsewhere, as for two containers over one folder, the
//! lease runs out in its own time.
//!
//! Leases save work and decide nothing; were a living process taken for a dead one, the offsets that guard each step
//! would still let only one of the two commit it.

use std::io::ErrorKind;
use std::sync::OnceLock;

/// What precedes the owner's name in the table: namespace, process id and start, of this process. Empty where the
/// system has no `/proc`.
pub(super) fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        let pid = std::process::id();
        let started = started(pid).ok().flatten();
        match (namespace(), started) {
            (Some(namespace), Some(started)) => format!("{namespace} {pid} {started} "),
            _ => String::new(),
        }
    })
}

/// Whether the process that this owner names is certainly gone.
pub(super) fn is_gone(owner: &str) -> bool {
    let mut words = owner.split(' ');
    let (Some(owners), Some(pid), Some(owner_started)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    if namespace().as_deref() != Some(owners) {
        return false;
    }
    match pid.parse().map(started) {
        // Its number was given to another since.
        Ok(Ok(Some(now_started))) => now_started != owner_started,
        Ok(Ok(None)) => true,
        Ok(Err(_)) | Err(_) => false,
    }
}

fn namespace() -> Option<String> {
    Some(std::fs::read_link("/proc/self/ns/pid").ok()?.to_str()?.to_owned())
}

/// When a process started, in ticks since the system did; `None` if there is none with this id.
fn started(pid: u32) -> std::io::Result<Option<String>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            // The second field, the program's name, may contain anything, also brackets; the 22nd is the start.
            let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
            // A zombie is only waiting for its parent to be told.
            let state = fields.next();
            Ok(fields.nth(18).filter(|_| state != Some("Z")).map(str::to_owned))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_seen_to_be_gone_is_gone() {
        let me = format!("{}somebody", mark());
        assert!(!is_gone(&me), "{me}");
        let words: Vec<&str> = me.split(' ').collect();
        let other_start = format!("{} {} 1 somebody", words[0], words[1]);
        assert!(is_gone(&other_start), "the number was given to another process");
        // Process ids end far below.
        let gone = format!("{} 4294967294 1 somebody", words[0]);
        assert!(is_gone(&gone), "{gone}");
        for unknown in ["somebody", "", "pid:[1] 4294967294 1 somebody", &format!("{} x 1 y", words[0])] {
            assert!(!is_gone(unknown), "{unknown:?}");
        }
    }

    #[test]
    fn a_child_is_gone_once_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let owner = format!("{} {} {} x", namespace().unwrap(), child.id(), started(child.id()).unwrap().unwrap());
        assert!(!is_gone(&owner));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_gone(&owner));
    }
}
