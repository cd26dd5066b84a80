//! Text that others have written, shown to people: what commands a terminal, or turns the direction in which text is read, is
//! made visible.

use std::borrow::Cow;

/// Control characters (C0, DEL, C1) other than line breaks and tabs, and those of bidirectional text, are replaced by something
/// that shows them, such as `␛` for ESC.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    replaced(text, false)
}

/// As [`visible`], but colors and other styles of letters (SGR, `ESC [ … m`) are left as they are.
#[must_use]
pub fn with_colors(text: &str) -> Cow<'_, str> {
    replaced(text, true)
}

fn replaced(text: &str, with_colors: bool) -> Cow<'_, str> {
    if !text.contains(is_command) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let color = with_colors.then(|| color_at_start(rest)).flatten();
        let (taken, after) = rest.split_at(color.unwrap_or(c.len_utf8()));
        match color {
            None if is_command(c) => show(c, &mut shown),
            _ => shown.push_str(taken),
        }
        rest = after;
    }
    Cow::Owned(shown)
}

fn is_command(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && c != '\n' && c != '\t')
}

/// The length of the sequence for a style that a text begins with.
fn color_at_start(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !(c.is_ascii_digit() || c == ';' || c == ':'))?;
    parameters.get(end..)?.starts_with('m').then_some("\u{1b}[".len() + end + 1)
}

fn show(c: char, shown: &mut String) {
    match c {
        // Unicode has a picture of each.
        '\0'..='\u{1f}' => shown.extend(char::from_u32(0x2400 + u32::from(c))),
        '\u{7f}' => shown.push('\u{2421}'),
        _ => shown.push_str(&format!("<U+{:04X}>", u32::from(c))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_a_terminal_is_shown_and_does_nothing() {
        for (text, wanted, colored) in [
            ("plain\n\ttext äöü 日本", "plain\n\ttext äöü 日本", "plain\n\ttext äöü 日本"),
            ("\u{1b}]0;title\u{7}", "␛]0;title␇", "␛]0;title␇"),
            ("\u{1b}[31mred\u{1b}[0m", "␛[31mred␛[0m", "\u{1b}[31mred\u{1b}[0m"),
            ("\u{1b}[38:5:9;1m", "␛[38:5:9;1m", "\u{1b}[38:5:9;1m"),
            ("\u{1b}[2J\u{1b}[mx\u{1b}[", "␛[2J␛[mx␛[", "␛[2J\u{1b}[mx␛["),
            ("over\rwritten\u{8}", "over␍written␈", "over␍written␈"),
            ("\u{9b}31m\u{7f}\0", "<U+009B>31m␡␀", "<U+009B>31m␡␀"),
            ("a\u{202e}b\u{2066}c\u{200f}", "a<U+202E>b<U+2066>c<U+200F>", "a<U+202E>b<U+2066>c<U+200F>"),
            ("\u{1b}\u{1b}[1m", "␛␛[1m", "␛\u{1b}[1m"),
        ] {
            assert_eq!(visible(text), wanted);
            assert_eq!(with_colors(text), colored);
        }
        assert!(matches!(visible("nothing to show"), Cow::Borrowed(_)));
    }
}
