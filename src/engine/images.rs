//! Images made of files in memory, without a registry: an archive as `docker save` writes it, for
//! [`Engine::load_image`](super::Engine::load_image). The same files make the same archive, and so the same image.

use std::io;

use serde_json::json;
use sha2::{Digest, Sha256};

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path, without a slash at the front.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// An image to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSpec {
    /// Its name with its tag.
    pub name: String,
    /// Go's word for the processor, such as `amd64`.
    pub architecture: String,
    /// The files in it.
    pub files: Vec<File>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a container may replace.
    pub command: Vec<String>,
    /// The user it runs as; empty is root.
    pub user: String,
    /// Ports that it declares, such as `8080/tcp`.
    pub exposed: Vec<String>,
}

impl ImageSpec {
    /// The archive.
    ///
    /// # Errors
    /// When a path is not one that an archive can hold.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let layer = tar(&self.files)?;
        let exposed: serde_json::Map<_, _> =
            self.exposed.iter().map(|port| (port.clone(), json!({}))).collect();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "User": self.user,
                "ExposedPorts": exposed,
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))] },
        })
        .to_string()
        .into_bytes();
        let config_path = format!("{}.json", digest(&config));
        let manifest =
            json!([{ "Config": config_path, "RepoTags": [self.name], "Layers": ["layer.tar"] }]).to_string();
        let file = |path: &str, bytes: Vec<u8>| File { path: path.to_owned(), mode: 0o644, bytes };
        tar(&[
            file("manifest.json", manifest.into_bytes()),
            file(&config_path, config),
            file("layer.tar", layer),
        ])
    }
}

/// Go's word for the processor of this program.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The content's hash, in hexadecimal digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tar(files: &[File]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode);
        header.set_size(file.bytes.len() as u64);
        header.set_mtime(0);
        archive.append_data(&mut header, &file.path, file.bytes.as_slice())?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(bytes: &[u8]) -> ImageSpec {
        ImageSpec {
            name: "localhost/it:1".to_owned(),
            architecture: "amd64".to_owned(),
            files: vec![File { path: "it".to_owned(), mode: 0o755, bytes: bytes.to_vec() }],
            entrypoint: vec!["/it".to_owned()],
            ..ImageSpec::default()
        }
    }

    #[test]
    fn the_same_files_make_the_same_archive() {
        assert_eq!(spec(b"one").archive().unwrap(), spec(b"one").archive().unwrap());
        assert_ne!(spec(b"one").archive().unwrap(), spec(b"two").archive().unwrap());
    }

    #[test]
    fn the_manifest_names_what_is_in_the_archive() {
        let archive = spec(b"one").archive().unwrap();
        let mut names = Vec::new();
        let mut manifest = serde_json::Value::Null;
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name == "manifest.json" {
                manifest = serde_json::from_reader(entry).unwrap();
            }
            names.push(name);
        }
        assert_eq!(manifest[0]["RepoTags"][0], "localhost/it:1");
        assert!(names.contains(&manifest[0]["Config"].as_str().unwrap().to_owned()));
        assert!(names.contains(&manifest[0]["Layers"][0].as_str().unwrap().to_owned()));
    }
}
