//! What the supervisor itself takes.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    time::ClockId,
    unistd::Pid,
};

use crate::{
    bench::Bench,
    compose,
    docker::{free_port, image},
    extent::Extent,
    project::Project,
    results::{Better, Bound, By, Goal, Id, Kind, Measure, Series},
};

/// After a start there is still something to do, and memory to be given back.
const SETTLE: Duration = Duration::from_secs(6);
/// A supervisor answers by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often [`Bench::step`] is called.
pub fn steps(extent: &Extent) -> u64 {
    (extent.supervised.len() + extent.kills) as u64
}

/// F7: looks at supervisors to which nothing happens, and starts some that have nothing to do.
pub fn measure(bench: &Bench) -> Result<Vec<Measure>> {
    let image = image("nginx")?;
    let (mut memory, mut private, mut time) = (Vec::new(), Vec::new(), Vec::new());
    for (replicas, idle) in bench.extent.supervised.iter().zip(idle(bench, &image)?) {
        let series = |sample| Series {
            samples: vec![sample],
            ..Series::new(format!("supervisor of {replicas} replicas"), Kind::Sameport)
        };
        memory.push(series(idle.megabytes));
        private.push(series(idle.private_megabytes));
        time.push(series(idle.percent));
    }
    let seconds = bench.extent.idle;
    Ok(vec![
        limited(
            "MB of memory of the supervisor",
            format!("Resident memory (VmRSS, in 10⁶ bytes) after {seconds} s in which nothing happened."),
            memory,
            20.0,
        ),
        limited(
            "MB of memory of the supervisor that it shares with nobody",
            format!(
                "What each further supervisor costs (Private_Dirty of smaps_rollup, in 10⁶ bytes) after {seconds} s in which \
                 nothing happened. The rest of its memory is the program, of which the host has one copy."
            ),
            private,
            5.0,
        ),
        limited(
            "% of one core for the supervisor while nothing happens",
            format!(
                "Processor time of all threads of the supervisor, by the scheduler's own count, over {seconds} s \
                 without requests, that begin 6 s after the last `up -d --wait`."
            ),
            time,
            0.2,
        ),
        Measure {
            id: Id::F7,
            title: "MB of the program".to_owned(),
            how: "The size of the program's file, which is all that is installed.".to_owned(),
            better: Better::Lower,
            series: vec![Series {
                samples: vec![megabytes(fs::metadata(&bench.sameport)?.len())],
                ..Series::new("sameport", Kind::Sameport)
            }],
            goals: Vec::new(),
        },
        Measure {
            id: Id::F7,
            title: "ms until a supervisor answers".to_owned(),
            how: "From starting `sameport supervise`, for a service of no replicas, to its first answer to a request at \
                  its control socket. The file is in the page cache."
                .to_owned(),
            better: Better::Lower,
            series: vec![cold_starts(bench, &image)?],
            goals: Vec::new(),
        },
    ])
}

fn limited(title: &str, how: String, series: Vec<Series>, most: f64) -> Measure {
    let goals = series.iter().map(|series| Goal::new(&series.peer, By::One, Bound::AtMost(most))).collect();
    Measure { id: Id::F7, title: title.to_owned(), how, better: Better::Lower, series, goals }
}

/// What a supervisor takes when there is nothing to do.
struct Idle {
    percent: f64,
    megabytes: f64,
    private_megabytes: f64,
}

/// Of supervisors that are all there at the same time, in the order of [`Extent::supervised`].
fn idle(bench: &Bench, image: &str) -> Result<Vec<Idle>> {
    let mut projects = Vec::new();
    for &replicas in bench.extent.supervised {
        bench.step(&format!("F7: the supervisor of {replicas} replicas"))?;
        let project = project(bench, image, replicas)?;
        project.run(&["up", "-d", "--wait"])?;
        projects.push(project);
    }
    let supervisors: Vec<_> = projects
        .iter()
        .map(|project| supervisor(&bench.sameport, project.folder()))
        .collect::<Result<_>>()?;
    thread::sleep(SETTLE);
    let times = || supervisors.iter().copied().map(processor_time).collect::<Result<Vec<_>>>();
    let (begin, before) = (Instant::now(), times()?);
    bench.pause(Duration::from_secs(bench.extent.idle.into()))?;
    let (seconds, after) = (begin.elapsed().as_secs_f64(), times()?);
    let spent = before.iter().zip(after).map(|(before, after)| after.saturating_sub(*before));
    spent
        .zip(&supervisors)
        .map(|(spent, supervisor)| {
            let percent = 100.0 * spent.as_secs_f64() / seconds;
            Ok(Idle {
                percent,
                megabytes: megabytes(kilobytes(*supervisor, "status", "VmRSS:")?),
                private_megabytes: megabytes(kilobytes(*supervisor, "smaps_rollup", "Private_Dirty:")?),
            })
        })
        .collect()
}

