//! Messages that several commands print.

use crate::{
    api::schema::{
        ExclusivePort, Exit, ForeignKind, ForeignListener, ForeignResource, Order, ReplacementOrder,
        SharedFile, SharedFileKind, UnservedPort, UserConflict,
    },
    plan::{self, status::ExitStatus},
};

use super::state::ranges;

/// How a process ended: `exit code 1`, `killed by SIGKILL`, `out of memory`.
#[must_use]
pub fn exit(exit: &Exit) -> String {
    let Exit { exit_code: code, out_of_memory, error, at } = exit;
    let status = ExitStatus { code: *code, out_of_memory: *out_of_memory, error: error.clone(), at: at.0 };
    status.to_string()
}

/// The message for a kernel that cannot share ports: what is missing, and the effect.
#[must_use]
pub fn shared_by_application(reason: &str) -> String {
    format!(
        "the kernel does not share ports here ({reason}): images have to by themselves (`sharing: application`), and \
         health, load, weights and drains do not count; see `sameport doctor`"
    )
}

/// The order in which the replicas of a service are replaced, and its reason.
#[must_use]
pub fn replacement_order(service: &str, order: &ReplacementOrder) -> String {
    let ReplacementOrder { order, order_message, .. } = order;
    let order = match order {
        Order::StartFirst => "start-first",
        Order::StopFirst => "stop-first",
    };
    format!("{service}: replicas are replaced {order}: {order_message}")
}

/// The message for a replica that could not get its port from another user in repeated attempts.
#[must_use]
pub fn user_conflict(replica: &str, conflict: &UserConflict) -> String {
    let UserConflict { port, user, owner } = conflict;
    format!(
        "{replica} runs as user {user} and could not get port {port} from the replicas of user {owner}, which go on serving"
    )
}

/// The message for a replica that ended because another user held its port, and that gets the port now.
#[must_use]
pub fn port_given(replica: &str, conflict: &UserConflict) -> String {
    let UserConflict { port, user, owner } = conflict;
    format!(
        "{replica} runs as user {user}; port {port} passes from user {owner} to user {user}, and {replica} starts again"
    )
}

/// The message for a program that tried to choose which replica gets connections.
#[must_use]
pub fn reuseport_program_ignored(pod: &str, replica: Option<&str>, port: u16, protocol: &str) -> String {
    let who =
        replica.map_or_else(|| format!("a process in pod {pod} that belongs to no replica"), str::to_owned);
    format!("{who} tried to choose the replica for connections to port {port}/{protocol}: ignored")
}

/// The message for a foreign listener on a port of the replicas.
#[must_use]
pub fn foreign_listener(pod: &str, listener: &ForeignListener) -> String {
    let ForeignListener { port, address, pid, command } = listener;
    let command = printable(command);
    let who = pid.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid} ({command})"));
    let gets = match address {
        None => "it gets no connection".to_owned(),
        Some(address) => format!("it takes what is sent to {address}"),
    };
    format!("{who} listens on port {port} of {pod} but is not one of its replicas: {gets}")
}

/// Escapes control characters in text that a program in a container chose, because they could control the terminal.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_debug());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The message for a file that is meant for one process and that several replicas share.
#[must_use]
pub fn shared_file(file: &SharedFile) -> String {
    let SharedFile { service, path, kind } = file;
    let path = printable(path);
    let what = match kind {
        SharedFileKind::Socket => "listen on the socket",
        SharedFileKind::PidFile => "write the pid file",
    };
    let effect = match kind {
        SharedFileKind::Socket => "only the last one that started is reached by it",
        SharedFileKind::PidFile => "each one finds the process id of another",
    };
    format!(
        "replicas of {service} {what} {path} in a folder that they share: {effect}. Give each replica its own volume \
         (`NAME-{{{{.Slot}}}}`), or run one"
    )
}

