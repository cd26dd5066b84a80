//! What was measured, and how it compares.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::host::Host;

/// Everything that a run came to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    /// On what.
    pub host: Host,
    /// How long it took, in seconds.
    pub took: u64,
    /// In the order of their numbers.
    pub measures: Vec<Measure>,
}

/// One thing that was measured of several peers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measure {
    /// Which of the questions it belongs to.
    pub id: Id,
    /// What it is, with its unit.
    pub title: String,
    /// How it was measured.
    pub how: String,
    /// Which way is up.
    pub better: Better,
    /// The figures.
    pub series: Vec<Series>,
    /// What sameport is meant to reach.
    pub goals: Vec<Goal>,
}

/// The figures of one peer, one for each round; the same round of two peers belongs together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Whose.
    pub peer: String,
    /// What kind of thing that is.
    pub kind: Kind,
    /// By round.
    pub samples: Vec<f64>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What this is all about.
    Sameport,
    /// A reverse proxy with a published port, as a Compose file has it.
    Proxy,
    /// A reverse proxy on the host's own network.
    ProxyOnHost,
    /// The kernel translates addresses.
    Translation,
    /// Docker's own ways.
    Docker,
    /// The same processes with nothing around them.
    Limit,
}

/// Which way is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// What a figure of sameport's is meant to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Goal {
    /// Which of its figures.
    pub ours: String,
    /// Divided by what.
    pub by: By,
    /// What comes out.
    pub bound: Bound,
}

/// What a figure is divided by, round by round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Nothing: the figure itself counts.
    One,
    /// A peer's.
    Peer(String),
    /// That of the best of the kind, by the medians.
    BestOf(Kind),
    /// That of the best of all others, by the medians.
    Best,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// So much or more.
    AtLeast(f64),
    /// So much or less.
    AtMost(f64),
}

/// The measures, as they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Id {
    /// Requests a second, a new connection each.
    F1,
    /// Requests a second on kept connections.
    F2,
    /// How long requests take.
    F3,
    /// How soon a killed replica is replaced.
    F4,
    /// Requests that fail while versions change.
    F5,
    /// How long it takes to start and remove many replicas.
    F6,
    /// What the supervisor itself takes.
    F7,
    /// What the kernel's choice costs.
    F8,
    /// Processor time for a request.
    F9,
    /// What the programs cost that see every socket of the host.
    F10,
}

/// The middle and the ends of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Half of them are smaller.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

/// What has become of a goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The figure of sameport's, and what it was divided by.
    pub what: String,
    /// What came out.
    pub ratio: Spread,
    /// What was meant.
    pub bound: Bound,
}

impl Spread {
    /// Of these figures; none of no figures.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted.get((sorted.len() - 1) / 2)?, sorted.get(sorted.len() / 2)?);
        Some(Self { median: f64::midpoint(*low, *high), least, most })
    }
}

impl Series {
    /// One without figures.
    pub fn new(peer: impl Into<String>, kind: Kind) -> Self {
        Self { peer: peer.into(), kind, samples: Vec::new() }
    }

    /// Its middle; not a number without figures.
    pub fn median(&self) -> f64 {
        Spread::of(&self.samples).map_or(f64::NAN, |spread| spread.median)
    }
}

impl Goal {
    /// What sameport's figure of that name is meant to be, divided by something.
    pub fn new(ours: impl Into<String>, by: By, bound: Bound) -> Self {
        Self { ours: ours.into(), by, bound }
    }
}

