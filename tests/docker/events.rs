//! Events: those of the project, from the moment that they were asked for.

use std::time::Duration;

use futures_util::StreamExt;
use sameport::engine::{Engine, EngineEvent};

use super::workbench::{Workbench, nowhere, shell};

/// As long as a machine may take that is busy with other tests.
const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_happens_before_the_first_look_is_not_lost() {
    let bench = Workbench::new().await;
    let mut events = bench.docker.events(&bench.project).await.unwrap();
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
    let mut events = bench.docker.events(&bench.project).await.unwrap();
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
    let mut events = bench.docker.events(&bench.project).await.unwrap();
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
