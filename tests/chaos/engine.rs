//! What the engine shows of the project, past sameport.

use std::collections::BTreeMap;

use serde_json::Value;

use super::support::{
    docker::{self, Docker},
    project::Project,
};

/// A container of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What makes its process that process: its id and when it started.
    pub process: (String, String),
    /// `running`, `paused` and so on.
    pub state: String,
    /// Its name for clients.
    pub replica: Option<String>,
    /// How much memory it may take, in bytes; 0: no limit.
    pub memory: i64,
    /// How many networks it is in.
    pub networks: usize,
    /// Whether a port of the host leads to it.
    pub publishes: bool,
}

/// All containers with the project's label, by name.
pub fn containers(project: &Project) -> Result<BTreeMap<String, Container>, String> {
    let docker: &Docker = &project.docker;
    let filter = docker::of_project(&project.name);
    let ids = docker.try_run(&["ps", "-aq", "--no-trunc", "--filter", &filter])?;
    let ids: Vec<_> = ids.lines().collect();
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    // One may go between the two commands.
    let text = docker.try_run(&[&["container", "inspect"], &ids[..]].concat())?;
    let all: Vec<Value> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok(all.iter().map(|value| (name(value), container(value))).collect())
}

fn name(value: &Value) -> String {
    text(&value["Name"]).trim_start_matches('/').to_owned()
}

fn container(value: &Value) -> Container {
    let environment = value["Config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let network = &value["NetworkSettings"];
    let ports = network["Ports"].as_object().into_iter().flatten();
    Container {
        process: (text(&value["Id"]), text(&value["State"]["StartedAt"])),
        state: text(&value["State"]["Status"]),
        replica: environment.filter_map(|pair| pair.strip_prefix("REPLICA=")).map(str::to_owned).next(),
        memory: value["HostConfig"]["Memory"].as_i64().unwrap_or_default(),
        networks: network["Networks"].as_object().map_or(0, serde_json::Map::len),
        publishes: ports.into_iter().any(|(_, bindings)| bindings.is_array()),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