/// The message for a health check that cannot be run, and the effect.
#[must_use]
pub fn health_check_error(service: &str, error: &str) -> String {
    format!(
        "{service}: its health check cannot be run ({error}) and is ignored: a replica counts as ready once it listens. \
         Change `healthcheck` in the file, or add its program to the image"
    )
}

/// The messages for published ports on which no replica can be reached, grouped by service.
#[must_use]
pub fn unserved_ports(ports: &[UnservedPort]) -> Vec<String> {
    let mut notes = Vec::new();
    for of_service in ports.chunk_by(|one, other| one.service == other.service) {
        let (local, closed): (Vec<_>, Vec<_>) =
            of_service.iter().partition(|port| port.unreachable_address.is_some());
        let service = of_service.iter().map(|port| &port.service).next().map_or("", String::as_str);
        notes.extend(local.iter().filter_map(|port| {
            let address = port.unreachable_address.as_ref()?;
            Some(format!(
                "{service}: port {} is published, but the replicas listen on {address}, which cannot be reached from outside their container",
                port.port
            ))
        }));
        let numbers: Vec<_> = closed.iter().map(|port| port.port).collect();
        if !numbers.is_empty() {
            let plural = if numbers.len() == 1 { "port" } else { "ports" };
            notes.push(format!(
                "{service}: no replica listens on published {plural} {}",
                ranges(&numbers).join(", ")
            ));
        }
    }
    notes
}

/// The message for a replica with more listeners than can be steered.
#[must_use]
pub fn unsteered_listeners(replica: &str, count: u64) -> String {
    format!(
        "{replica} has {count} listeners too many: their connections are spread without regard to readiness, load and weight. Ports that the Compose file publishes or exposes have priority"
    )
}

/// The message for a resource that has sameport's labels but was not made by sameport.
#[must_use]
pub fn foreign_resource(resource: &ForeignResource) -> String {
    let ForeignResource { kind, name, id, image, reason } = resource;
    let kind = match kind {
        ForeignKind::Container => "container",
        ForeignKind::Network => "network",
        ForeignKind::Volume => "volume",
    };
    let id = id.as_ref().map(|id| id.get(..12).unwrap_or(id).to_owned());
    let details: Vec<_> =
        id.into_iter().chain(image.as_ref().map(|image| format!("image {image}"))).collect();
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
    format!(
        "{kind} {name}{details} has labels of sameport, but sameport did not make it: {reason}; it is left alone"
    )
}

/// The message for a replica that ended because another one holds its port.
#[must_use]
pub fn port_not_shared(replica: &str, image: &str, port: Option<u16>) -> String {
    let port = port.map_or_else(|| "its port".to_owned(), |port| format!("port {port}"));
    format!(
        "{replica} cannot bind {port}: the image {image} does not share it, and another replica already serves it"
    )
}

/// The message for a replica that ended after it requested an exclusive port.
#[must_use]
pub fn exclusive_port(replica: &str, port: &ExclusivePort) -> String {
    let ExclusivePort { port, protocol } = port;
    format!(
        "{replica} asked for port {port}/{protocol}, which is exclusive and held by another replica; to let replicas share \
         it: {}",
        plan::ExclusivePort::how_to_share(*port)
    )
}

/// Help for an image that does not share its port.
#[must_use]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_process_names_are_escaped() {
        let listener =
            ForeignListener {
                port: 80, address: None, pid: Some(7), command: "\u{1b}]0;x\u{7}ö".to_owned()
            };
        let told = foreign_listener("web", &listener);
        assert!(told.starts_with("process 7 (\\u{1b}]0;x\\u{7}ö) listens on port 80 of web"), "{told}");
        let file = SharedFile {
            service: "web".to_owned(),
            path: "/run/\n\u{9b}2J.sock".to_owned(),
            kind: SharedFileKind::Socket,
        };
        assert!(!shared_file(&file).chars().any(char::is_control));
    }
}
