//! Interpolates `$NAME` and `${NAME…}` with all operators of Compose.
//!
//! See the [Compose Specification](https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md).

use std::{collections::BTreeSet, ops::Range};

use super::{
    node::{Node, Style, Value},
    report::{Problem, Report},
    source::At,
};

/// The deepest nesting of defaults within defaults.
const MAX_DEPTH: usize = 32;
/// The largest size of one interpolated text, in bytes.
const LONGEST: usize = 1 << 20;

/// The largest total size of the interpolated texts of one file, in bytes.
pub(super) const MOST_BYTES: usize = 8 << 20;

/// Returns the value of a variable.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a text cannot be interpolated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The range of the text that is invalid, in bytes.
    pub range: Range<usize>,
    pub message: String,
    pub help: String,
}

/// Interpolates a text. Calls `unset` for each variable that has neither a value nor a default.
pub(super) fn fill(text: &str, lookup: Lookup<'_>, unset: &mut dyn FnMut(&str)) -> Result<String, Failure> {
    Interpolator { whole: text, lookup, unset, depth: 0 }.fill(0..text.len())
}

struct Interpolator<'a> {
    whole: &'a str,
    lookup: Lookup<'a>,
    unset: &'a mut dyn FnMut(&str),
    depth: usize,
}

/// The operator after the name, with or without a colon.
#[derive(Clone, Copy)]
enum Operator {
    Default,
    Required,
    Alternative,
}

impl Interpolator<'_> {
    fn fill(&mut self, range: Range<usize>) -> Result<String, Failure> {
        let mut out = String::new();
        let mut at = range.start;
        while let Some(found) = self.whole[at..range.end].find('$') {
            let dollar = at + found;
            out.push_str(&self.whole[at..dollar]);
            let rest = &self.whole[dollar + 1..range.end];
            if rest.starts_with('$') {
                out.push('$');
                at = dollar + 2;
            } else if rest.starts_with('{') {
                let end = self.closing(dollar, range.end)?;
                out.push_str(&self.braced(dollar, end)?);
                at = end + 1;
            } else {
                let name = name_of(rest);
                if name.is_empty() {
                    return Err(invalid(dollar..dollar + 1, "a `$` that starts no variable"));
                }
                out.push_str(&self.value(name));
                at = dollar + 1 + name.len();
            }
            if out.len() > LONGEST {
                return Err(Failure {
                    range: dollar..at,
                    message: "variables make this text longer than 1 MiB".into(),
                    help: "look for variables that contain each other".into(),
                });
            }
        }
        out.push_str(&self.whole[at..range.end]);
        Ok(out)
    }

    /// The position of the brace that closes the expression at `dollar`.
    fn closing(&self, dollar: usize, end: usize) -> Result<usize, Failure> {
        let bytes = self.whole.as_bytes();
        let (mut depth, mut at) = (0_usize, dollar + 1);
        while at < end {
            match bytes[at] {
                b'$' if bytes.get(at + 1) == Some(&b'{') && at > dollar => {
                    depth += 1;
                    at += 1;
                }
                b'{' if at == dollar + 1 => depth += 1,
                b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(at);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Err(invalid(dollar..end, "a `${` without its `}`"))
    }

    /// The value of the expression from `dollar` to its closing brace at `end`.
    fn braced(&mut self, dollar: usize, end: usize) -> Result<String, Failure> {
        let start = dollar + 2;
        let name = name_of(&self.whole[start..end]);
        let after = &self.whole[start + name.len()..end];
        if name.is_empty() {
            return Err(invalid(dollar..end + 1, "a variable without a name"));
        }
        if after.is_empty() {
            return Ok(self.value(name));
        }
        let (colon, operator) = match after.strip_prefix(':') {
            Some(operator) => (1, operator),
            None => (0, after),
        };
        let operator = match operator.chars().next() {
            Some('-') => Operator::Default,
            Some('?') => Operator::Required,
            Some('+') => Operator::Alternative,
            _ => return Err(invalid(dollar..end + 1, "an operator that Compose does not have")),
        };
        let word = start + name.len() + colon + 1..end;
        // With a colon, an empty value counts as unset.
        let value = (self.lookup)(name).filter(|value| colon == 0 || !value.is_empty());
        match (operator, value) {
            (Operator::Default | Operator::Required, Some(value)) => Ok(value),
            (Operator::Default, None) | (Operator::Alternative, Some(_)) => self.nested(word),
            (Operator::Alternative, None) => Ok(String::new()),
            (Operator::Required, None) => {
                let why = self.nested(word)?;
                let why = if why.is_empty() { String::new() } else { format!(": {why}") };
                Err(Failure {
                    range: dollar..end + 1,
                    message: format!("variable `{name}` is required{why}"),
                    help: format!("set `{name}` in the environment or in `.env`"),
                })
            }
        }
    }

    fn nested(&mut self, range: Range<usize>) -> Result<String, Failure> {
        if self.depth >= MAX_DEPTH {
            return Err(invalid(range, "defaults nested too deep"));
        }
        self.depth += 1;
        let filled = self.fill(range);
        self.depth -= 1;
        filled
    }

    fn value(&mut self, name: &str) -> String {
        (self.lookup)(name).unwrap_or_else(|| {
            (self.unset)(name);
            String::new()
        })
    }
}

fn name_of(text: &str) -> &str {
    let end = text
        .char_indices()
        .find(|&(at, c)| !(c.is_ascii_alphabetic() || c == '_' || (at > 0 && c.is_ascii_digit())))
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

fn invalid(range: Range<usize>, what: &str) -> Failure {
    Failure {
        range,
        message: format!("{what} cannot be filled in"),
        help: "write `$$` for a plain dollar, or `${NAME}`, `${NAME:-default}`, `${NAME:?message}`".into(),
    }
}

/// Interpolates every value of a tree. Keys are unchanged.
pub(super) fn fill_tree(node: &mut Node, lookup: Lookup<'_>, report: &Report) {
    Walk { lookup, report, warned: BTreeSet::new(), bytes: 0 }.walk(node);
}

/// The error for interpolated texts that exceed the total size.
pub(super) fn too_much(at: At) -> Problem {
    Problem::error(at, "variables make the file longer than 8 MiB")
        .help("look for a variable with a very long value")
}

struct Walk<'a> {
    lookup: Lookup<'a>,
    report: &'a Report,
    /// Variables that were warned of already.
    warned: BTreeSet<String>,
    /// Total size of all interpolated texts so far, in bytes.
    bytes: usize,
}

impl Walk<'_> {
    fn walk(&mut self, node: &mut Node) {
        if self.bytes > MOST_BYTES {
            return;
        }
        let at = node.at;
        match &mut node.value {
            Value::List(list) => list.iter_mut().for_each(|item| self.walk(item)),
            Value::Map(map) => map.values_mut().for_each(|entry| self.walk(&mut entry.node)),
            Value::Scalar(scalar) if scalar.text.contains('$') => {
                if let Some(filled) = self.text(&scalar.text, at) {
                    scalar.text = filled;
                    if scalar.style == Style::Plain {
                        scalar.style = Style::Substituted;
                    }
                }
            }
            Value::Scalar(_) => {}
        }
    }

    fn text(&mut self, text: &str, at: At) -> Option<String> {
        let Self { lookup, report, warned, bytes } = self;
        let mut unset = |name: &str| {
            if warned.insert(name.to_owned()) {
                // Only the first messages are shown, and finding thousands of places would be slow.
                let at = if warned.len() < 100 { within(at, text, name, report) } else { at };
                let message = format!("variable `{name}` is not set: an empty text stands in for it");
                let help = format!("set it in the environment or in `.env`, or write `${{{name}:-default}}`");
                report.push(Problem::warning(at, message).help(help));
            }
        };
        match fill(text, *lookup, &mut unset) {
            Ok(filled) => {
                *bytes += filled.len();
                if *bytes > MOST_BYTES {
                    report.push(too_much(at));
                }
                Some(filled)
            }
            Err(failure) => {
                let at = within(at, text, &text[failure.range], report);
                report.push(Problem::error(at, failure.message).help(failure.help));
                None
            }
        }
    }
}

