//! The lines of a container's log.

use jiff::Timestamp;

use super::LogLine;

/// A line that never ends is cut into pieces of this many bytes.
const LONGEST_LINE: usize = 64 * 1024;

/// Cuts a container's output into lines, as it comes in pieces: a piece may hold several lines or a part of one. Each line begins
/// with the time at which the engine read it.
#[derive(Debug, Default)]
pub struct LogLines {
    /// What has come of a line whose end has not.
    out: Vec<u8>,
    err: Vec<u8>,
}

impl LogLines {
    /// Takes in a piece, and gives the lines that it ends.
    pub fn take(&mut self, is_stderr: bool, piece: &[u8]) -> Vec<LogLine> {
        let half = if is_stderr { &mut self.err } else { &mut self.out };
        half.extend_from_slice(without_repeated_time(half, piece));
        let mut lines = Vec::new();
        while let Some(cut) = cut_first_line(half) {
            lines.push(line(&cut, is_stderr));
        }
        lines
    }

    /// Gives the lines that have no end, once nothing more comes.
    pub fn rest(&mut self) -> Vec<LogLine> {
        [(std::mem::take(&mut self.out), false), (std::mem::take(&mut self.err), true)]
            .into_iter()
            .filter(|(bytes, _)| !bytes.is_empty())
            .map(|(bytes, stderr)| line(&bytes, stderr))
            .collect()
    }
}

/// Takes the first line, or as much of it as is told at once, off what has come.
fn cut_first_line(half: &mut Vec<u8>) -> Option<Vec<u8>> {
    if let Some(end) = half.iter().position(|byte| *byte == b'\n') {
        let rest = half.split_off(end + 1);
        return Some(std::mem::replace(half, rest));
    }
    if half.len() <= LONGEST_LINE {
        return None;
    }
    let rest = half.split_off(LONGEST_LINE);
    // The rest is of the same time.
    let rest = [time_of(half).unwrap_or_default(), &rest].concat();
    Some(std::mem::replace(half, rest))
}

/// The engine keeps a long line in pieces of 16 kB, and tells the line's time with each of them.
fn without_repeated_time<'a>(half: &[u8], piece: &'a [u8]) -> &'a [u8] {
    time_of(half).and_then(|time| piece.strip_prefix(time)).unwrap_or(piece)
}

/// The time at the front of a line, with the space behind it.
fn time_of(line: &[u8]) -> Option<&[u8]> {
    let (time, _) = line.split_at(line.iter().position(|byte| *byte == b' ')? + 1);
    std::str::from_utf8(time).ok()?.trim_end().parse::<Timestamp>().ok().map(|_| time)
}

fn line(bytes: &[u8], stderr: bool) -> LogLine {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let (front, rest) = bytes.split_at(bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len()));
    let time = std::str::from_utf8(front).ok().and_then(|front| front.trim_end().parse().ok());
    // An empty line has nothing behind its time.
    let own = if time.is_some() { rest.strip_prefix(b" ").unwrap_or(rest) } else { bytes };
    let text = String::from_utf8_lossy(own).trim_end_matches('\r').to_owned();
    let bytes = (text.as_bytes() != own).then(|| own.to_vec());
    LogLine { time, stderr, text, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_taken_off_the_line() {
        let of = |text: &str| {
            let line = line(text.as_bytes(), false);
            (line.time.is_some(), line.text)
        };
        assert_eq!(of("2024-05-06T07:08:09.1Z hello world\r\n"), (true, "hello world".to_owned()));
        assert_eq!(of("2024-05-06T07:08:09.1Z \n"), (true, String::new()));
        assert_eq!(of("no time here\n"), (false, "no time here".to_owned()));
    }
}
