//! Servers that write to a folder of the host, or of which there must be only one, are changed while they are used: no
//! confirmed write is lost, and there are never two.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use sameport::api::schema::{SharedFile, SharedFileKind};

use super::{
    stores::{lines, writer::Writer},
    support::{
        images, load,
        project::Project,
        wait::{self, check},
    },
};

#[test]
fn redis_with_its_data_in_a_folder_keeps_each_confirmed_write_when_it_is_changed() {
    let compose = |version: u32| {
        format!(
            r#"
services:
  store:
    image: ${{REDIS}}
    command: redis-server --appendonly yes --dir /data --save "" --protected-mode no
    environment: {{ V: "{version}" }}
    volumes: ["./data:/data"]
    ports: ["${{PORT}}:6379"]
    x-sameport: {{ drain: 1h }}
"#
        )
    };
    let project = Project::new(&compose(1));
    project.run(&["up", "-d", "--wait"]);
    let address = project.outside();
    let writer = Writer::start(address, lines::redis);
    // It does nothing, and has an hour for it: nobody waits for that.
    let idle = TcpStream::connect(address).unwrap();
    for version in 2..=4 {
        project.write(&compose(version));
        if version == 2 {
            let told = project.run(&["up", "--dry-run"]);
            let order =
                "store: replicas are replaced stop-first: two replicas must not write to /data at once";
            assert!(told.contains(order), "{told}");
        }
        let begin = Instant::now();
        let told = project.try_run(&["up", "-d", "--wait"]);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
        assert!(told.stderr.contains("must not write to /data at once"), "{told:?}");
        assert!(told.stderr.contains("no replica was ready for"), "{told:?}");
    }
    drop(idle);
    let written = writer.finish();
    let lost = written.lost(&mut *lines::redis(address).unwrap());
    let confirmed = written.confirmed.len();
    assert!(confirmed > 100, "{confirmed}");
    assert!(lost.is_empty(), "{} of {confirmed} lost: {lost:?}", lost.len());
}

#[test]
fn postgresql_with_its_data_in_a_folder_can_be_changed() {
    let compose = |version: u32| {
        format!(
            r#"
services:
  db:
    image: ${{POSTGRES}}
    command:
      - sh
      - -c
      - |
        test -e /data/pg/PG_VERSION || initdb --no-sync --wal-segsize=1 -U postgres -D /data/pg >/tmp/initdb || exit 1
        exec postgres -D /data/pg -k /tmp -c 'listen_addresses=*' -c shared_buffers=8MB -c max_connections=20
    environment: {{ V: "{version}" }}
    stop_signal: SIGINT
    tmpfs: [/tmp]
    volumes: ["./data:/data"]
    ports: ["${{PORT}}:5432"]
    healthcheck: {{ test: "pg_isready -h localhost", interval: 1s, retries: 60 }}
"#
        )
    };
    let project = Project::new(&compose(1));
    fs::create_dir(project.path("data")).unwrap();
    fs::set_permissions(project.path("data"), fs::Permissions::from_mode(0o777)).unwrap();
    project.run(&["up", "-d", "--wait"]);
    let sql = |line: &str| {
        let container = format!("{}-db-1", project.name);
        project.docker.run(&["exec", &container, "psql", "-h", "localhost", "-Atc", line]).trim().to_owned()
    };
    sql("CREATE TABLE kept (version int)");
    for version in 2..=3 {
        sql(&format!("INSERT INTO kept VALUES ({version})"));
        project.write(&compose(version));
        let told = project.try_run(&["up", "-d", "--wait"]);
        assert_eq!(told.code, Some(0), "{told:?}");
    }
    assert_eq!(sql("SELECT string_agg(version::text, ' ') FROM kept"), "2 3");
    let container = format!("{}-db-1", project.name);
    assert_eq!(project.docker.run(&["exec", &container, "sh", "-c", "echo $V"]).trim(), "3");
}

#[test]
fn of_a_bot_there_are_never_two() {
    let compose = |version: u32| {
        format!(
            r#"
services:
  bot:
    image: ${{PYTHON}}
    command: [python3, -c, "import time\nwhile True: time.sleep(1)"]
    environment: {{ V: "{version}" }}
    restart: unless-stopped
    stop_grace_period: 1s
"#
        )
    };
    let project = Project::new(&compose(1));
    project.run(&["up", "-d", "--wait"]);
    let (name, stop) = (project.name.clone(), AtomicBool::new(false));
    let most = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                let filter = format!("name={name}-bot-1");
                let running = project.docker.lines(&["ps", "-q", "--filter", &filter]).len();
                most = most.max(running);
            }
            most
        });
        let before = project.processes();
        for version in 2..=3 {
            project.write(&compose(version));
            let told = project.try_run(&["up", "-d", "--wait"]);
            assert_eq!(told.code, Some(0), "{told:?}");
            assert!(told.stderr.contains("one replica and declares no port"), "{told:?}");
        }
        stop.store(true, Ordering::Relaxed);
        assert_ne!(project.processes(), before);
        watch.join().unwrap()
    });
    assert_eq!(most, 1);
}

