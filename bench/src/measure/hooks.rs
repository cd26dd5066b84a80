//! What the programs cost that see every socket of the host: in a pod, and for those who have nothing to do with sameport.
//!
//! It takes no engine. The programs are attached by a project of the benchmark's own whose pins nobody else sees, so that they
//! can come and go within a run, whatever else is on the host.

use std::{
    ffi::OsString,
    fmt, fs,
    io::{BufRead as _, BufReader, ErrorKind, Write as _, stdin, stdout},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Stdio},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::sys::{Stats, enable_stats};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, CpuSet, sched_setaffinity, unshare},
    unistd::Pid,
};
use sameport::{
    kernel::{
        capability,
        steering::{KernelSteering, Steering as _},
    },
    spec::{Balance, ProjectName},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    bench::Bench,
    cost::Cost,
    extent::Extent,
    pod::{Ends, Member, PORT, Pod, sandbox},
    results::{Better, Bound, By, Goal, Id, Kind, Measure, Series, Spread, figure},
};

/// The word by which this binary becomes a process that does what it is told to.
pub const WORD: &str = "hooks-worker";

/// Bound and let go again and again.
const BOUND: u16 = 8090;
/// Where datagrams go.
const SINK: u16 = 8091;
/// So many are timed at once: the median of these counts, so an interruption does not.
const CHUNK: u32 = 100;
const BALANCE: Balance = Balance::LeastConnections;
/// What a connect elsewhere may cost more.
const MOST: f64 = 200.0;

/// Something that is done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// A TCP socket is made, bound and closed.
    Bind,
    /// A TCP connection to a listener of the process's own is opened, and closed by a reset.
    Tcp,
    /// The same, of which only connect(2) is timed: on loopback that is the handshake, at both ends.
    TcpConnect,
    /// connect(2) of a TCP socket to a port where nobody listens: it has one end.
    TcpRefused,
    /// An option of a TCP socket is set.
    Option,
    /// A UDP socket is made, connected and closed.
    Connect,
    /// A datagram is sent by a socket that is not connected, and received.
    Send,
}

const ACTS: [Act; 7] =
    [Act::Bind, Act::Tcp, Act::TcpConnect, Act::TcpRefused, Act::Option, Act::Connect, Act::Send];

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl FromStr for Act {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        ACTS.into_iter().find(|act| act.to_string() == text).with_context(|| format!("`{text}` is no act"))
    }
}

/// A program, what has it run, and by which addresses.
struct Hook {
    program: &'static str,
    act: Act,
    loopback: IpAddr,
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Looks at the protocol of a TCP socket and does nothing: what it takes is what the measuring itself takes.
const FLOOR: Hook = Hook { program: "sameport_connect4", act: Act::Tcp, loopback: V4 };

const HOOKS: [Hook; 12] = [
    Hook { program: "sameport_bind4", act: Act::Bind, loopback: V4 },
    Hook { program: "sameport_bind6", act: Act::Bind, loopback: V6 },
    Hook { program: "sameport_bound4", act: Act::Bind, loopback: V4 },
    Hook { program: "sameport_bound6", act: Act::Bind, loopback: V6 },
    Hook { program: "sameport_release", act: Act::Bind, loopback: V4 },
    Hook { program: "sameport_connect4", act: Act::Connect, loopback: V4 },
    Hook { program: "sameport_connect6", act: Act::Connect, loopback: V6 },
    Hook { program: "sameport_sendmsg4", act: Act::Send, loopback: V4 },
    Hook { program: "sameport_sendmsg6", act: Act::Send, loopback: V6 },
    Hook { program: "sameport_sockops", act: Act::Tcp, loopback: V4 },
    Hook { program: "sameport_sockops", act: Act::Tcp, loopback: V6 },
    Hook { program: "sameport_setsockopt", act: Act::Option, loopback: V4 },
];

/// Where the host's programs are pinned.
fn pins() -> Result<PathBuf> {
    let root = capability::mounted("bpf").context("no bpffs")?.join("sameport");
    let mut folders = fs::read_dir(&root)?.filter_map(Result::ok).map(|entry| entry.path());
    let host = folders
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("_host_")));
    host.context("no programs are pinned")
}

