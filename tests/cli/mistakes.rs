//! What is said when a command is used wrongly, and its exit code.

use insta::assert_snapshot;

use crate::support::Home;

const SHOP: &str = "services:\n  web:\n    image: localhost/web\n    ports: [\"8080:80\"]\n";

#[test]
fn a_wrong_argument_is_told_with_what_to_write() {
    let home = Home::with(SHOP);
    let told: Vec<_> = [
        "",
        "upp",
        "up --scale web",
        "up --scale web=many",
        "up --timeout soon",
        "up --wait-timeout 5s",
        "up --pull sometimes",
        "scale",
        "scale web=-1",
        "scale web=2 web=3",
        "up --scale web=2 --scale web=3",
        "restart web.0",
        "build",
        "pull web",
        "top",
        "run web sh",
        "up -f other.yaml",
        "ps --file other.yaml",
        "rollout stauts web",
        "rollout web status",
        "logs --tail few",
        "logs --since yesterday-ish",
        "kill",
        "exec web",
        "ps --format xml",
        "-p Shop ps",
    ]
    .map(|line| home.transcript(line))
    .into();
    assert_snapshot!(told.join("\n"));
}

#[test]
fn a_wrong_argument_is_exit_code_2() {
    let home = Home::with(SHOP);
    for line in ["upp", "up --scale web=many", "scale", "scale web=2 web=3", "ps --format xml", "-p Shop ps"]
    {
        assert_eq!(home.sameport(line).output().unwrap().status.code(), Some(2), "{line}");
    }
}

#[test]
fn without_a_file_every_command_says_where_it_was_looked_for() {
    let home = Home::empty();
    let told: Vec<_> = ["up", "ps", "logs", "scale web=2", "config", "supervise", "-f nowhere.yaml config"]
        .map(|line| home.transcript(line))
        .into();
    assert_snapshot!(told.join("\n"));
}

#[test]
fn without_an_engine_every_command_says_so_with_exit_code_3() {
    let home = Home::with(SHOP);
    for line in ["up", "up -d", "ps", "down", "logs", "kill web.1", "exec web -- ls", "stop", "restart web"] {
        let output = home.sameport(line).output().unwrap();
        let told = home.tell(line, &output);
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains("127.0.0.1:1") && told.contains("help: "), "{told}");
    }
    assert_snapshot!(home.transcript("up"));
}

#[test]
fn events_without_a_supervisor_say_how_to_begin_one() {
    assert_snapshot!(Home::with(SHOP).transcript("events"));
}

#[test]
fn a_folder_of_ours_that_cannot_be_used_is_named() {
    let home = Home::with(SHOP);
    std::fs::write(home.path().join("run"), "no folder").unwrap();
    let told = home.transcript("events");
    assert!(told.contains("[home]/run/sameport") && told.contains("exit code 1"), "{told}");
}
