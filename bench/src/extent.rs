//! How much is measured.

/// How often, how long, and of how many.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Who and what takes part.
    pub field: Field,
    /// Rounds in which each peer has its turn.
    pub rounds: usize,
    /// Rounds of those who differ by little, among themselves; 0 leaves them out.
    pub close_rounds: usize,
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
    /// Numbers of replicas that the kernel chooses among.
    pub choices: &'static [u16],
    /// Connections that are begun for each of them.
    pub connections: u32,
    /// Rounds with and without the programs that see every socket.
    pub hook_rounds: usize,
    /// Calls of such a program in a turn.
    pub hook_calls: u32,
}

/// Which peers and cases take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// Those that are needed to see where one stands.
    Main,
    /// All of them.
    All,
}

impl Extent {
    /// What results are published of.
    pub const FULL: Self = Self {
        field: Field::All,
        rounds: 3,
        close_rounds: 6,
        seconds: 1,
        latency_seconds: 3,
        kills: 8,
        rollouts: 20,
        sizes: &[4, 16, 64, 128],
        supervised: &[4, 64],
        idle: 60,
        choices: &[1, 4, 16, 64, 256],
        connections: 20_000,
        hook_rounds: 40,
        hook_calls: 5_000,
    };
    /// To see where one stands.
    pub const QUICK: Self = Self {
        field: Field::Main,
        rounds: 2,
        close_rounds: 0,
        seconds: 1,
        latency_seconds: 1,
        kills: 1,
        rollouts: 1,
        sizes: &[8],
        supervised: &[4],
        idle: 3,
        choices: &[4, 64],
        connections: 2_000,
        hook_rounds: 10,
        hook_calls: 2_000,
    };
    /// That everything starts and yields a number.
    pub const SMOKE: Self = Self {
        field: Field::All,
        rounds: 1,
        close_rounds: 1,
        seconds: 1,
        latency_seconds: 1,
        kills: 1,
        rollouts: 1,
        sizes: &[2],
        supervised: &[2],
        idle: 1,
        choices: &[4],
        connections: 2_000,
        hook_rounds: 2,
        hook_calls: 500,
    };
}
