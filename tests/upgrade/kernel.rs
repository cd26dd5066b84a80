//! What release 0 made in the kernel for a pod with one TCP port, made by its own objects and with its own layout of
//! bytes.

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, ReusePortSockArray, SkStorage},
    programs::{CgroupAttachMode, Program, SkLookup, SkReuseport, links::FdLink},
};
use sameport::kernel::{Netns, capability, processes, sockets::Diagnosis};

use super::{fixtures, support::wait};

/// The pod, the port and the group have number 0.
const ZERO: [u8; 4] = [0; 4];
const PROTOCOL_TCP: u8 = 6;

/// The pins of a project.
pub struct OldKernel {
    folder: PathBuf,
    netns: Netns,
    /// The network's cookie, by which the maps know the pod.
    cookie: u64,
    port: u16,
}

fn object(name: &str) -> Vec<u8> {
    fs::read(fixtures::folder().join("objects").join(format!("{name}.bpf.o"))).unwrap()
}

/// Loads an object; what its programs share is in the folder.
fn load(name: &str, folder: &Path, globals: &[(&str, u32)]) -> Ebpf {
    let mut loader = EbpfLoader::new();
    loader.btf(None).default_map_pin_directory(folder);
    for (global, value) in globals {
        loader.override_global(global, value, true);
    }
    loader.load(&object(name)).unwrap()
}

fn pin(link: FdLink, folder: &Path, name: &str) {
    link.pin(folder.join(name)).unwrap();
}

impl OldKernel {
    /// Attaches the hooks, and makes the network of a process a pod whose replicas listen on that port.
    pub fn of(project: &str, sandbox: u32, port: u16) -> Self {
        let root = capability::mounted("bpf").unwrap_or_else(|| {
            let mounted = Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status().unwrap();
            assert!(mounted.success());
            "/sys/fs/bpf".into()
        });
        let folder = root.join("sameport").join(project);
        fs::create_dir_all(&folder).unwrap();
        attach_hooks(&folder);
        let netns = Netns::of(sandbox).unwrap();
        let cookie = Diagnosis::of(&netns).unwrap().cookie;
        let kernel = Self { folder, netns, cookie, port };
        kernel.hash::<8, 4>("sameport_pods").insert(cookie.to_ne_bytes(), ZERO, 0).unwrap();
        // Ports are numbered when the first replica listens; tables of it are empty until then.
        kernel.hash::<16, 4>("sameport_ports").insert(kernel.port_key(), ZERO, 0).unwrap();
        kernel.hash::<16, 4>("sameport_users").insert(kernel.port_key(), ZERO, 0).unwrap();
        kernel.guard();
        kernel
    }

    /// The gate before the pod's ports, with none of them shut.
    fn guard(&self) {
        let mut gate = load("gate", &self.folder, &[("POD", 0)]);
        let program: &mut SkLookup = gate.program_mut("sameport_gate").unwrap().try_into().unwrap();
        program.load().unwrap();
        let id = program.attach(self.netns.file()).unwrap();
        pin(program.take_link(id).unwrap().into(), &self.folder, "link_gate_0");
    }

    /// Waits until a replica listens, and enters it under its slot.
    pub fn enter(&self, slot: u8, pid: u32) {
        let cgroup = processes::Cgroup::of(pid).unwrap();
        let (cookie, socket) = wait::until("the replica listens", || self.listener(&cgroup));
        let number = u32::from(slot).to_ne_bytes();
        let address = Ipv4Addr::new(127, 77, 0, slot).to_bits().to_ne_bytes();
        let tag = concat([number, ZERO, ZERO, ZERO]);
        SkStorage::<_, [u8; 16]>::try_from(self.map("sameport_tags"))
            .unwrap()
            .insert(&socket, tag, 0)
            .unwrap();
        // Its place among the sockets, its endpoint, its port and group.
        let listener = concat([number, number, ZERO, ZERO]);
        self.hash::<8, 16>("sameport_known").insert(cookie.to_ne_bytes(), listener, 0).unwrap();
        let mut sockets = ReusePortSockArray::try_from(self.map("sameport_socks")).unwrap();
        sockets.set(u32::from(slot), &socket, 0).unwrap();
        let mut endpoint = [0; 512];
        endpoint[0] = 1;
        endpoint[2] = slot;
        self.array::<512>("sameport_ends").set(u32::from(slot), endpoint, 0).unwrap();
        let own: [u8; 8] = concat([ZERO, address]);
        self.hash::<8, 4>("sameport_own").insert(own, number, 0).unwrap();
        self.hash::<8, 4>("sameport_homes").insert(cgroup.id.to_ne_bytes(), address, 0).unwrap();
        self.choose(&socket);
    }

