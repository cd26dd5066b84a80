//! `{{.Slot}}` and `{{.Replica}}`: what makes a replica's value its own.

use super::Slot;

/// Fills in the slot's number; any other text between braces stays as it is.
///
/// Both names mean the number of the replica within its service, from 1, and may be spaced
/// (`{{ .Slot }}`), as in Swarm's and Compose's templates.
#[must_use]
pub fn expand(text: &str, slot: Slot) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        match after.split_once("}}") {
            Some((name, tail)) if matches!(name.trim(), ".Slot" | ".Replica") => {
                out.push_str(&slot.number().to_string());
                rest = tail;
            }
            _ => {
                out.push_str("{{");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_templates_are_filled() {
        for (text, expected) in [
            ("data-{{.Slot}}", "data-3"),
            ("{{ .Replica }}/{{.Slot}}", "3/3"),
            ("{{.Node}}-{{.Slot}}", "{{.Node}}-3"),
            ("{{{.Slot}}", "{{{.Slot}}"),
            ("plain", "plain"),
            ("{{", "{{"),
        ] {
            assert_eq!(expand(text, Slot::new(3).unwrap()), expected, "{text}");
        }
    }
}
