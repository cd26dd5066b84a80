//! The first request after `up -d`: nobody is refused before a replica had its time to listen.

use std::{
    net::{Ipv6Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use super::support::{daemon::Daemon, docker::Docker, images, load, project::Project, wait};

/// gunicorn that begins after so many seconds, as that user.
fn gunicorn(user: &str, seconds: u32) -> String {
    format!(
        r#"
services:
  web:
    image: ${{GUNICORN}}
    command: [sh, -c, "sleep {seconds}; exec python3 -m gunicorn --chdir / --bind [::]:8080 --worker-tmp-dir /dev/shm app:app"]
    user: "{user}"
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
"#
    )
}

/// Brings it up again and again, and asks at once.
fn ask_at_once(
    docker: &Docker,
    networks: &str,
    rounds: u32,
    addresses: impl Fn(&Project) -> Vec<SocketAddr>,
) {
    for user in ["0", "1000"] {
        let project = Project::on(docker.clone(), &format!("{}{networks}", gunicorn(user, 0)));
        for round in 0..rounds {
            project.run(&["up", "-d"]);
            for address in addresses(&project) {
                let answer = load::request(address);
                assert!(answer.is_ok(), "round {round} as {user}, {address}: {answer:?}{}", project.log());
            }
            project.run(&["down", "-t", "1s"]);
        }
    }
}

/// By Docker's proxy, by its address translation, and past both.
fn ask_at_once_with_proxy(rounds: u32) {
    ask_at_once(&Docker::default(), "", rounds, |project| {
        let v6 = (Ipv6Addr::LOCALHOST, project.port).into();
        vec![project.loopback(), v6, project.outside(), project.in_pod("web", 8080)]
    });
}

/// On an engine that has no proxy, where its address translation is all there is.
fn ask_at_once_without_proxy(rounds: u32) {
    let daemon = Daemon::without_proxy("gunicorn");
    // Something is in that network before: the kernel uses an IPv6 address of the host itself only a second or two after the
    // first container has come.
    daemon.docker().run(&["network", "create", "--ipv6", "--subnet", "fd00:5a3e:1::/64", "both"]);
    daemon.docker().run(&["run", "-d", "--network", "both", &images::build("gunicorn"), "sleep", "1000"]);
    thread::sleep(Duration::from_secs(4));
    let enter = daemon.enter();
    thread::scope(|scope| {
        scope.spawn(|| {
            enter();
            let networks = "networks: { default: { name: both, external: true } }";
            ask_at_once(&daemon.docker(), networks, rounds, |project| {
                let port = project.port;
                let [v4, v6] = daemon.gateways("both").map(|gateway| (gateway, port).into());
                vec![project.loopback(), v4, v6, daemon.pod_address(&project.name, "web")]
            });
        });
    });
}

#[test]
fn the_first_request_after_up_is_answered() {
    ask_at_once_with_proxy(3);
}

#[test]
fn the_first_request_after_up_is_answered_without_a_proxy() {
    ask_at_once_without_proxy(2);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn of_a_hundred_first_requests_after_up_none_is_refused() {
    ask_at_once_with_proxy(50);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn of_a_hundred_first_requests_after_up_none_is_refused_without_a_proxy() {
    ask_at_once_without_proxy(50);
}

#[test]
fn up_says_after_ten_seconds_what_it_waits_for_and_whoever_comes_then_waits_for_the_server() {
    let project = Project::new(&gunicorn("0", 13));
    let begun = Instant::now();
    let up = project.try_run(&["up", "-d"]);
    let took = begun.elapsed();
    assert_eq!(up.code, Some(0), "{up:#?}");
    assert!(took >= Duration::from_secs(10), "{took:?}");
    for words in ["not all replicas take connections yet", "web-1 does not listen on port 8080"] {
        assert!(up.stderr.contains(words), "{words}: {up:#?}");
    }
    // They come before it listens, and none of them is refused.
    let clients: Vec<_> = [project.loopback(), project.outside(), project.in_pod("web", 8080)]
        .map(|address| std::thread::spawn(move || load::request(address)))
        .into();
    for client in clients {
        let answer = client.join().unwrap();
        assert!(answer.is_ok(), "{answer:?}{}", project.log());
    }
    let limit = wait::slowly(Duration::from_secs(25));
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
}
