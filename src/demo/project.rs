//! What the demo runs: one service of one image behind one port.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use crate::spec::{
    Balance, Container, Hooks, Image, NameError, Network, Pod, PodName, PortBinding, PortSet, Project,
    ProjectName, Protocol, PullPolicy, Restart, Service, ServiceName, Services, Sharing, Unhealthy,
};

/// The only service's name.
pub const SERVICE: &str = "web";
/// Where each replica listens, within the pod.
pub const PORT: u16 = 8080;
/// How a replica learns its number.
pub const REPLICA_VARIABLE: &str = "SAMEPORT_REPLICA";
/// Nobody: the server needs no rights, and all replicas need the same user to share a port.
pub const USER: &str = "65534:65534";

/// An address of this host whose port is free, or the one that was asked for.
///
/// # Errors
/// When no port is free, or that one is not.
pub fn free_address(port: Option<u16>) -> io::Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
    TcpListener::bind(address)?.local_addr()
}

/// The project; its name holds the port, which no other project on this host can have at the same time.
///
/// # Errors
/// Never, unless Compose's rules for names change.
pub fn project(image: Image, replicas: u32, address: SocketAddr) -> Result<Project, NameError> {
    let name = ProjectName::new(format!("demo-{}", address.port()))?;
    let service = ServiceName::new(SERVICE)?;
    let pod = PodName::new(SERVICE)?;
    let mut container = Container::new(image);
    container.environment.insert(REPLICA_VARIABLE.to_owned(), Some("{{.Replica}}".to_owned()));
    container.user = Some(USER.to_owned());
    container.read_only = true;
    container.cap_drop = vec!["ALL".to_owned()];
    let ports = vec![PortBinding {
        service: service.clone(),
        host_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host_port: Some(address.port()),
        container_port: PORT,
        protocol: Protocol::Tcp,
    }];
    let network = Network::new(format!("{name}_default"));
    Ok(Project {
        services: Services::from_iter([(
            service.clone(),
            Service {
                name: service,
                pod: pod.clone(),
                container,
                replicas,
                container_name: None,
                restart: Restart::default(),
                stop_grace: Service::STOP_GRACE,
                depends_on: BTreeMap::new(),
                pull_policy: PullPolicy::Never,
                sharing: Sharing::Auto,
                balance: Balance::default(),
                drain: Service::DRAIN,
                hold: Service::HOLD,
                probe: None,
                unhealthy: Unhealthy::default(),
                hooks: Hooks::default(),
                pre_deploy: None,
                update: crate::spec::Update::default(),
                rollback: crate::spec::Update::default(),
                canary: None,
                exclusive_ports: PortSet::default(),
                shared_ports: PortSet::default(),
            },
        )]),
        pods: BTreeMap::from([(pod, Pod { ports, ..Pod::default() })]),
        networks: BTreeMap::from([("default".to_owned(), network)]),
        volumes: BTreeMap::new(),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_refused_and_any_other_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(free_address(Some(port)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_ne!(free_address(None).unwrap().port(), port);
    }

    #[test]
    fn the_project_is_named_after_its_port() {
        let address = "127.0.0.1:41234".parse().unwrap();
        let project = project(Image("localhost/x".into()), 4, address).unwrap();
        assert_eq!(project.name.as_str(), "demo-41234");
        assert_eq!(project.pods.values().next().unwrap().ports[0].host_port, Some(41234));
    }
}
