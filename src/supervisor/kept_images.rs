//! Sees to it that the images of remembered versions have a name of ours, and that others lose it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    engine::{Engine, EngineError, kept_images},
    plan::versions::Versions,
    spec::{Image, ProjectName, ServiceName},
};

/// What failed is tried again after that long.
const RETRY: Duration = Duration::from_secs(30);
/// How long a project that goes down waits for it.
const LAST: Duration = Duration::from_secs(10);

/// What was seen to.
#[derive(Debug)]
pub struct KeptImages {
    /// Images that have a name.
    done: Option<BTreeSet<String>>,
    /// Not before then.
    next: Option<Instant>,
}

impl KeptImages {
    /// Nothing is known of a supervisor before.
    pub fn new() -> Self {
        Self { done: None, next: Some(Instant::now()) }
    }

    /// The images that are to be seen to now, if these are wanted and others were before.
    pub fn begin(&mut self, wanted: &BTreeSet<String>) -> Option<BTreeSet<String>> {
        let is_due = self.next.is_some_and(|next| next <= Instant::now());
        if !is_due || self.done.as_ref() == Some(wanted) {
            return None;
        }
        self.next = None;
        Some(wanted.clone())
    }

    /// They were seen to, or could not be.
    pub fn ended(&mut self, wanted: BTreeSet<String>, result: Result<(), EngineError>) {
        let now = Instant::now();
        match result {
            Ok(()) => {
                self.done = Some(wanted);
                self.next = Some(now);
            }
            Err(error) => {
                tracing::debug!(%error, "images of versions are not kept");
                self.next = Some(now + RETRY);
            }
        }
    }
}

/// The ids of the images of all versions that are remembered.
pub fn of(versions: &BTreeMap<ServiceName, Versions>) -> BTreeSet<String> {
    let revisions = versions.values().flat_map(|versions| &versions.revisions);
    revisions.filter_map(|revision| revision.service.container.image_id.clone()).collect()
}

/// Gives these images a name and takes the others' away. An image that has no other name and that no container uses goes with it.
///
/// # Errors
/// When the engine does not do it.
pub async fn settle<E: Engine>(
    engine: &E,
    project: &ProjectName,
    wanted: &BTreeSet<String>,
) -> Result<(), EngineError> {
    let there = engine.kept_images(project).await?;
    let wanted: BTreeMap<Image, &String> =
        wanted.iter().filter_map(|id| Some((kept_images::name(project, id)?, id))).collect();
    for (name, id) in &wanted {
        if !there.contains(name) {
            match engine.keep_image(id, name).await {
                // There is nothing left to be kept.
                Ok(()) | Err(EngineError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    for name in there.iter().filter(|name| !wanted.contains_key(name)) {
        match engine.release_image(name).await {
            // A container that still uses it needs no name for that; nor is it left to be looked for.
            Ok(()) | Err(EngineError::Gone { .. } | EngineError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes all names away, of a project that is gone.
pub async fn release_all<E: Engine>(engine: &E, project: &ProjectName) {
    let released = tokio::time::timeout(LAST, settle(engine, project, &BTreeSet::new())).await;
    match released {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "names of images of versions stay"),
        Err(_) => tracing::warn!("names of images of versions stay: no answer from the engine"),
    }
}
