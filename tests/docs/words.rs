//! Names are terms of the field: words that once stood for them do not come back.

use std::{fs, path::Path};

use super::pages::{self, root};

/// Parts of identifiers: `wish` is in `PodWish`, `wish_in` and `wishes`, but not in `swish`.
const PARTS: [(&str, &str); 31] = [
    ("ailment", "unhealthy reason"),
    ("aim", "probe type"),
    ("approach", "strategy"),
    ("autopsy", "last termination"),
    ("befores", "pre-deploy jobs"),
    ("course", "simulation"),
    ("foresee", "preview"),
    ("foreseen", "preview"),
    ("forgive", "ignore exit"),
    ("former", "previous"),
    ("hasty", "stopped in rotation"),
    ("illness", "unhealthy reason"),
    ("imagine", "simulate"),
    ("incumbent", "current"),
    ("mood", "status level"),
    ("patient", "replica to replace"),
    ("patients", "replicas to replace"),
    ("proof", "summary"),
    ("recall", "restore"),
    ("seat", "slot"),
    ("seats", "slot members"),
    ("stranger", "foreign container, foreign listener, other user"),
    ("strangers", "foreign listeners"),
    ("successor", "replacement"),
    ("successors", "replacements"),
    ("tally", "connection statistics"),
    ("troubles", "errors"),
    ("wheel", "weighted round-robin table"),
    ("wish", "desired state"),
    ("wished", "desired"),
    ("wishes", "desired state"),
];

/// Whole names of types.
const TYPES: [(&str, &str); 6] = [
    ("Asked", "requested"),
    ("LastWords", "graceful close, or log tail"),
    ("Pen", "journal writer"),
    ("Signs", "rollout metrics"),
    ("Told", "termination report"),
    ("Worse", "regression"),
];

/// Sentences of early versions, in what users read.
const SENTENCES: [&str; 12] = [
    "all is as wanted",
    "as it is wanted",
    "ended without a goodbye",
    "by lot",
    "is no good",
    "is told of",
    "loses next to nothing",
    "make it so",
    "no right to",
    "nobody supervises",
    "takes part, too",
    "what happens: starts",
];

#[test]
fn no_identifier_has_a_word_that_the_field_does_not_know() {
    let mut found = Vec::new();
    for folder in ["src", "tests", "bench/src", "fuzz"] {
        for_each_source(&root().join(folder), &mut |path, text| {
            // These two name what must not come back.
            if path.ends_with("docs/words.rs") || path.ends_with("schema/names.rs") {
                return;
            }
            for (number, line) in text.lines().enumerate() {
                let line = line.split("//").next().unwrap_or_default();
                for word in identifiers(line) {
                    let instead = TYPES.iter().find(|(name, _)| *name == word).or_else(|| part_of(word));
                    if let Some((_, instead)) = instead {
                        found.push(format!("{}:{}: `{word}`: {instead}", path.display(), number + 1));
                    }
                }
            }
        });
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_document_has_a_sentence_of_early_versions() {
    let mut found = Vec::new();
    for page in pages::all() {
        let text = page.text.to_lowercase();
        for sentence in SENTENCES.iter().filter(|sentence| text.contains(*sentence)) {
            found.push(format!("{}: `{sentence}`", page.path.display()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Words of code: text in quotes and the names that serde reads and writes are left out.
fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split('"').step_by(2);
    code.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|word| !word.is_empty())
}

fn part_of(identifier: &str) -> Option<&'static (&'static str, &'static str)> {
    // A function of the standard library.
    if identifier == "successors" {
        return None;
    }
    let mut spaced = String::new();
    for c in identifier.chars() {
        if c == '_' || c.is_uppercase() {
            spaced.push(' ');
        }
        spaced.extend(c.to_lowercase());
    }
    let parts: Vec<_> = spaced.split([' ', '_']).collect();
    PARTS.iter().find(|(part, _)| parts.contains(part))
}

fn for_each_source(folder: &Path, check: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            for_each_source(&path, check);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            check(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
