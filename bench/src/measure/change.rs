//! Requests that fail while versions change, under load, in the usual ways and in sameport's.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{
    bench::Bench,
    command::sh,
    compose::{self, Compose},
    docker::{Docker, INSIDE, answers, free_port, image},
    extent::Extent,
    http,
    load::{
        Connections,
        oha::{self, Load, Pace},
    },
    peer::{
        proxy::{self, Balance, ProxyKind},
        replicas::{REPLICAS, addresses},
    },
    project::Project,
    results::{Better, Bound, By, Goal, Id, Kind, Measure, Series},
};

/// The load. It ends after that time if nobody ends it.
const PACE: Pace = Pace { rate: 200.0, seconds: 600, patience: 3 };
/// How long there is load before a change.
const BEFORE: Duration = Duration::from_millis(500);
/// How long there is load after the last change: a request that got stuck has failed by then.
const AFTER: Duration = Duration::from_millis(3500);
/// Changes under one load at most.
const MANY: usize = 10;

const OURS: &str = "sameport";

/// How often [`Bench::step`] is called.
pub fn steps(extent: &Extent) -> u64 {
    (WAYS * extent.rollouts) as u64
}

/// How many ways there are.
const WAYS: usize = 4;

/// F5: some changes in one way, then in the next, round by round.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    let image = image("nginx")?;
    let mut ways: [Box<dyn Way + '_>; WAYS] = [
        Box::new(Sameport::start(bench, &image)?),
        Box::new(Proxied::start(bench, ProxyKind::Nginx, &image)?),
        Box::new(Proxied::start(bench, ProxyKind::Haproxy, &image)?),
        Box::new(Alone::start(bench, &image)?),
    ];
    let mut seen = [(); WAYS].map(|()| Seen::default());
    let mut version = 0;
    for changes in shares(bench.extent.rollouts) {
        for (way, seen) in ways.iter_mut().zip(&mut seen) {
            under_load(bench, way.as_mut(), version + 1..=version + changes, seen)?;
        }
        version += changes;
    }
    Ok(results(bench.extent.rollouts, &ways, &seen))
}

/// So many changes in as few rounds as there can be, each of some changes: the load's begin and end take time, too.
fn shares(changes: usize) -> impl Iterator<Item = usize> {
    let rounds = changes.div_ceil(MANY);
    (0..rounds).map(move |round| changes * (round + 1) / rounds - changes * round / rounds)
}

/// What a way came to.
#[derive(Default)]
struct Seen {
    failed: f64,
    answered: f64,
    seconds: Vec<f64>,
}

/// Changes to these versions while there are requests.
fn under_load(
    bench: &Bench,
    way: &mut dyn Way,
    versions: impl Iterator<Item = usize>,
    seen: &mut Seen,
) -> Result<()> {
    let address = SocketAddr::from((bench.client.host, way.port()));
    let url = format!("http://{address}/");
    let load = oha::start(&bench.client.words(), &url, Connections::Fresh, PACE)?;
    thread::sleep(BEFORE);
    let changed = change(bench, way, address, versions, &mut seen.seconds);
    if changed.is_ok() {
        thread::sleep(AFTER);
    }
    // It is ended in any case.
    let load: Load = load.stop()?;
    changed.with_context(|| format!("{} cannot change", way.name()))?;
    seen.answered += load.answered;
    seen.failed += load.failed();
    Ok(())
}

fn change(
    bench: &Bench,
    way: &mut dyn Way,
    address: SocketAddr,
    versions: impl Iterator<Item = usize>,
    seconds: &mut Vec<f64>,
) -> Result<()> {
    for version in versions {
        bench.step(&format!("F5: {}, version {version}", way.name()))?;
        let begin = Instant::now();
        way.change(version)?;
        answers(address)?;
        seconds.push(begin.elapsed().as_secs_f64());
        check(address, version)?;
    }
    Ok(())
}

/// Whether the new version answers, and nobody else.
fn check(address: SocketAddr, version: usize) -> Result<()> {
    for _ in 0..2 * REPLICAS {
        let answer = http::get(address, "/", Duration::from_secs(5))?;
        if !answer.ends_with(&format!("replica {version}\n")) {
            bail!("after the change to version {version}, this was answered:\n{answer}");
        }
    }
    Ok(())
}

