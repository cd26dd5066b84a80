//! What a real engine says when it will not do something, sorted by what to do about it.

use sameport::{
    engine::{
        ContainerId, Engine, EngineError, IpcNamespace, Namespaces,
        docker::{Docker, Endpoint},
    },
    spec::{Container, Image, Network, Pod, PodNetwork, PortBinding, Protocol},
};

use super::{
    support::ports,
    workbench::{Workbench, nowhere, shell},
};

#[tokio::test]
async fn a_name_that_is_taken_is_a_conflict() {
    let bench = Workbench::new().await;
    let create = bench.replica(1, shell(""), nowhere());
    bench.docker.create(&create).await.unwrap();
    let error = bench.docker.create(&create).await.unwrap_err();
    assert!(
        matches!(&error, EngineError::Conflict { message } if message.contains(&create.name)),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_is_not_there_is_gone_and_named() {
    let bench = Workbench::new().await;
    let missing = ContainerId("0123456789ab".repeat(5) + "0123");
    let create = |container, namespaces| bench.replica(1, container, namespaces);
    let image = Container::new(Image("localhost/sameport-no-such-image:1".to_owned()));
    let error = bench.docker.create(&create(image.clone(), nowhere())).await.unwrap_err();
    let named = |what: &str| matches!(&error, EngineError::Gone { what: told } if told.contains(what));
    assert!(named("localhost/sameport-no-such-image:1"), "{error:?}");
    assert_eq!(bench.docker.image(&image.image).await.unwrap(), None);

    let error = bench.docker.start(&missing).await.unwrap_err();
    assert!(matches!(error, EngineError::Gone { .. }), "{error:?}");
    let error = bench.docker.kill(&missing, "SIGKILL").await.unwrap_err();
    assert!(matches!(error, EngineError::Gone { .. }), "{error:?}");

    // Some engines find out when it is made, some when it is started.
    let joiner = create(shell(""), Namespaces::Join { sandbox: missing.clone(), ipc: IpcNamespace::Sandbox });
    let error = match bench.docker.create(&joiner).await {
        Ok(id) => bench.docker.start(&id).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, EngineError::Gone { .. }), "{error:?}");
}

#[tokio::test]
async fn whoever_joins_what_does_not_run_is_in_conflict_with_its_state() {
    let bench = Workbench::new().await;
    let host = bench.docker.create(&bench.replica(1, shell(""), nowhere())).await.unwrap();
    let joiner = bench.replica(2, shell(""), Namespaces::Join { sandbox: host, ipc: IpcNamespace::Sandbox });
    let error = match bench.docker.create(&joiner).await {
        Ok(id) => bench.docker.start(&id).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
}

#[tokio::test]
async fn a_port_of_the_host_that_is_taken_is_known_as_that() {
    let bench = Workbench::new().await;
    let port = ports::free();
    let publishing = |number: u32| {
        let pod = Pod {
            network: PodNetwork::Bridge,
            ports: vec![PortBinding {
                service: "web".parse().unwrap(),
                host_ip: None,
                host_port: Some(port),
                container_port: 80,
                protocol: Protocol::Tcp,
            }],
            ..Pod::default()
        };
        let namespaces = Namespaces::Own { pod: Box::new(pod), networks: Vec::new() };
        bench.replica(number, shell("sleep 1000"), namespaces)
    };
    bench.start(&publishing(1)).await;
    let second = bench.docker.create(&publishing(2)).await.unwrap();
    let error = bench.docker.start(&second).await.unwrap_err();
    assert!(matches!(error, EngineError::PortTaken { .. }), "{error:?}");
}

#[tokio::test]
async fn what_can_never_work_is_refused_in_the_engines_words() {
    let bench = Workbench::new().await;
    let program = Container { entrypoint: Some(vec!["/no/such/program".to_owned()]), ..shell("") };
    let id = bench.docker.create(&bench.replica(1, program, nowhere())).await.unwrap();
    let error = bench.docker.start(&id).await.unwrap_err();
    let says = |words: &str| matches!(&error, EngineError::Refused { message } if message.contains(words));
    assert!(says("/no/such/program"), "{error:?}");
}

#[tokio::test]
async fn a_network_that_is_there_already_is_not_made_twice() {
    let bench = Workbench::new().await;
    let network = Network {
        internal: true,
        labels: [("color".to_owned(), "green".to_owned())].into(),
        ..Network::new(bench.name("net"))
    };
    bench.docker.create_network(&bench.project, &network).await.unwrap();
    let error = bench.docker.create_network(&bench.project, &network).await.unwrap_err();
    assert!(matches!(error, EngineError::Conflict { .. }), "{error:?}");
    assert_eq!(bench.resources().await.networks, std::slice::from_ref(&network.name));
    let told =
        bench.command.run(&["network", "inspect", &network.name, "-f", "{{.Internal}} {{.Labels.color}}"]);
    assert_eq!(told, "true green");
    for _ in 0..2 {
        bench.docker.remove_network(&network.name).await.unwrap();
        assert!(!bench.docker.has_network(&network.name).await.unwrap());
    }
}

#[tokio::test]
async fn an_engine_that_is_not_there_or_lets_nobody_in_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("unix://{}", folder.path().join("docker.sock").display());
    let at = |host: &str| Endpoint { host: host.to_owned(), certificates: None };
    for host in [nobody.as_str(), "tcp://127.0.0.1:1"] {
        let error = Docker::connect_to(&at(host)).await.unwrap_err();
        assert!(matches!(&error, EngineError::Unreachable { address, .. } if address == host), "{error:?}");
    }
}

#[tokio::test]
async fn a_registry_that_cannot_be_reached_is_no_reason_to_give_up() {
    let bench = Workbench::new().await;
    // The discard port of this host: nobody listens there.
    let image = Image("localhost:9/sameport-no-such-image:1".to_owned());
    let pulled: Result<Vec<_>, _> = match bench.docker.pull(&image, None).await {
        Ok(progress) => futures_util::TryStreamExt::try_collect(progress).await,
        Err(error) => Err(error),
    };
    let error = pulled.unwrap_err();
    assert!(error.is_passing(), "{error:?}");
}
