//! What the daemon and the way to it say when something goes wrong, sorted by what to do about it.

use bollard::errors::Error;

use crate::engine::{EngineError, tells_of_host_fault};

/// What a call was about, for messages such as `container web-1 does not exist`.
pub(super) type What<'a> = &'a str;

/// Sorts an error of the client.
pub(super) fn classify(error: Error, what: What<'_>, address: &str) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => response(status_code, message, what),
        Error::DockerStreamError { error } => refusal(error),
        Error::RequestTimeoutError => {
            EngineError::Busy { message: format!("the engine does not answer ({what})") }
        }
        other => unreachable_or_refused(&other, address),
    }
}

/// Sorts an answer of the daemon by its status, and where that is too coarse by its words.
fn response(status: u16, message: String, what: What<'_>) -> EngineError {
    let words = message.to_lowercase();
    if is_port_taken(&words) {
        return EngineError::PortTaken { message };
    }
    match status {
        // A registry's refusal comes with any of these.
        401 | 404 | 500 if is_unauthorized(&words) => EngineError::Unauthorized { message },
        // Of the thing itself, or of an image, network or container that the request names.
        404 => EngineError::Gone { what: missing(&message).unwrap_or_else(|| what.to_owned()) },
        // Daemons disagree on the status where a request names a container to join.
        _ if words.starts_with("no such container") || words.starts_with("no such image") => {
            EngineError::Gone { what: missing(&message).unwrap_or_else(|| what.to_owned()) }
        }
        409 => EngineError::Conflict { message },
        401 => EngineError::Unauthorized { message },
        // Networks answer with it, too, where they mean a conflict.
        403 if is_address_taken(&words) => EngineError::AddressTaken { message },
        403 if words.contains("has active endpoints") || words.contains("endpoint with name") => {
            EngineError::Conflict { message }
        }
        403 => EngineError::Denied { message },
        408 | 429 | 502 | 503 | 504 => EngineError::Busy { message },
        // A container that joins one which has just gone or does not run is answered with 500 by old daemons.
        500 if words.contains("cannot join network of a non running container") => {
            EngineError::Conflict { message }
        }
        500..=599 if tells_of_host_fault(&words) => EngineError::HostFault { message },
        500 if is_passing(&words) || is_empty(&words) => EngineError::Busy { message },
        _ if tells_of_remains(&words) => EngineError::Busy { message },
        _ => EngineError::Refused { message },
    }
}

/// An error in the middle of a stream, where there is no status.
fn refusal(message: String) -> EngineError {
    let words = message.to_lowercase();
    if is_unauthorized(&words) {
        EngineError::Unauthorized { message }
    } else if tells_of_host_fault(&words) {
        EngineError::HostFault { message }
    } else if is_passing(&words) {
        EngineError::Busy { message }
    } else {
        EngineError::Refused { message }
    }
}

/// Whether this process had no descriptor for a connection to the engine.
pub(super) fn is_short_of_files(error: &EngineError) -> bool {
    matches!(error, EngineError::Unreachable { reason, .. } if reason.contains("(os error 24)"))
}

/// Whether containerd has a container, or a task of it, from a start in whose middle the engine was ended. No start of
/// that container helps then, but a new one does.
pub(super) fn tells_of_remains(words: &str) -> bool {
    words.contains("id already in use")
        || (words.contains("task ") && words.contains(": already exists"))
        || (words.contains("start shim: mkdir ") && words.contains(": file exists"))
}

fn is_port_taken(words: &str) -> bool {
    words.contains("port is already allocated")
        || (words.contains("address already in use") && words.contains("listen"))
        || words.contains("failed to bind host port")
}

fn is_address_taken(words: &str) -> bool {
    words.contains("address already in use") || words.contains("pool overlaps with other one")
}

fn is_unauthorized(words: &str) -> bool {
    [
        "unauthorized",
        "authentication required",
        "no basic auth credentials",
        "pull access denied",
        "access to the resource is denied",
        "docker login",
    ]
    .iter()
    .any(|word| words.contains(word))
}

/// Whether an error says nothing but that there was one, as what stands before an engine does.
fn is_empty(words: &str) -> bool {
    matches!(words.trim().trim_end_matches('.'), "" | "internal server error" | "server error" | "500")
}

fn is_passing(words: &str) -> bool {
    ["timeout", "timed out", "connection refused", "connection reset", "temporarily", "shutting down", "eof"]
        .iter()
        .any(|word| words.contains(word))
}

