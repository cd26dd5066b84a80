//! How many containers the engine should be asked to start at the same time.
//!
//! Starts and removes a pod of 32 replicas with one bound after the other, in turns, and prints how long each took
//! as a ratio to one at a time. `cargo bench --bench start`; it needs Docker Engine, and no image.

#![allow(clippy::print_stdout, reason = "this is what it is for")]

use std::{
    collections::BTreeMap,
    error::Error,
    time::{Duration, Instant},
};

use futures_util::future;
use sameport::{
    engine::{
        ContainerId, CreateContainer, Engine, IpcNamespace, Labels, Namespaces, RemoveVolumes, Role,
        docker::{Docker, Surroundings},
        sandbox,
    },
    spec::{Container, Generation, Hooks, Pod, PodNetwork, Slot},
};

const REPLICAS: u32 = 32;
const BOUNDS: [usize; 6] = [1, 2, 4, 8, 16, 32];
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = Surroundings::from_env().endpoint()?;
    let docker = Docker::connect().await?;
    let image = sandbox::ensure_image(&docker).await?;
    let info = docker.info().await?;
    let cpus = std::thread::available_parallelism()?;
    println!("{REPLICAS} replicas in one pod, {cpus} CPUs, {}, Linux {}", info.name, info.kernel);

    let mut took = vec![(Vec::new(), Vec::new()); BOUNDS.len()];
    for _ in 0..ROUNDS {
        for (bound, (starts, removals)) in BOUNDS.iter().zip(&mut took) {
            let docker = Docker::connect_bounded(&endpoint, *bound).await?;
            let container = Container { image: image.clone(), ..sandbox::container() };
            let (start, removal) = round(&docker, &container).await?;
            starts.push(start);
            removals.push(removal);
        }
    }

    let median = |times: &[Duration]| {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default().as_secs_f64()
    };
    let alone = took.first().map(|(starts, removals)| (median(starts), median(removals))).unwrap_or_default();
    println!("at once  start               removal");
    for (bound, (starts, removals)) in BOUNDS.iter().zip(&took) {
        let (start, removal) = (median(starts), median(removals));
        let ratio = |time: f64, alone: f64| format!("{time:5.2} s  x{:4.2}", time / alone);
        println!("{bound:7}  {}      {}", ratio(start, alone.0), ratio(removal, alone.1));
    }
    Ok(())
}

/// Starts and removes a pod; how long either took.
async fn round(docker: &Docker, container: &Container) -> Result<(Duration, Duration), Box<dyn Error>> {
    let project = format!("start-bench-{}", std::process::id());
    let create = |name: String, role: Role, namespaces: Namespaces| -> Result<_, Box<dyn Error>> {
        let labels = Labels {
            project: project.parse()?,
            pod: "web".parse()?,
            generation: Generation::from_label("bench"),
            role,
        };
        let hooks = Hooks::default();
        Ok(CreateContainer { name, labels, hooks, container: container.clone(), namespaces })
    };
    let pod = Pod { network: PodNetwork::None, ..Pod::default() };
    let own = Namespaces::Own { pod: Box::new(pod), networks: Vec::new() };
    let sandbox = launch(docker, &create(format!("{project}-sandbox"), Role::Sandbox, own)?).await?;

    let mut replicas = Vec::new();
    for slot in Slot::first(REPLICAS) {
        let role = Role::Replica { service: "web".parse()?, slot };
        let ipc = IpcNamespace::Own { shm_size: None, sysctls: BTreeMap::new() };
        let namespaces = Namespaces::Join { sandbox: sandbox.clone(), ipc };
        replicas.push(create(format!("{project}-{slot}"), role, namespaces)?);
    }
    let begin = Instant::now();
    let started = future::join_all(replicas.iter().map(|replica| launch(docker, replica))).await;
    let start = begin.elapsed();

    // What did start is removed, also when something else did not.
    let begin = Instant::now();
    let ids: Vec<_> = started.iter().flatten().collect();
    let removed = future::join_all(ids.iter().map(|id| docker.remove(id, RemoveVolumes::Remove))).await;
    let removal = begin.elapsed();
    docker.remove(&sandbox, RemoveVolumes::Remove).await?;
    started.into_iter().map(|id| id.map(drop)).chain(removed).collect::<Result<(), _>>()?;
    Ok((start, removal))
}

async fn launch(
    docker: &Docker,
    create: &CreateContainer,
) -> Result<ContainerId, sameport::engine::EngineError> {
    let id = docker.create(create).await?;
    docker.start(&id).await?;
    Ok(id)
}
