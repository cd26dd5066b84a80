//! Where the load comes from: another host, as far as the network can tell.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::command::sh;

/// A network namespace of its own, and a cable (veth) to this host.
pub struct Client {
    name: String,
    /// The host's end of the cable.
    pub host: Ipv4Addr,
}

impl Client {
    /// Makes it. Its addresses are of the block for benchmarks (RFC 2544).
    pub fn new(name: &str) -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let at =
            |end| Ipv4Addr::new(198, 18 + (high >> 7), (high << 1) | (low >> 7), (low << 1 & 0xfc) | end);
        let (host, own) = (at(1), at(2));
        // The names of interfaces have 15 characters at most.
        let cable = name.replace("spbench", "spb");
        sh(&format!("ip netns add {name}"))?;
        let client = Self { name: name.to_owned(), host };
        sh(&format!("ip link add {cable} type veth peer name eth0 netns {name}"))?;
        sh(&format!("ip address add {host}/30 dev {cable}"))?;
        sh(&format!("ip link set {cable} up"))?;
        for inside in [
            format!("address add {own}/30 dev eth0"),
            "link set eth0 up".to_owned(),
            "link set lo up".to_owned(),
            format!("route add default via {host}"),
        ] {
            sh(&format!("ip -n {name} {inside}"))?;
        }
        Ok(client)
    }

    /// What runs a program there.
    pub fn words(&self) -> String {
        format!("ip netns exec {}", self.name)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("ip netns del {}", self.name)) {
            eprintln!("warning: the network namespace {} is left: {error:#}", self.name);
        }
    }
}
