//! Pulls images before anything is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
};

use clap::ValueEnum;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sameport::{
    engine::{Engine, EngineError, docker::Docker},
    spec::{Image, Project, PullPolicy, Service, ServiceName},
};

use super::{error::CliError, output};

/// When to pull images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// Always, even if the engine has the image
    Always,
    /// If the engine does not have the image
    Missing,
    /// Never; fail if the engine does not have the image
    Never,
}

/// The number of images that are pulled at once.
const AT_ONCE: usize = 4;

/// The images of a project as the engine has them.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The ids of the images.
    pub ids: BTreeMap<Image, String>,
    /// The images whose policy is `always`.
    pub renewed: BTreeSet<Image>,
}

struct Wanted {
    image: Image,
    platform: Option<String>,
    service: ServiceName,
    policy: PullPolicy,
}

/// Pulls the images of the services according to their policy; an empty list means all services.
///
/// # Errors
/// If an image cannot be pulled.
pub async fn pull(
    docker: &Docker,
    project: &Project,
    services: &[ServiceName],
    pull: Option<Pull>,
) -> Result<Found, CliError> {
    let mut wanted: BTreeMap<Image, Wanted> = BTreeMap::new();
    for service in project.services.values() {
        if !services.is_empty() && !services.contains(&service.name) {
            continue;
        }
        let policy = match pull {
            None => service.pull_policy,
            Some(Pull::Always) => PullPolicy::Always,
            Some(Pull::Missing) => PullPolicy::Missing,
            Some(Pull::Never) => PullPolicy::Never,
        };
        let of_job = service.pre_deploy.as_ref().and_then(|before| before.image.as_ref());
        let of_canary = service.canary.as_ref().map(|canary| &canary.image);
        for image in [&service.container.image].into_iter().chain(of_job).chain(of_canary) {
            // If services share an image, the one with the most eager policy decides.
            let eager = policy == PullPolicy::Always
                || wanted.get(image).is_none_or(|other| other.policy == PullPolicy::Never);
            if eager {
                let one = Wanted {
                    image: image.clone(),
                    platform: service.container.platform.clone(),
                    service: service.name.clone(),
                    policy,
                };
                wanted.insert(image.clone(), one);
            }
        }
    }
    let screen = std::io::stderr().is_terminal().then(MultiProgress::new);
    let screen = screen.as_ref();
    stream::iter(wanted.values().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |wanted| fetch(docker, wanted, screen))
        .await?;
    let mut found = Found::default();
    for (image, wanted) in wanted {
        if let Some(info) = docker.image(&image).await? {
            found.ids.insert(image.clone(), info.id);
        }
        if wanted.policy == PullPolicy::Always {
            found.renewed.insert(image);
        }
    }
    Ok(found)
}

/// Resolves the images of a project that the engine has. Pulls nothing.
///
/// # Errors
/// If the engine does not answer.
pub async fn look(docker: &Docker, project: &Project) -> Result<Found, EngineError> {
    let mut found = Found::default();
    let of_service = |service: &'_ Service| {
        let canary = service.canary.as_ref().map(|canary| canary.image.clone());
        std::iter::once(service.container.image.clone()).chain(canary)
    };
    let images: BTreeSet<Image> = project.services.values().flat_map(of_service).collect();
    for image in images {
        if let Some(info) = docker.image(&image).await? {
            found.ids.insert(image, info.id);
        }
    }
    Ok(found)
}

/// Pulls one image according to the policy. Returns its id.
///
/// # Errors
/// If the image cannot be pulled.
pub async fn one(
    docker: &Docker,
    service: &Service,
    image: &Image,
    pull: Option<Pull>,
) -> Result<Option<String>, CliError> {
    let policy = match pull {
        None => service.pull_policy,
        Some(Pull::Always) => PullPolicy::Always,
        Some(Pull::Missing) => PullPolicy::Missing,
        Some(Pull::Never) => PullPolicy::Never,
    };
    let wanted = Wanted {
        image: image.clone(),
        platform: service.container.platform.clone(),
        service: service.name.clone(),
        policy,
    };
    fetch(docker, &wanted, None).await?;
    Ok(docker.image(image).await?.map(|info| info.id))
}

async fn fetch(docker: &Docker, wanted: &Wanted, screen: Option<&MultiProgress>) -> Result<(), CliError> {
    let image = &wanted.image;
    let there = docker.image(image).await?.is_some();
    match wanted.policy {
        PullPolicy::Missing | PullPolicy::Never if there => return Ok(()),
        PullPolicy::Never => {
            return Err(CliError::failed(
                format!("service {} needs the image {image}, which is not there", wanted.service),
                Some(
                    "its `pull_policy` (or `--pull`) is `never`: build or load it first, or allow `missing`",
                ),
            ));
        }
        PullPolicy::Missing | PullPolicy::Always => {}
    }
    let bar = screen.map(|screen| screen.add(bar(image)));
    if bar.is_none() {
        output::note(&format!("pulling {image}"))?;
    }
    let pulled = layers(docker, wanted, bar.as_ref()).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    pulled.map_err(|error| CliError::Failed {
        // The text of a registry may end with an empty line.
        message: format!("cannot pull the image {image} of service {}: {error}", wanted.service)
            .trim_end()
            .to_owned(),
        help: error.help().map(str::to_owned),
    })?;
    output::note(&format!("pulled {image}"))
}

async fn layers(docker: &Docker, wanted: &Wanted, bar: Option<&ProgressBar>) -> Result<(), EngineError> {
    let mut progress = docker.pull(&wanted.image, wanted.platform.as_deref()).await?;
    let mut layers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    while let Some(step) = progress.next().await {
        let step = step?;
        if let (Some(layer), Some(bytes)) = (step.layer, step.bytes)
            && step.status.starts_with("Downloading")
        {
            layers.insert(layer, bytes);
        }
        if let Some(bar) = bar {
            let (done, all) = layers.values().fold((0, 0), |(a, b), (done, all)| (a + done, b + all));
            bar.set_length(all);
            bar.set_position(done);
        }
    }
    Ok(())
}

fn bar(image: &Image) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(image.to_string())
}
