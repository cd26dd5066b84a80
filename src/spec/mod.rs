//! What we run: a project's services and pods, free of YAML and of Docker.
//!
//! In: nothing but plain values, made by `compose`. Out: the vocabulary of everything behind it.
//! Every type here serializes, because a project travels whole to a supervisor. What is hashed into a [`Generation`] and
//! kept in the state file has a form of its own, in `form`.

mod container;
pub(crate) mod form;
mod generation;
mod hook;
mod limits;
mod name;
mod network;
mod pod;
mod policy;
mod ports;
mod probe;
mod project;
mod service;
mod services;
mod template;
mod update;

pub use container::{
    Container, Device, HealthTest, Healthcheck, Image, Ipc, LogDriver, Mount, MountSource, PullPolicy,
    Resources, Ulimit,
};
pub use generation::Generation;
pub use hook::{Hook, Hooks, PreDeploy};
pub use limits::Limits;
pub use name::{NameError, PodName, ProjectName, ServiceName, Slot};
pub use network::{IpamPool, Network, NetworkAttachment, NetworkKey, Volume, VolumeKey};
pub use pod::{Pod, PodNetwork, PortBinding, Protocol};
pub use policy::{Balance, Restart, RestartCondition, Sharing, Unhealthy};
pub use ports::{PortRange, PortSet, PortSharing};
pub use probe::{Probe, ProbeKind, ProbeType, Probes};
pub use project::Project;
pub use service::{Dependency, DependencyCondition, Service};
pub use services::Services;
pub use template::expand;
pub use update::{Canary, FailureAction, Order, Share, Update};
