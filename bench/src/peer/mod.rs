//! What is compared: a way to reach the same replicas.

pub mod bare;
pub mod proxy;
pub mod replicas;
pub mod translation;

use std::{any::Any, net::SocketAddr};

use anyhow::Result;

use crate::{
    bench::Bench,
    command::{run, sh},
    docker::{answers, image},
    results::Kind,
};

/// A way to reach replicas, which is taken down when it is dropped.
pub struct Peer {
    /// Its name in the results.
    pub name: String,
    /// What kind of thing it is.
    pub kind: Kind,
    /// Where it is asked.
    pub address: SocketAddr,
    /// From where.
    pub from: From,
    /// What is taken down with it.
    _holds: Box<dyn Any>,
}

/// Where the load comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Another network namespace, by a cable.
    Client,
    /// This host itself.
    Host,
}

impl Peer {
    /// One that is asked from another network namespace.
    pub fn new(name: &str, kind: Kind, address: SocketAddr, holds: impl Any) -> Self {
        Self { name: name.to_owned(), kind, address, from: From::Client, _holds: Box::new(holds) }
    }

    /// The same, asked from this host.
    pub fn on_host(self) -> Self {
        Self { from: From::Host, ..self }
    }

    /// The words by which a program is run where its clients are, and on their cores.
    pub fn place(&self, bench: &Bench) -> String {
        let place = match self.from {
            From::Client => bench.client.words(),
            From::Host => String::new(),
        };
        format!("{place} taskset -c {}", bench.cores.load.list())
    }

    /// The address of something there.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits until it answers to its clients.
    pub fn answers(&self, bench: &Bench) -> Result<()> {
        match self.from {
            From::Host => answers(self.address).map(drop),
            // From the host itself, rules for what comes from outside do not apply.
            From::Client => {
                let place = bench.client.words();
                let url = self.url("/");
                sh(&format!("{place} curl --silent --show-error --fail --output /dev/null --retry 30 --retry-all-errors --retry-delay 1 {url}"))
                    .map(drop)
            }
        }
    }
}

/// The programs that take part, and their versions.
pub fn versions() -> Result<Vec<(String, String)>> {
    let inside = |name: &str, words: &str| -> Result<String> {
        let mut command = crate::command::program(
            "docker run --rm --entrypoint sh",
            &[&image(name)?, "-c", &format!("{words} 2>&1")],
        );
        Ok(first_number(&run(&mut command)?))
    };
    let here = |words: &str| sh(words).map(|text| first_number(&text));
    let wrk = std::process::Command::new("wrk").arg("-v").output()?;
    Ok([
        ("Docker Engine", here("docker version -f {{.Server.Version}}")?),
        (
            "Docker Compose",
            sh("docker compose version --short").or_else(|_| here("docker-compose version --short"))?,
        ),
        ("nginx", inside("nginx", "nginx -v")?),
        ("HAProxy", inside("haproxy", "haproxy -v")?),
        ("Traefik", inside("traefik", "traefik version")?),
        ("Envoy", inside("envoy", "envoy --version | tr / '\\n' | grep '^[0-9.]*$'")?),
        ("Caddy", inside("caddy-proxy", "caddy version")?),
        ("iptables", here("iptables --version")?),
        ("nftables", here("nft --version")?),
        ("wrk", first_number(&String::from_utf8_lossy(&wrk.stdout))),
    ]
    .map(|(name, version)| (name.to_owned(), version))
    .to_vec())
}

/// The first word that looks like a version.
fn first_number(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c == '/' || c == ',');
    let mut words = words.map(|word| word.trim_start_matches('v'));
    words
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap_or("?")
        .to_owned()
}
