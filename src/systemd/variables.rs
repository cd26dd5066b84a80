//! The file of variables, in the format that systemd.exec(5) describes for `EnvironmentFile=`.

use std::collections::BTreeMap;

use super::Unencodable;

const HEAD: &str =
    "# Written by `sameport enable`: variables that the Compose file uses and that no file sets.\n";
/// The characters that need a backslash within double quotes.
const ESCAPED: &str = "\"\\`$";

/// Renders a file of these variables.
///
/// # Errors
/// If systemd would not read a variable back unchanged.
pub fn render(variables: &BTreeMap<String, String>) -> Result<String, Unencodable> {
    let mut text = HEAD.to_owned();
    for (name, value) in variables {
        let what = format!("variable `{}`", name.escape_debug());
        let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(is_start) || !name.chars().all(|c| is_start(c) || c.is_ascii_digit()) {
            return Err(Unencodable::new(&what, "a name of other characters than letters, digits and `_`"));
        }
        // systemd ignores variables with other control characters.
        if let Some(character) = value.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
            return Err(Unencodable::new(
                &what,
                format!("the control character {}", character.escape_unicode()),
            ));
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            if ESCAPED.contains(character) {
                text.push('\\');
            }
            text.push(character);
        }
        text.push_str("\"\n");
    }
    Ok(text)
}

/// Parses a file that [`render`] wrote; `None` for any other.
#[must_use]
pub fn parse(text: &str) -> Option<BTreeMap<String, String>> {
    let mut rest = text.strip_prefix(HEAD)?;
    let mut variables = BTreeMap::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (_, '\\') => value.push(characters.next()?.1),
                (at, '"') => break at,
                (_, other) => value.push(other),
            }
        };
        variables.insert(name.to_owned(), value);
        rest = after[end + 1..].strip_prefix('\n')?;
    }
    Some(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn values_are_quoted_and_come_back() {
        for (value, wanted) in [
            ("1.4", "TAG=\"1.4\"\n"),
            ("", "TAG=\"\"\n"),
            ("a b'c#d;", "TAG=\"a b'c#d;\"\n"),
            ("\"$HOME\" `x` \\ 50%", "TAG=\"\\\"\\$HOME\\\" \\`x\\` \\\\ 50%\"\n"),
            ("one\ntwo=\"3\"\n", "TAG=\"one\ntwo=\\\"3\\\"\n\"\n"),
        ] {
            let text = render(&of("TAG", value)).unwrap();
            assert_eq!(text.strip_prefix(HEAD), Some(wanted), "{value:?}");
            assert_eq!(parse(&text), Some(of("TAG", value)));
        }
        assert_eq!(parse(&render(&BTreeMap::new()).unwrap()), Some(BTreeMap::new()));
    }

    #[test]
    fn values_that_systemd_would_not_read_are_errors_with_their_name() {
        for (name, value) in
            [("TAG", "a\u{7}"), ("TAG", "a\rb"), ("a.b", "x"), ("A\nB", "x"), ("1A", "x"), ("", "x")]
        {
            let error = render(&of(name, value)).unwrap_err().to_string();
            assert!(error.contains(&format!("variable `{}`", name.escape_debug())), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_foreign_file_is_not_parsed() {
        assert_eq!(parse("TAG=\"1\"\n"), None);
        assert_eq!(parse(&format!("{HEAD}TAG=1\n")), None);
        assert_eq!(parse(&format!("{HEAD}TAG=\"1")), None);
    }
}
