//! Names of ours for the images of versions that a project remembers: whoever cleans up images without a name (`docker image prune`)
//! leaves what `rollout undo` needs.

use crate::spec::{Image, ProjectName};

/// The name without its tag.
pub const REPOSITORY: &str = "localhost/sameport-kept";
/// So many digits of an image's id tell it from all others on a host.
const DIGITS: usize = 12;

/// The name for the image with that id; none where that is no id of an image.
#[must_use]
pub fn name(project: &ProjectName, id: &str) -> Option<Image> {
    let digits = id.strip_prefix("sha256:")?.get(..DIGITS)?;
    is_short_id(digits).then(|| Image(format!("{REPOSITORY}:{project}-{digits}")))
}

/// Whether a name is one of those of a project, and not of one whose name begins in the same way.
#[must_use]
pub fn is_of(project: &ProjectName, name: &Image) -> bool {
    let tag = name.0.strip_prefix(REPOSITORY).and_then(|tag| tag.strip_prefix(':'));
    let digits = tag.and_then(|tag| tag.strip_prefix(project.as_str())).and_then(|tag| tag.strip_prefix('-'));
    digits.is_some_and(is_short_id)
}

fn is_short_id(digits: &str) -> bool {
    digits.len() == DIGITS && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_knows_its_own_names() {
        let project = |name: &str| -> ProjectName { name.parse().unwrap() };
        let id = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let kept = name(&project("shop"), id).unwrap();
        assert_eq!(kept.0, "localhost/sameport-kept:shop-0123456789ab");
        assert!(is_of(&project("shop"), &kept));
        let other = name(&project("shop-2"), id).unwrap();
        assert!(!is_of(&project("shop"), &other) && is_of(&project("shop-2"), &other));
        assert!(!is_of(&project("shop"), &Image("shop-0123456789ab".to_owned())));
        for no_id in ["", "app:1", "sha256:", "sha256:0123", "sha256:0123456789ax"] {
            assert_eq!(name(&project("shop"), no_id), None, "{no_id}");
        }
    }
}
