//! The layout of what is pinned: by its version a release knows whether it can take the pins over.
//!
//! A symbolic link named `layout` in a project's folder says the version: bpffs takes nothing else that holds text.
//! Whoever changes a map's name, kind, size or meaning makes a new layout, and says how the one before is taken over.
//! Releases before versions have left no link, which is layout 0: it has the maps of layout 1.
//!
//! Layouts 0 and 1 had all maps in the folder of their project; [`super::previous_layout`] takes them over. Layout 2 has a folder
//! for each pod in it, and one for what all projects of a host share.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use aya::maps::{MapInfo, MapType};

use super::{
    KernelError,
    raw::{
        BindKey, Counts, Endpoint, Listener, Member, PodPortKey, PortEntry, PortKey, ReplicaAddrKey,
        ReplicaKey, ServedKey, Table, Tag,
    },
};

/// The layout that this release makes.
pub const LAYOUT: u32 = 2;

/// The name of the mark in a project's folder.
pub const MARK: &str = "layout";

/// Flags of maps, of `linux/bpf.h`.
const NO_PREALLOC: u32 = 1;
/// As above.
const CLONE: u32 = 1 << 9;

/// A map, as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    kind: MapType,
    /// In bytes.
    key: u32,
    /// In bytes.
    value: u32,
    /// Of some maps it is decided when a pod is entered.
    entries: Option<u32>,
    flags: u32,
}

const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

const fn shape_of<K, V>(kind: MapType, entries: Option<u32>, flags: u32) -> Shape {
    Shape { kind, key: size::<K>(), value: size::<V>(), entries, flags }
}

const fn hash<K, V>(entries: u32) -> Shape {
    shape_of::<K, V>(MapType::Hash, Some(entries), NO_PREALLOC)
}

const fn lru<K, V>(entries: u32) -> Shape {
    shape_of::<K, V>(MapType::LruHash, Some(entries), 0)
}

const fn of_pod<K, V>(kind: MapType) -> Shape {
    shape_of::<K, V>(kind, None, 0)
}

const fn storage<V>(flags: u32) -> Shape {
    shape_of::<u32, V>(MapType::SkStorage, Some(0), NO_PREALLOC | flags)
}

const fn events(entries: u32) -> Shape {
    Shape { kind: MapType::RingBuf, key: 0, value: 0, entries: Some(entries), flags: 0 }
}

/// The maps of this layout, of which `bpf/sameport.h` and `bpf/pod.h` tell what each is for.
const MAPS: [(&str, Shape); 31] = [
    ("sp_pods", shape_of::<u64, u32>(MapType::Hash, Some(4096), 0)),
    ("sp_cgroups", hash::<u64, Member>(16_384)),
    ("sp_subgroups", lru::<u64, u64>(16_384)),
    ("sp_supervisors", lru::<u64, u32>(1024)),
    ("sp_replicas", hash::<ReplicaKey, u64>(16_384)),
    ("sp_origins", lru::<[u64; 6], u64>(131_072)),
    ("sp_local", hash::<ServedKey, u32>(32_768)),
    ("sp_binds", hash::<BindKey, [u32; 4]>(131_072)),
    ("sp_slots", hash::<BindKey, u64>(65_536)),
    ("sp_served", lru::<ServedKey, u64>(32_768)),
    ("sp_exclusive", hash::<PortKey, u64>(65_536)),
    ("sp_users", hash::<PortKey, u32>(65_536)),
    ("sp_moved", hash::<u64, u32>(131_072)),
    ("sp_listeners", shape_of::<BindKey, u32>(MapType::SockHash, Some(65_536), 0)),
    ("sp_bind_marks", storage::<[u64; 5]>(0)),
    ("sp_tags", storage::<Tag>(CLONE)),
    ("sp_pod_events", shape_of::<u64, u32>(MapType::HashOfMaps, Some(4096), 0)),
    ("sp_pod_counts", shape_of::<u64, u32>(MapType::HashOfMaps, Some(4096), 0)),
    ("sp_large_counts", shape_of::<u64, u32>(MapType::HashOfMaps, Some(4096), 0)),
    ("sp_pod", shape_of::<u32, u64>(MapType::Array, Some(1), 0)),
    ("sp_ports", Shape { flags: NO_PREALLOC, ..of_pod::<PodPortKey, PortEntry>(MapType::Hash) }),
    ("sp_wrr_tables", of_pod::<u32, Table>(MapType::Array)),
    ("sp_active", of_pod::<u32, u32>(MapType::Array)),
    ("sp_rr_cursors", of_pod::<u32, u32>(MapType::PerCpuArray)),
    ("sp_endpoints", of_pod::<u32, Endpoint>(MapType::Array)),
    ("sp_counts", of_pod::<u32, Counts>(MapType::Array)),
    ("sp_known", hash::<u64, Listener>(8192)),
    ("sp_replica_addr", Shape { flags: NO_PREALLOC, ..of_pod::<ReplicaAddrKey, u32>(MapType::Hash) }),
    ("sp_flows", of_pod::<u64, u32>(MapType::LruHash)),
    ("sp_events", events(16 * 1024)),
    ("sp_sockets", shape_of::<u32, u32>(MapType::SockMap, Some(8192), 0)),
];

