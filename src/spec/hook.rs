//! Commands that run beside a service: in its containers around their lives, or once before a new version of it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Container, HealthTest, Healthcheck, Image, Slot};

/// A command that is run in a container that is there (an entry of `post_start` or `pre_stop`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `UID[:GID]` or a name in the image; `None` is the container's own.
    pub user: Option<String>,
    /// Whether it gets all capabilities.
    pub privileged: bool,
    /// Where it starts; `None` is the container's own.
    pub working_dir: Option<String>,
    /// `NAME` to value, over the container's own.
    pub environment: BTreeMap<String, Option<String>>,
}

/// What is run in each container of a service around its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// One after the other, after each start of the container; it is not ready before they have succeeded.
    pub post_start: Vec<Hook>,
    /// One after the other, before the container is told to end on purpose.
    pub pre_stop: Vec<Hook>,
}

impl Hooks {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.post_start.is_empty() && self.pre_stop.is_empty()
    }

    /// These hooks as the replica in `slot` gets them: templates of the environment are filled in.
    #[must_use]
    pub fn for_slot(&self, slot: Slot) -> Self {
        let mut own = self.clone();
        let all = own.post_start.iter_mut().chain(&mut own.pre_stop);
        for value in all.flat_map(|hook| hook.environment.values_mut().flatten()) {
            *value = super::expand(value, slot);
        }
        own
    }
}

/// A job that is run to its end once, before the first replica of a new version of a service (`x-sameport.before`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreDeploy {
    /// Replaces the command.
    pub command: Vec<String>,
    /// Runs instead of the service's own image.
    pub image: Option<Image>,
    /// `NAME` to value, over the service's own.
    pub environment: BTreeMap<String, Option<String>>,
    /// How long it may take.
    pub timeout: Duration,
}

impl PreDeploy {
    /// How long it may take when the file does not say.
    pub const TIMEOUT: Duration = Duration::from_secs(600);

    /// What runs: the service's container, with what the job says over it. Nobody asks it for its health, and labels by
    /// which others find the service are not its own.
    #[must_use]
    pub fn container(&self, service: &Container) -> Container {
        let mut own = service.for_slot(Slot::FIRST);
        own.labels.clear();
        own.healthcheck = Some(Healthcheck {
            test: HealthTest::None,
            interval: None,
            timeout: None,
            retries: None,
            start_period: None,
            start_interval: None,
        });
        own.command = Some(self.command.clone());
        if let Some(image) = &self.image {
            own.image = image.clone();
            // They are the other image's.
            own.entrypoint = None;
            own.user = None;
            own.working_dir = None;
        }
        own.environment.extend(self.environment.clone());
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(image: Option<&str>) -> Container {
        let mut service = Container::new(Image("app:2".to_owned()));
        service.entrypoint = Some(vec!["/app".to_owned()]);
        service.user = Some("1000".to_owned());
        service.labels = BTreeMap::from([("traefik.enable".to_owned(), "true".to_owned())]);
        service.environment = BTreeMap::from([
            ("DB".to_owned(), Some("db".to_owned())),
            ("REPLICA".to_owned(), Some("{{.Slot}}".to_owned())),
        ]);
        let before = PreDeploy {
            command: vec!["migrate".to_owned()],
            image: image.map(|name| Image(name.to_owned())),
            environment: BTreeMap::from([("DB".to_owned(), Some("main".to_owned()))]),
            timeout: PreDeploy::TIMEOUT,
        };
        before.container(&service)
    }

    #[test]
    fn a_job_is_the_services_container_with_another_command() {
        let own = job(None);
        assert_eq!(own.image.0, "app:2");
        assert_eq!(own.entrypoint, Some(vec!["/app".to_owned()]));
        assert_eq!(own.command, Some(vec!["migrate".to_owned()]));
        assert_eq!(own.user.as_deref(), Some("1000"));
        assert_eq!(own.environment["DB"].as_deref(), Some("main"));
        assert_eq!(own.environment["REPLICA"].as_deref(), Some("1"));
        assert_eq!(own.labels, BTreeMap::new());
    }

    #[test]
    fn what_belongs_to_the_services_image_does_not_go_to_another_one() {
        let own = job(Some("migrations:2"));
        assert_eq!(own.image.0, "migrations:2");
        assert_eq!((own.entrypoint, own.user), (None, None));
        assert_eq!(own.environment["REPLICA"].as_deref(), Some("1"));
    }
}
