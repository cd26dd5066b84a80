//! The labels by which we know what we have made: Docker is the database.
//!
//! They prove nothing by themselves: labels of an image become labels of its containers, and `docker commit` copies a
//! container's labels into an image. What counts as ours is told by [`ownership`](super::ownership).

use std::collections::BTreeMap;

use crate::spec::{Generation, Hooks, PodName, ProjectName, ServiceName, Slot, form::HooksForm};

use super::Nonce;

const PREFIX: &str = "dev.sameport.";

/// What a container is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It holds a pod's namespaces.
    Sandbox,
    /// It runs to its end before the first replica of a new version of a service.
    PreDeploy {
        /// Of which one.
        service: ServiceName,
    },
    /// It is a replica of a service.
    Replica {
        /// Of which one.
        service: ServiceName,
        /// Its number there.
        slot: Slot,
    },
}

/// The labels of a container of ours, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Whose it is.
    pub project: ProjectName,
    /// Which pod it holds or is in.
    pub pod: PodName,
    /// Which version of the pod (a sandbox) or of the service (a replica) it runs.
    pub generation: Generation,
    /// What it is for.
    pub role: Role,
}

impl Labels {
    /// The label that every container, network and volume of a project carries.
    pub const PROJECT: &'static str = "dev.sameport.project";
    /// The label that tells which of our labels there are and what they mean. What was made before there was one has none.
    pub const LAYOUT: &'static str = "dev.sameport.layout";
    /// The value of [`Self::LAYOUT`] on what we make. Any other one is of a newer release.
    pub const CURRENT_LAYOUT: &'static str = "1";
    /// The label of a container that no other container that we made has.
    pub const NONCE: &'static str = "dev.sameport.nonce";
    /// The label of a network or volume that repeats its name, which nobody can change.
    pub const NAME: &'static str = "dev.sameport.name";
    /// The label that holds the hooks of a replica: those of its own version, also once the file has others.
    pub const HOOKS: &'static str = "dev.sameport.hooks";

    /// All labels of a container that we make: each one that we ever read, also where there is nothing to say, so that
    /// none of its image's shows through.
    #[must_use]
    pub fn of_container(&self, hooks: &Hooks, nonce: &Nonce) -> BTreeMap<String, String> {
        let mut labels = self.to_map();
        // Nothing in hooks can fail to be written.
        let hooks = serde_json::to_string(&HooksForm::from(hooks)).unwrap_or_default();
        labels.insert(Self::HOOKS.to_owned(), hooks);
        labels.insert(Self::LAYOUT.to_owned(), Self::CURRENT_LAYOUT.to_owned());
        labels.insert(Self::NONCE.to_owned(), nonce.to_string());
        labels
    }

    /// All labels of a network or volume that we make.
    #[must_use]
    pub fn of_resource(project: &ProjectName, name: &str) -> BTreeMap<String, String> {
        [(Self::PROJECT, project.as_str()), (Self::LAYOUT, Self::CURRENT_LAYOUT), (Self::NAME, name)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// The hooks that a label tells; none, if what it tells cannot be read.
    #[must_use]
    pub fn hooks(label: &str) -> Hooks {
        serde_json::from_str::<HooksForm>(label).map(Hooks::from).unwrap_or_default()
    }

    /// What a container is, as labels.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let (role, service, slot) = match &self.role {
            Role::Sandbox => ("sandbox", String::new(), String::new()),
            Role::PreDeploy { service } => ("before", service.to_string(), String::new()),
            Role::Replica { service, slot } => ("replica", service.to_string(), slot.to_string()),
        };
        [
            ("project", self.project.to_string()),
            ("pod", self.pod.to_string()),
            ("generation", self.generation.to_string()),
            ("role", role.to_owned()),
            ("service", service),
            ("slot", slot),
        ]
        .map(|(key, value)| (format!("{PREFIX}{key}"), value))
        .into()
    }

    /// What labels say that a container is; `None` unless they are complete. It need not be true.
    #[must_use]
    pub fn from_map(labels: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key: &str| labels.get(&format!("{PREFIX}{key}")).map(String::as_str);
        let role = match get("role")? {
            "sandbox" => Role::Sandbox,
            "before" => Role::PreDeploy { service: get("service")?.parse().ok()? },
            "replica" => Role::Replica {
                service: get("service")?.parse().ok()?,
                slot: Slot::new(get("slot")?.parse().ok()?)?,
            },
            _ => return None,
        };
        Some(Self {
            project: get("project")?.parse().ok()?,
            pod: get("pod")?.parse().ok()?,
            generation: Generation::from_label(get("generation")?),
            role,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica() -> Labels {
        Labels {
            project: "shop".parse().unwrap(),
            pod: "web".parse().unwrap(),
            generation: Generation::from_label("0123456789ab"),
            role: Role::Replica { service: "web".parse().unwrap(), slot: Slot::new(3).unwrap() },
        }
    }

    #[test]
    fn labels_read_back_as_written() {
        let job = Role::PreDeploy { service: "web".parse().unwrap() };
        for labels in
            [replica(), Labels { role: Role::Sandbox, ..replica() }, Labels { role: job, ..replica() }]
        {
            assert_eq!(Labels::from_map(&labels.to_map()), Some(labels));
        }
    }

    #[test]
    fn hooks_read_back_as_written_and_what_cannot_be_read_is_none() {
        let hook = crate::spec::Hook {
            command: vec!["sh".to_owned(), "-c".to_owned(), "echo \"a\"".to_owned()],
            user: Some("0".to_owned()),
            privileged: true,
            working_dir: None,
            environment: BTreeMap::from([("A".to_owned(), None)]),
        };
        let some = Hooks { post_start: vec![hook.clone()], pre_stop: vec![hook] };
        for hooks in [some.clone(), Hooks::default()] {
            let labels = replica().of_container(&hooks, &Nonce::of_number(1));
            assert_eq!(Labels::hooks(&labels[Labels::HOOKS]), hooks);
        }
        assert_eq!(Labels::hooks("?"), Hooks::default());
        // As containers of each release carry it.
        let one = r#"{"command":["sh","-c","echo \"a\""],"user":"0","privileged":true,"working_dir":null,"environment":{"A":null}}"#;
        let labels = replica().of_container(&some, &Nonce::of_number(1));
        assert_eq!(labels[Labels::HOOKS], format!(r#"{{"post_start":[{one}],"pre_stop":[{one}]}}"#));
    }

    #[test]
    fn every_container_has_every_label() {
        let job = Role::PreDeploy { service: "web".parse().unwrap() };
        let keys = |role: Role| -> Vec<String> {
            let labels = Labels { role, ..replica() }.of_container(&Hooks::default(), &Nonce::of_number(1));
            labels.into_keys().collect()
        };
        let all = ["generation", "hooks", "layout", "nonce", "pod", "project", "role", "service", "slot"];
        let all = all.map(|key| format!("{PREFIX}{key}"));
        for role in [replica().role, job, Role::Sandbox] {
            assert_eq!(keys(role), all);
        }
    }

    #[test]
    fn labels_of_others_are_never_complete() {
        for missing in replica().to_map().keys() {
            let mut map = replica().to_map();
            map.remove(missing);
            assert_eq!(Labels::from_map(&map), None, "without {missing}");
        }
        let mut zero = replica().to_map();
        zero.insert("dev.sameport.slot".into(), "0".into());
        assert_eq!(Labels::from_map(&zero), None);
    }
}
