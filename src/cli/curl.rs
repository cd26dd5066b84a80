//! `sameport curl`: one request to one replica, past the kernel's choice.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use sameport::{
    engine::{ContainerState, Engine, docker::Docker},
    kernel::{KernelError, Netns},
    plan::{
        PodSharing,
        status::{ProjectStatus, ReplicaStatus},
    },
    spec::{Project, Protocol},
    supervisor::Selector,
};

use super::{
    args::{selector, time},
    context::Context,
    error::CliError,
    ps,
    session::Session,
};

/// Arguments of `sameport curl`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport curl web.2 /healthz
  sameport curl -i -H 'Accept: text/plain' web.1 /metrics --port 9090")]
pub struct CurlArgs {
    /// The port in the pod; that on which the replica listens, if there is one only
    #[arg(long)]
    port: Option<u16>,
    /// Print the status line and the header, too
    #[arg(short, long)]
    include: bool,
    /// Fail with exit code 1, and without output, if the status is 400 or more
    #[arg(short, long)]
    fail: bool,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<Method>,
    /// A line of the header
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The body; makes it a POST
    #[arg(short, long, value_name = "TEXT")]
    data: Option<String>,
    /// How long it may take
    #[arg(short, long, value_name = "TIME", value_parser = time, default_value = "30s")]
    max_time: Duration,
    /// Which one
    #[arg(value_name = "SERVICE.N", value_parser = selector)]
    replica: Selector,
    /// What is asked for
    #[arg(default_value = "/")]
    path: String,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("`{name}` is no name of a header"))?;
    let value =
        value.trim().parse().map_err(|_| "a header's value has visible ASCII characters".to_owned())?;
    Ok((name, value))
}

/// Runs `sameport curl`.
pub async fn run(context: &Context, args: CurlArgs) -> Result<(), CliError> {
    let (name, loaded) = context.load_if_possible()?;
    let docker = context.engine().await?;
    let file = loaded.map_or_else(|| Project::empty(name.clone()), |loaded| loaded.project);
    let status = match Session::running(context, &name).await? {
        Some(session) => session.status().await?,
        None => ps::look(context, &docker, file.clone()).await?,
    };
    let replica = find(&status, &args.replica)?;
    let (address, port) = (address(&file, &status, replica)?, port(&file, replica, args.port)?);
    let netns = network(&docker, &status, replica).await?;
    let what = format!("{}.{} port {port}", replica.service, replica.slot);
    let asked = tokio::time::timeout(args.max_time, ask(&netns, address, port, &args));
    match asked.await {
        Ok(done) => done.map_err(|error| match error {
            Failure::Connect(reason) => CliError::failed(format!("cannot connect to {what}: {reason}"), None),
            Failure::Http(error) => CliError::failed(format!("no answer of {what}: {error}"), None),
            Failure::Cli(error) => error,
        }),
        Err(_) => Err(CliError::failed(format!("{what} does not answer within {:?}", args.max_time), None)),
    }
}

fn find<'s>(status: &'s ProjectStatus, wanted: &Selector) -> Result<&'s ReplicaStatus, CliError> {
    let Some(slot) = wanted.slot else {
        return Err(CliError::Usage {
            message: format!("`{}` may have several replicas", wanted.service),
            help: format!("name one, such as {}.1", wanted.service),
        });
    };
    let found = status.replicas.iter().find(|r| r.service == wanted.service && r.slot == slot);
    found.filter(|replica| replica.container.is_some()).ok_or_else(|| CliError::Usage {
        message: format!("there is no replica {}.{slot}", wanted.service),
        help: "`sameport ps` shows what there is".to_owned(),
    })
}

fn address(file: &Project, status: &ProjectStatus, replica: &ReplicaStatus) -> Result<Ipv4Addr, CliError> {
    if let Some(address) = replica.traffic.as_ref().and_then(|traffic| traffic.address) {
        return Ok(address);
    }
    let sharing = status.pods.iter().find(|pod| pod.pod == replica.pod).map(|pod| &pod.sharing);
    // Nobody supervises it: the kernel goes on all the same, and the file tells.
    let by_file =
        file.services.get(&replica.service).and_then(|service| file.own_address(service, replica.slot));
    let why = match (sharing, by_file) {
        (Some(PodSharing::Kernel), Some(address)) => return Ok(address),
        (Some(PodSharing::Kernel), None) => "the file does not tell it".to_owned(),
        (Some(PodSharing::Application { reason: Some(reason) }), _) => reason.clone(),
        _ => "only the kernel can tell replicas apart, and here the images share their ports".to_owned(),
    };
    let message = format!("{}.{} has no address of its own: {why}", replica.service, replica.slot);
    Err(CliError::failed(message, Some("`sameport ps` and `sameport doctor` tell more")))
}

