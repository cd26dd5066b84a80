//! Reads `.env` and `env_file`: lines of `NAME=value` with quotes, comments and variables.
//!
//! See [Compose's
//! rules](https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax).

use std::{collections::BTreeMap, ops::Range};

use super::{
    interpolate::{self, Lookup},
    report::{Problem, Report},
    source::{At, Source},
};

/// The format of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// With quotes, comments and variables.
    Compose,
    /// Everything after `=`, unchanged.
    Raw,
}

/// Reads the variables of a file. A name without `=` gets its value from `lookup`, and is skipped if it has none.
pub(super) fn read(
    source: &Source,
    at: At,
    format: Format,
    lookup: Lookup<'_>,
    report: &Report,
) -> BTreeMap<String, String> {
    let mut reader =
        Reader { text: &source.text, whole: at, format, lookup, report, found: BTreeMap::new(), bytes: 0 };
    let mut offset = 0;
    while offset < source.text.len() && reader.bytes <= interpolate::MOST_BYTES {
        offset = reader.line(offset);
    }
    reader.found
}

struct Reader<'a> {
    text: &'a str,
    whole: At,
    format: Format,
    lookup: Lookup<'a>,
    report: &'a Report,
    found: BTreeMap<String, String>,
    /// Total size of all values so far, in bytes.
    bytes: usize,
}

impl Reader<'_> {
    /// Reads the line at `start`, and following lines of a quoted value. Returns the start of the next line.
    fn line(&mut self, start: usize) -> usize {
        let end = self.text[start..].find('\n').map_or(self.text.len(), |n| start + n);
        let next = end + 1;
        let line = self.text[start..end].trim_start_matches('\u{feff}');
        let start = end - line.len();
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            return next;
        }
        let mut name_start = start + (line.len() - line.trim_start().len());
        if self.format == Format::Compose
            && let Some(rest) = self.text[name_start..end].strip_prefix("export ")
        {
            name_start = end - rest.trim_start().len();
        }
        let rest = &self.text[name_start..end];
        let Some(equals) = rest.find(['=', ':']) else {
            let name = rest.trim();
            if self.name(name, name_start)
                && let Some(value) = (self.lookup)(name)
            {
                self.found.insert(name.to_owned(), value);
            }
            return next;
        };
        let name = rest[..equals].trim();
        if !self.name(name, name_start) {
            return next;
        }
        let value_start = name_start + equals + 1;
        if self.format == Format::Raw {
            self.found.insert(name.to_owned(), self.text[value_start..end].trim_end_matches('\r').to_owned());
            return next;
        }
        self.value(name.to_owned(), value_start, end)
    }

    fn name(&self, name: &str, start: usize) -> bool {
        let valid = !name.is_empty() && !name.contains(char::is_whitespace);
        if !valid {
            let at = self.whole.part(start..start + name.len().max(1));
            self.report.push(
                Problem::error(at, format!("`{name}` cannot be the name of a variable"))
                    .help("write `NAME=value`, one a line; start a comment with `#`"),
            );
        }
        valid
    }

    /// Reads the value at `start`, whose line ends at `end`. Returns the start of the next line.
    fn value(&mut self, name: String, start: usize, end: usize) -> usize {
        let line = &self.text[start..end];
        let first = start + (line.len() - line.trim_start().len());
        let quote = self.text[first..end].chars().next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else {
            let bare = without_comment(&self.text[start..end]).trim();
            self.keep(name, bare.to_owned(), start..end);
            return end + 1;
        };
        let Some(close) = closing(&self.text[first + 1..], quote).map(|n| first + 1 + n) else {
            let at = self.whole.part(first..end);
            self.report.push(
                Problem::error(at, format!("the value of `{name}` has no closing {quote}"))
                    .help("close the quote, or put the value in the other kind of quotes"),
            );
            return self.text.len();
        };
        let inner = &self.text[first + 1..close];
        if quote == '\'' {
            self.found.insert(name, inner.replace("\\'", "'"));
        } else {
            self.keep(name, unescape(inner), first + 1..close);
        }
        self.text[close..].find('\n').map_or(self.text.len(), |n| close + n + 1)
    }

    /// Stores a value after interpolation: variables come from `lookup`, or else from earlier lines.
    fn keep(&mut self, name: String, value: String, range: Range<usize>) {
        let lookup = |name: &str| (self.lookup)(name).or_else(|| self.found.get(name).cloned());
        let at = self.whole.part(range);
        let mut unset = |variable: &str| {
            self.report.push(
                Problem::warning(
                    at,
                    format!("variable `{variable}` is not set: an empty text stands in for it"),
                )
                .help("set it, or put the value in single quotes to keep the `$` as it is"),
            );
        };
        match interpolate::fill(&value, &lookup, &mut unset) {
            Ok(value) => {
                self.bytes += value.len();
                if self.bytes > interpolate::MOST_BYTES {
                    self.report.push(interpolate::too_much(at));
                }
                self.found.insert(name, value);
            }
            Err(failure) => {
                let help = format!("{}; or put the value in single quotes", failure.help);
                self.report.push(Problem::error(at, failure.message).help(help));
            }
        }
    }
}

