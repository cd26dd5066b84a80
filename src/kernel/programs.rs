//! Loads the programs of `bpf/` and puts them where they run.

use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader, include_bytes_aligned,
    programs::{
        CgroupAttachMode, Program, SkLookup, SkReuseport,
        links::{FdLink, LinkError},
    },
};

use super::{KernelError, Netns, Pins, capability, sockets::Transport};

const HOOKS: &[u8] = include_bytes_aligned!("bpf/hooks.bpf.o");
const SELECT: &[u8] = include_bytes_aligned!("bpf/select.bpf.o");
const FLOW: &[u8] = include_bytes_aligned!("bpf/flow.bpf.o");
const GATE: &[u8] = include_bytes_aligned!("bpf/gate.bpf.o");

/// The programs that run for every socket of the host.
const HOOK_NAMES: [&str; 7] = [
    "sameport_bind4",
    "sameport_bind6",
    "sameport_bound4",
    "sameport_bound6",
    "sameport_self4",
    "sameport_self6",
    "sameport_count",
];

/// Loads programs for one project: what they share is in its folder of pins.
pub struct Programs {
    pins: PathBuf,
    /// One for all of them: whenever a loader is made it reads all types of the kernel, for 80 ms and into 30 MB, before it
    /// can be told that nobody needs them.
    loader: EbpfLoader<'static>,
}

/// Values of globals, each at its own place: the loader borrows them for as long as it is there.
static VALUES: [u32; 256] = {
    let mut values = [0; 256];
    let mut value = 0;
    while value < values.len() {
        values[value] = value as u32;
        value += 1;
    }
    values
};

impl Programs {
    /// A loader for the project whose pins are in that folder.
    #[must_use]
    pub fn new(pins: &Path) -> Self {
        let mut loader = EbpfLoader::new();
        // The programs use nothing whose layout differs from kernel to kernel.
        loader.btf(None).default_map_pin_directory(pins);
        Self { pins: pins.to_owned(), loader }
    }

    fn load(&mut self, object: &[u8], globals: &[(&'static str, u32)]) -> Result<Ebpf, KernelError> {
        for (name, value) in globals {
            let full = KernelError::Full { what: "numbers of pods and ports", most: VALUES.len() };
            let value = VALUES.get(*value as usize).ok_or(full)?;
            // Those of other objects stay set.
            self.loader.override_global(name, value, false);
        }
        self.loader.load(object).map_err(KernelError::bpf("make BPF maps"))
    }

    /// Loads the programs that run for every socket of the host and attaches them at the root of the control groups,
    /// in place of those that a supervisor before us has left there. Returns them with the maps of all programs.
    ///
    /// # Errors
    /// When the kernel takes one of them not, or we may not (`CAP_BPF` and `CAP_NET_ADMIN`).
    pub fn hook(&mut self, pins: &Pins) -> Result<Ebpf, KernelError> {
        let mut hooks = self.load(HOOKS, &[])?;
        let root = cgroup_root()?;
        for name in HOOK_NAMES {
            let link = attach_hook(&mut hooks, name, &root)?;
            pins.replace(&format!("link_{name}"), link)?;
        }
        Ok(hooks)
    }

    /// Puts a pod's gate into its network, in place of one that is there.
    ///
    /// # Errors
    /// As [`Self::hook`].
    pub fn guard(&mut self, pins: &Pins, pod: u32, netns: &Netns) -> Result<(), KernelError> {
        let mut gate = self.load(GATE, &[("POD", pod)])?;
        let what = "attach a program to a pod's network";
        let program: &mut SkLookup = typed(&mut gate, "sameport_gate")?;
        program.load().map_err(KernelError::bpf("load the BPF program sameport_gate"))?;
        let id = program.attach(netns.file()).map_err(KernelError::bpf(what))?;
        let link = program.take_link(id).map_err(KernelError::bpf(what))?;
        let link: FdLink = link.into();
        pins.replace(&format!("link_gate_{pod}"), link)
    }

    /// Loads the program that chooses among the sockets of a group, for a port and door.
    ///
    /// # Errors
    /// As [`Self::hook`].
    pub fn chooser(&mut self, transport: Transport, port: u32, door: u32) -> Result<Chooser, KernelError> {
        let (object, name) = match transport {
            Transport::Tcp => (SELECT, "sameport_select"),
            Transport::Udp => {
                self.loader.map_pin_path("sameport_flows", self.pins.join(flows_name(port, door)));
                (FLOW, "sameport_flow")
            }
        };
        let mut object = self.load(object, &[("PORT", port), ("DOOR", door)])?;
        let program: &mut SkReuseport = typed(&mut object, name)?;
        program.load().map_err(KernelError::bpf(format!("load the BPF program {name}")))?;
        Ok(Chooser { object, name })
    }
}

/// The program that chooses among the sockets of a group.
pub struct Chooser {
    object: Ebpf,
    name: &'static str,
}

impl Chooser {
    /// Gives it the choice in the group of a socket, in place of what chose before: there is no moment in between.
    ///
    /// # Errors
    /// When the socket is in no group.
    pub fn attach(&mut self, socket: impl AsFd) -> Result<(), KernelError> {
        let program: &mut SkReuseport = typed(&mut self.object, self.name)?;
        program.attach(socket).map_err(KernelError::bpf("choose among the listeners of a port"))
    }
}

/// Under which name the flows of a UDP port are pinned.
#[must_use]
pub fn flows_name(port: u32, door: u32) -> String {
    format!("sameport_flows_{port}_{door}")
}

fn cgroup_root() -> Result<File, KernelError> {
    let path = capability::mounted("cgroup2").ok_or_else(|| KernelError::Unsupported {
        what: "tell containers apart".to_owned(),
        reason: "no cgroup2 file system is mounted".to_owned(),
    })?;
    File::open(&path).map_err(KernelError::io(format!("open {}", path.display())))
}

fn typed<'e, T>(object: &'e mut Ebpf, name: &str) -> Result<&'e mut T, KernelError>
where
    &'e mut T: TryFrom<&'e mut Program>,
{
    let missing = || KernelError::Unsupported {
        what: format!("load the BPF program {name}"),
        reason: "it is not in its object".to_owned(),
    };
    let program = object.program_mut(name).ok_or_else(missing)?;
    program.try_into().map_err(|_| missing())
}

fn attach_hook(object: &mut Ebpf, name: &str, cgroup: &File) -> Result<FdLink, KernelError> {
    let fail = || KernelError::bpf(format!("load the BPF program {name}"));
    let missing = || KernelError::Unsupported {
        what: format!("attach the BPF program {name}"),
        reason: "it is of no kind that a control group takes".to_owned(),
    };
    let old = |_: LinkError| missing();
    // On a link of its own each program runs beside those of others, whatever this mode says.
    let mode = CgroupAttachMode::Single;
    match object.program_mut(name).ok_or_else(missing)? {
        Program::CgroupSockAddr(program) => {
            program.load().map_err(fail())?;
            let id = program.attach(cgroup, mode).map_err(fail())?;
            program.take_link(id).map_err(fail())?.try_into().map_err(old)
        }
        Program::CgroupSock(program) => {
            program.load().map_err(fail())?;
            let id = program.attach(cgroup, mode).map_err(fail())?;
            program.take_link(id).map_err(fail())?.try_into().map_err(old)
        }
        Program::SockOps(program) => {
            program.load().map_err(fail())?;
            let id = program.attach(cgroup, mode).map_err(fail())?;
            program.take_link(id).map_err(fail())?.try_into().map_err(old)
        }
        _ => Err(missing()),
    }
}