fn port(file: &Project, replica: &ReplicaStatus, wanted: Option<u16>) -> Result<u16, CliError> {
    if let Some(port) = wanted {
        return Ok(port);
    }
    let ports = replica.traffic.iter().flat_map(|traffic| &traffic.ports);
    let mut ports: Vec<_> = ports.filter(|port| port.protocol == "tcp").map(|port| port.port).collect();
    if let (None, Some(pod)) = (&replica.traffic, file.pods.get(&replica.pod)) {
        let published = pod.published_by(&replica.service).filter(|(_, protocol)| *protocol == Protocol::Tcp);
        ports.extend(published.map(|(port, _)| port));
        ports.dedup();
    }
    match ports.as_slice() {
        [port] => Ok(*port),
        [] => Err(CliError::failed(format!("{}.{} listens on no port", replica.service, replica.slot), None)),
        _ => Err(CliError::Usage {
            message: format!("{}.{} listens on {ports:?}", replica.service, replica.slot),
            help: "choose one with --port".to_owned(),
        }),
    }
}

async fn network(
    docker: &Docker,
    status: &ProjectStatus,
    replica: &ReplicaStatus,
) -> Result<Netns, CliError> {
    let sandbox =
        status.pods.iter().find(|pod| pod.pod == replica.pod).and_then(|pod| pod.container.as_ref());
    let gone = || CliError::failed(format!("the pod {} is not open", replica.pod), None);
    match docker.inspect(sandbox.ok_or_else(gone)?).await?.state {
        ContainerState::Running(process) => Netns::of(process.pid).map_err(|error| denied(&error)),
        _ => Err(gone()),
    }
}

fn denied(error: &KernelError) -> CliError {
    let help = matches!(error, KernelError::Denied { .. }).then_some("it takes root: run it with sudo");
    CliError::failed(error.to_string(), help)
}

enum Failure {
    Connect(String),
    Http(hyper::Error),
    Cli(CliError),
}

async fn ask(netns: &Netns, address: Ipv4Addr, port: u16, args: &CurlArgs) -> Result<(), Failure> {
    let to = SocketAddr::from((address, port));
    let connected = netns.within(|| Ok(TcpStream::connect_timeout(&to, args.max_time)));
    let stream = connected
        .map_err(|error| Failure::Cli(denied(&error)))?
        .and_then(|stream| {
            stream.set_nonblocking(true)?;
            tokio::net::TcpStream::from_std(stream)
        })
        .map_err(|error| Failure::Connect(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Http)?;
    // It ends with the answer.
    tokio::spawn(connection);
    let response =
        sender.send_request(request(args, port).map_err(Failure::Cli)?).await.map_err(Failure::Http)?;
    show(response, args).await
}

fn request(args: &CurlArgs, port: u16) -> Result<Request<Full<Bytes>>, CliError> {
    let usual = if args.data.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(args.request.clone().unwrap_or(usual)).uri(&args.path);
    if let Some(headers) = request.headers_mut() {
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("sameport/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &args.header {
            headers.append(name, value.clone());
        }
        if !headers.contains_key(HOST)
            && let Ok(host) = format!("localhost:{port}").parse()
        {
            headers.insert(HOST, host);
        }
    }
    let body = Full::new(Bytes::from(args.data.clone().unwrap_or_default()));
    request.body(body).map_err(|error| CliError::Usage {
        message: format!("`{}` cannot be asked for: {error}", args.path),
        help: "write a path such as `/healthz`".to_owned(),
    })
}

async fn show(response: Response<Incoming>, args: &CurlArgs) -> Result<(), Failure> {
    let status = response.status();
    if args.fail && status.as_u16() >= 400 {
        return Err(Failure::Cli(CliError::failed(format!("the answer is {status}"), None)));
    }
    let mut head = String::new();
    if args.include {
        head = format!("{:?} {status}\r\n", response.version());
        for (name, value) in response.headers() {
            head.push_str(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())));
        }
        head.push_str("\r\n");
    }
    let print = |bytes: &[u8]| {
        let mut out = std::io::stdout();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|_| Failure::Cli(CliError::ClosedPipe))
    };
    print(head.as_bytes())?;
    let mut body = response.into_body();
    // As it comes, so that an endless answer is seen.
    while let Some(frame) = body.frame().await {
        if let Some(bytes) = frame.map_err(Failure::Http)?.data_ref() {
            print(bytes)?;
        }
    }
    Ok(())
}
