//! Makes sets of maps whole, some of whose pins were removed while nobody kept them: a set is used as a whole, or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::{
    maps::{MapData, MapInfo},
    programs::loaded_programs,
};

use super::{KernelError, bpf_calls, folders, kept::LINK, pins};

/// Maps by name, each with its number.
type Maps = BTreeMap<String, u32>;

/// Those of these maps that are not pinned in a folder.
pub fn missing(folder: &Path, names: &[&'static str]) -> Vec<&'static str> {
    names.iter().filter(|name| !folder.join(name).exists()).copied().collect()
}

/// Pins maps again that are missing in a folder, as far as programs have them that also have those which are there, or whose
/// links are among `links`. Returns what is missing still: nobody has it any more.
///
/// Programs of other sets may have maps of the same names: who has a map that is another one than the one that is there
/// belongs to them.
///
/// # Errors
/// When a map cannot be pinned.
pub fn complete(
    folder: &Path,
    names: &[&'static str],
    links: &[std::path::PathBuf],
) -> Result<Vec<&'static str>, KernelError> {
    if missing(folder, names).is_empty() {
        return Ok(Vec::new());
    }
    let mut whole: Maps = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), MapInfo::from_pin(folder.join(name)).ok()?.id())))
        .collect();
    // Whoever has the links of the set goes first.
    let linked: BTreeSet<u32> = links.iter().filter_map(|link| program_of(link)).collect();
    let mut programs = programs(names);
    programs.sort_by_key(|(id, _)| !linked.contains(id));
    loop {
        let next = programs.iter().position(|(id, maps)| {
            let is_same =
                maps.iter().filter_map(|(name, id)| Some(whole.get(name)? == id)).collect::<Vec<_>>();
            let is_of_it = is_same.contains(&true) || linked.contains(id);
            is_of_it && !is_same.contains(&false)
        });
        let Some(next) = next else { break };
        whole.extend(programs.remove(next).1);
    }
    for name in missing(folder, names) {
        let path = folder.join(name);
        let Some(map) = whole.get(name).and_then(|id| MapData::from_id(*id).ok()) else { continue };
        map.pin(&path).map_err(KernelError::bpf(format!("pin {}", path.display())))?;
    }
    Ok(missing(folder, names))
}

/// All programs that have any of these maps, each with those that it has.
fn programs(names: &[&'static str]) -> Vec<(u32, Maps)> {
    let mut known: BTreeMap<u32, Option<String>> = BTreeMap::new();
    let mut name_of = |id: u32| {
        let name = || Some(MapData::from_id(id).ok()?.info().ok()?.name_as_str()?.to_owned());
        known.entry(id).or_insert_with(name).clone()
    };
    // What is gone meanwhile is nobody's.
    let programs = loaded_programs().filter_map(Result::ok).filter_map(|program| {
        let ids = program.map_ids().ok().flatten()?;
        let maps: Maps = ids.into_iter().filter_map(|id| Some((name_of(id)?, id))).collect();
        Some((program.id(), maps.into_iter().filter(|(name, _)| names.contains(&name.as_str())).collect()))
    });
    programs.filter(|(_, maps): &(u32, Maps)| !maps.is_empty()).collect()
}

/// Links that are pinned in a folder.
pub fn links(folder: &Path) -> Vec<std::path::PathBuf> {
    // What is gone since has none.
    let names = folders::names(folder).unwrap_or_default().into_iter();
    names.filter(|name| name.starts_with(LINK)).map(|name| folder.join(name)).collect()
}

fn program_of(link: &Path) -> Option<u32> {
    bpf_calls::program_id(&bpf_calls::pinned(link).ok()?).ok()
}

/// Lets go of maps that are of no use, since others of their set are gone.
///
/// # Errors
/// When the kernel does not.
pub fn drop_maps(folder: &Path, names: &[&'static str]) -> Result<(), KernelError> {
    names.iter().try_for_each(|name| pins::remove(&folder.join(name)))
}
