//! One fault after the other, and what is asked after each.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::{
    cost::{AtRisk, Cost, Seen},
    engine::{self, Container},
    faults::{self, Fault, Replaces},
    record::{Record, Round},
    scene::{KEPT, Scene},
    support::{
        load,
        wait::{self, check, slowly},
    },
    whole,
};

/// How long each replica may take to be seen answering, once all is whole.
const SEEN: Duration = Duration::from_secs(5);

/// Walks so far.
pub fn walk(seed: u64, faults: usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let order = order(&mut rng, faults);
    let mut diary =
        Diary { seed, begin: Instant::now(), scene: Scene::start(rng.u64(..)), lines: Vec::new() };
    let mut record = Record::new(seed);
    say(&format!("seed {seed}: {faults} faults"));
    for fault in order {
        diary.lines.push(format!("{:7.1?}  {}", diary.begin.elapsed(), fault.name));
        let round = round(&mut diary, fault);
        say(&format!("{}: {} failed, {:.1?}", diary.lines.last().unwrap(), round.failed, round.recovery));
        record.add(fault, round);
    }
    volume_is_kept(&diary.scene);
    let scene = &diary.scene;
    scene.project.run(&["down", "-v"]);
    assert_eq!(scene.project.leftovers(), Vec::<String>::new());
    assert_eq!(whole::pins(&scene.project), Vec::<String>::new());
    say(&record.finish());
}

/// Every kind once, in random order, and then whatever comes.
fn order(rng: &mut fastrand::Rng, faults: usize) -> Vec<&'static Fault> {
    let words = env::var("SAMEPORT_FAULT").unwrap_or_default();
    let mut kinds: Vec<_> = faults::all().filter(|fault| fault.name.contains(&words)).collect();
    assert!(!kinds.is_empty(), "no kind of fault is called `{words}`");
    rng.shuffle(&mut kinds);
    (0..faults)
        .map(|number| kinds.get(number).copied().unwrap_or_else(|| kinds[rng.usize(..kinds.len())]))
        .collect()
}

/// Does it to the project, and asks everything.
fn round(diary: &mut Diary, fault: &Fault) -> Round {
    let scene = &mut diary.scene;
    scene.next();
    (fault.act)(scene);
    let recovery = recovers(scene, fault);
    let seen = scene.take();
    let begin = scene.begin.1;
    if let Err(why) = fault.cost.explains(&seen, scene.at_risk, begin) {
        panic!("{}: {why}; it began at {begin:.1?} of\n{seen}", fault.name);
    }
    serves(scene, fault);
    scene.before = engine::containers(&scene.project).unwrap();
    Round { failed: seen.all().failures.len(), recovery }
}

/// Waits until all is whole, and whoever is to have a new process has one, and nobody else.
fn recovers(scene: &Scene, fault: &Fault) -> Duration {
    let most = slowly(Duration::from_secs(fault.within));
    let left = most.saturating_sub(scene.begin.0.elapsed());
    wait::within(left, &format!("all is whole after `{}`", fault.name), || {
        whole::look(scene)?;
        replaced(scene, fault.replaces, &engine::containers(&scene.project)?)
    });
    scene.begin.0.elapsed()
}

fn replaced(scene: &Scene, replaces: Replaces, now: &BTreeMap<String, Container>) -> Result<(), String> {
    let stays = |name: &String| now.get(name).is_none_or(|now| now.process == scene.before[name].process);
    let changed: BTreeSet<_> = scene.before.keys().filter(|name| !stays(name)).collect();
    let victims: BTreeSet<_> = scene.victims.iter().filter(|name| scene.before.contains_key(*name)).collect();
    let holds = match replaces {
        Replaces::Nobody => changed.is_empty(),
        Replaces::Victims => changed == victims,
        Replaces::SomeVictims => changed.is_subset(&victims),
    };
    check(holds, format!("new processes: {changed:?}, of {victims:?}"))
}

/// Once all is whole, each replica answers, nobody else does, and no request fails.
///
/// A fault of the network can part clients from a replica so that neither it nor the kernel hears of their end: their
/// connections count until its server's time-out, and as long as the others have fewer, they get the new ones. So it is
/// asked with more connections than can be lost in that way.
fn serves(scene: &Scene, fault: &Fault) {
    let wanted: BTreeSet<_> = (1..=scene.replicas).map(|slot| scene.replica(slot)).collect();
    let mut all = Seen::default();
    wait::within(SEEN, "each replica answers", || {
        all.merge(scene.take());
        all.fresh.merge(load::at_once(scene.project.outside(), 3 * (KEPT + load::CLIENTS)));
        if let Err(why) = Cost::Nothing.explains(&all, AtRisk::default(), Duration::ZERO) {
            panic!("{}: all is whole again, and {why}:\n{all}", fault.name);
        }
        let answers = all.all().answers;
        check(answers.keys().cloned().collect::<BTreeSet<_>>() == wanted, (answers, &wanted))
    });
}

/// What was written at first is still in the volume, for each replica.
fn volume_is_kept(scene: &Scene) {
    for slot in 1..=scene.replicas {
        let read = scene.project.run(&["exec", &format!("web-{slot}"), "--", "cat", "/data/token"]);
        assert_eq!(read, "kept\n", "in web-{slot}");
    }
}

/// What was done so far; told if it ends badly.
struct Diary {
    seed: u64,
    begin: Instant,
    scene: Scene,
    lines: Vec<String>,
}

impl Drop for Diary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut text =
                format!("seed {} (SAMEPORT_SEED), after {:.1?}:\n", self.seed, self.begin.elapsed());
            self.lines.iter().for_each(|line| {
                let _ = writeln!(text, "{line}");
            });
            let _ = writeln!(text, "{:#?}", self.scene.project.try_run(&["status", "--format", "json"]));
            let events = self.scene.project.try_run(&["events", "--no-follow"]).stdout;
            let events: Vec<_> = events.lines().rev().take(40).collect();
            events.iter().rev().for_each(|event| {
                let _ = writeln!(text, "event: {event}");
            });
            eprintln!("{text}");
        }
    }
}

/// Says it where it is also seen of a test that passes.
pub fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