impl Hook {
    /// Where it is pinned: names of programs in the kernel are too short to tell some from others.
    fn link(&self) -> Result<PathBuf> {
        Ok(pins()?.join(format!("link_{}", self.program)))
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.program.trim_start_matches("sameport_");
        match (self.act, self.loopback.is_ipv4()) {
            (Act::Tcp, true) => write!(f, "{name}, IPv4"),
            (Act::Tcp, false) => write!(f, "{name}, IPv6"),
            _ => write!(f, "{name}"),
        }
    }
}

/// Is a process that does something as often as it is told to, and tells how many nanoseconds each time took.
pub fn be_worker(core: Option<OsString>) -> Result<()> {
    if let Some(core) = core.and_then(|core| core.to_str()?.parse().ok()) {
        let mut cores = CpuSet::new();
        cores.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &cores)?;
    }
    let (v4, v6) = (Places::new(V4)?, Places::new(V6)?);
    let mut told = stdout().lock();
    writeln!(told, "ready")?;
    for line in stdin().lock().lines() {
        let line = line?;
        let mut words = line.split(' ');
        let mut next = || words.next().context("a word is missing");
        let (act, family, times): (Act, _, u32) = (next()?.parse()?, next()?, next()?.parse()?);
        let places = if family == "4" { &v4 } else { &v6 };
        let mut chunks = Vec::new();
        for _ in 0..times.div_ceil(CHUNK) {
            let (begin, mut timed) = (Instant::now(), None);
            for _ in 0..CHUNK {
                if let Some(took) = places.act(act)? {
                    *timed.get_or_insert(Duration::ZERO) += took;
                }
            }
            let took = timed.unwrap_or_else(|| begin.elapsed());
            chunks.push(took.as_nanos() as f64 / f64::from(CHUNK));
        }
        writeln!(told, "{}", Spread::of(&chunks).context("nothing was done")?.median)?;
    }
    Ok(())
}

/// Where a process is reached by a family of addresses.
struct Places {
    loopback: IpAddr,
    domain: Domain,
    listener: Socket,
    sink: Socket,
    sender: Socket,
}

impl Places {
    fn new(loopback: IpAddr) -> Result<Self> {
        let domain = Domain::for_address((loopback, 0).into());
        let listener = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        listener.bind(&SocketAddr::from((loopback, PORT)).into())?;
        listener.listen(16)?;
        let sink = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        sink.bind(&SocketAddr::from((loopback, SINK)).into())?;
        sink.set_nonblocking(true)?;
        let sender = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        Ok(Self { loopback, domain, listener, sink, sender })
    }

    fn at(&self, port: u16) -> socket2::SockAddr {
        SocketAddr::from((self.loopback, port)).into()
    }

