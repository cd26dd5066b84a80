//! Docker Engine, through its API.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bollard::{
    auth::DockerCredentials,
    models::{
        Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest, SystemInfo,
        VolumeCreateRequest,
    },
    query_parameters::{
        CreateContainerOptions, CreateImageOptions, ImportImageOptions, KillContainerOptions,
        ListContainersOptions, ListImagesOptions, ListNetworksOptions, ListVolumesOptions,
        RemoveContainerOptions, RemoveImageOptions, RemoveVolumeOptions, RenameContainerOptions,
        StopContainerOptions, TagImageOptions,
    },
};
use futures_util::{Stream, StreamExt, TryStreamExt, stream::BoxStream};

use crate::spec::{Image, Limits, Network, NetworkAttachment, ProjectName, Volume};

use super::{
    ContainerId, CreateContainer, Engine, EngineError, EngineEvent, EngineInfo, ExecOptions, ImageInfo,
    Inspection, Labels, LogLine, LogOptions, Namespaces, Nonce, PullProgress, Ran, RemoveVolumes, Resource,
    Summary, credentials, kept_images,
};

mod bounded;
mod calls;
mod connect;
mod error;
mod exec;
mod image;
mod inspect;
pub mod lock;
mod mounts;
mod stops;
mod stream;
mod translate;

use calls::Calls;

pub(super) use connect::config_folder;
pub use connect::{Endpoint, Surroundings};
pub use exec::{ExecControl, ExecOutput, ExecSession};

/// How many calls are under way at the same time. The daemon works on containers one after the other where it
/// touches the kernel's mounts and networks: more at once only make each one slower. On 2 CPUs, 32 replicas took
/// 4.3 s one at a time, 2.4 s with 4, 2.2 s with 16 and 2.4 s with 32 (`cargo bench --bench start`).
const AT_ONCE: usize = 16;

/// The API from which on a health check can be asked more often at first: `start_interval` (Docker Engine 25).
pub const START_INTERVAL: (u32, u32) = (1, 44);

/// How much longer than a container's time to end the daemon may take to answer.
const STOP_SLACK: Duration = Duration::from_secs(60);

/// Docker Engine, or what speaks its API. Clones are the same connection.
#[derive(Clone, Debug)]
pub struct Docker {
    client: bollard::Docker,
    endpoint: Arc<Endpoint>,
    address: Arc<str>,
    api_version: Arc<str>,
    local: bool,
    /// Bounds the calls that make the daemon work; not those that wait or listen.
    calls: Arc<Calls>,
}

impl Docker {
    /// Connects to the engine that this process's surroundings name: `DOCKER_HOST` (with `DOCKER_TLS_VERIFY` and
    /// `DOCKER_CERT_PATH`), else the current Docker context, else the usual socket.
    ///
    /// # Errors
    /// When it cannot be found, does not answer, or is older than API 1.41.
    pub async fn connect() -> Result<Self, EngineError> {
        Self::connect_to(&Surroundings::from_env().endpoint()?).await
    }

    /// Connects to an engine.
    ///
    /// # Errors
    /// When it does not answer, or is older than API 1.41.
    pub async fn connect_to(endpoint: &Endpoint) -> Result<Self, EngineError> {
        Self::connect_bounded(endpoint, AT_ONCE).await
    }

    /// Connects to an engine, with another bound on calls at the same time.
    ///
    /// # Errors
    /// As [`Docker::connect_to`].
    pub async fn connect_bounded(endpoint: &Endpoint, at_once: usize) -> Result<Self, EngineError> {
        let address = &endpoint.host;
        let client = connect::client(endpoint)?;
        let version = client.version().await.map_err(|e| error::classify(e, "the engine", address))?;
        let api_version = version.api_version.unwrap_or_default();
        if !connect::is_spoken(&api_version) {
            let message = format!(
                "the engine at {address} speaks API {api_version}, and 1.41 is the oldest that will do: \
                 it takes Docker Engine 20.10 or newer"
            );
            return Err(EngineError::Refused { message });
        }
        let client =
            client.negotiate_version().await.map_err(|e| error::classify(e, "the engine", address))?;
        Ok(Self {
            client,
            endpoint: Arc::new(endpoint.clone()),
            address: address.as_str().into(),
            api_version: api_version.into(),
            local: endpoint.is_local(),
            calls: Arc::new(Calls::new(at_once)),
        })
    }

