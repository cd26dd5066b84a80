//! Replicas of a DNS server and of one of HTTP/3 share a UDP port, and each flow, which is a socket of a client, stays with
//! its replica.
//!
//! Flows go to the pod itself: the published port leads through Docker's proxy, which has sockets of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sameport::spec::Service;
use serde_json::Value;

use super::support::{
    load::{Failure, Load},
    project::Project,
    wait::{self, check},
};

/// Three replicas of dnsmasq.
const DNS: &str = r#"
services:
  dns:
    image: ${DNSMASQ}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:5353/udp"]
    deploy: { replicas: 3 }
"#;

/// A client.
struct Flow {
    socket: UdpSocket,
    /// Who answered the first question.
    replica: String,
}

impl Flow {
    /// A client that has asked once.
    fn new(server: SocketAddr) -> Self {
        let socket = fresh_socket().unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut flow = Self { socket, replica: String::new() };
        flow.replica = flow.ask().expect("an answer");
        flow
    }

    /// So many of them.
    fn some(server: SocketAddr, count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::new(server)).collect()
    }

    /// Asks for the text of `who.test`, which names the replica; none if there is no answer in time.
    fn ask(&self) -> Option<String> {
        let query = query();
        let id = &query[..2];
        self.socket.send(&query).ok()?;
        let mut answer = [0; 512];
        loop {
            let length = self.socket.recv(&mut answer).ok()?;
            let answer = &answer[..length];
            // One to an earlier question may have come late.
            if answer.starts_with(id) {
                return Some(text_of(answer, &query));
            }
        }
    }
}

/// A question for the text of `who.test`. It begins with its id, which is another one each time.
fn query() -> Vec<u8> {
    let header = [0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    [&fastrand::u16(..).to_be_bytes()[..], &header, b"\x03who\x04test\0", &[0, 16, 0, 1]].concat()
}

fn text_of(answer: &[u8], query: &[u8]) -> String {
    // Name, type, class, time to live and length, which are 12 bytes, stand before the text and its length.
    let text = &answer[query.len() + 12..];
    String::from_utf8(text[1..=text[0].into()].to_vec()).unwrap()
}

/// Asks once over a connection of its own.
fn ask_by_tcp(server: SocketAddr) -> Result<String, Failure> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let query = query();
    stream.write_all(&[&[0, u8::try_from(query.len()).unwrap()], &query[..]].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(text_of(&answer, &query))
}

/// A socket whose port nobody had before: with the port of an earlier one it would go on with that one's flow.
fn fresh_socket() -> std::io::Result<UdpSocket> {
    static PORTS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        if PORTS.lock().unwrap().insert(socket.local_addr()?.port()) {
            return Ok(socket);
        }
    }
}

/// Asks once from a port of its own, and not again.
fn ask_once(server: SocketAddr) -> Result<String, Failure> {
    let socket = fresh_socket()?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    Flow { socket, replica: String::new() }.ask().ok_or(Failure::TimedOut)
}

/// All flows ask once; those of other replicas than `except` have to be answered by the one that they are with.
fn stay(flows: &[Flow], except: &str) {
    for (number, flow) in flows.iter().enumerate().filter(|(_, flow)| flow.replica != except) {
        assert_eq!(flow.ask().as_ref(), Some(&flow.replica), "flow {number}");
    }
}

fn replicas_of(flows: &[Flow]) -> BTreeMap<&str, usize> {
    let mut replicas = BTreeMap::new();
    flows.iter().for_each(|flow| *replicas.entry(flow.replica.as_str()).or_default() += 1);
    replicas
}

fn are_up(project: &Project, count: usize) -> Result<(), String> {
    let replicas = project.replicas("dns");
    check(replicas.len() == count && replicas.iter().all(|replica| replica.state.is_up()), replicas)
}

#[test]
fn flows_are_spread_and_each_one_stays_with_its_replica() {
    let project = Project::new(DNS);
    project.run(&["up", "-d", "--wait"]);
    let flows = Flow::some(project.in_pod("dns", 5353), 60);
    let replicas = replicas_of(&flows);
    assert_eq!(replicas.keys().collect::<Vec<_>>(), [&"1", &"2", &"3"]);
    assert!(replicas.values().all(|flows| *flows >= 10), "{replicas:?}");
    (0..20).for_each(|_| stay(&flows, ""));
}

