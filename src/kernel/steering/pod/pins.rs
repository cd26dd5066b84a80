//! A pod's pins: what somebody has removed is had back, while we live and after.

use std::{os::unix::fs::symlink, path::Path};

use aya::maps::MapInfo;

use super::{Pod, PodKernel, kernel::name_of};
use crate::kernel::{
    KernelError, folders, kept::Kept, programs::Programs, steering::project::InKernel, whole,
};

/// The map of what was counted.
const COUNTS: &str = "sp_counts";
/// Maps that whoever begins fills again, or that hold for a moment only: replicas' own addresses, notices, and to whom flows of
/// datagrams went.
const OF_THE_MOMENT: [&str; 3] = ["sp_events", "sp_flows", "sp_replica_addr"];

/// What there is of a pod's maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// How many endpoints there is room for, if that is settled.
    pub endpoints: Option<u32>,
    /// Whether nothing but what was counted is there: it is not known at which endpoints.
    pub only_counts: bool,
}

/// Sees to it that a pod's maps are pinned, as far as there is anything of them: some were removed while nobody steered it.
/// Where one is lost they are made anew, as for a new pod, but for what was counted: programs count on there. Those that are
/// attached go on until others take their place.
///
/// # Errors
/// When one cannot be pinned.
pub(super) fn make_whole(kernel: &InKernel, folder: &Path, netns: u64) -> Result<Found, KernelError> {
    let names: Vec<&str> = Programs::pod_map_names().collect();
    let path = folder.join(COUNTS);
    if whole::missing(folder, &[COUNTS]).len() == 1
        && let Some(counts) = kernel.host.maps.counts_of(netns)
    {
        counts.pin(&path).map_err(KernelError::bpf(format!("pin {}", path.display())))?;
    }
    let (mut lost, mut only_counts) = (whole::missing(folder, &names), false);
    if !lost.is_empty() && lost.len() < names.len() {
        lost = whole::complete(folder, &names, &whole::links(folder))?;
        lost.retain(|name| !OF_THE_MOMENT.contains(name));
        if !lost.is_empty() {
            tracing::warn!(?lost, "BPF maps of a pod are lost; creating them again");
            let rest: Vec<_> = names.into_iter().filter(|name| *name != COUNTS).collect();
            whole::drop_maps(folder, &rest)?;
            only_counts = true;
        }
    }
    if whole::missing(folder, &[COUNTS]).len() == 1 {
        return Ok(Found::default());
    }
    let counts = MapInfo::from_pin(&path).map_err(KernelError::bpf("use the BPF map sp_counts"))?;
    Ok(Found { endpoints: Some(counts.max_entries()), only_counts })
}

/// Keeps a pod's maps.
///
/// # Errors
/// When one is not pinned.
pub(super) fn keep(kernel: &InKernel, folder: &Path) -> Result<Kept, KernelError> {
    Kept::open(kernel.pins.root(), folder, Programs::pod_map_names().map(str::to_owned))
}

impl PodKernel {
    /// Links that name services, and are not there.
    fn lost_names(&self) -> Vec<(String, &str)> {
        let names = self.services.iter().map(|(service, number)| (name_of(*number), service.as_str()));
        names.filter(|(name, _)| self.folder.join(name).symlink_metadata().is_err()).collect()
    }
}

impl Pod {
    /// Pins again what somebody has removed, and attaches what is detached. Returns what was lost.
    ///
    /// # Errors
    /// When it cannot be had back; as long as the project's folder is not there, since it is gone.
    pub fn mend(&mut self) -> Result<Vec<String>, KernelError> {
        self.attach_to_groups()?;
        let kernel = &mut self.kernel;
        let names = kernel.lost_names();
        let mut lost: Vec<String> = kernel.kept.lost()?.into_iter().map(str::to_owned).collect();
        lost.extend(names.iter().map(|(name, _)| name.clone()));
        if lost.is_empty() {
            return Ok(lost);
        }
        let folder = kernel.folder.clone();
        let project = folder.parent().unwrap_or(&folder);
        if !folders::is_ours(project)? {
            return Err(KernelError::Gone { what: project.display().to_string() });
        }
        let names: Vec<_> =
            names.into_iter().map(|(name, service)| (folder.join(name), service.to_owned())).collect();
        let detached = kernel.kept.mend()?;
        for (path, service) in names {
            symlink(service, &path).map_err(KernelError::io(format!("make {}", path.display())))?;
        }
        if !detached.is_empty() {
            kernel.attach(&self.netns)?;
        }
        Ok(lost)
    }

    /// Which program is attached to a group of listeners the kernel does not tell, so ours is attached again, by our own
    /// listener in it.
    fn attach_to_groups(&mut self) -> Result<(), KernelError> {
        // Those of a release of another layout may still choose there.
        if self.previous_layout.is_some() {
            return Ok(());
        }
        let groups = self.ports.values().flat_map(|port| port.groups.iter().flatten());
        for hold in groups.filter_map(|group| group.hold.as_ref()) {
            self.kernel.attach_to_group(hold.socket())?;
        }
        Ok(())
    }
}
