//! Asks the engine for what the rule needs, and applies it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::spec::{Hooks, Image, ProjectName};

use super::{
    Claim, ContainerId, Expected, Facts, Foreign, ForeignKind, ForeignReason, HostSettings, ImageLabels,
    Labels, Nonce, Remembered, Verdict, judge,
};
use crate::engine::{Engine, EngineError, Role, Summary};

/// How many images' labels are remembered, besides those of new containers.
const IMAGES: usize = 256;
/// How many containers are inspected at the same time.
const AT_ONCE: usize = 8;

/// Tells which of the engine's containers are ours. What cannot change is asked for once: a container's settings and
/// the labels of an image, whose id is made of its content.
#[derive(Clone, Debug, Default)]
pub struct OwnershipChecker {
    /// By the image's id.
    images: BTreeMap<String, ImageLabels>,
    known: BTreeMap<ContainerId, Known>,
    /// What has joined a sandbox of ours is known by it, and a copy of labels by the original, also when that is gone.
    remembered: Remembered,
}

/// What is remembered of a container.
#[derive(Clone, Debug, Default)]
struct Known {
    /// None if the engine had its image no more.
    image: Option<ImageLabels>,
    /// None if they do not matter.
    host: Option<HostSettings>,
    /// Whether it had joined a container that was gone when it was first seen.
    is_cut_off: bool,
}

/// The containers that carry a project's label.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// Those that we made.
    pub ours: Vec<Owned>,
    /// The others.
    pub foreign: Vec<Foreign>,
}

/// A container that we made.
#[derive(Clone, Debug)]
pub struct Owned {
    /// Its row in the engine's list.
    pub row: Summary,
    /// What it is.
    pub labels: Labels,
    /// Whether its label of hooks is of us.
    has_hooks: bool,
    /// Whether another program has made it anew, in the place of one that we made.
    pub recreated: bool,
}

impl Owned {
    /// What is run in it around its life.
    #[must_use]
    pub fn hooks(&self) -> Hooks {
        let label = self.row.labels.get(Labels::HOOKS).filter(|_| self.has_hooks);
        label.map(|label| Labels::hooks(label)).unwrap_or_default()
    }
}

impl Checked {
    /// What a newer release has made, and its layout.
    #[must_use]
    pub fn newer(&self) -> Option<(&Foreign, &str)> {
        self.foreign.iter().find_map(|foreign| match &foreign.reason {
            ForeignReason::NewerLayout { layout } => Some((foreign, layout.as_str())),
            _ => None,
        })
    }
}

