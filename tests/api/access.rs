//! Who may speak to a supervisor, and how much.

use std::{
    fs,
    io::{Read, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener, UnixStream},
        },
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::{process::Uid, thread::set_thread_res_uid};
use sameport::{
    api::{
        Client, ClientError,
        protocol::{Line, Reply},
    },
    supervisor::{Request, read_access::ReadAccess},
};

use crate::shop::{Shop, apply, converged};

/// A user of nobody.
const OTHER_USER: u32 = 4242;

/// Does something as another user, on a thread of its own.
fn as_other_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let user = Uid::from_raw(OTHER_USER);
            set_thread_res_uid(user, user, user).unwrap();
            work()
        });
        inside.join().unwrap()
    })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What comes back for a request, however it ends.
fn say(mut stream: UnixStream, request: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // Whoever is not heard may be hung up on before the end.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

/// A socket that its file's mode would let everybody use.
fn open_to_all(socket: &Path) {
    for (path, mode) in [(socket.parent().unwrap(), 0o755), (socket, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_not_heard_even_if_the_file_lets_him() {
    if !is_root() {
        return;
    }
    let shop = Shop::new();
    let _open = shop.open();
    open_to_all(&shop.socket());
    let socket = shop.socket();
    assert_eq!(as_other_user(|| say(UnixStream::connect(&socket).unwrap(), &get("/version", ""))), "");
    let told =
        tokio::task::spawn_blocking(move || say(UnixStream::connect(&socket).unwrap(), &get("/version", "")));
    assert!(told.await.unwrap().contains("200 OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_another_user_is_told_nothing() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = folder.path().join("shop.sock");
    let theirs = as_other_user(|| UnixListener::bind(&path).unwrap());
    let error = Client::connect(&path).await.unwrap_err();
    assert!(matches!(error, ClientError::Foreign { user: OTHER_USER, .. }), "{error}");
    theirs.set_nonblocking(true).unwrap();
    let (mut stream, _) = theirs.accept().unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert!(heard.is_empty());
}

fn with_readers() -> (Shop, ReadAccess) {
    let access = ReadAccess::new().unwrap();
    let mut shop = Shop::new();
    shop.read_access = Some(access.clone());
    (shop, access)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_key_may_ask_and_change_nothing() {
    let (shop, access) = with_readers();
    let open = shop.open();
    let own = shop.client().await;
    own.request(&apply(shop.project(2))).await.unwrap();
    converged(&own).await;
    let owner = rustix::process::geteuid().as_raw();
    let reader = Client::connect_to_read(&access, owner).await.unwrap().unwrap();
    reader.version().await.unwrap();
    assert!(matches!(reader.request(&Request::Status).await.unwrap(), Reply::Status(_)));
    assert!(!reader.history().await.unwrap().unwrap().is_empty());
    let mut events = reader.events().await.unwrap();
    assert!(matches!(events.next().await.unwrap().unwrap(), Line::History(_)));
    for request in [apply(shop.project(1)), Request::Detach, Request::CancelDown] {
        let error = reader.request(&request).await.unwrap_err().to_string();
        assert!(error.contains("403") && error.contains("other users may only ask"), "{error}");
    }
    let error = as_user_of_socket(&access, &post("/detach", &authorization(&access), ""));
    assert!(error.contains("403"), "{error}");
    assert!(!open.task.is_finished());
    // Nobody answers in place of the owner.
    let error = Client::connect_to_read(&access, owner + 1).await.unwrap_err();
    assert!(matches!(error, ClientError::Foreign { .. }), "{error}");
    assert!(!format!("{access:?}").contains(&access.key));
}

fn authorization(access: &ReadAccess) -> String {
    format!("Authorization: Bearer {}\r\n", access.key)
}

fn as_user_of_socket(access: &ReadAccess, request: &str) -> String {
    let address = SocketAddr::from_abstract_name(&access.socket).unwrap();
    say(UnixStream::connect_addr(&address).unwrap(), request)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_is_told_nothing() {
    let (shop, access) = with_readers();
    let _open = shop.open();
    let wrong = ReadAccess { key: "0".repeat(access.key.len()), ..access.clone() };
    for headers in [String::new(), authorization(&wrong), "Authorization: Bearer \r\n".to_owned()] {
        for request in [
            get("/version", &headers),
            get("/v3/history", &headers),
            post("/v3/request", &headers, "\"status\""),
        ] {
            let answer = as_user_of_socket(&access, &request);
            assert!(answer.contains("401") && !answer.contains("protocol"), "{request}: {answer}");
        }
    }
    let long = post("/v3/request", &authorization(&access), &"x".repeat(1 << 20));
    let answer = as_user_of_socket(&access, &long);
    assert!(answer.contains("413") || answer.is_empty(), "{answer}");
}

/// Asks, and returns how long it took.
async fn ask(shop: &Shop) -> Duration {
    let begun = Instant::now();
    assert!(matches!(shop.client().await.request(&Request::Status).await.unwrap(), Reply::Status(_)));
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_are_closed_and_hold_nobody_up_for_long() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let shop = Shop::new();
    let _open = shop.open();
    let socket = shop.socket();
    let open = thread::spawn(move || {
        let all = (0..1200).map(|number| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            if number % 2 == 0 {
                let _ = stream.write_all(b"POST /v3/request HT");
            }
            stream
        });
        all.collect::<Vec<_>>()
    });
    let mut open = tokio::task::spawn_blocking(|| open.join().unwrap()).await.unwrap();
    // Three rounds of those that are taken at once, and of those that wait.
    let took = ask(&shop).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
    let closed = tokio::task::spawn_blocking(move || {
        open.iter_mut().all(|stream| {
            stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).is_ok()
        })
    });
    assert!(closed.await.unwrap(), "some are still open");
    let took = ask(&shop).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_a_largest_size_and_so_has_the_number_of_those_who_follow() {
    let shop = Shop::new();
    let _open = shop.open();
    let socket = shop.socket();
    let said = tokio::task::spawn_blocking(move || {
        let huge = "POST /v3/request HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 512000000\r\n\r\n{";
        let told = say(UnixStream::connect(&socket).unwrap(), huge);
        let chunks = format!("{:x}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20)).repeat(80);
        let head = "POST /v3/request HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let endless = say(UnixStream::connect(&socket).unwrap(), &format!("{head}{chunks}"));
        let long = say(
            UnixStream::connect(&socket).unwrap(),
            &get("/version", &format!("X: {}\r\n", "x".repeat(1 << 20))),
        );
        (told, endless, long)
    });
    let (told, endless, long) = said.await.unwrap();
    assert!(told.contains("413"), "{told}");
    assert!(endless.contains("413") || endless.is_empty(), "{endless}");
    assert!(long.contains("431") || long.is_empty(), "{long}");
    let client = shop.client().await;
    let mut following = Vec::new();
    let refused = loop {
        match client.events().await {
            Ok(events) => following.push(events),
            Err(error) => break error.to_string(),
        }
        assert!(following.len() < 1000, "nobody is refused");
    };
    assert!(refused.contains("already follow its events"), "{refused}");
    drop(following);
    let again = async {
        while client.events().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
}
