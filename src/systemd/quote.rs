//! Quoting for systemd, as in systemd.syntax(7), systemd.service(5) for command lines, and systemd.unit(5) for
//! specifiers.

use std::path::Path;

/// A value that systemd would not read back unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {reason}, which systemd cannot read")]
pub struct Unencodable {
    /// Which value it is, such as ``variable `TAG` ``.
    pub what: String,
    /// What it contains.
    pub reason: String,
}

impl Unencodable {
    pub(super) fn new(what: &str, reason: impl Into<String>) -> Self {
        Self { what: what.to_owned(), reason: reason.into() }
    }

    fn control(what: &str, character: char) -> Self {
        Self::new(what, format!("the control character {}", character.escape_unicode()))
    }
}

/// Quotes a word of a command line. `what` names it in errors.
pub(super) fn argument(text: &str, what: &str) -> Result<String, Unencodable> {
    quoted(text, what, |character| match character {
        // systemd would expand a variable.
        '$' => Some("$$"),
        other => specifier(other),
    })
}

/// Quotes the program of a command line. systemd expands no variables there, so `$` cannot be escaped by doubling.
pub(super) fn program(path: &Path) -> Result<String, Unencodable> {
    let text = utf8(path, "the path of sameport")?;
    if text.contains('$') {
        return Err(Unencodable::new("the path of sameport", "a `$`"));
    }
    quoted(text, "the path of sameport", specifier)
}

/// Quotes a word of a list, such as `Environment=` or `ReadWritePaths=`.
pub(super) fn word(text: &str, what: &str) -> Result<String, Unencodable> {
    quoted(text, what, specifier)
}

/// Escapes a path that is not quoted and in which `*`, `?` and `[` are wildcards: `EnvironmentFile=`.
pub(super) fn pattern(path: &Path) -> Result<String, Unencodable> {
    let what = format!("the path {}", path.display());
    let text = utf8(path, &what)?;
    if let Some(character) = text.chars().find(|c| c.is_control()) {
        return Err(Unencodable::control(&what, character));
    }
    if let Some(character) = text.chars().find(|c| "*?[\\\"'".contains(*c)) {
        return Err(Unencodable::new(&what, format!("a `{character}`")));
    }
    if text.ends_with(' ') {
        return Err(Unencodable::new(&what, "a space at its end"));
    }
    Ok(text.replace('%', "%%"))
}

/// The path as text.
pub(super) fn utf8<'a>(path: &'a Path, what: &str) -> Result<&'a str, Unencodable> {
    path.to_str().ok_or_else(|| Unencodable::new(what, "bytes that are not UTF-8"))
}

fn specifier(character: char) -> Option<&'static str> {
    match character {
        '%' => Some("%%"),
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        '\n' => Some("\\n"),
        '\t' => Some("\\t"),
        _ => None,
    }
}

fn quoted(
    text: &str,
    what: &str,
    escape: impl Fn(char) -> Option<&'static str>,
) -> Result<String, Unencodable> {
    let mut out = String::from('"');
    for character in text.chars() {
        match escape(character) {
            Some(escaped) => out.push_str(escaped),
            None if character.is_control() => return Err(Unencodable::control(what, character)),
            None => out.push(character),
        }
    }
    out.push('"');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_command_line_are_quoted() {
        for (text, wanted) in [
            ("/srv/shop/compose.yaml", r#""/srv/shop/compose.yaml""#),
            ("/srv/my shop", r#""/srv/my shop""#),
            ("100% \"x\" \\ $HOME ${A}", r#""100%% \"x\" \\ $$HOME $${A}""#),
            ("a\nExecStart=/bin/sh", r#""a\nExecStart=/bin/sh""#),
            ("", r#""""#),
            (";", r#"";""#),
            ("ä", "\"ä\""),
        ] {
            assert_eq!(argument(text, "it").as_deref(), Ok(wanted), "{text:?}");
        }
        assert_eq!(word("$A %h", "it").as_deref(), Ok(r#""$A %%h""#));
    }

    #[test]
    fn invalid_values_are_errors_with_their_name() {
        let message = argument("a\u{1b}[2J", "the file a").unwrap_err().to_string();
        assert_eq!(message, "the file a has the control character \\u{1b}, which systemd cannot read");
        for path in ["/a\nb", "/a*", "/a?", "/[a]", "/a\\b", "/a ", "/a\"b"] {
            assert!(pattern(Path::new(path)).is_err(), "{path:?}");
        }
        assert_eq!(pattern(Path::new("/var/lib/a b/50%.env")).as_deref(), Ok("/var/lib/a b/50%%.env"));
        assert!(program(Path::new("/opt/$x/sameport")).is_err());
    }
}
