//! Replicas that are reached by IPv6.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use sameport::kernel::{netns, replica_addr};

use super::{
    network::{V6, process},
    pod::Pod,
    server::{PORT, ask, http_at},
    support::wait::{self, check},
};

fn v4(slot: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 77, 0, slot)
}

/// Who answers at an address within the pod.
fn at(pod: &Pod, address: IpAddr) -> Result<String, ErrorKind> {
    let mut stream = pod.connect(SocketAddr::new(address, PORT.1)).map_err(|error| error.kind())?;
    ask(&mut stream).map_err(|error| error.kind())
}

/// Who answers whoever asks a replica wherever it listens.
fn wherever(pod: &Pod, slot: u8) -> Result<String, ErrorKind> {
    let limit = Duration::from_secs(5);
    let mut stream = replica_addr::connect(&pod.netns(), v4(slot), PORT.1, limit)
        .unwrap()
        .map_err(|error| error.kind())?;
    ask(&mut stream).map_err(|error| error.kind())
}

fn pod() -> Pod {
    let mut pod = Pod::wired();
    pod.start(1, &mut http_at("::", true));
    pod.start(2, &mut http_at("::", true));
    pod.start(3, &mut http_at("::", false));
    pod.start(4, &mut http_at("0.0.0.0", false));
    pod.listening(4, PORT);
    pod
}

#[test]
fn each_replica_has_an_ipv6_address_of_its_own() {
    let mut pod = pod();
    let refused = Err(ErrorKind::ConnectionRefused);
    let v6 = |slot| IpAddr::from(replica_addr::v6(v4(slot)));
    let name = |slot: u8| Ok(slot.to_string());
    // Whether it gets connections of others makes no difference.
    for weight in [100, 0] {
        (1..=4).for_each(|slot| pod.weighed(slot, weight));
        for _ in 0..3 {
            assert_eq!([1, 2, 3].map(|slot| at(&pod, v6(slot))), [1, 2, 3].map(name));
            assert_eq!(at(&pod, v6(4)), refused);
            assert_eq!([3, 4].map(|slot| at(&pod, v4(slot).into())), [3, 4].map(name));
            assert_eq!([1, 2].map(|slot| at(&pod, v4(slot).into())), [refused.clone(), refused.clone()]);
            assert_eq!([1, 2, 3, 4].map(|slot| wherever(&pod, slot)), [1, 2, 3, 4].map(name));
        }
    }
    assert_eq!(at(&pod, v6(5)), refused);
    assert_eq!(wherever(&pod, 5), refused);
}

#[test]
fn replicas_ipv6_addresses_are_not_among_those_of_their_network() {
    let pod = pod();
    let addresses = pod.netns().within(netns::addresses).unwrap();
    assert!(addresses.contains(&IpAddr::V6(Ipv6Addr::LOCALHOST)), "{addresses:?}");
    let ours = |address: &&IpAddr| matches!(address, IpAddr::V6(address) if address.segments()[0] == 0xfd61);
    assert_eq!(addresses.iter().find(ours), None);
}

/// Neighbours in a network of the engine may have routes of their own.
#[test]
fn nobody_outside_of_the_pod_reaches_a_replica_alone() {
    let pod = pod();
    let outside = pod.outside_pid();
    let route = format!("ip -6 route add {}/96 via {V6}", replica_addr::v6(Ipv4Addr::UNSPECIFIED));
    let added = process(outside, None, Command::new("sh").args(["-c", &route])).status().unwrap();
    assert!(added.success());
    let from_outside = |address: IpAddr| {
        let to = SocketAddr::new(address, PORT.1);
        let connect = || Ok(TcpStream::connect_timeout(&to, Duration::from_secs(2)).map(drop));
        netns::Netns::of(outside).unwrap().within(connect).unwrap().map_err(|error| error.kind())
    };
    assert_eq!(from_outside(V6.parse().unwrap()), Ok(()));
    for slot in 1..=3 {
        assert_eq!(from_outside(replica_addr::v6(v4(slot)).into()), Err(ErrorKind::ConnectionRefused));
    }
}

#[test]
fn connections_by_ipv6_wait_for_the_next_replica() {
    for only_v6 in [true, false] {
        let mut pod = Pod::wired();
        pod.start(1, &mut http_at("::", only_v6));
        pod.listening(1, PORT);
        pod.kill(1);
        wait::until("nobody listens", || {
            let traffic = pod.traffic(PORT);
            check(traffic.values().all(|traffic| !traffic.listens), &traffic)
        });
        let waiting: Vec<_> =
            (0..20).map(|_| pod.connect((Ipv6Addr::LOCALHOST, PORT.1)).expect("it is held")).collect();
        pod.start(1, &mut http_at("::", only_v6));
        for mut stream in waiting {
            stream.set_read_timeout(Some(wait::slowly(Duration::from_secs(5)))).unwrap();
            assert_eq!(ask(&mut stream).unwrap(), "1");
        }
    }
}

#[test]
fn without_ipv6_a_replica_that_takes_nothing_else_refuses() {
    let mut pod = Pod::new();
    let off = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6";
    assert!(process(pod.sandbox(), None, Command::new("sh").args(["-c", off])).status().unwrap().success());
    pod.start(1, &mut http_at("::", true));
    pod.start(2, &mut http_at("::", false));
    pod.listening(2, PORT);
    assert_eq!(wherever(&pod, 1), Err(ErrorKind::ConnectionRefused));
    assert_eq!(wherever(&pod, 2), Ok("2".to_owned()));
}
