//! The first request after `up -d`: nobody is refused before a replica had its time to listen.

use std::{
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use super::support::{load, project::Project, wait};

/// gunicorn that begins after so many seconds, as that user.
fn gunicorn(user: &str, seconds: u32) -> Project {
    Project::new(&format!(
        r#"
services:
  web:
    image: ${{GUNICORN}}
    command: [sh, -c, "sleep {seconds}; exec python3 -m gunicorn --chdir / --bind [::]:8080 --worker-tmp-dir /dev/shm app:app"]
    user: "{user}"
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
"#
    ))
}

/// Brings it up and asks at once: by Docker's proxy, by its address translation, and past both.
fn ask_at_once(rounds: u32) {
    for user in ["0", "1000"] {
        let project = gunicorn(user, 0);
        for round in 0..rounds {
            project.run(&["up", "-d"]);
            let v6 = (Ipv6Addr::LOCALHOST, project.loopback().port()).into();
            for address in [project.loopback(), v6, project.outside(), project.in_pod("web", 8080)] {
                let answer = load::request(address);
                assert!(answer.is_ok(), "round {round} as {user}, {address}: {answer:?}{}", project.log());
            }
            project.run(&["down", "-t", "1s"]);
        }
    }
}

#[test]
fn the_first_request_after_up_is_answered() {
    ask_at_once(3);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn of_a_hundred_first_requests_after_up_none_is_refused() {
    ask_at_once(50);
}

#[test]
fn up_says_after_ten_seconds_what_it_waits_for_and_whoever_comes_then_waits_for_the_server() {
    let project = gunicorn("0", 13);
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
