//! What a service runs besides itself: `post_start`, `pre_stop`, `x-sameport.pre_deploy`.

use serde_json::json;

use crate::support::{Folder, assert_shown, file, gallery, service};

fn web(folder: &Folder) -> serde_json::Value {
    let loaded = folder.load().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded.warnings.len(), 0, "{:?}", loaded.warnings);
    serde_json::to_value(&loaded.project).unwrap()["services"]["web"].take()
}

const ALL: &str = "post_start:
  - command: sh -c 'echo \"a b\"'
    user: 0
    privileged: true
    working_dir: /tmp
    environment: [A=1, B, C]
  - command: [second]
pre_stop:
  - command: [leave, now]
    environment: {SLOT: \"{{.Slot}}\"}
x-sameport:
  pre_deploy:
    command: [migrate, up]
    image: migrations:2
    environment: [DB=db, B]
    timeout: 2m";

#[test]
fn hooks_and_jobs_are_read_as_compose_does() {
    let web = web(&service(ALL).with(&[("B", "from the process")]));
    let hook = |command: &[&str]| json!({"command": command, "user": null, "privileged": false, "working_dir": null, "environment": {}});
    let mut first = hook(&["sh", "-c", "echo \"a b\""]);
    first["user"] = json!("0");
    first["privileged"] = json!(true);
    first["working_dir"] = json!("/tmp");
    first["environment"] = json!({"A": "1", "B": "from the process", "C": null});
    let mut leave = hook(&["leave", "now"]);
    leave["environment"] = json!({"SLOT": "{{.Slot}}"});
    assert_eq!(web["hooks"], json!({"post_start": [first, hook(&["second"])], "pre_stop": [leave]}));
    assert_eq!(
        web["before"],
        json!({
            "command": ["migrate", "up"],
            "image": "migrations:2",
            "environment": {"DB": "db", "B": "from the process"},
            "timeout": {"secs": 120, "nanos": 0},
        })
    );
    let least = self::web(&service("x-sameport: {pre_deploy: {command: migrate}}"));
    assert_eq!(least["before"]["timeout"]["secs"], 600);
    assert_eq!(least["before"]["image"], json!(null));
    assert_eq!(self::web(&service("tty: true"))["hooks"], json!({"post_start": [], "pre_stop": []}));
}

#[test]
fn the_resolved_file_loads_to_the_same_hooks_and_jobs() {
    let first = service(ALL).with(&[("B", "from the $process")]).load().unwrap();
    let again = file(&first.rendered).load().unwrap();
    assert_eq!(again.project, first.project);
    assert_eq!(again.rendered, first.rendered);
}

/// Earlier files call it `before`.
#[test]
fn a_job_may_have_its_old_name() {
    let mut folder = Folder::new(&[
        ("a.yaml", "services:\n  web:\n    image: a\n    x-sameport: {before: {command: a, timeout: 1m}}\n"),
        ("b.yaml", "services:\n  web:\n    x-sameport: {pre_deploy: {command: b}}\n"),
    ]);
    folder.options.files = vec!["a.yaml".into(), "b.yaml".into()];
    let web = web(&folder);
    assert_eq!(web["before"]["command"], json!(["b"]));
    assert_eq!(web["before"]["timeout"]["secs"], 60);
    let loaded = folder.load().unwrap();
    assert!(
        loaded.rendered.contains("pre_deploy:") && !loaded.rendered.contains("before:"),
        "{}",
        loaded.rendered
    );
}

#[test]
fn another_file_adds_hooks_and_replaces_the_command_of_a_job() {
    let mut folder = Folder::new(&[
        (
            "a.yaml",
            "services:\n  web:\n    image: a\n    post_start: [{command: [one]}]\n    x-sameport: {pre_deploy: {command: [old, x], timeout: 1m}}\n",
        ),
        (
            "b.yaml",
            "services:\n  web:\n    post_start: [{command: [two]}]\n    x-sameport: {pre_deploy: {command: [new]}}\n",
        ),
    ]);
    folder.options.files = vec!["a.yaml".into(), "b.yaml".into()];
    let web = web(&folder);
    let commands: Vec<_> =
        web["hooks"]["post_start"].as_array().unwrap().iter().map(|hook| &hook["command"][0]).collect();
    assert_eq!(commands, ["one", "two"]);
    assert_eq!(web["before"]["command"], json!(["new"]));
    assert_eq!(web["before"]["timeout"]["secs"], 60);
}

#[test]
fn a_changed_hook_is_another_version_and_a_changed_limit_is_not() {
    let generation = |keys: &str| {
        let loaded = service(keys).load().unwrap();
        loaded.project.services.values().next().unwrap().generation()
    };
    let plain = generation("tty: true");
    let hooked = generation("tty: true\npost_start: [{command: [a]}]");
    assert_ne!(plain, hooked);
    assert_ne!(hooked, generation("tty: true\npost_start: [{command: [b]}]"));
    assert_ne!(hooked, generation("tty: true\npre_stop: [{command: [a]}]"));
    for same in [
        "mem_limit: 64m",
        "mem_reservation: 64m",
        "cpus: 0.5",
        "cpuset: \"0\"",
        "pids_limit: 50",
        "deploy: {resources: {limits: {memory: 64m, cpus: 0.5, pids: 50}, reservations: {memory: 32m}}}",
        "x-sameport: {pre_deploy: {command: a}}",
    ] {
        assert_eq!(generation(&format!("tty: true\n{same}")), plain, "{same}");
    }
    assert_ne!(
        generation("tty: true\nnetwork_mode: host\nshm_size: 1m"),
        generation("tty: true\nnetwork_mode: host")
    );
}

#[test]
fn mistakes() {
    assert_shown(
        "hooks_mistakes",
        &gallery([
            ("no list", service("post_start: {command: a}")),
            ("no command", service("post_start:\n  - user: root")),
            ("an empty command", service("pre_stop:\n  - command: []")),
            ("a quote", service("pre_stop:\n  - command: \"a 'b\"")),
            ("no mapping", service("pre_stop: [a]")),
            ("a word", service("post_start:\n  - command: a\n    privileged: maybe")),
            ("a slip", service("post_start:\n  - command: a\n    usr: root")),
            ("a job without a command", service("x-sameport: {pre_deploy: {image: a}}")),
            (
                "a job in no time",
                service("x-sameport: {pre_deploy: {command: a, timeout: 0s, image: \"a b\"}}"),
            ),
            ("a job by two names", service("x-sameport: {before: {command: a}, pre_deploy: {command: b}}")),
            ("a job as a text", service("x-sameport: {pre_deploy: migrate}")),
        ]),
    );
}