/// The place of a part of a scalar. Quotes and escapes make the source differ from the value, so the part is searched
/// for. If it is not found, the place of the whole scalar.
fn within(at: At, text: &str, part: &str, report: &Report) -> At {
    let source = report.sources.of(at);
    let written = source.text.get(at.range()).unwrap_or(text);
    match written.find(part) {
        Some(start) if !part.is_empty() => at.part(start..start + part.len()),
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<(String, Vec<String>), String> {
        let lookup = |name: &str| match name {
            "SET" => Some("value".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut unset = Vec::new();
        fill(text, &lookup, &mut |name| unset.push(name.to_owned()))
            .map(|text| (text, unset))
            .map_err(|failure| format!("{}: {}", &text[failure.range], failure.message))
    }

    #[test]
    fn every_operator_follows_the_specification() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$SET", "value"),
            ("${SET}", "value"),
            ("a$SET-b", "avalue-b"),
            ("$$SET", "$SET"),
            ("$$$SET", "$value"),
            ("${SET:-d}", "value"),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY-d}", ""),
            ("${NONE:-d}", "d"),
            ("${NONE-d}", "d"),
            ("${NONE:-}", ""),
            ("${SET:?e}", "value"),
            ("${EMPTY?e}", ""),
            ("${SET:+x}", "x"),
            ("${EMPTY:+x}", ""),
            ("${EMPTY+x}", "x"),
            ("${NONE+x}", ""),
            ("${NONE:-${SET}}", "value"),
            ("${NONE:-${EMPTY:-a}b}c", "abc"),
            ("${NONE:-$SET}", "value"),
            ("${NONE:-a:b}", "a:b"),
            ("${NONE:-{{.Slot}}", "{{.Slot}"),
            ("{{.Slot}}", "{{.Slot}}"),
        ] {
            assert_eq!(filled(text), Ok((expected.to_owned(), vec![])), "{text}");
        }
    }

    #[test]
    fn an_unset_variable_is_reported() {
        assert_eq!(filled("a${NONE}b$OTHER"), Ok(("ab".into(), vec!["NONE".into(), "OTHER".into()])));
    }

    #[test]
    fn errors_have_their_place() {
        for (text, expected) in [
            ("a ${NONE:?no luck} b", "${NONE:?no luck}: variable `NONE` is required: no luck"),
            ("${EMPTY:?}", "${EMPTY:?}: variable `EMPTY` is required"),
            ("${NONE?}", "${NONE?}: variable `NONE` is required"),
            ("${NONE:?set ${SET}}", "${NONE:?set ${SET}}: variable `NONE` is required: set value"),
            ("a ${SET", "${SET: a `${` without its `}` cannot be filled in"),
            ("${}", "${}: a variable without a name cannot be filled in"),
            ("${1}", "${1}: a variable without a name cannot be filled in"),
            ("cost: 5$", "$: a `$` that starts no variable cannot be filled in"),
            ("${SET/a/b}", "${SET/a/b}: an operator that Compose does not have cannot be filled in"),
        ] {
            assert_eq!(filled(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn deep_defaults_are_refused() {
        let text = format!("{}{}", "${A:-".repeat(1000), "}".repeat(1000));
        assert!(filled(&text).unwrap_err().contains("nested too deep"));
    }
}