#[test]
fn flows_stay_when_a_replica_is_added_and_when_another_one_is_killed() {
    let project = Project::new(DNS);
    project.run(&["up", "-d", "--wait"]);
    let server = project.in_pod("dns", 5353);
    let flows = Flow::some(server, 60);

    let _scale = project.start(&["scale", "dns=4"]);
    wait::until("there are four", || {
        stay(&flows, "");
        are_up(&project, 4)
    });
    stay(&flows, "");
    assert!(replicas_of(&Flow::some(server, 60)).contains_key("4"));

    let before = project.docker.pid(&format!("{}-dns-2", project.name));
    project.run(&["kill", "dns-2"]);
    wait::until("the killed one is replaced", || {
        stay(&flows, "2");
        are_up(&project, 4)
    });
    assert_ne!(project.docker.pid(&format!("{}-dns-2", project.name)), before);
    for _ in 0..20 {
        stay(&flows, "2");
    }
    // Those of the killed one are with somebody who lives, and stay there.
    for (number, flow) in flows.iter().enumerate().filter(|(_, flow)| flow.replica == "2") {
        let answers: BTreeSet<_> = (0..20).map(|_| flow.ask().expect("an answer")).collect();
        assert_eq!(answers.len(), 1, "flow {number}: {answers:?}");
    }
}

#[test]
fn a_replica_that_drains_answers_its_flows_and_gets_no_new_ones() {
    let project = Project::new(DNS);
    project.run(&["up", "-d", "--wait"]);
    let server = project.in_pod("dns", 5353);
    let old = Flow::some(server, 60);
    project.run(&["drain", "dns.2"]);
    let new = Flow::some(server, 60);
    assert_eq!(replicas_of(&new).keys().collect::<Vec<_>>(), [&"1", &"3"]);
    for _ in 0..20 {
        stay(&old, "");
        stay(&new, "");
    }
    assert!(replicas_of(&old).contains_key("2"));
    let last = Instant::now();
    project.run(&["drain", "--wait", "dns.2"]);
    let waited = last.elapsed();
    assert!(
        waited > Service::UDP_IDLE - Duration::from_secs(1) && waited < Duration::from_secs(20),
        "{waited:?}"
    );
    assert!(are_up(&project, 3).is_ok(), "it was not told to end");
}

/// A client that goes on asking from one socket: who answered, and when for the first time, in order; and how many questions
/// were not answered.
struct Kept {
    end: Arc<AtomicBool>,
    thread: thread::JoinHandle<(Vec<(String, Instant)>, u32)>,
}

impl Kept {
    fn new(flow: Flow) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || {
            let (mut seen, mut lost) = (vec![(flow.replica.clone(), Instant::now())], 0);
            while !ended.load(Ordering::Relaxed) {
                match flow.ask() {
                    Some(who) if seen.last().unwrap().0 == who => {}
                    Some(who) => seen.push((who, Instant::now())),
                    None => lost += 1,
                }
                thread::sleep(Duration::from_millis(100));
            }
            (seen, lost)
        });
        Self { end, thread }
    }

    fn finish(self) -> (Vec<(String, Instant)>, u32) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// The file for another version. All new replicas come first, and then all old ones go out of rotation at the same time.
fn version(image: &str, version: &str, replicas: u32, drain: &str) -> String {
    let ports = if image == "QUIC" { r#""8443/udp""# } else { r#""5353/udp", "5353""# };
    format!(
        r#"
services:
  dns:
    image: ${{{image}}}
    environment: {{ REPLICA: "{{{{.Slot}}}}-{version}" }}
    ports: [{ports}]
    x-sameport: {{ drain: {drain} }}
    deploy: {{ replicas: {replicas}, update_config: {{ parallelism: 0, monitor: 1s }} }}
"#
    )
}

/// Old replicas, and what `ps` says of them.
fn old(project: &Project) -> BTreeMap<u32, String> {
    let replicas = project.replicas("dns").into_iter();
    replicas.filter(|replica| !replica.up_to_date).map(|replica| (replica.slot, replica.status)).collect()
}

#[test]
fn in_a_rollout_of_dns_no_question_is_lost_and_who_goes_on_asking_keeps_the_replica() {
    const DRAIN: Duration = Duration::from_secs(12);
    let project = Project::new(&version("DNSMASQ", "old", 3, "12s"));
    project.run(&["up", "-d", "--wait"]);
    let server = project.in_pod("dns", 5353);
    let kept = Flow::new(server);
    let slot: u32 = kept.replica.split_once('-').unwrap().0.parse().unwrap();
    let (kept, fresh) = (Kept::new(kept), Load::of(60, move || ask_once(server)));
    let by_tcp = Load::of(20, move || ask_by_tcp(server));

    project.write(&version("DNSMASQ", "new", 3, "12s"));
    let begun = Instant::now();
    let _up = project.start(&["up", "-d", "--wait"]);
    wait::until("all old ones drain", || {
        let all = old(&project);
        check(all.len() == 3 && all.values().all(|status| status.contains("datagram")), all)
    });
    let out = Instant::now();
    let mut shown = Vec::new();
    wait::until("those are gone that nobody asks any more", || {
        let left = old(&project);
        if shown.last() != Some(&left) {
            shown.push(left.clone());
        }
        assert!(left.contains_key(&slot), "{slot} is asked all the time: {shown:#?}");
        check(left.keys().eq([&slot]), &left)
    });
    let idle = out.elapsed();
    let status = old(&project);
    assert!(
        status.values().all(|status| status.ends_with("datagrams still come, old version")),
        "{status:?}"
    );
    wait::until("the last one is gone, too", || {
        let left = old(&project);
        check(left.is_empty(), left)
    });
    let last = out.elapsed();
    // Who has lost a question waits for its answer for 2 s.
    thread::sleep(Duration::from_secs(4));
    let ((seen, lost), fresh, by_tcp) = (kept.finish(), fresh.finish(), by_tcp.finish());
    eprintln!(
        "idle ones gone {idle:.1?}, the last one {last:.1?} after all were out; {:.1?} in all\nkept: {lost} lost, {:?}\n\
         from many ports: {fresh}by TCP: {by_tcp}",
        begun.elapsed(),
        seen.iter().map(|(who, at)| (who, at.duration_since(begun))).collect::<Vec<_>>()
    );
    assert!(fresh.failures.is_empty() && by_tcp.failures.is_empty());
    assert!(fresh.answered() > 300 && by_tcp.answered() > 100);
    assert_eq!(fresh.answers.len(), 6, "old and new ones were asked");
    // On a busy machine this test sees late that they are out.
    assert!(idle > Service::UDP_IDLE - Duration::from_secs(2), "they ended before clients could ask again");
    assert!(idle < DRAIN - Duration::from_secs(2), "they did not wait for the whole time");
    // What lies in a socket that closes is lost, as always with UDP: one question at most, since one is asked at a time.
    let [(first, _), (second, at)] = &seen[..] else { panic!("it moved once: {seen:?}") };
    assert!(first.ends_with("old") && second.ends_with("new") && lost <= 1, "{seen:?}");
    let kept_for = at.duration_since(out);
    assert!(kept_for > DRAIN - Duration::from_secs(3) && kept_for < DRAIN + Duration::from_secs(5));
}

/// A client of HTTP/3 in a container of its own. It goes with this.
struct Quic<'a> {
    project: &'a Project,
    name: String,
    child: Child,
    told: BufReader<ChildStdout>,
}

