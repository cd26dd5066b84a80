//! Calls of bpf(2) for which no crate has one.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya_obj::generated::bpf_insn;

/// What bpf(2) does and attaches, of `linux/bpf.h`.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_MODIFY_RETURN: u32 = 26;
const BPF_CGROUP_SETSOCKOPT: u32 = 22;

/// Kinds of `enum bpf_link_type` that tell what they are attached to.
const LINK_CGROUP: u32 = 3;
/// As above.
const LINK_NETNS: u32 = 5;

/// The part of `union bpf_attr` that these commands read; the kernel takes what is left out as zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct BpfAttr {
    /// An address, or two numbers of 32 bits.
    first: [u32; 2],
    /// As above.
    second: [u32; 2],
}

/// `struct bpf_link_info` and `struct bpf_map_info`, as far as they are alike or of use here.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
struct BpfInfo {
    kind: u32,
    id: u32,
    program: u32,
    unused: u32,
    /// Of a link, what it is attached to.
    target: [u32; 2],
    rest: [u32; 10],
}

/// Calls bpf(2) with the beginning of its `union bpf_attr`; what is left out is zero to the kernel.
///
/// # Safety
/// The attributes are those of the command: where the kernel expects a pointer there is one to what it expects.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads as many bytes as it is told; for the rest, see above.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The descriptor that a call of bpf(2) has made.
///
/// # Safety
/// As [`bpf`]; and the command makes a descriptor.
unsafe fn bpf_descriptor<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: see above.
    let fd = unsafe { bpf(command, attributes) }?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: &impl AsFd) -> io::Result<u32> {
    u32::try_from(fd.as_fd().as_raw_fd()).map_err(io::Error::other)
}

/// Loads a program that decides what a function of the kernel returns: `function` is its number among the kernel's types. Into
/// `log` goes what the verifier says, unless it is empty.
///
/// # Errors
/// When the kernel does not take it, or we may not.
pub fn load_modify_return(
    name: &CStr,
    instructions: &[bpf_insn],
    license: &CStr,
    function: u32,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version_and_flags: [u32; 2],
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
        types: u32,
        debug_infos: [u32; 8],
        function: u32,
    }
    let mut attributes = Attributes {
        kind: BPF_PROG_TYPE_TRACING,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        attach_type: BPF_MODIFY_RETURN,
        function,
        ..Attributes::default()
    };
    // The last byte stays zero.
    attributes.name.iter_mut().zip(name.to_bytes()).take(15).for_each(|(place, byte)| *place = *byte);
    // SAFETY: these are the attributes of the command, and what they point to lives longer than the call.
    unsafe { bpf_descriptor(BPF_PROG_LOAD, &attributes) }
}

/// Attaches a program to the function that it was loaded for, as long as what this returns or a pin of it is there.
///
/// # Errors
/// When the kernel cannot.
pub fn attach_tracing(program: &impl AsFd) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        name: u64,
        program: u32,
        unused: u32,
    }
    let attributes = Attributes { name: 0, program: number(program)?, unused: 0 };
    // SAFETY: these are the attributes of the command; without a name it is the function that the program has.
    unsafe { bpf_descriptor(BPF_RAW_TRACEPOINT_OPEN, &attributes) }
}

/// Attaches a program that sees each setsockopt(2) to a control group, as long as what this returns or a pin of it is there.
///
/// # Errors
/// When the kernel does not do it.
pub fn attach_to_setsockopt(program: &impl AsFd, cgroup: &impl AsFd) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes = Attributes {
        program: number(program)?,
        target: number(cgroup)?,
        attach_type: BPF_CGROUP_SETSOCKOPT,
        flags: 0,
    };
    // SAFETY: these are the attributes of the command, without pointers.
    unsafe { bpf_descriptor(BPF_LINK_CREATE, &attributes) }
}

fn halves(address: usize) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = (address as u64).to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// Pins a map or a link.
///
/// # Errors
/// When there is something at that path already, it is not on bpffs, or we may not.
pub fn pin(object: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = BpfAttr { first: halves(path.as_ptr() as usize), second: [number(object)?, 0] };
    // SAFETY: the path ends with a zero, and lives until the call has returned.
    unsafe { bpf(BPF_OBJ_PIN, &attr) }.map(drop)
}

/// A descriptor for a map or a link that is pinned.
///
/// # Errors
/// When there is none, or we may not.
pub fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = BpfAttr { first: halves(path.as_ptr() as usize), ..BpfAttr::default() };
    // SAFETY: as above.
    unsafe { bpf_descriptor(BPF_OBJ_GET, &attr) }
}

fn info(object: &impl AsFd) -> io::Result<BpfInfo> {
    let mut info = BpfInfo::default();
    let size = u32::try_from(size_of::<BpfInfo>()).map_err(io::Error::other)?;
    let attr = BpfAttr { first: [number(object)?, size], second: halves(&raw mut info as usize) };
    // SAFETY: the kernel writes `size` bytes at most, all of them numbers, into what lives until the call has returned.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) }?;
    Ok(info)
}

/// The number of a map or a link, by which it is known as long as it lives.
///
/// # Errors
/// When the kernel does not tell it.
pub fn object_id(object: &impl AsFd) -> io::Result<u32> {
    Ok(info(object)?.id)
}

/// The number of a link's program.
///
/// # Errors
/// When the kernel does not tell it.
pub fn program_id(link: &impl AsFd) -> io::Result<u32> {
    Ok(info(link)?.program)
}

/// Whether a link's program is attached: somebody may have detached it by force, which leaves the link.
///
/// # Errors
/// When the kernel does not tell it.
pub fn is_attached(link: &impl AsFd) -> io::Result<bool> {
    let info = info(link)?;
    Ok(match info.kind {
        LINK_CGROUP => info.target != [0, 0],
        LINK_NETNS => info.target[0] != 0,
        // Others cannot be detached by force.
        _ => true,
    })
}

/// Detaches a link's program, whoever else has the link.
///
/// # Errors
/// When it is of a kind for which there is no such thing, or we may not.
pub fn detach(link: &impl AsFd) -> io::Result<()> {
    let attr = BpfAttr { first: [number(link)?, 0], ..BpfAttr::default() };
    // SAFETY: this command reads no address.
    unsafe { bpf(BPF_LINK_DETACH, &attr) }.map(drop)
}
