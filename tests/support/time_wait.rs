//! Source ports of a network that are in TIME_WAIT, as many short connections leave them.

use std::{
    fs, io,
    io::Read,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use sameport::kernel::{KernelError, Netns};

use super::wait::{self, check};

/// Keeps so many there until it is dropped: each lasts for a minute.
pub struct TimeWait {
    stop: Arc<AtomicBool>,
    now: Arc<AtomicUsize>,
    count: usize,
    threads: Vec<JoinHandle<()>>,
}

impl TimeWait {
    /// Opens connections from one network to an address of another one, which this listens on, and closes them first. Returns
    /// once there are so many.
    pub fn keep(count: usize, from: u32, to: u32, address: SocketAddr) -> Self {
        let [stop, listens] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let now = Arc::new(AtomicUsize::new(0));
        let mut kept = Self { stop: Arc::clone(&stop), now: Arc::clone(&now), count, threads: vec![] };
        let (ended, ready) = (Arc::clone(&stop), Arc::clone(&listens));
        kept.spawn(to, move || {
            let listener = TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            ready.store(true, Ordering::Relaxed);
            while !ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut connection, _)) => end_of(&mut connection),
                    Err(_) => thread::sleep(Duration::from_micros(100)),
                }
            }
        });
        wait::until("somebody listens", || check(listens.load(Ordering::Relaxed), address));
        kept.spawn(from, move || {
            while !stop.load(Ordering::Relaxed) {
                let there = in_time_wait();
                now.store(there, Ordering::Relaxed);
                if there >= count {
                    thread::sleep(Duration::from_millis(50));
                    continue;
                }
                // Who has none left tries again a moment later.
                for _ in 0..(count - there).min(500).div_ceil(FEW) {
                    let _ = connect_some(address);
                }
            }
        });
        kept.full();
        kept
    }

    /// Waits until there are as many as there shall be. Returns how many there are.
    pub fn full(&self) -> usize {
        wait::until("so many are in TIME_WAIT", || {
            let now = self.now.load(Ordering::Relaxed);
            check(now >= self.count, now).map(|()| now)
        })
    }

    fn spawn(&mut self, network: u32, work: impl FnOnce() + Send + 'static) {
        self.threads.push(thread::spawn(move || {
            let inside = || {
                work();
                Ok::<(), KernelError>(())
            };
            Netns::of(network).unwrap().within(inside).unwrap();
        }));
    }
}

impl Drop for TimeWait {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What has failed there has told so.
            let _ = thread.join();
        }
    }
}

/// So many wait at most until they are accepted.
const FEW: usize = 50;

/// Some that the client ends first. Returns when the other end has seen to all.
fn connect_some(address: SocketAddr) -> io::Result<()> {
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
    for _ in 1..FEW {
        drop(connect()?);
    }
    let mut last = connect()?;
    last.set_read_timeout(Some(Duration::from_secs(1)))?;
    last.shutdown(Shutdown::Write)?;
    end_of(&mut last);
    Ok(())
}

fn end_of(connection: &mut TcpStream) {
    let _ = connection.set_nonblocking(false);
    let _ = connection.read(&mut [0]);
}

/// Of this thread's network.
fn in_time_wait() -> usize {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
    let mut words = text.lines().find(|line| line.starts_with("TCP:")).unwrap().split_whitespace();
    words.find(|word| *word == "tw");
    words.next().unwrap().parse().unwrap()
}
