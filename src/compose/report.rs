//! Collects what is found while a project is loaded, so that one run tells all of it.

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

/// Messages after this many are counted, not kept.
const MOST: usize = 50;
/// Longest part of a line that a message shows, in bytes.
const WIDEST: usize = 400;

/// Longest sentence of a message, in bytes.
const LONGEST: usize = 500;
/// Most ports that the ranges of all files may be spelled out to.
const MOST_PORTS: usize = 1 << 14;
/// Most bytes of all files together; one that is read for several services counts each time.
const MOST_BYTES: usize = 4 << 20;

/// The messages of one load and the sources that they are about.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub sources: Sources,
    files: RefCell<Files>,
    variables: RefCell<Named>,
    spelled: Cell<usize>,
    read: Cell<usize>,
    found: RefCell<Found>,
}

/// Which variables the files of a project name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Those whose value, be it an empty one, is that of the process.
    pub given: BTreeSet<String>,
    /// Those that have none, also where the file has a default for them.
    pub unset: BTreeSet<String>,
}

/// The variables that were looked for, and whether there was a value.
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

/// A message in the making; nothing is reported before [`Report::push`].
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

    /// What to do about it.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// What the marked place is.
    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..self }
    }

    /// Another place that explains it.
    pub fn related(self, at: At, label: impl Into<String>) -> Self {
        Self { related: Some((at, label.into())), ..self }
    }
}

impl Report {
    /// Keeps a message.
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

    /// Keeps a message that is about no place.
    pub fn push_general(&self, diagnostic: Diagnostic) {
        let mut found = self.found.borrow_mut();
        match diagnostic.severity {
            Severity::Error => found.errors.push(diagnostic),
            Severity::Warning => found.warnings.push(diagnostic),
        }
    }

    /// Whether a range of so many ports may be spelled out; reports it when there were too many already.
    pub fn may_spell(&self, ports: usize, at: At) -> bool {
        let all = self.spelled.get().saturating_add(ports);
        self.spelled.set(all);
        if all > MOST_PORTS {
            let problem = Problem::error(at, format!("the file names more than {MOST_PORTS} ports"));
            self.push(problem.help("write smaller ranges"));
        }
        all <= MOST_PORTS
    }

    /// Whether a text of so many bytes may be read on top of all others.
    pub fn may_read(&self, bytes: usize) -> bool {
        self.read.set(self.read.get().saturating_add(bytes));
        self.read.get() <= MOST_BYTES
    }

    /// The name that was probably meant. It is not looked for once there are more mistakes than are shown:
    /// comparing all with all takes its time.
    pub fn nearest<'a>(&self, text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        if self.found.borrow().errors.len() < MOST { nearest(text, names) } else { None }
    }

    /// Notes what was read from a file, or that there is none; whoever looks at a path says so here.
    pub fn note(&self, path: &Path, content: Option<&[u8]>) {
        self.files.borrow_mut().note(path, content);
    }

    /// Whether there is a file.
    pub fn is_file(&self, path: &Path) -> bool {
        let found = path.is_file();
        if !found {
            self.note(path, None);
        }
        found
    }

    /// Notes that a file names a variable, and gives its value as it came.
    pub fn variable<T>(&self, name: &str, value: Option<T>) -> Option<T> {
        let mut variables = self.variables.borrow_mut();
        let names = if value.is_some() { &mut variables.set } else { &mut variables.unset };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }

    /// All variables that files named so far, where the process has these.
    pub fn variables(&self, process: &BTreeMap<String, String>) -> Variables {
        let named = self.variables.borrow();
        let given = named.set.iter().filter(|name| process.contains_key(*name)).cloned().collect();
        Variables { given, unset: named.unset.clone() }
    }

    /// All files that were looked at so far.
    pub fn files(&self) -> Files {
        self.files.borrow().clone()
    }

    /// Whether an error was reported.
    pub fn failed(&self) -> bool {
        !self.found.borrow().errors.is_empty()
    }

    /// The warnings, or all messages when there is an error among them.
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

    /// A place in a file, for whoever has something to say of it later.
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

    /// A place with the line it is on. A stretch of several lines is cut after its first.
    fn place(&self, at: At, message: String) -> Related {
        let source = self.sources.of(at);
        let range = at.range();
        let (line, column) = source.position(range.start);
        let mut shown = source.line(line);
        let mark = range.start.clamp(shown.start, shown.end)..range.end.clamp(shown.start, shown.end);
        if shown.len() > WIDEST {
            let start = source.floor(mark.start.saturating_sub(WIDEST / 4).max(shown.start));
            shown = start..source.floor((start + WIDEST).min(shown.end));
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

/// A text that quotes something very long from a file, without its end.
fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Sorts by file and line; what is about no place comes first.
fn in_order(list: &mut [Diagnostic]) {
    list.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
}
