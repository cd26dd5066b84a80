//! One project on one engine has one supervisor, whoever starts it, and from wherever.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::support::{
    daemon::{Daemon, LiveRestore},
    docker::Docker,
    load::Load,
    project::{Finished, Project, web},
    wait::{self, check, slowly},
};

/// A user of this host who may use the engine, and is nobody in particular.
const OTHER_USER: &str = "23456";

/// A command of the project's folder that is run by another program.
fn by(project: &Project, program: &str, args: &[&str], sameport: &[&str]) -> Command {
    let inside = project.command(sameport);
    let mut command = Command::new(program);
    for (key, value) in inside.get_envs() {
        command.env(key, value.unwrap());
    }
    command.current_dir(inside.get_current_dir().unwrap()).stdin(Stdio::null());
    command.args(args).arg(inside.get_program()).args(inside.get_args());
    command
}

/// A folder of that name in the project's, which belongs to a user.
fn folder(project: &Project, name: &str, user: &str) -> String {
    let folder = project.path(name);
    fs::create_dir_all(&folder).unwrap();
    let user = user.parse().ok();
    std::os::unix::fs::chown(&folder, user, user).unwrap();
    folder.display().to_string()
}

/// As the same user, but without what a login sets: as cron does it.
fn by_cron(project: &Project, args: &[&str]) -> Command {
    let mut command = project.command(args);
    command.env("XDG_RUNTIME_DIR", folder(project, "cron", "0"));
    command
}

fn by_another_user(project: &Project, args: &[&str]) -> Command {
    let group = fs::metadata("/var/run/docker.sock").unwrap().gid().to_string();
    by_user_with(project, &["--groups", &group], args)
}

/// A user of this host who may not use the engine.
fn by_user_without_engine(project: &Project, args: &[&str]) -> Command {
    by_user_with(project, &["--clear-groups"], args)
}

fn by_user_with(project: &Project, groups: &[&str], args: &[&str]) -> Command {
    let user = [&["--reuid", OTHER_USER, "--regid", OTHER_USER], groups].concat();
    let mut command = by(project, "setpriv", &user, args);
    let home = folder(project, "home", OTHER_USER);
    fs::set_permissions(project.path("."), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    command.env("XDG_RUNTIME_DIR", &home).env("XDG_STATE_HOME", &home).env("HOME", &home);
    command
}

/// From a host that shares nothing with this one but the way to the engine: other processes, another name, another start of
/// its kernel.
fn from_another_host(project: &Project, args: &[&str]) -> Command {
    let boot = project.path("boot_id");
    fs::write(&boot, "00000000-0000-4000-8000-000000000000\n").unwrap();
    let script = format!(
        "hostname elsewhere && mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
        boot.display()
    );
    let apart = ["--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "sh", "-c", &script, "sh"];
    let mut command = by(project, "unshare", &apart, args);
    let home = folder(project, "elsewhere", "0");
    command.env("XDG_RUNTIME_DIR", &home).env("XDG_STATE_HOME", &home);
    command
}

fn finish(mut command: Command) -> Finished {
    command.output().unwrap().into()
}

/// Who supervises, as `sameport ls` says.
fn owner(project: &Project) -> Option<Value> {
    // A process that is killed lets go of one thing after the other.
    wait::until("what is told of it fits together", || {
        let listed: Value = serde_json::from_str(&project.run(&["ls", "-a", "--format", "json"])).unwrap();
        let is_it = |listed: &&Value| listed["name"].as_str() == Some(&project.name);
        let Some(found) = listed.as_array().unwrap().iter().find(is_it) else { return Ok(None) };
        let owner = Some(found["supervisor"].clone()).filter(|owner| !owner.is_null());
        check(found["supervised"] == owner.is_some(), found).map(|()| owner)
    })
}

fn assert_refused(refused: &Finished, owner: &[&str]) {
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("is already supervised by process "), "{refused:#?}");
    for words in owner {
        assert!(refused.stderr.contains(words), "{words}: {refused:#?}");
    }
    assert!(refused.stderr.contains("help: "), "{refused:#?}");
}

#[test]
fn another_runtime_folder_of_the_same_user_leads_to_the_same_supervisor() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    let supervisor = project.supervisor().unwrap();
    for args in [&["up", "-d", "--wait", "--scale", "web=2"][..], &["scale", "web=3"], &["restart"]] {
        let done = finish(by_cron(&project, args));
        assert_eq!(done.code, Some(0), "{done:#?}");
    }
    assert_eq!(project.serves(3).answers.len(), 3);
    let refused = finish(by_cron(&project, &["supervise"]));
    let pid = format!("process {supervisor} of ");
    assert_refused(&refused, &[&pid, "since 20", "UTC"]);
    assert_eq!(project.supervisor(), Some(supervisor));
    let owner = owner(&project).unwrap();
    assert_eq!(owner["pid"], supervisor.as_raw());
    let done = finish(by_cron(&project, &["down"]));
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!(project.leftovers(), Vec::<String>::new());
    assert_eq!(project.supervisor(), None);
}

