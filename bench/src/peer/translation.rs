//! Containers behind rules of the kernel that choose by chance or by turns, and translate addresses: the second way of the
//! article, with iptables and with nftables.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::Peer;
use crate::{
    bench::Bench,
    command::{program, run, sh},
    docker::free_port,
    results::Kind,
};

/// Commands that take rules away again.
struct Undo(Vec<String>);

impl Drop for Undo {
    fn drop(&mut self) {
        for command in self.0.iter().rev() {
            if let Err(error) = sh(command) {
                eprintln!("warning: a rule is left: {error:#}");
            }
        }
    }
}

impl Undo {
    /// Adds a rule to a chain.
    fn add(&mut self, table: &str, how: &str, chain: &str, rule: &str) -> Result<()> {
        sh(&format!("iptables -w -t {table} {how} {chain} {rule}"))?;
        self.0.push(format!("iptables -w -t {table} -D {chain} {rule}"));
        Ok(())
    }

    /// Docker lets nothing in from outside that it has not published.
    fn let_in(bench: &Bench) -> Result<Self> {
        let mut undo = Self(Vec::new());
        let rule = format!("-o {} -p tcp -m conntrack --ctstate NEW -j ACCEPT", bench.docker.bridge()?);
        undo.add("filter", "-I", "DOCKER-USER", &rule)?;
        Ok(undo)
    }
}

/// `iptables -m statistic`.
pub fn iptables(bench: &Bench, servers: &[SocketAddr]) -> Result<Peer> {
    let port = free_port()?;
    let mut undo = Undo::let_in(bench)?;
    for (at, server) in servers.iter().enumerate() {
        let left = servers.len() - at;
        let chance = match left {
            1 => String::new(),
            _ => format!(
                "-m statistic --mode random --probability {:.6} ",
                1.0 / f64::from(u16::try_from(left)?)
            ),
        };
        let rule = format!(
            "-d {}/32 -p tcp --dport {port} {chance}-j DNAT --to-destination {server}",
            bench.client.host
        );
        undo.add("nat", "-A", "PREROUTING", &rule)?;
    }
    Ok(Peer::new("iptables statistic", Kind::Translation, (bench.client.host, port).into(), undo))
}

/// `nft numgen`.
pub fn nftables(bench: &Bench, servers: &[SocketAddr]) -> Result<Peer> {
    let port = free_port()?;
    let mut undo = Undo::let_in(bench)?;
    let table = bench.docker.name.clone();
    let mut places = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        let SocketAddr::V4(server) = server else { bail!("{server} is no IPv4") };
        places.push(format!("{at} : {} . {}", server.ip(), server.port()));
    }
    let rules = format!(
        "table ip {table} {{ chain prerouting {{ type nat hook prerouting priority dstnat - 1; ip daddr {} tcp dport {port} dnat ip to numgen inc mod {} map {{ {} }}; }}; }}",
        bench.client.host,
        servers.len(),
        places.join(", ")
    );
    run(&mut program("nft", &[&rules]))?;
    undo.0.push(format!("nft delete table ip {table}"));
    Ok(Peer::new("nftables numgen", Kind::Translation, (bench.client.host, port).into(), undo))
}
