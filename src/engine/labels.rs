//! The labels by which we know our own containers: Docker is the database.

use std::collections::BTreeMap;

use crate::spec::{Generation, Hooks, PodName, ProjectName, ServiceName, Slot, form::HooksForm};

const PREFIX: &str = "dev.sameport.";

/// What a container is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It holds a pod's namespaces.
    Sandbox,
    /// It runs to its end before the first replica of a new version of a service.
    Before {
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
    /// The label that holds the hooks of a replica that has any: those of its own version, also once the file has others.
    const HOOKS: &'static str = "dev.sameport.hooks";

    /// The labels of a container with these hooks, beside the others.
    #[must_use]
    pub fn of_hooks(hooks: &Hooks) -> BTreeMap<String, String> {
        // Nothing in it can fail to be written.
        let text =
            (!hooks.is_empty()).then(|| serde_json::to_string(&HooksForm::from(hooks)).unwrap_or_default());
        text.into_iter().map(|text| (Self::HOOKS.to_owned(), text)).collect()
    }

    /// The hooks that labels tell; none, if what they tell cannot be read.
    #[must_use]
    pub fn hooks(labels: &BTreeMap<String, String>) -> Hooks {
        let form = labels.get(Self::HOOKS).and_then(|text| serde_json::from_str::<HooksForm>(text).ok());
        form.map(Hooks::from).unwrap_or_default()
    }

    /// As the engine stores them.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let mut labels = vec![
            ("project", self.project.to_string()),
            ("pod", self.pod.to_string()),
            ("generation", self.generation.to_string()),
        ];
        match &self.role {
            Role::Sandbox => labels.push(("role", "sandbox".to_owned())),
            Role::Before { service } => {
                labels.extend([("role", "before".to_owned()), ("service", service.to_string())]);
            }
            Role::Replica { service, slot } => labels.extend([
                ("role", "replica".to_owned()),
                ("service", service.to_string()),
                ("slot", slot.to_string()),
            ]),
        }
        labels.into_iter().map(|(key, value)| (format!("{PREFIX}{key}"), value)).collect()
    }

    /// What the engine stored; `None` unless the labels are complete, as only ours are.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Option<Self> {
        let get = |key: &str| labels.get(&format!("{PREFIX}{key}")).map(String::as_str);
        let role = match get("role")? {
            "sandbox" => Role::Sandbox,
            "before" => Role::Before { service: get("service")?.parse().ok()? },
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
        let job = Role::Before { service: "web".parse().unwrap() };
        for labels in
            [replica(), Labels { role: Role::Sandbox, ..replica() }, Labels { role: job, ..replica() }]
        {
            assert_eq!(Labels::from_map(&labels.to_map()), Some(labels));
        }
    }

    #[test]
    fn hooks_read_back_as_written_and_what_is_not_ours_is_none() {
        let hook = crate::spec::Hook {
            command: vec!["sh".to_owned(), "-c".to_owned(), "echo \"a\"".to_owned()],
            user: Some("0".to_owned()),
            privileged: true,
            working_dir: None,
            environment: BTreeMap::from([("A".to_owned(), None)]),
        };
        let hooks = Hooks { post_start: vec![hook.clone()], pre_stop: vec![hook] };
        assert_eq!(Labels::hooks(&Labels::of_hooks(&hooks)), hooks);
        // As containers of each release carry it.
        let one = r#"{"command":["sh","-c","echo \"a\""],"user":"0","privileged":true,"working_dir":null,"environment":{"A":null}}"#;
        assert_eq!(
            Labels::of_hooks(&hooks)["dev.sameport.hooks"],
            format!(r#"{{"post_start":[{one}],"pre_stop":[{one}]}}"#)
        );
        assert_eq!(Labels::of_hooks(&Hooks::default()), BTreeMap::new());
        let strange = BTreeMap::from([("dev.sameport.hooks".to_owned(), "?".to_owned())]);
        assert_eq!(Labels::hooks(&strange), Hooks::default());
    }

    #[test]
    fn a_container_of_others_is_never_ours() {
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