#[test]
fn another_user_learns_who_supervises_and_may_look_on() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let supervisor = project.supervisor().unwrap();
    let before = project.processes();
    let pid = format!("process {supervisor} of root on ");
    for args in [
        &["up", "-d"][..],
        &["up"],
        &["supervise"],
        &["scale", "web=1"],
        &["restart"],
        &["down"],
        &["drain", "web-1"],
    ] {
        let refused = finish(by_another_user(&project, args));
        assert_refused(&refused, &[&pid, "since 20", "as root on "]);
    }
    assert_eq!(project.processes(), before);
    let shown = finish(by_another_user(&project, &["ps"]));
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    assert!(shown.stdout.contains("web-1") && shown.stdout.contains("web-2"), "{shown:#?}");
    assert!(!shown.stderr.contains("supervise"), "{shown:#?}");
    // He is told what only the supervisor knows.
    assert_eq!(
        finish(by_another_user(&project, &["ps", "--format", "json"])).stdout,
        project.run(&["ps", "--format", "json"])
    );
    let told = finish(by_another_user(&project, &["events", "--no-follow"]));
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert!(told.stdout.contains("converged"), "{told:#?}");
    let refused = finish(by_another_user(&project, &["weight", "web-1=50"]));
    assert_refused(&refused, &[&pid]);
    // Who may not use the engine is told nothing, by neither.
    for args in [&["ps"][..], &["events", "--no-follow"], &["status"]] {
        let told = finish(by_user_without_engine(&project, args));
        assert_eq!(told.code, Some(3), "{told:#?}");
        assert!(told.stderr.contains("no permission to use the container engine"), "{told:#?}");
        assert!(!format!("{told:?}").contains("web-1"), "{told:#?}");
    }
    let logs = finish(by_another_user(&project, &["logs"]));
    assert_eq!(logs.code, Some(0), "{logs:#?}");
    let listed = finish(by_another_user(&project, &["ls"]));
    let row = listed.stdout.lines().find(|line| line.contains(&project.name)).unwrap().to_owned();
    assert!(
        row.contains("root@") && row.contains(project.path("").to_str().unwrap().trim_end_matches('/')),
        "{row}"
    );
    // Once it is killed, anybody may take over.
    project.kill_supervisor();
    let begun = finish(by_another_user(&project, &["up", "-d", "--wait"]));
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    assert_eq!(owner(&project).unwrap()["user_name"], OTHER_USER);
    let refused = project.try_run(&["scale", "web=1"]);
    assert_refused(&refused, &[&format!(" of {OTHER_USER} on ")]);
    let down = finish(by_another_user(&project, &["down"]));
    assert_eq!(down.code, Some(0), "{down:#?}");
    assert_eq!(project.leftovers(), Vec::<String>::new());
}

#[test]
fn many_that_begin_at_once_are_one() {
    let project = Project::web(1);
    for round in 0..3 {
        let commands = (0..6).map(|number| {
            let mut command = project.command(&["up", "-d", "--wait"]);
            if number % 2 == 1 {
                command.env("XDG_RUNTIME_DIR", folder(&project, &format!("cron{number}"), "0"));
            }
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        let commands: Vec<_> = commands.collect();
        // All of them end before the project is taken away, whatever they say.
        let finished: Vec<Finished> =
            commands.into_iter().map(|command| command.wait_with_output().unwrap().into()).collect();
        for finished in finished {
            assert_eq!(finished.code, Some(0), "round {round}: {finished:#?}");
        }
        let pid = owner(&project).unwrap()["pid"].as_i64().unwrap();
        let words = |pid: &str| fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let ours = format!("COMPOSE_PROJECT_NAME={}\0", project.name);
        let supervisors = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let is_one = String::from_utf8_lossy(&command).contains("supervise")
                && String::from_utf8_lossy(&words(&name)).contains(&ours);
            is_one.then_some(name)
        });
        assert_eq!(supervisors.collect::<Vec<_>>(), [pid.to_string()], "round {round}");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
        wait::until("it has no supervisor", || check(owner(&project).is_none(), pid));
    }
}

