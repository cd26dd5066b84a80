//! Which replica a user means: `web`, `web-1`, `web.1` or `shop-web-1`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use sameport::{
    api::schema::replica_name,
    engine::docker::Docker,
    spec::{Project, ProjectName, ServiceName, Slot},
    supervisor::Selector,
};

use super::{context::Context, error::CliError, replicas::Finder};

/// A service or a replica, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written(String);

impl FromStr for Written {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.is_empty() || text.chars().any(|char| char.is_whitespace() || char.is_control()) {
            true => Err("name a service or a replica, such as web or web-1".to_owned()),
            false => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a name can mean.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    project: ProjectName,
    services: BTreeSet<ServiceName>,
    /// Containers with a name of the user's.
    containers: Vec<(String, ServiceName)>,
}

/// Why it is not known what is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unclear {
    Unknown,
    Ambiguous(Selector, Selector),
}

impl Names {
    fn new(project: ProjectName, file: Option<&Project>) -> Self {
        let services = || file.into_iter().flat_map(|file| file.services.values());
        Self {
            project,
            services: services().map(|service| service.name.clone()).collect(),
            containers: services()
                .filter_map(|service| Some((service.container_name.clone()?, service.name.clone())))
                .collect(),
        }
    }

    /// What is meant: a service of exactly that name, or else the one replica that can be called so.
    fn resolve(&self, text: &str) -> Result<Selector, Unclear> {
        if let Some(service) = self.services.iter().find(|service| service.as_str() == text) {
            return Ok(Selector { service: service.clone(), slot: None });
        }
        let container = text.strip_prefix(self.project.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let mut found = Vec::new();
        found.extend(self.replica(text, &['-', '.']));
        // A container's name has no dot before the slot: with one it is clear which of the two is meant.
        found.extend(container.and_then(|rest| self.replica(rest, &['-'])));
        let own = self.containers.iter().filter(|(name, _)| name == text);
        found.extend(own.map(|(_, service)| Selector { service: service.clone(), slot: Some(Slot::FIRST) }));
        found.dedup();
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(one), Some(other)) => Err(Unclear::Ambiguous(one, other)),
            (None, _) => Err(Unclear::Unknown),
        }
    }

    /// `SERVICE-N`, with one of these characters between the two.
    fn replica(&self, text: &str, between: &[char]) -> Option<Selector> {
        let (service, slot) = text.rsplit_once(between)?;
        let service = self.services.iter().find(|known| known.as_str() == service)?;
        Some(Selector { service: service.clone(), slot: Some(Slot::new(slot.parse().ok()?)?) })
    }
}

/// What is meant by each. The engine is asked only for what the file does not have.
///
/// # Errors
/// When there is no such service, or a name can mean two things.
pub async fn resolve(context: &Context, written: &[Written]) -> Result<Vec<Selector>, CliError> {
    let (project, loaded) = context.load_if_possible()?;
    let mut names = Names::new(project, loaded.as_ref().map(|loaded| &loaded.project));
    if written.iter().any(|written| names.resolve(&written.0) == Err(Unclear::Unknown)) {
        let docker: Docker = context.engine().await?;
        let file = loaded.as_ref().map(|loaded| &loaded.project);
        let found = Finder::of(context, &names.project, file).list(&docker, &[]).await?;
        names.services.extend(found.into_iter().map(|replica| replica.service));
    }
    written
        .iter()
        .map(|written| names.resolve(&written.0).map_err(|why| refused(&names, &written.0, why)))
        .collect()
}

/// What is meant by one.
///
/// # Errors
/// As [`resolve`].
pub async fn resolve_one(context: &Context, written: &Written) -> Result<Selector, CliError> {
    let mut found = resolve(context, std::slice::from_ref(written)).await?;
    found.pop().ok_or_else(|| CliError::failed(format!("`{written}` means nothing"), None))
}

