//! Typed access to the keys of a mapping. Values of the wrong type are reported at their place and read as absent.

use std::{collections::BTreeMap, time::Duration};

use super::{
    node::{Kind, Node, Value},
    report::{Problem, Report},
    source::At,
    units,
};

/// A mapping, and the report for its errors.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub node: &'a Node,
    pub report: &'a Report,
}

impl<'a> Fields<'a> {
    /// The fields of a node that must be a mapping; `what` names it in messages.
    pub fn of(node: &'a Node, what: &str, report: &'a Report) -> Option<Self> {
        if node.as_map().is_none() {
            report.push(
                wrong_type(node, what, "a mapping").help("write `key: value` lines, indented below it"),
            );
            return None;
        }
        Some(Self { node, report })
    }

    /// The value of `key`, unless it is null.
    pub fn get(&self, key: &str) -> Option<&'a Node> {
        self.node.get(key)
    }

    /// The place of a key; if it is absent, that of the whole mapping.
    pub fn key_at(&self, key: &str) -> At {
        self.node.as_map().and_then(|map| map.get(key)).map_or(self.node.at, |entry| entry.key)
    }

    pub fn text(&self, key: &str) -> Option<String> {
        text(self.get(key)?, key, self.report)
    }

    /// A text. Numbers and booleans are accepted as text.
    pub fn loose_text(&self, key: &str) -> Option<String> {
        loose_text(self.get(key)?, key, self.report)
    }

    pub fn boolean(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        match loose(node).map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "yes" | "on") => Some(true),
            Some("false" | "no" | "off") => Some(false),
            _ => {
                self.report.push(wrong_type(node, key, "true or false").help("write `true` or `false`"));
                None
            }
        }
    }

    /// A whole number in the range of `T`.
    pub fn integer<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        let node = self.get(key)?;
        let number = loose(node).and_then(|text| text.parse::<i64>().ok()).and_then(|n| T::try_from(n).ok());
        if number.is_none() {
            self.report
                .push(wrong_type(node, key, "a whole number that fits").help("write a number such as `3`"));
        }
        number
    }

    pub fn duration(&self, key: &str) -> Option<Duration> {
        let help = "write a number with a unit, such as `1m30s` or `500ms`";
        self.parsed(key, "a duration", help, units::duration)
    }

    pub fn bytes(&self, key: &str) -> Option<u64> {
        self.parsed(
            key,
            "a number of bytes",
            "write a number with a unit, such as `64m` or `1.5gb`",
            units::bytes,
        )
    }

    /// A scalar that `parse` accepts.
    pub fn parsed<T>(
        &self,
        key: &str,
        what: &str,
        help: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let node = self.get(key)?;
        let value = loose(node).and_then(parse);
        if value.is_none() {
            self.report.push(wrong_type(node, key, what).help(help));
        }
        value
    }

    /// One of several words.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let node = self.get(key)?;
        let found = loose(node).and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if found.is_none() {
            self.report.push(not_one_of(node, key, choices.iter().map(|(name, _)| *name)));
        }
        found.map(|&(_, value)| value)
    }

    /// A list of texts, or a single one. Numbers and booleans are accepted as text.
    pub fn list(&self, key: &str) -> Vec<(String, At)> {
        self.get(key).map(|node| texts(node, key, self.report)).unwrap_or_default()
    }

    /// The texts of [`Self::list`].
    pub fn strings(&self, key: &str) -> Vec<String> {
        self.list(key).into_iter().map(|(text, _)| text).collect()
    }

    /// A mapping of texts. Numbers and booleans are accepted as text; null is `None`.
    pub fn table(&self, key: &str) -> BTreeMap<String, Option<String>> {
        let Some(fields) = self.get(key).and_then(|node| Fields::of(node, key, self.report)) else {
            return BTreeMap::new();
        };
        let mut table = BTreeMap::new();
        for (name, entry) in fields.node.as_map().into_iter().flatten() {
            if entry.node.is_null() {
                table.insert(name.clone(), None);
            } else if let Some(text) = loose_text(&entry.node, name, self.report) {
                table.insert(name.clone(), Some(text));
            }
        }
        table
    }

    /// Like [`Self::table`], with an empty text for null.
    pub fn full_table(&self, key: &str) -> BTreeMap<String, String> {
        self.table(key).into_iter().map(|(k, v)| (k, v.unwrap_or_default())).collect()
    }
}

