//! Which version a service goes back to.

use jiff::Timestamp;

use super::service;
use crate::{
    plan::{
        Failure, FailureReason,
        versions::{ChangeCause, Impossible, Versions},
    },
    spec::{FailureAction, Image, Service, Slot},
};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn asked(cause: &str) -> ChangeCause<'_> {
    ChangeCause { now: NOW, by: "test", cause }
}

/// The file, with that image.
fn file(image: &str) -> Service {
    Service { container: crate::spec::Container::new(Image(image.to_owned())), ..service("web", 2) }
}

fn failure() -> Failure {
    Failure { slot: Slot::FIRST, reason: FailureReason::Unhealthy }
}

/// Versions by the images that were rolled out, one after the other: what begins with `bad` failed and was taken back.
fn after(images: &[&str]) -> Versions {
    let mut versions = Versions::default();
    for image in images {
        versions.apply(&file(image), true, &asked("up"));
        assert!(!versions.note_served(|_| false), "nobody is ready");
        if versions.underway.is_none() {
            assert!(versions.note_served(|_| true) && !versions.note_served(|_| true));
        } else {
            if image.starts_with("bad") {
                assert_eq!(versions.fail(&file(image), failure(), NOW), FailureAction::Rollback);
            }
            versions.finish(None, NOW);
        }
    }
    versions
}

/// Where a way back leads to, by image.
fn leads_to(versions: &Versions) -> &str {
    &versions.revision(versions.wanted()).unwrap().service.container.image.0
}

#[test]
fn undo_goes_to_the_last_version_that_served() {
    for (images, wanted) in [
        (&["one", "two"][..], Ok("one")),
        (&["one", "bad", "three"], Ok("one")),
        (&["one", "two", "bad-1", "bad-2", "three"], Ok("two")),
        (&["one"], Err(Impossible::NoPrevious)),
        (&["one", "bad"], Err(Impossible::NoPrevious)),
    ] {
        let mut versions = after(images);
        let undone = versions.undo(&file(images.last().unwrap()), None, &asked("undo"));
        assert_eq!(undone.map(|()| leads_to(&versions)), wanted, "{images:?}");
    }
    // Somebody who names one means it.
    let mut versions = after(&["one", "bad", "three"]);
    versions.undo(&file("three"), Some(2), &asked("undo to 2")).unwrap();
    assert_eq!(leads_to(&versions), "bad");
}

#[test]
fn a_version_that_failed_when_it_was_tried_again_is_not_gone_back_to() {
    let mut versions = after(&["one", "two", "three"]);
    versions.undo(&file("three"), Some(2), &asked("undo to 2")).unwrap();
    versions.fail(&file("three"), failure(), NOW);
    versions.finish(None, NOW);
    versions.undo(&file("three"), None, &asked("undo")).unwrap();
    assert_eq!(leads_to(&versions), "one");
}

#[test]
fn a_first_version_that_was_never_ready_is_not_gone_back_to() {
    let begun = || {
        let mut versions = Versions::default();
        versions.apply(&file("deaf"), true, &asked("up"));
        versions.apply(&file("two"), true, &asked("up"));
        versions
    };
    assert_eq!(begun().abort(&file("two"), &asked("abort")), Err(Impossible::NoneServed));
    assert_eq!(begun().undo(&file("two"), None, &asked("undo")), Err(Impossible::NoneServed));
    let mut done = begun();
    done.finish(None, NOW);
    assert_eq!(done.undo(&file("two"), None, &asked("undo")), Err(Impossible::NoneServed));
}

#[test]
fn a_rollout_that_was_given_up_for_another_one_is_not_gone_back_to() {
    let mut versions = after(&["one"]);
    versions.apply(&file("deaf"), true, &asked("up"));
    versions.apply(&file("three"), true, &asked("up"));
    versions.finish(None, NOW);
    versions.undo(&file("three"), None, &asked("undo")).unwrap();
    assert_eq!(leads_to(&versions), "one");
}

#[test]
fn only_what_is_in_progress_is_aborted() {
    let mut versions = after(&["one", "two"]);
    let before = versions.clone();
    assert_eq!(versions.abort(&file("two"), &asked("abort")), Err(Impossible::NothingToAbort));
    assert_eq!(versions, before);
    versions.apply(&file("three"), true, &asked("up"));
    versions.abort(&file("three"), &asked("abort")).unwrap();
    assert_eq!(leads_to(&versions), "two");
    let again = versions.abort(&file("three"), &asked("abort"));
    assert_eq!(again, Err(Impossible::GoesBack { to: 2 }));
}

#[test]
fn a_failure_is_kept_with_its_version_until_that_serves() {
    let mut versions = after(&["one", "bad"]);
    assert_eq!(versions.revision(2).unwrap().failure, Some(failure()));
    let rejected = versions.rejected().unwrap();
    assert_eq!((rejected.revision.number, rejected.is_of_file), (2, true));
    assert_eq!(rejected.retry(), "sameport rollout web");
    // It was tried again by another number, and that one has its own record.
    versions.undo(&file("bad"), Some(2), &asked("undo to 2")).unwrap();
    versions.finish(None, NOW);
    let last = versions.revision(versions.stable).unwrap();
    assert_eq!((last.served, &last.failure), (Some(true), &None));
    assert_eq!(versions.rejected(), None);
}

#[test]
fn an_image_that_a_command_named_is_not_the_files() {
    let mut versions = after(&["one"]);
    versions.start(&file("one"), Some(Image("bad".to_owned())), None, None, &asked("rollout"));
    versions.fail(&file("one"), failure(), NOW);
    for _ in ["on the way back", "after it"] {
        let rejected = versions.rejected().unwrap();
        assert!(!rejected.is_of_file);
        assert_eq!(rejected.retry(), "sameport rollout web --image bad");
        versions.finish(None, NOW);
    }
}

#[test]
fn what_an_earlier_release_did_not_note_has_served_unless_it_is_known_to_have_failed() {
    let forgotten = |images: &[&str]| {
        let mut versions = after(images);
        for revision in &mut versions.revisions {
            (revision.served, revision.failure) = (None, None);
        }
        versions
    };
    let mut versions = forgotten(&["one", "two"]);
    versions.undo(&file("two"), None, &asked("undo")).unwrap();
    assert_eq!(leads_to(&versions), "one");
    // The last rollout tells who failed in it.
    let mut versions = forgotten(&["one", "two", "bad"]);
    versions.stable = 3;
    versions.undo(&file("bad"), None, &asked("undo")).unwrap();
    assert_eq!(leads_to(&versions), "two");
}
