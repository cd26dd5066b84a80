//! Which image a replica is made of: the one that its version meant when it was first used.

use futures_util::TryStreamExt;

use crate::{
    engine::{Engine, EngineError},
    spec::{Container, Image, PullPolicy, Service},
};

/// By which reference the engine finds the image of a container. That is the tag as long as it means what it did, so
/// that a person who lists containers reads it; else the content's id.
///
/// # Errors
/// When the engine does not answer.
pub async fn to_use<E: Engine>(engine: &E, container: &Container) -> Result<Image, EngineError> {
    let Some(id) = &container.image_id else { return Ok(container.image.clone()) };
    match engine.image(&container.image).await? {
        Some(found) if found.id != *id => Ok(Image(id.clone())),
        _ => Ok(container.image.clone()),
    }
}

/// Whether the engine does not have an image.
///
/// # Errors
/// When the engine does not answer.
pub async fn is_missing<E: Engine>(engine: &E, image: &Image) -> Result<bool, EngineError> {
    Ok(engine.image(image).await?.is_none())
}

/// Fetches an image of a service, its own or its job's, that went missing after the start; `up` fetches in advance, with a progress bar.
///
/// # Errors
/// When it cannot be had, or is not what it was.
pub async fn fetch<E: Engine>(engine: &E, service: &Service, wanted: &Image) -> Result<(), EngineError> {
    let container = &service.container;
    // By its content's id nothing can be fetched.
    let is_own = container.image_id.as_ref() == Some(&wanted.0) || *wanted == container.image;
    let image = if is_own { &container.image } else { wanted };
    if service.pull_policy == PullPolicy::Never {
        return Err(EngineError::Gone { what: format!("image {image} (and `pull_policy: never`)") });
    }
    let progress = engine.pull(image, container.platform.as_deref()).await?;
    progress.try_for_each(|_| std::future::ready(Ok(()))).await?;
    match (&container.image_id, engine.image(image).await?) {
        (Some(id), Some(found)) if is_own && found.id != *id => Err(EngineError::Refused {
            message: format!(
                "image {image} means something else by now ({}) than the version that is wanted ({id}), which the engine \
                 does not have any more; `sameport up --pull always` takes the new one",
                found.id
            ),
        }),
        _ => Ok(()),
    }
}
