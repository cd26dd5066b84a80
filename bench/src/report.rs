//! The results, for people.

use std::fmt::Write as _;

use crate::results::{Better, Measure, Outcome, Results, Spread, figure};

/// The goals alone, for a terminal.
pub fn summary(results: &Results) -> String {
    let mut text = String::new();
    for measure in &results.measures {
        for outcome in measure.outcomes() {
            let _ = writeln!(text, "{}  {}", measure.id, line(measure, &outcome));
        }
    }
    let _ = write!(text, "{} s in all", results.took);
    text
}

fn line(measure: &Measure, outcome: &Outcome) -> String {
    let met = if outcome.is_met() { "met   " } else { "MISSED" };
    format!("{met} {}: {} = {} (goal {})", measure.title, outcome.what, outcome.ratio, outcome.bound)
}

/// What tests have measured: it is no part of a run.
const MEASURED_ONCE: &str = include_str!("../measured_once.md");

/// `RESULTS.md`.
pub fn page(results: &Results) -> String {
    let host = &results.host;
    let mut text = format!(
        "# Results\n\nWritten by `{}` on {}, in {} s: {}, {} GiB, Linux {}.\n\n",
        host.command, host.date, results.took, host.processor, host.memory, host.kernel
    );
    let versions: Vec<_> = host.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    if !versions.is_empty() {
        let _ = write!(text, "{}.\n\n", versions.join(", "));
    }
    text.push_str(
        "A figure is the median of the rounds, with the smallest and the largest. The peers had their turns one after the\n\
         other in each round, and a ratio is taken round by round. [How each is set up](README.md),\n\
         [raw data](results.json).\n\n![the figures](results.svg)\n\n## Goals\n\n\
         | | measure | ratio or figure | came out at | goal | |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for measure in &results.measures {
        for outcome in measure.outcomes() {
            let met = if outcome.is_met() { "met" } else { "**missed**" };
            let Outcome { what, ratio, bound } = &outcome;
            let _ =
                writeln!(text, "| {} | {} | {what} | {ratio} | {bound} | {met} |", measure.id, measure.title);
        }
    }
    let mut id = None;
    for measure in &results.measures {
        if id.replace(measure.id) != Some(measure.id) {
            let _ = write!(text, "\n## {}\n", measure.id);
        }
        table(&mut text, measure);
    }
    text.push('\n');
    text.push_str(MEASURED_ONCE);
    text
}

fn table(text: &mut String, measure: &Measure) {
    let _ = write!(text, "\n### {}\n\n{}\n\n", capital(&measure.title), measure.how);
    text.push_str("| | median | smallest | largest |\n| --- | ---: | ---: | ---: |\n");
    let mut series: Vec<_> = measure
        .series
        .iter()
        .filter_map(|series| Some((&series.peer, Spread::of(&series.samples)?)))
        .collect();
    // The best first, where they are different ways to do the same.
    series.sort_by(|(_, a), (_, b)| match measure.better {
        Better::Higher => b.median.total_cmp(&a.median),
        Better::Lower => a.median.total_cmp(&b.median),
    });
    for (peer, spread) in series {
        let [median, least, most] = [spread.median, spread.least, spread.most].map(figure);
        let _ = writeln!(text, "| {peer} | {median} | {least} | {most} |");
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
