//! The replicas: the same image, the same configuration and the same number for everybody.

use std::{fs, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use super::Peer;
use crate::{
    bench::Bench,
    compose,
    docker::{Docker, INSIDE, free_port, image},
    project::Project,
    results::Kind,
};

/// How many there are.
pub const REPLICAS: usize = 4;
/// Names of peers that are compared by name.
pub const SAMEPORT_ON_HOST: &str = "sameport, host network";
pub const DOCKER_ON_HOST: &str = "docker run, host network";

/// Writes what nginx serves in each replica. `shares` is what makes it share its port by itself.
pub fn files(folder: &Path, port: u16, shares: &str) -> Result<()> {
    let text = include_str!("../../peers/replica.conf");
    let text = text.replace("@PORT@", &port.to_string()).replace("@SHARES@", shares);
    fs::write(folder.join(format!("replica-{port}.conf")), text)?;
    Ok(fs::write(folder.join("64k"), vec![b'x'; 64 << 10])?)
}

/// What nginx is run as in a replica.
pub fn words(port: u16) -> [String; 5] {
    ["nginx", "-c", &format!("/bench/replica-{port}.conf"), "-e", "stderr"].map(str::to_owned)
}

/// So many containers, each with an address of its own.
pub fn containers(bench: &Bench, count: usize, options: &str) -> Result<Vec<String>> {
    files(bench.files(), INSIDE, "")?;
    run(bench, count, INSIDE, &format!("--network {} {options}", bench.docker.network))
}

fn run(bench: &Bench, count: usize, port: u16, options: &str) -> Result<Vec<String>> {
    let options = format!(
        "--cpuset-cpus {} -v {}:/bench:ro {options}",
        bench.cores.serving.list(),
        bench.files().display()
    );
    let words = words(port);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    bench.docker.run_all(count, &options, &image("nginx")?, &words)
}

/// Containers on the host's own network that share a port by themselves, with nobody who looks after them.
pub fn docker_on_host(bench: &Bench) -> Result<Peer> {
    let port = free_port()?;
    files(bench.files(), port, "reuseport")?;
    let containers = run(bench, REPLICAS, port, "--network host")?;
    Ok(Peer::new(DOCKER_ON_HOST, Kind::Docker, (bench.client.host, port).into(), containers))
}

/// Sameport with a port that is published by a bridge, as `ports:` does it.
pub fn sameport(bench: &Bench) -> Result<Peer> {
    files(bench.files(), INSIDE, "")?;
    let port = free_port()?;
    let project = project(bench, "bridge", INSIDE, &json!({ "ports": [format!("{port}:{INSIDE}")] }))?;
    Ok(Peer::new("sameport", Kind::Sameport, (bench.client.host, port).into(), project))
}

/// Sameport on the host's own network, where the image has to share its port by itself.
pub fn sameport_on_host(bench: &Bench) -> Result<Peer> {
    let port = free_port()?;
    files(bench.files(), port, "reuseport")?;
    let network = json!({ "network_mode": "host", "expose": [port.to_string()] });
    let project = project(bench, "host", port, &network)?;
    Ok(Peer::new(SAMEPORT_ON_HOST, Kind::Sameport, (bench.client.host, port).into(), project))
}

/// Replicas that listen on this port.
fn project(bench: &Bench, name: &str, port: u16, network: &Value) -> Result<Project> {
    let mut keys = network.clone();
    keys["command"] = json!(words(port));
    keys["volumes"] = json!([format!("{}:/bench:ro", bench.files().display())]);
    keys["cpuset"] = json!(bench.cores.serving.list());
    keys["deploy"] = json!({ "replicas": REPLICAS });
    let project =
        Project::new(&bench.sameport, &bench.project(name), &compose::file(&image("nginx")?, &keys))?;
    project.run(&["up", "-d", "--wait"])?;
    Ok(project)
}

/// Docker's own published port, which a single container can have.
pub fn published(bench: &Bench) -> Result<[Peer; 2]> {
    let port = free_port()?;
    let container = containers(bench, 1, &format!("-p {port}:{INSIDE}"))?;
    let inside =
        Peer::new("published port, one container", Kind::Docker, (bench.client.host, port).into(), container);
    let proxy = Peer::new(
        "docker-proxy on localhost, one container",
        Kind::Docker,
        ([127, 0, 0, 1], port).into(),
        (),
    );
    Ok([inside, proxy.on_host()])
}

/// Addresses of containers.
pub fn addresses(containers: &[String]) -> Result<Vec<std::net::SocketAddr>> {
    containers.iter().map(|container| Docker::address(container)).collect()
}
