//! What happened, in a line.

use anstyle::{AnsiColor, Style};
use sameport::{
    engine::Health,
    kernel::steering::{OtherUser, Stranger},
    plan::{Failure, Target, Verb, versions::Underway},
    spec::{FailureAction, Image, PodName, ServiceName},
    supervisor::{Event, EventKind, Milestone},
};

use super::state::{self, CRASH_LOOP};
use crate::cli::error::styled;

/// An event in a line, or a few where it takes more to be understood; none where a person need not know.
pub fn describe(event: &Event) -> Option<String> {
    let (red, yellow) = (AnsiColor::Red.on_default(), AnsiColor::Yellow.on_default());
    let green = AnsiColor::Green.on_default();
    Some(match &event.kind {
        EventKind::Applied { .. } | EventKind::Begun { .. } => return None,
        EventKind::NotApplied { error, .. } => {
            format!("{}\n{error}", styled("the file is not taken, and all stays as it is:", red))
        }
        EventKind::NotWatched { error } => {
            styled(&format!("changes of the file are seen late from now on: {error}"), yellow)
        }
        EventKind::Done { verb, target } => format!("{target} {}", done(*verb, target)),
        EventKind::Failed { verb: Verb::Run, target, error, .. } => {
            styled(&format!("{target} is stopped and started again: {error}"), red)
        }
        EventKind::Failed { verb, target, error, help } => {
            let help = help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            styled(&format!("cannot {verb} {target}: {error}{help}"), red)
        }
        EventKind::Exited { service, slot, exit, exits, log } => {
            let again =
                if *exits >= CRASH_LOOP { format!(", {exits} times in a row") } else { String::new() };
            let line = format!("{service}.{slot} ended: {}{again}", state::exit(exit));
            let words = log.iter().rev().take(3).rev().map(|line| format!("\n    {line}"));
            format!("{}{}", styled(&line, red), words.collect::<String>())
        }
        EventKind::PortNotShared { service, slot, image, port } => {
            styled(&cannot_share(&format!("{service}.{slot}"), image, *port), red)
        }
        EventKind::OtherUser { service, slot, other } => {
            styled(&other_user(&format!("{service}.{slot}"), other), red)
        }
        EventKind::SharedByKernel => "the kernel shares ports".to_owned(),
        EventKind::SharedByImages { reason } => styled(&shared_by_images(reason), yellow),
        EventKind::CannotSteer { pod, error } => {
            styled(&format!("the kernel cannot choose as wanted for {pod}: {error}"), red)
        }
        EventKind::LeftInKernel { error } => {
            styled(&format!("something of the project stays in the kernel: {error}"), red)
        }
        EventKind::Rotation { service, slot, weight, live, total, queue } => {
            let count = format!("{live} open, {total} so far, {queue} not accepted");
            match weight {
                0 => format!("{service}.{slot} gets no new connections ({count})"),
                _ => format!("{service}.{slot} gets connections, weight {weight} ({count})"),
            }
        }
        EventKind::Waiting { pod, port, connections: 0 } => {
            format!("no connection to port {port} of {pod} waits any more")
        }
        EventKind::Waiting { pod, port, connections } => {
            let text = format!("{connections} connections to port {port} of {pod} wait: no replica is ready");
            styled(&text, yellow)
        }
        EventKind::Stranger { pod, stranger } => styled(&strange(pod, stranger), yellow),
        EventKind::PreStopFailed { target, error } => {
            styled(&format!("{target} is stopped, though {error}"), yellow)
        }
        EventKind::JobFailed { target, exit, log } => {
            let line =
                format!("{target} failed: {}; no replica of the new version is started", state::exit(exit));
            let words = log.iter().map(|line| format!("\n    {line}"));
            format!("{}{}", styled(&line, red), words.collect::<String>())
        }
        EventKind::Health { service, slot, health } => {
            let (word, style) = match health {
                Health::Healthy => ("is healthy", green),
                Health::Unhealthy => ("is unhealthy", red),
                Health::Starting | Health::None => ("is not healthy yet", Style::new()),
            };
            format!("{service}.{slot} {}", styled(word, style))
        }
        EventKind::Stuck { service, slot, waiting } => {
            let text = format!(
                "{service}.{slot} takes no connections while others do ({waiting} wait): no new ones for it"
            );
            styled(&text, yellow)
        }
        EventKind::Replaced { service, slot, why } => {
            styled(&format!("{service}.{slot} is replaced: {why}"), red)
        }
        EventKind::Rollout { service, milestone } => rollout(service, milestone),
        EventKind::PodLost { pod } => {
            styled(&format!("{pod} lost its network: its sandbox ended; it is rebuilt"), yellow)
        }
        EventKind::StateReset { reset } => styled(&format!("warning: {reset}"), yellow),
        EventKind::EngineLost { reason } => {
            styled(&format!("the engine is gone, what runs goes on: {reason}"), yellow)
        }
        EventKind::EngineBack => "the engine is back".to_owned(),
        EventKind::Converged => styled("all is as wanted", green),
        EventKind::Removed => "all is removed".to_owned(),
    })
}

