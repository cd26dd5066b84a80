//! What was seen of each kind of fault, as a table.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, io::Write as _, path::PathBuf, time::Duration};

use super::faults::{self, Fault};

/// What one fault cost.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// How many requests failed.
    pub failed: usize,
    /// How long it was from its beginning until all was whole.
    pub recovery: Duration,
}

/// What faults cost, of this walk and of those before it in the same file.
pub struct Record {
    seed: u64,
    file: Option<PathBuf>,
    lines: Vec<String>,
}

impl Record {
    /// Nothing was seen yet in this walk.
    pub fn new(seed: u64) -> Self {
        let file = env::var_os("SAMEPORT_FAULTS_RECORD").map(PathBuf::from);
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        Self { seed, file, lines: text.lines().map(str::to_owned).collect() }
    }

    /// Another one. It is in the file at once, so that a walk that fails has counted up to there.
    pub fn add(&mut self, fault: &Fault, round: Round) {
        let Round { failed, recovery } = round;
        let line = format!("{}\t{}\t{failed}\t{}", self.seed, fault.name, recovery.as_millis());
        if let Some(file) = &self.file {
            let mut file = fs::File::options().create(true).append(true).open(file).unwrap();
            writeln!(file, "{line}").unwrap();
        }
        self.lines.push(line);
    }

    /// The table of all that was seen, in Markdown; also beside the file.
    pub fn finish(self) -> String {
        let mut rounds: BTreeMap<&str, Vec<Round>> = BTreeMap::new();
        for line in &self.lines {
            let [_, name, failed, recovery] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("not a line of a record: {line}")
            };
            let recovery = Duration::from_millis(recovery.parse().unwrap());
            rounds.entry(name).or_default().push(Round { failed: failed.parse().unwrap(), recovery });
        }
        let mut text =
            "| fault | requests that may fail | times | failed | most at once | recovery: median | worst |\n\
                        | --- | --- | --- | --- | --- | --- | --- |\n"
                .to_owned();
        for fault in faults::all() {
            if let Some(rounds) = rounds.get_mut(fault.name) {
                let _ = writeln!(text, "{}", row(fault, rounds));
            }
        }
        if let Some(file) = &self.file {
            fs::write(file.with_extension("md"), &text).unwrap();
        }
        text
    }
}

fn row(fault: &Fault, rounds: &mut [Round]) -> String {
    rounds.sort_by_key(|round| round.recovery);
    let failed: usize = rounds.iter().map(|round| round.failed).sum();
    let most = rounds.iter().map(|round| round.failed).max().unwrap_or_default();
    let seconds = |round: &Round| format!("{:.1} s", round.recovery.as_secs_f64());
    let (median, worst) = (seconds(&rounds[rounds.len() / 2]), seconds(&rounds[rounds.len() - 1]));
    format!("| {} | {} | {} | {failed} | {most} | {median} | {worst} |", fault.name, fault.cost, rounds.len())
}
