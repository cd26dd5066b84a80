//! Where an engine can be: behind a socket, behind a port, and behind a port that asks for certificates.

use std::path::PathBuf;

use sameport::engine::{
    Engine, EngineError, EngineInfo,
    docker::{Docker, Endpoint},
};

use super::support::{certificates, daemon::Daemon};

/// In the network of a private daemon, where its ports are.
fn in_its_network<T: Send>(daemon: &Daemon, ask: impl Future<Output = T> + Send) -> T {
    let enter = daemon.enter();
    std::thread::scope(|scope| {
        let asking = scope.spawn(move || {
            enter();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(ask)
        });
        asking.join().unwrap()
    })
}

async fn info(host: &str, certificates: Option<PathBuf>) -> Result<EngineInfo, EngineError> {
    let endpoint = Endpoint { host: host.to_owned(), certificates };
    Docker::connect_to(&endpoint).await?.info().await
}

#[test]
fn an_engine_behind_a_port_is_spoken_to() {
    let daemon = Daemon::behind_a_port(2375);
    let told = in_its_network(&daemon, info("tcp://127.0.0.1:2375", None)).unwrap();
    assert!(!told.local, "what is behind a port may be anywhere: {told:?}");
    assert!(told.platform.starts_with("linux/"), "{told:?}");
    let told = in_its_network(&daemon, info(&daemon.socket(), None)).unwrap();
    assert!(told.local, "what is behind a socket is on this host: {told:?}");
}

#[test]
fn certificates_let_in_and_without_them_nobody_is() {
    let daemon = Daemon::behind_a_guarded_port(2376);
    let ask = |certificates| in_its_network(&daemon, info("tcp://127.0.0.1:2376", certificates));
    let told = ask(Some(daemon.certificates())).unwrap();
    assert!(told.platform.starts_with("linux/"), "{told:?}");

    let error = ask(None).unwrap_err();
    assert!(error.to_string().contains("TLS") || error.to_string().contains("HTTPS"), "{error:?}");
    let foreign = tempfile::tempdir().unwrap();
    certificates::write(foreign.path());
    let error = ask(Some(foreign.path().to_owned())).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error:?}");
}
