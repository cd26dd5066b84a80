//! Health checks of replicas that have not passed one yet. The engine runs the first one only after an interval, which is 30 s as
//! a rule: until then we run the check's own command, each second, until it has passed once.
//!
//! In: who runs and may be asked. Out: who has passed, and whose check cannot be run. Failures count for nothing.

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

/// From the begin of one check of a replica to that of the next one.
const INTERVAL: Duration = Duration::from_secs(1);
/// The program of a check may be made by the replica as it comes up: so often in a row it has to be missing.
const MISSING: u32 = 3;
/// A command that is killed takes a moment to be gone. How long at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has come of the first checks of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstCheck {
    /// None has passed yet: what the last one said.
    Failed(String),
    /// One has passed.
    Passed,
    /// It cannot be run: what was said of that.
    CannotRun(String),
}

/// Checks replicas that wait for their first good one.
pub struct FirstChecks {
    run: Check,
    places: Arc<CheckPlaces>,
    running: BTreeMap<Life, Task>,
    found: BTreeMap<Life, FirstCheck>,
    told: mpsc::UnboundedReceiver<(Life, FirstCheck)>,
    sender: mpsc::UnboundedSender<(Life, FirstCheck)>,
}

/// It ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FirstChecks {
    /// Nobody is checked yet.
    pub fn new(run: Check, places: CheckPlaces) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let (running, found) = Default::default();
        Self { run, places: Arc::new(places), running, found, told, sender }
    }

    /// Checks these, and nobody else, until each has passed once. What was found of those that run no more is forgotten.
    pub fn follow(&mut self, runs: impl Fn(&Life) -> bool, wanted: BTreeMap<Life, &HealthCheck>) {
        self.found.retain(|life, _| runs(life));
        let is_known =
            |life: &Life| matches!(self.found.get(life), Some(FirstCheck::Passed | FirstCheck::CannotRun(_)));
        self.running.retain(|life, _| wanted.contains_key(life) && !is_known(life));
        for (life, check) in wanted {
            // The engine is about as soon.
            if check.interval <= INTERVAL || is_known(&life) || self.running.contains_key(&life) {
                continue;
            }
            let told = self.sender.clone();
            let (run, places) = (Arc::clone(&self.run), Arc::clone(&self.places));
            let task = tokio::spawn(checks(life.clone(), check.clone(), run, places, told));
            self.running.insert(life, Task(task));
        }
    }

    /// What was found of a replica.
    pub fn of(&self, life: &Life) -> Option<&FirstCheck> {
        self.found.get(life)
    }

    /// Waits until one has passed, or cannot be run.
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

/// Runs a check until it has passed, or it is certain that it cannot be run.
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
            timeout(limit + PATIENCE, &mut command).await
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
            Some(error) if missing >= MISSING => FirstCheck::CannotRun(error),
            _ => FirstCheck::Failed(match last_line(&said) {
                line if line.is_empty() => format!("exit code {code}"),
                line => line,
            }),
        };
        let is_known = !matches!(found, FirstCheck::Failed(_));
        // Nobody waits for it any more if the supervisor ends.
        if told.send((life.clone(), found)).is_err() || is_known {
            return;
        }
        if !is_over {
            // One that cannot be killed, such as on another host: there are never two.
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
    use crate::{engine::ContainerId, supervisor::check_places::AT_ONCE};

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

    /// A command that takes so long, and ends in turn with these codes and outputs, the last one from then on; and how often it
    /// was run, and how many ran at once at most.
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
        // It is not checked again, and forgotten once it is gone.
        follow(&mut checks);
        assert!(timeout(Duration::from_secs(60), checks.changed()).await.is_err());
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        checks.follow(|_| false, BTreeMap::new());
        assert_eq!(checks.of(&one), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_whose_program_stays_away_cannot_be_run() {
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
    async fn there_are_never_two_of_a_replica_and_one_that_does_not_end_keeps_no_others_from_being_checked() {
        let (run, runs, most) = ends(Duration::from_secs(60), &[(1, "no")]);
        let (mut checks, long) = (FirstChecks::new(run, CheckPlaces::new(None)), check(30));
        let all: Vec<_> = (0..8).map(|number| life(&number.to_string())).collect();
        checks.follow(|_| true, all.iter().map(|one| (one.clone(), &long)).collect());
        // The first four give their places back after 10 s, though they go on.
        assert!(timeout(Duration::from_secs(15), checks.changed()).await.is_err());
        assert_eq!((runs.load(Ordering::Relaxed), most.load(Ordering::Relaxed)), (8, 8));
        assert_eq!(checks.of(&all[0]), Some(&FirstCheck::Failed("no end within 5s".to_owned())));
        assert!(timeout(Duration::from_secs(40), checks.changed()).await.is_err());
        assert_eq!(runs.load(Ordering::Relaxed), 8, "each one's last has not ended");
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_checked_at_once_and_none_that_the_engine_checks_as_often() {
        let (run, runs, most) = ends(Duration::from_millis(300), &[(1, "no")]);
        let (mut checks, long, short) = (FirstChecks::new(run, CheckPlaces::new(None)), check(30), check(1));
        let names: Vec<_> = (0..20).map(|number| format!("{number:02}")).collect();
        let all: Vec<_> = names.iter().map(|name| life(name)).collect();
        let wanted =
            all.iter().map(|one| (one.clone(), if one == &all[0] { &short } else { &long })).collect();
        checks.follow(|_| true, wanted);
        assert!(timeout(Duration::from_secs(30), checks.changed()).await.is_err());
        assert_eq!(most.load(Ordering::Relaxed), AT_ONCE);
        let turns = runs.load(Ordering::Relaxed);
        assert!((300..=400).contains(&turns), "{turns}");
        // Whoever is no longer wanted is not asked again.
        checks.follow(|_| true, BTreeMap::new());
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(runs.load(Ordering::Relaxed), turns);
    }
}
