//! Determines the image of a replica: the one that its version's reference resolved to when it was first used.

use futures_util::TryStreamExt;

use crate::{
    engine::{Engine, EngineError},
    spec::{Container, Image, PullPolicy, Service},
};

/// The reference by which the engine finds the image of a container: the tag while it still resolves to that image,
/// because people read it in lists of containers; otherwise the content ID.
///
/// # Errors
/// If the engine cannot be reached.
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
/// If the engine cannot be reached.
pub async fn is_missing<E: Engine>(engine: &E, image: &Image) -> Result<bool, EngineError> {
    Ok(engine.image(image).await?.is_none())
}

/// Pulls an image of a service, its own or that of its job, that went missing after the start. `up` pulls images in
/// advance, with a progress bar.
///
/// # Errors
/// If the pull fails, or the reference resolves to another image than before.
pub async fn fetch<E: Engine>(engine: &E, service: &Service, wanted: &Image) -> Result<(), EngineError> {
    let container = &service.container;
    // An image cannot be pulled by its content ID.
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