impl<'a> Quic<'a> {
    /// Returns who answers on each of the connections that are kept.
    fn start(project: &'a Project, server: SocketAddr, kept: u32) -> (Self, Vec<String>) {
        let name = format!("{}-client", project.name);
        let mut child = Command::new("docker")
            .args(["run", "--rm", "-i", "--network=host", "--name", &name, &project.image("QUIC")])
            .args(["python3", "/client.py", &server.ip().to_string(), &kept.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        let mut client = Self { project, name, child, told };
        let begun = client.line();
        let begun: Vec<[String; 1]> = serde_json::from_str(begun.strip_prefix("kept ").unwrap()).unwrap();
        (client, begun.into_iter().map(|[who]| who).collect())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line
    }

    /// Ends the connections that are kept.
    fn end_kept(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        assert_eq!(self.line(), "ended\n");
    }

    /// What came of it all.
    fn finish(mut self) -> Value {
        self.child.stdin = None;
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Quic<'_> {
    fn drop(&mut self) {
        self.child.stdin = None;
        // It has ended by itself, unless the test has failed.
        let _ = self.project.docker.try_run(&["rm", "-f", &self.name]);
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn in_a_rollout_of_http_3_no_request_is_lost_and_connections_that_go_on_keep_their_replica() {
    let project = Project::new(&version("QUIC", "old", 2, "60s"));
    project.run(&["up", "-d", "--wait"]);
    let (mut client, kept) = Quic::start(&project, project.in_pod("dns", 8443), 6);
    assert_eq!(kept.iter().collect::<BTreeSet<_>>().len(), 2, "{kept:?}");

    project.write(&version("QUIC", "new", 2, "60s"));
    let _up = project.start(&["up", "-d", "--wait"]);
    wait::until("both drain", || {
        let all = old(&project);
        check(all.len() == 2 && all.values().all(|status| status.contains("datagrams still come")), all)
    });
    thread::sleep(Service::UDP_IDLE + Duration::from_secs(1));
    assert_eq!(old(&project).len(), 2, "connections go on, so both are there");
    client.end_kept();
    let ended = Instant::now();
    wait::until("both are gone", || {
        let left = old(&project);
        check(left.is_empty(), left)
    });
    let took = ended.elapsed();
    thread::sleep(Duration::from_secs(1));
    let told = client.finish();
    eprintln!("gone {took:.1?} after the last connection had ended; {told}");
    assert_eq!(told["failures"], serde_json::json!([]));
    let fresh = told["fresh"].as_object().unwrap();
    assert_eq!(fresh.len(), 4, "old and new ones were asked: {told}");
    for (connection, who) in told["kept"].as_array().unwrap().iter().zip(&kept) {
        let answers = connection["answers"].as_object().unwrap();
        assert!(answers.keys().eq([who]) && connection["end"].is_null(), "{connection}");
        assert!(answers[who].as_u64().unwrap() > 20, "{connection}");
    }
    // Whoever closes sends a last datagram.
    assert!(took > Service::UDP_IDLE - Duration::from_secs(1) && took < Duration::from_secs(20));
}
