//! Networks and control groups that go with the test that made them, also when it fails.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sameport::kernel::capability;

/// The addresses of every network with an outside.
pub const V4: &str = "10.77.3.2";
pub const V6: &str = "fd77:3::2";

/// A network namespace, held by a process. It answers who asks for a port of nobody without a limit.
pub fn sandbox() -> Child {
    let script = "ip link set lo up
        cd /proc/sys/net
        echo 1 >ipv4/tcp_migrate_req
        echo 0 >ipv4/icmp_ratemask
        echo 0 >ipv6/icmp/ratelimit
        # By default a part of what memory allows, which is little on a small machine.
        echo 65536 >ipv4/tcp_max_tw_buckets
        echo up
        exec sleep 600";
    let mut sandbox =
        Command::new("unshare").args(["--net", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(sandbox.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n", "`unshare` and `ip` make a network namespace (root is needed)");
    sandbox
}

/// Has a command done in a network, and in a control group if one is said.
pub fn process(sandbox: u32, cgroup: Option<&Path>, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--net=/proc/{sandbox}/ns/net"));
    if let Some(cgroup) = cgroup {
        inside.args(["sh", "-c", r#"echo $$ >"$0/cgroup.procs"; exec "$@""#]).arg(cgroup);
    }
    inside.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        inside.env(key, value.unwrap());
    }
    inside
}

/// Another network, with a cable to the first.
pub struct Outside(Child);

impl Outside {
    pub fn of(inside: u32) -> Self {
        let outside = Self(sandbox());
        let there = outside.pid();
        let script = format!(
            "set -e
            ip link add out0 type veth peer name eth0 netns /proc/{inside}/ns/net
            ip addr add 10.77.3.1/24 dev out0
            ip addr add fd77:3::1/64 dev out0 nodad
            ip link set out0 up
            nsenter --net=/proc/{inside}/ns/net sh -ec '
                ip addr add {V4}/24 dev eth0
                ip addr add {V6}/64 dev eth0 nodad
                ip link set eth0 up'"
        );
        let status = process(there, None, Command::new("sh").args(["-c", &script])).status().unwrap();
        assert!(status.success(), "`ip` makes a pair of interfaces");
        outside
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network as a container of its own has it, that nobody steers.
pub struct Plain {
    inside: Child,
    /// The cable would be gone without it.
    _outside: Outside,
}

impl Plain {
    pub fn new() -> Self {
        let inside = sandbox();
        let outside = Outside::of(inside.id());
        Self { inside, _outside: outside }
    }

    pub fn pid(&self) -> u32 {
        self.inside.id()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.inside.kill();
        let _ = self.inside.wait();
    }
}

/// A control group. All in it, and below it, ends with it.
pub struct Group(pub PathBuf);

impl Group {
    pub fn new(name: &str) -> Self {
        let path = capability::mounted("cgroup2").unwrap().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..100 {
            clear(&self.0);
            if !self.0.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} stays", self.0.display());
    }
}

fn clear(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            clear(&entry.path());
        }
    }
    let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines().filter_map(|pid| pid.parse().ok()) {
        // It may have ended since.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // Somebody may be in it still.
    let _ = fs::remove_dir(group);
}
