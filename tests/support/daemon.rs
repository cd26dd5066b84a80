//! A Docker daemon of a test's own with a containerd of its own, which it may kill and restart.
//!
//! It runs in a network namespace of its own, because a second daemon rewrites the packet filter's rules of the
//! first; all that it keeps is in one folder. It and all its containers are gone when it is dropped.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{certificates, disk::SmallDisk, docker::Docker, images, wait};

/// What the daemon does with its containers when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveRestore {
    /// They go on.
    On,
    /// They end too.
    Off,
}

/// A Docker daemon.
pub struct Daemon {
    folder: TempDir,
    network: Arc<File>,
    process: Child,
    containerd: Child,
    disk: Option<SmallDisk>,
}

impl Daemon {
    /// Starts one, with the image of `tests/images/nginx` in it.
    pub fn start(live_restore: LiveRestore) -> Self {
        let keep = serde_json::json!({ "live-restore": live_restore == LiveRestore::On });
        let daemon = Self::with(|_| keep);
        daemon.load_image("nginx");
        daemon
    }

    /// Starts one without Docker's user-space proxy that translates addresses of both families, with that image of
    /// `tests/images` in it.
    pub fn without_proxy(image: &str) -> Self {
        let translated =
            serde_json::json!({ "userland-proxy": false, "ip6tables": true, "experimental": true });
        let daemon = Self::with(|_| translated);
        daemon.load_image(image);
        daemon
    }

    /// Starts one as [`Self::start`], whose containers go on without it and whose data is on a small [`Self::disk`].
    pub fn on_small_disk(size: &str) -> Self {
        let mut disk = None;
        let mut daemon = Self::with(|folder| {
            disk = Some(SmallDisk::at(&folder.join("data"), size));
            serde_json::json!({ "live-restore": true })
        });
        daemon.load_image("nginx");
        daemon.disk = disk;
        daemon
    }

