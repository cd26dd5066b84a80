//! Several files as one, by Compose's rules.

use crate::support::Folder;

/// The rendered service `web` of two files with these keys.
fn merged(base: &str, over: &str) -> String {
    let of = |keys: &str| {
        let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
        format!("services:\n  web:\n    image: nginx\n{keys}")
    };
    let (base, over) = (of(base), of(over));
    let mut folder = Folder::new(&[("a.yaml", &base), ("b.yaml", &over)]);
    folder.options.files = vec!["a.yaml".into(), "b.yaml".into()];
    let loaded = folder.load().unwrap_or_else(|e| panic!("{e}"));
    let web: serde_json::Value = serde_yaml::from_str(&loaded.rendered).unwrap();
    let mut web = web["services"]["web"].clone();
    web.as_object_mut().unwrap().remove("image");
    web.to_string().replace('"', "")
}

#[test]
fn each_key_merges_by_its_rule() {
    for (case, base, over, expected) in [
        ("a value is replaced", "user: a", "user: b", "{user:b}"),
        ("a command is replaced", "command: [a, b]", "command: [c]", "{command:[c]}"),
        ("an entrypoint is replaced", "entrypoint: a", "entrypoint: [c]", "{entrypoint:[c]}"),
        (
            "a health test is replaced, its times merge",
            "healthcheck: {test: [CMD, a], retries: 2}",
            "healthcheck: {test: [CMD, b], interval: 5s}",
            "{healthcheck:{interval:5s,retries:2,test:[CMD,b]}}",
        ),
        ("ports add up", "ports: [\"80:80\"]", "ports: [\"81:81\", \"80:80\"]", "{ports:[80:80,81:81]}"),
        (
            "variables merge by name in every form",
            "environment: [A=1, B=2]",
            "environment: {B: 3, C: x}",
            "{environment:{A:1,B:3,C:x}}",
        ),
        ("labels merge by name", "labels: {a: x}", "labels: [a=y, b=z]", "{labels:{a:y,b:z}}"),
        (
            "volumes replace by target",
            "volumes: [\"/a:/x\", \"/b:/y\"]",
            "volumes: [\"/c:/x:ro\"]",
            "{volumes:[/c:/x:ro,/b:/y]}",
        ),
        (
            "long and short volumes too",
            "volumes: [\"/a:/x\"]",
            "volumes:\n  - {type: tmpfs, target: /x}",
            "{volumes:[{target:/x,type:tmpfs}]}",
        ),
        ("one and many add up", "dns: 1.1.1.1", "dns: [8.8.8.8, 1.1.1.1]", "{dns:[1.1.1.1,8.8.8.8]}"),
        (
            "dependencies merge",
            "depends_on: {a: {condition: service_healthy, required: false}}",
            "depends_on: {a: {condition: service_started}}",
            "{depends_on:{a:{condition:service_started,required:false}}}",
        ),
        (
            "deploy merges deep",
            "deploy: {replicas: 2, mode: replicated}",
            "deploy: {replicas: 3}",
            "{deploy:{mode:replicated,replicas:3}}",
        ),
        (
            "another log driver has its own options",
            "logging: {driver: json-file, options: {max-size: 1m}}",
            "logging: {driver: local}",
            "{logging:{driver:local}}",
        ),
        (
            "the same log driver merges options",
            "logging: {driver: local, options: {max-size: 1m}}",
            "logging: {options: {max-file: \"2\"}}",
            "{logging:{driver:local,options:{max-file:2,max-size:1m}}}",
        ),
        ("reset removes", "ports: [\"80:80\"]\nuser: a", "ports: !reset []\nuser: !reset null", "{}"),
        (
            "reset removes one variable",
            "environment: {A: 1, B: 2}",
            "environment: {A: !reset null}",
            "{environment:{B:2}}",
        ),
        ("override replaces", "ports: [\"80:80\"]", "ports: !override [\"81:81\"]", "{ports:[81:81]}"),
        ("nothing changes nothing", "ports: [\"80:80\"]", "ports:", "{ports:[80:80]}"),
    ] {
        assert_eq!(merged(base, over), expected, "{case}");
    }
}

#[test]
fn documents_of_one_file_merge_like_files() {
    let folder = Folder::new(&[(
        "compose.yaml",
        "services:\n  web: {image: a, user: x}\n---\nservices:\n  web: {image: b}\n",
    )]);
    let loaded = folder.load().unwrap();
    let web = &loaded.project.services.values().next().unwrap().container;
    assert_eq!((web.image.0.as_str(), web.user.as_deref()), ("b", Some("x")));
}

#[test]
fn a_message_names_the_file_it_is_about() {
    let mut folder = Folder::new(&[
        ("a.yaml", "services:\n  web: {image: a, scale: 2}\n"),
        ("b.yaml", "services:\n  web:\n    deploy: {replicas: 3}\n"),
    ]);
    folder.options.files = vec!["a.yaml".into(), "b.yaml".into()];
    let shown = folder.messages();
    assert!(shown.contains("a.yaml:2:19") && shown.contains("b.yaml:3:14"), "{shown}");
}
