//! Versions that failed or were given up: nobody goes back to them, and everybody is told.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::support::{
    docker::Docker,
    load,
    project::Project,
    wait::{self, check},
};

/// Replicas of Go that answer with the name of their version.
fn go(version: &str) -> String {
    format!(
        "services:\n  web:\n    image: ${{GO}}\n    environment: {{ REPLICA: \"{version}\" }}\n    \
         ports: [\"${{PORT}}:8080\"]\n    stop_grace_period: 1s\n    \
         deploy: {{ replicas: 2, update_config: {{ monitor: 1s }} }}\n"
    )
}

/// An image that is there as long as this is.
struct Derived {
    docker: Docker,
    name: String,
}

impl Derived {
    /// The server's image, with another entrypoint.
    fn of(project: &Project, name: &str, entrypoint: &str) -> Self {
        let docker = Docker::default();
        let name = format!("localhost/{}-{name}:1", project.name);
        let container = docker.run(&["create", &project.image("GO")]);
        docker.run(&["commit", "--change", &format!("ENTRYPOINT {entrypoint}"), &container, &name]);
        docker.run(&["rm", &container]);
        Self { docker, name }
    }
}

impl Drop for Derived {
    fn drop(&mut self) {
        let _ = self.docker.try_run(&["rmi", "-f", &self.name]);
    }
}

fn up() -> Project {
    let project = Project::new(&go("1"));
    project.run(&["up", "-d", "--wait"]);
    project
}

fn answers(project: &Project) -> Vec<String> {
    load::send(project.loopback(), 30).answers.into_keys().collect()
}

#[test]
fn a_version_that_failed_is_named_and_not_gone_back_to() {
    let project = up();
    let bad = Derived::of(&project, "bad", r#"["sh", "-c", "echo no database; exit 3"]"#);
    let rollout = ["rollout", "web", "--pull", "never", "--image", &bad.name];
    assert_eq!(project.try_run(&rollout).code, Some(1));
    let status = project.run(&["rollout", "status", "web"]);
    assert!(
        status.contains(&format!("version 2 ({}) failed: web-1: it ended: exit code 3", bad.name)),
        "{status}"
    );
    assert!(
        status.contains(&format!("`sameport rollout web --image {}` tries it again", bad.name)),
        "{status}"
    );
    let history = project.run(&["rollout", "history", "web"]);
    assert!(history.contains("failed: web-1: it ended: exit code 3"), "{history}");
    let history: Value =
        serde_json::from_str(&project.run(&["rollout", "history", "web", "--format", "json"])).unwrap();
    assert_eq!((&history[0]["served"], &history[0]["failure"]), (&true.into(), &Value::Null), "{history:#}");
    assert_eq!(
        (&history[1]["served"], &history[1]["failure"]["code"]),
        (&false.into(), &"ended".into()),
        "{history:#}"
    );
    // Nothing is in progress that could be aborted.
    let before = project.processes();
    let abort = project.try_run(&["rollout", "abort", "web"]);
    assert_eq!(abort.code, Some(1), "{abort:#?}");
    assert!(abort.stderr.contains("`web`: no rollout is in progress"), "{abort:#?}");
    assert!(abort.stderr.contains("help: `sameport rollout undo web`"), "{abort:#?}");
    assert_eq!(project.processes(), before);
    project.write(&go("3"));
    project.run(&["up", "-d", "--wait"]);
    project.run(&["rollout", "undo", "web"]);
    assert_eq!(answers(&project), ["1"]);
    let empty = project.try_run(&["rollout", "web", "--image", ""]);
    assert_eq!(empty.code, Some(2), "{empty:#?}");
    assert!(empty.stderr.contains("the image after `--image` is empty"), "{empty:#?}");
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_rollout_that_another_one_takes_the_place_of_ends_its_command() {
    let project = up();
    let deaf = Derived::of(&project, "deaf", r#"["sleep", "1000"]"#);
    let rollout = ["rollout", "web", "--pull", "never", "--image", &deaf.name];
    let mut first = project.start(&rollout);
    wait::until("the first rollout begins", || {
        let printed = first.printed();
        check(printed.contains("web-1 replacement started"), printed)
    });
    project.write(&go("3"));
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(answers(&project), ["3"]);
    assert_eq!(first.exit_code(), Some(1), "{}", first.printed());
    assert!(
        first.printed().contains("error: web: version 2 was replaced by version 3"),
        "{}",
        first.printed()
    );
    project.run(&["rollout", "undo", "web"]);
    assert_eq!(answers(&project), ["1"]);
    // Whoever leaves is told what goes on, and how to end it.
    let mut second = project.start(&rollout);
    wait::until("the next rollout begins", || {
        let printed = second.printed();
        check(printed.contains("web-1 replacement started"), printed)
    });
    second.signal(Signal::SIGINT);
    assert_eq!(second.exit_code(), Some(130), "{}", second.printed());
    let told = second.printed();
    assert!(
        told.contains("interrupted: the rollout continues") && told.contains("rollout abort web"),
        "{told}"
    );
    project.run(&["rollout", "abort", "web"]);
    assert_eq!(answers(&project), ["1"]);
}

/// An image of the server under a name, with a label that nothing else has; the name moves on to it.
fn build(project: &Project, name: &str, release: u32) -> String {
    let docker = Docker::default();
    let labels = [format!("{}=1", project.name), format!("release={release}")];
    let container =
        docker.run(&["create", "--label", &labels[0], "--label", &labels[1], &project.image("GO")]);
    let id = docker.run(&["commit", &container, name]);
    docker.run(&["rm", &container]);
    id
}

#[test]
fn the_images_of_remembered_versions_outlive_a_cleanup_and_their_names_go_with_the_project() {
    let project = Project::new(&go("1"));
    let moving = Derived { docker: Docker::default(), name: format!("localhost/{}-moving:1", project.name) };
    let docker = &moving.docker;
    let kept = || docker.kept_images(&project.name).unwrap();
    let first = build(&project, &moving.name, 1);
    project.write(&go("1").replace("${GO}", &moving.name));
    project.run(&["up", "-d", "--wait", "--pull", "never"]);
    let second = build(&project, &moving.name, 2);
    assert_ne!(first, second);
    project.run(&["rollout", "web", "--pull", "never"]);
    wait::until("the images of both versions have names", || check(kept().len() == 2, kept()));
    // Of all that has no name, it takes only what this test has made.
    docker.run(&["image", "prune", "-f", "--filter", &format!("label={}", project.name)]);
    docker.run(&["image", "inspect", &first]);
    project.run(&["rollout", "undo", "web"]);
    let runs = docker.run(&["inspect", "-f", "{{.Image}}", &format!("{}-web-1", project.name)]);
    assert_eq!(runs, first);
    project.run(&["up", "-d", "--wait", "--pull", "never"]);
    project.run(&["down"]);
    assert_eq!(kept(), Vec::<String>::new());
    assert!(docker.try_run(&["image", "inspect", &first]).is_err(), "nobody has a name for it any more");
    docker.run(&["image", "inspect", &second]);
}
