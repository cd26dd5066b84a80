//! What a client can ask, and what it is answered.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use sameport::{
    api::{
        Client, ClientError,
        protocol::{Line, Reply},
        schema::{EventKind, RejectionCode},
    },
    supervisor::{self, Handle, Request},
};
use tokio::{sync::oneshot, time::timeout};

use crate::shop::{LONG, Open, Shop, apply, converged};

type Events = BoxStream<'static, Result<Line, ClientError>>;

#[tokio::test]
async fn what_is_asked_for_comes_about_and_can_be_looked_at() {
    let shop = Shop::new();
    let _open = shop.open();
    let client = shop.client().await;
    assert!(matches!(client.request(&apply(shop.project(3))).await.unwrap(), Reply::Accepted));
    let status = converged(&client).await;
    let names: Vec<_> = status.replicas.iter().map(|replica| replica.name.as_str()).collect();
    assert_eq!(names, ["shop-web-1", "shop-web-2", "shop-web-3"]);
    assert!(status.replicas.iter().all(|replica| replica.state.is_up() && replica.up_to_date));
}

#[tokio::test]
async fn a_refusal_says_why() {
    let shop = Shop::new();
    let _open = shop.open();
    let client = shop.client().await;
    client.request(&apply(shop.project(1))).await.unwrap();
    let scale = Request::Scale([("wob".parse().unwrap(), 2)].into());
    let Reply::Rejected(rejection) = client.request(&scale).await.unwrap() else { panic!("not refused") };
    assert_eq!(rejection.code, RejectionCode::UnknownService);
    assert_eq!(rejection.message, "there is no service `wob`; the file has web");
}

#[tokio::test]
async fn a_project_of_several_megabytes_is_taken() {
    let shop = Shop::new();
    let _open = shop.open();
    let client = shop.client().await;
    let mut project = shop.project(1);
    for service in project.services.values_mut() {
        service.container.labels.insert("filler".to_owned(), "x".repeat(5 << 20));
    }
    assert!(matches!(client.request(&apply(project)).await.unwrap(), Reply::Accepted));
    converged(&client).await;
}

#[tokio::test]
async fn the_events_so_far_end() {
    let shop = Shop::new();
    let _open = shop.open();
    let client = shop.client().await;
    client.request(&apply(shop.project(2))).await.unwrap();
    converged(&client).await;
    let history = client.history().await.unwrap().unwrap();
    let mut events = client.events().await.unwrap();
    let mut told = Vec::new();
    while told.len() < history.len() {
        let Line::History(event) = events.next().await.unwrap().unwrap() else { panic!("not all are told") };
        told.push(event);
    }
    assert_eq!(history, told);
    assert!(history.iter().any(|event| matches!(event.kind, EventKind::Converged)), "{history:?}");
}

#[tokio::test]
async fn events_are_those_so_far_and_then_those_to_come() {
    let shop = Shop::new();
    let _open = shop.open();
    let client = shop.client().await;
    client.request(&apply(shop.project(1))).await.unwrap();
    converged(&client).await;
    // It is told a moment after it can be seen.
    let mut told = client.events().await.unwrap();
    let is_told = async {
        while let Some(Ok(Line::History(event) | Line::Live(event))) = told.next().await {
            if event.kind == EventKind::Converged {
                return true;
            }
        }
        false
    };
    assert!(timeout(LONG, is_told).await.unwrap());

    let mut events = client.events().await.unwrap();
    let Some(Ok(Line::History(first))) = events.next().await else { panic!("nothing is told") };
    assert_eq!(first.kind, EventKind::Applied { service_count: 1 });

    let mut past_converged = false;
    client.request(&Request::Scale([("web".parse().unwrap(), 2)].into())).await.unwrap();
    let told = async {
        while let Some(line) = events.next().await {
            match line.unwrap() {
                Line::History(event) => past_converged |= event.kind == EventKind::Converged,
                Line::Live(event) if event.kind == EventKind::Converged => return true,
                Line::Live(_) | Line::Missed { .. } => {}
            }
        }
        false
    };
    assert!(timeout(LONG, told).await.unwrap());
    assert!(past_converged);
}

/// A project that ran and is asked to go, and what a listener hears.
async fn going(shop: &Shop, client: &Client, meanwhile: impl FnOnce()) -> Events {
    client.request(&apply(shop.project(2))).await.unwrap();
    converged(client).await;
    let events = client.events().await.unwrap();
    meanwhile();
    client.request(&Request::Down { volumes: false, grace: None }).await.unwrap();
    events
}

