//! What is ours: what we have made, whatever its labels say.
//!
//! Labels alone prove nothing. Those of an image become labels of its containers, `docker commit` copies a container's
//! labels into an image, and anybody can copy those of a network. So each container that we make has a nonce, which its
//! image cannot have; networks and volumes repeat their names, which nobody can change. What was made before there were
//! nonces is known by what no image carries: its name, and how it is connected.
//!
//! The rule is pure. [`OwnershipChecker`] asks the engine for what it needs, and is the only one who applies it to containers, [`resources`] to networks and volumes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::{PodName, ProjectName};

use super::{ContainerId, HostSettings, Labels, Nonce, Role};

mod checker;
mod expected;
mod resources;
#[cfg(test)]
mod tests;

pub use checker::{Checked, Owned, OwnershipChecker};
pub use expected::Expected;
pub use resources::{CheckedResources, resources};

/// Something that carries our labels, and that we have not made: it is named, and never touched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Foreign {
    /// What it is.
    pub kind: ForeignKind,
    /// Its name on the engine.
    pub name: String,
    /// The id of a container.
    pub container: Option<ContainerId>,
    /// The image of a container, as the engine names it.
    pub image: Option<String>,
    /// Why it is not ours.
    #[serde(flatten)]
    pub reason: ForeignReason,
    /// The same in words.
    pub message: String,
}

/// What a foreign thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForeignKind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// Why something with our labels is not ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum ForeignReason {
    /// Its image has them.
    #[error("its labels come from its image")]
    LabelsOfImage,
    /// Another container, network or volume has them, which we made.
    #[error("its labels are copied from another one")]
    CopiedLabels,
    /// Some are missing or cannot be read.
    #[error("its labels are incomplete")]
    IncompleteLabels,
    /// It has no nonce, and it is not called and connected as what we made before there were any.
    #[error("its name and network are not those of the project")]
    NameAndNetwork,
    /// It is a network or volume that is not named as one that we made.
    #[error("its name is not one of the project's")]
    Name,
    /// A release has made it that knows labels which we do not know.
    #[error("made by a newer release (layout {layout})")]
    NewerLayout {
        /// What its layout label says, if that is a word.
        layout: String,
    },
}

impl Foreign {
    /// A network or volume.
    #[must_use]
    pub fn resource(kind: ForeignKind, name: String, reason: ForeignReason) -> Self {
        Self { kind, name, container: None, image: None, message: reason.to_string(), reason }
    }

    /// What tells it from all others, also once it has another name.
    #[must_use]
    pub fn key(&self) -> (ForeignKind, String) {
        (self.kind, self.container.as_ref().map_or_else(|| self.name.clone(), |id| id.0.clone()))
    }
}

/// As people read it: `container shop-debug (0123456789ab, image shop:1)`.
impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ForeignKind::Container => "container",
            ForeignKind::Network => "network",
            ForeignKind::Volume => "volume",
        };
        write!(f, "{kind} {}", self.name)?;
        match (&self.container, &self.image) {
            (Some(id), Some(image)) => write!(f, " ({}, image {image})", id.short()),
            (Some(id), None) => write!(f, " ({})", id.short()),
            _ => Ok(()),
        }
    }
}

/// Labels of an image, of those that decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ImageLabels {
    project: Option<String>,
    layout: Option<String>,
    nonce: Option<String>,
    hooks: Option<String>,
}

impl ImageLabels {
    fn of(labels: &BTreeMap<String, String>) -> Self {
        let get = |key| labels.get(key).cloned();
        Self {
            project: get(Labels::PROJECT),
            layout: get(Labels::LAYOUT),
            nonce: get(Labels::NONCE),
            hooks: get(Labels::HOOKS),
        }
    }
}

/// What is known of a container that carries a project's label.
#[derive(Clone, Copy, Debug)]
struct Facts<'a> {
    id: &'a ContainerId,
    name: &'a str,
    created: Timestamp,
    labels: &'a BTreeMap<String, String>,
    /// None if the engine has its image no more.
    image: Option<&'a ImageLabels>,
    /// Known where the rest does not decide.
    host: Option<&'a HostSettings>,
    /// Whether it has joined a container that is gone: it can never be started again, and its sandbox cannot be asked.
    is_cut_off: bool,
}

/// What a container's labels say of it. None of it need be true.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Claim {
    /// We made it, with a nonce.
    Current(Labels, Nonce),
    /// A release made it that knew no nonces.
    Legacy(Labels),
    /// A newer release made it.
    Newer(String),
    /// Nothing that we would write.
    Incomplete,
}

impl Claim {
    fn of(labels: &BTreeMap<String, String>) -> Self {
        let known = Labels::from_map(labels);
        match (labels.get(Labels::LAYOUT).map(String::as_str), labels.get(Labels::NONCE), known) {
            (Some(Labels::CURRENT_LAYOUT), Some(nonce), Some(known)) => match Nonce::parse(nonce) {
                Some(nonce) => Self::Current(known, nonce),
                None => Self::Incomplete,
            },
            (Some(Labels::CURRENT_LAYOUT), ..) => Self::Incomplete,
            (Some(layout), ..) => Self::Newer(layout.to_owned()),
            (None, None, Some(known)) => Self::Legacy(known),
            (None, ..) => Self::Incomplete,
        }
    }