    /// Does it; how long that part took of it that is timed alone.
    fn act(&self, act: Act) -> Result<Option<Duration>> {
        let mut timed = None;
        match act {
            Act::Bind => {
                let socket = Socket::new(self.domain, Type::STREAM, Some(Protocol::TCP))?;
                socket.bind(&self.at(BOUND))?;
            }
            Act::Tcp | Act::TcpConnect => {
                let socket = Socket::new(self.domain, Type::STREAM, Some(Protocol::TCP))?;
                // Else each leaves a port behind for a minute.
                socket.set_linger(Some(Duration::ZERO))?;
                let begin = Instant::now();
                socket.connect(&self.at(PORT))?;
                timed = (act == Act::TcpConnect).then(|| begin.elapsed());
                let (accepted, _) = self.listener.accept()?;
                drop(socket);
                drop(accepted);
            }
            Act::TcpRefused => {
                let socket = Socket::new(self.domain, Type::STREAM, Some(Protocol::TCP))?;
                let begin = Instant::now();
                let connected = socket.connect(&self.at(SINK));
                timed = Some(begin.elapsed());
                match connected {
                    Ok(()) => bail!("somebody listens on TCP port {SINK}"),
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Act::Option => self.listener.set_keepalive(true)?,
            Act::Connect => {
                let socket = Socket::new(self.domain, Type::DGRAM, Some(Protocol::UDP))?;
                socket.connect(&self.at(SINK))?;
            }
            Act::Send => {
                self.sender.send_to(b"x", &self.at(SINK))?;
                // On loopback it is there at once, as a rule.
                let _ = self.sink.recv(&mut [std::mem::MaybeUninit::uninit(); 8]);
            }
        }
        Ok(timed)
    }
}

/// This end of the conversation with such a process.
struct Worker {
    member: Option<Member>,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Worker {
    fn start(name: &str, network: u32, core: &str) -> Result<Self> {
        let mut member = Member::start(name, network, WORD, |command| {
            command.arg(core).stdin(Stdio::piped()).stdout(Stdio::piped());
        })?;
        let to = member.process.0.stdin.take().context("no input")?;
        let from = BufReader::new(member.process.0.stdout.take().context("no output")?);
        let mut worker = Self { member: Some(member), to, from };
        if worker.hear()? != "ready" {
            bail!("a process that was to do something is not ready");
        }
        Ok(worker)
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Nanoseconds for each of so many times.
    fn time(&mut self, act: Act, loopback: IpAddr, times: u32) -> Result<f64> {
        let family = if loopback.is_ipv4() { 4 } else { 6 };
        writeln!(self.to, "{act} {family} {times}")?;
        self.hear()?.parse().context("the process that does it has failed")
    }

    /// Nanoseconds that one run of the program takes meanwhile, and how many runs there were each time.
    fn cost(&mut self, hook: &Hook, times: u32) -> Result<(f64, f64)> {
        self.cost_of(&hook.link()?, hook.act, hook.loopback, times)
    }

    /// The same of the program that a pinned link attaches.
    fn cost_of(&mut self, link: &Path, act: Act, loopback: IpAddr, times: u32) -> Result<(f64, f64)> {
        let before = Cost::of_link(link)?;
        self.time(act, loopback, times)?;
        let after = Cost::of_link(link)?;
        let mean = after.mean_since(before).with_context(|| format!("{} has not run", link.display()))?;
        Ok((mean, (after.runs - before.runs) as f64 / f64::from(times.next_multiple_of(CHUNK))))
    }

    /// Nanoseconds in all of the host's programs together, each time.
    fn cost_of_all(&mut self, act: Act, times: u32) -> Result<f64> {
        let folder = pins()?;
        let links = fs::read_dir(&folder)?.filter_map(Result::ok).map(|entry| entry.path());
        let links: Vec<_> = links
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("link_")))
            .collect();
        let costs = || links.iter().map(|link| Cost::of_link(link)).collect::<Result<Vec<_>>>();
        let before = costs()?;
        self.time(act, V4, times)?;
        let sum: f64 = costs()?.into_iter().zip(before).map(|(after, before)| after.since(before)).sum();
        Ok(sum / f64::from(times.next_multiple_of(CHUNK)))
    }
}

/// How often [`Bench::step`] is called.
pub fn steps(extent: &Extent) -> u64 {
    (extent.hook_rounds * 2) as u64
}

/// F10: each program in a pod and elsewhere, and what those elsewhere notice of all.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    thread::scope(|scope| {
        let apart = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            if is_attached() {
                eprintln!("warning: there are projects on this host: what is measured comes on top of their programs");
            }
            mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), Some("mode=0700"))
                .context("cannot mount bpffs")?;
            let mut measures = Vec::from(of_programs(bench)?);
            measures.extend(of_others(bench)?);
            Ok(measures)
        });
        apart.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether other projects have programs at the control groups.
fn is_attached() -> bool {
    let folder = capability::mounted("bpf").map(|folder| folder.join("sameport"));
    let entries = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let mut entries = entries;
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with("_host_"))
}