#[test]
fn a_lock_that_is_removed_from_the_engine_is_back_within_a_second() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    let supervisor = project.supervisor().unwrap();
    let before = project.processes();
    let name = project.engine_lock();
    let other = format!("{name}.old");
    for break_it in [&["rm", &name][..], &["rename", &name, &other], &["rm", "-f", &name]] {
        let id = project.docker.inspect(&name)["Id"].as_str().unwrap().to_owned();
        project.docker.run(break_it);
        let begin = Instant::now();
        wait::until("the lock is back", || match project.docker.find(&name) {
            Some(found) if found["Id"] != id.as_str() => Ok(()),
            found => Err(format!("{found:?}")),
        });
        assert!(begin.elapsed() < slowly(Duration::from_secs(1)), "{break_it:?}: {:?}", begin.elapsed());
        wait::until("the lock of before is gone", || check(project.docker.find(&id).is_none(), &id));
        assert_refused(&finish(by_cron(&project, &["supervise"])), &[&format!("process {supervisor} of")]);
    }
    assert_eq!(project.processes(), before);
    project.run(&["down"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
}

#[test]
fn whoever_has_lost_its_place_ends_and_leaves_everything_running() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let supervisor = project.supervisor().unwrap();
    let before = project.processes();
    // It sees nothing of what happens until another one has its place.
    kill(supervisor, Signal::SIGSTOP).unwrap();
    project.docker.run(&["rm", &project.engine_lock()]);
    let mut other = by_another_user(&project, &["up", "-d", "--wait"]);
    let begun: Finished = other.output().unwrap().into();
    kill(supervisor, Signal::SIGCONT).unwrap();
    assert_eq!(begun.code, Some(0), "{begun:#?}");
    wait::until("the first one ends", || check(project.supervisor().is_none(), project.log()));
    assert!(project.log().contains("another supervisor has taken over"), "{}", project.log());
    assert_eq!(project.processes(), before);
    assert_eq!(owner(&project).unwrap()["user_name"], OTHER_USER);
    let down = finish(by_another_user(&project, &["down"]));
    assert_eq!(down.code, Some(0), "{down:#?}");
}

#[test]
fn a_container_of_somebody_else_that_has_the_name_of_the_lock_is_named_and_kept() {
    let project = Project::web(1);
    let name = project.engine_lock();
    // As from an image that somebody has made of a lock.
    let label = r#"dev.sameport.lock={"owner":{"host":"x","pid":1,"user":"x","uid":0,"since":"2026-01-01T00:00:00Z"},"liveness":{"thread":{"pid":1,"tid":2}}}"#;
    project.docker.run(&["create", "--name", &name, "--label", label, &project.image("NGINX")]);
    for args in [&["up", "-d"][..], &["up"], &["supervise"]] {
        let refused = project.try_run(args);
        assert_eq!(refused.code, Some(1), "{refused:#?}");
        assert!(refused.stderr.contains(&format!("has its name, {name}")), "{refused:#?}");
        assert!(refused.stderr.contains(&format!("docker rm {name}")), "{refused:#?}");
    }
    project.docker.run(&["rm", &name]);
    project.run(&["up", "-d", "--wait"]);
}

#[test]
fn on_another_host_it_holds_the_lock_by_its_connection() {
    let project = Project::web(2);
    let mut far = from_another_host(&project, &["supervise"]);
    let mut far = far.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait::until("it supervises", || match owner(&project) {
        Some(owner) if owner["host"] == "elsewhere" => Ok(()),
        owner => Err(format!("{owner:?}")),
    });
    project.serves(2);
    let before = project.processes();
    assert_eq!(project.docker.inspect(&project.engine_lock())["State"]["Status"], "running");
    assert_refused(
        &project.try_run(&["up", "-d"]),
        &[" of root on elsewhere, since 20", "as root on elsewhere"],
    );
    // It is put back here, too.
    let id = project.docker.inspect(&project.engine_lock())["Id"].as_str().unwrap().to_owned();
    project.docker.run(&["rm", "-f", &project.engine_lock()]);
    wait::until("the lock is back", || match project.docker.find(&project.engine_lock()) {
        Some(found) if found["Id"] != id.as_str() && found["State"]["Status"] == "running" => Ok(()),
        found => Err(format!("{found:?}")),
    });
    assert_refused(&project.try_run(&["up", "-d"]), &[" of root on elsewhere"]);
    // The engine notices the end of its connection.
    far.kill().unwrap();
    far.wait().unwrap();
    wait::until("its lock is gone", || check(project.docker.find(&project.engine_lock()).is_none(), ""));
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.processes(), before);
    let refused = finish(from_another_host(&project, &["supervise"]));
    assert_refused(&refused, &[&format!("process {} of root on ", project.supervisor().unwrap())]);
    // The end of one that was killed is seen from there, too.
    project.kill_supervisor();
    let down = finish(from_another_host(&project, &["down"]));
    assert_eq!(down.code, Some(0), "{down:#?}");
    assert_eq!(project.leftovers(), Vec::<String>::new());
}

