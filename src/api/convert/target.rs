//! Converts targets and actions.

use crate::{
    api::schema::{Action, Target, TargetKind, replica_name},
    plan::{self, Verb},
};

impl From<&plan::Target> for Target {
    fn from(target: &plan::Target) -> Self {
        let named = |kind, name: String| Self { kind, name, service: None, slot: None };
        match target {
            plan::Target::Network(name) => named(TargetKind::Network, name.clone()),
            plan::Target::Volume(name) => named(TargetKind::Volume, name.clone()),
            plan::Target::Sandbox(pod) => named(TargetKind::Sandbox, pod.to_string()),
            plan::Target::Surplus(id) | plan::Target::Hooks(id) => {
                named(TargetKind::Container, id.short().to_owned())
            }
            plan::Target::PreDeploy(service) => Self {
                service: Some(service.to_string()),
                ..named(TargetKind::PreDeployJob, service.to_string())
            },
            plan::Target::Replica(service, slot) => Self {
                kind: TargetKind::Replica,
                name: replica_name(service, slot),
                service: Some(service.to_string()),
                slot: Some(slot.number()),
            },
            plan::Target::Replacement(service, slot) => Self {
                kind: TargetKind::Replacement,
                ..Self::from(&plan::Target::Replica(service.clone(), *slot))
            },
            plan::Target::SetAside(service, slot, _) => Self {
                kind: TargetKind::DrainingReplica,
                ..Self::from(&plan::Target::Replica(service.clone(), *slot))
            },
        }
    }
}

impl From<Verb> for Action {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Create => Self::Create,
            Verb::Launch => Self::Launch,
            Verb::Start => Self::Start,
            Verb::Run => Self::Run,
            Verb::Update => Self::Update,
            Verb::Promote => Self::Promote,
            Verb::SetAside => Self::SetAside,
            Verb::Rename => Self::Rename,
            Verb::Connect => Self::Connect,
            Verb::Stop => Self::Stop,
            Verb::Remove => Self::Remove,
        }
    }
}