/// The one replica that is meant by each.
///
/// # Errors
/// As [`resolve`], and when a service is named instead of one of its replicas.
pub async fn resolve_replicas(
    context: &Context,
    written: &[Written],
) -> Result<Vec<(ServiceName, Slot)>, CliError> {
    let single = |selector: Selector| match selector {
        Selector { service, slot: Some(slot) } => Ok((service, slot)),
        Selector { service, slot: None } => Err(CliError::Usage {
            message: format!("`{service}` is a service, and may have several replicas"),
            help: format!("name one replica, such as {service}-1"),
        }),
    };
    resolve(context, written).await?.into_iter().map(single).collect()
}

fn refused(names: &Names, text: &str, why: Unclear) -> CliError {
    let (message, help) = match why {
        Unclear::Ambiguous(one, other) => (
            format!("`{text}` can mean {} and {}", described(&one), described(&other)),
            format!("write {}, or {}", exact(&one), exact(&other)),
        ),
        Unclear::Unknown if names.services.is_empty() => (
            format!("the project {} has no service or replica `{text}`", names.project),
            "`sameport ls --all` lists the projects that exist".to_owned(),
        ),
        Unclear::Unknown => {
            let known: Vec<_> = names.services.iter().map(ServiceName::as_str).collect();
            (
                format!(
                    "there is no service or replica `{text}`; there are the services {}",
                    known.join(", ")
                ),
                "write SERVICE or SERVICE-N, such as web or web-1".to_owned(),
            )
        }
    };
    CliError::Usage { message, help }
}

fn described(selector: &Selector) -> String {
    match selector.slot {
        Some(slot) => format!("replica {slot} of the service `{}`", selector.service),
        None => format!("the service `{}`", selector.service),
    }
}

/// With a dot between service and slot, and no project before it: not to be mistaken for the other one.
fn exact(selector: &Selector) -> String {
    match selector.slot {
        Some(slot) => format!("{}.{slot}", selector.service),
        None => selector.service.to_string(),
    }
}

/// How a service or one of its replicas is called.
pub fn name(selector: &Selector) -> String {
    selector.slot.map_or_else(|| selector.service.to_string(), |slot| replica_name(&selector.service, slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(project: &str, services: &[&str]) -> Names {
        let services = services.iter().map(|name| name.parse().unwrap()).collect();
        let containers = vec![("the-db".to_owned(), "db".parse().unwrap())];
        Names { project: project.parse().unwrap(), services, containers }
    }

    #[test]
    fn a_replica_is_found_by_each_of_its_names() {
        let names = names("shop", &["web", "my.web", "web-1", "db"]);
        for (text, wanted) in [
            ("web", Some(("web", None))),
            ("web-2", Some(("web", Some(2)))),
            ("web.2", Some(("web", Some(2)))),
            ("shop-web-2", Some(("web", Some(2)))),
            ("my.web.3", Some(("my.web", Some(3)))),
            ("my.web-3", Some(("my.web", Some(3)))),
            // An exact service name wins.
            ("web-1", Some(("web-1", None))),
            ("web.1", Some(("web", Some(1)))),
            ("web-1-4", Some(("web-1", Some(4)))),
            ("the-db", Some(("db", Some(1)))),
            ("web-0", None),
            ("wob", None),
            ("shop-wob-1", None),
            ("web-99999999999", None),
        ] {
            let found = names.resolve(text).ok();
            let found = found.as_ref().map(|s| (s.service.as_str(), s.slot.map(Slot::number)));
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn what_can_mean_two_things_names_both() {
        let names = names("web", &["1", "web-1"]);
        let Err(Unclear::Ambiguous(one, other)) = names.resolve("web-1-2") else { panic!("it is clear") };
        let CliError::Usage { message, help } = refused(&names, "web-1-2", Unclear::Ambiguous(one, other))
        else {
            panic!("no usage error")
        };
        assert_eq!(
            message,
            "`web-1-2` can mean replica 2 of the service `web-1` and replica 2 of the service `1`"
        );
        assert_eq!(help, "write web-1.2, or 1.2");
        for (text, service) in [("web-1.2", "web-1"), ("1.2", "1")] {
            assert_eq!(names.resolve(text).unwrap().service.as_str(), service);
        }
    }
}
