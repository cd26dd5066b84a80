//! A supervisor that a service manager starts: it goes on with what was asked for, and nobody notices that it takes over.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::{Signal, kill};

use super::support::{
    load::Load,
    project::Project,
    wait::{self, check},
};

/// Its version is that of a variable.
const TAGGED: &str = r#"
services:
  web:
    image: ${NGINX}
    environment: { REPLICA: "{{.Slot}}", TAG: "${TAG}" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 2 }
"#;

/// Stands in for systemd's own: it runs what a unit says, as far as units of ours need.
const SYSTEMCTL: &str = r#"#!/bin/bash
echo "systemctl $*" >>"$FOLDER/calls"
for name; do :; done
unit=/etc/systemd/system/$name wants=/etc/systemd/system/multi-user.target.wants/$name
value() { sed -n "s/^$1=//p" "$unit"; }
case $1 in
enable) mkdir -p "${wants%/*}" && ln -sf "$unit" "$wants" ;;
disable) rm -f "$wants" ;;
start)
    log=$FOLDER/unit.log
    environment=$(value Environment | sed 's/^/export /') file=$(value EnvironmentFile) command=$(value ExecStart)
    env -i PATH="$PATH" setsid bash -c "set -a; $environment; . '$file'; exec $command" >>"$log" 2>&1 </dev/null &
    for _ in {1..200}; do
        if [ -S "$FOLDER/sameport/${name:9:-8}.sock" ]; then exit 0; fi
        sleep 0.1
    done
    cat "$log" >&2; exit 1 ;;
esac
"#;
/// Puts the test's folders in the place of systemd's.
const INSIDE: &str = r#"
mkdir -p /etc/systemd/system /run/systemd
mount --bind "$FOLDER/units" /etc/systemd/system && mount --bind "$FOLDER/booted" /run/systemd || exit 99
exec "$@"
"#;

/// A command of a project whose variable has that value, or none.
fn tagged(project: &Project, tag: Option<&str>, args: &[&str]) -> Command {
    let mut command = project.command(args);
    match tag {
        Some(tag) => command.env("TAG", tag),
        None => command.env_remove("TAG"),
    };
    command
}

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{command:?}: {told}");
    told
}

