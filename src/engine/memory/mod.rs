//! An engine in memory and in virtual time, for simulation. It behaves like Docker where it matters: names clash,
//! ports clash, a container cannot join a sandbox that does not run, starting takes time, events get lost, calls
//! fail, and the daemon can go away.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream, stream::BoxStream};
use tokio::sync::mpsc;

use crate::{
    clock::Clock,
    spec::{Image, Limits, Network, NetworkAttachment, ProjectName, Volume},
};

use super::{
    ContainerId, CreateContainer, Engine, EngineError, EngineEvent, EngineInfo, ExecOptions, ImageInfo,
    Inspection, Labels, LogLine, LogOptions, PullProgress, Ran, RemoveVolumes, Resource, Summary,
    kept_images,
};

mod world;

pub use world::{Call, Faults, OnChange, World};

/// An engine in memory. Clones are the same engine.
#[derive(Clone)]
pub struct Memory {
    world: Arc<Mutex<World>>,
}

impl Memory {
    /// An engine without containers, whose chances are drawn from `seed`.
    #[must_use]
    pub fn new(clock: Clock, seed: u64) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(clock, seed))) }
    }

    /// What there is, to look at or to change behind everybody's back.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call: it takes a while, may fail before or after it did its work, and fails while the daemon is down.
    async fn call<T>(
        &self,
        call: Call,
        work: impl FnOnce(&mut World) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let pause = self.world().enter(&call);
        tokio::time::sleep(pause).await;
        let mut world = self.world();
        world.reachable()?;
        world.fail_before(&call)?;
        let result = work(&mut world)?;
        world.fail_after()?;
        Ok(result)
    }
}

