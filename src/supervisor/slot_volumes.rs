//! Anonymous volumes, of the file or of the image's `VOLUME`, which stay with the slot.
//!
//! The engine would create new ones for each container, so the data of a server would be lost with the first
//! replacement. Therefore they get a name that is derived from the slot, and a label by which `down -v` finds them.

use std::collections::BTreeSet;

use crate::{
    engine::{Engine, EngineError},
    spec::{Container, Mount, MountSource, Project, Service, Slot, Volume},
};

/// Replaces the anonymous volumes of a replica's container by those of its slot, and creates them if necessary. The
/// image must exist.
///
/// # Errors
/// If the engine cannot create a volume.
pub(super) async fn named<E: Engine>(
    engine: &E,
    project: &Project,
    (service, slot): (&Service, Slot),
    mut own: Container,
) -> Result<Container, EngineError> {
    let of_image = engine.image(&own.image).await?.map(|image| image.volumes).unwrap_or_default();
    own.mounts.extend(missing(&own, &of_image));
    for mount in &mut own.mounts {
        if mount.source != MountSource::Anonymous {
            continue;
        }
        let name = project.slot_volume(service, slot, &mount.target);
        let labels = [
            ("dev.sameport.service", service.name.to_string()),
            ("dev.sameport.slot", slot.to_string()),
            ("dev.sameport.target", mount.target.clone()),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value)).into();
        engine.create_volume(&project.name, &Volume { labels, ..Volume::new(name.clone()) }).await?;
        mount.source = MountSource::Volume { name, no_copy: false, subpath: None };
    }
    Ok(own)
}

/// The mounts for volumes of the image for whose paths the file has no mount.
fn missing(own: &Container, of_image: &BTreeSet<String>) -> Vec<Mount> {
    let is_taken = |path: &str| own.mounts.iter().any(|mount| same(&mount.target, path));
    let mount =
        |path: &String| Mount { target: path.clone(), source: MountSource::Anonymous, read_only: false };
    of_image.iter().filter(|path| !is_taken(path)).map(mount).collect()
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}
