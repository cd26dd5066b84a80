//! What a request says of how long replicas may take counts for what that request ends.

use std::{collections::BTreeMap, time::Duration};

use sameport::{
    plan::Verb,
    spec::Service,
    supervisor::{Handle, Reply, Request},
};

use crate::shop::{Shop, apply, converged};

/// How long each replica may take that `scale web=0` would stop.
async fn stops(handle: &Handle) -> Vec<Duration> {
    let scale = Request::Scale(BTreeMap::from([("web".parse().unwrap(), 0)]));
    let Reply::Preview(preview) = handle.request(Request::Preview(Box::new(scale))).await.unwrap() else {
        panic!("no preview")
    };
    let stops = preview.steps.iter().filter(|step| step.verb == Verb::Stop);
    stops.filter(|step| step.name.as_deref() != Some("shop-web-sandbox")).filter_map(|s| s.grace).collect()
}

#[tokio::test]
async fn a_scale_down_after_a_restart_or_a_stop_with_a_short_timeout_takes_the_files_time() {
    let shop = Shop::new();
    let open = shop.open();
    let client = shop.client().await;
    open.handle.request(apply(shop.project(2))).await.unwrap();
    converged(&client).await;
    let short = Some(Duration::from_secs(1));
    for requests in [
        vec![Request::Restart { replicas: Vec::new(), grace: short }],
        vec![Request::Stop { services: Vec::new(), grace: short }, Request::Start { services: Vec::new() }],
    ] {
        let told = format!("{requests:?}");
        for request in requests {
            open.handle.request(request).await.unwrap();
            converged(&client).await;
        }
        assert_eq!(stops(&open.handle).await, [Service::STOP_GRACE; 2], "{told}");
    }
}

#[tokio::test]
async fn a_replica_that_waits_for_its_restart_takes_the_files_time_when_it_is_scaled_away() {
    let shop = Shop::new();
    let open = shop.open();
    let client = shop.client().await;
    open.handle.request(apply(shop.project(2))).await.unwrap();
    converged(&client).await;
    let short = Some(Duration::from_secs(1));
    open.handle.request(Request::Restart { replicas: Vec::new(), grace: short }).await.unwrap();
    assert_eq!(stops(&open.handle).await, [Service::STOP_GRACE; 2]);
}
