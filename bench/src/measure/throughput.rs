//! How many requests a second each way of reaching the same replicas bears, and what a request costs the whole host.

use anyhow::{Context as _, Result};

use crate::{
    bench::Bench,
    extent::{Extent, Field},
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
    field: Field,
    id: Id,
    title: &'static str,
    path: &'static str,
    connections: Connections,
    goals: fn() -> Vec<Goal>,
}

const CASES: [Case; 3] = [
    Case {
        field: Field::Main,
        id: Id::F1,
        title: "requests/s, a new connection each",
        path: "/",
        connections: Connections::Fresh,
        goals: || goals(1.6),
    },
    Case {
        field: Field::Main,
        id: Id::F2,
        title: "requests/s on kept connections",
        path: "/",
        connections: Connections::Kept,
        goals: || goals(2.0),
    },
    Case {
        field: Field::All,
        id: Id::F2,
        title: "requests/s on kept connections, 64 kB each",
        path: "/64k",
        connections: Connections::Kept,
        goals: || goals(2.0),
    },
];

/// Proxies, by how they choose and how they are reached.
const PROXIES: [(Field, ProxyKind, Balance, Network); 8] = [
    (Field::Main, ProxyKind::Nginx, Balance::RoundRobin, Network::Published),
    (Field::Main, ProxyKind::Haproxy, Balance::RoundRobin, Network::Published),
    (Field::All, ProxyKind::Traefik, Balance::RoundRobin, Network::Published),
    (Field::All, ProxyKind::Envoy, Balance::RoundRobin, Network::Published),
    (Field::All, ProxyKind::Caddy, Balance::RoundRobin, Network::Published),
    (Field::All, ProxyKind::Haproxy, Balance::LeastConnections, Network::Published),
    (Field::Main, ProxyKind::Nginx, Balance::RoundRobin, Network::Host),
    (Field::Main, ProxyKind::Haproxy, Balance::RoundRobin, Network::Host),
];
/// sameport in two ways, Docker in two, address translation in two, and bare processes.
const OTHERS: usize = 7;

fn cases(extent: &Extent) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| case.field <= extent.field)
}

fn proxies(extent: &Extent) -> impl Iterator<Item = (ProxyKind, Balance, Network)> {
    PROXIES
        .into_iter()
        .filter(|(field, ..)| *field <= extent.field)
        .map(|(_, kind, balance, network)| (kind, balance, network))
}

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
    1 + ((proxies(extent).count() + OTHERS) * cases(extent).count() * extent.rounds) as u64
}

/// Does it.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    bench.step("starting everybody")?;
    let peers = start(bench)?;
    let mut measures = Vec::new();
    for case in cases(&bench.extent) {
        let mut rates: Vec<_> = peers.iter().map(|peer| Series::new(&peer.name, peer.kind)).collect();
        let mut costs = rates.clone();
        for _ in 0..bench.extent.rounds {
            for ((peer, rates), costs) in peers.iter().zip(&mut rates).zip(&mut costs) {
                bench.step(&format!("{}: {}", case.title, peer.name))?;
                bench.client.forget()?;
                let before = busy()?;
                let load = wrk::load(
                    &peer.place(bench),
                    bench.cores.load.count(),
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
    // Rules of both send the client's own address and port on to a replica, which would take the one's connection for the
    // end of the other's.
    let others = replicas::addresses(&replicas::containers(bench, REPLICAS, "")?)?;
    let mut peers = vec![replicas::sameport(bench)?, replicas::sameport_on_host(bench)?];
    for (kind, balance, network) in proxies(&bench.extent) {
        peers.push(proxy::start(bench, kind, balance, network, &servers)?);
    }
    peers.extend(replicas::published(bench)?);
    peers.push(translation::iptables(bench, &servers)?);
    peers.push(translation::nftables(bench, &others)?);
    peers.push(bare::start(bench)?);
    for peer in &peers {
        peer.answers(bench).with_context(|| format!("{} does not answer", peer.name))?;
    }
    Ok(peers)
}
