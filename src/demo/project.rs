//! The demo's project: one service of one image behind one port.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use crate::spec::{
    Balance, Container, Hooks, Image, NameError, Network, Pod, PodName, PortBinding, PortSet, Project,
    ProjectName, Protocol, PullPolicy, Restart, Service, ServiceName, Services, Sharing, Unhealthy,
};

/// The name of the only service.
pub const SERVICE: &str = "web";
/// The port on which each replica listens in the pod.
pub const PORT: u16 = 8080;
/// The variable with the number of the replica.
pub const REPLICA_VARIABLE: &str = "SAMEPORT_REPLICA";
/// `nobody`: the server needs no privileges, and replicas must have the same user to share a port.
pub const USER: &str = "65534:65534";

/// A free address on 127.0.0.1, or the one with the requested port.
///
/// # Errors
/// If no port is free, or the requested one is in use.
pub fn free_address(port: Option<u16>) -> io::Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.unwrap_or(0)));
    TcpListener::bind(address)?.local_addr()
}

/// The project. Its name contains the port, so that it is unique on this host.
///
/// # Errors
/// Only if Compose's rules for names change.
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
