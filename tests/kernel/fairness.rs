//! What going by open connections gives, beside what a plain hash gives.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use sameport::spec::Balance;

use super::{
    pod::Pod,
    server::{PORT, http, python, shared, stay},
    support::wait::{self, check},
};

const REPLICAS: u32 = 4;

fn pod(balance: Balance) -> Pod {
    let mut pod = Pod::new();
    pod.rules.balance = balance;
    pod
}

/// Clients that stay, opened by several threads at once: how many each replica has.
fn spread(balance: Balance) -> Vec<u64> {
    const THREADS: usize = 8;
    const CLIENTS: usize = 64;
    let mut pod = pod(balance);
    for slot in 1..=REPLICAS {
        pod.start(slot, &mut http());
    }
    pod.listening(REPLICAS as usize, PORT);
    let (netns, begin) = (pod.netns(), Barrier::new(THREADS));
    let clients: Vec<TcpStream> = thread::scope(|scope| {
        let open = || {
            netns.within(|| {
                begin.wait();
                let open = |_| {
                    let mut client = TcpStream::connect(shared()).unwrap();
                    stay(&mut client);
                    client
                };
                Ok((0..CLIENTS / THREADS).map(open).collect::<Vec<_>>())
            })
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    let live: Vec<_> = pod.live(PORT).into_values().collect();
    assert_eq!(live.iter().sum::<u64>(), clients.len() as u64, "{live:?}");
    live
}

#[test]
fn clients_that_stay_are_spread_evenly_however_many_come_at_once() {
    let (least, hash) = (spread(Balance::LeastConnections), spread(Balance::Hash));
    eprintln!("64 clients that stay: {least:?} by open connections, {hash:?} by hash");
    let range = least.iter().max().unwrap() - least.iter().min().unwrap();
    // Two processors can choose at the same instant, for connections that neither has counted yet.
    assert!(range <= 2, "{least:?}");
}

/// One request at a time, each of which takes so long.
fn slow(time: Duration) -> std::process::Command {
    let mut command = python(
        "
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(float(os.environ['TAKES']))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ['REPLICA'].encode())
    def log_message(self, *_): pass
class Server(http.server.HTTPServer):
    request_queue_size = 128
Server(('', 8080), Handler).serve_forever()
",
    );
    command.env("TAKES", time.as_secs_f64().to_string());
    command
}

/// A request is sent; who answers it is told later.
fn send(pod: &Pod) -> TcpStream {
    let mut stream = pod.connect(shared()).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    stream
}

/// Who answers.
fn replica(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.rsplit("\r\n").next().unwrap().to_owned()
}

#[test]
fn among_busy_replicas_the_one_is_next_that_should_be_done_first() {
    const ROUNDS: usize = 6;
    let mut pod = pod(Balance::LeastConnections);
    pod.start(1, &mut slow(wait::slowly(Duration::from_millis(50))));
    pod.start(2, &mut slow(wait::slowly(Duration::from_millis(800))));
    pod.listening(2, PORT);
    // Each has one, so that it is known how long they take.
    let first = [send(&pod), send(&pod)].map(replica);
    assert_ne!(first[0], first[1]);
    let nothing = |pod: &Pod| {
        wait::until("nobody is busy", || {
            let traffic = pod.traffic(PORT);
            check(traffic.values().all(|traffic| traffic.unfinished == 0), traffic)
        });
    };
    let third: Vec<_> = (0..ROUNDS)
        .map(|_| {
            nothing(&pod);
            let [a, b, third] = std::array::from_fn(|_| send(&pod));
            let busy = BTreeSet::from([replica(a), replica(b)]);
            assert_eq!(busy.len(), 2, "both are busy: {busy:?}");
            replica(third)
        })
        .collect();
    assert_eq!(third, ["1"; ROUNDS]);
}

/// How long requests took that came at a constant rate, however long those before them took; the shortest first.
fn latencies(balance: Balance) -> (Vec<Duration>, BTreeMap<String, u32>) {
    /// Three quick replicas can do 150 a second, and the slow one 5: of a quarter of this rate it falls behind by 7.5
    /// a second.
    const RATE: u32 = 50;
    const REQUESTS: u32 = 150;
    let mut pod = pod(balance);
    for slot in 1..REPLICAS {
        pod.start(slot, &mut slow(wait::slowly(Duration::from_millis(20))));
    }
    pod.start(REPLICAS, &mut slow(wait::slowly(Duration::from_millis(200))));
    pod.listening(REPLICAS as usize, PORT);
    let answers = pod.inside(|| {
        let begin = Instant::now();
        let threads: Vec<_> = (0..REQUESTS)
            .map(|number| {
                let due = begin + wait::slowly(Duration::from_secs(1)) * number / RATE;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // It is in the network of the thread that starts it.
                thread::spawn(move || {
                    let mut stream = TcpStream::connect(shared()).unwrap();
                    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    // From when it was due: a client that is held up is no reason to count less.
                    (due.elapsed(), text.rsplit("\r\n").next().unwrap().to_owned())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut by_replica = BTreeMap::new();
    answers.iter().for_each(|(_, replica)| *by_replica.entry(replica.clone()).or_default() += 1);
    let mut latencies: Vec<_> = answers.into_iter().map(|(latency, _)| latency).collect();
    latencies.sort_unstable();
    wait::until("every count is 0", || {
        let live = pod.live(PORT);
        check(live.values().all(|count| *count == 0), live)
    });
    (latencies, by_replica)
}

#[test]
fn one_slow_replica_does_not_make_the_slowest_requests_as_slow_as_by_hash() {
    let percentile =
        |latencies: &[Duration], percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    let [least, hash] = [Balance::LeastConnections, Balance::Hash].map(|balance| {
        let (latencies, by_replica) = latencies(balance);
        let [half, most] = [50, 99].map(|percent| percentile(&latencies, percent));
        eprintln!(
            "replica 4 is ten times slower, {balance:?}: p50 {half:.0?}, p99 {most:.0?}, {by_replica:?}"
        );
        most
    });
    assert!(least * 2 <= hash, "p99 {least:?} by open connections, {hash:?} by hash");
}