    /// Where its data is.
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("its disk is small")
    }

    /// Starts one that listens on a port of its network, too: for everybody.
    pub fn behind_a_port(port: u16) -> Self {
        Self::with(|_| serde_json::json!({ "hosts": [format!("tcp://127.0.0.1:{port}")] }))
    }

    /// Starts one that listens on a port of its network, too: for those who have certificates, which are in
    /// [`Self::certificates`].
    pub fn behind_a_guarded_port(port: u16) -> Self {
        Self::with(|folder| {
            let certificates = folder.join("certificates");
            fs::create_dir(&certificates).unwrap();
            certificates::write(&certificates);
            serde_json::json!({
                "hosts": [format!("tcp://127.0.0.1:{port}")],
                "tlsverify": true,
                "tlscacert": certificates.join("ca.pem"),
                "tlscert": certificates.join("server-cert.pem"),
                "tlskey": certificates.join("server-key.pem"),
            })
        })
    }

    /// The folder with a client's certificates.
    pub fn certificates(&self) -> PathBuf {
        self.folder.path().join("certificates")
    }

    /// Starts one with more settings.
    fn with(more: impl FnOnce(&Path) -> Value) -> Self {
        let folder = tempfile::Builder::new().prefix("spd").tempdir_in("/tmp").unwrap();
        let network = Arc::new(new_network());
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut config = serde_json::json!({
            "data-root": path("data"),
            "exec-root": path("exec"),
            "pidfile": path("dockerd.pid"),
            "hosts": [format!("unix://{}", path("docker.sock"))],
            "storage-driver": Docker::default().run(&["info", "--format", "{{.Driver}}"]),
            "containerd": path("containerd.sock"),
            // The daemon's default for shutting down is 15 s.
            "shutdown-timeout": 5,
        });
        for (key, value) in more(folder.path()).as_object().unwrap() {
            match (&mut config[key], value) {
                (Value::Array(list), Value::Array(more)) => list.extend(more.iter().cloned()),
                (place, value) => *place = value.clone(),
            }
        }
        fs::write(folder.path().join("daemon.json"), config.to_string()).unwrap();
        let containerd = launch_containerd(&folder);
        let process = launch(&folder, &network);
        let daemon = Self { folder, network, process, containerd, disk: None };
        daemon.wait_until_it_answers();
        daemon
    }

    /// The `docker` command for it.
    pub fn docker(&self) -> Docker {
        Docker::at(&self.folder.path().join("docker.sock"))
    }

    /// Where its socket is, as `DOCKER_HOST` has it.
    pub fn socket(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    /// Ends it as an operator does, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.begin();
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`].
    pub fn begin(&mut self) {
        self.process = launch(&self.folder, &self.network);
        self.wait_until_it_answers();
    }

    /// Kills it; its containerd goes on.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Kills its containerd, but not the shims that containers are the children of.
    pub fn kill_containerd(&mut self) {
        self.containerd.kill().unwrap();
        self.containerd.wait().unwrap();
    }

    /// Kills the shim that is the parent of a container's first process.
    pub fn kill_shim(&self, container: Pid) {
        let stat = fs::read_to_string(format!("/proc/{container}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let shim = Pid::from_raw(fields.split(' ').nth(1).unwrap().parse().unwrap());
        assert!(self.processes().contains(&shim), "{shim} is a shim");
        kill(shim, Signal::SIGKILL).unwrap();
    }

    /// Starts its containerd again after [`Self::kill_containerd`].
    pub fn begin_containerd(&mut self) {
        self.containerd = launch_containerd(&self.folder);
    }

    /// It answers nobody, until [`Self::thaw`].
    pub fn freeze(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
    }

    /// It answers again.
    pub fn thaw(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap())
    }

    /// Ends it as an operator does.
    pub fn stop(&mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        wait::until("the private daemon ends", || match self.process.try_wait().unwrap() {
            Some(_) => Ok(()),
            None => Err(self.log()),
        });
    }

    /// A published port as programs on the daemon's host reach it, without Docker's user-space proxy; only for
    /// threads that have done [`Self::enter`].
    pub fn address(&self, project: &str, port: u16) -> SocketAddr {
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway = self.docker().run(&["network", "inspect", &format!("{project}_default"), "-f", format]);
        SocketAddr::new(gateway.parse::<IpAddr>().unwrap(), port)
    }

    /// Its own addresses in a network that has IPv4 and a part of IPv6 that ends with `::/64`.
    pub fn gateways(&self, network: &str) -> [IpAddr; 2] {
        let configs = self.docker().run(&["network", "inspect", network, "-f", "{{json .IPAM.Config}}"]);
        let configs: Vec<Value> = serde_json::from_str(&configs).unwrap();
        let v4 = configs.iter().find_map(|config| config["Gateway"].as_str()?.parse::<Ipv4Addr>().ok());
        let v6 =
            configs.iter().find_map(|config| config["Subnet"].as_str()?.strip_suffix("/64")?.parse().ok());
        // The first address is the host's.
        let v6: Ipv6Addr = v6.map(|network: Ipv6Addr| (u128::from(network) + 1).into()).unwrap();
        [v4.unwrap().into(), v6.into()]
    }

    /// A pod as programs on the daemon's host reach it, past all published ports; only for threads that have done
    /// [`Self::enter`].
    pub fn pod_address(&self, project: &str, pod: &str) -> SocketAddr {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let sandbox = format!("{project}-{pod}-sandbox");
        let address = self.docker().run(&["container", "inspect", &sandbox, "-f", format]);
        SocketAddr::new(address.parse::<IpAddr>().unwrap(), 8080)
    }

    /// Moves the calling thread into the daemon's network.
    pub fn enter(&self) -> impl Fn() + Clone + Send + 'static {
        let network = Arc::clone(&self.network);
        move || setns(&*network, CloneFlags::CLONE_NEWNET).unwrap()
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("dockerd.log")).unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(15).collect();
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn wait_until_it_answers(&self) {
        wait::until("the private daemon answers", || {
            self.docker().try_run(&["version"]).map_err(|_| self.log())
        });
    }

    fn load_image(&self, name: &str) {
        let mut save = Command::new("docker")
            .args(["save", &images::build(name)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut load = Command::new("docker");
        self.docker().choose(&mut load);
        let loaded = load.arg("load").stdin(save.stdout.take().unwrap()).output().unwrap();
        assert!(save.wait().unwrap().success() && loaded.status.success(), "{loaded:?}");
    }

    /// Processes that belong to it, such as containers' shims: they name its folder.
    fn processes(&self) -> Vec<Pid> {
        let ours = self.folder.path().display().to_string();
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            String::from_utf8_lossy(&command).contains(&ours).then(|| Pid::from_raw(pid))
        })
        .collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("private daemon: {}", self.log());
        }
        // One that is frozen does not end.
        let _ = kill(self.pid(), Signal::SIGCONT);
        // Whatever of this fails, the rest is worth trying: the processes are ended by force below.
        let docker = self.docker();
        if let Ok(ids) = docker.try_run(&["ps", "-aq"])
            && !ids.is_empty()
        {
            let ids: Vec<_> = ids.lines().collect();
            let _ = docker.try_run(&[&["rm", "-fv"], &ids[..]].concat());
        }
        let _ = kill(self.pid(), Signal::SIGTERM);
        let begin = Instant::now();
        // One whose containerd was killed can wait for it for half a minute.
        while begin.elapsed() < Duration::from_secs(5) && matches!(self.process.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
        for _ in 0..50 {
            let left = self.processes();
            left.iter().for_each(|pid| {
                // It may have ended by itself.
                let _ = kill(*pid, Signal::SIGKILL);
            });
            if left.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        for mount in mounts_under(self.folder.path()) {
            let _ = Command::new("umount").arg("-l").arg(mount).output();
        }
    }
}

/// A network namespace with nothing but a loopback interface that is up; it lives as long as the file is open.
fn new_network() -> File {
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && echo up && read _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n", "`unshare` and `ip` make a network namespace (root is needed)");
    let file = File::open(format!("/proc/{}/ns/net", child.id())).unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    file
}

fn launch_containerd(folder: &TempDir) -> Child {
    let path = |name: &str| folder.path().join(name);
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = {:?}\n",
        path("data/containerd"),
        path("exec/containerd"),
        path("containerd.sock"),
    );
    fs::write(path("containerd.toml"), config).unwrap();
    let log = log_file(folder, "containerd.log");
    Command::new("containerd")
        .arg("--config")
        .arg(path("containerd.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn log_file(folder: &TempDir, name: &str) -> File {
    File::options().create(true).append(true).open(folder.path().join(name)).unwrap()
}

fn launch(folder: &TempDir, network: &File) -> Child {
    let log = log_file(folder, "dockerd.log");
    let namespace = format!("/proc/{}/fd/{}", std::process::id(), network.as_raw_fd());
    Command::new("nsenter")
        .arg(format!("--net={namespace}"))
        .args(["dockerd", "--config-file"])
        .arg(folder.path().join("daemon.json"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The innermost first.
fn mounts_under(folder: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(folder)).collect();
    points.reverse();
    points
}
