//! Two servers in one process, on one socket for IPv4 and IPv6 and on loopback, of Node and of Java.

use std::collections::BTreeSet;

use super::{
    super::support::{load, project::Project},
    Lone, TAKEN, WITH_IPV6, listen_on, up, within,
};

/// What a program is told that wants an address which the container does not have.
const ABSENT: &str = "Cannot assign requested address";

/// A service: its name, what it runs, and what makes a container of its own the same.
struct Pair {
    service: &'static str,
    image: &'static str,
    command: &'static [&'static str],
    /// Where the inner server listens, for Node.
    inner: &'static str,
    /// By which names the outer server asks the inner one.
    ask: &'static str,
    /// Whether there is no `::1`.
    disable_ipv6: &'static str,
    /// What the outer server has to see with `REPLICA=@`, also in a container of its own.
    sees: &'static str,
}

impl Pair {
    fn service(&self, replicas: u32) -> String {
        let Self { service, command, inner, ask, disable_ipv6, .. } = self;
        let image = self.image.to_uppercase();
        let command = command.join(", ");
        format!(
            r#"
  {service}:
    image: ${{{image}}}
    command: [{command}]
    environment: {{ REPLICA: "{{{{.Slot}}}}", INNER: "{inner}", ASK: "{ask}" }}
    sysctls: {{ {WITH_IPV6}: {disable_ipv6} }}
    healthcheck: {{ test: "wget -qO- http://127.0.0.1:8080/", interval: 500ms, retries: 60 }}
    ports: ["8080"]
    deploy: {{ replicas: {replicas} }}
"#
        )
    }

    fn alone(&self) -> Lone {
        let sysctl = format!("{WITH_IPV6}={}", self.disable_ipv6);
        let (inner, ask) = (format!("INNER={}", self.inner), format!("ASK={}", self.ask));
        let options = ["--sysctl", &sysctl, "-e", "REPLICA=@", "-e", &inner, "-e", &ask];
        let lone = Lone::run(self.image, &options, self.command);
        lone.passes("wget -qO- http://127.0.0.1:8080/");
        lone
    }

    /// What the replicas see.
    fn seen(&self, replicas: u32) -> BTreeSet<String> {
        (1..=replicas).map(|slot| self.sees.replace('@', &slot.to_string())).collect()
    }
}

fn file(pairs: &[Pair], replicas: u32) -> String {
    let services: Vec<_> = pairs.iter().map(|pair| pair.service(replicas)).collect();
    format!("services:{}", services.concat())
}

fn as_in_containers_of_their_own(pairs: &[Pair]) {
    let header = "wget -qSO- http://127.0.0.1:8080/ 2>&1 | grep -io 'x-replica: .*' | cut -c12-";
    let listen = listen_on(&[8080, 9000]);
    let judges: Vec<_> = pairs
        .iter()
        .map(|pair| {
            let lone = pair.alone();
            assert_eq!(lone.within(header), [pair.sees], "{}", pair.service);
            let judge = lone.within(&listen);
            // The outer one's, but for an address that is not there, and the inner one's.
            let taken = judge.iter().filter(|line| line.ends_with(TAKEN)).count();
            assert!(judge.len() == 8 && taken >= 6, "{}: {judge:#?}", pair.service);
            judge
        })
        .collect();
    let project = up(&file(pairs, 1));
    check_all(&project, pairs, 1);
    project.write(&file(pairs, 3));
    project.run(&["up", "-d", "--wait"]);
    check_all(&project, pairs, 3);
    for (pair, judge) in pairs.iter().zip(&judges) {
        for slot in 1..=3 {
            let seen = within(&project, pair.service, slot, &listen);
            assert_eq!(but_absent(&seen, judge), but_absent(judge, judge), "{}-{slot}", pair.service);
        }
    }
}

/// The answers but for those at addresses that are not there in a container of its own: a replica may be told there that
/// the port is taken.
fn but_absent<'a>(answers: &'a [String], judge: &[String]) -> Vec<&'a String> {
    let pairs = answers.iter().zip(judge);
    pairs.filter(|(_, judge)| !judge.ends_with(ABSENT)).map(|(answer, _)| answer).collect()
}

/// All of them answer from outside, and each has asked itself; who asks by localhost from within is answered by itself.
fn check_all(project: &Project, pairs: &[Pair], replicas: u32) {
    for pair in pairs {
        let outer = project.in_pod(pair.service, 8080);
        let report = load::one_by_one(30 * replicas, || load::request(outer));
        assert!(report.failures.is_empty(), "{}: {report}", pair.service);
        let seen: BTreeSet<_> = report.answers.into_keys().collect();
        assert_eq!(seen, pair.seen(replicas), "{}", pair.service);
    }
}

#[test]
fn node_asks_the_server_behind_it_on_localhost() {
    let node = |service, inner, disable_ipv6, sees| Pair {
        service,
        image: "node",
        command: &["node", "/pair.js"],
        inner,
        ask: "localhost 127.0.0.1 ::1",
        disable_ipv6,
        sees,
    };
    as_in_containers_of_their_own(&[
        node(
            "four",
            "127.0.0.1",
            "1",
            "@ asked localhost: @ at 127.0.0.1 from 127.0.0.1, 127.0.0.1: @ at 127.0.0.1 from 127.0.0.1, \
             ::1: EADDRNOTAVAIL",
        ),
        // Node takes the first address that localhost has, and does not try the other one.
        node(
            "both",
            "127.0.0.1",
            "0",
            "@ asked localhost: ECONNREFUSED, 127.0.0.1: @ at 127.0.0.1 from 127.0.0.1, ::1: ECONNREFUSED",
        ),
        node(
            "six",
            "localhost",
            "0",
            "@ asked localhost: @ at ::1 from ::1, 127.0.0.1: ECONNREFUSED, ::1: @ at ::1 from ::1",
        ),
    ]);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn java_asks_the_server_behind_it_on_localhost() {
    as_in_containers_of_their_own(&[Pair {
        service: "java",
        image: "java",
        command: &["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx64m", "-cp", "/", "Pair"],
        inner: "",
        ask: "localhost 127.0.0.1",
        disable_ipv6: "0",
        sees: "@ asked localhost: @ at 127.0.0.1 from 127.0.0.1, 127.0.0.1: @ at 127.0.0.1 from 127.0.0.1",
    }]);
}

#[test]
fn who_wants_an_address_that_is_not_there_is_told_so_also_where_the_port_is_taken() {
    // It listens on `::`, and there is no `::1`.
    let listen = listen_on(&[8080]);
    let lone = Lone::run("node", &[], &[]);
    lone.passes("wget -qO- http://127.0.0.1:8080/");
    let judge = lone.within(&listen);
    assert!(judge.iter().any(|line| line.ends_with(ABSENT)), "{judge:#?}");
    let project = up("services: { web: { image: \"${NODE}\", ports: [\"8080\"] } }");
    assert_eq!(within(&project, "web", 1, &listen), judge);
}
