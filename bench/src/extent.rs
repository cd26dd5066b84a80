//! How much is measured.

/// How often, how long, and of how many.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Rounds in which each peer has its turn.
    pub rounds: usize,
    /// Seconds of load in a turn.
    pub seconds: u32,
    /// Seconds of load in a turn whose latencies are looked at.
    pub latency_seconds: u32,
    /// Replicas that are killed, and containers that are started beside.
    pub kills: usize,
    /// Changes of version.
    pub rollouts: usize,
    /// Numbers of replicas to start and remove.
    pub sizes: &'static [u32],
    /// Numbers of replicas that a supervisor has while it is looked at.
    pub supervised: &'static [u32],
    /// Seconds in which nothing happens.
    pub idle: u32,
}

impl Extent {
    /// What results are published of.
    pub const FULL: Self = Self {
        rounds: 3,
        seconds: 2,
        latency_seconds: 4,
        kills: 10,
        rollouts: 20,
        sizes: &[4, 16, 64, 128],
        supervised: &[4, 64],
        idle: 60,
    };
    /// To see where one stands.
    pub const QUICK: Self = Self {
        rounds: 2,
        seconds: 1,
        latency_seconds: 2,
        kills: 3,
        rollouts: 3,
        sizes: &[4, 16],
        supervised: &[4],
        idle: 10,
    };
    /// That everything starts and yields a number.
    pub const SMOKE: Self = Self {
        rounds: 1,
        seconds: 1,
        latency_seconds: 1,
        kills: 1,
        rollouts: 1,
        sizes: &[2],
        supervised: &[2],
        idle: 1,
    };
}
