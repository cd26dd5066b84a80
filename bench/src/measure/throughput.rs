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
        replicas::{self, DOCKER_ON_HOST, REPLICAS, SAMEPORT_ON_HOST},
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
    /// How many times as much as the best proxy it shall be.
    factor: f64,
}

const CASES: [Case; 3] = [
    Case {
        field: Field::Main,
        id: Id::F1,
        title: "requests/s, a new connection each",
        path: "/",
        connections: Connections::Fresh,
        factor: 1.6,
    },
    Case {
        field: Field::Main,
        id: Id::F2,
        title: "requests/s on kept connections",
        path: "/",
        connections: Connections::Kept,
        factor: 2.0,
    },
    Case {
        field: Field::All,
        id: Id::F2,
        title: "requests/s on kept connections, 64 kB each",
        path: "/64k",
        connections: Connections::Kept,
        factor: 2.0,
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
/// Who differs by so little that they are compared once more, among themselves and in more rounds.
const CLOSE: usize = 3;

fn cases(extent: &Extent) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| case.field <= extent.field)
}

fn proxies(extent: &Extent) -> impl Iterator<Item = (ProxyKind, Balance, Network)> {
    PROXIES
        .into_iter()
        .filter(|(field, ..)| *field <= extent.field)
        .map(|(_, kind, balance, network)| (kind, balance, network))
}

/// How many steps there are.
pub fn steps(extent: &Extent) -> u64 {
    let turns = (proxies(extent).count() + OTHERS) * extent.rounds + CLOSE * extent.close_rounds;
    1 + (cases(extent).count() * turns) as u64
}

/// Does it.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    bench.step("starting everybody")?;
    let peers = start(bench)?;
    let docker = match bench.extent.close_rounds {
        0 => None,
        _ => Some(replicas::docker_on_host(bench)?),
    };
    let all: Vec<_> = peers.iter().collect();
    let mut measures = Vec::new();
    for case in cases(&bench.extent) {
        let (rates, costs) = turns(bench, case, &all, bench.extent.rounds)?;
        measures.push(Measure {
            id: case.id,
            title: case.title.to_owned(),
            how: format!(
                "{}, from another network namespace over veth (docker-proxy: from the host). Where nothing else is said, \
                 sameport and the proxies have a port that Docker publishes, as with `ports:`.",
                load(bench)
            ),
            better: Better::Higher,
            series: rates,
            goals: vec![
                Goal::new("sameport", By::BestOf(Kind::Proxy), Bound::AtLeast(case.factor)),
                Goal::new(SAMEPORT_ON_HOST, By::BestOf(Kind::ProxyOnHost), Bound::AtLeast(case.factor)),
            ],
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
                Goal::new(SAMEPORT_ON_HOST, By::BestOf(Kind::ProxyOnHost), Bound::AtMost(1.0)),
            ],
        });
        if let Some(docker) = &docker {
            measures.push(beside_the_limit(bench, case, &peers, docker)?);
        }
    }
    Ok(measures)
}

/// What differs by little.
fn beside_the_limit(bench: &Bench, case: &Case, peers: &[Peer], docker: &Peer) -> Result<Measure> {
    docker.answers(bench)?;
    let is_close = |peer: &&Peer| peer.name == SAMEPORT_ON_HOST || peer.kind == Kind::Limit;
    let close: Vec<_> = peers.iter().filter(is_close).chain([docker]).collect();
    let (series, _) = turns(bench, case, &close, bench.extent.close_rounds)?;
    Ok(Measure {
        id: case.id,
        title: format!("{}, beside the limit", case.title),
        how: format!(
            "{}, by turns among these alone. What containers cost without sameport, `docker run` shows: four of them, which \
             share a port of the host's network by themselves.",
            load(bench)
        ),
        better: Better::Higher,
        series,
        goals: vec![
            Goal::new(SAMEPORT_ON_HOST, By::BestOf(Kind::Limit), Bound::AtLeast(0.98)),
            Goal::new(SAMEPORT_ON_HOST, By::Peer(DOCKER_ON_HOST.to_owned()), Bound::AtLeast(0.98)),
        ],
    })
}

fn load(bench: &Bench) -> String {
    format!("wrk, {} connections, {} s a turn", wrk::CONNECTIONS, bench.extent.seconds)
}

/// Requests a second, and processor seconds of the host for a million of them.
fn turns(bench: &Bench, case: &Case, peers: &[&Peer], rounds: usize) -> Result<(Vec<Series>, Vec<Series>)> {
    let mut rates: Vec<_> = peers.iter().map(|peer| Series::new(&peer.name, peer.kind)).collect();
    let mut costs = rates.clone();
    for _ in 0..rounds {
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
    Ok((rates, costs))
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
