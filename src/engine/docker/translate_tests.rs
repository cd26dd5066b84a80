use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    engine::{ContainerId, Labels, Nonce, Role},
    spec::{Device, Generation, Hooks, Image, Mount, MountSource, Protocol, Slot, Ulimit},
};

fn create(container: Container, namespaces: Namespaces) -> CreateContainer {
    CreateContainer {
        name: "shop-web-1".to_owned(),
        labels: Labels {
            project: "shop".parse().unwrap(),
            pod: "web".parse().unwrap(),
            generation: Generation::from_label("0123456789ab"),
            role: Role::Replica { service: "web".parse().unwrap(), slot: Slot::new(1).unwrap() },
        },
        hooks: Hooks::default(),
        container,
        namespaces,
    }
}

fn translated(container: Container, namespaces: Namespaces) -> ContainerCreateBody {
    super::container(&create(container, namespaces), &Nonce::of_number(1))
}

fn inside(ipc: IpcNamespace) -> Namespaces {
    Namespaces::Join { sandbox: ContainerId("box".to_owned()), ipc }
}

fn joined(container: Container) -> (ContainerCreateBody, HostConfig) {
    let mut body = translated(container, inside(IpcNamespace::Sandbox));
    let host = body.host_config.take().unwrap();
    (body, host)
}

fn plain() -> Container {
    Container::new(Image("app:1".to_owned()))
}

fn pod() -> Pod {
    Pod {
        ports: [Some(8080), None]
            .into_iter()
            .map(|host_port| Port {
                service: "web".parse().unwrap(),
                host_ip: Some("127.0.0.1".parse().unwrap()),
                host_port,
                container_port: 80,
                protocol: Protocol::Tcp,
            })
            .collect(),
        expose: [(9000, Protocol::Udp)].into(),
        hostname: Some("shop".to_owned()),
        dns: vec!["10.0.0.1".to_owned()],
        extra_hosts: vec!["db:10.0.0.2".to_owned()],
        sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "1024".to_owned())]),
        shm_size: Some(1 << 26),
        ..Pod::default()
    }
}

fn sandboxed(pod: Pod) -> (ContainerCreateBody, HostConfig) {
    let networks = ["shop_front", "shop_back"].map(|name| {
        let aliases = vec!["web".to_owned()];
        (name.to_owned(), NetworkAttachment { aliases, ..NetworkAttachment::default() })
    });
    let namespaces = Namespaces::Own { pod: Box::new(pod), networks: networks.to_vec() };
    let mut body = translated(plain(), namespaces);
    let host = body.host_config.take().unwrap();
    (body, host)
}

#[test]
fn a_replica_joins_and_has_nothing_that_the_engine_refuses_there() {
    let (body, host) =
        joined(Container { resources: Resources { shm_size: Some(1), ..Resources::default() }, ..plain() });
    assert_eq!(host.network_mode.as_deref(), Some("container:box"));
    assert_eq!(host.ipc_mode.as_deref(), Some("container:box"));
    assert_eq!((body.hostname, body.domainname, body.exposed_ports), (None, None, None));
    assert_eq!((host.dns, host.extra_hosts, host.port_bindings, host.sysctls), (None, None, None, None));
    assert_eq!(host.shm_size, None);
    let own = |sysctls: &[(&str, &str)]| {
        let sysctls = sysctls.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let ipc = IpcNamespace::Own { shm_size: Some(1 << 20), sysctls: sysctls.collect() };
        translated(plain(), inside(ipc)).host_config.unwrap()
    };
    assert_eq!((own(&[]).ipc_mode.as_deref(), own(&[]).shm_size), (Some("private"), Some(1 << 20)));
    assert_eq!(own(&[]).sysctls, None);
    assert_eq!(own(&[("kernel.shmmni", "77")]).sysctls.unwrap()["kernel.shmmni"], "77");
    let of_host = translated(plain(), inside(IpcNamespace::Host)).host_config.unwrap();
    assert_eq!(of_host.ipc_mode.as_deref(), Some("host"));
    assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
}

#[test]
fn a_sandbox_has_the_ports_the_names_and_the_settings() {
    let (body, host) = sandboxed(pod());
    assert_eq!(body.hostname.as_deref(), Some("shop"));
    assert_eq!(body.exposed_ports.unwrap(), ["9000/udp", "80/tcp"]);
    let bindings = host.port_bindings.unwrap()["80/tcp"].clone().unwrap();
    let ports: Vec<_> = bindings.iter().map(|b| b.host_port.as_deref().unwrap()).collect();
    // No port of the host means: the engine chooses.
    assert_eq!(ports, ["8080", ""]);
    assert_eq!(bindings[0].host_ip.as_deref(), Some("127.0.0.1"));
    let sysctls = host.sysctls.unwrap();
    assert_eq!((sysctls[MIGRATE].as_str(), sysctls["net.core.somaxconn"].as_str()), ("1", "1024"));
    assert_eq!((host.ipc_mode.as_deref(), host.shm_size), (Some("shareable"), Some(1 << 26)));
    // The first network is given at once, the others are connected.
    assert_eq!(host.network_mode.as_deref(), Some("shop_front"));
    let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
    assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["shop_front"]);
    assert_eq!(endpoints["shop_front"].aliases.as_deref().unwrap(), ["web"]);
}

#[test]
fn the_users_own_value_of_a_setting_stays() {
    let mut pod = pod();
    pod.sysctls.insert(MIGRATE.to_owned(), "0".to_owned());
    assert_eq!(sandboxed(pod).1.sysctls.unwrap()[MIGRATE], "0");
}

