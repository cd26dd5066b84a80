//! The images under `tests/images`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// Every image that a Compose file of a test may name, by the variable that stands for it.
const IMAGES: [(&str, &str); 15] = [
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
