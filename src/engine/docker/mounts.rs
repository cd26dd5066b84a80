//! File systems of a container, in the daemon's three ways of asking for them.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, Mount as BollardMount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, MountVolumeOptions,
};

use crate::spec::{Container, Mount, MountSource};

/// Adds the mounts of a container to what is asked for.
pub(super) fn mount(own: &Container, body: &mut ContainerCreateBody, host: &mut HostConfig) {
    let (mut binds, mut mounts, mut tmpfs, mut anonymous) =
        (Vec::new(), Vec::new(), HashMap::new(), Vec::new());
    for mount in &own.mounts {
        match &mount.source {
            // Only this form makes a missing folder, and only it relabels.
            MountSource::Bind { path, create, propagation, selinux } if *create || selinux.is_some() => {
                let mut options = vec![if mount.read_only { "ro" } else { "rw" }.to_owned()];
                options.extend(propagation.clone());
                options.extend(selinux.clone());
                binds.push(format!("{path}:{}:{}", mount.target, options.join(",")));
            }
            MountSource::Bind { path, propagation, .. } => mounts.push(BollardMount {
                bind_options: propagation.as_deref().and_then(propagated).map(|propagation| {
                    MountBindOptions { propagation: Some(propagation), ..MountBindOptions::default() }
                }),
                ..asked(mount, MountType::BIND, Some(path))
            }),
            MountSource::Volume { name, no_copy, subpath } => mounts.push(BollardMount {
                volume_options: (*no_copy || subpath.is_some()).then(|| MountVolumeOptions {
                    no_copy: Some(*no_copy),
                    subpath: subpath.clone(),
                    ..MountVolumeOptions::default()
                }),
                ..asked(mount, MountType::VOLUME, Some(name))
            }),
            MountSource::Anonymous if mount.read_only => mounts.push(asked(mount, MountType::VOLUME, None)),
            MountSource::Anonymous => anonymous.push(mount.target.clone()),
            MountSource::Tmpfs { size, mode, options } => {
                let mut options = options.clone();
                options.extend(size.map(|bytes| format!("size={bytes}")));
                options.extend(mode.map(|mode| format!("mode={mode:o}")));
                options.extend(mount.read_only.then(|| "ro".to_owned()));
                tmpfs.insert(mount.target.clone(), options.join(","));
            }
        }
    }
    host.binds = (!binds.is_empty()).then_some(binds);
    host.mounts = (!mounts.is_empty()).then_some(mounts);
    host.tmpfs = (!tmpfs.is_empty()).then_some(tmpfs);
    body.volumes = (!anonymous.is_empty()).then_some(anonymous);
}

fn asked(mount: &Mount, kind: MountType, source: Option<&String>) -> BollardMount {
    BollardMount {
        target: Some(mount.target.clone()),
        source: source.cloned(),
        typ: Some(kind),
        read_only: Some(mount.read_only),
        ..BollardMount::default()
    }
}

fn propagated(word: &str) -> Option<MountBindOptionsPropagationEnum> {
    use MountBindOptionsPropagationEnum as P;
    Some(match word {
        "private" => P::PRIVATE,
        "rprivate" => P::RPRIVATE,
        "shared" => P::SHARED,
        "rshared" => P::RSHARED,
        "slave" => P::SLAVE,
        "rslave" => P::RSLAVE,
        _ => return None,
    })
}
