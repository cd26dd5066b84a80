//! How many requests a second each way of reaching the same replicas bears, and what a request costs the whole host.

use anyhow::{Context as _, Result};

use crate::{
    bench::Bench,
    extent::Extent,
    host::busy,
    load::{Connections, wrk},
    peer::{
        Peer, bare,
        proxy::{self, Balance, Network, ProxyKind},
        replicas::{self, REPLICAS},
        translation,
    },
    results::{Better, Bound, By, Goal, Id, Kind, Measure, Series},
};

/// What is asked for.
struct Case {
    id: Id,
    title: &'static str,
    path: &'static str,
    connections: Connections,
    goals: fn() -> Vec<Goal>,
}

const CASES: [Case; 3] = [
    Case {
        id: Id::F1,
        title: "requests/s, a new connection each",
        path: "/",
        connections: Connections::Fresh,
        goals: || goals(1.6),
    },
    Case {
        id: Id::F2,
        title: "requests/s on kept connections",
        path: "/",
        connections: Connections::Kept,
        goals: || goals(2.0),
    },
    Case {
        id: Id::F2,
        title: "requests/s on kept connections, 64 kB each",
        path: "/64k",
        connections: Connections::Kept,
        goals: || goals(2.0),
    },
];
/// How many peers there are.
const PEERS: u64 = 15;

fn goals(factor: f64) -> Vec<Goal> {
    let host = "sameport, host network";
    vec![
        Goal::new("sameport", By::BestOf(Kind::Proxy), Bound::AtLeast(factor)),
        Goal::new(host, By::BestOf(Kind::ProxyOnHost), Bound::AtLeast(factor)),
        Goal::new(host, By::BestOf(Kind::Limit), Bound::AtLeast(0.98)),
    ]
}

/// How many steps there are.
pub fn steps(extent: &Extent) -> u64 {
    1 + PEERS * CASES.len() as u64 * extent.rounds as u64
}

/// Does it.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    bench.step("starting everybody")?;
    let peers = start(bench)?;
    let mut measures = Vec::new();
    for case in &CASES {
        let mut rates: Vec<_> = peers.iter().map(|peer| Series::new(&peer.name, peer.kind)).collect();
        let mut costs = rates.clone();
        for _ in 0..bench.extent.rounds {
            for ((peer, rates), costs) in peers.iter().zip(&mut rates).zip(&mut costs) {
                bench.step(&format!("{}: {}", case.title, peer.name))?;
                let before = busy()?;
                let load = wrk::load(
                    &peer.place(bench),
                    &peer.url(case.path),
                    case.connections,
                    bench.extent.seconds,
                )
                .with_context(|| peer.name.clone())?;
                let spent = busy()?.saturating_sub(before);
                rates.samples.push(load.rate);
                costs.samples.push(spent.as_secs_f64() / load.requests * 1e6);
            }
        }
        measures.push(Measure {
            id: case.id,
            title: case.title.to_owned(),
            how: format!(
                "wrk, {} connections, {} s a turn, from another network namespace over veth (docker-proxy: from the host). \
                 Where nothing else is said, sameport and the proxies have a port that Docker publishes, as with `ports:`.",
                wrk::CONNECTIONS,
                bench.extent.seconds
            ),
            better: Better::Higher,
            series: rates,
            goals: (case.goals)(),
        });
        measures.push(Measure {
            id: Id::F9,
            title: format!("processor seconds of the whole host for a million: {}", case.title),
            how: "All cores, from /proc/stat, in the same turns; the load generator is part of it for everybody alike.".to_owned(),
            better: Better::Lower,
            series: costs,
            goals: vec![
                Goal::new("sameport", By::BestOf(Kind::Proxy), Bound::AtMost(1.0)),
                Goal::new("sameport", By::BestOf(Kind::Translation), Bound::AtMost(1.0)),
                Goal::new("sameport, host network", By::BestOf(Kind::ProxyOnHost), Bound::AtMost(1.0)),
            ],
        });
    }
    Ok(measures)
}

fn start(bench: &Bench) -> Result<Vec<Peer>> {
    let containers = replicas::containers(bench, REPLICAS, "")?;
    let servers = replicas::addresses(&containers)?;
    let proxy = |kind, balance, network| proxy::start(bench, kind, balance, network, &servers);
    let mut peers = vec![replicas::sameport(bench)?, replicas::sameport_on_host(bench)?];
    for kind in [ProxyKind::Nginx, ProxyKind::Haproxy, ProxyKind::Traefik, ProxyKind::Envoy, ProxyKind::Caddy]
    {
        peers.push(proxy(kind, Balance::RoundRobin, Network::Published)?);
    }
    peers.push(proxy(ProxyKind::Haproxy, Balance::LeastConnections, Network::Published)?);
    for kind in [ProxyKind::Nginx, ProxyKind::Haproxy] {
        peers.push(proxy(kind, Balance::RoundRobin, Network::Host)?);
    }
    peers.extend(replicas::published(bench)?);
    peers.push(translation::iptables(bench, &servers)?);
    peers.push(translation::nftables(bench, &servers)?);
    peers.push(bare::start(bench)?);
    for peer in &peers {
        peer.answers(bench).with_context(|| format!("{} does not answer", peer.name))?;
    }
    Ok(peers)
}