fn results(rollouts: usize, ways: &[Box<dyn Way + '_>; WAYS], seen: &[Seen; WAYS]) -> Vec<Measure> {
    let series = |samples: fn(&Seen) -> Vec<f64>| -> Vec<Series> {
        let both = ways.iter().zip(seen);
        both.map(|(way, seen)| Series { samples: samples(seen), ..Series::new(way.name(), way.kind()) })
            .collect()
    };
    let measure = |title: String, how: &str, better, series, goals| Measure {
        id: Id::F5,
        title,
        how: how.to_owned(),
        better,
        series,
        goals,
    };
    vec![
        measure(
            format!("failed requests in {rollouts} rollouts"),
            FAILED,
            Better::Lower,
            series(|seen| vec![seen.failed]),
            vec![Goal::new(OURS, By::One, Bound::AtMost(0.0))],
        ),
        measure(
            "requests meanwhile".to_owned(),
            "Those that were answered, and those that failed.",
            Better::Higher,
            series(|seen| vec![seen.answered + seen.failed]),
            Vec::new(),
        ),
        measure(
            "seconds for a rollout".to_owned(),
            SECONDS,
            Better::Lower,
            series(|seen| seen.seconds.clone()),
            Vec::new(),
        ),
    ]
}

const FAILED: &str = "200 requests a second, each on a connection of its own, from another network namespace, while \
     versions change; a failure is any answer but 2xx, a connection that is refused or breaks off, and 3 s without an \
     answer. Of 4 replicas, all of which change at once: \"sameport\" by `up -d` with a new environment; \"usual \
     reload\" starts 4 new containers, waits until each of them answers, writes the proxy's list of servers anew, has it \
     reload (`nginx -s reload`; SIGUSR2 to HAProxy's master), and does `docker stop` and `docker rm` with the old ones, as \
     the recipes have it, with no pause between: with one, next to nothing is lost. \"docker compose alone\" has one \
     container with the published port, and does `up -d` with a new environment. All replicas are told to end by SIGQUIT, \
     at which nginx finishes what it has. After each change it is checked that the new version answers, and only it.";
const SECONDS: &str = "From the begin of a change to its end, the old containers' removal included, and until the port \
     answers. sameport's includes the time in which new replicas are watched: 1 s before the old ones go (`monitor: 1s`; \
     5 s unless the file says otherwise). Nobody watches in the others.";

/// A way to run versions, and to change to another one. What it runs ends when it is dropped.
trait Way {
    fn name(&self) -> String;
    fn kind(&self) -> Kind;
    fn port(&self) -> u16;
    fn change(&mut self, version: usize) -> Result<()>;
}

/// What a Compose file says of a version.
fn version_keys(port: u16, version: usize) -> Value {
    json!({
        "environment": { "LISTEN": "", "REPLICA": version.to_string() },
        "stop_signal": "SIGQUIT",
        "ports": [format!("{port}:{INSIDE}")],
    })
}

/// This.
struct Sameport {
    project: Project,
    image: String,
    port: u16,
}

impl Sameport {
    fn start(bench: &Bench, image: &str) -> Result<Self> {
        let (name, port) = (bench.project("change"), free_port()?);
        let project = Project::new(&bench.sameport, &name, &Self::file(image, port, 0))?;
        project.run(&["up", "-d", "--wait"])?;
        Ok(Self { project, image: image.to_owned(), port })
    }

    fn file(image: &str, port: u16, version: usize) -> Value {
        let mut keys = version_keys(port, version);
        keys["deploy"] = json!({
            "replicas": REPLICAS,
            "update_config": { "parallelism": REPLICAS, "monitor": "1s" },
        });
        compose::file(image, &keys)
    }
}

impl Way for Sameport {
    fn name(&self) -> String {
        OURS.to_owned()
    }

    fn kind(&self) -> Kind {
        Kind::Sameport
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn change(&mut self, version: usize) -> Result<()> {
        self.project.write(&Self::file(&self.image, self.port, version))?;
        self.project.run(&["up", "-d"])?;
        self.project.wait_until_converged()
    }
}

/// Containers behind a proxy that is told of them by a file.
struct Proxied<'a> {
    bench: &'a Bench,
    proxy: ProxyKind,
    image: String,
    port: u16,
    folder: PathBuf,
    /// The container of the proxy, once it runs.
    container: Option<String>,
    replicas: Vec<String>,
}

impl<'a> Proxied<'a> {
    fn start(bench: &'a Bench, proxy: ProxyKind, image: &str) -> Result<Self> {
        let port = free_port()?;
        let folder = bench.files().join(format!("change-{port}"));
        fs::create_dir(&folder)?;
        let (image, replicas) = (image.to_owned(), Vec::new());
        let mut way = Self { bench, proxy, image, port, folder, container: None, replicas };
        way.replicas = way.run(0)?;
        way.configure(&way.replicas)?;
        way.container = Some(way.run_proxy()?);
        answers((bench.client.host, port).into())?;
        Ok(way)
    }

    /// Where the proxy sees its configuration.
    fn file() -> String {
        format!("{}/config", proxy::FOLDER)
    }

    fn run_proxy(&self) -> Result<String> {
        let image = match self.proxy {
            ProxyKind::Nginx => self.image.clone(),
            _ => image("haproxy")?,
        };
        let folder = self.folder.display();
        let options = format!("--network host -v {folder}:{}:ro", proxy::FOLDER);
        let words = self.proxy.words(&Self::file(), &self.bench.cores.serving);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.bench.docker.run(&options, &image, &words)
    }

    /// Starts replicas of a version, and waits until each of them answers.
    fn run(&self, version: usize) -> Result<Vec<String>> {
        let Docker { network, .. } = &self.bench.docker;
        let options = format!("--network {network} --stop-signal SIGQUIT -e LISTEN= -e REPLICA={version}");
        let containers = self.bench.docker.run_all(REPLICAS, &options, &self.image, &[])?;
        for address in addresses(&containers)? {
            answers(address)?;
        }
        Ok(containers)
    }

    /// Writes the proxy's configuration.
    fn configure(&self, replicas: &[String]) -> Result<()> {
        let (servers, cores) = (addresses(replicas)?, &self.bench.cores.serving);
        let text = proxy::config(self.proxy, Balance::RoundRobin, self.port, &servers, cores);
        Ok(fs::write(self.folder.join("config"), text)?)
    }

    /// Has the proxy read it.
    fn reload(&self) -> Result<()> {
        let container = self.container.as_ref().context("there is no proxy")?;
        match self.proxy {
            ProxyKind::Nginx => {
                sh(&format!("docker exec {container} nginx -c {} -e stderr -s reload", Self::file()))
            }
            _ => sh(&format!("docker kill -s USR2 {container}")),
        }
        .map(drop)
    }
}

impl Way for Proxied<'_> {
    fn name(&self) -> String {
        format!("{}, usual reload", self.proxy.name())
    }

    fn kind(&self) -> Kind {
        Kind::Proxy
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn change(&mut self, version: usize) -> Result<()> {
        let new = self.run(version)?;
        let old = std::mem::replace(&mut self.replicas, new);
        self.configure(&self.replicas)?;
        self.reload()?;
        Docker::end(&old)
    }
}

impl Drop for Proxied<'_> {
    fn drop(&mut self) {
        let containers: Vec<_> = self.container.iter().chain(&self.replicas).map(String::as_str).collect();
        // What is not in these lists goes when the benchmark ends.
        if let Err(error) = sh(&format!("docker rm -f {}", containers.join(" "))) {
            eprintln!("warning: containers behind {} are left: {error:#}", self.proxy.name());
        }
    }
}

/// Docker Compose with one container, which is all that it can give a port to.
struct Alone {
    compose: Compose,
    image: String,
    port: u16,
}

impl Alone {
    fn start(bench: &Bench, image: &str) -> Result<Self> {
        let port = free_port()?;
        let compose = Compose::new(&bench.project("alone"), &Self::file(image, port, 0))?;
        compose.run(&["up", "-d"])?;
        answers((bench.client.host, port).into())?;
        Ok(Self { compose, image: image.to_owned(), port })
    }

    fn file(image: &str, port: u16, version: usize) -> Value {
        compose::file(image, &version_keys(port, version))
    }
}

impl Way for Alone {
    fn name(&self) -> String {
        "docker compose alone, one container".to_owned()
    }

    fn kind(&self) -> Kind {
        Kind::Docker
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn change(&mut self, version: usize) -> Result<()> {
        self.compose.write(&Self::file(&self.image, self.port, version))?;
        self.compose.run(&["up", "-d"]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_has_its_round() {
        assert_eq!(shares(20).collect::<Vec<_>>(), [10, 10]);
        assert_eq!(shares(3).collect::<Vec<_>>(), [3]);
        assert_eq!(shares(1).collect::<Vec<_>>(), [1]);
    }
}
