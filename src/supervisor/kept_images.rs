//! Tags the images of known versions with a name of sameport's, so that the engine does not prune them, and removes the
//! names of others.

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

/// The delay after a failure.
const RETRY: Duration = Duration::from_secs(30);
/// How long `down` waits for the names to be removed.
const LAST: Duration = Duration::from_secs(10);

/// The state of the image names.
#[derive(Debug)]
pub struct KeptImages {
    /// The images that have a name; `None` if unknown.
    done: Option<BTreeSet<String>>,
    /// The time of the next attempt; `None` while one is in progress.
    next: Option<Instant>,
}

impl KeptImages {
    /// Starts without knowledge of what an earlier supervisor did.
    pub fn new() -> Self {
        Self { done: None, next: Some(Instant::now()) }
    }

    /// Returns the images to keep if their names have to be updated now; `wanted` are the images of all known versions.
    pub fn begin(&mut self, wanted: &BTreeSet<String>) -> Option<BTreeSet<String>> {
        let is_due = self.next.is_some_and(|next| next <= Instant::now());
        if !is_due || self.done.as_ref() == Some(wanted) {
            return None;
        }
        self.next = None;
        Some(wanted.clone())
    }

    /// Records the result of an update.
    pub fn ended(&mut self, wanted: BTreeSet<String>, result: Result<(), EngineError>) {
        let now = Instant::now();
        match result {
            Ok(()) => {
                self.done = Some(wanted);
                self.next = Some(now);
            }
            Err(error) => {
                tracing::debug!(%error, "cannot keep images of earlier versions");
                self.next = Some(now + RETRY);
            }
        }
    }
}

/// The IDs of the images of all known versions.
pub fn of(versions: &BTreeMap<ServiceName, Versions>) -> BTreeSet<String> {
    let revisions = versions.values().flat_map(|versions| &versions.revisions);
    revisions.filter_map(|revision| revision.service.container.image_id.clone()).collect()
}

/// Gives these images a name, and removes the names of all others. An image without another name that no container uses
/// is removed with its name.
///
/// # Errors
/// If the engine fails.
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
                // The image is gone, so there is nothing to keep.
                Ok(()) | Err(EngineError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    for name in there.iter().filter(|name| !wanted.contains_key(name)) {
        match engine.release_image(name).await {
            // The image is in use or gone already. A container does not need the name of its image.
            Ok(()) | Err(EngineError::Gone { .. } | EngineError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes all names after the project was removed.
pub async fn release_all<E: Engine>(engine: &E, project: &ProjectName) {
    let released = tokio::time::timeout(LAST, settle(engine, project, &BTreeSet::new())).await;
    match released {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "names of images of versions stay"),
        Err(_) => tracing::warn!("names of images of versions stay: no answer from the engine"),
    }
}