    /// The listener of a replica: its cookie, and a descriptor of it.
    fn listener(&self, cgroup: &processes::Cgroup) -> Result<(u64, OwnedFd), String> {
        let rows = Diagnosis::of(&self.netns).unwrap().rows().unwrap();
        let own = rows.iter().filter(|row| row.bound.address.port() == self.port);
        own.filter_map(|row| {
            let socket = processes::duplicate(&cgroup.processes(), row.inode).unwrap()?;
            Some((row.cookie, socket))
        })
        .next()
        .ok_or_else(|| format!("{rows:?}"))
    }

    /// Lets the program choose in the group of a socket.
    fn choose(&self, socket: &OwnedFd) {
        let mut select = load("select", &self.folder, &[("PORT", 0), ("DOOR", 0)]);
        let program: &mut SkReuseport = select.program_mut("sameport_select").unwrap().try_into().unwrap();
        program.load().unwrap();
        program.attach(socket).unwrap();
    }

    /// Gives each of these replicas as many places as others; those that are not named get nothing.
    pub fn weigh(&self, slots: &[u8]) {
        let mut turns = self.array::<4>("sameport_turns");
        let turn = turns.get(&0, 0).unwrap()[0] & 1 ^ 1;
        let mut table = [0; 4112];
        table[4] = u8::try_from(slots.len()).unwrap();
        for (place, slot) in table[16..].chunks_exact_mut(4).zip(slots) {
            place.copy_from_slice(&(u32::from(*slot) | 100 << 16).to_ne_bytes());
        }
        self.array::<4112>("sameport_tables").set(turn.into(), table, 0).unwrap();
        turns.set(0, [turn, 0, 0, 0], 0).unwrap();
    }

    fn port_key(&self) -> [u8; 16] {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.cookie.to_ne_bytes());
        key[8..10].copy_from_slice(&self.port.to_ne_bytes());
        key[10] = PROTOCOL_TCP;
        key
    }

    fn map(&self, name: &str) -> Map {
        Map::from_map_data(MapData::from_pin(self.folder.join(name)).unwrap()).unwrap()
    }

    fn hash<const K: usize, const V: usize>(&self, name: &str) -> HashMap<MapData, [u8; K], [u8; V]> {
        self.map(name).try_into().unwrap()
    }

    fn array<const V: usize>(&self, name: &str) -> Array<MapData, [u8; V]> {
        self.map(name).try_into().unwrap()
    }
}

fn attach_hooks(folder: &Path) {
    let mut hooks = load("hooks", folder, &[]);
    let root = fs::File::open(capability::mounted("cgroup2").unwrap()).unwrap();
    let mode = CgroupAttachMode::Single;
    for (name, program) in hooks.programs_mut() {
        let link: FdLink = match program {
            Program::CgroupSockAddr(program) => {
                program.load().unwrap();
                let id = program.attach(&root, mode).unwrap();
                program.take_link(id).unwrap().try_into().unwrap()
            }
            Program::CgroupSock(program) => {
                program.load().unwrap();
                let id = program.attach(&root, mode).unwrap();
                program.take_link(id).unwrap().try_into().unwrap()
            }
            Program::SockOps(program) => {
                program.load().unwrap();
                let id = program.attach(&root, mode).unwrap();
                program.take_link(id).unwrap().try_into().unwrap()
            }
            _ => panic!("{name} is of another type"),
        };
        pin(link, folder, &format!("link_{name}"));
    }
}

fn concat<const PARTS: usize, const ALL: usize>(parts: [[u8; 4]; PARTS]) -> [u8; ALL] {
    parts.concat().try_into().unwrap()
}
