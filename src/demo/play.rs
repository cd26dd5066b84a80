//! The steps of the demo: start the project, send requests, kill a replica, wait for its replacement, report, remove.

use std::{future::Future, io::Write, net::SocketAddr, sync::Arc, time::Duration};

use anstyle::{AnsiColor, Style};
use tokio::time::Instant;

use crate::{
    engine::Engine,
    kernel::netns,
    spec::{Image, ProjectName},
    supervisor::{ThisKernel, paths::Paths},
};

use super::{
    Connections, DemoError, Killed, Report, RequestStats,
    client::{Identity, Load, Running},
    demo_project::DemoProject,
    project,
    screen::{Moment, Screen},
    server, spread,
};

/// The slot of the replica to kill.
const KILLED_SLOT: u32 = 2;
/// The share of the load after which the replica is killed.
const KILL_AFTER: f64 = 0.4;
/// Limit for the replacement to answer.
const REPLACED_WITHIN: Duration = Duration::from_secs(30);
/// Interval at which the display is updated.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

const BAD: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();

/// The options of the demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of replicas; at least 2, so that one can be killed.
    pub replicas: u32,
    /// How long to send requests. The demo continues until the replacement has answered.
    pub length: Length,
    /// Requests per second.
    pub rate: u32,
    /// How connections are used.
    pub connections: Connections,
    /// The port on 127.0.0.1; `None` chooses a free one.
    pub port: Option<u16>,
    /// What happens to the replicas at the end.
    pub afterwards: Afterwards,
}

/// The length of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Until this number of requests have ended.
    Requests(u64),
    /// For this time.
    Time(Duration),
}

/// What happens to the replicas at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// They are removed.
    Remove,
    /// They keep running, without a supervisor.
    Keep,
}

/// Runs the demo with an image that the engine has. Whatever it creates is removed at the end, even after an error or
/// when `interrupted` completes, unless `Afterwards::Keep` is set and the demo succeeds.
///
/// # Errors
/// If the project cannot be started or removed, the replicas do not run, or the killed one is not replaced.
pub async fn play<E: Engine, W: Write>(
    engine: Arc<E>,
    image: Image,
    options: &Options,
    paths: &Paths,
    screen: &mut Screen<W>,
    interrupted: impl Future<Output = ()>,
) -> Result<Report, DemoError> {
    let address = project::free_address(options.port)
        .map_err(|source| DemoError::Port { port: options.port, source })?;
    let project = project::project(image, options.replicas, address)?;
    let name = project.name.clone();
    screen.say(&format!("  project   {name}"))?;
    screen.say(&format!("  port      http://{address}, shared by all replicas; there is no proxy"))?;

    let demo_project =
        DemoProject::set(engine, project, paths.lock(&name), Arc::new(netns::inode), Arc::new(ThisKernel))
            .await?;
    let outcome = tokio::select! {
        outcome = run(&demo_project, options, &name, address, screen) => outcome,
        () = interrupted => Err(DemoError::Interrupted),
    };
    screen.finish();
    if outcome.is_ok() && options.afterwards == Afterwards::Keep {
        demo_project.leave().await?;
        return outcome;
    }
    // The removal continues even if standard output is closed.
    let said = match outcome {
        Err(DemoError::Interrupted) => screen.say("  interrupted; removing everything"),
        _ => Ok(()),
    };
    demo_project.clear().await?;
    said?;
    outcome
}

async fn run<E: Engine, W: Write>(
    demo_project: &DemoProject<E>,
    options: &Options,
    project: &ProjectName,
    address: SocketAddr,
    screen: &mut Screen<W>,
) -> Result<Report, DemoError> {
    let began = Instant::now();
    demo_project.up().await?;
    let took = began.elapsed().as_secs_f64();
    screen.say(&format!("  replicas  {} run after {took:.1} s", options.replicas))?;
    screen.say(&format!("\n{} requests a second, {}:\n", options.rate, options.connections))?;

    let load = Load {
        identity: Identity::Header(server::PROCESS.to_owned()),
        connections: options.connections,
        rate: options.rate,
        ..Load::new(address)
    };
    let running = load.start();
    until(&running, screen, None, |request_stats, at| {
        progress(options.length, request_stats, at) >= KILL_AFTER
    })
    .await?;

    let at = running.elapsed();
    demo_project.kill(KILLED_SLOT).await?;
    let seconds = at.as_secs_f64();
    screen.say(&format!("  {BAD}web-{KILLED_SLOT} was killed (SIGKILL) at {seconds:.1} s{BAD:#}"))?;
    let mut replaced_at = None;
    until(&running, screen, Some(KILLED_SLOT), |request_stats, now| {
        replaced_at = spread::replaced_at(request_stats, KILLED_SLOT, at);
        replaced_at.is_some() || now > at + REPLACED_WITHIN
    })
    .await?;
    let replaced_at = replaced_at.ok_or(DemoError::NotReplaced { limit: REPLACED_WITHIN })?;
    let after = (replaced_at - at).as_secs_f64();
    screen.say(&format!(
        "  {GOOD}web-{KILLED_SLOT} is back: its replacement answered {after:.2} s later{GOOD:#}"
    ))?;

    until(&running, screen, None, |request_stats, at| progress(options.length, request_stats, at) >= 1.0)
        .await?;
    let elapsed = running.elapsed();
    let request_stats = running.stop().await;
    screen.finish();
    if let Some(replica) = spread::silent(&request_stats, options.replicas) {
        return Err(DemoError::Silent { replica, requests: request_stats.requests() });
    }
    Ok(Report {
        project: project.clone(),
        address,
        replicas: options.replicas,
        connections: options.connections,
        request_stats,
        elapsed,
        killed: Killed { replica: KILLED_SLOT, at, replaced_at },
    })
}

/// Updates the display until the condition is met.
async fn until<W: Write>(
    running: &Running,
    screen: &mut Screen<W>,
    dead: Option<u32>,
    mut done: impl FnMut(&RequestStats, Duration) -> bool,
) -> Result<(), DemoError> {
    loop {
        let (request_stats, at) = (running.request_stats(), running.elapsed());
        screen.show(&Moment {
            at,
            counts: spread::counts(&request_stats),
            requests: request_stats.requests(),
            failures: request_stats.failures(),
            dead,
        })?;
        if done(&request_stats, at) {
            return Ok(());
        }
        tokio::time::sleep(REFRESH_INTERVAL).await;
    }
}

/// The completed part of the load, from 0 to 1 and above.
fn progress(length: Length, request_stats: &RequestStats, at: Duration) -> f64 {
    match length {
        Length::Requests(wanted) => request_stats.requests() as f64 / wanted.max(1) as f64,
        Length::Time(wanted) => at.as_secs_f64() / wanted.as_secs_f64().max(f64::EPSILON),
    }
}
