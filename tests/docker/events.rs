//! Events: those of the project, from the moment that they were asked for.

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream::BoxStream};
use sameport::{
    engine::{Engine, EngineEvent, Labels},
    spec::{NetworkAttachment, Pod, PodNetwork},
};

use super::workbench::{Workbench, nowhere, shell};

/// As long as a machine may take that is busy with other tests.
const LONG: Duration = Duration::from_secs(30);

/// Those of networks are told of everybody: the engine has no labels for them.
fn without_connections(events: BoxStream<'static, EngineEvent>) -> impl Stream<Item = EngineEvent> + Unpin {
    events.filter(|event| std::future::ready(!matches!(event, EngineEvent::Connection(_))))
}

#[tokio::test]
async fn who_is_connected_to_a_network_or_taken_off_one_is_told() {
    let bench = Workbench::new().await;
    let pod = Pod { network: PodNetwork::Bridge, ..Pod::default() };
    let id = bench.sandbox(pod, Vec::new()).await;
    let events = bench.docker.events(&bench.project).await.unwrap();
    let own = EngineEvent::Connection(id.clone());
    // Those of other tests are told, too.
    let mut events = events.filter(|event| std::future::ready(*event == own));
    let attachment = NetworkAttachment { aliases: vec!["web".to_owned()], ..NetworkAttachment::default() };
    let network = bench.name("net");
    bench.command.run(&[
        "network",
        "create",
        "--label",
        &format!("{}={}", Labels::PROJECT, bench.project),
        &network,
    ]);
    for connects in [true, false] {
        match connects {
            true => bench.docker.connect(&id, &network, &attachment).await.unwrap(),
            false => bench.docker.disconnect(&id, &network).await.unwrap(),
        }
        tokio::time::timeout(LONG, events.next()).await.unwrap().unwrap();
        let connections = bench.docker.inspect(&id).await.unwrap().connections().unwrap();
        let aliases = connections.networks.get(&network).map(|endpoint| endpoint.aliases.contains("web"));
        assert_eq!(aliases, connects.then_some(true));
    }
}

#[tokio::test]
async fn what_happens_before_the_first_look_is_not_lost() {
    let bench = Workbench::new().await;
    let mut events = without_connections(bench.docker.events(&bench.project).await.unwrap());
    let id = bench.start(&bench.replica(1, shell("exit 0"), nowhere())).await;
    bench.ended(&id).await;
    for what in ["create", "start", "die"] {
        let event = tokio::time::timeout(LONG, events.next()).await.expect(what).unwrap();
        assert_eq!(event, EngineEvent::Container(id.clone()), "{what}");
    }
}

#[tokio::test]
async fn what_happened_before_they_were_asked_for_or_to_others_is_left_out() {
    let (bench, other) = (Workbench::new().await, Workbench::new().await);
    bench.docker.create(&bench.replica(1, shell(""), nowhere())).await.unwrap();
    let mut events = without_connections(bench.docker.events(&bench.project).await.unwrap());
    other.docker.create(&other.replica(1, shell(""), nowhere())).await.unwrap();
    let id = bench.docker.create(&bench.replica(2, shell(""), nowhere())).await.unwrap();
    let first = tokio::time::timeout(LONG, events.next()).await.unwrap();
    assert_eq!(first, Some(EngineEvent::Container(id)));
}

#[tokio::test]
async fn checks_of_health_are_no_news_but_their_result_is() {
    let bench = Workbench::new().await;
    let mut container = shell("sleep 1000");
    container.healthcheck = Some(sameport::spec::Healthcheck {
        test: sameport::spec::HealthTest::Shell("exit 0".to_owned()),
        interval: Some(Duration::from_millis(200)),
        timeout: None,
        retries: None,
        start_period: None,
        start_interval: None,
    });
    let mut events = without_connections(bench.docker.events(&bench.project).await.unwrap());
    let id = bench.start(&bench.replica(1, container, nowhere())).await;
    let mut told = Vec::new();
    // Create, start, healthy; each of the many checks since would be three more.
    while let Ok(Some(event)) =
        tokio::time::timeout(if told.len() < 3 { LONG } else { Duration::from_secs(2) }, events.next()).await
    {
        told.push(event);
    }
    assert_eq!(told, vec![EngineEvent::Container(id); 3]);
}