#[test]
fn a_server_on_a_socket_in_a_folder_is_there_after_it_was_changed() {
    let compose = |version: u32| {
        format!(
            r#"
services:
  app:
    image: ${{HTTPBIN}}
    command: [python3, -m, gunicorn, --umask, "0", --bind, "unix:/sock/app.sock", "httpbin:app"]
    environment: {{ V: "{version}", SHARE: "no" }}
    volumes: ["./run:/sock"]
    healthcheck: {{ test: "test -S /sock/app.sock", interval: 500ms, retries: 60 }}
  front:
    image: ${{NGINX}}
    command: nginx -c /etc/front.conf
    ports: ["${{PORT}}:80"]
    volumes: ["./run:/sock", "./front.conf:/etc/front.conf:ro"]
    depends_on: [app]
"#
        )
    };
    let project = Project::new(&compose(1));
    let front = "daemon off; user root; pid /tmp/pid; events {} http { access_log off; client_body_temp_path /tmp/1; \
                 proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3; uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5; \
                 server { listen 80; location / { proxy_pass http://unix:/sock/app.sock; } } }";
    fs::write(project.path("front.conf"), front).unwrap();
    project.run(&["up", "-d", "--wait"]);
    let served = || load::one_by_one(10, || load::request_path(project.loopback(), "/status/200"));
    wait::until("it is served", || check(served().failures.is_empty(), served()));
    for version in 2..=3 {
        project.write(&compose(version));
        let told = project.try_run(&["up", "-d", "--wait"]);
        assert_eq!(told.code, Some(0), "{told:?}");
        let report = served();
        assert!(report.failures.is_empty(), "{report}");
    }
}

/// Replicas of gunicorn that have a socket and a pid file in a folder, which is whatever `folder` says.
fn behind_a_socket(name: &str, folder: &str) -> String {
    format!(
        r#"
  {name}:
    image: ${{HTTPBIN}}
    command: [python3, -m, gunicorn, --bind, "unix:/run/app/app.sock", --bind, "0.0.0.0:8080", --pid, /run/app/app.pid, "httpbin:app"]
    environment: {{ SHARE: "no" }}
    expose: [8080]
    volumes: ["{folder}:/run/app"]
    deploy: {{ replicas: 2 }}
"#
    )
}

#[test]
fn sockets_and_pid_files_that_replicas_share_are_told() {
    let services = [behind_a_socket("together", "./run"), behind_a_socket("apart", "run-{{.Slot}}")].concat();
    let project = Project::new(&format!("services:\n{services}volumes:\n  run-{{{{.Slot}}}}:\n"));
    project.run(&["up", "-d", "--wait"]);
    let file = |path: &str, kind| SharedFile { service: "together".to_owned(), path: path.to_owned(), kind };
    let mut wanted = vec![
        file("/run/app/app.pid", SharedFileKind::PidFile),
        file("/run/app/app.sock", SharedFileKind::Socket),
    ];
    wait::until("both are told", || {
        let found = project.status().shared_files;
        check(found == wanted, &found)
    });
    let told = project.try_run(&["ps"]).stderr;
    assert!(told.contains("replicas of together listen on the socket /run/app/app.sock"), "{told}");
    let events = || project.events().into_iter().filter(|event| event["event"] == "shared_file").count();
    assert_eq!(events(), 2);
    project.run(&["scale", "together=1"]);
    wanted.clear();
    wait::until("it is over", || {
        let found = project.status().shared_files;
        check(found == wanted, &found)
    });
}

/// Redis, with its data at `/data`, which is whatever `volumes` say.
fn redis(image: &str, version: u32, replicas: u32, volumes: &str) -> String {
    format!(
        r#"
services:
  store:
    image: {image}
    command: redis-server --appendonly yes --dir /data --save "" --protected-mode no
    environment: {{ V: "{version}" }}
    {volumes}
    ports: ["${{PORT}}:6379"]
    deploy: {{ replicas: {replicas}, update_config: {{ monitor: 0s }} }}
"#
    )
}

impl Project {
    /// What a replica's Redis answers.
    fn redis(&self, slot: u32, line: &str) -> String {
        let container = format!("{}-store-{slot}", self.name);
        self.docker
            .run(&[&["exec", &container, "redis-cli"], &*line.split(' ').collect::<Vec<_>>()].concat())
            .trim()
            .to_owned()
    }

