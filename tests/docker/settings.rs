//! Each setting of a container, as the process in it or the engine itself sees it.

use std::time::Duration;

use sameport::{
    engine::{Engine, Health, Namespaces, docker::START_INTERVAL},
    spec::{
        Container, Device, HealthTest, Healthcheck, LogDriver, Mount, MountSource, Pod, PodNetwork,
        Resources, Ulimit, Volume,
    },
};

use super::workbench::{Workbench, nowhere, shell};

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn a_process_gets_what_the_file_says() {
    let bench = Workbench::new().await;
    let container = Container {
        environment: [("COLOR".to_owned(), Some("green".to_owned())), ("LISTEN".to_owned(), None)].into(),
        user: Some("65534:65534".to_owned()),
        working_dir: Some("/tmp".to_owned()),
        init: Some(true),
        read_only: true,
        cap_drop: texts(&["ALL"]),
        cap_add: texts(&["NET_BIND_SERVICE"]),
        security_opt: texts(&["no-new-privileges:true"]),
        devices: vec![Device {
            host: "/dev/zero".to_owned(),
            container: "/dev/nought".to_owned(),
            permissions: "r".to_owned(),
        }],
        ulimits: [("nofile".to_owned(), Ulimit { soft: 100, hard: 200 })].into(),
        group_add: texts(&["4242"]),
        ..shell("sleep 1000")
    };
    let id = bench.start(&bench.replica(1, container, nowhere())).await;
    let sh = |line: &str| bench.sh(&id, line);
    assert_eq!(sh("echo $COLOR ${LISTEN-unset}"), "green unset");
    assert_eq!(sh("id -u; id -g"), "65534\n65534");
    assert!(sh("id -G").split(' ').any(|group| group == "4242"), "{}", sh("id -G"));
    assert_eq!(sh("pwd"), "/tmp");
    assert!(sh("cat /proc/1/cmdline").contains("init"), "{}", sh("cat /proc/1/cmdline"));
    assert_eq!(sh("touch /x 2>/dev/null || echo refused"), "refused");
    assert_eq!(sh("grep CapBnd /proc/self/status").split_whitespace().last(), Some("0000000000000400"));
    assert_eq!(sh("grep NoNewPrivs /proc/self/status").split_whitespace().last(), Some("1"));
    assert_eq!(sh("head -c 3 /dev/nought | wc -c").trim(), "3");
    let limits = sh("grep 'open files' /proc/1/limits");
    assert!(limits.split_whitespace().collect::<Vec<_>>().ends_with(&["100", "200", "files"]), "{limits}");
}

#[tokio::test]
async fn limits_reach_the_engine() {
    let bench = Workbench::new().await;
    let resources = Resources {
        memory: Some(64 << 20),
        memory_reservation: Some(32 << 20),
        nano_cpus: Some(500_000_000),
        cpuset: Some("0".to_owned()),
        pids: Some(50),
        shm_size: Some(2 << 20),
    };
    let container = Container {
        resources,
        stop_signal: Some("SIGQUIT".to_owned()),
        logging: Some(LogDriver {
            driver: Some("json-file".to_owned()),
            options: [("max-size".to_owned(), "1m".to_owned())].into(),
        }),
        privileged: true,
        stdin_open: true,
        runtime: Some("runc".to_owned()),
        ..shell("sleep 1000")
    };
    // In the host's namespaces there is no sandbox that /dev/shm would belong to.
    let pod = Pod { network: PodNetwork::Host, ..Pod::default() };
    let id =
        bench.docker.create(&bench.replica(1, container, Namespaces::Host(Box::new(pod)))).await.unwrap();
    let told = bench.command.inspect(&id.0);
    for (path, wanted) in [
        ("/HostConfig/Memory", serde_json::json!(64 << 20)),
        ("/HostConfig/MemoryReservation", serde_json::json!(32 << 20)),
        ("/HostConfig/NanoCpus", serde_json::json!(500_000_000)),
        ("/HostConfig/CpusetCpus", serde_json::json!("0")),
        ("/HostConfig/PidsLimit", serde_json::json!(50)),
        ("/HostConfig/ShmSize", serde_json::json!(2 << 20)),
        ("/HostConfig/Privileged", serde_json::json!(true)),
        ("/HostConfig/Runtime", serde_json::json!("runc")),
        ("/HostConfig/NetworkMode", serde_json::json!("host")),
        ("/HostConfig/RestartPolicy/Name", serde_json::json!("no")),
        ("/HostConfig/LogConfig/Type", serde_json::json!("json-file")),
        ("/HostConfig/LogConfig/Config/max-size", serde_json::json!("1m")),
        ("/Config/StopSignal", serde_json::json!("SIGQUIT")),
        ("/Config/OpenStdin", serde_json::json!(true)),
    ] {
        assert_eq!(told.pointer(path), Some(&wanted), "{path}");
    }
}