    /// Keeps some descriptors for connections to the engine, for a process that is to go on when the limit of open files is
    /// lowered. To be called before it opens much else.
    pub fn keep_descriptors(&self) {
        self.calls.keep_descriptors();
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// One call, when it is its turn.
    async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, bollard::errors::Error>> + Send,
    ) -> Result<T, EngineError> {
        let _permit = self.calls.turn().await;
        let result = call.await.map_err(|e| self.classify(e, what));
        self.calls.ended(result.as_ref().is_err_and(error::is_short_of_files)).await;
        result
    }

    fn classify(&self, error: bollard::errors::Error, what: &str) -> EngineError {
        error::classify(error, what, &self.address)
    }

    /// Who we are to the registry of an image. Only the engine knows its default one.
    async fn credentials(&self, image: &Image) -> Result<Option<DockerCredentials>, EngineError> {
        match credentials::registry(image) {
            Some(registry) => credentials::for_registry(registry).await,
            None => match self.call("the engine", self.client.info()).await?.index_server_address {
                Some(registry) => credentials::for_registry(&registry).await,
                None => Ok(None),
            },
        }
    }

    async fn create_with(&self, create: &CreateContainer, migrate: bool) -> Result<ContainerId, EngineError> {
        let nonce = Nonce::fresh().map_err(|error| EngineError::Refused {
            message: format!("container {} cannot be made: no random bytes: {error}", create.name),
        })?;
        let mut body = translate::container(create, &nonce);
        if !self.speaks(START_INTERVAL)
            && let Some(check) = &mut body.healthcheck
        {
            check.start_interval = None;
        }
        if !migrate && let Some(sysctls) = body.host_config.as_mut().and_then(|host| host.sysctls.as_mut()) {
            sysctls.remove(translate::MIGRATE);
        }
        let options = CreateContainerOptions {
            name: Some(create.name.clone()),
            platform: create.container.platform.clone().unwrap_or_default(),
        };
        let what = format!("what container {} needs", create.name);
        let made = self.call(&what, self.client.create_container(Some(options), body)).await?;
        let id = ContainerId(made.id);
        if let Namespaces::Own { networks, .. } = &create.namespaces {
            for (network, attachment) in networks.iter().skip(1) {
                self.connect(&id, network, attachment).await?;
            }
        }
        Ok(id)
    }

    async fn list_filtered(
        &self,
        filters: HashMap<String, Vec<String>>,
    ) -> Result<Vec<Summary>, EngineError> {
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let rows = self.call("the engine", self.client.list_containers(Some(options))).await?;
        Ok(rows.into_iter().filter_map(inspect::summary).collect())
    }

    /// What time the engine has.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn time(&self) -> Result<Option<String>, EngineError> {
        Ok(self.call("the engine", self.client.info()).await?.system_time)
    }

    /// What tells the engine from all others, however it is reached: its id, and its data folder, since engines of one host
    /// have the same id up to Docker Engine 23 (from `/etc/docker/key.json`).
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn id(&self) -> Result<Option<String>, EngineError> {
        let info = self.call("the engine", self.client.info()).await?;
        Ok(info.id.map(|id| format!("{id} {}", info.docker_root_dir.unwrap_or_default())))
    }

    /// Whether the engine's API is at least of that version.
    #[must_use]
    pub fn speaks(&self, version: (u32, u32)) -> bool {
        connect::number(&self.api_version) >= version
    }

    /// Whether it runs on this host, so that its containers' processes are ours to look at.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Whether new pods can be given the setting that moves waiting connections on. Where the engine's kernel
    /// cannot be looked at, its version tells.
    fn can_migrate(&self, create: &CreateContainer) -> bool {
        let Namespaces::Own { pod, .. } = &create.namespaces else { return true };
        let by_user = pod.sysctls.contains_key(translate::MIGRATE);
        by_user || !self.local || std::path::Path::new("/proc/sys/net/ipv4/tcp_migrate_req").exists()
    }
}