#[test]
fn an_engine_that_starts_again_has_the_lock_again() {
    let mut daemon = Daemon::start(LiveRestore::Off);
    let project = Project::on(daemon.docker(), &web(1));
    let mut far = from_another_host(&project, &["supervise"]);
    let mut far = far.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let holds = || match owner(&project) {
        Some(owner) if owner["host"] == "elsewhere" => Ok(()),
        owner => Err(format!("{owner:?}")),
    };
    wait::until("it supervises", holds);
    daemon.restart();
    wait::until("it supervises again", holds);
    assert_refused(&project.try_run(&["up", "-d"]), &[" of root on elsewhere"]);
    far.kill().unwrap();
    far.wait().unwrap();
    wait::until("its lock is gone", || check(project.docker.find(&project.engine_lock()).is_none(), ""));

    project.run(&["up", "-d", "--wait"]);
    let supervisor = project.supervisor();
    daemon.restart();
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.supervisor(), supervisor);
    assert_refused(&finish(by_cron(&project, &["supervise"])), &["process "]);
    project.run(&["down"]);
    assert_eq!(project.leftovers(), Vec::<String>::new());
}

#[test]
fn a_command_for_another_engine_does_not_reach_the_project_of_that_name_on_this_one() {
    let project = Project::web(1);
    project.run(&["up", "-d", "--wait"]);
    let (supervisor, before) = (project.supervisor(), project.processes());
    let at = |docker: &Docker, args: &[&str]| {
        let mut command = project.command(args);
        docker.choose(&mut command);
        finish(command)
    };
    let daemon = Daemon::start(LiveRestore::Off);
    let socket = daemon.socket();
    for args in
        [&["down"][..], &["scale", "web=2"], &["up", "-d"], &["restart"], &["ps"], &["rollout", "web"]]
    {
        let refused = at(&daemon.docker(), args);
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:#?}");
        for words in ["is one on another engine, unix://", &socket, "help: ", "`-p NAME`"] {
            assert!(refused.stderr.contains(words), "{words}: {args:?}: {refused:#?}");
        }
    }
    assert_eq!((project.supervisor(), project.processes()), (supervisor, before));
    // The engine of this project may be reached in another way.
    let link = project.path("docker.sock");
    std::os::unix::fs::symlink("/var/run/docker.sock", &link).unwrap();
    let done = at(&Docker::at(&link), &["scale", "web=2"]);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!(project.serves(2).answers.len(), 2);
}

#[test]
fn without_a_supervisor_what_is_kept_of_a_project_stays_that_of_its_engine() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    project.run(&["scale", "web=3"]);
    project.kill_supervisor();
    let state = project.path(&format!("sameport/{}.json", project.name));
    let (before, kept) = (project.processes(), std::fs::read(&state).unwrap());
    let daemon = Daemon::start(LiveRestore::Off);
    let there = |args: &[&str]| {
        let mut command = project.command(args);
        daemon.docker().choose(&mut command);
        finish(command)
    };
    for args in [&["scale", "web=1"][..], &["up", "-d"], &["up", "--dry-run"], &["restart"]] {
        let refused = there(args);
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:#?}");
        for words in ["is of a project on another engine, unix://", &daemon.socket(), "help: ", "`-p NAME`"] {
            assert!(refused.stderr.contains(words), "{words}: {args:?}: {refused:#?}");
        }
    }
    // There is none there: neither to show, nor to remove.
    for args in [&["ps"][..], &["down", "--dry-run", "--purge"], &["down", "--purge"]] {
        let done = there(args);
        assert_eq!(done.code, Some(0), "{args:?}: {done:#?}");
    }
    assert_eq!(std::fs::read(&state).unwrap(), kept);
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.processes(), before);
}

#[test]
fn nobody_notices_that_the_lock_is_taken_and_given_back() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let load = Load::start(project.outside(), 200);
    for _ in 0..3 {
        project.docker.run(&["rm", &project.engine_lock()]);
        project.kill_supervisor();
        assert_eq!(finish(by_cron(&project, &["up", "-d", "--wait"])).code, Some(0));
        let pid = owner(&project).unwrap()["pid"].as_i64().unwrap();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGTERM).unwrap();
        wait::until("it has given the lock back", || {
            check(project.docker.find(&project.engine_lock()).is_none(), project.log())
        });
        project.run(&["up", "-d", "--wait"]);
    }
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
}
