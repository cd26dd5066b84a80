//! A program that decides what a function of the kernel returns (`fmod_ret`), which the library that loads the others has no
//! kind for. In its object it is one that runs before a function (`fentry`): the kernel tells them apart by a number only.

use std::{
    collections::HashSet,
    ffi::CString,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use aya::{Btf, maps::MapData};
use aya_obj::{Object, btf::BtfKind};

use super::{KernelError, raw};

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
    relocate_maps(&mut object, folder)?;
    let missing =
        || KernelError::Unsupported { what: what(), reason: "its object has no program".to_owned() };
    let (name, program) = object.programs.iter().next().ok_or_else(missing)?;
    let instructions = &object.functions.get(&program.function_key()).ok_or_else(missing)?.instructions;
    let name = CString::new(name.as_str()).map_err(KernelError::bpf(what()))?;
    let program = raw::load_modify_return(&name, instructions, &program.license, target)
        .map_err(KernelError::io(what()))?;
    raw::attach_tracing(&program).map_err(KernelError::io(what()))
}

fn relocate_maps(object: &mut Object, folder: &Path) -> Result<(), KernelError> {
    let pinned: Vec<_> = object
        .maps
        .iter()
        .map(|(name, map)| {
            let path = folder.join(name);
            let data = MapData::from_pin(&path)
                .map_err(KernelError::bpf(format!("open the BPF map {}", path.display())))?;
            Ok((name.clone(), data, map.clone()))
        })
        .collect::<Result<_, KernelError>>()?;
    let maps = pinned.iter().map(|(name, data, map)| (name.as_str(), data.fd().as_fd().as_raw_fd(), map));
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object
        .relocate_maps(maps, &sections)
        .and_then(|()| object.relocate_calls(&sections))
        .map_err(KernelError::bpf("relocate a BPF program"))
}