/// The same command on a host with a systemd of the test's own.
fn on_systemd(project: &Project, command: &Command) -> Command {
    let folder = project.path("");
    for name in ["units", "booted/system", "bin"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let systemctl = folder.join("bin/systemctl");
    fs::write(&systemctl, SYSTEMCTL).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let mut inside = Command::new("unshare");
    inside.args(["-m", "sh", "-c", INSIDE, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        value.map(|value| inside.env(name, value));
    }
    let path = std::env::var("PATH").unwrap();
    inside
        .env("PATH", format!("{}:{path}", folder.join("bin").display()))
        .env("FOLDER", folder.display().to_string().trim_end_matches('/'))
        .current_dir(&folder)
        .stdin(Stdio::null());
    inside
}

fn rejections(project: &Project) -> usize {
    // It may not have begun yet.
    let told = project.try_run(&["events", "--no-follow", "--format", "json"]).stdout;
    told.lines().filter(|line| line.contains(r#""event":"rejected""#) && line.contains("`TAG`")).count()
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_supervisor_that_misses_a_variable_keeps_the_version_that_runs() {
    let project = Project::new(TAGGED);
    run(tagged(&project, Some("1"), &["up", "-d", "--wait"]));
    run(tagged(&project, Some("1"), &["scale", "web=3"]));
    project.serves(3);
    let before = project.processes();
    project.kill_supervisor();

    // As cron begins one.
    let supervise = project.start_command(tagged(&project, None, &["supervise"]));
    wait::until("the missing variable is told", || {
        check(rejections(&project) == 1, project.try_run(&["events", "--no-follow"]))
    });
    wait::until("all replicas are up", || {
        let status = project.status();
        check(status.converged && status.replicas.len() == 3, status)
    });
    assert_eq!(project.processes(), before);
    // It does what a supervisor does.
    project.docker.run(&["kill", &format!("{}-web-2", project.name)]);
    project.serves(3);
    let before = project.processes();

    // Nor does it apply the file when it is told to read it again.
    project.write(&TAGGED.replace("replicas: 2", "replicas: 5"));
    kill(project.supervisor().unwrap(), Signal::SIGHUP).unwrap();
    wait::until("it is told again", || {
        check(rejections(&project) == 2, project.try_run(&["events", "--no-follow"]))
    });
    assert_eq!(project.processes(), before);

    // Whoever asks for it gets the version without a value.
    run(tagged(&project, None, &["up", "-d", "--wait"]));
    project.serves(5);
    assert!(before.iter().filter(|process| project.processes().contains(process)).count() <= 1);
    drop(supervise);
}

#[test]
fn a_supervisor_that_resumes_leaves_a_changed_file_and_stopped_services_alone() {
    let project =
        Project::new(&format!("{TAGGED}  idle:\n    image: ${{NGINX}}\n  never:\n    image: ${{NGINX}}\n"));
    run(tagged(&project, Some("1"), &["up", "-d", "--wait", "web", "idle"]));
    run(tagged(&project, Some("1"), &["stop", "idle"]));
    run(tagged(&project, Some("1"), &["scale", "web=3"]));
    project.serves(3);
    let before = project.processes();
    project.kill_supervisor();
    // What the end of the host ends.
    project.docker.run(&["kill", &format!("{}-web-1", project.name)]);

    let resumed = project.start_command(tagged(&project, Some("2"), &["supervise", "--resume"]));
    project.serves(3);
    let after = project.processes();
    assert_eq!(after.len(), before.len(), "{before:?} {after:?}");
    assert_eq!(before.iter().filter(|process| !after.contains(process)).count(), 1, "{before:?} {after:?}");
    let history = project.run(&["rollout", "history", "web"]);
    assert_eq!(history.lines().count(), 2, "one version below the head: {history}");
    drop(resumed);
}

#[test]
fn nobody_notices_that_the_supervisor_of_the_unit_takes_over() {
    let project = Project::new(TAGGED);
    let on = |tag: Option<&str>, args: &[&str]| run(on_systemd(&project, &tagged(&project, tag, args)));
    let told = on(Some("1"), &["up", "-d", "--wait"]);
    assert!(told.contains("does not start at boot; `sameport enable`"), "{told}");
    on(Some("1"), &["scale", "web=3"]);
    on(Some("1"), &["weight", "web-2=50"]);
    project.serves(3);
    let (before, background) = (project.processes(), project.supervisor());
    let load = Load::start(project.outside(), 100);
    std::thread::sleep(Duration::from_millis(500));
    let told = on(Some("1"), &["enable"]);
    assert!(told.contains("TAG") && !told.contains("it does not run now"), "{told}");
    std::thread::sleep(Duration::from_millis(500));
    let report = load.finish();
    assert!(report.failures.is_empty() && report.answered() > 20, "{report}");
    assert_ne!(project.supervisor(), background);
    assert!(project.supervisor().is_some());
    assert_eq!(project.processes(), before);
    let weights: Vec<_> = project
        .replicas("web")
        .iter()
        .map(|r| r.traffic.as_ref().map(|traffic| traffic.desired_weight))
        .collect();
    assert_eq!(weights, [Some(100), Some(50), Some(100)]);
    let listed = on_systemd(
        &project,
        &tagged(&project, None, &["ls", "--filter", &format!("name=^{}$", project.name)]),
    )
    .output()
    .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.lines().nth(1).unwrap().ends_with("yes         yes"), "{listed}");

    // A version that is applied later is that of the next start, too.
    let told = on(Some("2"), &["up", "-d", "--wait"]);
    assert!(!told.contains("does not start at boot"), "{told}");
    let kept = fs::read_to_string(project.path(&format!("sameport/{}.env", project.name))).unwrap();
    assert!(kept.contains("TAG=\"2\"\n"), "{kept}");

    let told = on(None, &["down"]);
    assert!(told.contains("does not start at boot any more"), "{told}");
    assert_eq!(fs::read_dir(project.path("units/multi-user.target.wants")).unwrap().count(), 0);
    assert!(!project.path(&format!("units/sameport-{}.service", project.name)).exists());
    assert_eq!(project.leftovers(), [] as [&str; 0]);
}
