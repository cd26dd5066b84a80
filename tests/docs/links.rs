//! Links between the documents.

use std::path::{Component, Path, PathBuf};

use super::pages::{self, Page};

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let pages = pages::all();
    let mut broken = Vec::new();
    let mut checked = 0;
    for page in &pages {
        for target in targets(page) {
            checked += 1;
            if let Err(reason) = check(&pages, page, &target) {
                broken.push(format!("{}: {target}: {reason}", page.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
    assert!(checked > 100, "only {checked} links were found");
}

/// What the page links to, without other sites. Code in backticks has no links.
fn targets(page: &Page) -> Vec<String> {
    let mut found = Vec::new();
    for line in page.prose() {
        let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split([')', ' ']).next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push(target.to_owned());
            }
        }
    }
    found
}

fn check(pages: &[Page], from: &Page, target: &str) -> Result<(), String> {
    let (file, heading) =
        target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
    let path = match file {
        "" => from.path.clone(),
        file => plain(&from.path.parent().unwrap_or(Path::new("")).join(file)),
    };
    if !pages::root().join(&path).exists() {
        return Err(format!("there is no {}", path.display()));
    }
    let Some(heading) = heading else { return Ok(()) };
    let page = pages.iter().find(|page| page.path == path).ok_or("not a Markdown file")?;
    match headings(page).iter().any(|found| found == heading) {
        true => Ok(()),
        false => Err(format!("its headings are {:?}", headings(page))),
    }
}

fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn headings(page: &Page) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in page.prose().filter(|line| line.starts_with('#')) {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let anchor: String = text
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let earlier = found.iter().filter(|other| **other == anchor).count();
        found.push(if earlier == 0 { anchor } else { format!("{anchor}-{earlier}") });
    }
    found
}
