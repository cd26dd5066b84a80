//! `sameport demo`, and the server in its replicas.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum, value_parser};
use sameport::{
    demo::{
        self, Afterwards, Connections, DemoError, Length, Options, Report,
        image::{self, OwnImage},
        project,
        screen::{Medium, Screen},
        server::{self, Server},
    },
    engine::{Engine, EngineError, docker::Docker},
    spec::Image,
    supervisor::paths::Paths,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{args::time, context::Context, error::CliError, output};

/// Arguments of `sameport demo`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport demo                            four replicas, eight seconds
  sameport demo --replicas 8 --keep        leave them running
  sameport demo --format json | jq .failed")]
pub struct DemoArgs {
    /// The number of replicas behind the port
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(2..=32))]
    replicas: u32,
    /// Stop after this number of requests instead of after a time
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// How long to send requests
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = duration)]
    duration: Duration,
    /// Requests per second, up to 10000
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How many requests to send on a connection: the kernel spreads connections, not requests
    #[arg(long, value_enum, default_value_t = Use::Once)]
    connections: Use,
    /// The port; without it, any free one
    #[arg(long, value_parser = value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Leave the replicas running at the end
    #[arg(long)]
    keep: bool,
}

/// A kept connection stays with its replica. It must close at some point, or a new replica would never get one.
const REQUESTS_PER_CONNECTION: u32 = 25;

/// How connections are used.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Use {
    /// One request per connection
    Once,
    /// 25 requests per connection, one after the other
    Kept,
}

/// Arguments of the server in the demo's replicas.
#[derive(Args, Debug)]
pub struct ServerArgs {
    /// Port to listen on, shared with the other replicas
    #[arg(long, default_value_t = project::PORT)]
    port: u16,
    /// Number of the replica, for its responses
    #[arg(long, env = project::REPLICA_VARIABLE, default_value = "0")]
    replica: String,
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time < Duration::from_secs(1) { Err("at least 1s is needed".to_owned()) } else { Ok(time) }
}

/// Runs the server in a replica.
pub async fn serve(args: ServerArgs) -> Result<(), CliError> {
    let server = Server { replica: args.replica, port: args.port };
    Ok(server::run(server).await.map_err(DemoError::Server)?)
}

/// Runs the demo. If it fails, everything that it has created is removed.
pub async fn run(context: &Context, args: DemoArgs) -> Result<(), CliError> {
    let (once, twice) = signals().map_err(CliError::io("cannot heed signals"))?;
    let outcome = tokio::select! {
        outcome = show(context, args, once) => outcome,
        // The user has interrupted a second time: the removal takes too long.
        () = twice.cancelled() => Err(DemoError::Abandoned.into()),
    };
    outcome.map_err(|error| match error {
        CliError::Demo(DemoError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            CliError::ClosedPipe
        }
        error => error,
    })
}

async fn show(context: &Context, args: DemoArgs, interrupted: CancellationToken) -> Result<(), CliError> {
    let options = options(&args);
    let mut screen = screen(context, options.replicas);
    let docker = context.engine().await?;
    let info = docker.info().await?;
    if !info.local {
        return Err(DemoError::Remote.into());
    }
    let mut say = |line: &str| screen.say(line).map_err(DemoError::Output);
    say(&format!("sameport demo: {} replicas of one image behind one port\n", options.replicas))?;
    say(&format!("  engine    {}, API {}", info.name, info.api_version))?;

    let own = image::provide(&docker).await?;
    let outcome = perform(&docker, &own, &options, &mut screen, interrupted).await;
    let kept = outcome.is_ok() && options.afterwards == Afterwards::Keep;
    if !kept {
        remove(&docker, &own.name).await?;
    }
    let report = outcome?;
    if context.data().is_some() {
        return output::json(&report.figures());
    }
    output::colored_line(&format!("\n{report}"))?;
    output::colored_line(&ending(&report, options.afterwards, &own.name))
}

/// With `--format`, the figures are printed at the end, and nothing before.
fn screen(context: &Context, replicas: u32) -> Screen<Box<dyn Write + Send>> {
    match (context.data().is_some(), io::stdout().is_terminal()) {
        (true, _) => Screen::new(Box::new(io::sink()), Medium::Lines, replicas),
        (false, true) => Screen::new(Box::new(anstream::stdout()), Medium::Terminal, replicas),
        (false, false) => Screen::new(Box::new(anstream::stdout()), Medium::Lines, replicas),
    }
}

async fn perform<W: Write>(
    docker: &Docker,
    own: &OwnImage,
    options: &Options,
    screen: &mut Screen<W>,
    interrupted: CancellationToken,
) -> Result<Report, DemoError> {
    let megabytes = own.size as f64 / 1e6;
    screen.say(&format!("  image     {} ({megabytes:.1} MB: this program)", own.name))?;
    let engine = Arc::new(docker.clone());
    let paths = Paths::from_env()?;
    demo::play(engine, own.name.clone(), options, &paths, screen, interrupted.cancelled()).await
}

fn options(args: &DemoArgs) -> Options {
    Options {
        replicas: args.replicas,
        length: args.requests.map_or(Length::Time(args.duration), Length::Requests),
        rate: args.rate,
        connections: match args.connections {
            Use::Once => Connections::PerRequest,
            Use::Kept => Connections::Kept(REQUESTS_PER_CONNECTION),
        },
        port: args.port,
        afterwards: if args.keep { Afterwards::Keep } else { Afterwards::Remove },
    }
}

async fn remove(docker: &Docker, image: &Image) -> Result<(), EngineError> {
    match docker.remove_image(image).await {
        // Another demo still uses the image and will remove it.
        Err(EngineError::Conflict { .. }) => Ok(()),
        outcome => outcome,
    }
}

fn ending(report: &Report, afterwards: Afterwards, image: &Image) -> String {
    let Report { project, address, .. } = report;
    match afterwards {
        Afterwards::Remove => "Everything that the demo made is removed.".to_owned(),
        Afterwards::Keep => format!(
            "The replicas keep running, but a replica that dies is no longer replaced.\n\n  \
             look     sameport -p {project} ps\n  \
             ask      curl http://{address}\n  \
             remove   sameport -p {project} down; docker rmi {image}"
        ),
    }
}

/// Tokens that are cancelled by the first and by the second SIGINT, SIGTERM or SIGHUP.
fn signals() -> io::Result<(CancellationToken, CancellationToken)> {
    let (once, twice) = (CancellationToken::new(), CancellationToken::new());
    let mut kinds = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        kinds.push(signal(kind)?);
    }
    let tokens = [once.clone(), twice.clone()];
    tokio::spawn(async move {
        for token in tokens {
            let received = kinds.iter_mut().map(|kind| Box::pin(kind.recv()));
            futures_util::future::select_all(received).await;
            token.cancel();
        }
    });
    Ok((once, twice))
}
