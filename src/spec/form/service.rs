//! The form of a whole [`Service`], as the state file keeps it of each version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    ContainerForm, DurationForm, FormError, HooksForm,
    hook::PreDeployForm,
    pod::ProtocolForm,
    policy::{
        BalanceForm, DependencyForm, ProbesForm, PullPolicyForm, RestartForm, SharingForm, UnhealthyForm,
        UpdateForm,
    },
    version::CanaryForm,
};
use crate::spec::{Canary, PortRange, PortSet, PreDeploy, Probes, Service};

/// The form of a [`Service`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceForm {
    name: String,
    pod: String,
    container: ContainerForm,
    replicas: u32,
    container_name: Option<String>,
    restart: RestartForm,
    stop_grace: DurationForm,
    depends_on: BTreeMap<String, DependencyForm>,
    pull_policy: PullPolicyForm,
    sharing: SharingForm,
    balance: BalanceForm,
    drain: DurationForm,
    hold: DurationForm,
    probe: Option<ProbesForm>,
    #[serde(default)]
    unhealthy: UnhealthyForm,
    hooks: HooksForm,
    before: Option<PreDeployForm>,
    update: UpdateForm,
    rollback: UpdateForm,
    canary: Option<CanaryForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclusive_ports: Vec<PortRangeForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shared_ports: Vec<PortRangeForm>,
}

impl From<&Service> for ServiceForm {
    fn from(service: &Service) -> Self {
        let Service {
            name,
            pod,
            container,
            replicas,
            container_name,
            restart,
            stop_grace,
            depends_on,
            pull_policy,
            sharing,
            balance,
            drain,
            hold,
            probe,
            unhealthy,
            hooks,
            pre_deploy,
            update,
            rollback,
            canary,
            exclusive_ports,
            shared_ports,
        } = service;
        Self {
            name: name.as_str().to_owned(),
            pod: pod.as_str().to_owned(),
            container: container.into(),
            replicas: *replicas,
            container_name: container_name.clone(),
            restart: (*restart).into(),
            stop_grace: (*stop_grace).into(),
            depends_on: depends_on.iter().map(|(on, it)| (on.as_str().to_owned(), (*it).into())).collect(),
            pull_policy: (*pull_policy).into(),
            sharing: (*sharing).into(),
            balance: (*balance).into(),
            drain: (*drain).into(),
            hold: (*hold).into(),
            probe: probe.as_ref().map(ProbesForm::from),
            unhealthy: (*unhealthy).into(),
            hooks: hooks.into(),
            before: pre_deploy.as_ref().map(PreDeployForm::from),
            update: (*update).into(),
            rollback: (*rollback).into(),
            canary: canary.as_ref().map(CanaryForm::from),
            exclusive_ports: ranges(exclusive_ports),
            shared_ports: ranges(shared_ports),
        }
    }
}

impl TryFrom<ServiceForm> for Service {
    type Error = FormError;

    fn try_from(form: ServiceForm) -> Result<Self, FormError> {
        let ServiceForm {
            name,
            pod,
            container,
            replicas,
            container_name,
            restart,
            stop_grace,
            depends_on,
            pull_policy,
            sharing,
            balance,
            drain,
            hold,
            probe,
            unhealthy,
            hooks,
            before,
            update,
            rollback,
            canary,
            exclusive_ports,
            shared_ports,
        } = form;
        let depends_on = depends_on.into_iter().map(|(on, it)| Ok((on.parse()?, it.into())));
        Ok(Self {
            name: name.parse()?,
            pod: pod.parse()?,
            container: container.into(),
            replicas,
            container_name,
            restart: restart.into(),
            stop_grace: stop_grace.into(),
            depends_on: depends_on.collect::<Result<_, FormError>>()?,
            pull_policy: pull_policy.into(),
            sharing: sharing.into(),
            balance: balance.into(),
            drain: drain.into(),
            hold: hold.into(),
            probe: probe.map(Probes::from),
            unhealthy: unhealthy.into(),
            hooks: hooks.into(),
            pre_deploy: before.map(PreDeploy::from),
            update: update.into(),
            rollback: rollback.into(),
            canary: canary.map(Canary::from),
            exclusive_ports: exclusive_ports.into_iter().map(PortRange::from).collect(),
            shared_ports: shared_ports.into_iter().map(PortRange::from).collect(),
        })
    }
}

/// The form of a [`PortRange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PortRangeForm {
    protocol: ProtocolForm,
    first: u16,
    last: u16,
}

fn ranges(ports: &PortSet) -> Vec<PortRangeForm> {
    ports.ranges().map(PortRangeForm::from).collect()
}

impl From<PortRange> for PortRangeForm {
    fn from(PortRange { protocol, first, last }: PortRange) -> Self {
        Self { protocol: protocol.into(), first, last }
    }
}

impl From<PortRangeForm> for PortRange {
    fn from(PortRangeForm { protocol, first, last }: PortRangeForm) -> Self {
        Self { protocol: protocol.into(), first, last }
    }
}
