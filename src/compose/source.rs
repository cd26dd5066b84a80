//! The texts that were read, and places in them.

use std::{cell::RefCell, ops::Range, path::PathBuf, rc::Rc};

/// A file (or standard input) that was read whole.
#[derive(Debug)]
pub(super) struct Source {
    /// How messages name it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Byte offset of the first character of each line.
    lines: Vec<usize>,
}

impl Source {
    fn new(path: PathBuf, text: String) -> Self {
        let lines =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect::<Vec<_>>();
        Self { path, text, lines }
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.lines.partition_point(|&start| start <= offset);
        let start = self.lines[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }

    /// The bytes of a line, from 1, without its line break.
    pub fn line(&self, line: usize) -> Range<usize> {
        let start = self.lines[line - 1];
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        start..start + self.text[start..end].trim_end_matches(['\n', '\r']).len()
    }

    /// The nearest character boundary at or before `offset`.
    pub fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// A stretch of one source, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    source: u32,
    start: u32,
    end: u32,
}

impl At {
    /// The stretch as a range.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// A part of this stretch; what sticks out is cut off.
    pub fn part(self, range: Range<usize>) -> Self {
        let offset =
            |by: usize| self.start.saturating_add(u32::try_from(by).unwrap_or(u32::MAX)).min(self.end);
        Self { source: self.source, start: offset(range.start), end: offset(range.end) }
    }

    /// From the start of this to the end of `last`, which is in the same source.
    pub fn to(self, last: Self) -> Self {
        Self { end: last.end.max(self.start), ..self }
    }
}

/// All sources of one load. Grows while files are found.
#[derive(Debug, Default)]
pub(super) struct Sources(RefCell<Vec<Rc<Source>>>);

impl Sources {
    /// Keeps a text, and gives the stretch that is all of it. Texts are far below 4 GiB: their readers
    /// limit them.
    pub fn add(&self, path: PathBuf, text: String) -> (Rc<Source>, At) {
        let mut all = self.0.borrow_mut();
        let at = At {
            source: u32::try_from(all.len()).unwrap_or(u32::MAX),
            start: 0,
            end: u32::try_from(text.len()).unwrap_or(u32::MAX),
        };
        let source = Rc::new(Source::new(path, text));
        all.push(Rc::clone(&source));
        (source, at)
    }

    /// The source that a stretch is in.
    pub fn of(&self, at: At) -> Rc<Source> {
        Rc::clone(&self.0.borrow()[at.source as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = Source::new("f".into(), "añb\r\nc\n".to_owned());
        for (offset, expected) in
            [(0, (1, 1)), (1, (1, 2)), (2, (1, 2)), (3, (1, 3)), (6, (2, 1)), (8, (3, 1)), (99, (3, 1))]
        {
            assert_eq!(source.position(offset), expected, "{offset}");
        }
        assert_eq!(source.line(1), 0..4);
        assert_eq!(source.line(3), 8..8);
    }
}