fn core(bench: &Bench) -> String {
    bench.cores.serving.list().split(',').next().unwrap_or_default().to_owned()
}

/// What each program takes.
fn of_programs(bench: &Bench) -> Result<[Measure; 2]> {
    let extent = &bench.extent;
    let name = bench.project("hooks");
    let mut pod = Pod::empty(&name, BALANCE)?;
    let network: Ends = sandbox()?;
    let mut inside = Worker::start(&format!("{name}-in"), pod.network(), &core(bench))?;
    let member = inside.member.take().context("no replica")?;
    pod.add(member, BALANCE)?;
    let mut elsewhere = Worker::start(&format!("{name}-out"), network.0.id(), &core(bench))?;
    let series = |place: &str| {
        HOOKS.iter().map(|hook| Series::new(format!("{hook}, {place}"), Kind::Sameport)).collect()
    };
    let mut all: [Vec<Series>; 2] = [series("in a pod"), series("elsewhere")];
    let mut runs = [Vec::new(), Vec::new()];
    let mut own = Series::new("lookup of a replica's own listener", Kind::Sameport);
    let mut refused = Series::new(IN_PROGRAMS, Kind::Sameport);
    {
        let _stats = enable_stats(Stats::RunTime).context("the kernel does not measure BPF programs")?;
        for _ in 0..extent.hook_rounds {
            bench.step("F10: the programs")?;
            for ((worker, series), runs) in
                [&mut inside, &mut elsewhere].into_iter().zip(&mut all).zip(&mut runs)
            {
                let (floor, _) = worker.cost(&FLOOR, extent.hook_calls)?;
                for (hook, series) in HOOKS.iter().zip(series) {
                    let (cost, calls) = worker.cost(hook, extent.hook_calls)?;
                    series.samples.push(cost - floor);
                    if hook.act == Act::Tcp {
                        runs.push(calls);
                    }
                }
            }
            let (floor, _) = inside.cost(&FLOOR, extent.hook_calls)?;
            let (cost, _) = inside.cost_of(&pod.link()?, Act::Tcp, V4, extent.hook_calls)?;
            own.samples.push(cost - floor);
            refused.samples.push(elsewhere.cost_of_all(Act::TcpRefused, extent.hook_calls)?);
        }
    }
    let calls = runs.map(|runs| Spread::of(&runs).map_or_else(String::new, |spread| figure(spread.median)));
    let [inside, elsewhere] = all;
    let of_each = Measure {
        id: Id::F10,
        title: "ns for one run of a program that sees every socket, beyond what measuring takes".to_owned(),
        how: format!(
            "What one run takes, by the kernel's own statistics, mean of {} that a process has it do on loopback; less what \
             `connect4` takes for a TCP socket, at which it does nothing, measured in the same round. For a TCP connection, \
             opened and closed, `sockops` runs {} times in a pod and {} times elsewhere, on both sides together.",
            extent.hook_calls, calls[0], calls[1]
        ),
        better: Better::Lower,
        goals: Vec::new(),
        series: inside.into_iter().chain(elsewhere).chain([own]).collect(),
    };
    Ok([of_each, of_connect(refused)])
}

/// What those elsewhere spend in the programs.
fn of_connect(refused: Series) -> Measure {
    Measure {
        id: Id::F10,
        title: "ns in sameport's programs for a TCP socket that is made, not connected since nobody listens, and closed, of a \
                process elsewhere on the host"
            .to_owned(),
        how: "By the kernel's own statistics, all programs together, with what measuring each of them takes, which is most of it. How \
              the kernel comes to a program is not in it. The next measure has the goal: it has both, and a noise of its own."
            .to_owned(),
        better: Better::Lower,
        goals: Vec::new(),
        series: vec![refused],
    }
}

