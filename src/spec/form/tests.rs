//! The hashes that running containers carry in their labels: none of them may ever change.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{ServiceForm, VersionForm};
use crate::spec::{
    Balance, Canary, Container, Dependency, DependencyCondition, Device, FailureAction, HealthTest,
    Healthcheck, Hook, Hooks, Image, Ipc, LogDriver, Mount, MountSource, NetworkAttachment, Order, Pod,
    PodNetwork, PortBinding, PortRange, PortSet, PreDeploy, Probe, ProbeKind, Probes, Protocol, PullPolicy,
    Restart, RestartCondition, Service, Share, Sharing, Ulimit, Unhealthy, Update,
};

/// What a row of the table does to the hash of the service or pod that it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Another version: the replica or the sandbox is replaced.
    Replaces,
    /// The same version, and another declaration of the file: it is pursued anew, and nobody is replaced.
    Declares,
    /// The same version.
    Nothing,
}

use Effect::{Declares, Nothing, Replaces};

type Row<T> = (&'static str, Effect, fn(&mut T));

fn base() -> Service {
    Service {
        name: "web".parse().unwrap(),
        pod: "web".parse().unwrap(),
        container: Container::new(Image("app:1".to_owned())),
        replicas: 2,
        container_name: None,
        restart: Restart::default(),
        stop_grace: Service::STOP_GRACE,
        depends_on: BTreeMap::new(),
        pull_policy: PullPolicy::Missing,
        sharing: Sharing::Auto,
        balance: Balance::LeastConnections,
        drain: Service::DRAIN,
        hold: Service::HOLD,
        probe: None,
        unhealthy: Unhealthy::Replace,
        hooks: Hooks::default(),
        pre_deploy: None,
        update: Update::default(),
        rollback: Update::default(),
        canary: None,
        exclusive_ports: PortSet::default(),
        shared_ports: PortSet::default(),
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn environment(pairs: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect()
}

fn mount(source: MountSource) -> Vec<Mount> {
    vec![Mount { target: "/data".to_owned(), source, read_only: false }]
}

fn bind() -> MountSource {
    MountSource::Bind { path: "/srv".to_owned(), create: false, propagation: None, selinux: None }
}

fn volume() -> MountSource {
    MountSource::Volume { name: "shop_data".to_owned(), no_copy: false, subpath: None }
}

fn tmpfs() -> MountSource {
    MountSource::Tmpfs { size: None, mode: None, options: Vec::new() }
}

fn check(test: HealthTest) -> Healthcheck {
    Healthcheck {
        test,
        interval: None,
        timeout: None,
        retries: None,
        start_period: None,
        start_interval: None,
    }
}

fn hook() -> Hook {
    Hook {
        command: list(&["echo", "up"]),
        user: None,
        privileged: false,
        working_dir: None,
        environment: BTreeMap::new(),
    }
}

fn started(hook: Hook) -> Hooks {
    Hooks { post_start: vec![hook], pre_stop: Vec::new() }
}

fn everything() -> Container {
    Container {
        image: Image("registry.example/app@sha256:12".to_owned()),
        image_id: text("sha256:ab"),
        command: Some(list(&["serve", "--port", "80"])),
        entrypoint: Some(list(&["/entry"])),
        environment: environment(&[
            ("A", Some("1")),
            ("B", None),
            ("Ü", Some("{{.Slot}} \"quoted\"\n\u{1}")),
        ]),
        labels: map(&[("a.b", "c"), ("empty", "")]),
        mounts: [
            mount(MountSource::Bind {
                path: "/srv".to_owned(),
                create: true,
                propagation: text("rslave"),
                selinux: text("z"),
            }),
            mount(MountSource::Volume {
                name: "d-{{.Slot}}".to_owned(),
                no_copy: true,
                subpath: text("inner"),
            }),
            mount(MountSource::Anonymous),
            mount(MountSource::Tmpfs { size: Some(1 << 40), mode: Some(0o1777), options: list(&["noexec"]) }),
        ]
        .concat(),
        user: text("1000:1000"),
        working_dir: text("/app"),
        healthcheck: Some(Healthcheck {
            test: HealthTest::Cmd(list(&["curl", "-f"])),
            interval: Some(Duration::from_millis(1500)),
            timeout: Some(Duration::from_secs(3)),
            retries: Some(4),
            start_period: Some(Duration::from_secs(60)),
            start_interval: Some(Duration::from_nanos(1)),
        }),
        init: Some(true),
        read_only: true,
        privileged: true,
        cap_add: list(&["NET_ADMIN"]),
        cap_drop: list(&["ALL"]),
        security_opt: list(&["no-new-privileges:true"]),
        devices: vec![Device {
            host: "/dev/fuse".to_owned(),
            container: "/dev/fuse".to_owned(),
            permissions: "rwm".to_owned(),
        }],
        resources: crate::spec::Resources {
            memory: Some(1 << 30),
            memory_reservation: Some(1 << 20),
            nano_cpus: Some(500_000_000),
            cpuset: text("0-1"),
            pids: Some(-1),
            shm_size: Some(64 << 20),
        },
        ulimits: BTreeMap::from([("nofile".to_owned(), Ulimit { soft: 1024, hard: -1 })]),
        group_add: list(&["video"]),
        stop_signal: text("SIGQUIT"),
        tty: true,
        stdin_open: true,
        logging: Some(LogDriver { driver: text("json-file"), options: map(&[("max-size", "1m")]) }),
        platform: text("linux/arm64"),
        runtime: text("runc"),
        ipc: None,
    }
}

#[rustfmt::skip]
fn container_rows() -> Vec<Row<Service>> {
    vec![
        ("base", Nothing, |_| {}),
        ("container.image", Replaces, |s| s.container.image = Image("app:2".to_owned())),
        ("container.image_id", Replaces, |s| s.container.image_id = text("sha256:ab")),
        ("container.command", Replaces, |s| s.container.command = Some(list(&["serve"]))),
        ("container.command (empty)", Replaces, |s| s.container.command = Some(Vec::new())),
        ("container.entrypoint", Replaces, |s| s.container.entrypoint = Some(list(&["/entry"]))),
        ("container.environment", Replaces, |s| s.container.environment = environment(&[("A", Some("1"))])),
        ("container.environment (removed)", Replaces, |s| s.container.environment = environment(&[("A", None)])),
        ("container.environment (order)", Replaces, |s| {
            s.container.environment = environment(&[("b", Some("")), ("a", Some("")), ("B", Some("")), ("é", Some("é/\"\\\n\t\u{7f}"))]);
        }),
        ("container.labels", Replaces, |s| s.container.labels = map(&[("a", "b")])),
        ("container.mounts (bind)", Replaces, |s| s.container.mounts = mount(bind())),
        ("container.mounts.target", Replaces, |s| {
            s.container.mounts = vec![Mount { target: "/other".to_owned(), source: bind(), read_only: false }];
        }),
        ("container.mounts.read_only", Replaces, |s| {
            s.container.mounts = vec![Mount { target: "/data".to_owned(), source: bind(), read_only: true }];
        }),
        ("container.mounts.bind.path", Replaces, |s| {
            s.container.mounts = mount(MountSource::Bind { path: "/opt".to_owned(), create: false, propagation: None, selinux: None });
        }),
        ("container.mounts.bind.create", Replaces, |s| {
            s.container.mounts = mount(MountSource::Bind { path: "/srv".to_owned(), create: true, propagation: None, selinux: None });
        }),
        ("container.mounts.bind.propagation", Replaces, |s| {
            s.container.mounts = mount(MountSource::Bind { path: "/srv".to_owned(), create: false, propagation: text("rslave"), selinux: None });
        }),
        ("container.mounts.bind.selinux", Replaces, |s| {
            s.container.mounts = mount(MountSource::Bind { path: "/srv".to_owned(), create: false, propagation: None, selinux: text("z") });
        }),
        ("container.mounts (volume)", Replaces, |s| s.container.mounts = mount(volume())),
        ("container.mounts.volume.name", Replaces, |s| {
            s.container.mounts = mount(MountSource::Volume { name: "data-{{.Slot}}".to_owned(), no_copy: false, subpath: None });
        }),
        ("container.mounts.volume.no_copy", Replaces, |s| {
            s.container.mounts = mount(MountSource::Volume { name: "shop_data".to_owned(), no_copy: true, subpath: None });
        }),
        ("container.mounts.volume.subpath", Replaces, |s| {
            s.container.mounts = mount(MountSource::Volume { name: "shop_data".to_owned(), no_copy: false, subpath: text("inner") });
        }),
        ("container.mounts (anonymous)", Replaces, |s| s.container.mounts = mount(MountSource::Anonymous)),
        ("container.mounts (tmpfs)", Replaces, |s| s.container.mounts = mount(tmpfs())),
        ("container.mounts.tmpfs.size", Replaces, |s| {
            s.container.mounts = mount(MountSource::Tmpfs { size: Some(1 << 20), mode: None, options: Vec::new() });
        }),
        ("container.mounts.tmpfs.mode", Replaces, |s| {
            s.container.mounts = mount(MountSource::Tmpfs { size: None, mode: Some(0o700), options: Vec::new() });
        }),
        ("container.mounts.tmpfs.options", Replaces, |s| {
            s.container.mounts = mount(MountSource::Tmpfs { size: None, mode: None, options: list(&["noexec"]) });
        }),
        ("container.mounts (two)", Replaces, |s| s.container.mounts = [mount(bind()), mount(volume())].concat()),
        ("container.user", Replaces, |s| s.container.user = text("1000")),
        ("container.working_dir", Replaces, |s| s.container.working_dir = text("/app")),
        ("container.healthcheck (inherit)", Replaces, |s| s.container.healthcheck = Some(check(HealthTest::Inherit))),
        ("container.healthcheck (none)", Replaces, |s| s.container.healthcheck = Some(check(HealthTest::None))),
        ("container.healthcheck (cmd)", Replaces, |s| s.container.healthcheck = Some(check(HealthTest::Cmd(list(&["true"]))))),
        ("container.healthcheck (shell)", Replaces, |s| s.container.healthcheck = Some(check(HealthTest::Shell("true".to_owned())))),
        ("container.healthcheck.interval", Replaces, |s| {
            s.container.healthcheck = Some(Healthcheck { interval: Some(Duration::from_millis(1500)), ..check(HealthTest::Inherit) });
        }),
        ("container.healthcheck.timeout", Replaces, |s| {
            s.container.healthcheck = Some(Healthcheck { timeout: Some(Duration::from_secs(2)), ..check(HealthTest::Inherit) });
        }),
        ("container.healthcheck.retries", Replaces, |s| {
            s.container.healthcheck = Some(Healthcheck { retries: Some(5), ..check(HealthTest::Inherit) });
        }),
        ("container.healthcheck.start_period", Replaces, |s| {
            s.container.healthcheck = Some(Healthcheck { start_period: Some(Duration::from_secs(60)), ..check(HealthTest::Inherit) });
        }),
        ("container.healthcheck.start_interval", Replaces, |s| {
            s.container.healthcheck = Some(Healthcheck { start_interval: Some(Duration::from_secs(1)), ..check(HealthTest::Inherit) });
        }),
        ("container.init", Replaces, |s| s.container.init = Some(true)),
        ("container.init (off)", Replaces, |s| s.container.init = Some(false)),
        ("container.read_only", Replaces, |s| s.container.read_only = true),
        ("container.privileged", Replaces, |s| s.container.privileged = true),
        ("container.cap_add", Replaces, |s| s.container.cap_add = list(&["NET_ADMIN"])),
        ("container.cap_drop", Replaces, |s| s.container.cap_drop = list(&["ALL"])),
        ("container.security_opt", Replaces, |s| s.container.security_opt = list(&["no-new-privileges:true"])),
        ("container.devices", Replaces, |s| {
            s.container.devices = vec![Device { host: "/dev/a".to_owned(), container: "/dev/b".to_owned(), permissions: "rwm".to_owned() }];
        }),
        ("container.devices.host", Replaces, |s| {
            s.container.devices = vec![Device { host: "/dev/c".to_owned(), container: "/dev/b".to_owned(), permissions: "rwm".to_owned() }];
        }),
        ("container.devices.container", Replaces, |s| {
            s.container.devices = vec![Device { host: "/dev/a".to_owned(), container: "/dev/c".to_owned(), permissions: "rwm".to_owned() }];
        }),
        ("container.devices.permissions", Replaces, |s| {
            s.container.devices = vec![Device { host: "/dev/a".to_owned(), container: "/dev/b".to_owned(), permissions: "r".to_owned() }];
        }),
        ("container.resources.shm_size", Replaces, |s| s.container.resources.shm_size = Some(1 << 20)),
        ("container.resources.memory", Nothing, |s| s.container.resources.memory = Some(1 << 30)),
        ("container.resources.memory_reservation", Nothing, |s| s.container.resources.memory_reservation = Some(1 << 30)),
        ("container.resources.nano_cpus", Nothing, |s| s.container.resources.nano_cpus = Some(1)),
        ("container.resources.cpuset", Nothing, |s| s.container.resources.cpuset = text("0")),
        ("container.resources.pids", Nothing, |s| s.container.resources.pids = Some(-1)),
        ("container.ulimits", Replaces, |s| {
            s.container.ulimits = BTreeMap::from([("nofile".to_owned(), Ulimit { soft: 1, hard: 2 })]);
        }),
        ("container.ulimits.soft", Replaces, |s| {
            s.container.ulimits = BTreeMap::from([("nofile".to_owned(), Ulimit { soft: 3, hard: 2 })]);
        }),
        ("container.ulimits.hard", Replaces, |s| {
            s.container.ulimits = BTreeMap::from([("nofile".to_owned(), Ulimit { soft: 1, hard: -1 })]);
        }),
        ("container.group_add", Replaces, |s| s.container.group_add = list(&["video"])),
        ("container.stop_signal", Replaces, |s| s.container.stop_signal = text("SIGQUIT")),
        ("container.tty", Replaces, |s| s.container.tty = true),
        ("container.stdin_open", Replaces, |s| s.container.stdin_open = true),
        ("container.logging", Replaces, |s| s.container.logging = Some(LogDriver { driver: None, options: BTreeMap::new() })),
        ("container.logging.driver", Replaces, |s| s.container.logging = Some(LogDriver { driver: text("local"), options: BTreeMap::new() })),
        ("container.logging.options", Replaces, |s| {
            s.container.logging = Some(LogDriver { driver: None, options: map(&[("max-size", "1m")]) });
        }),
        ("container.platform", Replaces, |s| s.container.platform = text("linux/arm64")),
        ("container.runtime", Replaces, |s| s.container.runtime = text("runc")),
        ("container.ipc (own)", Replaces, |s| s.container.ipc = Some(Ipc::Own)),
        ("container.ipc (pod)", Replaces, |s| s.container.ipc = Some(Ipc::Pod)),
        ("container.ipc (host)", Replaces, |s| s.container.ipc = Some(Ipc::Host)),
        ("container (everything)", Replaces, |s| s.container = everything()),
    ]
}

#[rustfmt::skip]
fn service_rows() -> Vec<Row<Service>> {
    vec![
        ("service.pod", Replaces, |s| s.pod = "shared".parse().unwrap()),
        ("service.container_name", Replaces, |s| s.container_name = text("my-web")),
        ("service.hooks.post_start", Replaces, |s| s.hooks = started(hook())),
        ("service.hooks.pre_stop", Replaces, |s| s.hooks = Hooks { post_start: Vec::new(), pre_stop: vec![hook()] }),
        ("service.hooks (both)", Replaces, |s| s.hooks = Hooks { post_start: vec![hook(), hook()], pre_stop: vec![hook()] }),
        ("service.hooks.command", Replaces, |s| s.hooks = started(Hook { command: list(&["echo"]), ..hook() })),
        ("service.hooks.user", Replaces, |s| s.hooks = started(Hook { user: text("0"), ..hook() })),
        ("service.hooks.privileged", Replaces, |s| s.hooks = started(Hook { privileged: true, ..hook() })),
        ("service.hooks.working_dir", Replaces, |s| s.hooks = started(Hook { working_dir: text("/"), ..hook() })),
        ("service.hooks.environment", Replaces, |s| {
            s.hooks = started(Hook { environment: environment(&[("A", Some("1")), ("B", None)]), ..hook() });
        }),
        ("service (everything)", Replaces, |s| {
            s.container = everything();
            s.container_name = text("my-web");
            s.pod = "shared".parse().unwrap();
            s.hooks = Hooks { post_start: vec![hook()], pre_stop: vec![hook()] };
            s.canary = Some(Canary { image: Image("app:2".to_owned()), image_id: text("sha256:cd"), share: Share::ALL });
        }),
        ("service.canary.image", Declares, |s| {
            s.canary = Some(Canary { image: Image("app:2".to_owned()), image_id: None, share: Share::NONE });
        }),
        ("service.canary.image_id", Declares, |s| {
            s.canary = Some(Canary { image: Image("app:2".to_owned()), image_id: text("sha256:cd"), share: Share::NONE });
        }),
        ("service.canary.share", Declares, |s| {
            s.canary = Some(Canary { image: Image("app:2".to_owned()), image_id: None, share: Share::of_thousand(50).unwrap() });
        }),
        ("service.name", Nothing, |s| s.name = "other".parse().unwrap()),
        ("service.replicas", Nothing, |s| s.replicas = 7),
        ("service.restart", Nothing, |s| s.restart = Restart { condition: RestartCondition::Never, delay: Some(Duration::ZERO), max_attempts: Some(1), window: Some(Duration::ZERO) }),
        ("service.stop_grace", Nothing, |s| s.stop_grace = Duration::ZERO),
        ("service.depends_on", Nothing, |s| {
            let dependency = Dependency { condition: DependencyCondition::Healthy, required: true, restart: true };
            s.depends_on = BTreeMap::from([("db".parse().unwrap(), dependency)]);
        }),
        ("service.pull_policy", Nothing, |s| s.pull_policy = PullPolicy::Always),
        ("service.sharing", Nothing, |s| s.sharing = Sharing::Application),
        ("service.balance", Nothing, |s| s.balance = Balance::Hash),
        ("service.drain", Nothing, |s| s.drain = Duration::ZERO),
        ("service.hold", Nothing, |s| s.hold = Duration::ZERO),
        ("service.probe", Nothing, |s| {
            s.probe = Some(Probes { startup: None, readiness: Some(Probe::of(ProbeKind::Tcp)), liveness: None });
        }),
        ("service.unhealthy", Nothing, |s| s.unhealthy = Unhealthy::Keep),
        ("service.before", Nothing, |s| {
            s.pre_deploy = Some(PreDeploy { command: list(&["migrate"]), image: None, environment: BTreeMap::new(), timeout: PreDeploy::TIMEOUT });
        }),
        ("service.update", Nothing, |s| {
            s.update = Update { parallelism: 3, order: Some(Order::StopFirst), failure_action: FailureAction::Pause, ..Update::default() };
        }),
        ("service.rollback", Nothing, |s| s.rollback = Update { parallelism: 3, ..Update::default() }),
        ("service.exclusive_ports", Nothing, |s| s.exclusive_ports = range(30_000, 30_009)),
        ("service.shared_ports", Nothing, |s| s.shared_ports = range(8080, 8080)),
    ]
}

fn range(first: u16, last: u16) -> PortSet {
    [Protocol::Tcp, Protocol::Udp].map(|protocol| PortRange { protocol, first, last }).into_iter().collect()
}

fn attached(attachment: NetworkAttachment) -> PodNetwork {
    PodNetwork::Networks(BTreeMap::from([("front".to_owned(), attachment)]))
}

fn binding() -> PortBinding {
    PortBinding {
        service: "web".parse().unwrap(),
        host_ip: None,
        host_port: None,
        container_port: 80,
        protocol: Protocol::Tcp,
    }
}

#[rustfmt::skip]
fn pod_rows() -> Vec<Row<Pod>> {
    vec![
        ("pod (base)", Nothing, |_| {}),
        ("pod.network (host)", Replaces, |p| p.network = PodNetwork::Host),
        ("pod.network (none)", Replaces, |p| p.network = PodNetwork::None),
        ("pod.network (bridge)", Replaces, |p| p.network = PodNetwork::Bridge),
        ("pod.network (no networks)", Replaces, |p| p.network = PodNetwork::Networks(BTreeMap::new())),
        ("pod.network (another one)", Replaces, |p| p.network = attached(NetworkAttachment::default())),
        ("pod.network.aliases", Replaces, |p| p.network = attached(NetworkAttachment { aliases: list(&["w"]), ..NetworkAttachment::default() })),
        ("pod.network.ipv4_address", Replaces, |p| p.network = attached(NetworkAttachment { ipv4_address: text("10.0.0.2"), ..NetworkAttachment::default() })),
        ("pod.network.ipv6_address", Replaces, |p| p.network = attached(NetworkAttachment { ipv6_address: text("fd00::2"), ..NetworkAttachment::default() })),
        ("pod.network.priority", Replaces, |p| p.network = attached(NetworkAttachment { priority: -1, ..NetworkAttachment::default() })),
        ("pod.network (two)", Replaces, |p| {
            p.network = PodNetwork::Networks(BTreeMap::from([
                ("front".to_owned(), NetworkAttachment { aliases: list(&["w"]), ipv4_address: text("10.0.0.2"), ipv6_address: text("fd00::2"), priority: 5 }),
                ("back".to_owned(), NetworkAttachment::default()),
            ]));
        }),
        ("pod.ports", Replaces, |p| p.ports = vec![binding()]),
        ("pod.ports.service", Replaces, |p| p.ports = vec![PortBinding { service: "api".parse().unwrap(), ..binding() }]),
        ("pod.ports.host_ip", Replaces, |p| p.ports = vec![PortBinding { host_ip: Some("127.0.0.1".parse().unwrap()), ..binding() }]),
        ("pod.ports.host_ip (v6)", Replaces, |p| p.ports = vec![PortBinding { host_ip: Some("2001:db8:0::1".parse().unwrap()), ..binding() }]),
        ("pod.ports.host_ip (mapped)", Replaces, |p| p.ports = vec![PortBinding { host_ip: Some("::ffff:10.0.0.1".parse().unwrap()), ..binding() }]),
        ("pod.ports.host_port", Replaces, |p| p.ports = vec![PortBinding { host_port: Some(8080), ..binding() }]),
        ("pod.ports.container_port", Replaces, |p| p.ports = vec![PortBinding { container_port: 81, ..binding() }]),
        ("pod.ports.protocol (udp)", Replaces, |p| p.ports = vec![PortBinding { protocol: Protocol::Udp, ..binding() }]),
        ("pod.ports.protocol (sctp)", Replaces, |p| p.ports = vec![PortBinding { protocol: Protocol::Sctp, ..binding() }]),
        ("pod.expose", Replaces, |p| p.expose = BTreeSet::from([(80, Protocol::Tcp)])),
        ("pod.expose (three)", Replaces, |p| p.expose = BTreeSet::from([(80, Protocol::Udp), (80, Protocol::Tcp), (9, Protocol::Sctp)])),
        ("pod.hostname", Replaces, |p| p.hostname = text("web")),
        ("pod.domainname", Replaces, |p| p.domainname = text("example.com")),
        ("pod.dns", Replaces, |p| p.dns = list(&["1.1.1.1"])),
        ("pod.dns_opt", Replaces, |p| p.dns_opt = list(&["ndots:1"])),
        ("pod.dns_search", Replaces, |p| p.dns_search = list(&["example.com"])),
        ("pod.extra_hosts", Replaces, |p| p.extra_hosts = list(&["db:10.0.0.3"])),
        ("pod.sysctls", Replaces, |p| p.sysctls = map(&[("net.core.somaxconn", "1024")])),
        ("pod.shm_size", Replaces, |p| p.shm_size = Some(64 << 20)),
        ("pod (everything)", Replaces, |p| {
            *p = Pod {
                network: attached(NetworkAttachment::default()),
                ports: vec![binding(), PortBinding { host_ip: Some("::1".parse().unwrap()), host_port: Some(1), ..binding() }],
                expose: BTreeSet::from([(80, Protocol::Tcp)]),
                hostname: text("web"),
                domainname: text("example.com"),
                dns: list(&["1.1.1.1"]),
                dns_opt: list(&["ndots:1"]),
                dns_search: list(&["example.com"]),
                extra_hosts: list(&["db:10.0.0.3"]),
                sysctls: map(&[("net.core.somaxconn", "1024")]),
                shm_size: Some(1),
            };
        }),
    ]
}

fn services() -> Vec<(&'static str, Effect, Service)> {
    let rows = container_rows().into_iter().chain(service_rows());
    rows.map(|(name, effect, change)| {
        let mut service = base();
        change(&mut service);
        (name, effect, service)
    })
    .collect()
}

fn pods() -> Vec<(&'static str, Effect, Pod)> {
    let rows = pod_rows().into_iter();
    rows.map(|(name, effect, change)| {
        let mut pod = Pod::default();
        change(&mut pod);
        (name, effect, pod)
    })
    .collect()
}

/// Each row of the table with its hashes: that of the version, and for a service that of what is declared.
fn table() -> String {
    let services = services()
        .into_iter()
        .map(|(name, _, service)| format!("{} {} {name}\n", service.generation(), service.declared()));
    let pods = pods().into_iter().map(|(name, _, pod)| format!("{} {name}\n", pod.generation()));
    services.chain(pods).collect()
}

#[test]
fn the_hash_of_what_exists_never_changes() {
    // Made by the code of before there was a form. Lines are added; one that is changed restarts containers of users.
    let recorded = include_str!("hashes.txt");
    let table = table();
    let others: Vec<_> = table.lines().filter(|line| !recorded.contains(line)).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert_eq!(recorded, table);
}

#[test]
fn what_replaces_somebody_has_another_hash_and_the_rest_has_not() {
    let (version, declared) = (base().generation(), base().declared());
    for (name, effect, service) in services() {
        let is = match (service.generation() == version, service.declared() == declared) {
            (true, true) => Nothing,
            (true, false) => Declares,
            (false, _) => Replaces,
        };
        assert_eq!(is, effect, "{name}");
    }
    for (name, effect, pod) in pods() {
        let is = if pod.generation() == Pod::default().generation() { Nothing } else { Replaces };
        assert_eq!(is, effect, "{name}");
    }
}

#[test]
fn no_two_rows_have_the_same_hash_but_those_that_change_nothing() {
    let mut seen = BTreeMap::new();
    let services = services().into_iter().map(|(name, effect, s)| (name, effect, s.declared()));
    let pods = pods().into_iter().map(|(name, effect, p)| (name, effect, p.generation()));
    for (name, effect, hash) in services.chain(pods) {
        if effect != Nothing
            && let Some(other) = seen.insert(hash, name)
        {
            panic!("{name} is {other}");
        }
    }
}

#[test]
fn what_is_kept_is_read_back() {
    for (name, _, service) in services() {
        let json = serde_json::to_string(&ServiceForm::from(&service)).unwrap();
        let form: ServiceForm = serde_json::from_str(&json).unwrap();
        assert_eq!(Service::try_from(form).unwrap(), service, "{name}");
    }
}

#[test]
fn ports_that_nobody_speaks_of_are_left_out_of_what_is_kept() {
    let kept = |service: &Service| serde_json::to_value(ServiceForm::from(service)).unwrap();
    let plain = kept(&base());
    assert!(plain.get("exclusive_ports").is_none() && plain.get("shared_ports").is_none(), "{plain}");
    let ranges = |json| serde_json::from_str::<serde_json::Value>(json).unwrap();
    let service = Service { exclusive_ports: range(53, 53), ..base() };
    assert_eq!(
        kept(&service)["exclusive_ports"],
        ranges(r#"[{"protocol":"tcp","first":53,"last":53},{"protocol":"udp","first":53,"last":53}]"#)
    );
}

#[test]
fn what_cannot_be_a_service_is_refused() {
    let good = serde_json::to_value(ServiceForm::from(&base())).unwrap();
    let mut nameless = good.clone();
    nameless["name"] = "-".into();
    let form: ServiceForm = serde_json::from_value(nameless).unwrap();
    let refused = Service::try_from(form).unwrap_err().to_string();
    assert!(refused.contains("`-` cannot be a service name"), "{refused}");
    let mut endless = good;
    endless["drain"] = serde_json::json!({ "secs": u64::MAX, "nanos": u32::MAX });
    let form: ServiceForm = serde_json::from_value(endless).unwrap();
    assert_eq!(Service::try_from(form).unwrap().drain, Duration::MAX);
}

#[test]
fn the_example_of_the_documentation_is_right() {
    let text = include_str!("../../../docs/reference/generation.md");
    let json = text.split_once("```json\n").and_then(|(_, rest)| rest.split_once("\n```")).unwrap().0;
    assert_eq!(serde_json::to_string(&VersionForm::from(&base())).unwrap(), json);
    let hash = base().generation();
    assert!(text.contains(&format!("without a line end, is `{hash}`")), "{hash}");
}
