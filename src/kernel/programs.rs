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
        links::{FdLink, LinkError, PinnedLink},
    },
};
use sha2::{Digest, Sha256};

use super::{KernelError, Netns, bpf_calls, capability, layout, modify_return, pins};

const HOOKS: &[u8] = include_bytes_aligned!("bpf/hooks.bpf.o");
const LOOKUP: &[u8] = include_bytes_aligned!("bpf/lookup.bpf.o");
const MIGRATE: &[u8] = include_bytes_aligned!("bpf/migrate.bpf.o");
const COMPAT: &[u8] = include_bytes_aligned!("bpf/compat.bpf.o");

/// The programs that run for every socket of the host.
const HOOKS_OF_HOST: [&str; 11] = [
    "sameport_bind4",
    "sameport_bind6",
    "sameport_bound4",
    "sameport_bound6",
    "sameport_release",
    "sameport_connect4",
    "sameport_connect6",
    "sameport_sendmsg4",
    "sameport_sendmsg6",
    "sameport_sockops",
    "sameport_setsockopt",
];

/// The link of the program that sees what `sameport_setsockopt` does not. Not every kernel takes it, and nothing else depends on
/// it.
const COMPAT_LINK: &str = "link_sameport_compat";
/// The function of the kernel that it stands in front of: called for each setsockopt(2), whoever calls it.
const COMPAT_FUNCTION: &str = "security_socket_setsockopt";

/// The maps of `bpf/sameport.h`, which are pinned in the folder of the host.
const MAPS_OF_HOST: [&str; 16] = [
    "sp_pods",
    "sp_cgroups",
    "sp_subgroups",
    "sp_supervisors",
    "sp_replicas",
    "sp_origins",
    "sp_local",
    "sp_binds",
    "sp_slots",
    "sp_served",
    "sp_exclusive",
    "sp_users",
    "sp_moved",
    "sp_listeners",
    "sp_bind_marks",
    "sp_tags",
];

/// Maps of maps, which only the programs that run for every socket have; they are pinned beside the others.
const MAPS_OF_HOOKS: [&str; 3] = ["sp_pod_events", "sp_pod_counts", "sp_large_counts"];

/// How much a pod's maps have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Ports.
    pub ports: u32,
    /// Endpoints.
    pub endpoints: u32,
    /// Flows of datagrams.
    pub flows: u32,
}

/// Loads programs.
pub struct Programs {
    /// One for all of them: whenever a loader is made it reads all types of the kernel, for 80 ms and into 30 MB.
    loader: EbpfLoader<'static>,
}

impl Programs {
    /// A loader.
    #[must_use]
    pub fn new() -> Self {
        Self { loader: EbpfLoader::new() }
    }

    /// Forgets the kernel's types, which only the programs at the control groups need.
    pub fn forget_types(&mut self) {
        self.loader.btf(None);
    }

    /// Names under which the links of the programs at the control groups are pinned.
    #[must_use]
    pub fn hook_names() -> [String; 11] {
        HOOKS_OF_HOST.map(|name| format!("link_{name}"))
    }

    /// Whether this release pins a link in the folder of the host under that name.
    #[must_use]
    pub fn is_link(name: &str) -> bool {
        name == COMPAT_LINK || Self::hook_names().iter().any(|hook| hook == name)
    }

