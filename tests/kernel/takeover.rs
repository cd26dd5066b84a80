//! What is in the kernel outlives whoever put it there, and the next one takes it over.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use sameport::kernel::{sockets::Diagnosis, steering::Steering as _};

use super::{
    pod::Pod,
    server::{PORT, StopAtEnd, answers, ask, http, shared, stay},
    support::wait::{self, check},
};

fn pod(replicas: u32) -> Pod {
    let mut pod = Pod::new();
    for slot in 1..=replicas {
        pod.start(slot, &mut http());
    }
    pod.listening(replicas as usize, PORT);
    pod
}

#[test]
fn the_next_one_takes_over_listeners_weights_and_counts() {
    let mut pod = pod(3);
    pod.weighed(3, 0);
    let mut clients: Vec<_> = (0..4).map(|_| pod.connect(shared()).unwrap()).collect();
    clients.iter_mut().for_each(|client| drop(stay(client)));
    let before = pod.traffic(PORT);
    assert_eq!(pod.live(PORT).into_values().collect::<Vec<_>>(), [2, 2, 0]);
    pod.succeed();
    pod.listening(3, PORT);
    assert_eq!(pod.traffic(PORT), before);
    clients.truncate(1);
    wait::until("ends are counted on", || {
        let live = pod.live(PORT);
        check(live.values().sum::<u64>() == 1, live)
    });
    // The one that is left is counted as well: whoever comes goes to the other replica.
    let free =
        pod.live(PORT).into_iter().find(|(slot, live)| *live == 0 && *slot != 3).unwrap().0.to_string();
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), [&free]);
    drop(clients);
    wait::until("it ends as well", || {
        let live = pod.live(PORT);
        check(live.values().all(|count| *count == 0), live)
    });
    assert_eq!(answers(&pod, 40).keys().collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn with_nobody_at_the_helm_the_kernel_goes_on_choosing() {
    let mut pod = pod(3);
    pod.weighed(2, 0);
    pod.steering = None;
    assert_eq!(answers(&pod, 60).keys().collect::<Vec<_>>(), ["1", "3"]);
    // One that dies gets nothing more.
    pod.kill(3);
    assert_eq!(answers(&pod, 60).keys().collect::<Vec<_>>(), ["1"]);
    pod.steering = Some(sameport::kernel::steering::KernelSteering::start(&pod.project).unwrap());
    pod.tell();
    pod.start(3, &mut http());
    pod.listening(3, PORT);
    assert_eq!(answers(&pod, 60).keys().collect::<Vec<_>>(), ["1", "3"]);
}

/// A pod whose port is shut, with a replica that has begun to listen since nobody is at the helm: the first supervisor was
/// killed before it could open the port.
fn shut(weight: u32) -> Pod {
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    pod.rules.hold = Duration::ZERO;
    pod.usual_weight = weight;
    pod.tell();
    pod.steering.as_ref().unwrap().look();
    pod.steering = None;
    pod.start(1, &mut http());
    let mut diagnosis = Diagnosis::of(&pod.netns()).unwrap();
    wait::until("it listens", || {
        let rows = diagnosis.rows().unwrap();
        check(rows.iter().any(|row| row.bound.address.port() == PORT.1), rows)
    });
    assert!(pod.connect(shared()).is_err(), "the port is shut");
    pod
}

#[test]
fn a_port_that_was_shut_is_opened_by_the_next_one() {
    let mut pod = shut(100);
    pod.succeed();
    pod.listening(1, PORT);
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), ["1"]);
}

#[test]
fn a_port_that_was_shut_is_not_opened_by_the_next_one_for_who_is_not_ready() {
    let mut pod = shut(0);
    let (netns, stop) = (pod.netns(), AtomicBool::new(false));
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut connected = 0;
            let work = || {
                while !stop.load(Ordering::Relaxed) {
                    connected += u32::from(TcpStream::connect(shared()).is_ok());
                }
                Ok(())
            };
            netns.within(work).unwrap();
            connected
        });
        let guard = StopAtEnd(&stop);
        pod.succeed();
        pod.listening(1, PORT);
        thread::sleep(Duration::from_millis(200));
        drop(guard);
        assert_eq!(client.join().unwrap(), 0);
    });
}

/// As when sameport is replaced by another version: new programs take the place of the old ones, under load.
#[test]
fn programs_are_replaced_without_a_gap() {
    let mut pod = pod(2);
    let netns = pod.netns();
    let stop = AtomicBool::new(false);
    let mut answered = 0;
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answered = 0_u32;
            netns
                .within(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let answer = ask(&mut TcpStream::connect(shared()).unwrap()).unwrap();
                        assert!(!answer.is_empty());
                        answered += 1;
                    }
                    Ok(())
                })
                .unwrap();
            answered
        });
        for _ in 0..5 {
            pod.succeed();
            pod.listening(2, PORT);
        }
        stop.store(true, Ordering::Relaxed);
        answered = client.join().unwrap();
    });
    assert!(answered > 50, "{answered}");
    let live = wait::until("nothing is counted twice", || {
        let live = pod.live(PORT);
        check(live.values().all(|count| *count == 0), &live).map(|()| live)
    });
    assert_eq!(live.len(), 2);
    let total: u64 = pod.traffic(PORT).values().map(|traffic| traffic.total).sum();
    assert_eq!(total, u64::from(answered));
}

#[test]
fn at_the_end_nothing_is_left_in_the_kernel() {
    let pod = pod(1);
    let names = pod.all_pins();
    assert!(names.iter().any(|name| name.ends_with("link_sameport_lookup")), "{names:?}");
    sameport::kernel::steering::Steering::remove(pod.steering.as_ref().unwrap()).unwrap();
    assert_eq!(pod.pins(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_taken_away_is_told() {
    let pod = pod(1);
    let folder = sameport::kernel::capability::mounted("bpf").unwrap().join("sameport");
    // Somebody's folder among our pins: it is not ours to remove.
    let foreign = folder.join(pod.project.as_str()).join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    let told = sameport::kernel::steering::Steering::remove(pod.steering.as_ref().unwrap());
    let left = pod.pins();
    std::fs::remove_dir(&foreign).unwrap();
    sameport::kernel::Pins::clear(&pod.project).unwrap();
    assert!(told.as_ref().is_err_and(|error| error.to_string().contains("foreign")), "{told:?}");
    assert_eq!(left, ["foreign"], "all else is gone");
}
