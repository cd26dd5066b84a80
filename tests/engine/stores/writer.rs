//! A client that writes all the time while its server is replaced, and notes what was confirmed.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::super::support::wait::{self, check};

/// A connection to a server that keeps numbered records.
pub trait Client: Send {
    /// Writes one, and returns once the server has confirmed it.
    fn write(&mut self, number: u32) -> io::Result<()>;
    /// Those that the server has, up to this number or more.
    fn read(&mut self, last: u32) -> io::Result<BTreeSet<u32>>;
}

/// How a server is connected to.
pub type Connect = fn(SocketAddr) -> io::Result<Box<dyn Client>>;

/// What has been written.
#[derive(Debug, Default)]
pub struct Written {
    /// What was confirmed.
    pub confirmed: BTreeSet<u32>,
    /// The longest time from one confirmed write to the next.
    pub longest_gap: Duration,
    /// The last number that was tried.
    last: u32,
    error: Option<io::Error>,
}

impl Written {
    /// What was confirmed and is not there.
    pub fn lost(&self, client: &mut dyn Client) -> Vec<u32> {
        let kept = client.read(self.last).unwrap();
        self.confirmed.difference(&kept).copied().collect()
    }
}

/// Writes one record after the other, on connections that it keeps, until it is told to stop or dropped.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<Mutex<Written>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Begins.
    pub fn start(address: SocketAddr, connect: Connect) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Written::default())));
        let thread = thread::spawn({
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            move || write_until(&stop, &written, || connect(address))
        });
        Self { stop, written, thread: Some(thread) }
    }

    /// Waits until so many more than now are confirmed.
    pub fn confirms(&self, more: usize) {
        let count = || self.written.lock().unwrap().confirmed.len();
        let enough = count() + more;
        wait::until(&format!("{more} writes are confirmed"), || {
            let error = || format!("{:?}", self.written.lock().unwrap().error);
            check(count() >= enough, (count(), error()))
        });
    }

    /// Ends.
    pub fn finish(mut self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.written.lock().unwrap())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Otherwise it would go on after a test that failed.
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write_until(
    stop: &AtomicBool,
    written: &Mutex<Written>,
    connect: impl Fn() -> io::Result<Box<dyn Client>>,
) {
    let (mut open, mut confirmed_at): (Option<Box<dyn Client>>, _) = (None, None::<Instant>);
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let outcome = open.take().map_or_else(&connect, Ok).and_then(|mut client| {
            client.write(number)?;
            Ok(client)
        });
        let mut written = written.lock().unwrap();
        written.last = number;
        match outcome {
            Ok(client) => {
                written.confirmed.insert(number);
                let gap = confirmed_at.map_or(Duration::ZERO, |at| at.elapsed());
                written.longest_gap = written.longest_gap.max(gap);
                confirmed_at = Some(Instant::now());
                open = Some(client);
            }
            // A number that may or may not be there is not tried again.
            Err(error) => written.error = Some(error),
        }
        drop(written);
        thread::sleep(Duration::from_millis(10));
    }
}
