//! Runs health checks of replicas that have not passed one yet. The engine runs the first check only after an interval,
//! 30 s by default; until then, the supervisor runs the command of the check each second until it passes.
//!
//! The result is which replicas passed, and whose check cannot be run. Failures have no effect.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    check_places::CheckPlaces,
    probes::{Check, Life},
};
use crate::{
    engine::{HealthCheck, Ran, cannot_run},
    probe::last_line,
};

/// The time between the starts of two checks of a replica.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often in a row the program of a check must be missing: the replica may create it while it starts.
const MISSING_THRESHOLD: u32 = 3;
/// How long to wait for a command to end after its timeout.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of the first checks of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstCheck {
    /// No check has passed yet: the output of the last one.
    Failed(String),
    /// A check passed.
    Passed,
    /// The check cannot be run: the error.
    CannotRun(String),
}

/// Checks replicas until each has passed once.
pub struct FirstChecks {
    run: Check,
    places: Arc<CheckPlaces>,
    running: BTreeMap<Life, Task>,
    found: BTreeMap<Life, FirstCheck>,
    told: mpsc::UnboundedReceiver<(Life, FirstCheck)>,
    sender: mpsc::UnboundedSender<(Life, FirstCheck)>,
}

/// Aborts the task when dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FirstChecks {
    /// Starts without replicas; `follow` adds them.
    pub fn new(run: Check, places: CheckPlaces) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let (running, found) = Default::default();
        Self { run, places: Arc::new(places), running, found, told, sender }
    }

    /// Checks exactly these replicas until each has passed once. Drops the results of those that do not run any more.
    pub fn follow(&mut self, runs: impl Fn(&Life) -> bool, wanted: BTreeMap<Life, &HealthCheck>) {
        self.found.retain(|life, _| runs(life));
        let is_known =
            |life: &Life| matches!(self.found.get(life), Some(FirstCheck::Passed | FirstCheck::CannotRun(_)));
        self.running.retain(|life, _| wanted.contains_key(life) && !is_known(life));
        for (life, check) in wanted {
            // The engine's own first check comes about as soon.
            if check.interval <= INTERVAL || is_known(&life) || self.running.contains_key(&life) {
                continue;
            }
            let told = self.sender.clone();
            let (run, places) = (Arc::clone(&self.run), Arc::clone(&self.places));
            let task = tokio::spawn(checks(life.clone(), check.clone(), run, places, told));
            self.running.insert(life, Task(task));
        }
    }

    /// The last result for a replica.
    pub fn of(&self, life: &Life) -> Option<&FirstCheck> {
        self.found.get(life)
    }

    /// Waits until a check passes or turns out to be impossible.
    pub async fn changed(&mut self) {
        while let Some((life, found)) = self.told.recv().await {
            if !self.running.contains_key(&life) {
                continue;
            }
            let is_over = !matches!(found, FirstCheck::Failed(_));
            if is_over {
                self.running.remove(&life);
            }
            self.found.insert(life, found);
            if is_over {
                return;
            }
        }
    }
}

