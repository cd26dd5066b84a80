//! How long requests take at 60 % of what the replicas bear, with all of them alike and with one of them ten times slower.

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{
    bench::Bench,
    compose,
    docker::{INSIDE, free_port, image},
    extent::{Extent, Field},
    load::{
        Connections,
        oha::{self, Pace},
        wrk,
    },
    peer::{
        Peer,
        proxy::{self, Balance, Network, ProxyKind},
        replicas::{REPLICAS, addresses},
    },
    project::Project,
    results::{Better, Bound, By, Goal, Id, Kind, Measure, Series},
};

/// Microseconds that a replica works on a request; it works on one at a time.
const WORK: u32 = 2000;
/// Of as many requests a second as there can be.
const SHARE: f64 = 0.6;
const PERCENTILES: [f64; 3] = [50.0, 99.0, 99.9];
const CASES: [(&str, &str); 2] = [("all replicas alike", ""), ("one of four ten times slower", "&slow=4")];

/// Proxies, by how they choose.
const PROXIES: [(Field, ProxyKind, Balance); 3] = [
    (Field::All, ProxyKind::Nginx, Balance::RoundRobin),
    (Field::All, ProxyKind::Haproxy, Balance::RoundRobin),
    (Field::Main, ProxyKind::Haproxy, Balance::LeastConnections),
];

fn proxies(extent: &Extent) -> impl Iterator<Item = (ProxyKind, Balance)> {
    PROXIES.into_iter().filter(|(field, ..)| *field <= extent.field).map(|(_, kind, balance)| (kind, balance))
}

/// How many steps there are.
pub fn steps(extent: &Extent) -> u64 {
    2 + ((SAMEPORTS.len() + proxies(extent).count()) * CASES.len() * extent.rounds) as u64
}

/// Does it.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    bench.step("starting replicas that work on one request at a time")?;
    let peers = start(bench)?;
    let rate = SHARE * saturation(bench, &peers)?;
    let mut measures = Vec::new();
    for (case, slow) in CASES {
        let nothing: Vec<_> = peers.iter().map(|peer| Series::new(&peer.name, peer.kind)).collect();
        let mut by_percentile = PERCENTILES.map(|_| nothing.clone());
        for _ in 0..bench.extent.rounds {
            for (at, peer) in peers.iter().enumerate() {
                bench.step(&format!("latency, {case}: {}", peer.name))?;
                let url = peer.url(&format!("/work?us={WORK}{slow}"));
                let load = oha::start(
                    &peer.place(bench),
                    &url,
                    Connections::Fresh,
                    Pace { rate, seconds: bench.extent.latency_seconds, patience: 10 },
                )?
                .finish()
                .with_context(|| peer.name.clone())?;
                for (series, percentile) in by_percentile.iter_mut().zip(PERCENTILES) {
                    if let Some(series) = series.get_mut(at) {
                        series.samples.push(load.at(percentile)?);
                    }
                }
            }
        }
        for (series, percentile) in by_percentile.into_iter().zip(PERCENTILES) {
            measures.push(Measure {
                id: Id::F3,
                title: format!("ms, p{percentile}, {case}"),
                how: format!(
                    "oha with latency correction (time counts from when a request was due), a new connection each, {rate:.0} \
                     requests/s for {} s: 60 % of what wrk got from all replicas alike through sameport just before. A replica \
                     works {} ms on a request, and on one at a time.",
                    bench.extent.latency_seconds,
                    WORK / 1000
                ),
                better: Better::Lower,
                series,
                goals: goals(),
            });
        }
    }
    Ok(measures)
}

/// Requests a second that sameport's replicas can do, all of them alike.
fn saturation(bench: &Bench, peers: &[Peer]) -> Result<f64> {
    bench.step("latency: how many requests there can be")?;
    let peer = peers.first().context("there is nobody")?;
    let url = peer.url(&format!("/work?us={WORK}"));
    Ok(wrk::load(&peer.place(bench), 1, &url, Connections::Fresh, bench.extent.latency_seconds)?.rate)
}

fn goals() -> Vec<Goal> {
    let peer = |name: &str| By::Peer(name.to_owned());
    vec![
        Goal::new("sameport", peer("sameport, by hash"), Bound::AtMost(0.5)),
        Goal::new("sameport", peer("HAProxy, least connections"), Bound::AtMost(1.0)),
    ]
}

fn start(bench: &Bench) -> Result<Vec<Peer>> {
    let mut peers = sameport(bench)?;
    let options = format!(
        "--network {} --cpuset-cpus {} -e REPLICA={{}}",
        bench.docker.network,
        bench.cores.serving.list()
    );
    let containers = bench.docker.run_all(REPLICAS, &options, &image("go")?, &[])?;
    let servers = addresses(&containers)?;
    for (kind, balance) in proxies(&bench.extent) {
        peers.push(proxy::start(bench, kind, balance, Network::Published, &servers)?);
    }
    for peer in &peers {
        peer.answers(bench).with_context(|| format!("{} does not answer", peer.name))?;
    }
    Ok(peers)
}

/// By least connections, its default, and by hash, which is how the kernel chooses by itself.
const SAMEPORTS: [(&str, &str); 2] = [("sameport", "least-connections"), ("sameport, by hash", "hash")];

fn sameport(bench: &Bench) -> Result<Vec<Peer>> {
    SAMEPORTS
        .into_iter()
        .map(|(name, balance)| {
            let port = free_port()?;
            let file = compose::file(
                &image("go")?,
                &json!({
                    "environment": { "REPLICA": "{{.Slot}}" },
                    "ports": [format!("{port}:{INSIDE}")],
                    "cpuset": bench.cores.serving.list(),
                    "deploy": { "replicas": REPLICAS },
                    "x-sameport": { "balance": balance },
                }),
            );
            let project = Project::new(&bench.sameport, &bench.project(balance), &file)?;
            project.run(&["up", "-d", "--wait"])?;
            Ok(Peer::new(name, Kind::Sameport, (bench.client.host, port).into(), project))
        })
        .collect()
}