/// Removes a comment, which starts with `#` after white space.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

/// The position of the first `quote` that is not escaped by a backslash.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return Some(at);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// Resolves escapes in double quotes. `\$` becomes `$$`, the escape of interpolation.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('$') => out.push_str("$$"),
            Some(c @ ('\\' | '"' | '\'')) => out.push(c),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{
        super::diagnostic::{Diagnostic, Severity},
        *,
    };

    fn parse(text: &str, format: Format) -> (Vec<(String, String)>, Option<String>) {
        let report = Report::default();
        let (source, at) = report.sources.add(".env".into(), text.to_owned());
        let lookup = |name: &str| (name == "OUTER").then(|| "outer".to_owned());
        let found = read(&source, at, format, &lookup, &report);
        let is_error = |d: &&Diagnostic| d.severity == Severity::Error;
        let error = report
            .finish()
            .err()
            .and_then(|e| e.diagnostics().iter().find(is_error).map(|d| d.message.clone()));
        (found.into_iter().collect(), error)
    }

    #[test]
    fn values_are_read_as_compose_does() {
        for (line, expected) in [
            ("A=b", "b"),
            ("A = b ", "b"),
            ("export A=b", "b"),
            ("A: b", "b"),
            ("A=b # comment", "b"),
            ("A=b#c", "b#c"),
            ("A=#c", ""),
            ("A=", ""),
            ("A=a b", "a b"),
            ("A='$OUTER #x'", "$OUTER #x"),
            ("A=\"$OUTER #x\" # c", "outer #x"),
            ("A=\"a\\nb\\t\\\"\\$X\"", "a\nb\t\"$X"),
            ("A='it\\'s'", "it's"),
            ("A=\"two\nlines\"", "two\nlines"),
            ("A=${OUTER}-${NONE:-d}", "outer-d"),
            ("A=$$5", "$5"),
            ("A=x=y", "x=y"),
            ("\u{feff}A=b\r", "b"),
        ] {
            assert_eq!(parse(line, Format::Compose), (vec![("A".into(), expected.into())], None), "{line:?}");
        }
    }

    #[test]
    fn a_value_may_use_the_lines_before() {
        let (found, error) = parse("# head\n\nA=1\nB=$A$OUTER\nOUTER\nNONE\n", Format::Compose);
        let expected = [("A", "1"), ("B", "1outer"), ("OUTER", "outer")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(error, None);
    }

    #[test]
    fn raw_values_stay_as_they_are() {
        assert_eq!(parse("A=\"$X\" # c\r\n", Format::Raw).0, [("A".into(), "\"$X\" # c".into())]);
    }

    #[test]
    fn mistakes_are_told() {
        for (text, expected) in [
            ("A='b", "the value of `A` has no closing '"),
            ("=b", "`` cannot be the name of a variable"),
            ("A B=c", "`A B` cannot be the name of a variable"),
            ("A=${B:?no}", "variable `B` is required: no"),
            ("A=5$", "a `$` that starts no variable cannot be filled in"),
        ] {
            assert_eq!(parse(text, Format::Compose).1.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn variables_that_double_each_time_are_stopped() {
        let mut text = "A0=xxxxxxxxxxxxxxxx\n".to_owned();
        (0..40).for_each(|n| text.push_str(&format!("A{}=$A{n}$A{n}\n", n + 1)));
        assert_eq!(
            parse(&text, Format::Compose).1.as_deref(),
            Some("variables make this text longer than 1 MiB")
        );
    }
}
