//! Where the load comes from: another host, as far as the network can tell.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{program, run, sh},
    cores::{Cores, Shares},
};

/// A network namespace of its own, and a cable (veth) to this host.
pub struct Client {
    name: String,
    /// The host's end of the cable.
    pub host: Ipv4Addr,
    own: Ipv4Addr,
}

impl Client {
    /// Makes it. Its addresses are of the block for benchmarks (RFC 2544). Packets from it are dealt with by the cores
    /// that serve, and packets for it by those of the load, as they were with a network card between them.
    pub fn new(name: &str, cores: &Shares) -> Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let at =
            |end| Ipv4Addr::new(198, 18 + (high >> 7), (high << 1) | (low >> 7), (low << 1 & 0xfc) | end);
        let (host, own) = (at(1), at(2));
        // The names of interfaces have 15 characters at most.
        let cable = name.replace("spbench", "spb");
        sh(&format!("ip netns add {name}"))?;
        let client = Self { name: name.to_owned(), host, own };
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
        // Whoever closes first keeps a connection's port for a minute, and load that closes first would soon spend its time
        // on looking for one that is free.
        for (setting, value) in [("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")] {
            let script = format!("echo {value} >/proc/sys/net/ipv4/{setting}");
            run(&mut program(&format!("{} sh -ec", client.words()), &[&script]))?;
        }
        steer("", &cable, &cores.serving)?;
        steer(&client.words(), "eth0", &cores.load)?;
        Ok(client)
    }

    /// Has this host forget the connections from there. Its table of connections (`nf_conntrack_max`) keeps those that
    /// have ended for two minutes, and once it is full, new ones are dropped: the next peer's.
    pub fn forget(&self) -> Result<()> {
        let mut command = program("conntrack -D -s", &[&self.own.to_string()]);
        let output = command.output().context("is conntrack there? bench/install installs it")?;
        let said = String::from_utf8_lossy(&output.stderr);
        // It fails where there was nothing to forget.
        if !said.contains("flow entries have been deleted") {
            bail!("{command:?}: {}\n{said}", output.status);
        }
        Ok(())
    }

    /// What runs a program there.
    pub fn words(&self) -> String {
        format!("ip netns exec {}", self.name)
    }
}

/// Has packets that come in at an interface dealt with by these cores (RPS).
fn steer(place: &str, interface: &str, cores: &Cores) -> Result<()> {
    let script = format!(
        "for queue in /sys/class/net/{interface}/queues/rx-*; do echo {} >$queue/rps_cpus; done",
        cores.mask()
    );
    run(&mut program(&format!("{place} sh -ec"), &[&script])).map(drop)
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Err(error) = sh(&format!("ip netns del {}", self.name)) {
            eprintln!("warning: the network namespace {} is left: {error:#}", self.name);
        }
    }
}