fn project(bench: &Bench, image: &str, replicas: u32) -> Result<Project> {
    let port = free_port()?;
    let file = compose::published(image, port, replicas);
    Project::new(&bench.sameport, &bench.project(&format!("supervised-{replicas}")), &file)
}

/// The process of that program whose sockets are in that folder.
fn supervisor(binary: &Path, folder: &Path) -> Result<Pid> {
    let binary = binary.canonicalize()?;
    let variable = format!("XDG_RUNTIME_DIR={}", folder.display());
    let is_it = |process: &Path| {
        // Processes come and go while they are looked at.
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        fs::read_link(process.join("exe")).is_ok_and(|exe| exe == binary)
            && environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    };
    let processes = fs::read_dir("/proc")?.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        is_it(&entry.path()).then_some(pid)
    });
    match processes.collect::<Vec<_>>()[..] {
        [pid] => Ok(Pid::from_raw(pid)),
        ref found => bail!("one supervisor was expected in {}, there are {found:?}", folder.display()),
    }
}

/// Of all threads that it has and had, to the nanosecond.
fn processor_time(process: Pid) -> Result<Duration> {
    let time = ClockId::pid_cpu_clock_id(process).and_then(ClockId::now);
    Ok(time.with_context(|| format!("the processor time of {process}"))?.into())
}

/// Bytes, by what proc(5) tells of a process in kilobytes.
fn kilobytes(process: Pid, file: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let line = line.with_context(|| format!("no {key} in {file}"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn cold_starts(bench: &Bench, image: &str) -> Result<Series> {
    let project = project(bench, image, 0)?;
    let socket = project.folder().join("sameport").join(format!("{}.sock", project.name));
    let mut series = Series::new("sameport supervise", Kind::Sameport);
    for _ in 0..bench.extent.kills {
        bench.step("F7: a supervisor starts")?;
        let begin = Instant::now();
        let starting = Starting::new(&project)?;
        starting.answer(&socket)?;
        series.samples.push(begin.elapsed().as_secs_f64() * 1e3);
        starting.end(&socket)?;
    }
    Ok(series)
}

/// A supervisor in the foreground, that is ended when it is dropped.
struct Starting(Child);

impl Starting {
    fn new(project: &Project) -> Result<Self> {
        let mut command = project.command(&["supervise"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.context("cannot start a supervisor")?))
    }

    /// Waits for its first answer.
    fn answer(&self, socket: &Path) -> Result<()> {
        let begin = Instant::now();
        loop {
            match ask(socket) {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => return Ok(()),
                Ok(answer) => bail!("the supervisor says {answer:?}"),
                Err(_) if begin.elapsed() < PATIENCE => thread::sleep(Duration::from_micros(500)),
                Err(error) => {
                    return Err(error).with_context(|| format!("{} does not answer", socket.display()));
                }
            }
        }
    }

    /// Has it end in peace.
    fn end(mut self, socket: &Path) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.0.id())?);
        kill(pid, Signal::SIGTERM)?;
        let status = self.0.wait()?;
        if socket.exists() {
            bail!("the supervisor left its socket: {status}");
        }
        Ok(())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        // It fails where it has ended already. Killing it leaves nothing: what it has made goes with the project.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks a supervisor where everything stands.
fn ask(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = "\"status\"";
    write!(
        stream,
        "POST /v3/request HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    stream.shutdown(Shutdown::Both)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_looked_at() {
        let own = Pid::this();
        assert!(processor_time(own).unwrap() > Duration::ZERO);
        let (resident, private) = (
            kilobytes(own, "status", "VmRSS:").unwrap(),
            kilobytes(own, "smaps_rollup", "Private_Dirty:").unwrap(),
        );
        assert!(resident > private && private > 1 << 12, "{resident} {private}");
    }
}
