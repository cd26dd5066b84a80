//! Writes a tree as YAML that loads to the same tree.
//!
//! Not done by a library: texts must be quoted that any YAML reader could take for another type. `yes`, `22:22` and
//! `0440` have other meanings in YAML 1.1, which many tools still read.

use super::node::{Kind, Node, Scalar, Style, Value};

/// The YAML of a resolved file. Dollar signs are doubled, so that they are not interpolated again.
pub(super) fn render(document: &Node) -> String {
    let mut document = document.clone();
    if let Value::Map(top) = &mut document.value {
        // It has no effect, and a separate warning.
        top.shift_remove("version");
    }
    let mut out = String::new();
    write(&document, 0, &mut out);
    out
}

/// Writes a mapping or list as lines with an indentation of `depth` levels.
fn write(node: &Node, depth: usize, out: &mut String) {
    match &node.value {
        Value::Map(map) => {
            for (key, entry) in map {
                indent(depth, out);
                write_key(key, &entry.node, depth, out);
            }
        }
        Value::List(list) => {
            for item in list {
                indent(depth, out);
                out.push('-');
                match &item.value {
                    // The first key is on the line of the dash.
                    Value::Map(map) if !map.is_empty() => {
                        let mut lines = String::new();
                        write(item, depth + 1, &mut lines);
                        out.push(' ');
                        out.push_str(lines.trim_start());
                    }
                    _ => write_value(item, depth + 1, out),
                }
            }
        }
        Value::Scalar(value) => {
            out.push_str(&scalar(value));
            out.push('\n');
        }
    }
}

fn write_key(key: &str, node: &Node, depth: usize, out: &mut String) {
    out.push_str(&text(key));
    out.push(':');
    write_value(node, depth + 1, out);
}

/// Writes the value after `key:` or `-`, including the line break.
fn write_value(node: &Node, depth: usize, out: &mut String) {
    match &node.value {
        Value::Map(map) if map.is_empty() => out.push_str(" {}\n"),
        Value::List(list) if list.is_empty() => out.push_str(" []\n"),
        Value::Scalar(value) => {
            let value = scalar(value);
            if !value.is_empty() {
                out.push(' ');
            }
            out.push_str(&value);
            out.push('\n');
        }
        Value::Map(_) | Value::List(_) => {
            out.push('\n');
            write(node, depth, out);
        }
    }
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn scalar(scalar: &Scalar) -> String {
    let same_everywhere =
        |text: &str| !text.starts_with(['0', '+', '.']) || matches!(text, "0") || text.starts_with("0.");
    match scalar.kind() {
        Kind::Null => String::new(),
        Kind::Bool => scalar.text.to_ascii_lowercase(),
        Kind::Number if same_everywhere(&scalar.text) => scalar.text.clone(),
        Kind::Number | Kind::Text => text(&scalar.text.replace('$', "$$")),
    }
}

/// A text, quoted unless every YAML reader takes it as text without quotes.
fn text(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./$@+,".contains(c));
    let word = Scalar { text: text.to_owned(), style: Style::Plain };
    let switch =
        matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off" | "y" | "n" | "null");
    if plain && !switch && word.kind() == Kind::Text {
        return text.to_owned();
    }
    quoted(text)
}

/// A text in double quotes. JSON escapes everything that YAML requires, except characters that YAML calls not printable
/// and the line breaks of YAML 1.1.
fn quoted(text: &str) -> String {
    // A string always serializes to JSON.
    let json = serde_json::to_string(text).unwrap_or_default();
    let is_read_as_it_is = |c: char| {
        !matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    if json.chars().all(is_read_as_it_is) {
        return json;
    }
    let escaped = |c: char| match is_read_as_it_is(c) {
        true => c.to_string(),
        false => format!("\\u{:04x}", u32::from(c)),
    };
    json.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprintable_characters_are_escaped() {
        for (given, wanted) in [
            ("a", "a"),
            ("a b", r#""a b""#),
            ("é日\u{10000}\"\n", "\"é日\u{10000}\\\"\\n\""),
            ("\u{94}", r#""\u0094""#),
            ("a\u{7f}b\u{85}", r#""a\u007fb\u0085""#),
            ("\u{2028}\u{feff}\u{ffff}", r#""\u2028\ufeff\uffff""#),
        ] {
            assert_eq!(text(given), wanted, "{given:?}");
        }
    }
}
