//! Where the engine is: `DOCKER_HOST`, else the current context, else the usual socket.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::API_DEFAULT_VERSION;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::engine::EngineError;

use super::{bounded, error::classify};

/// How long a call may take that the daemon answers at once.
pub(super) const QUICK: Duration = Duration::from_secs(60);

/// The oldest API that is spoken: Docker Engine 20.10.
const OLDEST: (u32, u32) = (1, 41);

/// Where Docker listens unless told otherwise.
const USUAL: &str = "unix:///var/run/docker.sock";

/// An engine's address, and what is needed to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As the user wrote it: `unix:///…`, `tcp://host:port`.
    pub host: String,
    /// The folder with `ca.pem`, `cert.pem` and `key.pem`, where TLS is spoken.
    pub certificates: Option<PathBuf>,
}

impl Endpoint {
    /// Whether it is on this host, so that its containers' processes are ours to look at.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host.starts_with("unix://")
    }
}

/// What the search depends on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `DOCKER_HOST`.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub context: Option<String>,
    /// `DOCKER_TLS_VERIFY` or `DOCKER_TLS` is set.
    pub tls: bool,
    /// `DOCKER_CERT_PATH`.
    pub certificates: Option<PathBuf>,
    /// `DOCKER_CONFIG`, else `~/.docker`.
    pub config: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    #[must_use]
    pub fn from_env() -> Self {
        let var = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            host: var("DOCKER_HOST"),
            context: var("DOCKER_CONTEXT"),
            tls: var("DOCKER_TLS_VERIFY").is_some() || var("DOCKER_TLS").is_some(),
            certificates: var("DOCKER_CERT_PATH").map(PathBuf::from),
            config: config_folder(),
        }
    }

    /// The name of the context in use, where `DOCKER_HOST` does not say otherwise.
    ///
    /// # Errors
    /// When Docker's settings cannot be read.
    pub fn context_in_use(&self) -> Result<Option<String>, EngineError> {
        match (&self.context, &self.config) {
            (Some(name), _) => Ok(Some(name.clone())),
            (None, Some(config)) => current_context(&config.join("config.json")),
            (None, None) => Ok(None),
        }
    }

    /// Where the engine is.
    ///
    /// # Errors
    /// When the current context cannot be read.
    pub fn endpoint(&self) -> Result<Endpoint, EngineError> {
        if let Some(host) = &self.host {
            let certificates = self.tls.then(|| self.certificates.clone().or_else(|| self.config.clone()));
            return Ok(Endpoint { host: host.clone(), certificates: certificates.flatten() });
        }
        let Some(config) = &self.config else { return Ok(usual()) };
        match self.context_in_use()?.as_deref() {
            None | Some("default" | "") => Ok(usual()),
            Some(name) => from_context(config, name),
        }
    }
}

/// The folder of Docker's own settings.
pub(in crate::engine) fn config_folder() -> Option<PathBuf> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    var("DOCKER_CONFIG").or_else(|| var("HOME").map(|home| home.join(".docker")))
}

fn usual() -> Endpoint {
    Endpoint { host: USUAL.to_owned(), certificates: None }
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

fn current_context(path: &Path) -> Result<Option<String>, EngineError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let config: Config = serde_json::from_str(&text).map_err(|error| unreadable(path, &error))?;
    Ok(config.current_context)
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: DockerEndpoint,
}

#[derive(Deserialize)]
struct DockerEndpoint {
    #[serde(rename = "Host")]
    host: String,
}

