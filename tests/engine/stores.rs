//! Servers that keep data, each with it on a mount of some kind: while somebody writes to the only replica all the time, it
//! is changed twice, and each write that was confirmed is there afterwards.

use std::{fs, os::unix::fs::PermissionsExt};

use super::support::{images, project::Project};
use writer::{Connect, Writer};

mod http;
pub mod lines;
mod packets;
pub mod writer;

/// A server, with its data below `/data`.
struct Store {
    /// As the Compose file names it.
    image: &'static str,
    port: u16,
    /// More lines of the service.
    settings: &'static str,
    connect: Connect,
}

/// Where `/data` is.
#[derive(Clone, Copy, Debug)]
enum Mount {
    Folder,
    Named,
    Anonymous,
    /// The image says `VOLUME /data`, and the Compose file nothing.
    Image,
}

const REDIS: Store = Store {
    image: "${REDIS}",
    port: 6379,
    settings: "command: redis-server --dir /data --appendonly yes --appendfsync always --protected-mode no",
    connect: lines::redis,
};

const POSTGRES: Store = Store {
    image: "${POSTGRES}",
    port: 5432,
    // As its official image: SIGTERM would wait for its clients.
    settings: r#"stop_signal: SIGINT
    command:
      - sh
      - -c
      - |
        if ! test -e /data/pg/PG_VERSION; then
            initdb --no-sync --wal-segsize=1 -U postgres -D /data/pg >/tmp/initdb || exit 1
            echo "host all all all trust" >>/data/pg/pg_hba.conf
        fi
        exec postgres -D /data/pg -k /tmp -c listen_addresses=* -c shared_buffers=8MB -c max_connections=20"#,
    connect: packets::postgres,
};

const MARIADB: Store = Store { image: "${MARIADB}", port: 3306, settings: "", connect: packets::mariadb };

const SQLITE: Store = Store { image: "${SQLITE}", port: 8080, settings: "", connect: http::sqlite };

const MOSQUITTO: Store = Store { image: "${MOSQUITTO}", port: 1883, settings: "", connect: packets::mqtt };

const ETCD: Store = Store { image: "${ETCD}", port: 2379, settings: "", connect: http::etcd };

const BEANSTALKD: Store =
    Store { image: "${BEANSTALKD}", port: 11300, settings: "", connect: lines::beanstalkd };

const SLAPD: Store = Store { image: "${SLAPD}", port: 389, settings: "", connect: packets::ldap };

const INFLUXDB: Store = Store { image: "${INFLUXDB}", port: 8086, settings: "", connect: http::influx };

const NATS: Store = Store { image: "${NATS}", port: 4222, settings: "", connect: lines::nats };

const TARANTOOL: Store = Store { image: "${TARANTOOL}", port: 3302, settings: "", connect: lines::tarantool };

/// Its ports for its cluster, 4369 and 25672, open seconds before this one.
const RABBITMQ: Store = Store { image: "${RABBITMQ}", port: 61613, settings: "", connect: lines::stomp };

/// nginx, to which files are put.
const FILES: Store = Store {
    image: "${NGINX}",
    port: 8080,
    settings: r#"command:
      - sh
      - -c
      - |
        echo "daemon off; user root; pid /tmp/pid; events {} http { access_log off;
        client_body_temp_path /data/.body; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3; uwsgi_temp_path /tmp/4;
        scgi_temp_path /tmp/5; server { listen 8080; root /data; location / { dav_methods PUT; } } }" >/tmp/dav.conf
        exec nginx -c /tmp/dav.conf -e stderr"#,
    connect: http::files,
};

impl Store {
    fn compose(&self, image: &str, mount: Option<Mount>, version: u32) -> String {
        let (volumes, named) = match mount {
            Some(Mount::Folder) => ("volumes: [\"./data:/data\"]", ""),
            Some(Mount::Named) => ("volumes: [\"kept:/data\"]", "volumes: { kept: {} }"),
            Some(Mount::Anonymous) => ("volumes: [/data]", ""),
            Some(Mount::Image) | None => ("", ""),
        };
        let Self { port, settings, .. } = self;
        format!(
            r#"
services:
  store:
    image: {image}
    environment: {{ V: "{version}" }}
    ports: ["${{PORT}}:{port}"]
    {volumes}
    {settings}
{named}
"#
        )
    }

    /// It is changed twice, and loses nothing of what it has confirmed.
    fn keeps_each_confirmed_write(&self, mount: Mount) {
        self.keeps_each_confirmed_write_in(self.image, mount);
    }

    fn keeps_each_confirmed_write_in(&self, image: &str, mount: Mount) {
        let compose = |version| self.compose(image, Some(mount), version);
        let project = Project::new(&compose(1));
        if matches!(mount, Mount::Folder) {
            fs::create_dir(project.path("data")).unwrap();
            // Not every server is root.
            fs::set_permissions(project.path("data"), fs::Permissions::from_mode(0o777)).unwrap();
        }
        project.run(&["up", "-d", "--wait"]);
        let address = project.outside();
        let writer = Writer::start(address, self.connect);
        writer.confirms(10);
        for version in 2..=3 {
            project.write(&compose(version));
            let before = project.processes();
            let told = project.try_run(&["up", "-d", "--wait"]);
            assert_eq!(told.code, Some(0), "{told:?}");
            assert!(told.stderr.contains("two replicas must not write to /data at once"), "{told:?}");
            assert_ne!(project.processes(), before);
            writer.confirms(20);
        }
        let written = writer.finish();
        let lost = written.lost(&mut *(self.connect)(address).unwrap());
        let (confirmed, gap) = (written.confirmed.len(), written.longest_gap);
        eprintln!(
            "{image}, {mount:?}: {confirmed} writes confirmed, the longest time without one was {gap:.1?}"
        );
        assert!(lost.is_empty(), "{} of {confirmed} lost: {lost:?}", lost.len());
    }

