//! How soon a killed replica is replaced, beside how long `docker run` takes to start the same image.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    bench::Bench,
    command::sh,
    compose,
    docker::{Docker, INSIDE, answers, free_port, image},
    extent::Extent,
    project::Project,
    results::{Better, Bound, By, Goal, Id, Kind, Measure, Series},
};

/// Longer than the window of the project, in which a death would count as another one in a row.
const STABLE: Duration = Duration::from_millis(1500);
/// A process that is killed is gone by then.
const PATIENCE: Duration = Duration::from_secs(5);

const OURS: &str = "sameport, from kill to answer";
const THEIRS: &str = "docker run, from start to answer";

/// How often [`Bench::step`] is called.
pub fn steps(extent: &Extent) -> u64 {
    2 * extent.kills as u64
}

/// F4: kills and starts by turns.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    let image = image("nginx")?;
    let replica = Replica::start(bench, &image)?;
    let mut replaced = Series::new(OURS, Kind::Sameport);
    let mut started = Series::new(THEIRS, Kind::Docker);
    for _ in 0..bench.extent.kills {
        bench.step("F4: a replica is killed")?;
        replaced.samples.push(replica.kill()?.as_secs_f64());
        bench.step("F4: docker run")?;
        started.samples.push(run(bench, &image)?.as_secs_f64());
    }
    Ok(vec![Measure {
        id: Id::F4,
        title: "seconds until a killed replica's replacement answers".to_owned(),
        how: format!(
            "sameport: the only replica of a service gets SIGKILL, and a request to the published port is begun as \
             soon as its process is gone; connections wait meanwhile (`hold`), and the replacement answers. Before \
             each kill it has been up for {} s, longer than `deploy.restart_policy.window` (1 s in this file), so \
             each death is a first one and the pause before the restart is the first one, 100 ms, which is included. \
             docker run: from calling `docker run -d -p` with the same image to the first answer at the published \
             port; asked from when `docker run` has returned, every 2 ms. Both from the host, by turns.",
            STABLE.as_secs_f64()
        ),
        better: Better::Lower,
        series: vec![replaced, started],
        goals: vec![Goal::new(OURS, By::Peer(THEIRS.to_owned()), Bound::AtMost(1.15))],
    }])
}

/// The only replica of a service.
struct Replica {
    _project: Project,
    container: String,
    address: SocketAddr,
}

impl Replica {
    fn start(bench: &Bench, image: &str) -> Result<Self> {
        let port = free_port()?;
        let name = bench.project("replace");
        let file = compose::file(
            image,
            &json!({
                "environment": { "LISTEN": "" },
                "ports": [format!("{port}:{INSIDE}")],
                "deploy": { "restart_policy": { "window": "1s" } },
            }),
        );
        let project = Project::new(&bench.sameport, &name, &file)?;
        project.run(&["up", "-d", "--wait"])?;
        let address = (bench.client.host, port).into();
        Ok(Self { _project: project, container: format!("{name}-web-1"), address })
    }

    /// Kills it, and returns how long it took until somebody answered again.
    fn kill(&self) -> Result<Duration> {
        thread::sleep(STABLE);
        let old = Docker::pid(&self.container)?;
        let begin = Instant::now();
        kill(Pid::from_raw(old), Signal::SIGKILL).with_context(|| format!("kill {old}"))?;
        wait_for_end(old)?;
        answers(self.address)?;
        let took = begin.elapsed();
        let new = Docker::pid(&self.container)?;
        if new == old || new == 0 {
            bail!("{} answered, and runs process {new} after {old} was killed", self.container);
        }
        Ok(took)
    }
}

/// Waits until a container's first process has ended. The kernel lets it end after all others of its container, so what
/// they listened on is closed then, and none of them can answer.
fn wait_for_end(pid: i32) -> Result<()> {
    let begin = Instant::now();
    while is_alive(pid) {
        if begin.elapsed() > PATIENCE {
            bail!("process {pid} does not end");
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Whether a process is there and no zombie.
fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // Its name, in brackets, may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

/// Starts a container, and returns how long it took until it answered.
fn run(bench: &Bench, image: &str) -> Result<Duration> {
    let port = free_port()?;
    let address = (bench.client.host, port).into();
    let begin = Instant::now();
    // Whoever asks while its network is being made has the kernel look for its hardware address in vain, and the next
    // look is a second later. So nobody asks before.
    let container = bench.docker.run(&format!("--rm -p {port}:{INSIDE} -e LISTEN="), image, &[])?;
    let answered = answers(address);
    let took = begin.elapsed();
    sh(&format!("docker rm -f {container}"))?;
    answered?;
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_is_gone() {
        assert!(is_alive(i32::try_from(std::process::id()).unwrap()));
        assert!(!is_alive(i32::MAX));
    }
}
