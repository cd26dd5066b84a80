//! What an engine in memory holds, and the chances it takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    clock::Clock,
    engine::{
        ContainerId, ContainerState, CreateContainer, Endpoint, EngineError, EngineEvent, Exit, Health,
        HostSettings, ImageInfo, Inspection, Labels, LogLine, Namespaces, Nonce, Process, Role, Summary,
    },
    kernel::presence::Presence,
    spec::{Generation, Hooks, Image, Limits, NetworkAttachment, ProjectName, Protocol, ServiceName},
};

/// How often things go wrong, each in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A call fails and does nothing.
    pub before: u32,
    /// A call that would change something is refused, and does nothing.
    pub refused: u32,
    /// A call does its work, and the answer is lost.
    pub after: u32,
    /// An event is not told.
    pub lost_events: u32,
    /// A start takes seconds.
    pub slow_start: u32,
    /// A process ends at once after its start.
    pub crash_at_start: u32,
    /// A command in a container, or a job before a new version, ends with an exit code other than 0.
    pub command_fails: u32,
}

/// Images with such names end at once after their start.
const BAD: &str = "bad";

/// How the ids of images begin; their names follow.
const IMAGE_ID: &str = "sha256:";

/// A call, as far as a simulation wants to tell calls apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// It changes nothing.
    Look,
    /// Makes a container.
    Create(String),
    /// Starts one.
    Start(ContainerId),
    /// Ends one.
    Stop(ContainerId),
    /// Gives one another name.
    Rename(ContainerId),
    /// Removes one.
    Remove(ContainerId),
    /// Changes limits of one.
    Update(ContainerId),
    /// Runs a command in one.
    Run(ContainerId),
    /// Connects one to a network, or takes it off one.
    Connect(ContainerId),
    /// Makes or removes a network or volume.
    Resource,
}

/// Looks on while something is changed.
pub type OnChange = Box<dyn FnMut(&Call) + Send>;

struct Held {
    name: String,
    image: Image,
    labels: BTreeMap<String, String>,
    host: HostSettings,
    created: Timestamp,
    /// What it is, if we made it.
    made_as: Option<Labels>,
    host_ports: BTreeSet<u16>,
    limits: Limits,
    ran: u64,
    state: ContainerState,
    netns: u64,
    /// Whether its process is gone, and the engine does not know.
    has_vanished: bool,
    endpoints: BTreeMap<String, Endpoint>,
    /// Published while it is connected: the host's port, its own, the protocol.
    published: Vec<(u16, u16, Protocol)>,
}

/// What an engine in memory holds.
pub struct World {
    /// How often things go wrong.
    pub faults: Faults,
    /// Whether the daemon runs.
    pub up: bool,
    /// Every call so far that changed something.
    pub changes: Vec<Call>,
    /// Called at the beginning of each call that changes something.
    pub on_change: Option<OnChange>,
    /// What every container has written.
    pub log: Vec<LogLine>,
    /// How many calls there were.
    pub calls: u64,
    /// Whether lists of containers are empty, whatever there is.
    pub lists_nothing: bool,
    /// Whether no container can be asked after, whatever there is.
    pub knows_nothing: bool,
    /// Jobs before a new version that ended well, and of which version.
    pub jobs_done: BTreeSet<(ServiceName, Generation)>,
    pub(super) listeners: Vec<UnboundedSender<EngineEvent>>,
    /// Names that images of versions have.
    pub(super) kept_images: BTreeSet<Image>,
    /// The stops that were asked for: of which container, and when.
    stops: Vec<(ContainerId, Timestamp)>,
    /// Labels by name.
    pub(super) networks: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) volumes: BTreeMap<String, BTreeMap<String, String>>,
    /// Labels of the images that have any, by name.
    images: BTreeMap<Image, BTreeMap<String, String>>,
    gone_images: BTreeSet<Image>,
    containers: BTreeMap<ContainerId, Held>,
    chance: fastrand::Rng,
    clock: Clock,
    next: u64,
}

impl World {
    pub(super) fn new(clock: Clock, seed: u64) -> Self {
        Self {
            faults: Faults::default(),
            up: true,
            changes: Vec::new(),
            on_change: None,
            log: Vec::new(),
            calls: 0,
            lists_nothing: false,
            knows_nothing: false,
            jobs_done: BTreeSet::new(),
            listeners: Vec::new(),
            kept_images: BTreeSet::new(),
            stops: Vec::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            images: BTreeMap::new(),
            gone_images: BTreeSet::new(),
            containers: BTreeMap::new(),
            chance: fastrand::Rng::with_seed(seed),
            clock,
            next: 0,
        }
    }

