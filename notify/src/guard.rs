//! Keeps deliveries from being turned against the inside. A webhook's address is a name that somebody else may
//! answer for: what counts is the address that is connected to. So the name is resolved here, addresses inside are
//! taken out, and the connection is made to what is left; there is no second look-up in which the answer could change.
//!
//! Addresses written as numbers pass no resolver and are checked when the sink is built. Redirects are not followed
//! and proxies are not used, because both would connect to something that was not checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// IPv4 networks that are not the public internet, by the IANA special-purpose registry, and Azure's host service,
/// which looks public and answers only virtual machines.
const INSIDE_V4: [([u8; 4], u8); 16] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
    ([168, 63, 129, 16], 32),
];

/// IPv6: only global unicast is public, and of that not what carries an IPv4 address inside (6to4, Teredo) nor what is
/// kept for documentation.
const PUBLIC_V6: ([u16; 8], u8) = ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const INSIDE_V6: [([u16; 8], u8); 4] = [
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// Whether an address is on the public internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !INSIDE_V4.iter().any(|&(network, prefix)| {
        Ipv4Net::new(Ipv4Addr::from(network), prefix).is_ok_and(|network| network.contains(&address))
    })
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let within = |&(network, prefix): &([u16; 8], u8)| {
        Ipv6Net::new(Ipv6Addr::from(network), prefix).is_ok_and(|network| network.contains(&address))
    };
    within(&PUBLIC_V6) && !INSIDE_V6.iter().any(within)
}

/// Whether a URL names its host by a number that is inside. Names are judged when they are resolved.
pub(crate) fn names_inside_address(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => !is_public(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => !is_public(IpAddr::V6(address)),
        Some(Host::Domain(_)) | None => false,
    }
}

/// Resolves names to public addresses only.
#[derive(Debug)]
pub(crate) struct PublicOnly;

/// A name leads nowhere but inside. The operator's or an attacker's doing; nothing was connected to.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to a loopback, private or link-local address, which allow_private_addresses would permit")]
pub(crate) struct LeadsInside;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public = only_public(found);
            if public.is_empty() {
                return Err(LeadsInside.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

fn only_public(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    found.filter(|address| is_public(address.ip())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_addresses_are_told_from_public_ones_in_every_spelling() {
        let inside = [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
        ];
        for text in inside {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "168.63.129.17", "2606:4700:4700::1111", "::ffff:8.8.8.8"]
        {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn numbers_in_urls_are_seen_through() {
        for text in ["http://127.1/", "http://0x7f000001/", "http://2130706433/", "https://[::1]/", "https://0/"] {
            assert!(names_inside_address(&Url::parse(text).unwrap()), "{text}");
        }
        assert!(!names_inside_address(&Url::parse("https://example.com/").unwrap()));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused() {
        let error = PublicOnly.resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert!(error.downcast_ref::<LeadsInside>().is_some());
        let mixed = ["127.0.0.1:0", "1.1.1.1:0"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(only_public(mixed.into_iter()), [mixed[1]]);
    }
}
