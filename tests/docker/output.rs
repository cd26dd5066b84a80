//! Logs, line by line.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use sameport::{
    engine::{ContainerId, Engine, LogLine, LogOptions},
    spec::Container,
};

use super::workbench::{Workbench, nowhere, shell};

async fn read(bench: &Workbench, id: &ContainerId, options: &LogOptions) -> Vec<LogLine> {
    bench.docker.logs(id, options).await.unwrap().try_collect().await.unwrap()
}

fn texts(lines: &[LogLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test]
async fn lines_come_with_their_time_and_output() {
    let bench = Workbench::new().await;
    let before = Timestamp::now();
    let id = bench.shell("echo one; echo two >&2; echo; printf 'no end'").await;
    bench.ended(&id).await;
    let lines = read(&bench, &id, &LogOptions::default()).await;
    let mut found: Vec<_> = lines.iter().map(|line| (line.stderr, line.text.as_str())).collect();
    found.sort_unstable();
    assert_eq!(found, [(false, ""), (false, "no end"), (false, "one"), (true, "two")]);
    for line in &lines {
        let age = line.time.unwrap().duration_since(before);
        assert!((0..60).contains(&age.as_secs()), "{line:?}");
    }
}

#[tokio::test]
async fn a_line_longer_than_the_engine_keeps_in_one_piece_is_whole_again() {
    let bench = Workbench::new().await;
    let id = bench.shell("head -c 40000 /dev/zero | tr '\\0' x; echo; echo after").await;
    bench.ended(&id).await;
    let lines = read(&bench, &id, &LogOptions::default()).await;
    let long = "x".repeat(40_000);
    assert_eq!(texts(&lines).iter().map(|text| text.len()).collect::<Vec<_>>(), [40_000, 5]);
    assert_eq!(texts(&lines), [long.as_str(), "after"]);
}

#[tokio::test]
async fn a_line_too_long_to_be_held_comes_in_pieces_of_one_time() {
    let bench = Workbench::new().await;
    let id = bench.shell("head -c 300000 /dev/zero | tr '\\0' x").await;
    bench.ended(&id).await;
    let lines = read(&bench, &id, &LogOptions::default()).await;
    assert!(lines.len() > 1 && lines.iter().all(|line| line.time == lines[0].time), "{} lines", lines.len());
    assert_eq!(texts(&lines).concat(), "x".repeat(300_000));
}

#[tokio::test]
async fn a_terminal_has_one_output() {
    let bench = Workbench::new().await;
    let container = Container { tty: true, ..shell("echo one; echo two >&2") };
    let id = bench.start(&bench.replica(1, container, nowhere())).await;
    bench.ended(&id).await;
    let lines = read(&bench, &id, &LogOptions::default()).await;
    assert_eq!(texts(&lines), ["one", "two"]);
    assert!(lines.iter().all(|line| !line.stderr && line.time.is_some()), "{lines:?}");
}

#[tokio::test]
async fn a_part_of_a_log_can_be_asked_for() {
    let bench = Workbench::new().await;
    let id = bench.shell("echo one; sleep 0.2; echo two; sleep 0.2; echo three").await;
    bench.ended(&id).await;
    let all = read(&bench, &id, &LogOptions::default()).await;
    let two = all[1].time;
    for (options, wanted) in [
        (LogOptions { tail: Some(1), ..LogOptions::default() }, &["three"][..]),
        (LogOptions { tail: Some(0), ..LogOptions::default() }, &[]),
        (LogOptions { since: two, ..LogOptions::default() }, &["two", "three"]),
        (LogOptions { until: two, ..LogOptions::default() }, &["one", "two"]),
        (LogOptions { since: two, until: two, ..LogOptions::default() }, &["two"]),
    ] {
        assert_eq!(texts(&read(&bench, &id, &options).await), wanted, "{options:?}");
    }
}

#[tokio::test]
async fn a_followed_log_goes_on_until_the_container_ends() {
    let bench = Workbench::new().await;
    let id = bench.shell("echo early; sleep 1; echo late").await;
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut lines = bench.docker.logs(&id, &options).await.unwrap();
    for wanted in ["early", "late"] {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next()).await.expect(wanted);
        assert_eq!(line.unwrap().unwrap().text, wanted);
    }
    let end = tokio::time::timeout(Duration::from_secs(30), lines.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
}
