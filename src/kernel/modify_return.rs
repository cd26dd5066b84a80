//! A program that decides what a function of the kernel returns (`fmod_ret`), which the library that loads the others has no
//! kind for. In its object it is one that runs before a function (`fentry`): the kernel tells them apart by a number only.

use std::{
    collections::HashSet,
    ffi::CString,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use aya::{Btf, maps::MapData};
use aya_obj::{Map, Object, btf::BtfKind};

use super::{KernelError, bpf_calls};

/// How much of what the verifier says is read.
const LOG: usize = 64 * 1024;

/// Loads the program of an object, whose maps are pinned in `folder`, and has the kernel ask it what `function` returns:
/// anything but 0, and the function is not run. It ends with the link that this returns.
///
/// # Errors
/// When this kernel has no such function, or no types of its own (BTF), or takes no such programs; or when we may not.
pub fn attach(object: &[u8], function: &str, folder: &Path) -> Result<OwnedFd, KernelError> {
    let what = || format!("decide what {function} returns");
    let types = Btf::from_sys_fs().map_err(KernelError::bpf(what()))?;
    let target = types.id_by_type_name_kind(function, BtfKind::Func).map_err(KernelError::bpf(what()))?;
    let mut object = Object::parse(object).map_err(KernelError::bpf(what()))?;
    object.relocate_btf(&types).map_err(KernelError::bpf(what()))?;
    let maps = open_maps(&object, folder)?;
    let descriptors =
        maps.iter().map(|(name, data, map)| (name.as_str(), data.fd().as_fd().as_raw_fd(), map));
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_maps(descriptors, &sections)
        .and_then(|()| object.relocate_calls(&sections))
        .map_err(KernelError::bpf(what()))?;
    let missing =
        || KernelError::Unsupported { what: what(), reason: "its object has no program".to_owned() };
    let (name, program) = object.programs.iter().next().ok_or_else(missing)?;
    let instructions = &object.functions.get(&program.function_key()).ok_or_else(missing)?.instructions;
    let name = CString::new(name.as_str()).map_err(KernelError::bpf(what()))?;
    let load =
        |log: &mut [u8]| bpf_calls::load_modify_return(&name, instructions, &program.license, target, log);
    let program = load(&mut []).map_err(|error| {
        // It is asked again, for who mends the program.
        let mut log = vec![0; LOG];
        let _ = load(&mut log);
        log.truncate(log.iter().position(|byte| *byte == 0).unwrap_or(LOG));
        tracing::debug!(%error, log = %String::from_utf8_lossy(&log), "{}", what());
        KernelError::io(what())(error)
    })?;
    bpf_calls::attach_tracing(&program).map_err(KernelError::io(what()))
}

/// Its maps, which have to be open until the program is loaded: it names them by their descriptors.
fn open_maps(object: &Object, folder: &Path) -> Result<Vec<(String, MapData, Map)>, KernelError> {
    let open = |(name, map): (&String, &Map)| {
        let path = folder.join(name);
        let data = MapData::from_pin(&path)
            .map_err(KernelError::bpf(format!("open the BPF map {}", path.display())))?;
        Ok((name.clone(), data, map.clone()))
    };
    object.maps.iter().map(open).collect()
}
