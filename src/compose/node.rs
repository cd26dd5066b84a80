//! A YAML document as a tree in which each value has its place in the source.

use indexmap::IndexMap;

use super::source::At;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub at: At,
    /// The merge tag of the value.
    pub directive: Option<Directive>,
}

/// A YAML tag of Compose that controls merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    /// `!reset`: the key is removed.
    Reset,
    /// `!override`: the value replaces the earlier one instead of merging.
    Override,
}

/// The content of a node.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Map),
}

/// Entries in the order of the file.
pub(super) type Map = IndexMap<String, Entry>;

/// A value of a mapping, and the place of its key.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: At,
    pub node: Node,
}

/// A text whose YAML type depends on its style and form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scalar {
    pub text: String,
    pub style: Style,
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Unquoted: `3` is a number, `true` is a boolean.
    Plain,
    /// Quoted, or a block: always a text.
    Quoted,
    /// The result of interpolation: any type is accepted.
    Substituted,
}

/// The type of a scalar in YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    Text,
}

impl Scalar {
    /// A scalar that is always a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::Quoted }
    }

    /// The type of the scalar.
    pub fn kind(&self) -> Kind {
        if self.style != Style::Plain {
            return Kind::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Bool,
            text if is_number(text) => Kind::Number,
            _ => Kind::Text,
        }
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let Some(first) = digits.chars().next() else { return false };
    if let Some(hex) = digits.strip_prefix("0x") {
        return !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit());
    }
    let looks = first.is_ascii_digit() || (first == '.' && digits.len() > 1);
    // Rust parses words as numbers that YAML does not (`inf`, `nan`), so the first character decides.
    looks && text.len() - digits.len() <= 1 && (digits.parse::<f64>().is_ok() || is_octal(digits))
}

fn is_octal(digits: &str) -> bool {
    digits.strip_prefix("0o").is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_digit(8)))
}

impl Node {
    pub fn new(value: Value, at: At) -> Self {
        Self { value, at, directive: None }
    }

    /// A text that is not in the source itself, at the place that it derives from.
    pub fn text(text: impl Into<String>, at: At) -> Self {
        Self::new(Value::Scalar(Scalar::text(text)), at)
    }

    /// A mapping.
    pub fn map(entries: Map, at: At) -> Self {
        Self::new(Value::Map(entries), at)
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// Whether the value is null or absent.
    pub fn is_null(&self) -> bool {
        self.as_scalar().is_some_and(|s| s.kind() == Kind::Null)
    }

    /// The value of `key` in a mapping, unless it is null.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key).map(|entry| &entry.node).filter(|node| !node.is_null())
    }

    /// The type with an article, for messages.
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(scalar) => match scalar.kind() {
                Kind::Null => "nothing",
                Kind::Bool => "a boolean",
                Kind::Number => "a number",
                Kind::Text => "a text",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_have_types() {
        for (text, kind) in [
            ("", Kind::Null),
            ("~", Kind::Null),
            ("true", Kind::Bool),
            ("no", Kind::Text),
            ("8080", Kind::Number),
            ("-1.5", Kind::Number),
            ("1e3", Kind::Number),
            ("0o17", Kind::Number),
            ("0x1f", Kind::Number),
            ("inf", Kind::Text),
            ("--1", Kind::Text),
            ("1:2", Kind::Text),
            ("1.2.3", Kind::Text),
            (".", Kind::Text),
        ] {
            assert_eq!(Scalar { text: text.into(), style: Style::Plain }.kind(), kind, "{text:?}");
        }
        assert_eq!(Scalar::text("8080").kind(), Kind::Text);
    }
}