    /// The same where the volume is one that the image declares.
    fn keeps_each_confirmed_write_in_a_volume_of_its_image(&self, name: &str) {
        let image = images::with_volume(name, "/data");
        self.keeps_each_confirmed_write_in(&image.name, Mount::Image);
    }
}

#[test]
fn postgresql_in_a_named_volume() {
    POSTGRES.keeps_each_confirmed_write(Mount::Named);
}

#[test]
fn sqlite_behind_gunicorn_in_an_anonymous_volume() {
    SQLITE.keeps_each_confirmed_write(Mount::Anonymous);
}

#[test]
fn mosquitto_in_a_folder() {
    MOSQUITTO.keeps_each_confirmed_write(Mount::Folder);
}

#[test]
fn etcd_in_a_volume_of_its_image() {
    ETCD.keeps_each_confirmed_write(Mount::Image);
}

#[test]
fn redis_in_a_volume_of_its_image() {
    REDIS.keeps_each_confirmed_write_in_a_volume_of_its_image("redis");
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn redis_in_a_folder() {
    REDIS.keeps_each_confirmed_write(Mount::Folder);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn redis_in_a_named_volume() {
    REDIS.keeps_each_confirmed_write(Mount::Named);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn redis_in_an_anonymous_volume() {
    REDIS.keeps_each_confirmed_write(Mount::Anonymous);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn sqlite_behind_gunicorn_in_a_folder() {
    SQLITE.keeps_each_confirmed_write(Mount::Folder);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn sqlite_behind_gunicorn_in_a_named_volume() {
    SQLITE.keeps_each_confirmed_write(Mount::Named);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn sqlite_behind_gunicorn_in_a_volume_of_its_image() {
    SQLITE.keeps_each_confirmed_write_in_a_volume_of_its_image("sqlite");
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn postgresql_in_a_folder() {
    POSTGRES.keeps_each_confirmed_write(Mount::Folder);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn mariadb_in_a_folder() {
    MARIADB.keeps_each_confirmed_write(Mount::Folder);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn beanstalkd_in_a_named_volume() {
    BEANSTALKD.keeps_each_confirmed_write(Mount::Named);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn slapd_in_an_anonymous_volume() {
    SLAPD.keeps_each_confirmed_write(Mount::Anonymous);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn influxdb_in_a_volume_of_its_image() {
    INFLUXDB.keeps_each_confirmed_write(Mount::Image);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn nats_in_an_anonymous_volume() {
    NATS.keeps_each_confirmed_write(Mount::Anonymous);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn tarantool_in_a_folder() {
    TARANTOOL.keeps_each_confirmed_write(Mount::Folder);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn rabbitmq_in_a_folder() {
    RABBITMQ.keeps_each_confirmed_write(Mount::Folder);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn rabbitmq_with_a_health_check_in_an_anonymous_volume() {
    let check = "healthcheck: { test: [CMD, nc, 127.0.0.1, \"61613\", -e, \"true\"], interval: 1s, start_period: 60s }";
    Store { settings: check, ..RABBITMQ }.keeps_each_confirmed_write(Mount::Anonymous);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn files_put_to_nginx_in_a_named_volume() {
    FILES.keeps_each_confirmed_write(Mount::Named);
}

/// It has nothing on a disk: the next one starts beside it and is empty, and is answered from then on.
#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn memcached_keeps_nothing_and_is_answered_all_the_time() {
    // The writer keeps its connection.
    let store = Store {
        image: "${MEMCACHED}",
        port: 11211,
        settings: "x-sameport: { drain: 1s }",
        connect: lines::memcached,
    };
    let project = Project::new(&store.compose(store.image, None, 1));
    project.run(&["up", "-d", "--wait"]);
    let address = project.outside();
    let writer = Writer::start(address, store.connect);
    writer.confirms(10);
    for version in 2..=3 {
        project.write(&store.compose(store.image, None, version));
        let before = project.processes();
        let told = project.try_run(&["up", "-d", "--wait"]);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(!told.stderr.contains("must not write"), "{told:?}");
        assert_ne!(project.processes(), before);
        writer.confirms(20);
    }
    let written = writer.finish();
    let lost = written.lost(&mut *(store.connect)(address).unwrap());
    let (confirmed, gap) = (written.confirmed.len(), written.longest_gap);
    eprintln!("memcached: {confirmed} writes confirmed, the longest time without one was {gap:.1?}");
    assert!(lost.len() >= 10 && lost.len() <= confirmed - 10, "{} of {confirmed} lost", lost.len());
}