/// More than a socket's buffer holds: it is under way until somebody reads it.
fn long_event(handle: &Handle) {
    let kind =
        supervisor::EventKind::EngineUnreachable { reason: "a reason with many words".repeat(100_000) };
    handle.journal().record(Timestamp::UNIX_EPOCH, kind);
}

async fn last_of(mut events: Events) -> EventKind {
    let mut last = None;
    while let Some(line) = timeout(LONG, events.next()).await.unwrap() {
        last = Some(line.unwrap());
    }
    let Some(Line::Live(last)) = last else { panic!("no last event: {last:?}") };
    last.kind
}

#[tokio::test]
async fn events_end_when_the_project_is_gone_though_the_process_goes_on() {
    let shop = Shop::new();
    let open = shop.open();
    let events = going(&shop, &shop.client().await, || {}).await;
    assert_eq!(last_of(events).await, EventKind::Removed);
    timeout(LONG, open.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn whoever_listens_hears_the_end_though_the_process_ends_too() {
    let shop = Arc::new(Shop::new());
    let (opened, is_open) = oneshot::channel();
    let (ended, has_ended) = oneshot::channel();
    // A runtime of its own goes as a process does: with all that is under way in it.
    let process = std::thread::spawn({
        let shop = Arc::clone(&shop);
        move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let Open { handle, task, server } = shop.open();
                assert!(opened.send(handle).is_ok());
                task.await.unwrap();
                ended.send(()).unwrap();
                server.finish(LONG).await;
            });
        }
    });
    let handle = is_open.await.unwrap();
    let client = shop.client().await;
    let events = going(&shop, &client, || long_event(&handle)).await;
    drop(handle);
    has_ended.await.unwrap();
    // Long enough for a process to be gone that does not wait.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(last_of(events).await, EventKind::Removed);
    process.join().unwrap();
}

#[tokio::test]
async fn a_process_does_not_wait_for_a_reader_that_does_not_read() {
    let shop = Shop::new();
    let open = shop.open();
    let client = shop.client().await;
    let _deaf = client.events().await.unwrap();
    long_event(&open.handle);
    client.request(&Request::Detach).await.unwrap();
    timeout(LONG, open.task).await.unwrap().unwrap();
    drop(open.handle);
    timeout(LONG, open.server.finish(Duration::from_millis(200))).await.unwrap();
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_nobody_up_and_learns_what_it_missed() {
    let shop = Shop::new();
    let open = shop.open();
    let client = shop.client().await;
    let mut slow = client.events().await.unwrap();
    let reason = "a socket's buffer holds only so many of these".repeat(100);
    for _ in 0..5000 {
        let kind = supervisor::EventKind::EngineUnreachable { reason: reason.clone() };
        open.handle.journal().record(Timestamp::UNIX_EPOCH, kind);
        tokio::task::yield_now().await;
    }
    assert!(matches!(client.request(&Request::Status).await.unwrap(), Reply::Status(_)));
    let missed = async {
        while let Some(line) = slow.next().await {
            if let Line::Missed { events } = line.unwrap() {
                return events;
            }
        }
        0
    };
    assert!(timeout(LONG, missed).await.unwrap() > 0);
}

#[tokio::test]
async fn a_request_in_another_version_is_told_apart_from_a_failure() {
    let shop = Shop::new();
    let _open = shop.open();
    let said = curl(&shop, "/v3/request", r#"{"teleport":{}}"#).await;
    assert!(said.contains("teleport"), "{said}");
    let said = curl(&shop, "/v9/request", "\"status\"").await;
    assert!(said.contains("404"), "{said}");
}

#[tokio::test]
async fn a_client_of_a_supervisor_that_has_gone_is_told_so() {
    let shop = Shop::new();
    let open = shop.open();
    let client = shop.client().await;
    client.request(&Request::Detach).await.unwrap();
    timeout(LONG, open.task).await.unwrap().unwrap();
    let gone = async {
        loop {
            match client.request(&Request::Status).await {
                Err(ClientError::NotRunning { .. }) => return,
                Err(ClientError::Ended) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(LONG, gone).await.unwrap();
}

/// The socket as any other program sees it.
pub async fn curl(shop: &Shop, path: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(shop.socket()).await.unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