    fn chance(&mut self, in_a_thousand: u32) -> bool {
        in_a_thousand > 0 && self.chance.u32(0..1000) < in_a_thousand
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn enter(&mut self, call: &Call) -> Duration {
        self.calls += 1;
        if *call != Call::Look {
            self.changes.push(call.clone());
            if let Some(on_change) = &mut self.on_change {
                on_change(call);
            }
        }
        let slow = matches!(call, Call::Start(_)) && self.chance(self.faults.slow_start);
        Duration::from_millis(if slow { self.chance.u64(1000..8000) } else { self.chance.u64(1..20) })
    }

    pub(super) fn reachable(&self) -> Result<(), EngineError> {
        if self.up {
            return Ok(());
        }
        Err(EngineError::Unreachable { address: "memory".to_owned(), reason: "it is down".to_owned() })
    }

    pub(super) fn fail_before(&mut self, call: &Call) -> Result<(), EngineError> {
        if *call != Call::Look && self.chance(self.faults.refused) {
            return Err(EngineError::Refused { message: "simulated refusal".to_owned() });
        }
        if self.chance(self.faults.before) {
            return Err(EngineError::Busy { message: "simulated failure".to_owned() });
        }
        Ok(())
    }

    pub(super) fn fail_after(&mut self) -> Result<(), EngineError> {
        if self.chance(self.faults.after) {
            return Err(EngineError::Unreachable {
                address: "memory".to_owned(),
                reason: "the answer was lost".to_owned(),
            });
        }
        Ok(())
    }

    fn tell(&mut self, event: &EngineEvent) {
        if !self.chance(self.faults.lost_events) {
            self.listeners.retain(|listener| listener.send(event.clone()).is_ok());
        }
    }

    pub(super) fn list(&self, project: &ProjectName) -> Vec<Summary> {
        let mut rows = self.list_all();
        rows.retain(|row| row.labels.get(Labels::PROJECT).map(String::as_str) == Some(project.as_str()));
        rows
    }

    pub(super) fn list_all(&self) -> Vec<Summary> {
        self.containers
            .iter()
            .filter(|(_, held)| held.labels.contains_key(Labels::PROJECT) && !self.lists_nothing)
            .map(|(id, held)| Summary {
                id: id.clone(),
                name: held.name.clone(),
                labels: held.labels.clone(),
                image: held.image.0.clone(),
                image_id: image_id(&held.image),
                created: held.created,
                state: word(&held.state).to_owned(),
                status: match &held.state {
                    ContainerState::Running(process) if process.health == Health::Unhealthy => {
                        "Up (unhealthy)".to_owned()
                    }
                    _ => String::new(),
                },
                connected: (held.endpoints.keys().cloned().collect(), held.shown_ports().len()),
            })
            .collect()
    }

    /// An image by its name or its id.
    pub(super) fn image(&self, image: &Image) -> Option<ImageInfo> {
        let name = Image(image.0.strip_prefix(IMAGE_ID).unwrap_or(&image.0).to_owned());
        let labels = self.images.get(&name).cloned().unwrap_or_default();
        (!self.gone_images.contains(&name)).then(|| ImageInfo {
            id: image_id(&name),
            labels,
            ..ImageInfo::default()
        })
    }

    /// Gives an image labels, which every container of it has from then on.
    pub fn label_image(&mut self, image: &str, labels: BTreeMap<String, String>) {
        self.images.insert(Image(image.to_owned()), labels);
    }

    /// Removes an image; its containers stay.
    pub fn remove_image(&mut self, image: &str) {
        self.gone_images.insert(Image(image.to_owned()));
    }

    pub(super) fn inspect(&self, id: &ContainerId) -> Result<Inspection, EngineError> {
        let held = self.containers.get(id).filter(|_| !self.knows_nothing).ok_or_else(|| gone(id))?;
        Ok(Inspection {
            id: id.clone(),
            name: held.name.clone(),
            host: held.host.clone(),
            limits: held.limits.clone(),
            volumes: BTreeSet::new(),
            check: None,
            image_id: image_id(&held.image),
            state: held.state.clone(),
            addresses: BTreeMap::new(),
            endpoints: Some(held.endpoints.clone()),
            published: held.shown_ports(),
        })
    }

    pub(super) fn create(&mut self, container: &CreateContainer) -> Result<ContainerId, EngineError> {
        if self.containers.values().any(|c| c.name == container.name) {
            let message = format!("the container name \"/{}\" is already in use", container.name);
            return Err(EngineError::Conflict { message });
        }
        let mut endpoints = BTreeMap::new();
        let mut published = Vec::new();
        let (network_mode, host_ports) = match &container.namespaces {
            Namespaces::Own { pod, networks } => {
                if let Some((name, _)) = networks.iter().find(|(name, _)| !self.networks.contains_key(name)) {
                    return Err(EngineError::Gone { what: format!("network {name}") });
                }
                endpoints
                    .extend(networks.iter().map(|(name, attachment)| (name.clone(), endpoint(attachment))));
                published.extend(pod.ports.iter().map(|port| {
                    (port.host_port.unwrap_or(port.container_port), port.container_port, port.protocol)
                }));
                ("bridge".to_owned(), pod.ports.iter().filter_map(|p| p.host_port).collect())
            }
            Namespaces::Join { sandbox: id, .. } if !self.containers.contains_key(id) => {
                return Err(gone(id));
            }
            Namespaces::Join { sandbox: id, .. } => (format!("container:{id}"), BTreeSet::new()),
            Namespaces::Host(_) => ("host".to_owned(), BTreeSet::new()),
        };
        let shareable = matches!(container.namespaces, Namespaces::Own { .. });
        let own = &container.container;
        let mut labels = self.labels_of(&own.image);
        labels.extend(own.labels.clone());
        let nonce = Nonce::of_number(self.number());
        labels.extend(container.labels.of_container(&container.hooks, &nonce));
        let held = Held {
            name: container.name.clone(),
            image: own.image.clone(),
            labels,
            host: HostSettings {
                image: own.image.0.clone(),
                network_mode,
                ipc_mode: if shareable { "shareable" } else { "private" }.to_owned(),
                read_only: own.read_only,
                cap_drop: own.cap_drop.clone(),
            },
            created: self.clock.now(),
            made_as: Some(container.labels.clone()),
            host_ports,
            limits: own.resources.limits(),
            ran: 0,
            state: ContainerState::Created,
            netns: 0,
            has_vanished: false,
            endpoints,
            published,
        };
        Ok(self.add(held))
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// When it is gone, or another one has the name.
    pub fn rename(&mut self, id: &ContainerId, name: &str) -> Result<(), EngineError> {
        if self.containers.iter().any(|(other, held)| other != id && held.name == name) {
            let message = format!("the container name \"/{name}\" is already in use");
            return Err(EngineError::Conflict { message });
        }
        self.containers.get_mut(id).ok_or_else(|| gone(id))?.name = name.to_owned();
        self.tell(&EngineEvent::Container(id.clone()));
        Ok(())
    }

    fn add(&mut self, held: Held) -> ContainerId {
        let id = ContainerId(format!("{:064x}", self.number()));
        self.containers.insert(id.clone(), held);
        self.tell(&EngineEvent::Container(id.clone()));
        id
    }

    /// Makes and starts a container of somebody else's, with these labels beside those of its image.
    pub fn add_foreign(&mut self, name: &str, labels: BTreeMap<String, String>) -> ContainerId {
        self.add_foreign_of("other", name, "bridge", labels)
    }

    /// The same, of that image and with that network mode.
    pub fn add_foreign_of(
        &mut self,
        image: &str,
        name: &str,
        network_mode: &str,
        labels: BTreeMap<String, String>,
    ) -> ContainerId {
        let image = Image(image.to_owned());
        let mut all = self.labels_of(&image);
        all.extend(labels);
        let state = self.running();
        let netns = self.number();
        let host = HostSettings {
            image: image.0.clone(),
            network_mode: network_mode.to_owned(),
            ipc_mode: "private".to_owned(),
            ..HostSettings::default()
        };
        let held = Held {
            name: name.to_owned(),
            labels: all,
            host,
            created: self.clock.now(),
            made_as: None,
            host_ports: BTreeSet::new(),
            limits: Limits::default(),
            ran: 0,
            image,
            state,
            netns,
            has_vanished: false,
            endpoints: BTreeMap::new(),
            published: Vec::new(),
        };
        self.add(held)
    }

    /// Makes an image of a container, labels and all, and runs it: `docker commit` and `docker run`. None if the
    /// container is gone.
    pub fn commit_and_run(&mut self, id: &ContainerId, name: &str) -> Option<ContainerId> {
        let labels = self.containers.get(id)?.labels.clone();
        let image = format!("commit-{}", self.number());
        self.label_image(&image, labels);
        Some(self.add_foreign_of(&image, name, "bridge", BTreeMap::new()))
    }

    /// From now on a container that we made has the labels that a release without nonces wrote.
    pub fn make_legacy(&mut self, id: &ContainerId) {
        let of_image = self.containers.get(id).map(|held| self.labels_of(&held.image)).unwrap_or_default();
        let Some(held) = self.containers.get_mut(id) else { return };
        let no_hooks = serde_json::to_string(&Hooks::default()).unwrap_or_default();
        held.labels.retain(|key, value| {
            ![Labels::LAYOUT, Labels::NONCE].contains(&key.as_str())
                && !value.is_empty()
                && *value != no_hooks
        });
        for (key, value) in of_image {
            held.labels.entry(key).or_insert(value);
        }
    }

    fn labels_of(&self, image: &Image) -> BTreeMap<String, String> {
        self.images.get(image).cloned().unwrap_or_default()
    }

    fn running(&mut self) -> ContainerState {
        let pid = u32::try_from(self.number()).unwrap_or(u32::MAX);
        ContainerState::Running(Process {
            pid,
            started_at: self.clock.now(),
            health: Health::None,
            complaint: None,
            check_error: None,
        })
    }

    /// Starts a container.
    ///
    /// # Errors
    /// When it is gone, its sandbox does not run, or its port is taken.
    pub fn start(&mut self, id: &ContainerId) -> Result<(), EngineError> {
        let held = self.containers.get(id).ok_or_else(|| gone(id))?;
        if matches!(held.state, ContainerState::Running(_)) {
            return Ok(());
        }
        let netns = match &held.host.joined() {
            Some(sandbox) => match self.containers.get(sandbox) {
                Some(s) if matches!(s.state, ContainerState::Running(_)) => Some(s.netns),
                Some(_) => {
                    let message = "cannot join network of a non running container".to_owned();
                    return Err(EngineError::Conflict { message });
                }
                None => return Err(gone(sandbox)),
            },
            None => None,
        };
        let taken = self.containers.iter().any(|(other, c)| {
            other != id
                && matches!(c.state, ContainerState::Running(_))
                && !c.host_ports.is_disjoint(&held.host_ports)
        });
        if taken {
            return Err(EngineError::PortTaken { message: "port is already allocated".to_owned() });
        }
        let state = self.running();
        let netns = netns.unwrap_or_else(|| self.number());
        if let Some(held) = self.containers.get_mut(id) {
            held.state = state;
            held.netns = netns;
            held.has_vanished = false;
            held.ran = 0;
        }
        self.tell(&EngineEvent::Container(id.clone()));
        let is_bad = self.containers.get(id).is_some_and(|held| held.image.0.starts_with(BAD));
        if is_bad || self.chance(self.faults.crash_at_start) {
            self.exit(id, 1);
        }
        Ok(())
    }

    /// The limits of a container, of those that can be changed.
    #[must_use]
    pub fn limits(&self, id: &ContainerId) -> Option<&Limits> {
        self.containers.get(id).map(|held| &held.limits)
    }

    /// How many commands have succeeded in a container since its process started.
    #[must_use]
    pub fn ran(&self, id: &ContainerId) -> u64 {
        self.containers.get(id).map_or(0, |held| held.ran)
    }

    /// A command has ended well in a container that runs.
    pub(super) fn note_ran(&mut self, id: &ContainerId) {
        if let Some(held) = self.containers.get_mut(id) {
            held.ran += 1;
        }
    }

    pub(super) fn update(&mut self, id: &ContainerId, changes: &Limits) -> Result<(), EngineError> {
        let held = self.containers.get_mut(id).ok_or_else(|| gone(id))?;
        held.limits = held.limits.with(changes);
        self.tell(&EngineEvent::Container(id.clone()));
        Ok(())
    }

    /// How long a command takes, and how it ends.
    pub(super) fn command(&mut self) -> (Duration, i64) {
        let failed = self.chance(self.faults.command_fails);
        (Duration::from_millis(self.chance.u64(1..3000)), i64::from(failed))
    }

    /// The process of a container, if it runs: its id tells it from another one of the same container.
    pub(super) fn pid(&self, id: &ContainerId) -> Result<Option<u32>, EngineError> {
        let held = self.containers.get(id).ok_or_else(|| gone(id))?;
        match &held.state {
            ContainerState::Running(process) => Ok(Some(process.pid)),
            _ => Ok(None),
        }
    }

    /// How a container that runs to its end by itself will do so; none if it is no job.
    pub(super) fn end_of_job(&mut self, id: &ContainerId) -> Option<(Duration, i64)> {
        let made_as = self.containers.get(id)?.made_as.as_ref()?;
        matches!(made_as.role, Role::PreDeploy { .. }).then(|| self.command())
    }

    pub(super) fn time_to_stop(&mut self, id: &ContainerId) -> Duration {
        let runs = self.containers.get(id).is_some_and(|c| matches!(c.state, ContainerState::Running(_)));
        Duration::from_millis(if runs { self.chance.u64(1..12_000) } else { 0 })
    }

    /// Ends a container's process because somebody asked for its stop, and tells so.
    pub fn stop(&mut self, id: &ContainerId, code: i64) {
        let runs = self.containers.get(id).is_some_and(|held| word(&held.state) == "running");
        if !runs {
            return;
        }
        self.tell(&EngineEvent::Ending { id: id.clone(), patience: Duration::from_secs(3) });
        self.exit(id, code);
        let stopped = (id.clone(), self.clock.now());
        self.tell(&EngineEvent::Stopped { id: stopped.0.clone(), at: stopped.1, is_past: false });
        self.stops.push(stopped);
    }

    /// The stops that were asked for so far.
    pub(super) fn past_stops(&self) -> impl Iterator<Item = EngineEvent> + '_ {
        self.stops.iter().map(|(id, at)| EngineEvent::Stopped { id: id.clone(), at: *at, is_past: true })
    }

    /// Ends a container's process, if it has one.
    pub fn exit(&mut self, id: &ContainerId, code: i64) {
        let now = self.clock.now();
        let Some(held) = self.containers.get_mut(id) else { return };
        if let (true, 0, Some(Labels { generation, role: Role::PreDeploy { service }, .. })) =
            (word(&held.state) == "running", code, &held.made_as)
        {
            self.jobs_done.insert((service.clone(), generation.clone()));
        }
        if let ContainerState::Running(process) | ContainerState::Paused(process) = &held.state {
            held.state = ContainerState::Exited(Exit {
                code,
                out_of_memory: false,
                error: None,
                started_at: process.started_at,
                finished_at: now,
            });
            self.tell(&EngineEvent::Container(id.clone()));
        }
    }

    /// From now on the health check of a container that runs fails, until it has another process.
    pub fn sicken(&mut self, id: &ContainerId) {
        if let Some(ContainerState::Running(process)) =
            self.containers.get_mut(id).map(|held| &mut held.state)
        {
            process.health = Health::Unhealthy;
            self.tell(&EngineEvent::Container(id.clone()));
        }
    }

    /// Whether the health check of anybody fails.
    #[must_use]
    pub fn is_anybody_unhealthy(&self) -> bool {
        let is_unhealthy = |held: &Held| matches!(&held.state, ContainerState::Running(process) if process.health == Health::Unhealthy);
        self.containers.values().any(is_unhealthy)
    }

    /// Removes a container, whatever its state.
    pub fn remove(&mut self, id: &ContainerId) {
        if self.containers.remove(id).is_some() {
            self.tell(&EngineEvent::Container(id.clone()));
        }
    }

    pub(super) fn connect(
        &mut self,
        id: &ContainerId,
        network: &str,
        attachment: &NetworkAttachment,
    ) -> Result<(), EngineError> {
        if !self.networks.contains_key(network) {
            return Err(EngineError::Gone { what: format!("network {network}") });
        }
        let held = self.containers.get_mut(id).ok_or_else(|| gone(id))?;
        held.endpoints.insert(network.to_owned(), endpoint(attachment));
        self.tell(&EngineEvent::Connection(id.clone()));
        Ok(())
    }

    /// Takes a container off a network; its ports are published no more once it is in none.
    pub fn disconnect(&mut self, id: &ContainerId, network: &str) {
        if self.containers.get_mut(id).is_some_and(|held| held.endpoints.remove(network).is_some()) {
            self.tell(&EngineEvent::Connection(id.clone()));
        }
    }

    /// The networks that a container is connected to.
    #[must_use]
    pub fn networks_of(&self, id: &ContainerId) -> Vec<String> {
        self.containers.get(id).map(|held| held.endpoints.keys().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn create_network(&mut self, project: &ProjectName, name: &str) -> Result<(), EngineError> {
        if self.networks.contains_key(name) {
            return Err(EngineError::Conflict { message: format!("network {name} already exists") });
        }
        self.networks.insert(name.to_owned(), Labels::of_resource(project, name));
        Ok(())
    }

    /// Makes a volume of somebody else's.
    pub fn add_foreign_volume(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.volumes.insert(name.to_owned(), labels);
    }

    /// Names of all networks and volumes.
    #[must_use]
    pub fn resources(&self) -> Vec<String> {
        self.networks.keys().chain(self.volumes.keys()).cloned().collect()
    }

    /// Every container: id, name, what it is if we made it, state, and whether its network is the one that
    /// its sandbox holds now.
    pub fn containers(
        &self,
    ) -> impl Iterator<Item = (&ContainerId, &str, Option<Labels>, &ContainerState, bool)> {
        self.containers.iter().map(|(id, c)| {
            let connected = c.host.joined().is_none_or(|sandbox| {
                self.containers
                    .get(&sandbox)
                    .is_some_and(|s| matches!(s.state, ContainerState::Running(_)) && s.netns == c.netns)
            });
            (id, c.name.as_str(), c.made_as.clone(), &c.state, connected)
        })
    }

    /// The network namespace of a process.
    #[must_use]
    pub fn netns_of(&self, pid: u32) -> Option<u64> {
        self.containers.values().find_map(|c| match &c.state {
            ContainerState::Running(p) | ContainerState::Paused(p) if p.pid == pid && !c.has_vanished => {
                Some(c.netns)
            }
            _ => None,
        })
    }

    /// What the engine's host shows of a process.
    #[must_use]
    pub fn presence(&self, pid: u32) -> Presence {
        let found = self.netns_of(pid);
        found.map_or(Presence::Absent, |_| Presence::There { started: u64::from(pid) })
    }

    /// Ends a container's process without the engine's taking note of it.
    pub fn vanish(&mut self, id: &ContainerId) {
        if let Some(held) = self.containers.get_mut(id).filter(|held| word(&held.state) == "running") {
            held.has_vanished = true;
        }
    }

    /// Whether the process of any container has vanished.
    #[must_use]
    pub fn has_anybody_vanished(&self) -> bool {
        self.containers.values().any(|held| held.has_vanished && word(&held.state) == "running")
    }

    /// The daemon goes down; every container ends with it, as without live-restore, unless `live`.
    pub fn go_down(&mut self, live: bool) {
        self.up = false;
        self.listeners.clear();
        if !live {
            let all: Vec<_> = self.containers.keys().cloned().collect();
            for id in all {
                self.exit(&id, 0);
            }
        }
    }
}

impl Held {
    fn shown_ports(&self) -> Vec<(String, u16, String)> {
        let is_open = matches!(self.state, ContainerState::Running(_)) && !self.endpoints.is_empty();
        let shown = self.published.iter().filter(|_| is_open);
        shown.map(|(host, inside, protocol)| (String::new(), *host, format!("{inside}/{protocol}"))).collect()
    }
}

fn endpoint(attachment: &NetworkAttachment) -> Endpoint {
    Endpoint {
        aliases: attachment.aliases.iter().cloned().collect(),
        ipv4: attachment.ipv4_address.clone(),
        ipv6: attachment.ipv6_address.clone(),
    }
}

fn image_id(image: &Image) -> String {
    format!("{IMAGE_ID}{}", image.0)
}

fn gone(id: &ContainerId) -> EngineError {
    EngineError::Gone { what: format!("container {}", id.short()) }
}

fn word(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running(_) => "running",
        ContainerState::Paused(_) => "paused",
        ContainerState::Exited(_) => "exited",
        ContainerState::Removing => "removing",
        ContainerState::Dead => "dead",
    }
}