/// The thing that the daemon names: `No such container: x`, `No such image: x`, `network x not found`.
fn missing(message: &str) -> Option<String> {
    let lower = message.to_lowercase();
    for kind in ["container", "image", "volume", "network"] {
        let phrase = format!("no such {kind}: ");
        if let Some(at) = lower.find(&phrase) {
            return Some(format!("{kind} {}", message.get(at + phrase.len()..)?.trim()));
        }
    }
    let name = message.strip_prefix("network ")?.strip_suffix(" not found")?;
    Some(format!("network {name}"))
}

fn unreachable_or_refused(error: &Error, address: &str) -> EngineError {
    let reason = cause(error);
    let words = reason.to_lowercase();
    if words.contains("permission denied") {
        return EngineError::Denied {
            message: format!("no permission to use the container engine at {address}"),
        };
    }
    match error {
        Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
            EngineError::Refused { message: format!("the engine at {address} is not understood: {reason}") }
        }
        Error::SocketNotFoundError(path) => {
            EngineError::Unreachable { address: address.to_owned(), reason: format!("there is no {path}") }
        }
        _ => EngineError::Unreachable { address: address.to_owned(), reason },
    }
}

/// What caused an error at the bottom: the outer words, such as `client error (Connect)`, help nobody.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, message: &str) -> &'static str {
        match response(status, message.to_owned(), "container web-1") {
            EngineError::Gone { .. } => "gone",
            EngineError::Conflict { .. } => "conflict",
            EngineError::PortTaken { .. } => "port taken",
            EngineError::AddressTaken { .. } => "address taken",
            EngineError::Busy { .. } => "busy",
            EngineError::Unreachable { .. } => "unreachable",
            EngineError::Denied { .. } => "denied",
            EngineError::Unauthorized { .. } => "unauthorized",
            EngineError::Refused { .. } => "refused",
            EngineError::HostFault { .. } => "host fault",
            EngineError::CommandFailed { .. } => "no answer of the engine",
        }
    }

    #[test]
    fn what_daemons_say_is_sorted_by_what_to_do() {
        for (status, message, wanted) in [
            (404, "No such container: 1234", "gone"),
            (404, "No such image: nginx:1", "gone"),
            (404, "network shop_default not found", "gone"),
            (409, "Conflict. The container name \"/web\" is already in use by container \"12\".", "conflict"),
            (409, "removal of container 12 is already in progress", "conflict"),
            (409, "cannot join network of a non running container: 12", "conflict"),
            (500, "No such container: 12", "gone"),
            (400, "No such container: 12", "gone"),
            (
                500,
                "driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:80 failed: \
                 port is already allocated",
                "port taken",
            ),
            (
                500,
                "Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use",
                "port taken",
            ),
            (400, "invalid reference format", "refused"),
            (500, "id already in use", "busy"),
            (500, "task d69423c0b4b1: already exists", "busy"),
            (500, "OCI runtime create failed: exec: \"nope\": executable file not found in $PATH", "refused"),
            (503, "the daemon is starting", "busy"),
            (500, "mkdir /var/lib/docker/overlay2/12-init: no space left on device", "host fault"),
            (
                500,
                "failed to create shim task: fork/exec runc: cannot allocate memory: unknown",
                "host fault",
            ),
            (500, "open /proc/self/fd: too many open files", "host fault"),
            (500, "", "busy"),
            (500, "Internal Server Error", "busy"),
            (500, "invalid mount config for type bind: bind source path does not exist: /x", "refused"),
            (500, "Get \"https://registry.example/v2/\": dial tcp: i/o timeout", "busy"),
            (
                404,
                "pull access denied for x, repository does not exist or may require 'docker login'",
                "unauthorized",
            ),
            (500, "Head \"http://r.example/v2/web/manifests/1\": no basic auth credentials", "unauthorized"),
            (500, "Get \"https://r.example/v2/\": unauthorized: authentication required", "unauthorized"),
            (403, "authorization denied by plugin", "denied"),
            (403, "Address already in use", "address taken"),
            (403, "Pool overlaps with other one on this address space", "address taken"),
            (403, "error while removing network: network web id 12 has active endpoints", "conflict"),
            (403, "endpoint with name shop-web-sandbox already exists in network shop_default", "conflict"),
            (500, "error mounting \"/x\": permission denied: unknown", "refused"),
        ] {
            assert_eq!(kind(status, message), wanted, "{status} {message}");
        }
    }

    #[test]
    fn what_is_gone_has_a_name() {
        let gone = |message: &str| response(404, message.to_owned(), "container web-1").to_string();
        assert_eq!(gone("No such image: nginx:1"), "image nginx:1 does not exist");
        assert_eq!(gone("network shop_default not found"), "network shop_default does not exist");
        assert_eq!(gone("page not found"), "container web-1 does not exist");
    }
}