    /// Whether its image has to be known.
    fn depends_on_image(&self) -> bool {
        *self != Self::Incomplete
    }

    /// Whether its settings have to be known.
    fn depends_on_host(&self, image: Option<&ImageLabels>, is_heir: bool) -> bool {
        match self {
            Self::Legacy(_) => true,
            Self::Current(..) => image.is_none() || is_heir,
            Self::Newer(_) | Self::Incomplete => false,
        }
    }
}

/// Whether a container is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// We made it.
    Ours {
        labels: Labels,
        /// Whether its label of hooks is of us, too.
        hooks: bool,
        /// Whether another program has made it anew, in the place of one that we made and with all of its labels.
        recreated: bool,
    },
    /// We did not.
    Foreign(ForeignReason),
}

/// What was found out before, and may not be there to be seen any more.
#[derive(Clone, Debug, Default)]
struct Remembered {
    /// Sandboxes that were ours.
    sandboxes: BTreeSet<ContainerId>,
    /// For which container each nonce was made.
    nonces: BTreeMap<Nonce, ContainerId>,
    /// Containers that another program has made in the place of ours.
    recreated: BTreeSet<ContainerId>,
}

/// Tells of each container whether it is ours.
fn judge(
    project: &ProjectName,
    all: &[Facts<'_>],
    expected: &Expected,
    remembered: &Remembered,
) -> Vec<Verdict> {
    let claims: Vec<_> = all.iter().map(|facts| Claim::of(facts.labels)).collect();
    let copies = copies(all, &claims, &remembered.nonces);
    let judge_one = |facts: &Facts<'_>, claim: &Claim, sandboxes: &Sandboxes| {
        if !copies.contains(facts.id) {
            return judge_one(project, facts, claim, expected, sandboxes);
        }
        match claim {
            Claim::Current(labels, nonce)
                if is_gone(all, remembered, nonce) && takes_place(facts, labels, expected, sandboxes) =>
            {
                Verdict::Ours { labels: labels.clone(), hooks: false, recreated: true }
            }
            _ => Verdict::Foreign(ForeignReason::CopiedLabels),
        }
    };
    // Sandboxes first: what joins one is known by it.
    let mut ours = Sandboxes { ids: remembered.sandboxes.clone(), ..Sandboxes::default() };
    for (facts, claim) in all.iter().zip(&claims) {
        if let Verdict::Ours { labels: Labels { role: Role::Sandbox, pod, .. }, .. } =
            judge_one(facts, claim, &Sandboxes::default())
        {
            ours.ids.insert(facts.id.clone());
            ours.pods.insert(pod);
        }
    }
    let verdicts = all.iter().zip(&claims).map(|(facts, claim)| (facts, judge_one(facts, claim, &ours)));
    let as_remembered = |(facts, verdict): (&Facts<'_>, Verdict)| match verdict {
        Verdict::Ours { labels, .. } if remembered.recreated.contains(facts.id) => {
            Verdict::Ours { labels, hooks: false, recreated: true }
        }
        verdict => verdict,
    };
    verdicts.map(as_remembered).collect()
}

