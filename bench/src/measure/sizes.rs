//! How long it takes to start and remove many replicas, beside Docker Compose.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{
    bench::Bench,
    compose::{self, Compose},
    docker::{free_port, image},
    extent::Extent,
    project::Project,
    results::{Better, Bound, By, Goal, Id, Kind, Measure, Series},
};

/// More than a replica of this image takes, with what the engine has around it.
const REPLICA_KB: u64 = 10 << 10;
/// From so many on, `--wait` is left out: it adds the same to any number.
const FEW: u32 = 16;
/// From so many on, once is enough.
const MANY: u32 = 64;

const OURS: &str = "sameport";
const WATCHED: &str = "sameport, with --wait";
const THEIRS: &str = "docker compose, without a port";

/// How often [`Bench::step`] is called.
pub fn steps(extent: &Extent) -> u64 {
    extent.sizes.iter().map(|size| 2 * rounds(extent, *size) as u64).sum()
}

fn rounds(extent: &Extent, size: u32) -> usize {
    if size < MANY { extent.rounds.min(3) } else { 1 }
}

/// F6: starts and removes by turns, size by size.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    let image = image("nginx")?;
    let (mut measures, mut line) = (Vec::new(), Vec::new());
    for &size in bench.extent.sizes {
        let enough = available_kb()? > u64::from(size) * REPLICA_KB;
        let (mut ours, mut theirs) = (Times::new(OURS, Kind::Sameport), Times::new(THEIRS, Kind::Docker));
        let mut watched = Series::new(WATCHED, Kind::Sameport);
        for _ in 0..rounds(&bench.extent, size) {
            bench.step(&format!("F6: sameport, {size} replicas"))?;
            if enough {
                let took = with_sameport(bench, &image, size)?;
                watched.samples.extend(took.watched.map(|took| took.as_secs_f64()));
                ours.note(took.start, took.removal);
            }
            bench.step(&format!("F6: Docker Compose, {size} replicas"))?;
            if enough {
                let (start, removal) = with_compose(bench, &image, size)?;
                theirs.note(start, removal);
            }
        }
        if !enough {
            eprintln!("note: {size} replicas are left out, there is not enough memory for them");
            continue;
        }
        line.push(for_each(size, &ours.starts));
        let starts = vec![ours.starts, watched, theirs.starts];
        measures.push(compare(format!("seconds to start {size} replicas"), START, starts));
        let removals = vec![ours.removals, theirs.removals];
        measures.push(compare(format!("seconds to remove {size} replicas"), REMOVE, removals));
    }
    measures.push(Measure {
        id: Id::F6,
        title: "seconds a replica to start, by their number".to_owned(),
        how: "The seconds that sameport took to start N replicas, divided by N. If they are the same for every N, time \
              grows with the number and no faster."
            .to_owned(),
        better: Better::Lower,
        series: line,
        goals: Vec::new(),
    });
    Ok(measures)
}

const START: &str = "From calling `sameport up -d` until all replicas listen and get connections at one published port, by \
     `sameport ps`; and from calling `docker compose up -d --scale web=N` until it returns, which is when all containers \
     are started, listening or not; without a port, since only one of them can have it. The same image, by turns. With \
     `--wait`, sameport also watches for 3 s whether they stay up, which is the same for any number of them.";
const REMOVE: &str = "`sameport down` and `docker compose down` of what was just started, without load. Both send SIGTERM, \
     wait for the end, and remove containers and network.";

fn compare(title: String, how: &str, series: Vec<Series>) -> Measure {
    let goal = Goal::new(OURS, By::Peer(THEIRS.to_owned()), Bound::AtMost(0.7));
    Measure { id: Id::F6, title, how: how.to_owned(), better: Better::Lower, series, goals: vec![goal] }
}

/// The share of each one of so many.
fn for_each(size: u32, all: &Series) -> Series {
    let samples = all.samples.iter().map(|seconds| seconds / f64::from(size)).collect();
    Series { samples, ..Series::new(format!("{size} replicas"), all.kind) }
}

/// What one of both took.
struct Times {
    starts: Series,
    removals: Series,
}

impl Times {
    fn new(peer: &str, kind: Kind) -> Self {
        Self { starts: Series::new(peer, kind), removals: Series::new(peer, kind) }
    }

    fn note(&mut self, start: Duration, removal: Duration) {
        self.starts.samples.push(start.as_secs_f64());
        self.removals.samples.push(removal.as_secs_f64());
    }
}

/// What sameport took.
struct Took {
    /// Until all are there.
    start: Duration,
    /// Until they have been watched, which is looked at where there are few.
    watched: Option<Duration>,
    removal: Duration,
}

fn with_sameport(bench: &Bench, image: &str, size: u32) -> Result<Took> {
    let port = free_port()?;
    let file = compose::published(image, port, size);
    let project = Project::new(&bench.sameport, &bench.project("sizes"), &file)?;
    let begin = Instant::now();
    project.run(&["up", "-d"])?;
    project.wait_until_converged()?;
    let start = begin.elapsed();
    let watched = if size < FEW {
        project.run(&["up", "-d", "--wait"])?;
        Some(begin.elapsed())
    } else {
        None
    };
    let removal = time(|| project.run(&["down"]))?;
    Ok(Took { start, watched, removal })
}

fn with_compose(bench: &Bench, image: &str, size: u32) -> Result<(Duration, Duration)> {
    let file = compose::file(image, &json!({ "environment": { "LISTEN": "" } }));
    let compose = Compose::new(&bench.project("compose"), &file)?;
    let start = time(|| compose.run(&["up", "-d", "--scale", &format!("web={size}")]))?;
    let begin = Instant::now();
    let removed = compose.run(&["down"]);
    let removal = begin.elapsed();
    match removed {
        // Of many that go at once, Docker Engine may miscount: containers are gone, and the network is not.
        Err(error) if format!("{error:#}").contains("has active endpoints") => {
            eprintln!("warning: Docker Engine takes a network for used that is not, until it is restarted");
        }
        other => drop(other?),
    }
    Ok((start, removal))
}

fn time(work: impl FnOnce() -> Result<String>) -> Result<Duration> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

fn available_kb() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| format!("MemAvailable is {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_started_once() {
        assert_eq!(steps(&Extent::FULL), 2 * (3 + 3 + 1 + 1));
        assert_eq!(steps(&Extent::SMOKE), 2);
    }

    #[test]
    fn the_share_of_each_one() {
        let all = Series { samples: vec![2.0, 4.0], ..Series::new("x", Kind::Sameport) };
        assert_eq!(for_each(4, &all).samples, [0.5, 1.0]);
    }

    #[test]
    fn memory_is_read() {
        assert!(available_kb().unwrap() > 0);
    }
}
