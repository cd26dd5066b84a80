//! The layout of what is pinned for a project: by its version a release knows whether it can take the pins over.
//!
//! A symbolic link named `layout` in the project's folder says the version: bpffs takes nothing else that holds text.
//! Releases before versions have left none, which is layout 0: it has the maps of layout 1. Whoever changes a map's name,
//! kind, size or meaning makes a new layout, and says here how the one before is taken over.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use aya::maps::{MapInfo, MapType};

use super::{
    KernelError,
    raw::{
        Counts, ENDPOINTS, Endpoint, GateKey, LISTENERS, Listener, OwnKey, PODS, PORTS, PortKey, Table, Tag,
    },
};

/// The layout that this release makes.
pub const LAYOUT: u32 = 1;

/// The name of the mark in a project's folder.
pub const MARK: &str = "layout";

/// What the maps of the flows of UDP ports are called: this, and the numbers of the port and the group.
const FLOWS: &str = "sameport_flows_";

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
    entries: u32,
    flags: u32,
}

const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

const fn hash<K, V>(entries: u32, flags: u32) -> Shape {
    Shape { kind: MapType::Hash, key: size::<K>(), value: size::<V>(), entries, flags }
}

const fn array<V>(entries: u32) -> Shape {
    Shape { kind: MapType::Array, key: size::<u32>(), value: size::<V>(), entries, flags: 0 }
}

/// The maps of layout 1, of which `bpf/sameport.h`, `bpf/choice.h` and `bpf/flow.bpf.c` tell what each is for.
const MAPS: [(&str, Shape); 17] = [
    ("sameport_pods", hash::<u64, u32>(PODS, 0)),
    ("sameport_ports", hash::<PortKey, u32>(PORTS, 0)),
    ("sameport_tables", array::<Table>(2 * PORTS)),
    ("sameport_turns", array::<u32>(PORTS)),
    ("sameport_spins", Shape { kind: MapType::PerCpuArray, ..array::<u32>(PORTS) }),
    ("sameport_ends", array::<Endpoint>(ENDPOINTS + PORTS)),
    ("sameport_counts", array::<Counts>(ENDPOINTS + PORTS)),
    ("sameport_socks", Shape { kind: MapType::ReuseportSockArray, ..array::<u32>(LISTENERS) }),
    ("sameport_known", hash::<u64, Listener>(LISTENERS, NO_PREALLOC)),
    ("sameport_tags", Shape { kind: MapType::SkStorage, ..hash::<u32, Tag>(0, NO_PREALLOC | CLONE) }),
    ("sameport_moved", hash::<u64, u32>(16_384, NO_PREALLOC)),
    ("sameport_own", hash::<OwnKey, u32>(ENDPOINTS, NO_PREALLOC)),
    ("sameport_homes", hash::<u64, u32>(ENDPOINTS, NO_PREALLOC)),
    ("sameport_shut", hash::<GateKey, u32>(4 * PORTS, 0)),
    ("sameport_users", hash::<PortKey, u32>(PORTS, 0)),
    ("sameport_events", Shape { kind: MapType::RingBuf, key: 0, value: 0, entries: 64 * 1024, flags: 0 }),
    (FLOWS, Shape { kind: MapType::LruHash, ..hash::<[u32; 2], u32>(65_536, 0) }),
];

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

/// Whether all maps that are pinned in a project's folder are as the layout has them; nothing is changed.
///
/// # Errors
/// When one is not, or cannot be looked at.
pub fn check_maps(folder: &Path) -> Result<(), KernelError> {
    let fail = || KernelError::io(format!("read {}", folder.display()));
    for entry in fs::read_dir(folder).map_err(fail())? {
        let name = entry.map_err(fail())?.file_name().to_string_lossy().into_owned();
        let is = |(known, _): &&(&str, Shape)| name == *known || (*known == FLOWS && name.starts_with(FLOWS));
        if let Some((_, wanted)) = MAPS.iter().find(is) {
            let path = folder.join(&name);
            let found = match shape(&path) {
                // A supervisor that runs has just let it go.
                Err(KernelError::Gone { .. }) => continue,
                found => found?,
            };
            if found != *wanted {
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
        entries: info.max_entries(),
        flags: info.map_flags(),
    })
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, key, value, entries, flags } = self;
        write!(
            f,
            "type {kind:?}, keys of {key} bytes, values of {value} bytes, {entries} entries, flags {flags:#x}"
        )
    }
}
