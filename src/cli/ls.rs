//! `sameport ls`.

use std::{collections::BTreeMap, str::FromStr};

use clap::Args;
use sameport::{
    api::{
        Client,
        schema::{ProjectSummary, SupervisorProcess, Time},
    },
    engine::{Role, ownership::Owned},
    spec::ProjectName,
    supervisor::{engine_lock, owner::Owner},
};

use super::{boot::Boot, context::Context, error::CliError, output, projects};

/// Arguments of `sameport ls`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport ls                      projects of which something runs
  sameport ls -a --filter name=shop
  sameport ls --format json | jq -r '.[] | select(.supervised | not) | .name'")]
pub struct LsArgs {
    /// Also list projects that have no running container
    #[arg(short, long)]
    all: bool,
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Only projects whose name contains TEXT, starts with it (`^TEXT`) or ends with it (`TEXT$`)
    #[arg(long, value_name = "name=TEXT")]
    filter: Vec<Filter>,
}

/// The text that a project's name must contain.
#[derive(Clone, Debug)]
struct Filter {
    text: String,
    at_start: bool,
    at_end: bool,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("write name=TEXT")?;
        if key != "name" {
            return Err(format!("unknown filter `{key}`; the only one is `name`"));
        }
        let (at_start, value) = value.strip_prefix('^').map_or((false, value), |rest| (true, rest));
        let (at_end, value) = value.strip_suffix('$').map_or((false, value), |rest| (true, rest));
        Ok(Self { text: value.to_owned(), at_start, at_end })
    }
}

impl Filter {
    fn matches(&self, name: &ProjectName) -> bool {
        let (name, text) = (name.as_str(), self.text.as_str());
        match (self.at_start, self.at_end) {
            (true, true) => name == text,
            (true, false) => name.starts_with(text),
            (false, true) => name.ends_with(text),
            (false, false) => name.contains(text),
        }
    }
}

/// The number of containers by state. Sandboxes count only if there is no other container.
fn containers(ours: &[Owned]) -> BTreeMap<String, usize> {
    let states = |is_counted: fn(&Role) -> bool| {
        let mut states = BTreeMap::<_, usize>::new();
        for owned in ours.iter().filter(|owned| is_counted(&owned.labels.role)) {
            *states.entry(owned.row.state.clone()).or_default() += 1;
        }
        states
    };
    let counted = states(|role| *role != Role::Sandbox);
    if counted.is_empty() { states(|_| true) } else { counted }
}

/// The counts as text, such as `running(4)`.
fn words(containers: &BTreeMap<String, usize>) -> String {
    let mut shown: Vec<_> = containers.iter().collect();
    // Running containers come first.
    shown.sort_by_key(|(state, _)| (state.as_str() != "running", state.as_str()));
    let shown: Vec<_> = shown.into_iter().map(|(state, count)| format!("{state}({count})")).collect();
    shown.join(", ")
}

/// The folder of a project's Compose file: as reported by its supervisor, or else as last applied by this user.
fn folder(context: &Context, name: &ProjectName, owner: Option<&Owner>) -> Option<String> {
    let remembered = || context.state(name).ok()?.load().ok()?.state.folder;
    let folder = owner.and_then(|owner| owner.folder.clone()).or_else(remembered);
    folder.map(|folder| folder.display().to_string())
}

/// Whether a project is supervised; with user and host, if by another user.
fn supervised(project: &ProjectSummary, owner: Option<&Owner>) -> String {
    match owner {
        Some(owner) if !owner.is_of_this_user() => format!("{}@{}", owner.user, owner.host),
        _ => word(project.supervised).to_owned(),
    }
}

fn word(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

fn runs(project: &ProjectSummary) -> bool {
    ["running", "paused", "restarting"].iter().any(|state| project.containers.contains_key(*state))
}

/// Runs `sameport ls`.
pub async fn run(context: &Context, args: LsArgs) -> Result<(), CliError> {
    let docker = context.engine().await?;
    let boot = Boot::of_this_user().ok();
    let owners: BTreeMap<_, _> = engine_lock::owners(&docker).await?.into_iter().collect();
    let mut listed = Vec::new();
    for (name, checked) in projects::containers(context, &docker).await? {
        let is_wanted = args.filter.is_empty() || args.filter.iter().any(|filter| filter.matches(&name));
        if !is_wanted || checked.ours.is_empty() {
            continue;
        }
        let owner = owners.get(&name);
        // A supervisor of an earlier release holds no lock on the engine.
        let is_here = Client::connect(&context.paths()?.socket(&name)).await?.is_some();
        let containers = containers(&checked.ours);
        let project = ProjectSummary {
            name: name.to_string(),
            status: words(&containers),
            containers,
            folder: folder(context, &name, owner),
            supervised: is_here || owner.is_some(),
            supervisor: owner.map(|owner| SupervisorProcess {
                host: owner.host.clone(),
                pid: owner.pid,
                user_name: owner.user.clone(),
                since: Time(owner.since),
            }),
            enabled: boot.as_ref().is_some_and(|boot| boot.is_enabled(&name)),
        };
        listed.push((project, owner));
    }
    listed.retain(|(project, _)| args.all || runs(project));
    if args.quiet {
        return listed.iter().try_for_each(|(project, _)| output::line(&project.name));
    }
    if let Some(format) = context.data() {
        let projects: Vec<_> = listed.into_iter().map(|(project, _)| project).collect();
        return format.array(&projects);
    }
    let mut table = output::table::plain(&["NAME", "STATUS", "FOLDER", "SUPERVISED", "ENABLED"]);
    for (project, owner) in &listed {
        let folder = project.folder.as_deref().unwrap_or("-");
        let supervised = supervised(project, *owner);
        table.add_row([&project.name, &project.status, folder, &supervised, word(project.enabled)]);
    }
    output::line(&table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_part_of_the_name_its_beginning_or_its_end() {
        let name = "webshop".parse().unwrap();
        for (filter, matches) in [
            ("name=shop", true),
            ("name=bsh", true),
            ("name=^web", true),
            ("name=^shop", false),
            ("name=shop$", true),
            ("name=web$", false),
            ("name=^webshop$", true),
            ("name=^shop$", false),
            ("name=", true),
        ] {
            assert_eq!(filter.parse::<Filter>().unwrap().matches(&name), matches, "{filter}");
        }
        for wrong in ["shop", "label=shop"] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }
}
