//! Displays the demo while it runs: bars on a terminal, or else one line per second.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    report::grouped,
    spread::{Counts, Rates},
};

/// The kind of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A terminal, on which lines can be redrawn.
    Terminal,
    /// A file or a pipe, which keeps every line.
    Lines,
}

/// The state of the load at one moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The time since the start of the load.
    pub at: Duration,
    /// Responses by replica.
    pub counts: Counts,
    /// Requests that have ended.
    pub requests: u64,
    /// Requests that failed.
    pub failures: u64,
    /// The slot of a replica that was killed and not replaced yet.
    pub dead: Option<u32>,
}

/// The display of the demo.
pub struct Screen<W> {
    out: W,
    replicas: u32,
    rates: Rates,
    drawing: Drawing,
}

enum Drawing {
    Bars { all: MultiProgress, rows: Vec<ProgressBar>, total: ProgressBar },
    Lines { next: Duration },
}

/// The length of a full bar, which means twice the average rate of a replica.
const BAR_LENGTH: u64 = 1000;
/// Interval between lines in a file or a pipe.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

impl<W: Write> Screen<W> {
    /// A display that writes to `out`. With `Medium::Terminal`, it also draws on the terminal at standard output.
    pub fn new(out: W, medium: Medium, replicas: u32) -> Self {
        let target = ProgressDrawTarget::stdout();
        let drawing = match medium {
            // Some terminals cannot redraw, such as those with `TERM=dumb`.
            Medium::Terminal if !target.is_hidden() => bars(replicas, target),
            Medium::Terminal | Medium::Lines => Drawing::Lines { next: BETWEEN_LINES },
        };
        Self { out, replicas, rates: Rates::default(), drawing }
    }

    /// Writes a line that stays.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        let out = &mut self.out;
        let mut write = || {
            writeln!(out, "{line}")?;
            out.flush()
        };
        match &self.drawing {
            Drawing::Bars { all, .. } => all.suspend(write),
            Drawing::Lines { .. } => write(),
        }
    }

    /// Displays a moment.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn show(&mut self, moment: &Moment) -> io::Result<()> {
        match &mut self.drawing {
            Drawing::Bars { rows, total, .. } => {
                let rates = self.rates.update(moment.at, &moment.counts);
                draw(rows, &rates, moment);
                total.set_message(sum(moment));
                Ok(())
            }
            Drawing::Lines { next } if moment.at >= *next => {
                while *next <= moment.at {
                    *next += BETWEEN_LINES;
                }
                let line = line(self.replicas, moment);
                self.say(&line)
            }
            Drawing::Lines { .. } => Ok(()),
        }
    }

    /// Removes the bars.
    pub fn finish(&mut self) {
        if let Drawing::Bars { all, rows, total } = &self.drawing {
            rows.iter().chain([total]).for_each(ProgressBar::finish_and_clear);
            // If the terminal is gone, there is nothing to remove.
            let _ = all.clear();
        }
        self.drawing = Drawing::Lines { next: Duration::MAX };
    }
}

fn bars(replicas: u32, target: ProgressDrawTarget) -> Drawing {
    let all = MultiProgress::with_draw_target(target);
    let row = style("  {prefix:<6} {wide_bar:.green} {msg}");
    let rows = (1..=replicas)
        .map(|replica| {
            let bar = all.add(ProgressBar::new(BAR_LENGTH).with_style(row.clone()));
            bar.set_prefix(format!("web-{replica}"));
            bar
        })
        .collect();
    let total = all.add(ProgressBar::new(1).with_style(style("  {msg}")));
    Drawing::Bars { all, rows, total }
}

fn style(template: &str) -> ProgressStyle {
    // Cannot fail: a test parses each template.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("█▉▊▋▌▍▎▏ ")
}

fn draw(rows: &[ProgressBar], rates: &BTreeMap<u32, f64>, moment: &Moment) {
    let fair: f64 = rates.values().sum::<f64>() / rows.len().max(1) as f64;
    for (replica, bar) in (1..).zip(rows) {
        let rate = rates.get(&replica).copied().unwrap_or(0.0);
        let part = if fair > 0.0 { rate / (2.0 * fair) } else { 0.0 };
        bar.set_position((part.min(1.0) * BAR_LENGTH as f64) as u64);
        let count = grouped(moment.counts.get(&replica).copied().unwrap_or(0));
        let note = if moment.dead == Some(replica) { "killed" } else { "      " };
        bar.set_message(format!("{rate:>4.0}/s {count:>7} {note}"));
    }
}

fn sum(moment: &Moment) -> String {
    let (at, requests) = (moment.at.as_secs_f64(), grouped(moment.requests));
    format!("{at:.1} s, {requests} requests, {} failed", grouped(moment.failures))
}

fn line(replicas: u32, moment: &Moment) -> String {
    let mut line = format!("  {:<36}", sum(moment));
    for replica in 1..=replicas {
        let count = grouped(moment.counts.get(&replica).copied().unwrap_or(0));
        line.push_str(&format!("  web-{replica} {count:>5}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(at: u64) -> Moment {
        let counts = Counts::from([(1, at / 4), (2, at / 4 + 3)]);
        Moment { at: Duration::from_millis(at), counts, requests: at / 2 + 3, failures: 0, dead: None }
    }

    #[test]
    fn one_line_is_printed_per_second_besides_messages() {
        let mut text = Vec::new();
        let mut screen = Screen::new(&mut text, Medium::Lines, 3);
        for at in (0..=3500).step_by(250) {
            screen.show(&moment(at)).unwrap();
            if at == 1500 {
                screen.say("killed web-2").unwrap();
            }
        }
        screen.finish();
        screen.show(&moment(9000)).unwrap();
        insta::assert_snapshot!(String::from_utf8(text).unwrap());
    }

    #[test]
    fn a_write_error_is_returned() {
        let mut full = io::Cursor::new([0_u8; 4]);
        let mut screen = Screen::new(&mut full.get_mut()[..], Medium::Lines, 1);
        assert!(screen.say("more than four bytes").is_err());
    }

    #[test]
    fn every_template_can_be_read() {
        for template in ["  {prefix:<6} {wide_bar:.green} {msg}", "  {msg}"] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