impl Measure {
    /// What has become of each goal that can be told.
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.goals.iter().filter_map(|goal| self.outcome(goal)).collect()
    }

    fn outcome(&self, goal: &Goal) -> Option<Outcome> {
        let ours = self.series.iter().find(|series| series.peer == goal.ours)?;
        let others = self.series.iter().filter(|series| series.kind != Kind::Sameport);
        let theirs = match &goal.by {
            By::One => None,
            By::Peer(name) => Some(self.series.iter().find(|series| series.peer == *name)?),
            By::BestOf(kind) => Some(self.best(others.filter(|series| series.kind == *kind))?),
            By::Best => Some(self.best(others)?),
        };
        let Some(theirs) = theirs else {
            let ratio = Spread::of(&ours.samples)?;
            return Some(Outcome { what: ours.peer.clone(), ratio, bound: goal.bound });
        };
        let ratios: Vec<_> =
            ours.samples.iter().zip(&theirs.samples).map(|(ours, theirs)| ours / theirs).collect();
        let what = format!("{} / {}", ours.peer, theirs.peer);
        Some(Outcome { what, ratio: Spread::of(&ratios)?, bound: goal.bound })
    }

    fn best<'a>(&self, series: impl Iterator<Item = &'a Series>) -> Option<&'a Series> {
        let compare = |a: &&Series, b: &&Series| a.median().total_cmp(&b.median());
        match self.better {
            Better::Higher => series.max_by(compare),
            Better::Lower => series.min_by(compare),
        }
    }
}

impl Outcome {
    /// Whether the middle is where it is meant to be.
    pub fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(bound) => self.ratio.median >= bound,
            Bound::AtMost(bound) => self.ratio.median <= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {}", figure(*bound)),
            Self::AtMost(bound) => write!(f, "≤ {}", figure(*bound)),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", figure(self.median))?;
        if self.least.total_cmp(&self.most).is_ne() {
            write!(f, " ({}–{})", figure(self.least), figure(self.most))?;
        }
        Ok(())
    }
}

/// A number with three digits that mean something, and blanks between thousands.
pub fn figure(number: f64) -> String {
    if !number.is_finite() {
        return "–".to_owned();
    }
    if number != 0.0 && number.abs() < 99.95 {
        let text = match number.abs() {
            size if size < 0.9995 => format!("{number:.3}"),
            size if size < 9.995 => format!("{number:.2}"),
            _ => format!("{number:.1}"),
        };
        return match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        };
    }
    let digits = format!("{:.0}", number.abs());
    let mut text = if number < 0.0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(peer: &str, kind: Kind, samples: &[f64]) -> Series {
        Series { samples: samples.to_vec(), ..Series::new(peer, kind) }
    }

    #[test]
    fn a_ratio_is_taken_round_by_round_to_the_best_of_a_kind() {
        let measure = Measure {
            id: Id::F1,
            title: String::new(),
            how: String::new(),
            better: Better::Higher,
            series: vec![
                series("sameport", Kind::Sameport, &[20.0, 40.0, 30.0]),
                series("slow", Kind::Proxy, &[1.0, 1.0, 50.0]),
                series("good", Kind::Proxy, &[10.0, 10.0, 10.0]),
                series("bare", Kind::Limit, &[100.0, 100.0, 100.0]),
            ],
            goals: vec![
                Goal::new("sameport", By::BestOf(Kind::Proxy), Bound::AtLeast(3.5)),
                Goal::new("sameport", By::Best, Bound::AtLeast(0.2)),
                Goal::new("sameport", By::One, Bound::AtMost(30.0)),
                Goal::new("missing", By::One, Bound::AtMost(30.0)),
            ],
        };
        let outcomes = measure.outcomes();
        let told: Vec<_> = outcomes
            .iter()
            .map(|outcome| (outcome.what.as_str(), outcome.ratio.to_string(), outcome.is_met()))
            .collect();
        assert_eq!(
            told,
            [
                ("sameport / good", "3 (2–4)".to_owned(), false),
                ("sameport / bare", "0.3 (0.2–0.4)".to_owned(), true),
                ("sameport", "30 (20–40)".to_owned(), true),
            ]
        );
    }

    #[test]
    fn numbers_are_short() {
        let of = |number: f64| figure(number);
        assert_eq!(of(0.0), "0");
        assert_eq!(of(0.12345), "0.123");
        assert_eq!(of(1.6), "1.6");
        assert_eq!(of(12.34), "12.3");
        assert_eq!(of(999.6), "1,000");
        assert_eq!(of(1_234_567.0), "1,234,567");
        assert_eq!(
            (of(-793.0), of(-1_793.0), of(-2.5)),
            ("-793".to_owned(), "-1,793".to_owned(), "-2.5".to_owned())
        );
        assert_eq!(of(f64::NAN), "–");
    }

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        let spread = Spread::of(&[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of(&[]), None);
    }
}
