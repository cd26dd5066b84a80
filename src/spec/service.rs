//! A service: how many replicas of which container, in which pod, under which rules.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Balance, Canary, Container, Generation, Hooks, PodName, PortSet, PreDeploy, Probes, PullPolicy, Restart,
    ServiceName, Sharing, Unhealthy, Update,
    form::{DeclaredForm, VersionForm},
};

/// One entry under `services:`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its key in the file.
    pub name: ServiceName,
    /// Which pod its replicas are in.
    pub pod: PodName,
    /// What each replica is.
    pub container: Container,
    /// How many replicas the file asks for.
    pub replicas: u32,
    /// A name of the user's for the only replica (`container_name`).
    pub container_name: Option<String>,
    /// What happens when a replica exits.
    pub restart: Restart,
    /// How long a replica may take to end after its stop signal, before it is killed.
    pub stop_grace: Duration,
    /// What must be true of other services before a replica is first started.
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    /// When its image is pulled.
    pub pull_policy: PullPolicy,
    /// Who makes its listeners share a port.
    pub sharing: Sharing,
    /// How the kernel chooses among its replicas, where it does.
    pub balance: Balance,
    /// How long a replica may finish its connections, once it gets no new ones, before it is told to end.
    pub drain: Duration,
    /// How long new connections wait while no replica is ready; zero: they are refused.
    pub hold: Duration,
    /// How its replicas are asked how they are, besides by their own health check.
    pub probe: Option<Probes>,
    /// What becomes of one that stays unhealthy.
    #[serde(default)]
    pub unhealthy: Unhealthy,
    /// What is run in its replicas after their start, and before they are told to end.
    pub hooks: Hooks,
    /// What is run to its end before the first replica of a new version.
    // The key by which commands and supervisors of other releases know it.
    #[serde(rename = "before")]
    pub pre_deploy: Option<PreDeploy>,
    /// How its replicas are replaced by those of another version.
    pub update: Update,
    /// How they are replaced by those of the version before, when the other one has failed.
    pub rollback: Update,
    /// Another image that gets a part of its traffic.
    pub canary: Option<Canary>,
    /// Ports that only one replica can hold at a time: published ranges, and what `x-sameport.ports` says, of TCP and UDP.
    #[serde(default, skip_serializing_if = "PortSet::is_empty")]
    pub exclusive_ports: PortSet,
    /// Ports that `x-sameport.ports` says replicas share, whatever another service of the pod says.
    #[serde(default, skip_serializing_if = "PortSet::is_empty")]
    pub shared_ports: PortSet,
}

impl Service {
    /// Most replicas of a service. More is a slip of the finger, and more than a bridge of Linux can hold.
    pub const MOST_REPLICAS: u32 = 1000;
    /// How long a replica may take to end when the file does not say: Compose's ten seconds.
    pub const STOP_GRACE: Duration = Duration::from_secs(10);
    /// How long a replica may finish its connections when the file does not say.
    pub const DRAIN: Duration = Duration::from_secs(30);
    /// A `drain` as long as the connections last.
    pub const NO_LIMIT: Duration = Duration::MAX;
    /// How long new connections wait when the file does not say.
    pub const HOLD: Duration = Duration::from_secs(30);
    /// How long no datagram has come to a replica that gets no new flows when it counts as having finished them. Flows have
    /// no end that could be seen. So long the resolver of libc waits before it asks again: nobody still waits for an answer
    /// then. Most keep-alives of QUIC and of games come more often.
    pub const UDP_IDLE: Duration = Duration::from_secs(5);

    /// Which version of the service this is: a replica of another one has to be replaced. The number of
    /// replicas, the restart rule, the order of start and the limits are not part of it. Hooks are, as in Compose.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation::of(&VersionForm::from(self))
    }

    /// Which versions of it the file declares: another one means that the file has changed.
    #[must_use]
    pub fn declared(&self) -> Generation {
        Generation::of(&DeclaredForm::new(&self.generation(), self.canary.as_ref()))
    }

    /// This service as another version of it: with that one's container, and the rules of this one.
    #[must_use]
    pub fn with_version_of(&self, other: &Self) -> Self {
        let resources = self.container.resources.with_fixed_of(&other.container.resources);
        Self {
            container: Container { resources, ..other.container.clone() },
            container_name: other.container_name.clone(),
            pod: other.pod.clone(),
            hooks: other.hooks.clone(),
            ..self.clone()
        }
    }
}

/// What a service waits for in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// What must be true.
    pub condition: DependencyCondition,
    /// Whether the service may start without the other one being part of this project's run.
    pub required: bool,
    /// Whether the service is restarted, too, after the other one was restarted or replaced on purpose.
    pub restart: bool,
}

/// What must be true of a service that another one depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyCondition {
    /// Its replicas run.
    #[default]
    Started,
    /// Its replicas are healthy.
    Healthy,
    /// Its replicas ended with exit code 0.
    CompletedSuccessfully,
}
