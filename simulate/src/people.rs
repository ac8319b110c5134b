//! Who works here.
//!
//! Guarantee: person number N of a seed is the same person however many others there are, so that a larger tenant
//! contains the smaller one. Names are trees and first names that belong to anybody; addresses come from the ranges
//! reserved for documentation: the office and the homes from 192.0.2.0/24, 198.51.100.0/24 and 2001:db8::/32, never
//! from 203.0.113.0/24, which is the attacker's.

use crate::dice::Dice;

const FIRST_NAMES: [&str; 14] =
    ["alex", "robin", "sam", "kim", "jo", "max", "toni", "kay", "lee", "noa", "ira", "uli", "dani", "chris"];
const LAST_NAMES: [&str; 18] = [
    "alder", "ash", "aspen", "beech", "birch", "cedar", "cypress", "elm", "fir", "hazel", "juniper", "larch", "linden",
    "maple", "oak", "pine", "rowan", "willow",
];

/// A browser as records describe it.
#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) agent: &'static str,
    pub(crate) system: &'static str,
    pub(crate) name: &'static str,
}

pub(crate) static BROWSERS: [Browser; 4] = [
    Browser {
        agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/132.0.0.0 Safari/537.36 Edg/132.0.0.0",
        system: "Windows 10",
        name: "Edge",
    },
    Browser {
        agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/132.0.0.0 Safari/537.36",
        system: "Windows 10",
        name: "Chrome",
    },
    Browser {
        agent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.2 Safari/605.1.15",
        system: "MacOs",
        name: "Safari",
    },
    Browser {
        agent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:134.0) Gecko/20100101 Firefox/134.0",
        system: "Windows 10",
        name: "Firefox",
    },
];

/// What the attacker browses with: no member of staff uses it.
pub(crate) static ATTACKER_BROWSER: Browser = Browser {
    agent: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/121.0.0.0 Safari/537.36",
    system: "Linux",
    name: "Chrome",
};

/// The tenant's facts that every record repeats.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) domain: String,
    /// First label of the domain: the name in `*.onmicrosoft.com` and `*.sharepoint.com`.
    pub(crate) label: String,
    pub(crate) organization: String,
}

impl Tenant {
    pub(crate) fn new(id: &str, domain: &str) -> Tenant {
        let label = domain.split('.').next().unwrap_or(domain).to_owned();
        Tenant { id: id.to_owned(), domain: domain.to_owned(), organization: format!("{label}.onmicrosoft.com"), label }
    }
}

#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) user_name: String,
    pub(crate) alias: String,
    pub(crate) display_name: String,
    pub(crate) object_id: String,
    pub(crate) puid: String,
    pub(crate) sid: String,
    pub(crate) mailbox: String,
    pub(crate) home_ip: String,
    pub(crate) office_ip: String,
    pub(crate) browser: &'static Browser,
    /// Reads mail with the desktop program, which synchronises folders, and not in the browser.
    pub(crate) has_desktop: bool,
}

impl Person {
    pub(crate) fn new(seed: u64, number: u32, tenant: &Tenant) -> Person {
        let place = number as usize;
        let first = FIRST_NAMES[place % FIRST_NAMES.len()];
        // The two lists advance against each other, so that neighbours share neither name.
        let last = LAST_NAMES[(place % FIRST_NAMES.len() + place / FIRST_NAMES.len()) % LAST_NAMES.len()];
        let alias = match place / (FIRST_NAMES.len() * LAST_NAMES.len()) {
            0 => format!("{first}.{last}"),
            round => format!("{first}.{last}{}", round + 1),
        };
        Person::named(seed, number, &alias, tenant)
    }

    /// The one administrator. Not a member of the ordinary staff, so never the victim.
    pub(crate) fn administrator(seed: u64, tenant: &Tenant) -> Person {
        Person::named(seed, u32::MAX, "it.admin", tenant)
    }

    fn named(seed: u64, number: u32, alias: &str, tenant: &Tenant) -> Person {
        let mut dice = Dice::new(seed, "person", u64::from(number));
        let host = number % 250 + 1;
        let home_ip = if number % 5 == 3 {
            format!("2001:db8:{:x}:{:x}::{:x}", 0x10 + number / 250 % 0x100, number % 250 + 1, dice.between(1, 0xffff))
        } else {
            format!("198.51.100.{host}")
        };
        Person {
            user_name: format!("{alias}@{}", tenant.domain),
            display_name: display_name(alias),
            object_id: dice.guid(),
            puid: format!("10032002{}", dice.hex(8)),
            sid: format!("S-1-5-21-1004336348-1177238915-682003330-{}", 1100 + u64::from(number)),
            mailbox: dice.guid(),
            home_ip,
            office_ip: format!("192.0.2.{}", 10 + number % 4),
            browser: dice.pick(&BROWSERS),
            has_desktop: dice.percent(55),
            alias: alias.to_owned(),
        }
    }
}

fn display_name(alias: &str) -> String {
    let words: Vec<String> = alias
        .split('.')
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
        })
        .collect();
    words.join(" ")
}

/// One sign-in's worth of browsing: the session id that ties sign-ins and Exchange records together.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) ip: String,
    pub(crate) browser: &'static Browser,
}

/// The address as Exchange cmdlet records write it: always with a port, IPv6 in brackets.
pub(crate) fn with_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_a_larger_staff_contains_the_smaller() {
        let tenant = Tenant::new("t", "contoso.example");
        let names: HashSet<String> = (0..1_000).map(|number| Person::new(1, number, &tenant).user_name).collect();
        assert_eq!(names.len(), 1_000);
    }
}
