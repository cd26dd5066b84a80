//! Messages about a file: the place, what is wrong, and what to write instead.

use std::{fmt, ops::Range, path::PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// The severity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file is used, but something in it has no effect, or an unexpected one.
    Warning,
}

/// One message about a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the file can still be used.
    pub severity: Severity,
    /// What is wrong, as one sentence without a full stop.
    pub message: String,
    /// The file; `None` for a message about no particular file.
    pub file: Option<PathBuf>,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// The column in that line, in characters from 1.
    pub column: Option<usize>,
    /// The range in the file, in bytes.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
    /// The text beside the mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Related places, such as the first of two duplicates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
    /// The lines that [`Diagnostic::render`] shows.
    #[serde(skip)]
    pub(super) excerpt: Option<Excerpt>,
}

/// A place that is related to a [`Diagnostic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// What the place contains.
    pub message: String,
    /// The file of the place.
    pub file: PathBuf,
    /// The line in the file, from 1.
    pub line: usize,
    /// The column in that line, in characters from 1.
    pub column: usize,
    #[serde(skip)]
    pub(super) excerpt: Excerpt,
}

/// One line of a file, or a part of a very long one, with a marked range in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub text: String,
    pub mark: Range<usize>,
}

impl Diagnostic {
    /// A message without a place in a file.
    #[must_use]
    pub fn general(severity: Severity, message: impl Into<String>, help: Option<String>) -> Self {
        Self {
            severity,
            message: message.into(),
            file: None,
            line: None,
            column: None,
            span: None,
            help,
            label: None,
            related: Vec::new(),
            excerpt: None,
        }
    }

    /// The message with its place, the marked line and the help, as several lines without a trailing line break.
    /// `color` adds ANSI styles.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str());
        if self.excerpt.is_none() {
            let help = self.help.as_deref().map(|help| Level::HELP.secondary_title(help));
            let lines = [Some(title), help].into_iter().flatten();
            let lines =
                lines.map(|line| renderer(color).render(&[annotate_snippets::Group::with_title(line)]));
            return lines.collect::<Vec<_>>().join("\n");
        }
        let mut group = annotate_snippets::Group::with_title(title);
        if let (Some(excerpt), Some(file), Some(line)) = (&self.excerpt, &self.file, self.line) {
            let label = self.label.as_deref();
            group = group.element(snippet(
                excerpt,
                &file.to_string_lossy(),
                line,
                label,
                AnnotationKind::Primary,
            ));
        }
        for other in &self.related {
            let (file, label) = (other.file.to_string_lossy(), Some(other.message.as_str()));
            group = group.element(snippet(&other.excerpt, &file, other.line, label, AnnotationKind::Context));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer(color).render(&[group])
    }
}

fn renderer(color: bool) -> Renderer {
    if color { Renderer::styled() } else { Renderer::plain() }
}

fn snippet<'a>(
    excerpt: &'a Excerpt,
    file: &str,
    line: usize,
    label: Option<&'a str>,
    kind: AnnotationKind,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    Snippet::source(excerpt.text.as_str())
        .line_start(line)
        .path(file.to_owned())
        .annotation(kind.span(excerpt.mark.clone()).label(label))
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Why a project cannot be loaded: at least one [`Diagnostic`] that is an error, and any warnings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct LoadError {
    diagnostics: Vec<Diagnostic>,
    #[serde(skip)]
    is_missing: bool,
}

impl LoadError {
    /// The exit code of a command that fails with this error.
    pub const EXIT_CODE: u8 = 2;

    pub(super) fn new(diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics, is_missing: false }
    }

    /// An error without a place in a file.
    pub(super) fn general(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(vec![Diagnostic::general(Severity::Error, message, Some(help.into()))])
    }

    /// The error for a Compose file that does not exist.
    pub(super) fn missing(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { is_missing: true, ..Self::general(message, help) }
    }

    /// Whether no Compose file exists and none was named.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.is_missing
    }

    /// Appends to the help of the last diagnostic.
    #[must_use]
    pub fn with_help(mut self, more: &str) -> Self {
        if let Some(last) = self.diagnostics.last_mut() {
            last.help =
                Some(last.help.take().map_or_else(|| more.to_owned(), |help| format!("{help}; {more}")));
        }
        self
    }

    /// All diagnostics: warnings, then errors, each in the order of the file.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// All messages, separated by empty lines. `color` adds ANSI styles.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let all: Vec<_> = self.diagnostics.iter().map(|d| d.render(color)).collect();
        all.join("\n\n")
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for LoadError {}