    /// Names of the maps that are pinned in the folder of the host.
    pub fn map_names() -> impl Iterator<Item = &'static str> {
        MAPS_OF_HOST.into_iter().chain(MAPS_OF_HOOKS)
    }

    /// Names of the maps that are pinned in the folder of a pod.
    pub fn pod_map_names() -> impl Iterator<Item = &'static str> {
        layout::map_names().filter(|name| !Self::map_names().any(|of_host| of_host == *name))
    }

    /// The name under which the link of the program that chooses in a pod is pinned.
    #[must_use]
    pub fn lookup_name() -> String {
        format!("link_{LOOKUP_NAME}")
    }

    /// By which this release knows its programs at the control groups from those of others.
    #[must_use]
    pub fn build() -> String {
        let hash = Sha256::new().chain_update(HOOKS).chain_update(COMPAT).finalize();
        hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Loads the programs that run for every socket of the host and attaches them at the root of the control groups, in
    /// place of those that are there. Their maps are in `folder`, as are the pins of the links.
    ///
    /// # Errors
    /// When the kernel takes one of them not, or we may not (`CAP_BPF`, `CAP_NET_ADMIN`, `CAP_PERFMON`).
    pub fn attach_hooks(&mut self, folder: &Path) -> Result<(), KernelError> {
        self.loader.default_map_pin_directory(folder);
        let mut hooks = self.loader.load(HOOKS).map_err(KernelError::bpf("make BPF maps"))?;
        let root = cgroup_root()?;
        let links: Vec<_> = HOOKS_OF_HOST
            .iter()
            .map(|name| Ok((name, attach(&mut hooks, name, &root, folder)?)))
            .collect::<Result<_, _>>()?;
        // All or none.
        links
            .into_iter()
            .try_for_each(|(name, link)| pins::replace(folder, &format!("link_{name}"), link))?;
        match modify_return::attach(COMPAT, COMPAT_FUNCTION, folder) {
            Ok(link) => pins::replace(folder, COMPAT_LINK, fd_link(&link, folder)?),
            Err(error) => {
                tracing::warn!(%error, "programs of another architecture can take connections of their pod");
                pins::remove(&folder.join(COMPAT_LINK))
            }
        }
    }

    /// Whether programs that make the calls of another architecture are kept from taking connections, too.
    #[must_use]
    pub fn has_compat(folder: &Path) -> bool {
        folder.join(COMPAT_LINK).exists()
    }

    fn load_of_pod(
        &mut self,
        object: &[u8],
        host: &Path,
        pod: &Path,
        room: Room,
    ) -> Result<Ebpf, KernelError> {
        self.loader.default_map_pin_directory(pod);
        for name in MAPS_OF_HOST {
            self.loader.map_pin_path(name, host.join(name));
        }
        for (name, entries) in [
            ("sp_ports", room.ports),
            ("sp_wrr_tables", 2 * room.ports),
            ("sp_active", room.ports),
            ("sp_rr_cursors", room.ports),
            ("sp_endpoints", room.endpoints),
            ("sp_counts", room.endpoints),
            ("sp_replica_addr", room.endpoints),
            ("sp_flows", room.flows),
        ] {
            self.loader.map_max_entries(name, entries);
        }
        self.loader.load(object).map_err(KernelError::bpf("make BPF maps"))
    }

    /// Makes the maps of a pod in its folder, unless they are there, and loads the programs that choose in it.
    ///
    /// # Errors
    /// As [`Self::attach_hooks`].
    pub fn load_pod(&mut self, host: &Path, pod: &Path, room: Room) -> Result<PodPrograms, KernelError> {
        let mut lookup = self.load_of_pod(LOOKUP, host, pod, room)?;
        let program: &mut SkLookup = typed(&mut lookup, LOOKUP_NAME)?;
        program.load().map_err(KernelError::bpf(format!("load the BPF program {LOOKUP_NAME}")))?;
        let mut migrate = self.load_of_pod(MIGRATE, host, pod, room)?;
        let program: &mut SkReuseport = typed(&mut migrate, MIGRATE_NAME)?;
        program.load().map_err(KernelError::bpf(format!("load the BPF program {MIGRATE_NAME}")))?;
        // What is left of them is a program each: their maps are opened by name.
        drop_maps(&mut lookup);
        drop_maps(&mut migrate);
        Ok(PodPrograms { lookup, migrate, folder: pod.to_owned() })
    }
}

/// Closes the descriptors of maps that loading a program has opened.
fn drop_maps(object: &mut Ebpf) {
    let names: Vec<String> = object.maps().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        drop(object.take_map(&name));
    }
}

const LOOKUP_NAME: &str = "sameport_lookup";
const MIGRATE_NAME: &str = "sameport_migrate";

/// The programs that choose in a pod.
pub struct PodPrograms {
    lookup: Ebpf,
    migrate: Ebpf,
    folder: PathBuf,
}

impl PodPrograms {
    /// Gives them the choice in the pod's network, in place of what has it: there is no moment in between.
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub fn attach(&mut self, netns: &Netns) -> Result<(), KernelError> {
        let what = "attach a program to a pod's network";
        let program: &mut SkLookup = typed(&mut self.lookup, LOOKUP_NAME)?;
        let id = program.attach(netns.file()).map_err(KernelError::bpf(what))?;
        let link: FdLink = program.take_link(id).map_err(KernelError::bpf(what))?.into();
        pins::replace(&self.folder, &Programs::lookup_name(), link)
    }

    /// Has connections that move on from a listener of a socket's group go where we say, in place of what chose before.
    ///
    /// # Errors
    /// When the socket is in no group.
    pub fn attach_to_group(&mut self, socket: impl AsFd) -> Result<(), KernelError> {
        let program: &mut SkReuseport = typed(&mut self.migrate, MIGRATE_NAME)?;
        program.attach(socket).map_err(KernelError::bpf("choose among the listeners of a port"))
    }
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

/// A link as the library has them, which cannot make one of its own of every kind: it opens a pin.
fn fd_link(link: &impl AsFd, folder: &Path) -> Result<FdLink, KernelError> {
    let path = folder.join("link_new");
    let what = || format!("pin {}", path.display());
    pins::remove(&path)?;
    bpf_calls::pin(link, &path).map_err(KernelError::io(what()))?;
    let pinned = PinnedLink::from_pin(&path).map_err(KernelError::bpf(what()))?;
    pinned.unpin().map_err(KernelError::io(what()))
}

/// Attaches a program to a control group; `folder` is where it may be pinned for a moment.
fn attach(object: &mut Ebpf, name: &str, cgroup: &File, folder: &Path) -> Result<FdLink, KernelError> {
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
        Program::CgroupSockopt(program) => {
            program.load().map_err(fail())?;
            let program = program.fd().map_err(fail())?;
            let link = bpf_calls::attach_to_setsockopt(program, cgroup)
                .map_err(KernelError::io(format!("attach the BPF program {name}")))?;
            fd_link(&link, folder)
        }
        Program::SockOps(program) => {
            program.load().map_err(fail())?;
            let id = program.attach(cgroup, mode).map_err(fail())?;
            program.take_link(id).map_err(fail())?.try_into().map_err(old)
        }
        _ => Err(missing()),
    }
}