#[test]
fn pods_without_a_network_of_their_own_name_it() {
    for (network, mode) in [(PodNetwork::None, "none"), (PodNetwork::Bridge, "bridge")] {
        let (_, host) = sandboxed(Pod { network, ..Pod::default() });
        assert_eq!(host.network_mode.as_deref(), Some(mode));
    }
    let body = translated(plain(), Namespaces::Host(Box::new(pod())));
    let host = body.host_config.unwrap();
    assert_eq!((host.network_mode.as_deref(), host.port_bindings, host.sysctls), (Some("host"), None, None));
}

#[test]
fn a_process_is_asked_for_as_written() {
    let (body, host) = joined(Container {
        command: Some(vec!["serve".to_owned()]),
        entrypoint: Some(Vec::new()),
        environment: BTreeMap::from([
            ("A".to_owned(), Some("1".to_owned())),
            ("GONE".to_owned(), None),
            ("EMPTY".to_owned(), Some(String::new())),
        ]),
        // Ours win.
        labels: [("team", "shop"), (Labels::PROJECT, "other"), (Labels::HOOKS, "all"), (Labels::NONCE, "")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        init: Some(true),
        read_only: true,
        cap_drop: vec!["ALL".to_owned()],
        devices: vec![Device {
            host: "/dev/null".to_owned(),
            container: "/dev/x".to_owned(),
            permissions: "r".to_owned(),
        }],
        ulimits: BTreeMap::from([("nofile".to_owned(), Ulimit { soft: 1, hard: -1 })]),
        resources: Resources {
            memory: Some(64 << 20),
            nano_cpus: Some(500_000_000),
            pids: Some(-1),
            ..Resources::default()
        },
        stop_signal: Some("SIGQUIT".to_owned()),
        ..plain()
    });
    assert_eq!(body.env.unwrap(), ["A=1", "EMPTY=", "GONE"]);
    // The daemon takes an empty list for "as the image says".
    assert_eq!(body.entrypoint.unwrap(), [""]);
    assert_eq!(body.cmd.unwrap(), ["serve"]);
    let labels = body.labels.unwrap();
    assert_eq!((labels["team"].as_str(), labels[Labels::PROJECT].as_str()), ("shop", "shop"));
    assert_eq!(labels[Labels::HOOKS], "{\"post_start\":[],\"pre_stop\":[]}");
    assert_eq!(labels[Labels::NONCE], Nonce::of_number(1).to_string());
    assert_eq!((host.memory, host.nano_cpus, host.pids_limit), (Some(64 << 20), Some(500_000_000), Some(-1)));
    assert_eq!((host.init, host.readonly_rootfs), (Some(true), Some(true)));
    assert_eq!(host.devices.unwrap()[0].path_in_container.as_deref(), Some("/dev/x"));
    assert_eq!(host.ulimits.unwrap()[0].hard, Some(-1));
    assert_eq!(body.stop_signal.as_deref(), Some("SIGQUIT"));
}

#[test]
fn health_checks_are_told_in_the_engines_words() {
    let of = |test| {
        let check = Healthcheck {
            test,
            interval: Some(Duration::from_millis(1500)),
            timeout: None,
            retries: Some(3),
            start_period: None,
            start_interval: None,
        };
        let asked = healthcheck(&check);
        assert_eq!((asked.interval, asked.retries), (Some(1_500_000_000), Some(3)));
        asked.test.unwrap()
    };
    assert_eq!(of(HealthTest::Inherit), [""; 0]);
    assert_eq!(of(HealthTest::None), ["NONE"]);
    assert_eq!(of(HealthTest::Cmd(vec!["true".to_owned()])), ["CMD", "true"]);
    assert_eq!(of(HealthTest::Shell("curl x | grep y".to_owned())), ["CMD-SHELL", "curl x | grep y"]);
}

#[test]
fn each_kind_of_mount_is_asked_for_in_its_own_way() {
    let mount = |target: &str, source, read_only| Mount { target: target.to_owned(), source, read_only };
    let bind = |create, selinux: Option<&str>| MountSource::Bind {
        path: "/srv".to_owned(),
        create,
        propagation: Some("rslave".to_owned()),
        selinux: selinux.map(str::to_owned),
    };
    let volume = MountSource::Volume { name: "shop_data".to_owned(), no_copy: true, subpath: None };
    let tmpfs =
        MountSource::Tmpfs { size: Some(1024), mode: Some(0o1777), options: vec!["noexec".to_owned()] };
    let (body, host) = joined(Container {
        mounts: vec![
            mount("/a", bind(true, None), true),
            mount("/b", bind(false, Some("Z")), false),
            mount("/c", bind(false, None), false),
            mount("/d", volume, true),
            mount("/e", tmpfs, false),
            mount("/f", MountSource::Anonymous, false),
        ],
        ..plain()
    });
    assert_eq!(host.binds.unwrap(), ["/srv:/a:ro,rslave", "/srv:/b:rw,rslave,Z"]);
    let mounts = host.mounts.unwrap();
    assert_eq!((mounts[0].target.as_deref(), mounts[0].source.as_deref()), (Some("/c"), Some("/srv")));
    assert_eq!((mounts[1].source.as_deref(), mounts[1].read_only), (Some("shop_data"), Some(true)));
    assert_eq!(mounts[1].volume_options.as_ref().unwrap().no_copy, Some(true));
    assert_eq!(host.tmpfs.unwrap()["/e"], "noexec,size=1024,mode=1777");
    assert_eq!(body.volumes.unwrap(), ["/f"]);
}
