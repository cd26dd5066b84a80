//! What somebody else makes on the engine beside a project, or in the place of something of it.

use super::docker::Docker;

/// Something on the engine that no project makes; it goes when this is dropped.
pub struct Made<'a> {
    docker: &'a Docker,
    remove: &'static [&'static str],
    /// What it is called.
    pub name: String,
    /// By which it is removed: another one may have its name by then.
    id: String,
}

impl<'a> Made<'a> {
    /// Runs a container: `docker run -d --name`.
    pub fn container(docker: &'a Docker, name: &str, args: &[&str]) -> Self {
        // What `docker run` leaves if it fails goes, too.
        let mut made = Self::called(docker, &["rm", "-fv"], name);
        made.id = docker.run(&[&["run", "-d", "--name", name], args].concat());
        made
    }

    /// Creates a container that never runs.
    pub fn created(docker: &'a Docker, name: &str, args: &[&str]) -> Self {
        let mut made = Self::called(docker, &["rm", "-fv"], name);
        made.id = docker.run(&[&["create", "--name", name], args].concat());
        made
    }

    /// Makes an image of a container, with more labels.
    pub fn image(docker: &'a Docker, name: &str, container: &str, labels: &[(&str, &str)]) -> Self {
        let made = Self::called(docker, &["rmi", "-f"], name);
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("LABEL {key}='{value}'")).collect();
        let changes: Vec<_> = labels.iter().flat_map(|label| ["--change", label.as_str()]).collect();
        docker.run(&[&["commit"], &changes[..], &[container, name]].concat());
        made
    }

    /// Makes a network with these labels.
    pub fn network(docker: &'a Docker, name: &str, labels: &[String]) -> Self {
        Self::create(docker, &["network", "create"], &["network", "rm"], name, labels)
    }

    /// Makes a volume with these labels.
    pub fn volume(docker: &'a Docker, name: &str, labels: &[String]) -> Self {
        Self::create(docker, &["volume", "create"], Self::VOLUME, name, labels)
    }

    /// A volume that is there already.
    pub fn left_volume(docker: &'a Docker, name: &str) -> Self {
        Self::called(docker, Self::VOLUME, name)
    }

    const VOLUME: &'static [&'static str] = &["volume", "rm", "-f"];

    fn create(
        docker: &'a Docker,
        create: &[&str],
        remove: &'static [&'static str],
        name: &str,
        labels: &[String],
    ) -> Self {
        let labels: Vec<_> = labels.iter().flat_map(|label| ["--label", label.as_str()]).collect();
        docker.run(&[create, &labels[..], &[name]].concat());
        Self::called(docker, remove, name)
    }

    fn called(docker: &'a Docker, remove: &'static [&'static str], name: &str) -> Self {
        Self { docker, remove, name: name.to_owned(), id: name.to_owned() }
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: &str) {
        self.docker.run(&["rename", &self.id, name]);
        name.clone_into(&mut self.name);
    }

    /// When its process started; it has to run.
    pub fn started_at(&self) -> String {
        let state = self.docker.inspect(&self.id)["State"].take();
        assert_eq!(state["Running"], true, "{} runs", self.name);
        state["StartedAt"].to_string()
    }

    /// Volumes that it has mounted.
    pub fn volumes(&self) -> Vec<String> {
        let mounts = self.docker.inspect(&self.id)["Mounts"].take();
        mounts.as_array().unwrap().iter().map(|mount| mount["Name"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.docker.try_run(&[self.remove, &[&self.id]].concat()) {
            eprintln!("{error}");
        }
    }
}

/// The labels of a container of a project, as arguments of `docker run`, but for those with these keys.
pub fn copied(docker: &Docker, container: &str, but: &[&str]) -> Vec<String> {
    let labels = docker.inspect(container)["Config"]["Labels"].take();
    let labels = labels.as_object().unwrap().iter().filter(|(key, _)| !but.contains(&key.as_str()));
    labels.map(|(key, value)| format!("--label={key}={}", value.as_str().unwrap())).collect()
}
