//! The schemas in `docs/schema` are those of the types.

use std::{collections::BTreeSet, fs};

use sameport::api::schema::documents;

use super::schemas::folder;

/// `SAMEPORT_UPDATE_SCHEMA=1 cargo test --test schema committed` writes them anew.
#[test]
fn they_are_what_the_types_say() {
    let update = std::env::var_os("SAMEPORT_UPDATE_SCHEMA").is_some();
    let mut names = BTreeSet::new();
    for document in documents() {
        let path = folder().join(format!("{}.json", document.name));
        let text = format!("{}\n", serde_json::to_string_pretty(&document.schema).unwrap());
        if update {
            fs::write(&path, &text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, text, "{} is of other types; see above how to write it anew", path.display());
        names.insert(format!("{}.json", document.name));
    }
    let found: BTreeSet<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    assert_eq!(found, names, "no schema is left over");
}

#[test]
fn the_list_of_documents_is_complete() {
    let readme = fs::read_to_string(folder().join("../reference/json.md")).unwrap();
    for document in documents() {
        let row = format!("| [`{0}.json`](../schema/{0}.json) | {1} |", document.name, document.printed_by);
        assert!(readme.contains(&row), "docs/reference/json.md lacks the row\n{row}");
    }
}
