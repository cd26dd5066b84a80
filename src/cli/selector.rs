//! Resolves the names of replicas in arguments: `web`, `web-1`, `web.1` or `shop-web-1`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use sameport::{
    api::schema::replica_name,
    engine::docker::Docker,
    spec::{Project, ProjectName, ServiceName, Slot},
    supervisor::Selector,
};

use super::{context::Context, error::CliError, replicas::Finder};

/// The name of a service or a replica as given, not yet resolved.
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

/// The names that can be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    project: ProjectName,
    services: BTreeSet<ServiceName>,
    /// Names that `container_name` sets, with the service.
    containers: Vec<(String, ServiceName)>,
}

/// Why a name cannot be resolved.
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

    /// Resolves a name: the service of exactly that name, or else the only replica that has it.
    fn resolve(&self, text: &str) -> Result<Selector, Unclear> {
        if let Some(service) = self.services.iter().find(|service| service.as_str() == text) {
            return Ok(Selector { service: service.clone(), slot: None });
        }
        let container = text.strip_prefix(self.project.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let mut found = Vec::new();
        found.extend(self.replica(text, &['-', '.']));
        // Names of containers have no dot before the slot, so a dot makes the name unambiguous.
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

    /// Parses `SERVICE-N`, with one of the separators in `between`.
    fn replica(&self, text: &str, between: &[char]) -> Option<Selector> {
        let (service, slot) = text.rsplit_once(between)?;
        let service = self.services.iter().find(|known| known.as_str() == service)?;
        Some(Selector { service: service.clone(), slot: Some(Slot::new(slot.parse().ok()?)?) })
    }
}

/// Resolves names. Asks the engine only if a name is not in the file.
///
/// # Errors
/// If there is no such service, or a name is ambiguous.
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

/// Resolves one name.
///
/// # Errors
/// Those of [`resolve`].
pub async fn resolve_one(context: &Context, written: &Written) -> Result<Selector, CliError> {
    let mut found = resolve(context, std::slice::from_ref(written)).await?;
    found.pop().ok_or_else(|| CliError::failed(format!("`{written}` means nothing"), None))
}

/// Resolves names of single replicas.
///
/// # Errors
/// Those of [`resolve`], and if a name is that of a service.
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

/// The unambiguous form: a dot between service and slot, and no project.
fn exact(selector: &Selector) -> String {
    match selector.slot {
        Some(slot) => format!("{}.{slot}", selector.service),
        None => selector.service.to_string(),
    }
}

/// The name of a service, or of one of its replicas.
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
            // The exact name of a service has precedence.
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
    fn an_ambiguous_name_is_an_error_with_both_meanings() {
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