/// Names of all maps.
pub fn map_names() -> impl Iterator<Item = &'static str> {
    MAPS.into_iter().map(|(name, _)| name)
}

/// Whether a folder is a project's of this layout.
///
/// # Errors
/// When it cannot be read.
pub fn is_current(folder: &Path) -> Result<bool, KernelError> {
    Ok(version(folder)?.is_some_and(|found| found == LAYOUT.to_string()))
}

/// Whether this release can take over what is pinned in a project's folder; nothing is changed.
///
/// # Errors
/// When a newer release has pinned it.
pub fn check_version(folder: &Path) -> Result<(), KernelError> {
    match version(folder)? {
        Some(found) if found.parse::<u32>().map_or(true, |found| found > LAYOUT) => {
            Err(KernelError::NewerLayout { folder: folder.to_owned(), found, known: LAYOUT })
        }
        _ => Ok(()),
    }
}

/// Whether all maps that are pinned in a folder, and in those of pods below it, are as the layout has them; nothing is
/// changed. There may be no such folder.
///
/// # Errors
/// When one is not, or cannot be looked at.
pub fn check_maps(folder: &Path) -> Result<(), KernelError> {
    let fail = || KernelError::io(format!("read {}", folder.display()));
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(fail())?,
    };
    for entry in entries {
        let entry = entry.map_err(fail())?;
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            check_maps(&path)?;
        } else if let Some((_, wanted)) = MAPS.iter().find(|(known, _)| name == *known) {
            let found = match shape(&path) {
                // A supervisor that runs has just let it go.
                Err(KernelError::Gone { .. }) => continue,
                found => found?,
            };
            if (Shape { entries: wanted.entries.and(found.entries), ..found }) != *wanted {
                let (found, wanted) = (found.to_string(), wanted.to_string());
                return Err(KernelError::OtherMap { path, found, wanted, layout: LAYOUT });
            }
        }
    }
    Ok(())
}

/// Says in a project's folder that its pins are of this release's layout.
///
/// # Errors
/// When the kernel does not take the mark.
pub fn mark(folder: &Path) -> Result<(), KernelError> {
    let (wanted, path) = (LAYOUT.to_string(), folder.join(MARK));
    let fail = || KernelError::io(format!("make {}", path.display()));
    if version(folder)?.as_deref() == Some(&wanted) {
        return Ok(());
    }
    let beside = folder.join(format!("{MARK}_new"));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail()(error)),
        _ => {}
    }
    symlink(&wanted, &beside).map_err(fail())?;
    fs::rename(&beside, &path).map_err(fail())
}

/// What a folder's mark says; none where there is no mark.
fn version(folder: &Path) -> Result<Option<String>, KernelError> {
    let path = folder.join(MARK);
    match fs::read_link(&path) {
        Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KernelError::io(format!("read {}", path.display()))(error)),
    }
}

fn shape(path: &Path) -> Result<Shape, KernelError> {
    let fail = || KernelError::bpf(format!("look at the BPF map {}", path.display()));
    let info = MapInfo::from_pin(path).map_err(fail())?;
    Ok(Shape {
        kind: info.map_type().map_err(fail())?,
        key: info.key_size(),
        value: info.value_size(),
        entries: Some(info.max_entries()),
        flags: info.map_flags(),
    })
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, key, value, entries, flags } = self;
        write!(f, "type {kind:?}, keys of {key} bytes, values of {value} bytes, ")?;
        match entries {
            Some(entries) => write!(f, "{entries} entries, flags {flags:#x}"),
            None => write!(f, "any number of entries, flags {flags:#x}"),
        }
    }
}
