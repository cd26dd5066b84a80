//! The images under `tests/images`.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::docker::Docker;

/// Every image that a Compose file of a test may name, by the variable that stands for it.
const IMAGES: [(&str, &str); 28] = [
    ("NGINX", "nginx"),
    ("HTTPBIN", "httpbin"),
    ("CADDY", "caddy"),
    ("NODE", "node"),
    ("GO", "go"),
    ("PYTHON", "python"),
    ("UVICORN", "uvicorn"),
    ("JAVA", "java"),
    ("REDIS", "redis"),
    ("DNSMASQ", "dnsmasq"),
    ("GUNICORN", "gunicorn"),
    ("FTP", "ftp"),
    ("QUIC", "quic"),
    ("POSTGRES", "postgres"),
    ("NGINX_QUIC", "nginx-quic"),
    ("MARIADB", "mariadb"),
    ("SQLITE", "sqlite"),
    ("MOSQUITTO", "mosquitto"),
    ("MEMCACHED", "memcached"),
    ("ETCD", "etcd"),
    ("BEANSTALKD", "beanstalkd"),
    ("SLAPD", "slapd"),
    ("INFLUXDB", "influxdb"),
    ("NATS", "nats"),
    ("LASTING", "lasting"),
    ("RABBITMQ", "rabbitmq"),
    ("ZOOKEEPER", "zookeeper"),
    ("TARANTOOL", "tarantool"),
];

/// The images that a Compose file names as `${NGINX}` and so on: made if need be, as variables and their values.
pub fn named_in(compose: &str) -> Vec<(&'static str, String)> {
    IMAGES
        .into_iter()
        .filter(|(variable, _)| compose.contains(&format!("${{{variable}}}")))
        .map(|(variable, name)| (variable, build(name)))
        .collect()
}

/// Makes the image unless the engine has it, and returns its tag.
pub fn build(name: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/build");
    let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the test image {name} cannot be made");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An image of a test's own, which goes when this is dropped.
pub struct Own {
    /// Its tag.
    pub name: String,
}

/// The image with a volume that it declares.
pub fn with_volume(name: &str, volume: &str) -> Own {
    static IMAGES: AtomicU32 = AtomicU32::new(0);
    let (docker, number) = (Docker::default(), IMAGES.fetch_add(1, Ordering::Relaxed));
    let own = Own { name: format!("localhost/spt{}-volume-{number}:1", std::process::id()) };
    let container = docker.run(&["create", &build(name)]);
    docker.run(&["commit", "--change", &format!("VOLUME {volume}"), &container, &own.name]);
    docker.run(&["rm", &container]);
    own
}

impl Drop for Own {
    fn drop(&mut self) {
        // Containers of a test that failed may still have it.
        if let Err(error) = Docker::default().try_run(&["rmi", "-f", &self.name]) {
            eprintln!("{} stays: {error}", self.name);
        }
    }
}
