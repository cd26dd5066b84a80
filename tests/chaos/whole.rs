//! Whether all is whole: what sameport says, what the engine shows, what is on disk and in the kernel.

use std::{collections::BTreeSet, fmt::Debug, fs, path::Path};

use sameport::api::schema::{ReplicaState, Status};

use super::{
    engine::{self, Container},
    scene::{MEMORY, STORES, Scene},
    support::{load, project::Project, wait::check},
};

/// Looks at everything.
///
/// # Errors
/// What is not whole yet.
pub fn look(scene: &Scene) -> Result<(), String> {
    let asked = scene.project.try_run(&["status", "--format", "json"]);
    if asked.code != Some(0) {
        return Err(format!("{asked:#?}"));
    }
    let status: Status = serde_json::from_str(&asked.stdout).map_err(|error| error.to_string())?;
    said(scene, &status)?;
    shown(scene)?;
    for kind in ["lock", "sock", "json"] {
        let path = scene.kept_file(kind);
        check(path.exists(), format!("{} is not there", path.display()))?;
    }
    let lock = scene.project.engine_lock();
    check(scene.project.docker.find(&lock).is_some(), format!("{lock} is not there"))?;
    let pins = pins(&scene.project);
    check(scene.pins.is_empty() || pins == scene.pins, (pins, &scene.pins))?;
    stores(scene)
}

/// What sameport says.
fn said(scene: &Scene, status: &Status) -> Result<(), String> {
    let same = |found: &dyn Debug, holds| check(holds, format!("{found:#?}"));
    same(&"not converged", status.supervised && status.converged && status.idle)
        .map_err(|why| format!("{why} {status:#?}"))?;
    same(&status.rollouts, status.rollouts.is_empty())?;
    same(&status.errors, status.errors.is_empty())?;
    same(&status.orphans, status.orphans.is_empty())?;
    same(&status.foreign_resources, status.foreign_resources.is_empty())?;
    same(&status.engine_unreachable_since, status.engine_unreachable_since.is_none())?;
    same(
        &status.pods,
        status.pods.len() == 2 && status.pods.iter().all(|pod| pod.ready && pod.error.is_none()),
    )?;
    let replicas = &status.replicas;
    let healthy = replicas.iter().all(|replica| {
        replica.state == ReplicaState::Healthy
            && replica.up_to_date
            && !replica.replacement
            && replica.traffic.as_ref().is_some_and(|traffic| traffic.weight == 100)
    });
    let count = replicas.iter().filter(|replica| replica.service == "web").count();
    let wanted = (scene.replicas + STORES) as usize;
    same(replicas, healthy && replicas.len() == wanted && count == scene.replicas as usize)
}

/// What the engine shows.
fn shown(scene: &Scene) -> Result<(), String> {
    let containers = engine::containers(&scene.project)?;
    let webs = (1..=scene.replicas).map(|slot| scene.web(slot));
    let stores = (1..=STORES).map(|slot| scene.container(&format!("store-{slot}")));
    let sandboxes = ["web-sandbox", "store-sandbox"].map(|name| scene.container(name));
    let wanted: BTreeSet<_> = webs.chain(stores).chain(sandboxes.clone()).collect();
    let names: BTreeSet<_> = containers.keys().cloned().collect();
    check(names == wanted, (&names, &wanted))?;
    let running = containers.values().all(|container| container.state == "running");
    check(running, &containers)?;
    for slot in 1..=scene.replicas {
        let Container { replica, memory, .. } = &containers[&scene.web(slot)];
        check(replica.as_ref() == Some(&scene.replica(slot)) && *memory == MEMORY, &containers)?;
    }
    let [web, store] = sandboxes.map(|name| containers[&name].clone());
    check(web.networks == 1 && web.publishes && store.networks == 1, (&web, &store))
}

/// What is pinned for the project, whatever its pods' networks are.
pub fn pins(project: &Project) -> Vec<String> {
    let folder = Path::new("/sys/fs/bpf/sameport").join(&project.name);
    let mut found = Vec::new();
    list(&folder, "", &mut found);
    found.sort();
    found
}

fn list(folder: &Path, prefix: &str, found: &mut Vec<String>) {
    // It may go at any time.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = if name.starts_with("pod_") { "pod" } else { &name };
        let path = format!("{prefix}/{name}");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&entry.path(), &path, found);
        }
        found.push(path);
    }
}

/// The service that nobody reaches from outside answers, too.
fn stores(scene: &Scene) -> Result<(), String> {
    let address = scene.project.in_pod("store", 6379);
    let mut answered = BTreeSet::new();
    for _ in 0..4 * STORES {
        answered.insert(load::request_redis(address).map_err(|failure| format!("the store: {failure:?}"))?);
    }
    check(answered.len() == STORES as usize, answered)
}