impl Engine for Memory {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.world().reachable()?;
        Ok(EngineInfo {
            name: "memory".to_owned(),
            api_version: "1.41".to_owned(),
            platform: "linux/amd64".to_owned(),
            local: true,
            live_restore: false,
            runtimes: vec!["runc".to_owned()],
            cgroup: "2".to_owned(),
            kernel: "6.18".to_owned(),
        })
    }

    async fn list(&self, project: &ProjectName) -> Result<Vec<Summary>, EngineError> {
        self.call(Call::Look, |world| Ok(world.list(project))).await
    }

    async fn list_all(&self) -> Result<Vec<Summary>, EngineError> {
        self.call(Call::Look, |world| Ok(world.list_all())).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Inspection, EngineError> {
        self.call(Call::Look, |world| world.inspect(id)).await
    }

    async fn create(&self, container: &CreateContainer) -> Result<ContainerId, EngineError> {
        self.call(Call::Create(container.name.clone()), |world| world.create(container)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        let this = self.clone();
        self.call(Call::Start(id.clone()), |world| {
            world.start(id)?;
            if let (Some((time, code)), Some(pid)) = (world.end_of_job(id), world.pid(id)?) {
                let id = id.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    let mut world = this.world();
                    if world.pid(&id) == Ok(Some(pid)) {
                        world.exit(&id, code);
                    }
                });
            }
            Ok(())
        })
        .await
    }

    async fn update(&self, id: &ContainerId, changes: &Limits) -> Result<(), EngineError> {
        self.call(Call::Update(id.clone()), |world| world.update(id, changes)).await
    }

    async fn run(&self, id: &ContainerId, _command: &ExecOptions) -> Result<Ran, EngineError> {
        let begun = self.call(Call::Run(id.clone()), |world| Ok((world.pid(id)?, world.command()))).await?;
        let (Some(pid), (time, code)) = begun else {
            return Err(EngineError::Conflict { message: "the container is not running".to_owned() });
        };
        tokio::time::sleep(time).await;
        let mut world = self.world();
        world.reachable()?;
        // It ends with its container.
        let code = if world.pid(id)? == Some(pid) { code } else { 137 };
        if code == 0 {
            world.note_ran(id);
        }
        Ok(Ran { code, output: vec!["simulated".to_owned()] })
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let asked = self.call(Call::Stop(id.clone()), |world| Ok(world.time_to_stop(id).min(grace))).await?;
        tokio::time::sleep(asked).await;
        let mut world = self.world();
        world.reachable()?;
        world.stop(id, 0);
        Ok(())
    }

    async fn kill(&self, id: &ContainerId, _signal: &str) -> Result<(), EngineError> {
        self.call(Call::Stop(id.clone()), |world| {
            world.exit(id, 137);
            Ok(())
        })
        .await
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), EngineError> {
        self.call(Call::Rename(id.clone()), |world| world.rename(id, name)).await
    }

    async fn remove(&self, id: &ContainerId, _volumes: RemoveVolumes) -> Result<(), EngineError> {
        self.call(Call::Remove(id.clone()), |world| {
            world.remove(id);
            Ok(())
        })
        .await
    }

    async fn events(&self, _project: &ProjectName) -> Result<BoxStream<'static, EngineEvent>, EngineError> {
        self.call(Call::Look, |world| {
            let (sender, receiver) = mpsc::unbounded_channel();
            // Whoever does not listen any more has not missed anything.
            world.past_stops().for_each(|event| drop(sender.send(event)));
            world.listeners.push(sender);
            Ok(stream::unfold(receiver, |mut r| async { r.recv().await.map(|event| (event, r)) }).boxed())
        })
        .await
    }

    async fn logs(
        &self,
        _id: &ContainerId,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        self.call(Call::Look, |world| {
            let lines = world.log.iter().filter(|line| line.time >= options.since).cloned();
            Ok(stream::iter(lines.map(Ok).collect::<Vec<_>>()).boxed())
        })
        .await
    }

    async fn image(&self, image: &Image) -> Result<Option<ImageInfo>, EngineError> {
        self.call(Call::Look, |world| Ok(world.image(image))).await
    }

    async fn pull(
        &self,
        _image: &Image,
        _platform: Option<&str>,
    ) -> Result<BoxStream<'static, Result<PullProgress, EngineError>>, EngineError> {
        self.call(Call::Look, |_| Ok(stream::empty().boxed())).await
    }

    async fn load_image(&self, _archive: Vec<u8>) -> Result<(), EngineError> {
        self.call(Call::Look, |_| Ok(())).await
    }

    async fn kept_images(&self, project: &ProjectName) -> Result<BTreeSet<Image>, EngineError> {
        let is_of = |name: &&Image| kept_images::is_of(project, name);
        self.call(Call::Look, |world| Ok(world.kept_images.iter().filter(is_of).cloned().collect())).await
    }

    async fn keep_image(&self, _id: &str, name: &Image) -> Result<(), EngineError> {
        self.call(Call::Resource, |world| {
            world.kept_images.insert(name.clone());
            Ok(())
        })
        .await
    }

    async fn release_image(&self, name: &Image) -> Result<(), EngineError> {
        self.call(Call::Resource, |world| {
            world.kept_images.remove(name);
            Ok(())
        })
        .await
    }

    async fn networks(&self, project: &ProjectName) -> Result<Vec<Resource>, EngineError> {
        self.call(Call::Look, |world| Ok(of_project(&world.networks, project))).await
    }

    async fn has_network(&self, name: &str) -> Result<bool, EngineError> {
        self.call(Call::Look, |world| Ok(world.networks.contains_key(name))).await
    }

    async fn create_network(&self, project: &ProjectName, network: &Network) -> Result<(), EngineError> {
        self.call(Call::Resource, |world| world.create_network(project, &network.name)).await
    }

    async fn connect(
        &self,
        id: &ContainerId,
        network: &str,
        attachment: &NetworkAttachment,
    ) -> Result<(), EngineError> {
        self.call(Call::Connect(id.clone()), |world| world.connect(id, network, attachment)).await
    }

    async fn disconnect(&self, id: &ContainerId, network: &str) -> Result<(), EngineError> {
        self.call(Call::Connect(id.clone()), |world| {
            world.disconnect(id, network);
            Ok(())
        })
        .await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        self.call(Call::Resource, |world| {
            world.networks.remove(name);
            Ok(())
        })
        .await
    }

    async fn volumes(&self, project: &ProjectName) -> Result<Vec<Resource>, EngineError> {
        self.call(Call::Look, |world| Ok(of_project(&world.volumes, project))).await
    }

    async fn has_volume(&self, name: &str) -> Result<bool, EngineError> {
        self.call(Call::Look, |world| Ok(world.volumes.contains_key(name))).await
    }

    async fn create_volume(&self, project: &ProjectName, volume: &Volume) -> Result<(), EngineError> {
        self.call(Call::Resource, |world| {
            let labels = Labels::of_resource(project, &volume.name);
            world.volumes.entry(volume.name.clone()).or_insert(labels);
            Ok(())
        })
        .await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.call(Call::Resource, |world| {
            world.volumes.remove(name);
            Ok(())
        })
        .await
    }
}

/// Networks or volumes that carry a project's label.
fn of_project(things: &BTreeMap<String, BTreeMap<String, String>>, project: &ProjectName) -> Vec<Resource> {
    let is_of = |labels: &BTreeMap<String, String>| {
        labels.get(Labels::PROJECT).is_some_and(|label| label == project.as_str())
    };
    let found = things.iter().filter(|(_, labels)| is_of(labels));
    found.map(|(name, labels)| Resource { name: name.clone(), labels: labels.clone() }).collect()
}