fn rollout(service: &ServiceName, milestone: &Milestone) -> String {
    let (red, yellow) = (AnsiColor::Red.on_default(), AnsiColor::Yellow.on_default());
    match milestone {
        Milestone::Begun { underway: Underway { from, to, back: Some(_), .. } } => {
            styled(&format!("{service} goes back from version {from} to version {to}"), yellow)
        }
        Milestone::Begun { underway: Underway { from, to, back: None, .. } } => {
            format!("{service} goes from version {from} to version {to}")
        }
        Milestone::Step { share } => format!("the new version of {service} gets {share} of the connections"),
        Milestone::Promoted => format!("the new version of {service} gets all connections"),
        Milestone::Failed { version, failure, action } => {
            let then = match action {
                FailureAction::Rollback => "it goes back",
                FailureAction::Pause => "nothing more is replaced",
                FailureAction::Continue => "the others go on",
            };
            let Failure { slot, reason } = failure;
            styled(
                &format!("version {version} of {service} is no good, {then}: in slot {slot} {reason}"),
                red,
            )
        }
        Milestone::Done { underway: Underway { to, .. }, proof } => {
            let done = styled(&format!("{service} runs version {to}"), AnsiColor::Green.on_default());
            proof.map_or_else(|| done.clone(), |proof| format!("{done}: {proof}"))
        }
    }
}

fn done(verb: Verb, target: &Target) -> &'static str {
    match (verb, target) {
        (Verb::Create, _) => "created",
        (Verb::Launch, Target::Sandbox(_)) => "opened",
        (Verb::Launch | Verb::Start, _) => "started",
        (Verb::Run, _) => "has run its post_start",
        (Verb::Update, _) => "has other limits",
        (Verb::Promote, _) => "takes over",
        (Verb::Stop, _) => "stopped",
        (Verb::Remove, _) => "removed",
    }
}

/// Who shares ports, where the kernel was to do it and cannot: what is missing, and what it costs.
pub fn shared_by_images(reason: &str) -> String {
    format!(
        "the kernel does not share ports here ({reason}): images have to by themselves (`sharing: application`), and \
         health, load, weights and drains do not count; see `sameport doctor`"
    )
}

/// A replica ended because replicas of another user share its port.
pub fn other_user(replica: &str, other: &OtherUser) -> String {
    let OtherUser { port, user, owner } = other;
    format!(
        "{replica} runs as user {user} and cannot have port {port}: replicas of user {owner} share it, and the kernel lets \
         only one user share a port; they go on serving. Write `user: \"{owner}\"` in the Compose file, or \
         `sameport stop` the service and start it again as the new user"
    )
}

/// A socket has joined those of the replicas that is nobody's.
pub fn strange(pod: &PodName, stranger: &Stranger) -> String {
    let Stranger { port, takes, pid, command } = stranger;
    let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid} ({command})"));
    let gets = match takes {
        None => "it gets no connection".to_owned(),
        Some(address) => format!("it takes what is sent to {}", address.ip()),
    };
    format!("{who} listens on port {port} of {pod} and is none of its replicas: {gets}")
}

/// A replica ended because another one has its port.
pub fn cannot_share(replica: &str, image: &Image, port: Option<u16>) -> String {
    let port = port.map_or_else(|| "its port".to_owned(), |port| format!("port {port}"));
    format!(
        "{replica} cannot have {port}: the image {image} opens it for itself alone, and another replica was \
         first, which goes on serving"
    )
}

/// What to do about an image that keeps its port to itself.
pub fn how_to_share(port: Option<u16>) -> String {
    let n = port.unwrap_or(8080);
    format!(
        "the program in the image has to set the socket option SO_REUSEPORT before it binds:
    nginx      listen {n} reuseport;
    gunicorn   gunicorn --reuse-port --bind 0.0.0.0:{n} app
    Node       server.listen({{ port: {n}, reusePort: true }})    (Node 23.1 or later)
    Go         net.ListenConfig with a Control that sets unix.SO_REUSEPORT
  or run one replica of it"
    )
}

/// The event with its time in front.
pub fn with_time(event: &Event) -> Option<String> {
    let time = event.time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string();
    Some(format!("{} {}", styled(&time, Style::new().dimmed()), describe(event)?))
}
