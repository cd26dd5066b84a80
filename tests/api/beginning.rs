//! A kernel that takes its time until it steers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sameport::{
    engine::{ContainerState, Role},
    kernel::{
        KernelError,
        steering::{Report, Steering, SteeringConfigs},
    },
    spec::ProjectName,
    supervisor::{Beginning, Kernel, Request},
};
use tokio::sync::{Notify, watch};

use crate::shop::{LONG, Open, Shop, apply};

/// It steers only once it is told to go on, and never shows a pod.
#[derive(Clone, Default)]
struct Slow {
    go: Arc<Notify>,
    removed: Arc<AtomicBool>,
    reports: Arc<watch::Sender<Arc<Report>>>,
}

impl Kernel for Slow {
    fn steer(&self, _: &ProjectName) -> Beginning {
        let (go, steering) = (Arc::clone(&self.go), self.clone());
        Box::pin(async move {
            go.notified().await;
            Ok(Arc::new(steering) as Arc<dyn Steering>)
        })
    }

    fn steers(&self, _: &ProjectName) -> bool {
        false
    }

    fn clear(&self, _: &ProjectName) -> Result<(), KernelError> {
        Ok(())
    }
}

impl Steering for Slow {
    fn want(&self, _: SteeringConfigs) {}

    fn look(&self) {}

    fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.reports.subscribe()
    }

    fn remove(&self) -> Result<(), KernelError> {
        self.removed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// Whether a container of such a role runs.
fn runs(shop: &Shop, is: impl Fn(&Role) -> bool) -> bool {
    let world = shop.engine.world();
    let mut all = world.containers();
    all.any(|(_, _, labels, state, _)| {
        labels.is_some_and(|labels| is(&labels.role)) && matches!(state, ContainerState::Running(_))
    })
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(LONG, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}"));
}

/// A project whose pod is open, and whose kernel does not steer yet.
async fn opened() -> (Shop, Slow, Open) {
    let (shop, kernel) = (Shop::new(), Slow::default());
    let open = shop.open_on(kernel.clone());
    open.handle.request(apply(shop.project(2))).await.unwrap();
    until("the pod is open", || runs(&shop, |role| *role == Role::Sandbox)).await;
    (shop, kernel, open)
}

#[tokio::test]
async fn what_comes_before_replicas_does_not_wait_for_it() {
    let (shop, _, _open) = opened().await;
    // It would have been started in the same moment.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!runs(&shop, |role| matches!(role, Role::Replica { .. })), "a replica listens unseen");
}

#[tokio::test]
async fn what_it_makes_while_the_project_goes_is_removed() {
    let (shop, kernel, open) = opened().await;
    open.handle.request(Request::Down { volumes: false, grace: None }).await.unwrap();
    until("the pod is gone", || shop.engine.world().containers().next().is_none()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!open.task.is_finished(), "it has gone before it knew what there is to remove");
    kernel.go.notify_one();
    tokio::time::timeout(LONG, open.task).await.expect("it ends").unwrap();
    assert!(kernel.removed.load(Ordering::SeqCst));
}
