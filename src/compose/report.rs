//! Collects all messages while a project is loaded, so that one run reports everything.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    diagnostic::{Diagnostic, Excerpt, LoadError, Related, Severity},
    fields::nearest,
    source::{At, Sources},
};
use crate::files::Files;

/// The largest number of errors, and of warnings, that are kept; more are counted.
const MOST: usize = 50;
/// The longest part of a line that a message shows, in bytes.
const MAX_EXCERPT: usize = 400;

/// The longest sentence of a message, in bytes.
const LONGEST: usize = 500;
/// The largest number of ports that all ranges of a project expand to.
const MOST_PORTS: usize = 1 << 14;
/// The largest total size of all files, in bytes. A file that several services read counts each time.
const MOST_BYTES: usize = 4 << 20;

/// The messages of one load, and the sources that they refer to.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub sources: Sources,
    files: RefCell<Files>,
    variables: RefCell<Named>,
    spelled: Cell<usize>,
    read: Cell<usize>,
    found: RefCell<Found>,
}

/// The variables that the files of a project use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Variables whose value comes from the environment of the process, even if it is empty.
    pub given: BTreeSet<String>,
    /// Variables without a value, even if the file has a default for them.
    pub unset: BTreeSet<String>,
}

/// The variables that were looked up, with and without a value.
#[derive(Debug, Default)]
struct Named {
    set: BTreeSet<String>,
    unset: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Found {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    errors_left_out: usize,
    warnings_left_out: usize,
}

/// A message under construction. [`Report::push`] reports it.
#[derive(Debug)]
pub(super) struct Problem {
    severity: Severity,
    at: At,
    message: String,
    label: Option<String>,
    help: Option<String>,
    related: Option<(At, String)>,
}

impl Problem {
    pub fn error(at: At, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity: Severity::Error, at, message, label: None, help: None, related: None }
    }

    pub fn warning(at: At, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, message) }
    }

    /// Sets the text that says what to do about it.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Sets the text beside the mark.
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// Adds a related place.
    pub fn related(self, at: At, label: impl Into<String>) -> Self {
        Self { related: Some((at, label.into())), ..self }
    }
}

impl Report {
    /// Reports a message.
    pub fn push(&self, problem: Problem) {
        let mut found = self.found.borrow_mut();
        let Found { errors, warnings, errors_left_out, warnings_left_out } = &mut *found;
        let (list, left_out) = match problem.severity {
            Severity::Error => (errors, errors_left_out),
            Severity::Warning => (warnings, warnings_left_out),
        };
        if list.len() < MOST {
            let diagnostic = self.diagnostic(problem);
            if !list.contains(&diagnostic) {
                list.push(diagnostic);
            }
        } else {
            *left_out += 1;
        }
    }

    /// Reports a message without a place.
    pub fn push_general(&self, diagnostic: Diagnostic) {
        let mut found = self.found.borrow_mut();
        match diagnostic.severity {
            Severity::Error => found.errors.push(diagnostic),
            Severity::Warning => found.warnings.push(diagnostic),
        }
    }

    /// Whether a range of this many ports may be expanded. Reports an error if there are too many in total.
    pub fn may_spell(&self, ports: usize, at: At) -> bool {
        let all = self.spelled.get().saturating_add(ports);
        self.spelled.set(all);
        if all > MOST_PORTS {
            let problem = Problem::error(at, format!("the file names more than {MOST_PORTS} ports"));
            self.push(problem.help("write smaller ranges"));
        }
        all <= MOST_PORTS
    }

    /// Whether this many bytes more may be read.
    pub fn may_read(&self, bytes: usize) -> bool {
        self.read.set(self.read.get().saturating_add(bytes));
        self.read.get() <= MOST_BYTES
    }

