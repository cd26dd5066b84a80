//! `sameport curl`: a request to one replica, which bypasses the kernel's choice.

use std::{io::Write, net::Ipv4Addr, time::Duration};

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
    api::schema::{Pod, Replica, Sharing, Status, replica_name},
    engine::{ContainerId, ContainerState, Engine, docker::Docker},
    kernel::{KernelError, Netns, replica_addr},
    spec::{PodName, Project, Protocol, ServiceName, Slot},
};

use super::{
    args::time,
    context::Context,
    error::CliError,
    project_status,
    selector::{self, Written},
    session::Session,
};

/// Arguments of `sameport curl`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport curl web-2 /healthz
  sameport curl -i -H 'Accept: text/plain' web-1 /metrics --port 9090")]
pub struct CurlArgs {
    /// The port in the pod; not needed if the replica listens on one only
    #[arg(long)]
    port: Option<u16>,
    /// Print the status line and headers as well
    #[arg(short, long)]
    include: bool,
    /// Exit with 1 and print nothing if the status is 400 or more
    #[arg(short, long)]
    fail: bool,
    /// The request method
    #[arg(short = 'X', long, value_name = "METHOD")]
    request: Option<Method>,
    /// A request header
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The request body; makes it a POST
    #[arg(short, long, value_name = "TEXT")]
    data: Option<String>,
    /// Time limit
    #[arg(short, long, value_name = "TIME", value_parser = time, default_value = "30s")]
    max_time: Duration,
    /// The replica, such as web-2
    #[arg(value_name = "SERVICE-N")]
    replica: Written,
    /// The path, with a query
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
    let wanted = selector::resolve_replicas(context, std::slice::from_ref(&args.replica)).await?;
    let status = match Session::running(context, &name).await? {
        Some(session) => session.status().await?,
        None => project_status::look(context, &docker, file.clone()).await?,
    };
    let replica = find(&status, &wanted)?;
    let (address, port) = (address(&file, &status, replica)?, port(&file, replica, args.port)?);
    let netns = network(&docker, &status, replica).await?;
    let what = format!("{} port {port}", replica.replica);
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

fn find<'s>(status: &'s Status, wanted: &[(ServiceName, Slot)]) -> Result<&'s Replica, CliError> {
    let is_wanted = |replica: &&Replica| {
        wanted
            .iter()
            .any(|(service, slot)| replica.service == service.as_str() && replica.slot == slot.number())
    };
    let found = status.replicas.iter().find(is_wanted);
    found.filter(|replica| replica.id.is_some()).ok_or_else(|| CliError::Usage {
        message: format!("there is no replica {}", wanted.iter().map(named).collect::<String>()),
        help: "`sameport ps` lists those that exist".to_owned(),
    })
}

fn named((service, slot): &(ServiceName, Slot)) -> String {
    replica_name(service, slot)
}

fn pod<'s>(status: &'s Status, replica: &Replica) -> Option<&'s Pod> {
    status.pods.iter().find(|pod| pod.name == replica.pod)
}

fn address(file: &Project, status: &Status, replica: &Replica) -> Result<Ipv4Addr, CliError> {
    let told = replica.traffic.as_ref().and_then(|traffic| traffic.address.as_ref());
    if let Some(address) = told.and_then(|address| address.parse().ok()) {
        return Ok(address);
    }
    let pod = pod(status, replica);
    let why = match (pod.map(|pod| pod.sharing), by_file(file, replica)) {
        // Without a supervisor the kernel still steers, and the addresses follow from the file.
        (Some(Sharing::Kernel), Some(address)) => return Ok(address),
        (Some(Sharing::Kernel), None) => "the file does not say which".to_owned(),
        _ => pod.and_then(|pod| pod.sharing_error.clone()).unwrap_or_else(|| {
            "replicas cannot be addressed separately: here the images share their ports, not the kernel"
                .to_owned()
        }),
    };
    let message = format!("{} has no address of its own: {why}", replica.replica);
    Err(CliError::failed(message, Some("see `sameport ps` and `sameport doctor`")))
}

fn by_file(file: &Project, replica: &Replica) -> Option<Ipv4Addr> {
    let service = file.services.get(&replica.service.parse::<ServiceName>().ok()?)?;
    file.own_address(service, Slot::new(replica.slot)?)
}

fn port(file: &Project, replica: &Replica, wanted: Option<u16>) -> Result<u16, CliError> {
    if let Some(port) = wanted {
        return Ok(port);
    }
    let ports = replica.traffic.iter().flat_map(|traffic| &traffic.ports);
    let mut ports: Vec<_> = ports.filter(|port| port.protocol == "tcp").map(|port| port.port).collect();
    if replica.traffic.is_none() {
        ports.extend(published(file, replica));
        ports.dedup();
    }
    match ports.as_slice() {
        [port] => Ok(*port),
        [] => Err(CliError::failed(format!("{} listens on no port", replica.replica), None)),
        _ => Err(CliError::Usage {
            message: format!("{} listens on {ports:?}", replica.replica),
            help: "choose one with --port".to_owned(),
        }),
    }
}

/// The TCP ports that the file publishes for a replica's service.
fn published(file: &Project, replica: &Replica) -> Vec<u16> {
    let pod = replica.pod.parse::<PodName>().ok().and_then(|name| file.pods.get(&name));
    let (Some(pod), Ok(service)) = (pod, replica.service.parse()) else { return Vec::new() };
    pod.published_by(&service)
        .filter(|(_, protocol)| *protocol == Protocol::Tcp)
        .map(|(port, _)| port)
        .collect()
}

async fn network(docker: &Docker, status: &Status, replica: &Replica) -> Result<Netns, CliError> {
    let sandbox = pod(status, replica).and_then(|pod| pod.sandbox_id.clone());
    let gone = || CliError::failed(format!("the pod {} is not open", replica.pod), None);
    match docker.inspect(&ContainerId(sandbox.ok_or_else(gone)?)).await?.state {
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
    let stream = replica_addr::connect(netns, address, port, args.max_time)
        .map_err(|error| Failure::Cli(denied(&error)))?
        .and_then(|stream| {
            stream.set_nonblocking(true)?;
            tokio::net::TcpStream::from_std(stream)
        })
        .map_err(|error| Failure::Connect(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Http)?;
    // The task ends with the connection, after the response.
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
    // Print parts as they arrive, so that a streamed response is visible.
    while let Some(frame) = body.frame().await {
        if let Some(bytes) = frame.map_err(Failure::Http)?.data_ref() {
            print(bytes)?;
        }
    }
    Ok(())
}
