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
    threads: Vec<JoinHandle<()>>,
}

impl TimeWait {
    /// Opens connections from one network to an address of another one, which this listens on, and closes them first. Returns
    /// once there are so many.
    pub fn keep(count: usize, from: u32, to: u32, address: SocketAddr) -> Self {
        let [stop, listens] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let now = Arc::new(AtomicUsize::new(0));
        let mut kept = Self { stop: Arc::clone(&stop), now: Arc::clone(&now), threads: vec![] };
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
                (0..(count - there).min(500)).for_each(|_| drop(connect(address)));
            }
        });
        wait::until("so many are in TIME_WAIT", || {
            let now = kept.now.load(Ordering::Relaxed);
            check(now >= count, now)
        });
        kept
    }

    /// How many there are.
    pub fn seen(&self) -> usize {
        self.now.load(Ordering::Relaxed)
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

/// One that the client ends first.
fn connect(address: SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    connection.shutdown(Shutdown::Write)?;
    end_of(&mut connection);
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
