//! Whatever the file says, the loader answers.

use proptest::prelude::*;

use crate::support::{Folder, file};

const SHOP: &str = include_str!("files/shop.yaml");

/// Pieces that mean something to YAML or to Compose.
const PIECES: [&str; 24] = [
    ":",
    "-",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: ",
    "!reset ",
    "!override ",
    "\"",
    "'",
    "\n",
    "  ",
    "\t",
    "${",
    "}",
    "$",
    "|\n",
    "null",
    "-1",
    "é",
    "\u{0}",
];

fn load(text: &str) {
    let folder = file(text).with(&[("DB_PASSWORD", "x")]);
    match folder.load() {
        // What loads is rendered to something that loads again.
        Ok(loaded) => {
            let again = Folder::new(&[("compose.yaml", &loaded.rendered)]).load();
            let again = again.unwrap_or_else(|e| panic!("{e}\n{text}\n{}", loaded.rendered));
            assert_eq!(again.project, loaded.project, "{text}\n{}", loaded.rendered);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_file_with_lines_lost_is_answered(lost in prop::collection::btree_set(0_usize..180, 1..12)) {
        let kept = SHOP.lines().enumerate().filter(|(n, _)| !lost.contains(n)).map(|(_, line)| line);
        // There is no such env file here, and no mistake should hide behind that.
        load(&kept.collect::<Vec<_>>().join("\n").replace("required: true", "required: false"));
    }

    #[test]
    fn a_file_with_pieces_put_in_is_answered(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&PIECES[..])), 1..4),
    ) {
        let mut text = SHOP.replace("required: true", "required: false");
        for (place, piece) in changes {
            let mut at = place.index(text.len());
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            text.insert_str(at, piece);
        }
        load(&text);
    }

    #[test]
    fn any_value_of_any_key_is_answered(
        key in prop::sample::select(vec![
            "image", "ports", "volumes", "environment", "command", "healthcheck", "deploy", "networks", "depends_on", "dns",
            "ulimits", "devices", "tmpfs", "logging", "x-sameport", "env_file", "extra_hosts", "scale", "restart", "expose",
            "sysctls", "stop_signal", "cpus", "profiles", "labels", "container_name", "network_mode",
        ]),
        value in prop::sample::select(vec![
            "", "1", "-1", "1.5", "true", "a", "a:b", "a:b:c", "[]", "[1, a, [b]]", "{}", "{a: b}", "{a: {b: [c]}}", "[{a: b}]",
            "[{target: 1}]", "[{type: bind}]", "host", "\":\"", "\"::\"", "[\":\"]", "[\"\"]", "{\"\": \"\"}", "{test: []}", "é",
            "99999999999999999999", "{replicas: {}}", "{resources: [1]}", "[=]", "\"/\"", "\"-\"", "[\"1-2:3-4-5\"]",
        ]),
    ) {
        load(&format!("services:\n  web:\n    image: nginx\n    {key}: {value}\n").replace("    image: nginx\n    image", "    image"));
    }

    #[test]
    fn any_env_file_is_answered(text in "(export )?[A-C]{0,2}[=: ]?[\"'a-c${}:? #\\\\\n-]{0,24}") {
        let folder = Folder::new(&[("compose.yaml", "services:\n  web: {image: a, env_file: x.env}\n"), ("x.env", &text)]);
        if let Err(error) = folder.load() {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