/// What a process that has nothing to do with sameport notices.
fn of_others(bench: &Bench) -> Result<Vec<Measure>> {
    let extent = &bench.extent;
    let name = bench.project("hooks");
    let network: Ends = sandbox()?;
    let mut worker = Worker::start(&format!("{name}-out"), network.0.id(), &core(bench))?;
    let acts = [
        (
            Act::TcpRefused,
            "connect(2) of a TCP socket on loopback where nobody listens: the caller's end alone",
        ),
        (Act::TcpConnect, "connect(2) of a TCP socket on loopback, which is the handshake at both ends"),
        (Act::Tcp, "a TCP connection on loopback, opened, accepted and closed at both ends"),
        (Act::Option, "setsockopt(2)"),
        (Act::Connect, "a UDP socket on loopback, connected and closed"),
        (Act::Send, "a datagram on loopback, sent and received"),
    ];
    let mut samples = acts.map(|_| [Vec::new(), Vec::new()]);
    for round in 0..extent.hook_rounds {
        bench.step("F10: elsewhere on the host")?;
        // Each is the first one as often.
        for attached in [round % 2 == 0, round % 2 != 0] {
            let steering = attached
                .then(|| KernelSteering::start(&ProjectName::new(&name)?).map_err(anyhow::Error::from));
            let steering = steering.transpose()?;
            let timed: Result<()> = acts.iter().zip(&mut samples).try_for_each(|((act, _), samples)| {
                worker.time(*act, V4, extent.hook_calls / 10)?;
                samples[usize::from(attached)].push(worker.time(*act, V4, extent.hook_calls)?);
                Ok(())
            });
            if let Some(steering) = steering {
                steering.remove()?;
            }
            timed?;
        }
    }
    Ok(acts.into_iter().zip(samples).map(|((act, what), samples)| others(act, what, samples)).collect())
}

/// The figures without and with the programs.
fn others(act: Act, what: &str, [without, with]: [Vec<f64>; 2]) -> Measure {
    let pairs = || with.iter().zip(&without);
    let more = pairs().map(|(with, without)| with - without).collect();
    let ratios: Vec<_> = pairs().map(|(with, without)| with / without).collect();
    let ratio = Spread::of(&ratios).map_or_else(String::new, |spread| spread.to_string());
    let series = |peer: &str, kind, samples| Series { samples, ..Series::new(peer, kind) };
    Measure {
        id: Id::F10,
        title: format!("ns for {what}, of a process elsewhere on the host"),
        how: format!(
            "Both ends are one process, in a network that is no pod. The programs are attached and detached by turns, and what is \
             compared was measured in the same round; with them it took {ratio} times as long."
        ),
        better: Better::Lower,
        // The other end is another one's.
        goals: match act {
            Act::Tcp | Act::TcpConnect => Vec::new(),
            _ => vec![Goal::new(MORE, By::One, Bound::AtMost(MOST))],
        },
        series: vec![
            series(MORE, Kind::Sameport, more),
            series("with sameport's programs", Kind::Sameport, with),
            series("without", Kind::Limit, without),
        ],
    }
}

const IN_PROGRAMS: &str = "in the programs";
const MORE: &str = "more with sameport's programs than without";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_read_as_it_is_written() {
        for act in ACTS {
            assert_eq!(act.to_string().parse::<Act>().unwrap(), act);
        }
        assert!("Listen".parse::<Act>().is_err());
    }

    #[test]
    fn a_difference_is_taken_round_by_round() {
        let measure = others(
            Act::TcpRefused,
            "a connection",
            [vec![1000.0, 3000.0, 2000.0], vec![1100.0, 3150.0, 2400.0]],
        );
        let outcome = measure.outcomes().remove(0);
        assert_eq!((outcome.ratio.median, outcome.is_met()), (150.0, true));
        assert!(measure.how.contains("1.1 (1.05–1.2) times"), "{}", measure.how);
    }

    #[test]
    fn each_hook_has_a_name_of_its_own() {
        let mut names: Vec<_> = HOOKS.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), HOOKS.len());
        assert_eq!(steps(&Extent::SMOKE), 2 * Extent::SMOKE.hook_rounds as u64);
    }
}
