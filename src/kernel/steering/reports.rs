//! One report of all pods, to which each thread adds what it sees.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::config::{PodReport, Report, SteeringConfigs};
use crate::spec::PodName;

/// A pod: its name, and the inode of its network namespace. After a new start of its sandbox it is another one.
pub type PodId = (PodName, u64);

/// Where all threads of a project report.
#[derive(Debug)]
pub struct Reports {
    sender: watch::Sender<Arc<Report>>,
    /// The network of each pod that is wanted. It is locked only while the report is.
    wanted: Mutex<BTreeMap<PodName, u64>>,
    /// Why something that all pods need cannot be had back.
    lost: Mutex<Option<String>>,
    looks: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Reports {
    /// An empty report.
    pub fn new() -> Self {
        let (looks, nanoseconds) = Default::default();
        let (wanted, lost) = Default::default();
        Self { sender: watch::Sender::default(), wanted, lost, looks, nanoseconds }
    }

    /// Tells when it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Report>> {
        self.sender.subscribe()
    }

    /// Drops what was reported of other pods than these, from now on.
    pub fn keep(&self, steering_configs: &SteeringConfigs) {
        self.sender.send_if_modified(|report| {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            let now = steering_configs.iter().map(|(name, config)| (name.clone(), config.netns)).collect();
            let before = std::mem::replace(&mut *wanted, now);
            let is_gone = |name: &PodName| wanted.get(name).is_none_or(|now| before.get(name) != Some(now));
            let changes = report.pods.keys().any(is_gone);
            if changes {
                Arc::make_mut(report).pods.retain(|name, _| !is_gone(name));
            }
            changes
        });
    }

    /// Why something that all pods need cannot be had back, from the next report of each pod on. Returns it if it is new.
    pub fn lost(&self, error: Option<String>) -> Option<String> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *lost != error;
        lost.clone_from(&error);
        error.filter(|_| is_new)
    }

    /// Reports of a pod; what comes too late, when it is wanted no more, is dropped.
    pub fn publish(&self, (name, netns): &PodId, pod: &PodReport) {
        let mut pod = pod.clone();
        // One that is not entered tells why.
        if pod.netns != 0 && pod.error.is_none() {
            pod.error.clone_from(&self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        }
        self.sender.send_if_modified(|report| {
            let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            let changes = wanted.get(name) == Some(netns) && report.pods.get(name) != Some(&pod);
            if changes {
                Arc::make_mut(report).pods.insert(name.clone(), pod);
            }
            changes
        });
    }

    /// Counts processor time, and that of a look.
    pub fn count(&self, is_look: bool, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.looks.fetch_add(u64::from(is_look), Ordering::Relaxed);
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn usage(&self) -> Usage {
        let cpu = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed));
        Usage { looks: self.looks.load(Ordering::Relaxed), cpu }
    }
}

/// What steering has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Looks at a pod.
    pub looks: u64,
    /// Processor time that they, and notices from the kernel, took.
    pub cpu: Duration,
}

#[cfg(test)]
mod tests {
    use super::{super::config::SteeringConfig, *};

    fn steering_configs(netns: u64) -> SteeringConfigs {
        let config = SteeringConfig {
            coming: BTreeMap::new(),
            pid: 1,
            netns,
            declared: Default::default(),
            exclusive: Default::default(),
            rules: BTreeMap::new(),
            replicas: Vec::new(),
        };
        BTreeMap::from([("web".parse().unwrap(), config)])
    }

    #[test]
    fn what_a_pod_that_is_wanted_no_more_reports_is_dropped() {
        let (reports, web): (_, PodName) = (Reports::new(), "web".parse().unwrap());
        let mut seen = reports.subscribe();
        let of = |netns| PodReport { netns, ..PodReport::default() };
        reports.publish(&(web.clone(), 7), &of(7));
        assert!(!seen.has_changed().unwrap(), "nobody wants it yet");
        reports.keep(&steering_configs(7));
        reports.publish(&(web.clone(), 7), &of(7));
        assert_eq!(seen.borrow_and_update().pods[&web].netns, 7);
        reports.publish(&(web.clone(), 7), &of(7));
        reports.keep(&steering_configs(7));
        assert!(!seen.has_changed().unwrap(), "nothing is new");
        reports.keep(&steering_configs(8));
        assert!(seen.borrow_and_update().pods.is_empty(), "its network is another one");
        reports.publish(&(web.clone(), 7), &of(7));
        assert!(!seen.has_changed().unwrap(), "it comes too late");
        reports.publish(&(web.clone(), 8), &of(8));
        assert_eq!(seen.borrow_and_update().pods[&web].netns, 8);
    }
}
