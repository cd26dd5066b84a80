//! What the kernel's choice of a replica costs, and that it does not grow with their number.
//!
//! For replicas in a network namespace of the benchmark's own, connections are begun, and the kernel tells what one run of
//! the program that chooses took (`BPF_ENABLE_STATS`). The same program, for packets to a port that no replica listens on,
//! is measured in the same run as the floor: it looks the port up and leaves the packet to the kernel. It takes no engine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use sameport::{
    kernel::{KernelError, Netns},
    spec::Balance,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    bench::Bench,
    cost::Cost,
    extent::Extent,
    pod::{POD, PORT, Pod},
    results::{Better, Bound, By, Goal, Id, Kind, Measure, Series},
};

/// The word by which this binary becomes a replica.
pub const WORD: &str = "choice-replica";

/// Nobody listens there.
const OTHER_PORT: u16 = 8081;
const POLICIES: [(Balance, &str); 3] =
    [(Balance::LeastConnections, "least-connections"), (Balance::Hash, "hash"), (Balance::Random, "random")];

/// Is a replica: accepts whatever comes, without an option for sharing.
pub fn be_replica() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    loop {
        drop(listener.accept()?);
    }
}

/// How often [`Bench::step`] is called.
pub fn steps(extent: &Extent) -> u64 {
    (extent.rounds * POLICIES.len() * extent.choices.len()) as u64
}

/// F8: each policy with each number of replicas.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    let extent = &bench.extent;
    let mut measures = POLICIES.map(|(_, policy)| question(policy, extent));
    let _stats = enable_stats(Stats::RunTime).context("the kernel does not measure BPF programs")?;
    for _ in 0..extent.rounds {
        for ((balance, policy), measure) in POLICIES.into_iter().zip(&mut measures) {
            for (&size, series) in extent.choices.iter().zip(&mut measure.series) {
                bench.step(&format!("F8: {policy} among {size}"))?;
                let pod = Pod::start(&bench.project("choice"), size, balance, WORD)?;
                series.samples.push(measure_choice(&pod, extent.connections)?);
            }
        }
    }
    Ok(measures.into())
}

fn question(policy: &str, extent: &Extent) -> Measure {
    let peer = |size: &u16| format!("{size} replicas");
    let series: Vec<_> = extent.choices.iter().map(|size| Series::new(peer(size), Kind::Sameport)).collect();
    let cheap = series.iter().map(|series| Goal::new(&series.peer, By::One, Bound::AtMost(100.0)));
    // A single one is no choice.
    let few = extent.choices.iter().find(|size| **size > 1);
    let ends = few.zip(extent.choices.last()).filter(|(few, many)| few != many);
    let flat = ends.map(|(few, many)| Goal::new(peer(many), By::Peer(peer(few)), Bound::AtMost(1.3)));
    Measure {
        id: Id::F8,
        title: format!("ns for a choice by {policy}, beyond the floor of the measuring itself"),
        how: format!(
            "What one run of the program that chooses takes for a new connection, by the kernel's own statistics, mean of {} \
             connections that are begun one by one; less what it takes for a packet to another port (the floor: it looks the port \
             up, finds none, and a part is the measuring itself), measured in the same run. No proxy or translation is shown here, for nothing of theirs is comparable.",
            extent.connections
        ),
        better: Better::Lower,
        goals: cheap.chain(flat).collect(),
        series,
    }
}

/// Nanoseconds that the choice took for each connection, beyond what a look at the port takes.
fn measure_choice(pod: &Pod, packets: u32) -> Result<f64> {
    let choice = cost(pod, PORT, packets)?;
    let floor = cost(pod, OTHER_PORT, packets)?;
    if std::env::var_os("SAMEPORT_BENCH_VERBOSE").is_some() {
        eprintln!("choice {choice:.0} ns, floor {floor:.0} ns");
    }
    Ok(choice - floor)
}

/// Nanoseconds that the program takes for a packet from outside to a port.
fn cost(pod: &Pod, port: u16, packets: u32) -> Result<f64> {
    let (netns, link) = (pod.netns()?, pod.link()?);
    begin_connections(&netns, port, packets / 10)?;
    let before = Cost::of_link(&link)?;
    begin_connections(&netns, port, packets)?;
    Cost::of_link(&link)?.mean_since(before).context("the program has not run")
}

/// Sends first packets of handshakes, whose answers go nowhere: what is measured is the choice alone, and not how 256
/// processes take turns on the processors.
fn begin_connections(netns: &Netns, port: u16, packets: u32) -> Result<(), KernelError> {
    netns.within(|| {
        let fail = || KernelError::io("send a packet");
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).map_err(fail())?;
        let to = SocketAddr::from((POD, port)).into();
        for number in 0..packets {
            raw.send_to(&syn(number, port), &to).map_err(fail())?;
        }
        Ok(())
    })
}

/// The first packet of a handshake, from another address and port each time.
fn syn(number: u32, port: u16) -> Vec<u8> {
    let [high, low] = u16::try_from(number % 60_000 + 1024).unwrap_or(1024).to_be_bytes();
    let from = [192, 0, 2, u8::try_from(number % 250 + 1).unwrap_or(1)];
    let to = POD.octets();
    let [port_high, port_low] = port.to_be_bytes();
    // Five words long, SYN, a window, no checksum yet, nothing urgent.
    let mut tcp =
        vec![high, low, port_high, port_low, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0];
    let pseudo = [&from[..], &to, &[0, 6, 0, 20], &tcp].concat();
    tcp.splice(16..18, checksum(&pseudo).to_be_bytes());
    // The kernel fills in length, id and checksum of this header.
    let ip = [&[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0][..], &from, &to].concat();
    [ip, tcp].concat()
}

/// The Internet's checksum of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).filter_map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_what_has_one_is_zero() {
        let packet = syn(7, PORT);
        let (ip, tcp) = packet.split_at(20);
        let pseudo = [&ip[12..20], &[0, 6, 0, 20], tcp].concat();
        assert_eq!(checksum(&pseudo), 0);
    }

    #[test]
    fn a_smoke_test_is_short() {
        assert_eq!(steps(&Extent::SMOKE), 3);
        assert_eq!(steps(&Extent::FULL), 3 * 3 * 5);
    }
}