fn label_filter(project: &ProjectName) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{}={project}", Labels::PROJECT)])])
}

fn of(id: &ContainerId) -> String {
    format!("container {}", id.short())
}

/// What is already so needs no doing.
fn unless_gone(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Gone { .. }) => Ok(()),
        other => other,
    }
}

impl Engine for Docker {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let version = self.call("the engine", self.client.version()).await?;
        let info = self.call("the engine", self.client.info()).await?;
        let name = version.platform.map_or_else(|| "Docker Engine".to_owned(), |platform| platform.name);
        let name = if name.is_empty() { "Docker Engine".to_owned() } else { name };
        Ok(EngineInfo {
            name: format!("{name} {}", version.version.unwrap_or_default()),
            api_version: self.api_version.to_string(),
            platform: format!("{}/{}", version.os.unwrap_or_default(), version.arch.unwrap_or_default()),
            local: self.local,
            live_restore: info.live_restore_enabled.unwrap_or_default(),
            runtimes: info.runtimes.as_ref().map(|all| all.keys().cloned().collect()).unwrap_or_default(),
            cgroup: cgroup(&info),
            kernel: info.kernel_version.unwrap_or_default(),
        })
    }

    async fn list(&self, project: &ProjectName) -> Result<Vec<Summary>, EngineError> {
        self.list_filtered(label_filter(project)).await
    }

    async fn list_all(&self) -> Result<Vec<Summary>, EngineError> {
        let of_any = HashMap::from([("label".to_owned(), vec![Labels::PROJECT.to_owned()])]);
        self.list_filtered(of_any).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Inspection, EngineError> {
        let told = self.call(&of(id), self.client.inspect_container(&id.0, None)).await?;
        Ok(inspect::inspection(id, told))
    }

    async fn create(&self, container: &CreateContainer) -> Result<ContainerId, EngineError> {
        self.create_with(container, self.can_migrate(container)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call(&of(id), self.client.start_container(&id.0, None)).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptions { t: Some(seconds), ..Default::default() };
        // It waits for the container most of the time, and must not keep others from their turn.
        let client = self.client.clone().with_timeout(grace.saturating_add(STOP_SLACK));
        unless_gone(client.stop_container(&id.0, Some(options)).await.map_err(|e| self.classify(e, &of(id))))
    }

    async fn kill(&self, id: &ContainerId, signal: &str) -> Result<(), EngineError> {
        let options = KillContainerOptions { signal: signal.to_owned() };
        match self.call(&of(id), self.client.kill_container(&id.0, Some(options))).await {
            // It does not run: no process is left to be sent a signal.
            Err(EngineError::Conflict { .. }) => Ok(()),
            other => other,
        }
    }

    async fn update(&self, id: &ContainerId, changes: &Limits) -> Result<(), EngineError> {
        self.call(&of(id), self.client.update_container(&id.0, translate::changes(changes))).await
    }

    async fn run(&self, id: &ContainerId, command: &ExecOptions) -> Result<Ran, EngineError> {
        self.run_to_end(id, command).await
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), EngineError> {
        let options = RenameContainerOptions { name: name.to_owned() };
        self.call(&of(id), self.client.rename_container(&id.0, options)).await
    }

    async fn remove(&self, id: &ContainerId, volumes: RemoveVolumes) -> Result<(), EngineError> {
        let options =
            RemoveContainerOptions { v: volumes == RemoveVolumes::Remove, force: true, ..Default::default() };
        match self.call(&of(id), self.client.remove_container(&id.0, Some(options))).await {
            // Somebody else is at it.
            Err(EngineError::Conflict { message }) if message.contains("already in progress") => Ok(()),
            other => unless_gone(other),
        }
    }

    async fn events(&self, project: &ProjectName) -> Result<BoxStream<'static, EngineEvent>, EngineError> {
        // The request is sent only when the stream is read: what happens until then is asked for by its time, on
        // the engine's own clock. This call also tells now whether the engine is there.
        let now = self.time().await?;
        let events = self.client.events(Some(stream::events(project, now.as_deref())));
        let connections = self.client.events(Some(stream::connections(now.as_deref())));
        // Where the one ends, the other is not enough.
        let to_end = |events: BoxStream<'static, Result<_, _>>| {
            events.map(Result::ok).chain(futures_util::stream::once(async { None }))
        };
        let told = futures_util::stream::select(to_end(events.boxed()), to_end(connections.boxed()));
        let past = self.past_stops(project, now.as_deref()).await;
        Ok(futures_util::stream::iter(past).chain(self.with_reasons(told)).boxed())
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
    ) -> Result<BoxStream<'static, Result<LogLine, EngineError>>, EngineError> {
        let frames = self.client.logs(&id.0, Some(stream::log_options(options)));
        let (this, what, options) = (self.clone(), of(id), options.clone());
        Ok(stream::lines(frames.boxed())
            .map(move |line| line.map_err(|e| this.classify(e, &what)))
            .try_filter(move |line| std::future::ready(stream::is_within(line, &options)))
            .boxed())
    }

    async fn image(&self, image: &Image) -> Result<Option<ImageInfo>, EngineError> {
        match self.call(&format!("image {image}"), self.client.inspect_image(&image.0)).await {
            Ok(told) => Ok(Some(inspect::image(told))),
            Err(EngineError::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(
        &self,
        image: &Image,
        platform: Option<&str>,
    ) -> Result<BoxStream<'static, Result<PullProgress, EngineError>>, EngineError> {
        let credentials = self.credentials(image).await?;
        let options = CreateImageOptions {
            from_image: Some(credentials::tagged(image)),
            platform: platform.unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let progress = self.client.create_image(Some(options), None, credentials);
        let (this, what) = (self.clone(), format!("image {image}"));
        Ok(progress.map(move |told| told.map(stream::progress).map_err(|e| this.classify(e, &what))).boxed())
    }

    async fn load_image(&self, archive: Vec<u8>) -> Result<(), EngineError> {
        let body = bollard::body_full(archive.into());
        let loading = self.client.import_image(ImportImageOptions::default(), body, None);
        self.call("the image", drained(loading)).await
    }

    async fn kept_images(&self, project: &ProjectName) -> Result<BTreeSet<Image>, EngineError> {
        let filters = HashMap::from([("reference".to_owned(), vec![kept_images::REPOSITORY.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..Default::default() };
        let found = self.call("the engine", self.client.list_images(Some(options))).await?;
        let names = found.into_iter().flat_map(|image| image.repo_tags).map(Image);
        Ok(names.filter(|name| kept_images::is_of(project, name)).collect())
    }

    async fn keep_image(&self, id: &str, name: &Image) -> Result<(), EngineError> {
        let (repo, tag) = name.0.rsplit_once(':').unwrap_or((&name.0, "latest"));
        let options = TagImageOptions { repo: Some(repo.to_owned()), tag: Some(tag.to_owned()) };
        self.call(&format!("image {id}"), self.client.tag_image(id, Some(options))).await
    }

    async fn release_image(&self, name: &Image) -> Result<(), EngineError> {
        let options = RemoveImageOptions { noprune: true, ..Default::default() };
        let removed = self.client.remove_image(&name.0, Some(options), None);
        self.call(&format!("image {name}"), removed).await.map(drop)
    }

    async fn networks(&self, project: &ProjectName) -> Result<Vec<Resource>, EngineError> {
        let options = ListNetworksOptions { filters: Some(label_filter(project)) };
        let found = self.call("the engine", self.client.list_networks(Some(options))).await?;
        let named = found.into_iter().filter_map(|network| Some((network.name?, network.labels)));
        Ok(named.map(|(name, labels)| resource(name, labels.unwrap_or_default())).collect())
    }

    async fn has_network(&self, name: &str) -> Result<bool, EngineError> {
        exists(self.call(&format!("network {name}"), self.client.inspect_network(name, None)).await)
    }

    async fn create_network(&self, project: &ProjectName, network: &Network) -> Result<(), EngineError> {
        let pools = network.ipam.iter().map(|pool| IpamConfig {
            subnet: pool.subnet.clone(),
            gateway: pool.gateway.clone(),
            ip_range: pool.ip_range.clone(),
            auxiliary_addresses: None,
        });
        let request = NetworkCreateRequest {
            name: network.name.clone(),
            driver: network.driver.clone(),
            internal: Some(network.internal),
            attachable: Some(network.attachable),
            enable_ipv6: Some(network.enable_ipv6),
            ipam: (!network.ipam.is_empty())
                .then(|| Ipam { config: Some(pools.collect()), ..Ipam::default() }),
            options: Some(network.driver_opts.clone().into_iter().collect()),
            labels: Some(labelled(project, &network.name, &network.labels)),
            ..NetworkCreateRequest::default()
        };
        // Without this look two networks of one name can be made: the daemon knows them by their ids.
        if self.has_network(&network.name).await? {
            let message = format!("there is a network {} already", network.name);
            return Err(EngineError::Conflict { message });
        }
        self.call(&format!("network {}", network.name), self.client.create_network(request)).await?;
        Ok(())
    }

    async fn connect(
        &self,
        id: &ContainerId,
        network: &str,
        attachment: &NetworkAttachment,
    ) -> Result<(), EngineError> {
        let request = NetworkConnectRequest {
            container: id.0.clone(),
            endpoint_config: Some(translate::endpoint(attachment)),
        };
        self.call(&format!("network {network}"), self.client.connect_network(network, request)).await
    }

    async fn disconnect(&self, id: &ContainerId, network: &str) -> Result<(), EngineError> {
        let request = NetworkDisconnectRequest { container: id.0.clone(), force: None };
        self.call(&format!("network {network}"), self.client.disconnect_network(network, request)).await
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        unless_gone(self.call(&format!("network {name}"), self.client.remove_network(name)).await)
    }

    async fn volumes(&self, project: &ProjectName) -> Result<Vec<Resource>, EngineError> {
        let options = ListVolumesOptions { filters: Some(label_filter(project)) };
        let found = self.call("the engine", self.client.list_volumes(Some(options))).await?;
        let found = found.volumes.unwrap_or_default().into_iter();
        Ok(found.map(|volume| resource(volume.name, volume.labels)).collect())
    }

    async fn has_volume(&self, name: &str) -> Result<bool, EngineError> {
        exists(self.call(&format!("volume {name}"), self.client.inspect_volume(name)).await)
    }

    async fn create_volume(&self, project: &ProjectName, volume: &Volume) -> Result<(), EngineError> {
        let request = VolumeCreateRequest {
            name: Some(volume.name.clone()),
            driver: volume.driver.clone(),
            driver_opts: Some(volume.driver_opts.clone().into_iter().collect()),
            labels: Some(labelled(project, &volume.name, &volume.labels)),
            ..VolumeCreateRequest::default()
        };
        self.call(&format!("volume {}", volume.name), self.client.create_volume(request)).await?;
        Ok(())
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        unless_gone(
            self.call(
                &format!("volume {name}"),
                self.client.remove_volume(name, None::<RemoveVolumeOptions>),
            )
            .await,
        )
    }
}

fn exists<T>(inspected: Result<T, EngineError>) -> Result<bool, EngineError> {
    match inspected {
        Ok(_) => Ok(true),
        Err(EngineError::Gone { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn resource(name: String, labels: HashMap<String, String>) -> Resource {
    Resource { name, labels: labels.into_iter().collect() }
}

/// The labels of a network or volume: ours win over the file's.
fn labelled(
    project: &ProjectName,
    name: &str,
    labels: &std::collections::BTreeMap<String, String>,
) -> HashMap<String, String> {
    labels.clone().into_iter().chain(Labels::of_resource(project, name)).collect()
}

fn cgroup(info: &SystemInfo) -> String {
    let word = |text: Option<String>| text.filter(|t| !t.is_empty()).unwrap_or_else(|| "?".to_owned());
    let version = word(info.cgroup_version.map(|version| version.to_string()));
    format!("{version} ({})", word(info.cgroup_driver.map(|driver| driver.to_string())))
}

async fn drained<T>(
    stream: impl Stream<Item = Result<T, bollard::errors::Error>> + Send,
) -> Result<(), bollard::errors::Error> {
    stream.try_for_each(|_| std::future::ready(Ok(()))).await
}