/// Whether the container for which a nonce was made is there no more.
fn is_gone(all: &[Facts<'_>], remembered: &Remembered, nonce: &Nonce) -> bool {
    let original = remembered.nonces.get(nonce);
    original.is_some_and(|original| all.iter().all(|other| other.id != original))
}

/// Whether a container with the labels of another one has its name and its network, which labels cannot bring about.
/// Whoever made it wanted the same replica, of another image.
fn takes_place(facts: &Facts<'_>, labels: &Labels, expected: &Expected, sandboxes: &Sandboxes) -> bool {
    matches!(labels.role, Role::Replica { .. }) && is_ours_by_name(labels, facts, expected, sandboxes)
}

/// Sandboxes that are ours, and the pods that have one.
#[derive(Debug, Default)]
struct Sandboxes {
    ids: BTreeSet<ContainerId>,
    pods: BTreeSet<PodName>,
}

/// Containers that have the nonce of another one: of that for which it was made, as far as is known, else of an older one.
fn copies(
    all: &[Facts<'_>],
    claims: &[Claim],
    known: &BTreeMap<Nonce, ContainerId>,
) -> BTreeSet<ContainerId> {
    let mut with_nonce: Vec<_> = all
        .iter()
        .zip(claims)
        .filter_map(|(facts, claim)| match claim {
            Claim::Current(_, nonce) if !is_of_image(nonce, facts.image) => Some((facts, nonce)),
            _ => None,
        })
        .collect();
    with_nonce.sort_by_key(|(facts, _)| (facts.created, facts.id));
    let mut owners: BTreeMap<_, _> = known.iter().collect();
    let mut copies = BTreeSet::new();
    for (facts, nonce) in with_nonce {
        if *owners.entry(nonce).or_insert(facts.id) != facts.id {
            copies.insert(facts.id.clone());
        }
    }
    copies
}

fn is_of_image(nonce: &Nonce, image: Option<&ImageLabels>) -> bool {
    image.and_then(|image| image.nonce.as_ref()).is_some_and(|label| *label == nonce.to_string())
}

fn judge_one(
    project: &ProjectName,
    facts: &Facts<'_>,
    claim: &Claim,
    expected: &Expected,
    sandboxes: &Sandboxes,
) -> Verdict {
    let foreign = Verdict::Foreign;
    match claim {
        Claim::Current(labels, _) | Claim::Legacy(labels) if labels.project != *project => {
            foreign(ForeignReason::IncompleteLabels)
        }
        Claim::Current(_, nonce) if is_of_image(nonce, facts.image) => foreign(ForeignReason::LabelsOfImage),
        Claim::Current(labels, _) => {
            match facts.image.is_some() || is_ours_by_name(labels, facts, expected, sandboxes) {
                true => Verdict::Ours { labels: labels.clone(), hooks: true, recreated: false },
                false => foreign(ForeignReason::NameAndNetwork),
            }
        }
        Claim::Legacy(labels) if is_ours_by_name(labels, facts, expected, sandboxes) => {
            // A release that knew no nonces wrote hooks only where there were some: others may be those of the image.
            let hooks =
                facts.image.is_some_and(|image| image.hooks.as_ref() != facts.labels.get(Labels::HOOKS));
            Verdict::Ours { labels: labels.clone(), hooks, recreated: false }
        }
        Claim::Legacy(_)
            if facts.image.is_some_and(|image| image.project.as_deref() == Some(project.as_str())) =>
        {
            foreign(ForeignReason::LabelsOfImage)
        }
        Claim::Legacy(_) => foreign(ForeignReason::NameAndNetwork),
        Claim::Newer(layout) => foreign(newer(layout, facts)),
        Claim::Incomplete => foreign(ForeignReason::IncompleteLabels),
    }
}

/// Why a container with a layout that we do not know is not ours.
fn newer(layout: &str, facts: &Facts<'_>) -> ForeignReason {
    let of_image = facts.image.is_some_and(|image| match facts.labels.get(Labels::NONCE) {
        Some(nonce) => image.nonce.as_ref() == Some(nonce),
        None => image.layout.as_deref() == Some(layout),
    });
    if of_image { ForeignReason::LabelsOfImage } else { newer_layout(layout) }
}

/// A layout label can hold anything, also what commands a terminal.
fn newer_layout(label: &str) -> ForeignReason {
    let is_word = (1..=16).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric());
    ForeignReason::NewerLayout { layout: if is_word { label } else { "unknown" }.to_owned() }
}

/// Whether a container is called and connected as its labels say, which no image can bring about. The names are those
/// that releases without nonces gave.
fn is_ours_by_name(labels: &Labels, facts: &Facts<'_>, expected: &Expected, sandboxes: &Sandboxes) -> bool {
    let Some(host) = facts.host else { return false };
    let Labels { project, pod, role, .. } = labels;
    let joins = || match host.joined() {
        Some(id) => sandboxes.ids.contains(&id) || facts.is_cut_off,
        None => {
            host.network_mode == "host" && expected.is_on_host(pod).unwrap_or(!sandboxes.pods.contains(pod))
        }
    };
    match role {
        Role::Sandbox => facts.name == format!("{project}-{pod}-sandbox") && host.is_of_sandbox(),
        Role::PreDeploy { service } => facts.name == format!("{project}-{service}-before") && joins(),
        Role::Replica { service, slot } => {
            let usual = format!("{project}-{service}-{slot}");
            let mut names = std::iter::once(usual.as_str()).chain(expected.container_names(service, *slot));
            let name = facts.name.strip_suffix("-next").unwrap_or(facts.name);
            let name = facts.id.without_set_aside(name).unwrap_or(name);
            names.any(|expected| expected == name || expected == facts.name) && joins()
        }
    }
}

/// Why a network or volume that carries a project's label is not ours; none, if it is.
fn judge_resource(
    project: &ProjectName,
    kind: ForeignKind,
    name: &str,
    labels: &BTreeMap<String, String>,
    expected: &Expected,
) -> Option<ForeignReason> {
    match (labels.get(Labels::LAYOUT).map(String::as_str), labels.get(Labels::NAME)) {
        (Some(Labels::CURRENT_LAYOUT), Some(label)) if label == name => None,
        (Some(Labels::CURRENT_LAYOUT), Some(_)) => Some(ForeignReason::CopiedLabels),
        (Some(layout), _) if layout != Labels::CURRENT_LAYOUT => Some(newer_layout(layout)),
        (None, None) => {
            let is_declared = match kind {
                ForeignKind::Network => expected.has_network(name),
                ForeignKind::Volume => expected.has_volume(name),
                ForeignKind::Container => false,
            };
            let is_ours = is_declared || name.starts_with(&format!("{project}_"));
            (!is_ours).then_some(ForeignReason::Name)
        }
        _ => Some(ForeignReason::IncompleteLabels),
    }
}
