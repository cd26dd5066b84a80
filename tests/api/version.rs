//! A command and a supervisor of different releases.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    thread::{self, JoinHandle},
};

use sameport::{
    api::{Client, ClientError, Standing, Version, protocol, version},
    engine::ContainerState,
};
use tokio::time::timeout;

use crate::{
    client::curl,
    shop::{LONG, Shop},
};

/// A supervisor of another release: it answers so many requests, one after the other, and then tells what they were.
fn other(shop: &Shop, answers: Vec<&'static str>) -> JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(shop.socket()).unwrap();
    thread::spawn(move || {
        let mut asked = Vec::new();
        while asked.len() < answers.len() {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut first = String::new();
            // A client looks at first whether somebody listens.
            if stream.read_line(&mut first).unwrap() == 0 {
                continue;
            }
            let mut length = 0;
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = answers[asked.len()];
            asked.push(format!("{} {}", first.trim(), String::from_utf8(body).unwrap()));
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
        asked
    })
}

const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_supervisor_tells_its_version() {
    let shop = Shop::new();
    let _open = shop.open();
    let told = shop.client().await.version().await.unwrap();
    assert_eq!(told, Version::own());
    assert_eq!(told.standing(), Standing::Same);
    assert_eq!(told.protocol, version::PROTOCOL);
}

#[tokio::test]
async fn the_paths_carry_the_protocol() {
    let prefix = format!("/v{}/", version::PROTOCOL);
    for path in [protocol::REQUEST, protocol::EVENTS, protocol::HISTORY] {
        assert!(path.starts_with(&prefix), "{path}");
    }
}

#[tokio::test]
async fn a_supervisor_that_is_asked_to_leave_leaves_everything_running() {
    let shop = Shop::new();
    let open = shop.open();
    let client = shop.client().await;
    client.request(&crate::shop::apply(shop.project(2))).await.unwrap();
    crate::shop::converged(&client).await;
    client.detach(&Version::own()).await.unwrap();
    timeout(LONG, open.task).await.unwrap().unwrap();
    let world = shop.engine.world();
    let up =
        world.containers().filter(|(_, _, _, state, _)| matches!(state, ContainerState::Running(_))).count();
    assert_eq!(up, 3, "two replicas and their pod");
}

#[tokio::test]
async fn the_first_protocol_had_no_version_and_is_understood_enough_to_be_replaced() {
    let shop = Shop::new();
    let accepted = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n\"accepted\"";
    let other = other(&shop, vec![NOT_FOUND, accepted]);
    let client = Client::connect(&shop.socket()).await.unwrap().unwrap();
    let version = client.version().await.unwrap();
    assert_eq!((version.protocol, version.standing()), (1, Standing::OlderProtocol));
    client.detach(&version).await.unwrap();
    assert_eq!(other.join().unwrap(), ["GET /version HTTP/1.1 ", "POST /v1/request HTTP/1.1 \"detach\""]);
}

#[tokio::test]
async fn a_newer_protocol_is_known_by_its_number() {
    let shop = Shop::new();
    let newer = "HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n{\"protocol\":99,\"release\":\"9.9.9\"}";
    let _other = other(&shop, vec![newer]);
    let client = Client::connect(&shop.socket()).await.unwrap().unwrap();
    assert_eq!(client.version().await.unwrap().standing(), Standing::NewerProtocol);
}

#[tokio::test]
async fn a_command_of_an_older_release_is_told_what_is_there() {
    let shop = Shop::new();
    let _open = shop.open();
    let said = curl(&shop, "/v1/request", "\"status\"").await;
    assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
    assert!(said.ends_with(&format!("the supervisor speaks {}", Version::own())), "{said}");
}

#[tokio::test]
async fn whoever_has_ended_is_not_taken_for_an_older_one() {
    let shop = Shop::new();
    let open = shop.open();
    let client = shop.client().await;
    drop(open.server);
    let error = client.version().await.unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. } | ClientError::ConnectionFailed(_)), "{error}");
}
