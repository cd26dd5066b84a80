//! The socket's file.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
};

use sameport::{
    api::{Client, protocol::Reply},
    supervisor::Request,
};

use crate::shop::Shop;

#[tokio::test]
async fn only_its_owner_may_use_it() {
    let shop = Shop::new();
    let _open = shop.open();
    assert_eq!(fs::metadata(shop.socket()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn it_goes_with_the_supervisor() {
    let shop = Shop::new();
    let open = shop.open();
    assert!(shop.socket().exists());
    drop(open.server);
    assert!(!shop.socket().exists());
    assert!(Client::connect(&shop.socket()).await.unwrap().is_none());
}

#[tokio::test]
async fn one_that_a_killed_supervisor_left_is_nobody_and_is_replaced() {
    let shop = Shop::new();
    // A listener that is dropped leaves its file, as one of a killed process does.
    drop(UnixListener::bind(shop.socket()).unwrap());
    assert!(shop.socket().exists());
    assert!(Client::connect(&shop.socket()).await.unwrap().is_none());

    let _open = shop.open();
    let reply = shop.client().await.request(&Request::Status).await.unwrap();
    assert!(matches!(reply, Reply::Status(_)));
}

#[tokio::test]
async fn one_that_cannot_be_used_is_an_error_that_names_it() {
    let shop = Shop::new();
    let path = shop.socket().join("too").join("deep");
    fs::write(shop.socket(), "no folder").unwrap();
    let error = Client::connect(&path).await.unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
}
