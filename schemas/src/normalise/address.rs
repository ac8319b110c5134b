//! Reading network addresses.
//!
//! One address is written in a dozen forms: with a port, in brackets, as an IPv4 address inside an IPv6 one. They all
//! become one canonical text, so that two records of one machine meet: IPv4 dotted, IPv6 compressed and lower-case,
//! `::ffff:` forms as IPv4. The names of machines are not addresses and are never resolved: they are defects, and the
//! raw record keeps them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::event::{Event, Value};
use crate::field::{self, Reading};
use crate::normalise::{sources, text};
use crate::path::Scalar;

/// An address and the port written with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Endpoint {
    address: IpAddr,
    port: Option<u16>,
}

/// The address.
pub(crate) fn ip(scalar: &Scalar<'_>) -> Reading {
    let Some(text) = text::saying(scalar) else { return Reading::Nothing };
    match endpoint(text.trim()) {
        Some(endpoint) => Reading::Value(Value::Text(endpoint.address.to_string())),
        // What a service writes that called itself: it says nothing about where a user was.
        None if is_localhost(text.trim()) => Reading::Nothing,
        None => Reading::Unreadable,
    }
}

/// The port written with the address that `client_ip` was read from, or beside the same address elsewhere: never one
/// that stands with another address.
pub(crate) fn port(event: &Event) -> Reading {
    let Some(address) = client_ip(event) else { return Reading::Nothing };
    let mut found = Vec::new();
    for path in sources(field::CLIENT_PORT) {
        path.select_record(event.record(), &mut found);
    }
    let ports = found.iter().filter_map(|scalar| match scalar {
        Scalar::Text(text) => endpoint(text.trim()).filter(|endpoint| endpoint.address == address)?.port,
        _ => None,
    });
    match ports.map(i64::from).next() {
        Some(port) => Reading::Value(Value::Integer(port)),
        None => Reading::Nothing,
    }
}

/// The network: /24 of an IPv4 address, /48 of an IPv6 address.
pub(crate) fn network(event: &Event) -> Reading {
    let network = match client_ip(event) {
        None => return Reading::Nothing,
        Some(IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        Some(IpAddr::V6(address)) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    };
    Reading::Value(Value::Text(network))
}

fn client_ip(event: &Event) -> Option<IpAddr> {
    event.text(field::CLIENT_IP)?.parse().ok()
}

/// The address and port that a text is, if it is nothing else.
fn endpoint(text: &str) -> Option<Endpoint> {
    if let Some(inner) = text.strip_prefix('[') {
        let (address, after) = inner.split_once(']')?;
        let port = if after.is_empty() { None } else { port_number(after.strip_prefix(':')?)? };
        return Some(Endpoint { address: address_of(address)?, port });
    }
    if let Some(address) = address_of(text) {
        return Some(Endpoint { address, port: None });
    }
    // Without brackets a port is only certain behind an IPv4 address, which may itself stand at the end of `::ffff:`.
    let (address, port) = text.rsplit_once(':')?;
    let address = address_of(address).filter(|_| address.contains('.'))?;
    Some(Endpoint { address, port: port_number(port)? })
}

fn is_localhost(text: &str) -> bool {
    let host = text.trim_start_matches('[').split([']', ':']).next();
    host.is_some_and(|host| host.eq_ignore_ascii_case("localhost"))
}

fn address_of(text: &str) -> Option<IpAddr> {
    // `fe80::1%12`: the zone names a network card of the machine that wrote it.
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    // `ffff:192.0.2.7`, as Copilot records write it: a mapped address that has lost its colons.
    let (_, mapped) = text.split_at_checked(5).filter(|(prefix, _)| prefix.eq_ignore_ascii_case("ffff:"))?;
    mapped.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// A port; none inside where there is none written, or 0, which no connection has.
fn port_number(text: &str) -> Option<Option<u16>> {
    if text.bytes().any(|byte| !byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().ok().filter(|port| *port != 0))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn every_form_of_an_address() {
        for (text, address, port) in [
            ("192.0.2.7", "192.0.2.7", None),
            ("192.0.2.7:50123", "192.0.2.7", Some(50123)),
            ("[192.0.2.7]:443", "192.0.2.7", Some(443)),
            ("[192.0.2.7]", "192.0.2.7", None),
            ("2001:DB8:0:0::1", "2001:db8::1", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:443", "2001:db8::1", Some(443)),
            ("::ffff:192.0.2.7", "192.0.2.7", None),
            ("::ffff:192.0.2.7:443", "192.0.2.7", Some(443)),
            ("[::FFFF:192.0.2.7]:443", "192.0.2.7", Some(443)),
            ("ffff:192.0.2.7", "192.0.2.7", None),
            ("::1", "::1", None),
            ("fe80::1%12", "fe80::1", None),
            ("192.0.2.7:", "192.0.2.7", None),
            ("192.0.2.7:99999", "192.0.2.7", None),
            ("192.0.2.7:0", "192.0.2.7", None),
        ] {
            let read = endpoint(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((read.address.to_string().as_str(), read.port), (address, port), "{text}");
        }
    }

    #[test]
    fn names_and_nothing_are_told_apart() {
        let read = |text: &'static str| ip(&Scalar::Text(Cow::Borrowed(text)));
        for text in ["", " ", "<null>", "localhost", "LocalHost:443", "Not Available"] {
            assert_eq!(read(text), Reading::Nothing, "{text}");
        }
        for text in [
            "WORKSTATION (10.1.2.3)",
            "host",
            "host:443",
            "[host]:443",
            "1.2.3",
            "1.2.3.4.5",
            "010.1.2.3",
            "1.2.3.4, 5.6.7.8",
            "[::1",
            "]",
            "[]",
            "[1.2.3.4]443",
            "1.2.3.4:x",
            "1:2:3:4:5:6:7:8:9",
            "2001:db8::1:443:x",
        ] {
            assert_eq!(read(text), Reading::Unreadable, "{text}");
        }
    }
}