/// The text of a scalar, unless it is null.
pub(super) fn loose(node: &Node) -> Option<&str> {
    node.as_scalar().filter(|s| s.kind() != Kind::Null).map(|s| s.text.as_str())
}

/// A text; numbers and booleans are errors.
pub(super) fn text(node: &Node, what: &str, report: &Report) -> Option<String> {
    match node.as_scalar() {
        Some(scalar) if scalar.kind() == Kind::Text => Some(scalar.text.clone()),
        Some(scalar) if scalar.kind() != Kind::Null => {
            let help = format!("put it in quotes: \"{}\"", scalar.text);
            report.push(wrong_type(node, what, "a text").help(help));
            None
        }
        _ => {
            report.push(wrong_type(node, what, "a text"));
            None
        }
    }
}

/// A text. Numbers and booleans are accepted as text.
pub(super) fn loose_text(node: &Node, what: &str, report: &Report) -> Option<String> {
    let found = loose(node).map(str::to_owned);
    if found.is_none() {
        report.push(wrong_type(node, what, "a text"));
    }
    found
}

/// A list of texts, or a single one. Numbers and booleans are accepted as text.
pub(super) fn texts(node: &Node, what: &str, report: &Report) -> Vec<(String, At)> {
    match &node.value {
        Value::List(list) => {
            list.iter().filter_map(|item| Some((loose_text(item, what, report)?, item.at))).collect()
        }
        Value::Scalar(_) => loose_text(node, what, report).map(|text| (text, node.at)).into_iter().collect(),
        Value::Map(_) => {
            report.push(wrong_type(node, what, "a list").help("write one `- item` a line"));
            Vec::new()
        }
    }
}

/// The error "`ports` must be a list, not a number".
pub(super) fn wrong_type(node: &Node, what: &str, wanted: &str) -> Problem {
    // An invalid scalar is quoted; a list or mapping is named by its type.
    let is = match node.as_scalar() {
        Some(scalar) if scalar.kind() != Kind::Null && wanted != "a text" => {
            format!("`{}`", shorten(&scalar.text))
        }
        _ => node.describe().to_owned(),
    };
    let what = if what.contains(' ') { what.to_owned() } else { format!("`{what}`") };
    Problem::error(node.at, format!("{what} must be {wanted}, not {is}"))
}

/// The error "`restart` cannot be `alway`", with the valid words and the nearest of them as help.
pub(super) fn not_one_of<'a>(
    node: &Node,
    what: &str,
    choices: impl Iterator<Item = &'a str> + Clone,
) -> Problem {
    let is = loose(node).map_or_else(|| node.describe().to_owned(), |text| format!("`{}`", shorten(text)));
    let all = choices.clone().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(", ");
    let nearest = loose(node).and_then(|text| nearest(text, choices));
    let help = match nearest {
        Some(name) => format!("did you mean `{name}`? It can be: {all}"),
        None => format!("write one of: {all}"),
    };
    Problem::error(node.at, format!("`{what}` cannot be {is}")).help(help)
}

/// The most similar name, if one is similar enough for a suggestion.
pub(super) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > 64 {
        return None;
    }
    let most = (text.chars().count() / 3).max(1);
    names.map(|name| (distance(text, name), name)).filter(|&(d, _)| d <= most).min().map(|(_, name)| name)
}

/// The edit distance of two words, ignoring case: insertions, deletions, substitutions, and swaps of adjacent letters.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// Shortens a text for quotation in a message: its first line, at most 60 characters.
pub(super) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.len() == text.len() && text.chars().count() <= 60 {
        return text.to_owned();
    }
    format!("{}…", line.chars().take(60).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        for (text, expected) in [
            ("enviroment", Some("environment")),
            ("commnad", Some("command")),
            ("prots", Some("ports")),
            ("Image", Some("image")),
            ("zzz", None),
            ("", None),
        ] {
            let names = ["environment", "command", "ports", "image"];
            assert_eq!(nearest(text, names.into_iter()), expected, "{text}");
        }
    }
}