/// Runs a check until it passes or certainly cannot be run.
async fn checks(
    life: Life,
    check: HealthCheck,
    run: Check,
    places: Arc<CheckPlaces>,
    told: mpsc::UnboundedSender<(Life, FirstCheck)>,
) {
    let mut missing = 0;
    loop {
        let (begun, limit) = (Instant::now(), check.timeout);
        let mut command = run(life.0.clone(), check.command.clone(), limit);
        let ended = {
            let _place = places.take().await;
            timeout(limit + KILL_TIMEOUT, &mut command).await
        };
        let is_over = ended.is_ok();
        let (code, said) = match ended {
            Ok(Ok(Ran { code, output })) => (code, output.join("\n")),
            Ok(Err(error)) => (-1, error.to_string()),
            Err(_) => (-1, format!("no end within {:?}", check.timeout)),
        };
        let error = cannot_run(code, &said);
        missing = if error.is_some() { missing + 1 } else { 0 };
        let found = match error {
            _ if code == 0 => FirstCheck::Passed,
            Some(error) if missing >= MISSING_THRESHOLD => FirstCheck::CannotRun(error),
            _ => FirstCheck::Failed(match last_line(&said) {
                line if line.is_empty() => format!("exit code {code}"),
                line => line,
            }),
        };
        let is_known = !matches!(found, FirstCheck::Failed(_));
        // The channel is closed when the supervisor ends.
        if told.send((life.clone(), found)).is_err() || is_known {
            return;
        }
        if !is_over {
            // The command could not be killed, for example on another host. Wait for it, so that a replica never has
            // two.
            let _ = command.await;
        }
        tokio::time::sleep_until((begun + INTERVAL).max(Instant::now() + INTERVAL / 10)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use futures_util::FutureExt;

    use super::*;
    use crate::{engine::ContainerId, supervisor::check_places::MAX_CONCURRENT};

    fn life(name: &str) -> Life {
        (ContainerId(name.to_owned()), 7)
    }

    fn check(interval: u64) -> HealthCheck {
        HealthCheck {
            command: vec!["check".to_owned()],
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(5),
        }
    }

    /// A check whose command takes this long and returns the given exit codes and outputs in turn, repeating the last.
    /// Also counts the runs, and the maximum of concurrent ones.
    fn ends(takes: Duration, answers: &[(i64, &str)]) -> (Check, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let answers: Vec<_> = answers.iter().map(|(code, said)| (*code, (*said).to_owned())).collect();
        let [runs, at_once, most] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
        let by_name = Arc::new(Mutex::new(BTreeMap::<ContainerId, usize>::new()));
        let (counted, highest) = (Arc::clone(&runs), Arc::clone(&most));
        let run: Check = Arc::new(move |id, _, _| {
            let (counted, highest, at_once) =
                (Arc::clone(&counted), Arc::clone(&highest), Arc::clone(&at_once));
            let (answers, by_name) = (answers.clone(), Arc::clone(&by_name));
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
                highest.fetch_max(at_once.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(takes).await;
                at_once.fetch_sub(1, Ordering::Relaxed);
                let turn = std::mem::replace(by_name.lock().unwrap().entry(id.clone()).or_default(), 0);
                by_name.lock().unwrap().insert(id, turn + 1);
                let (code, said) = answers[turn.min(answers.len() - 1)].clone();
                Ok(Ran { code, output: vec![said] })
            }
            .boxed()
        });
        (run, runs, most)
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_checked_each_second_until_it_has_passed_once() {
        let (run, runs, _) = ends(Duration::from_millis(50), &[(1, "no"), (1, "no"), (0, "")]);
        let (mut checks, one, begun) =
            (FirstChecks::new(run, CheckPlaces::new(None)), life("one"), Instant::now());
        let long = check(30);
        let follow =
            |checks: &mut FirstChecks| checks.follow(|_| true, BTreeMap::from([(life("one"), &long)]));
        follow(&mut checks);
        assert_eq!(checks.of(&one), None);
        checks.changed().await;
        assert_eq!(checks.of(&one), Some(&FirstCheck::Passed));
        assert_eq!((runs.load(Ordering::Relaxed), begun.elapsed().as_millis() / 100), (3, 20));
        // It is not checked again, and is dropped once it is gone.
        follow(&mut checks);
        assert!(timeout(Duration::from_secs(60), checks.changed()).await.is_err());
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        checks.follow(|_| false, BTreeMap::new());
        assert_eq!(checks.of(&one), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_whose_program_stays_missing_cannot_be_run() {
        let gone = (127, "/bin/sh: 1: curl: not found");
        for (answers, wanted) in [
            (&[gone, gone, gone][..], FirstCheck::CannotRun(gone.1.to_owned())),
            (&[gone, gone, (1, "no"), gone, gone, (0, "")][..], FirstCheck::Passed),
        ] {
            let (run, ..) = ends(Duration::ZERO, answers);
            let (mut checks, long) = (FirstChecks::new(run, CheckPlaces::new(None)), check(30));
            checks.follow(|_| true, BTreeMap::from([(life("one"), &long)]));
            checks.changed().await;
            assert_eq!(checks.of(&life("one")), Some(&wanted));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_has_one_check_at_a_time_and_a_hung_one_does_not_block_others() {
        let (run, runs, most) = ends(Duration::from_secs(60), &[(1, "no")]);
        let (mut checks, long) = (FirstChecks::new(run, CheckPlaces::new(None)), check(30));
        let all: Vec<_> = (0..8).map(|number| life(&number.to_string())).collect();
        checks.follow(|_| true, all.iter().map(|one| (one.clone(), &long)).collect());
        // The first four release their slots after 10 s although they are still running.
        assert!(timeout(Duration::from_secs(15), checks.changed()).await.is_err());
        assert_eq!((runs.load(Ordering::Relaxed), most.load(Ordering::Relaxed)), (8, 8));
        assert_eq!(checks.of(&all[0]), Some(&FirstCheck::Failed("no end within 5s".to_owned())));
        assert!(timeout(Duration::from_secs(40), checks.changed()).await.is_err());
        assert_eq!(runs.load(Ordering::Relaxed), 8, "each one's last has not ended");
    }

    #[tokio::test(start_paused = true)]
    async fn few_checks_run_concurrently_and_none_that_the_engine_runs_as_often() {
        let (run, runs, most) = ends(Duration::from_millis(300), &[(1, "no")]);
        let (mut checks, long, short) = (FirstChecks::new(run, CheckPlaces::new(None)), check(30), check(1));
        let names: Vec<_> = (0..20).map(|number| format!("{number:02}")).collect();
        let all: Vec<_> = names.iter().map(|name| life(name)).collect();
        let wanted =
            all.iter().map(|one| (one.clone(), if one == &all[0] { &short } else { &long })).collect();
        checks.follow(|_| true, wanted);
        assert!(timeout(Duration::from_secs(30), checks.changed()).await.is_err());
        assert_eq!(most.load(Ordering::Relaxed), MAX_CONCURRENT);
        let turns = runs.load(Ordering::Relaxed);
        assert!((300..=400).contains(&turns), "{turns}");
        // Replicas that are no longer wanted are not checked again.
        checks.follow(|_| true, BTreeMap::new());
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(runs.load(Ordering::Relaxed), turns);
    }
}
