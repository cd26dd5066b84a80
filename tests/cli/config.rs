//! `sameport config`.

use insta::assert_snapshot;

use crate::support::Home;

const SHOP: &str = "\
name: shop
services:
  web:
    image: localhost/web:${TAG:-1}
    ports: [\"8080:80\"]
    deploy: { replicas: 4 }
    depends_on: [db]
  db:
    image: localhost/db
  tools:
    image: localhost/web:1
    profiles: [debug]
";

#[test]
fn the_file_is_printed_as_it_is_understood() {
    assert_snapshot!(Home::with(SHOP).transcript("config"));
}

#[test]
fn names_of_services_and_images_are_printed_a_line_each() {
    let home = Home::with(SHOP);
    let told =
        ["config --services", "config --images", "config --services --profile debug", "config --quiet"];
    assert_snapshot!(told.map(|line| home.transcript(line)).join("\n"));
}

#[test]
fn programs_get_json() {
    let home = Home::with(SHOP);
    let read = |line: &str| -> serde_json::Value {
        serde_json::from_slice(&home.sameport(line).output().unwrap().stdout).unwrap()
    };
    assert_eq!(read("config --format json")["services"]["web"]["deploy"]["replicas"], 4);
    assert_eq!(read("config --services --format json"), serde_json::json!(["db", "web"]));
}

#[test]
fn an_invalid_file_is_shown_with_its_line_and_exit_code_2() {
    let home = Home::with("services:\n  web:\n    image: localhost/web\n    ports: [\"http:80\"]\n");
    assert_snapshot!(home.transcript("config"));
}

#[test]
fn what_is_not_acted_on_is_warned_of_and_no_failure() {
    let home =
        Home::with("services:\n  web:\n    image: localhost/web\n    mac_address: 02:42:ac:11:65:43\n");
    assert_snapshot!(home.transcript("config --quiet"));
}

#[test]
fn colours_are_for_terminals_or_who_asks_for_them() {
    let home = Home::with("services: 1\n");
    let has_color = |line: &str| home.transcript(line).contains('\u{1b}');
    assert!(!has_color("config"));
    assert!(has_color("config --color always"));
    assert!(!has_color("config --color never"));
}

#[test]
fn the_file_can_come_through_a_pipe() {
    let home = Home::empty();
    home.write("elsewhere.yaml", SHOP);
    let file = std::fs::File::open(home.shop().join("elsewhere.yaml")).unwrap();
    let line = "-f - config --services";
    let output = home.sameport(line).stdin(file).output().unwrap();
    assert_eq!(
        home.tell(line, &output),
        "$ sameport -f - config --services\n--- output\ndb\nweb\n--- exit code 0\n"
    );
}

#[test]
fn what_is_said_about_ports_is_printed_as_the_file_has_it() {
    let home = Home::with(
        "name: shop\nservices:\n  web:\n    image: localhost/web\n    ports: [\"30000-30009:30000-30009\"]\n    x-sameport: { ports: { 8080: exclusive, 30000/tcp: shared } }\n",
    );
    assert_snapshot!(home.transcript("config"));
    let json = home.sameport("config --format json").output().unwrap().stdout;
    let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        read["services"]["web"]["x-sameport"]["ports"],
        serde_json::json!({ "8080": "exclusive", "30000/tcp": "shared" })
    );
}
