//! Reverse proxies before containers.

use std::{fs, net::SocketAddr};

use anyhow::Result;

use super::Peer;
use crate::{
    bench::Bench,
    cores::Cores,
    docker::{INSIDE, free_port, image},
    results::Kind,
};

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// nginx of Debian.
    Nginx,
    /// HAProxy of Debian.
    Haproxy,
    /// Traefik.
    Traefik,
    /// Envoy.
    Envoy,
    /// Caddy.
    Caddy,
}

/// How a proxy chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// One after the other, what all of them do by default.
    RoundRobin,
    /// The one with the fewest open connections (nginx and HAProxy).
    LeastConnections,
}

impl ProxyKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Traefik => "Traefik",
            Self::Envoy => "Envoy",
            Self::Caddy => "Caddy",
        }
    }

    fn image(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy-proxy",
        }
    }

    /// What its configuration is called: some go by the ending.
    fn file(self) -> &'static str {
        match self {
            Self::Nginx => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
            Self::Traefik => "traefik.yaml",
            Self::Envoy => "envoy.yaml",
            Self::Caddy => "Caddyfile",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Nginx => include_str!("../../peers/nginx.conf"),
            Self::Haproxy => include_str!("../../peers/haproxy.cfg"),
            Self::Traefik => include_str!("../../peers/traefik.yaml"),
            Self::Envoy => include_str!("../../peers/envoy.yaml"),
            Self::Caddy => include_str!("../../peers/Caddyfile"),
        }
    }

    fn server(self, number: usize, server: &SocketAddr) -> String {
        let (ip, port) = (server.ip(), server.port());
        match self {
            Self::Nginx => format!("server {server};"),
            Self::Haproxy => format!("server s{number} {server}"),
            Self::Traefik => format!("- url: \"http://{server}\""),
            Self::Envoy => format!(
                "- endpoint: {{ address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }}"
            ),
            Self::Caddy => server.to_string(),
        }
    }

    fn separator(self) -> &'static str {
        match self {
            Self::Nginx => "\n        ",
            Self::Haproxy => "\n    ",
            Self::Traefik => "\n          ",
            Self::Envoy => "\n              ",
            Self::Caddy => " ",
        }
    }

    fn balance(self, balance: Balance) -> &'static str {
        match (self, balance) {
            (Self::Nginx, Balance::LeastConnections) => "least_conn;",
            (Self::Haproxy, Balance::RoundRobin) => "balance roundrobin",
            (Self::Haproxy, Balance::LeastConnections) => "balance leastconn",
            _ => "",
        }
    }

    /// What it is run as, with its configuration in that file.
    pub fn words(self, file: &str, cores: &Cores) -> Vec<String> {
        let cores = cores.count().to_string();
        let words = match self {
            Self::Nginx => vec!["nginx", "-c", file, "-e", "stderr"],
            Self::Haproxy => vec!["haproxy", "-W", "-f", file],
            Self::Traefik => vec!["traefik", "--configFile", file],
            Self::Envoy => vec!["envoy", "--concurrency", &cores, "--log-level", "error", "-c", file],
            Self::Caddy => vec!["caddy", "run", "--adapter", "caddyfile", "--config", file],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn fill(self, template: &str, port: u16, servers: &[SocketAddr], cores: &Cores) -> String {
        let lines: Vec<_> = (1..).zip(servers).map(|(number, server)| self.server(number, server)).collect();
        template
            .replace("@PORT@", &port.to_string())
            .replace("@CORES@", &cores.count().to_string())
            .replace("@FOLDER@", FOLDER)
            .replace("@SERVERS@", &lines.join(self.separator()))
    }
}

/// Where a proxy sees its configuration.
pub const FOLDER: &str = "/bench";

/// The configuration that has a proxy listen on a port and choose among servers, with a worker for each of these cores.
pub fn config(kind: ProxyKind, balance: Balance, port: u16, servers: &[SocketAddr], cores: &Cores) -> String {
    kind.fill(kind.template(), port, servers, cores).replace("@BALANCE@", kind.balance(balance))
}

/// How a proxy is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A port that Docker publishes, as with `ports:`.
    Published,
    /// On the host's own network, without address translation.
    Host,
}

/// Starts a proxy before these servers.
pub fn start(
    bench: &Bench,
    kind: ProxyKind,
    balance: Balance,
    network: Network,
    servers: &[SocketAddr],
) -> Result<Peer> {
    let (port, cores) = (free_port()?, &bench.cores.serving);
    let (inside, options, peer, suffix) = match network {
        Network::Published => {
            (INSIDE, format!("--network {} -p {port}:{INSIDE}", bench.docker.network), Kind::Proxy, "")
        }
        Network::Host => (port, "--network host".to_owned(), Kind::ProxyOnHost, ", host network"),
    };
    let folder = bench.files().join(format!("proxy-{port}"));
    fs::create_dir(&folder)?;
    let file = kind.file();
    fs::write(folder.join(file), config(kind, balance, inside, servers, cores))?;
    if kind == ProxyKind::Traefik {
        let services = kind.fill(include_str!("../../peers/traefik-services.yaml"), inside, servers, cores);
        fs::write(folder.join("traefik-services.yaml"), services)?;
    }
    let options = format!("{options} --cpuset-cpus {} -v {}:{FOLDER}:ro", cores.list(), folder.display());
    let words = kind.words(&format!("{FOLDER}/{file}"), cores);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let container = bench.docker.run(&options, &image(kind.image())?, &words)?;
    let balance = match balance {
        Balance::RoundRobin => "",
        Balance::LeastConnections => ", least connections",
    };
    let name = format!("{}{balance}{suffix}", kind.name());
    Ok(Peer::new(&name, peer, (bench.client.host, port).into(), container))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cores::Shares;

    #[test]
    fn a_configuration_names_every_server_and_leaves_nothing_open() {
        let servers = ["192.0.2.1:8080".parse().unwrap(), "192.0.2.2:8080".parse().unwrap()];
        let cores = Shares::of_machine().unwrap().serving;
        for kind in [ProxyKind::Nginx, ProxyKind::Haproxy, ProxyKind::Envoy, ProxyKind::Caddy] {
            let text = config(kind, Balance::RoundRobin, 18080, &servers, &cores);
            assert!(
                text.contains("18080") && text.contains("192.0.2.1") && text.contains("192.0.2.2"),
                "{text}"
            );
            assert!(
                !["@PORT@", "@SERVERS@", "@BALANCE@", "@CORES@"].iter().any(|open| text.contains(open)),
                "{text}"
            );
        }
        let text = config(ProxyKind::Haproxy, Balance::LeastConnections, 1, &servers, &cores);
        assert!(text.contains("balance leastconn"), "{text}");
    }
}
