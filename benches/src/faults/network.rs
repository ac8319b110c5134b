//! A network of its own for some of the processes, on the other end of a cable that can be pulled.

use std::net::Ipv4Addr;
use std::process::Command;

use super::Skipped;
use super::group::{Group, has, run};

pub struct Network {
    /// Name of the network namespace.
    pub name: String,
    cable: String,
    /// This end.
    pub host: Ipv4Addr,
}

impl Network {
    /// Makes it; it is taken away with the group.
    pub fn new(group: &Group) -> anyhow::Result<Network> {
        if !has("ip") {
            return Err(Skipped("no iproute2".to_owned()).into());
        }
        let number = std::process::id();
        let name = format!("faults-{number}");
        // Names of interfaces have at most fifteen letters.
        let (cable, far) = (format!("fh{number}"), format!("ff{number}"));
        let ip = |arguments: &[&str]| run(Command::new("ip").args(arguments));
        ip(&["netns", "add", &name]).map_err(|error| Skipped(format!("no network namespace can be made: {error}")))?;
        group.at_the_end(&format!("ip netns del {name}"))?;
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", &far, "netns", &name])
            .map_err(|error| Skipped(format!("no virtual cable can be made: {error}")))?;
        group.at_the_end(&format!("ip link del {cable}"))?;
        // Of the range kept for documentation and tests between devices: nobody routes it.
        let third = number % 256;
        let host = Ipv4Addr::new(198, 18, third as u8, 1);
        ip(&["addr", "add", &format!("{host}/24"), "dev", &cable])?;
        ip(&["link", "set", &cable, "up"])?;
        let inside = |arguments: &[&str]| ip(&[&["-n", name.as_str()], arguments].concat());
        inside(&["addr", "add", &format!("198.18.{third}.2/24"), "dev", &far])?;
        inside(&["link", "set", &far, "up"])?;
        inside(&["link", "set", "lo", "up"])?;
        Ok(Network { name, cable, host })
    }

    /// Pulls the cable: what is sent is lost, and nobody is told.
    pub fn cut(&self) -> anyhow::Result<()> {
        run(Command::new("ip").args(["link", "set", &self.cable, "down"])).map(drop)
    }

    pub fn heal(&self) -> anyhow::Result<()> {
        run(Command::new("ip").args(["link", "set", &self.cable, "up"])).map(drop)
    }
}
