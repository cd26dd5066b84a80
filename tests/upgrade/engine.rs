//! Containers, networks and volumes, made as the fixtures describe them, by the engine's own API.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use serde_json::{Value, json};

use super::{fixtures, support::docker::Docker};

/// The oldest API that the engine of these tests has; what the fixtures have is older.
const API: &str = "/v1.41";

/// Makes what a fixture's folder describes for another project, in the order of these containers; each is started, and
/// `started` is told of it before the next one is made. The sandbox's own image may not be there: any process holds its
/// namespaces.
pub fn make(
    docker: &Docker,
    sandbox_image: &str,
    containers: &[&str],
    own: &dyn Fn(&str) -> String,
    mut started: impl FnMut(&str, u32),
) {
    for (kind, create) in [("networks", "/networks/create"), ("volumes", "/volumes/create")] {
        for mut thing in list(fixtures::json(&format!("containers/upgrade/{kind}.json"))) {
            thing["CheckDuplicate"] = true.into();
            post(create, &renamed(&thing, own, &|_| None));
        }
    }
    let id_of = |name: &str| Some(docker.find(name)?["Id"].as_str()?.to_owned());
    for container in containers {
        let described = fixtures::json(&format!("containers/upgrade/{container}.json"));
        let described = renamed(&described, own, &id_of);
        let name = described["Name"].as_str().unwrap();
        let mut body = described["Config"].clone();
        body["HostConfig"] = described["HostConfig"].clone();
        let joins = body["HostConfig"]["NetworkMode"].as_str().unwrap().starts_with("container:");
        if joins {
            // They are the sandbox's.
            for key in ["Hostname", "ExposedPorts"] {
                body.as_object_mut().unwrap().remove(key);
            }
        } else {
            body["Image"] = sandbox_image.into();
            body["Entrypoint"] = json!(["sh", "-c", "exec sleep 1000000"]);
            body.as_object_mut().unwrap().remove("Hostname");
            let aliases = |network: &Value| -> Value {
                let aliases = list(network["Aliases"].clone());
                json!({ "Aliases": aliases.iter().filter(|a| !a.as_str().unwrap().contains(' ')).collect::<Vec<_>>() })
            };
            let networks = described["Networks"].as_object().unwrap();
            let endpoints = networks.iter().map(|(name, network)| (name.clone(), aliases(network)));
            body["NetworkingConfig"] = json!({ "EndpointsConfig": Value::Object(endpoints.collect()) });
        }
        let made = post(&format!("/containers/create?name={name}"), &body);
        let id = made["Id"].as_str().unwrap_or_else(|| panic!("{made}"));
        docker.run(&["start", id]);
        started(container, u32::try_from(docker.pid(id)).unwrap());
    }
}

/// The same for another project: by its names, and with the ids of its containers.
fn renamed(value: &Value, own: &dyn Fn(&str) -> String, id_of: &dyn Fn(&str) -> Option<String>) -> Value {
    let text = own(&value.to_string());
    let parts: Vec<_> = text.split("ID OF ").collect();
    let mut text = parts[0].to_owned();
    for part in &parts[1..] {
        let end = part.find('"').unwrap();
        match id_of(&part[..end]).filter(|_| !text.ends_with("SHORT ")) {
            Some(id) => text.push_str(&id),
            None => text.push_str(&format!("ID OF {}", &part[..end])),
        }
        text.push_str(&part[end..]);
    }
    serde_json::from_str(&text).unwrap()
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        Value::Null => Vec::new(),
        other => panic!("{other}"),
    }
}

/// Asks the engine for something.
fn post(path: &str, body: &Value) -> Value {
    let mut stream = UnixStream::connect("/var/run/docker.sock").unwrap();
    let body = body.to_string();
    write!(
        stream,
        "POST {API}{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.lines().next().unwrap().contains(" 201 "), "{path}: {answer}");
    serde_json::from_str(body).unwrap()
}
