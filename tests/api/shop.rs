//! A supervisor with its control socket, on an engine in memory.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sameport::{
    api::{self, Client, Served, Server, protocol::Reply, schema::Status},
    clock::Clock,
    compose,
    engine::memory::Memory,
    spec::Project,
    supervisor::{
        self, Apply, Handle, Kernel, NoKernel, Request, Settings, StateFile, read_access::ReadAccess,
    },
    tick::Ticker,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How long anything here may take.
pub const LONG: Duration = Duration::from_secs(20);

/// A folder for the socket and what belongs to it.
pub struct Shop {
    folder: TempDir,
    pub engine: Memory,
    pub read_access: Option<ReadAccess>,
}

/// A supervisor that answers.
pub struct Open {
    pub handle: Handle,
    pub task: JoinHandle<()>,
    pub server: Server,
}

impl Shop {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            engine: Memory::new(Clock::default(), 1),
            read_access: None,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("shop.sock")
    }

    /// Begins a supervisor of the project, and opens its socket.
    pub fn open(&self) -> Open {
        self.open_on(NoKernel)
    }

    /// As [`Self::open`], on a kernel.
    pub fn open_on(&self, kernel: impl Kernel + 'static) -> Open {
        let (engine, processes) = (self.engine.clone(), self.engine.clone());
        let settings = Settings {
            state: StateFile::at(self.folder.path().join("shop.json")),
            clock: Clock::default(),
            netns_of: Arc::new(move |pid| engine.world().netns_of(pid)),
            processes: Arc::new(move |pid, _: &_| processes.world().presence(pid)),
            kernel: Arc::new(kernel),
            ticker: Ticker::by_tokio(),
            check_folder: None,
        };
        let ticker = settings.ticker.clone();
        let engine = Arc::new(self.engine.clone());
        let (handle, task) = supervisor::start(engine, "shop".parse().unwrap(), settings).unwrap();
        let server = api::bind(
            &self.socket(),
            Served {
                project: "shop".parse().unwrap(),
                handle: handle.clone(),
                engine: None,
                read_access: self.read_access.clone(),
            },
            &ticker,
        )
        .unwrap();
        Open { handle, task, server }
    }

    /// A client of the supervisor that answers.
    pub async fn client(&self) -> Client {
        Client::connect(&self.socket()).await.unwrap().unwrap()
    }

    /// A project of one service with so many replicas.
    pub fn project(&self, replicas: u32) -> Project {
        let file = self.folder.path().join("compose.yaml");
        let text = format!(
            "name: shop\nservices:\n  web:\n    image: localhost/web\n    deploy: {{ replicas: {replicas} }}\n"
        );
        fs::write(&file, text).unwrap();
        load(&file)
    }
}

fn load(file: &Path) -> Project {
    let options = compose::Options { files: vec![file.to_owned()], ..compose::Options::default() };
    compose::load(&options).unwrap().project
}

/// Asks for a project to run.
pub fn apply(project: Project) -> Request {
    Request::Apply(Box::new(Apply::all(project, "test")))
}

/// Waits until the project has converged.
pub async fn converged(client: &Client) -> Status {
    let wait = async {
        loop {
            match client.request(&Request::Status).await.unwrap() {
                Reply::Status(status) if status.converged => return *status,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap()
}
