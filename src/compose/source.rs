//! The sources that were read, and places in them.

use std::{cell::RefCell, ops::Range, path::PathBuf, rc::Rc};

/// A file, or standard input, that was read completely.
#[derive(Debug)]
pub(super) struct Source {
    /// The name of the file in messages.
    pub path: PathBuf,
    pub text: String,
    /// The offset of each line in bytes.
    lines: Vec<usize>,
}

impl Source {
    fn new(path: PathBuf, text: String) -> Self {
        let lines =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect::<Vec<_>>();
        Self { path, text, lines }
    }

    /// The line and the column of an offset in bytes, both from 1. The column counts characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.lines.partition_point(|&start| start <= offset);
        let start = self.lines[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }

    /// The range of a line in bytes, without its line break. Lines count from 1.
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

/// A range of one source, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    source: u32,
    start: u32,
    end: u32,
}

impl At {
    /// The range without its source.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// A part of this range. The result is clamped to this range.
    pub fn part(self, range: Range<usize>) -> Self {
        let offset =
            |by: usize| self.start.saturating_add(u32::try_from(by).unwrap_or(u32::MAX)).min(self.end);
        Self { source: self.source, start: offset(range.start), end: offset(range.end) }
    }

    /// The range from the start of this one to the end of `last`, which must be in the same source.
    pub fn to(self, last: Self) -> Self {
        Self { end: last.end.max(self.start), ..self }
    }
}

/// All sources of one load. More are added while files are found.
#[derive(Debug, Default)]
pub(super) struct Sources(RefCell<Vec<Rc<Source>>>);

impl Sources {
    /// Adds a source. Returns it with its whole range. Readers limit sources to far less than 4 GiB, so that offsets
    /// fit.
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

    /// The source of a range.
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