#[tokio::test]
async fn file_systems_are_mounted_as_the_file_says() {
    let bench = Workbench::new().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("word"), "from the host").unwrap();
    let made = folder.path().join("made").display().to_string();
    let volume = Volume::new(bench.name("data"));
    bench.docker.create_volume(&bench.project, &volume).await.unwrap();
    let mount = |target: &str, source| Mount { target: target.to_owned(), source, read_only: false };
    let bind = |path: String, create| MountSource::Bind { path, create, propagation: None, selinux: None };
    let tmpfs = |size, mode, options: &[&str]| MountSource::Tmpfs { size, mode, options: texts(options) };
    let mounts = vec![
        Mount { read_only: true, ..mount("/host", bind(folder.path().display().to_string(), false)) },
        mount("/made", bind(made.clone(), true)),
        mount("/data", MountSource::Volume { name: volume.name.clone(), no_copy: false, subpath: None }),
        mount("/scratch", tmpfs(Some(1 << 20), Some(0o700), &[])),
        mount("/strict", tmpfs(None, None, &["noexec"])),
    ];
    let id = bench.start(&bench.replica(1, Container { mounts, ..shell("sleep 1000") }, nowhere())).await;
    let sh = |line: &str| bench.sh(&id, line);
    assert_eq!(sh("cat /host/word"), "from the host");
    assert_eq!(sh("touch /host/x 2>/dev/null || echo refused"), "refused");
    sh("touch /made/x /data/x");
    assert!(std::path::Path::new(&made).join("x").exists());
    let options = |target: &str| sh(&format!("grep ' {target} ' /proc/mounts"));
    assert!(options("/scratch").contains("size=1024k"), "{}", options("/scratch"));
    assert!(options("/scratch").contains("mode=700"), "{}", options("/scratch"));
    assert!(options("/strict").contains("noexec"), "{}", options("/strict"));
    // The volume outlives the container.
    bench.remove(&id).await;
    assert!(bench.docker.has_volume(&volume.name).await.unwrap());
}

#[tokio::test]
async fn a_bind_of_a_missing_folder_is_refused_unless_it_may_be_made() {
    let bench = Workbench::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").display().to_string();
    let source = MountSource::Bind { path: path.clone(), create: false, propagation: None, selinux: None };
    let mounts = vec![Mount { target: "/data".to_owned(), source, read_only: false }];
    let create = bench.replica(1, Container { mounts, ..shell("") }, nowhere());
    let error = bench.docker.create(&create).await.unwrap_err().to_string();
    assert!(error.contains(&path), "{error}");
}

#[tokio::test]
async fn health_is_what_the_check_says() {
    let bench = Workbench::new().await;
    let check = |line: &str| Healthcheck {
        test: HealthTest::Shell(line.to_owned()),
        interval: Some(Duration::from_millis(200)),
        timeout: Some(Duration::from_secs(5)),
        retries: Some(1),
        start_period: None,
        start_interval: None,
    };
    for (number, healthcheck, wanted) in [
        (1, None, Health::None),
        (2, Some(check("exit 0")), Health::Healthy),
        (3, Some(check("exit 1")), Health::Unhealthy),
        (4, Some(check("sleep 4")), Health::Starting),
    ] {
        let container = Container { healthcheck, ..shell("sleep 1000") };
        let id = bench.start(&bench.replica(number, container, nowhere())).await;
        let mut told = bench.process(&id).await.health;
        for _ in 0..300 {
            if told == wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            told = bench.process(&id).await.health;
        }
        assert_eq!(told, wanted);
    }
}

#[tokio::test]
async fn each_field_of_a_health_check_reaches_the_engine() {
    let bench = Workbench::new().await;
    let check = |test| Healthcheck {
        test,
        interval: Some(Duration::from_secs(90)),
        timeout: Some(Duration::from_millis(1500)),
        retries: Some(7),
        start_period: Some(Duration::from_secs(40)),
        start_interval: Some(Duration::from_secs(5)),
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    for (number, test, told) in [
        (1, HealthTest::Cmd(words(&["ls", "a b"])), serde_json::json!(["CMD", "ls", "a b"])),
        (2, HealthTest::Shell("ls | cat".to_owned()), serde_json::json!(["CMD-SHELL", "ls | cat"])),
        (3, HealthTest::None, serde_json::json!(["NONE"])),
        (4, HealthTest::Inherit, serde_json::Value::Null),
    ] {
        let container = Container { healthcheck: Some(check(test)), ..shell("sleep 1000") };
        let id = bench.docker.create(&bench.replica(number, container, nowhere())).await.unwrap();
        let seen = &bench.command.inspect(&id.0)["Config"]["Healthcheck"];
        assert_eq!(seen["Test"], told, "{seen}");
        assert_eq!(
            (seen["Interval"].as_u64(), seen["Timeout"].as_u64()),
            (Some(90_000_000_000), Some(1_500_000_000))
        );
        assert_eq!((seen["Retries"].as_u64(), seen["StartPeriod"].as_u64()), (Some(7), Some(40_000_000_000)));
        let start_interval = bench.docker.speaks(START_INTERVAL).then_some(5_000_000_000);
        assert_eq!(seen["StartInterval"].as_u64(), start_interval, "only engines of API 1.44 know it");
    }
}

#[tokio::test]
async fn what_a_failing_check_says_is_heard() {
    let bench = Workbench::new().await;
    let check = Healthcheck {
        test: HealthTest::Shell("echo no database; exit 1".to_owned()),
        interval: Some(Duration::from_millis(200)),
        timeout: Some(Duration::from_secs(5)),
        retries: Some(1),
        start_period: None,
        start_interval: None,
    };
    let container = Container { healthcheck: Some(check), ..shell("sleep 1000") };
    let id = bench.start(&bench.replica(1, container, nowhere())).await;
    let mut process = bench.process(&id).await;
    for _ in 0..300 {
        if process.health == Health::Unhealthy {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        process = bench.process(&id).await;
    }
    assert_eq!((process.health, process.complaint.as_deref()), (Health::Unhealthy, Some("no database")));
}
