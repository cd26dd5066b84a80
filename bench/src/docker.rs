//! Containers, networks and images of the benchmark's own, by the `docker` command, as a user makes them.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    command::{program, run, sh},
    http,
};

/// The port that every replica listens on inside.
pub const INSIDE: u16 = 8080;
/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// What belongs to this run, and goes with it.
pub struct Docker {
    /// What all names begin with.
    pub name: String,
    /// The network of the containers that are not sameport's.
    pub network: String,
}

impl Docker {
    /// With a network, and nothing on it.
    pub fn new() -> Result<Self> {
        let name = format!("spbench{}", std::process::id());
        let docker = Self { network: name.clone(), name };
        sh(&format!("docker network create --label {} {}", docker.label(), docker.network))
            .context("is there a Docker Engine? config/install-docker installs one")?;
        Ok(docker)
    }

    fn label(&self) -> String {
        format!("dev.sameport.bench={}", self.name)
    }

    /// The network's interface of the host.
    pub fn bridge(&self) -> Result<String> {
        let id = sh(&format!("docker network inspect -f {{{{.Id}}}} {}", self.network))?;
        Ok(format!("br-{}", id.get(..12).unwrap_or_default()))
    }

    /// Starts a container in the background, and returns its id. `options` have no blanks in them.
    pub fn run(&self, options: &str, image: &str, words: &[&str]) -> Result<String> {
        let options = format!("docker run -d --label {} {options} {image}", self.label());
        run(&mut program(&options, words))
    }

    /// Starts so many at once.
    pub fn run_all(&self, count: usize, options: &str, image: &str, words: &[&str]) -> Result<Vec<String>> {
        thread::scope(|scope| {
            let starts: Vec<_> = (0..count)
                .map(|number| {
                    let options = options.replace("{}", &(number + 1).to_string());
                    scope.spawn(move || self.run(&options, image, words))
                })
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap_or_else(|_| bail!("a thread panicked")))
                .collect()
        })
    }

    /// Where a container is reached on the network of this run.
    pub fn address(container: &str) -> Result<SocketAddr> {
        let format = "{{range.NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = sh(&format!("docker inspect -f {format} {container}"))?;
        let address: IpAddr =
            address.parse().with_context(|| format!("address {address:?} of {container}"))?;
        Ok((address, INSIDE).into())
    }

    /// The process that a container runs.
    pub fn pid(container: &str) -> Result<i32> {
        Ok(sh(&format!("docker inspect -f {{{{.State.Pid}}}} {container}"))?.parse()?)
    }

    /// Ends containers as `docker stop` does, and removes them.
    pub fn end(containers: &[String]) -> Result<()> {
        let names = containers.join(" ");
        sh(&format!("docker stop {names}"))?;
        sh(&format!("docker rm {names}")).map(drop)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let clear = || {
            // One after the other: Docker Engine may miscount those that leave a network at the same time, and then refuses
            // to remove it until it is restarted.
            for container in sh(&format!("docker ps -aq --filter label={}", self.label()))?.lines() {
                sh(&format!("docker rm -f -v {container}"))?;
            }
            sh(&format!("docker network rm {}", self.network))
        };
        if let Err(error) = clear() {
            eprintln!("warning: something of {} is left: {error:#}", self.name);
        }
    }
}

/// Makes an image by its recipe among the tests', or finds it made; its tag.
pub fn image(name: &str) -> Result<String> {
    let script = root().join("tests/images/build");
    run(&mut program(&script.display().to_string(), &[name]))
}

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// A port of this host that nobody has.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("0.0.0.0:0")?.local_addr()?.port())
}

/// Waits until a server answers, and returns how long that took.
pub fn answers(address: SocketAddr) -> Result<Duration> {
    let begin = Instant::now();
    loop {
        match http::get(address, "/", PATIENCE) {
            Ok(_) => return Ok(begin.elapsed()),
            Err(error) if begin.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("{address} does not answer"));
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}
