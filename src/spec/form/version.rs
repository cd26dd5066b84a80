//! What the generation of a service is the hash of.

use serde::{Deserialize, Serialize};

use super::{ContainerForm, Hashed, HooksForm};
use crate::spec::{Canary, Generation, Image, Service, Share};

/// The form of a version of a service: what a replica has to be replaced for. `[container, container_name, pod]`
/// without hooks, and `[[container, container_name, pod], hooks]` with some: a service without any has the hash that it
/// had before there were hooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum VersionForm {
    /// A service without hooks.
    Plain(ReplicaForm),
    /// A service with hooks.
    WithHooks(ReplicaForm, HooksForm),
}

impl Hashed for VersionForm {}

impl From<&Service> for VersionForm {
    fn from(service: &Service) -> Self {
        let Service {
            container,
            container_name,
            pod,
            hooks,
            // What follows changes no replica that is there.
            name: _,
            replicas: _,
            restart: _,
            stop_grace: _,
            depends_on: _,
            pull_policy: _,
            sharing: _,
            balance: _,
            drain: _,
            hold: _,
            probe: _,
            unhealthy: _,
            pre_deploy: _,
            update: _,
            rollback: _,
            canary: _,
            exclusive_ports: _,
            shared_ports: _,
        } = service;
        let replica = ReplicaForm(
            Box::new(ContainerForm::of_version(container)),
            container_name.clone(),
            pod.as_str().to_owned(),
        );
        match hooks.is_empty() {
            true => Self::Plain(replica),
            false => Self::WithHooks(replica, hooks.into()),
        }
    }
}

/// `[container, container_name, pod]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaForm(Box<ContainerForm>, Option<String>, String);

/// What a file declares of a service: `[generation, canary]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeclaredForm(String, Option<CanaryForm>);

impl Hashed for DeclaredForm {}

impl DeclaredForm {
    /// The form of what the file declares: this version, and that canary beside it.
    pub fn new(generation: &Generation, canary: Option<&Canary>) -> Self {
        Self(generation.as_str().to_owned(), canary.map(CanaryForm::from))
    }
}

/// The form of a [`Canary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CanaryForm {
    image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image_id: Option<String>,
    /// In thousandths.
    share: u16,
}

impl From<&Canary> for CanaryForm {
    fn from(canary: &Canary) -> Self {
        let Canary { image: Image(image), image_id, share } = canary.clone();
        Self { image, image_id, share: share.thousandths() }
    }
}

impl From<CanaryForm> for Canary {
    fn from(CanaryForm { image, image_id, share }: CanaryForm) -> Self {
        Self { image: Image(image), image_id, share: Share::of_thousand(share).unwrap_or(Share::ALL) }
    }
}
