//! Who we are to a registry: Docker's own configuration, and the helpers that it names.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Output, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::spec::Image;

use super::{EngineError, docker::config_folder};

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(rename = "credHelpers", default)]
    helpers: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Auth {
    auth: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

/// What a helper answers: <https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol>.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The credentials for a registry; none where nobody has logged in.
///
/// # Errors
/// When the configuration cannot be read, or a helper that it names fails.
pub(super) async fn for_registry(registry: &str) -> Result<Option<DockerCredentials>, EngineError> {
    match config_folder() {
        Some(folder) => from_folder(&folder, registry).await,
        None => Ok(None),
    }
}

async fn from_folder(folder: &Path, registry: &str) -> Result<Option<DockerCredentials>, EngineError> {
    let path = folder.join("config.json");
    let deny = |error: &dyn std::fmt::Display| EngineError::Unauthorized {
        message: format!("cannot read the registry credentials in {}: {error}", path.display()),
    };
    let text = match tokio::fs::read_to_string(&path).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(deny(&error)),
    };
    let config: Config = serde_json::from_str(&text).map_err(|error| deny(&error))?;
    if let Some(helper) = config.helpers.get(registry).or(config.store.as_ref()) {
        return from_helper(helper, registry).await;
    }
    let Some(auth) = config.auths.get(registry).or_else(|| by_host(&config.auths, registry)) else {
        return Ok(None);
    };
    decode(auth, registry).map(Some).ok_or_else(|| deny(&format!("the entry of {registry} is damaged")))
}

/// `docker login` writes hosts, older versions addresses.
fn by_host<'a>(auths: &'a BTreeMap<String, Auth>, registry: &str) -> Option<&'a Auth> {
    auths.iter().find(|(key, _)| host(key) == host(registry)).map(|(_, auth)| auth)
}

fn host(address: &str) -> &str {
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    bare.split('/').next().unwrap_or(bare)
}

fn decode(auth: &Auth, registry: &str) -> Option<DockerCredentials> {
    let mut credentials =
        DockerCredentials { serveraddress: Some(registry.to_owned()), ..DockerCredentials::default() };
    if let Some(token) = auth.identity_token.as_ref().filter(|token| !token.is_empty()) {
        credentials.identitytoken = Some(token.clone());
        return Some(credentials);
    }
    let bytes = STANDARD.decode(auth.auth.as_ref()?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    credentials.username = Some(user.to_owned());
    credentials.password = Some(password.trim_end_matches('\0').to_owned());
    Some(credentials)
}

async fn from_helper(helper: &str, registry: &str) -> Result<Option<DockerCredentials>, EngineError> {
    let program = format!("docker-credential-{helper}");
    let fail = |reason: &dyn std::fmt::Display| EngineError::Unauthorized {
        message: format!("the credential helper `{program}` that Docker's configuration names: {reason}"),
    };
    let output = ask(&program, registry).await.map_err(|error| fail(&error))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        // The protocol has no code for it, only these words.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(fail(&said.trim()));
    }
    let told: Answer = serde_json::from_str(&said).map_err(|error| fail(&error))?;
    let mut credentials =
        DockerCredentials { serveraddress: Some(registry.to_owned()), ..DockerCredentials::default() };
    if told.username == "<token>" {
        credentials.identitytoken = Some(told.secret);
    } else {
        credentials.username = Some(told.username);
        credentials.password = Some(told.secret);
    }
    Ok(Some(credentials))
}

async fn ask(program: &str, registry: &str) -> std::io::Result<Output> {
    let mut helper = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = helper.stdin.take() {
        input.write_all(registry.as_bytes()).await?;
    }
    helper.wait_with_output().await
}

/// The registry that an image comes from: the part before the first slash, if it looks like a host
/// (<https://pkg.go.dev/github.com/distribution/reference>); none is the engine's default.
pub(super) fn registry(image: &Image) -> Option<&str> {
    let (first, _) = image.0.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// The image with its tag spelled out: without one the engine would fetch them all.
pub(super) fn tagged(image: &Image) -> String {
    let name = image.0.as_str();
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) { name.to_owned() } else { format!("{name}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> Image {
        Image(name.to_owned())
    }

    #[test]
    fn the_registry_is_what_looks_like_a_host() {
        for (name, wanted) in [
            ("nginx", None),
            ("acme/web:1", None),
            ("registry.example/acme/web", Some("registry.example")),
            ("registry.example:5000/web@sha256:12", Some("registry.example:5000")),
            ("localhost/web", Some("localhost")),
        ] {
            assert_eq!(registry(&image(name)), wanted, "{name}");
        }
    }

    #[test]
    fn an_image_without_a_tag_means_the_latest() {
        for (name, wanted) in [
            ("nginx", "nginx:latest"),
            ("registry.example:5000/web", "registry.example:5000/web:latest"),
            ("web:1", "web:1"),
            ("web@sha256:12", "web@sha256:12"),
        ] {
            assert_eq!(tagged(&image(name)), wanted);
        }
    }

    #[tokio::test]
    async fn logins_are_found_by_host_and_by_address() {
        let folder = tempfile::tempdir().unwrap();
        let auth = STANDARD.encode("me:se:cret");
        let config = format!(
            r#"{{"auths":{{"registry.example":{{"auth":"{auth}"}},"https://old.example/v1/":{{"identitytoken":"t"}},
               "broken.example":{{"auth":"%%"}}}}}}"#
        );
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let of = async |registry: &str| from_folder(folder.path(), registry).await;
        let found = of("registry.example").await.unwrap().unwrap();
        assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("me"), Some("se:cret")));
        let found = of("old.example").await.unwrap().unwrap();
        assert_eq!(found.identitytoken.as_deref(), Some("t"));
        assert!(of("https://none.example/v1/").await.unwrap().is_none());
        let error = of("broken.example").await.unwrap_err().to_string();
        assert!(error.contains("broken.example is damaged"), "{error}");
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), r#"{"credsStore":"no-such-store"}"#).unwrap();
        let error = from_folder(folder.path(), "registry.example").await.unwrap_err().to_string();
        assert!(error.contains("docker-credential-no-such-store"), "{error}");
    }
}