/// Docker keeps a context under the hash of its name:
/// <https://docs.docker.com/engine/manage-resources/contexts/>.
fn from_context(config: &Path, name: &str) -> Result<Endpoint, EngineError> {
    let id: String = Sha256::digest(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = config.join("contexts/meta").join(&id).join("meta.json");
    let text = fs::read_to_string(&path).map_err(|error| EngineError::Refused {
        message: format!("the docker context `{name}` cannot be read: {}: {error}", path.display()),
    })?;
    let meta: Meta = serde_json::from_str(&text).map_err(|error| unreadable(&path, &error))?;
    let tls = config.join("contexts/tls").join(&id).join("docker");
    Ok(Endpoint { host: meta.endpoints.docker.host, certificates: tls.is_dir().then_some(tls) })
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> EngineError {
    EngineError::Refused { message: format!("cannot read {}: {error}", path.display()) }
}

/// A client for that engine; nothing is sent yet.
pub(super) fn client(endpoint: &Endpoint) -> Result<bollard::Docker, EngineError> {
    let (host, seconds) = (endpoint.host.as_str(), QUICK.as_secs());
    let refuse = |message: String| Err(EngineError::Refused { message });
    let made = match host.split_once("://") {
        Some(("unix", path)) => {
            if !Path::new(path).exists() {
                let reason = format!("there is no {path}");
                return Err(EngineError::Unreachable { address: host.to_owned(), reason });
            }
            let transport = bounded::transport(Path::new(path));
            bollard::Docker::connect_with_custom_transport(
                transport,
                Some("http://docker"),
                seconds,
                API_DEFAULT_VERSION,
            )
        }
        Some(("tcp" | "http" | "https", _)) => match &endpoint.certificates {
            Some(folder) => bollard::Docker::connect_with_ssl(
                host,
                &folder.join("key.pem"),
                &folder.join("cert.pem"),
                &folder.join("ca.pem"),
                seconds,
                API_DEFAULT_VERSION,
            ),
            None if host.starts_with("https") => {
                return refuse(format!(
                    "{host} needs certificates: set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"
                ));
            }
            None => bollard::Docker::connect_with_http(host, seconds, API_DEFAULT_VERSION),
        },
        Some(("ssh", _)) => {
            return refuse(format!(
                "{host}: engines over ssh are not supported; forward its socket instead \
                 (`ssh -L /tmp/docker.sock:/var/run/docker.sock HOST`) and set DOCKER_HOST=unix:///tmp/docker.sock"
            ));
        }
        _ => {
            return refuse(format!(
                "`{host}` is no address of an engine; write unix:///PATH or tcp://HOST:PORT"
            ));
        }
    };
    made.map_err(|error| classify(error, "the engine", host))
}

/// Whether an API version such as `1.41` is one that we speak.
pub(super) fn is_spoken(version: &str) -> bool {
    number(version) >= OLDEST
}

/// An API version such as `1.41` as numbers; 0 stands for what is none.
pub(super) fn number(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(surroundings: &Surroundings) -> String {
        surroundings.endpoint().unwrap().host
    }

    #[test]
    fn the_variable_goes_before_the_context_and_that_before_the_usual_socket() {
        let folder = tempfile::tempdir().unwrap();
        let config = Some(folder.path().to_owned());
        let plain = Surroundings { config: config.clone(), ..Surroundings::default() };
        assert_eq!(host(&plain), USUAL);

        let digest: String = Sha256::digest(b"far").iter().map(|b| format!("{b:02x}")).collect();
        let meta = folder.path().join("contexts/meta").join(&digest);
        fs::create_dir_all(&meta).unwrap();
        fs::write(
            meta.join("meta.json"),
            r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://far:2376","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        fs::write(folder.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        assert_eq!(host(&plain), "tcp://far:2376");
        let named = Surroundings { context: Some("default".to_owned()), ..plain.clone() };
        assert_eq!(host(&named), USUAL);
        let variable = Surroundings { host: Some("unix:///x.sock".to_owned()), ..plain };
        assert_eq!(host(&variable), "unix:///x.sock");
    }

    #[test]
    fn a_context_that_is_not_there_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let surroundings = Surroundings {
            context: Some("gone".to_owned()),
            config: Some(folder.path().to_owned()),
            ..Surroundings::default()
        };
        let message = surroundings.endpoint().unwrap_err().to_string();
        assert!(message.contains("`gone`"), "{message}");
    }

    #[test]
    fn addresses_that_cannot_be_used_say_what_to_do() {
        for (address, help) in [("ssh://me@far", "forward its socket"), ("far:2375", "tcp://HOST:PORT")] {
            let endpoint = Endpoint { host: address.to_owned(), certificates: None };
            let message = client(&endpoint).unwrap_err().to_string();
            assert!(message.contains(help), "{message}");
        }
    }

    #[test]
    fn engines_that_are_too_old_are_known() {
        assert!(is_spoken("1.41") && is_spoken("1.100") && is_spoken("2.0"));
        assert!(!is_spoken("1.40") && !is_spoken("") && !is_spoken("x"));
    }
}