impl OwnershipChecker {
    /// Lists the containers that carry a project's label, and tells which of them are ours.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list<E: Engine>(
        &mut self,
        engine: &E,
        project: &ProjectName,
        expected: &Expected,
    ) -> Result<Checked, EngineError> {
        let rows = engine.list(project).await?;
        self.check(engine, project, rows, expected).await
    }

    /// Tells which of the containers in a list are ours; all of them carry the project's label.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn check<E: Engine>(
        &mut self,
        engine: &E,
        project: &ProjectName,
        mut rows: Vec<Summary>,
        expected: &Expected,
    ) -> Result<Checked, EngineError> {
        self.learn(engine, &rows).await?;
        // Whoever is not known by now is gone.
        rows.retain(|row| self.known.contains_key(&row.id));
        let facts: Vec<_> = rows.iter().filter_map(|row| self.facts(row)).collect();
        let verdicts = judge(project, &facts, expected, &self.remembered);
        let there = rows.iter().filter_map(nonce).collect();
        let mut checked = Checked::default();
        for (row, verdict) in rows.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Ours { labels, hooks, recreated } => {
                    checked.ours.push(Owned { row, labels, has_hooks: hooks, recreated });
                }
                Verdict::Foreign(reason) => checked.foreign.push(Foreign {
                    kind: ForeignKind::Container,
                    name: row.name,
                    container: Some(row.id),
                    image: Some(row.image),
                    message: reason.to_string(),
                    reason,
                }),
            }
        }
        self.remember(&checked, &there);
        Ok(checked)
    }

    fn facts<'a>(&'a self, row: &'a Summary) -> Option<Facts<'a>> {
        let Known { image, host, is_cut_off } = self.known.get(&row.id)?;
        Some(Facts {
            id: &row.id,
            name: &row.name,
            created: row.created,
            labels: &row.labels,
            image: image.as_ref(),
            host: host.as_ref(),
            is_cut_off: *is_cut_off,
        })
    }

    /// Finds out about containers that were not there before, and forgets those that are gone.
    async fn learn<E: Engine>(&mut self, engine: &E, rows: &[Summary]) -> Result<(), EngineError> {
        let listed: BTreeSet<_> = rows.iter().map(|row| row.id.clone()).collect();
        self.known.retain(|id, _| listed.contains(id));
        // Whoever has the nonce of one that is gone may have its place.
        let is_heir = |row: &Summary| {
            let original = nonce(row).and_then(|nonce| self.remembered.nonces.get(&nonce));
            original.is_some_and(|original| *original != row.id && !listed.contains(original))
        };
        let heirs: BTreeSet<_> = rows.iter().filter(|row| is_heir(row)).map(|row| row.id.clone()).collect();
        let is_known = |row: &&Summary| {
            let known = self.known.get(&row.id);
            known.is_some_and(|known| known.host.is_some() || !heirs.contains(&row.id))
        };
        let new: Vec<_> = rows.iter().filter(|row| !is_known(row)).collect();
        self.learn_images(engine, &new).await?;
        let mut asked = Vec::new();
        for row in new {
            let image = self.images.get(&row.image_id).cloned();
            let is_heir = heirs.contains(&row.id);
            match Claim::of(&row.labels).depends_on_host(image.as_ref(), is_heir) {
                true => asked.push((row.id.clone(), image)),
                false => drop(self.known.insert(row.id.clone(), Known { image, ..Known::default() })),
            }
        }
        let listed = &listed;
        let hosts = stream::iter(asked.into_iter().map(|(id, image)| async move {
            let Some(host) = settings(engine, &id).await? else { return Ok(None) };
            let is_cut_off = match host.joined() {
                Some(joined) if !listed.contains(&joined) => settings(engine, &joined).await?.is_none(),
                _ => false,
            };
            Ok(Some((id, Known { image, host: Some(host), is_cut_off })))
        }));
        let known: Vec<_> = hosts.buffered(AT_ONCE).try_collect().await?;
        self.known.extend(known.into_iter().flatten());
        Ok(())
    }

    /// Finds out about images whose labels decide.
    async fn learn_images<E: Engine>(&mut self, engine: &E, rows: &[&Summary]) -> Result<(), EngineError> {
        let decides = rows.iter().filter(|row| Claim::of(&row.labels).depends_on_image());
        let wanted = decides.map(|row| row.image_id.clone()).filter(|id| !id.is_empty());
        let wanted: BTreeSet<_> = wanted.collect();
        if self.images.len() > IMAGES {
            self.images.retain(|id, _| wanted.contains(id));
        }
        let unknown: Vec<_> = wanted.into_iter().filter(|id| !self.images.contains_key(id)).collect();
        let found = stream::iter(unknown.into_iter().map(|id| async move {
            let found = engine.image(&Image(id.clone())).await?;
            Ok::<_, EngineError>((id, found.map(|image| ImageLabels::of(&image.labels))))
        }));
        let found: Vec<_> = found.buffered(AT_ONCE).try_collect().await?;
        // One that is gone is no answer for ever.
        self.images.extend(found.into_iter().filter_map(|(id, labels)| Some((id, labels?))));
        Ok(())
    }

    /// Remembers what later looks may need, and only that.
    fn remember(&mut self, checked: &Checked, there: &BTreeSet<Nonce>) {
        let Remembered { sandboxes, nonces, recreated } = &mut self.remembered;
        *recreated = checked.ours.iter().filter(|o| o.recreated).map(|o| o.row.id.clone()).collect();
        let joined: BTreeSet<_> =
            self.known.values().filter_map(|known| known.host.as_ref()?.joined()).collect();
        sandboxes.retain(|id| joined.contains(id));
        let ours = checked.ours.iter().filter(|owned| owned.labels.role == Role::Sandbox);
        sandboxes.extend(ours.map(|owned| owned.row.id.clone()));
        nonces.retain(|nonce, _| there.contains(nonce));
        nonces
            .extend(checked.ours.iter().filter_map(|owned| Some((nonce(&owned.row)?, owned.row.id.clone()))));
    }
}

fn nonce(row: &Summary) -> Option<Nonce> {
    Nonce::parse(row.labels.get(Labels::NONCE)?)
}

/// A container's settings; none, if it is gone.
async fn settings<E: Engine>(engine: &E, id: &ContainerId) -> Result<Option<HostSettings>, EngineError> {
    match engine.inspect(id).await {
        Ok(inspection) => Ok(Some(inspection.host)),
        Err(EngineError::Gone { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