    /// Another file is brought about.
    fn change(&self, compose: &str) {
        self.write(compose);
        self.run(&["up", "-d", "--wait"]);
    }
}

/// Data of each slot stays through another version, its undoing, and a smaller count; `down -v` ends it, and nothing else does.
fn data_stays_with_the_slot(image: &str, volumes: &str, first: &str) {
    let compose = |version, replicas| redis(image, version, replicas, volumes);
    let project = Project::new(first);
    project.write(&compose(1, 2));
    project.run(&["up", "-d", "--wait"]);
    for slot in 1..=2 {
        assert_eq!(project.redis(slot, &format!("set slot {slot}")), "OK");
    }
    let kept = |what: &str, replicas: u32| {
        for slot in 1..=replicas {
            assert_eq!(project.redis(slot, "get slot"), slot.to_string(), "{what}");
        }
    };
    project.change(&compose(2, 2));
    kept("another version", 2);
    project.run(&["rollout", "undo", "store"]);
    kept("the version before", 2);
    project.run(&["scale", "store=1"]);
    kept("one replica", 1);
    project.run(&["scale", "store=2"]);
    kept("two again", 2);
    project.run(&["down"]);
    project.run(&["up", "-d", "--wait"]);
    kept("down and up", 2);
    let volumes = || {
        let filter = super::support::docker::of_project(&project.name);
        project.docker.lines(&["volume", "ls", "-q", "--filter", &filter])
    };
    assert_eq!(volumes().len(), 2, "{:?}", volumes());
    project.run(&["up", "-d", "--wait", "-V"]);
    kept("nothing was replaced", 2);
    project.write(&compose(3, 2));
    project.run(&["up", "-d", "--wait", "-V"]);
    for slot in 1..=2 {
        assert_eq!(project.redis(slot, "get slot"), "", "{slot}");
        assert_eq!(project.redis(slot, &format!("set slot {slot}")), "OK");
    }
    assert_eq!(volumes().len(), 2, "{:?}", volumes());
    // What one `up` was asked for ends with it.
    project.change(&compose(4, 2));
    kept("yet another version", 2);
    project.run(&["down", "-v"]);
    assert_eq!(volumes(), Vec::<String>::new());
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.redis(1, "get slot"), "");
}

#[test]
fn an_anonymous_volume_stays_with_its_slot() {
    data_stays_with_the_slot("${REDIS}", "volumes: [/data]", "services: { store: { image: \"${REDIS}\" } }");
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_volume_that_only_the_image_names_stays_with_its_slot() {
    let image = images::with_volume("redis", "/data");
    data_stays_with_the_slot(&image.name, "", "services: { store: { image: \"${REDIS}\" } }");
}

#[test]
fn a_canary_that_would_write_to_the_same_data_is_refused() {
    let project = Project::new(&redis("${REDIS}", 1, 1, "volumes: [\"./data:/data\"]"));
    project.run(&["up", "-d", "--wait"]);
    let (image, other) = (project.image("REDIS"), format!("localhost/{}-canary:1", project.name));
    project.docker.run(&["tag", &image, &other]);
    let before = project.processes();
    let told = project.try_run(&["rollout", "store", "--image", &other, "--canary", "50%"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stderr.contains("both versions would write to /data at the same time"), "{told:?}");
    assert_eq!(project.processes(), before);
    // In place of the old one it can be had.
    project.run(&["rollout", "store", "--image", &other]);
    assert_ne!(project.processes(), before);
    project.run(&["down"]);
    project.docker.run(&["rmi", &other]);
}

#[test]
fn replicas_that_share_the_files_of_a_database_are_warned_of_and_asked_about() {
    let project = Project::new(&redis("${REDIS}", 1, 2, "volumes: [\"./data:/data\"]"));
    fs::create_dir(project.path("data")).unwrap();
    let dry = || project.try_run(&["up", "--dry-run"]).stderr;
    // The test's own image has no name of a database.
    assert!(!dry().contains("at once"), "{}", dry());
    fs::write(project.path("data/redis.pid"), "1").unwrap();
    let warning = "warning: 2 replicas of `store` write to ";
    assert!(dry().contains(warning) && dry().contains("`redis.pid` in it suggests"), "{}", dry());
    assert!(dry().contains("data-{{.Slot}}:/data"), "{}", dry());
    let (told, code) = super::counts::answered(project.on_terminal("", &["up", "-d"]), "n\n");
    assert!(told.contains("on one set of data? [y/N]") && told.contains("not confirmed"), "{told}");
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(project.processes(), []);
}