    /// The most similar name. Not searched once there are more errors than are shown: comparing all names is slow.
    pub fn nearest<'a>(&self, text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        if self.found.borrow().errors.len() < MOST { nearest(text, names) } else { None }
    }

    /// Notes the content of a file that was read, or that it does not exist. Must be called for every path that is
    /// looked at.
    pub fn note(&self, path: &Path, content: Option<&[u8]>) {
        self.files.borrow_mut().note(path, content);
    }

    /// Whether a regular file exists. Notes a missing one.
    pub fn is_file(&self, path: &Path) -> bool {
        let found = path.is_file();
        if !found {
            self.note(path, None);
        }
        found
    }

    /// Notes that a file uses a variable. Returns its value unchanged.
    pub fn variable<T>(&self, name: &str, value: Option<T>) -> Option<T> {
        let mut variables = self.variables.borrow_mut();
        let names = if value.is_some() { &mut variables.set } else { &mut variables.unset };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }

    /// All variables that were used so far; `process` determines which come from the environment.
    pub fn variables(&self, process: &BTreeMap<String, String>) -> Variables {
        let named = self.variables.borrow();
        let given = named.set.iter().filter(|name| process.contains_key(*name)).cloned().collect();
        Variables { given, unset: named.unset.clone() }
    }

    /// All files that were looked for so far.
    pub fn files(&self) -> Files {
        self.files.borrow().clone()
    }

    /// Whether an error was reported.
    pub fn failed(&self) -> bool {
        !self.found.borrow().errors.is_empty()
    }

    /// The warnings, or all messages if there are errors.
    pub fn finish(&self) -> Result<Vec<Diagnostic>, LoadError> {
        let found = self.found.take();
        let more = |severity, count, what| {
            (count > 0).then(|| Diagnostic::general(severity, format!("{count} more {what} not shown"), None))
        };
        let mut warnings = found.warnings;
        in_order(&mut warnings);
        warnings.extend(more(Severity::Warning, found.warnings_left_out, "warnings"));
        if found.errors.is_empty() {
            return Ok(warnings);
        }
        let mut errors = found.errors;
        in_order(&mut errors);
        errors.extend(more(Severity::Error, found.errors_left_out, "errors"));
        Err(LoadError::new(warnings.into_iter().chain(errors).collect()))
    }

    /// A place in a file, for a message that is added later.
    pub fn mark(&self, at: At) -> Diagnostic {
        self.diagnostic(Problem::warning(at, ""))
    }

    fn diagnostic(&self, problem: Problem) -> Diagnostic {
        let place = self.place(problem.at, cut(problem.message));
        let related = problem.related.map(|(at, message)| self.place(at, cut(message)));
        Diagnostic {
            severity: problem.severity,
            message: place.message,
            file: Some(place.file),
            line: Some(place.line),
            column: Some(place.column),
            span: Some(problem.at.range()),
            help: problem.help.map(cut),
            label: problem.label.map(cut),
            related: related.into_iter().collect(),
            excerpt: Some(place.excerpt),
        }
    }

    /// A place with its line. A range of several lines is cut after the first.
    fn place(&self, at: At, message: String) -> Related {
        let source = self.sources.of(at);
        let range = at.range();
        let (line, column) = source.position(range.start);
        let mut shown = source.line(line);
        let mark = range.start.clamp(shown.start, shown.end)..range.end.clamp(shown.start, shown.end);
        if shown.len() > MAX_EXCERPT {
            let start = source.floor(mark.start.saturating_sub(MAX_EXCERPT / 4).max(shown.start));
            shown = start..source.floor((start + MAX_EXCERPT).min(shown.end));
        }
        let (start, mut end) = (source.floor(mark.start), mark.end.clamp(mark.start, shown.end));
        while !source.text.is_char_boundary(end) {
            end += 1;
        }
        let mark = start - shown.start..end - shown.start;
        let excerpt = Excerpt { text: source.text[shown].to_owned(), mark };
        Related { message, file: source.path.clone(), line, column, excerpt }
    }
}

/// Cuts off a text that quotes too much of a file.
fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Sorts by file and line. Messages without a place come first.
fn in_order(list: &mut [Diagnostic]) {
    list.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
}
