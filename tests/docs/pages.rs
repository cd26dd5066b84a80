//! The pages of the book, and the other Markdown files of the repository.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// README is for a first visit; the book has the rest.
const README_LINES: usize = 200;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Markdown file.
pub struct Page {
    /// Relative to the root.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

impl Page {
    /// The blocks fenced with that language.
    pub fn blocks<'a>(&'a self, language: &str) -> impl Iterator<Item = &'a str> {
        let fence = format!("```{language}\n");
        let starts: Vec<_> = self.text.match_indices(&fence).map(|(at, found)| at + found.len()).collect();
        starts.into_iter().filter_map(|start| Some(self.text[start..].split_once("\n```")?.0))
    }

    /// Its lines without those of fenced blocks.
    pub fn prose(&self) -> impl Iterator<Item = &str> {
        let mut fenced = false;
        self.text.lines().filter(move |line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
    }
}

/// Every Markdown file of the repository that a user or contributor reads.
pub fn all() -> Vec<Page> {
    let mut found = Vec::new();
    for folder in [".", "docs", "bench", "config", "tests", "examples", "src", "fuzz"] {
        find(Path::new(folder), folder != ".", &mut found);
    }
    assert!(found.len() > 30, "only {} Markdown files were found", found.len());
    found
}

fn find(folder: &Path, nested: bool, found: &mut Vec<Page>) {
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if nested {
                find(&path, true, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let text = fs::read_to_string(root().join(&path)).unwrap();
            found.push(Page { path: path.strip_prefix(".").unwrap_or(&path).to_owned(), text });
        }
    }
}

#[test]
fn the_summary_lists_each_page_of_the_book_once() {
    let pages = all();
    let summary = pages.iter().find(|page| page.path.ends_with("docs/SUMMARY.md")).unwrap();
    let listed: Vec<PathBuf> = summary
        .text
        .match_indices("](")
        .map(|(at, _)| Path::new("docs").join(summary.text[at + 2..].split(')').next().unwrap()))
        .collect();
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), unique.len(), "{listed:?}");
    let there: BTreeSet<_> = pages
        .iter()
        .filter(|page| page.path.starts_with("docs") && !page.path.ends_with("SUMMARY.md"))
        .map(|page| page.path.clone())
        .collect();
    assert_eq!(unique, there);
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines; the book under docs/ has room");
}
