//! What a real project prints, command by command, is what the schemas say; and no secret is in it.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use serde_json::Value;

use super::{
    schemas::Validator,
    support::{project::Project, wait},
};

/// What no output may hold.
const SECRET: &str = "hunter2-never-printed";

/// A project with a secret wherever an environment can be, a replica that ends, one that waits, a job and hooks.
const SHOP: &str = r#"
services:
  web:
    image: ${NGINX}
    ports: ["${PORT}:8080"]
    scale: 2
    environment: { REPLICA: "{{.Slot}}", PASSWORD: hunter2-never-printed }
    post_start: [{ command: ["sh", "-c", ":"], environment: { PASSWORD: hunter2-never-printed } }]
    x-sameport:
      pre_deploy: { command: ["sh", "-c", ":"], environment: { PASSWORD: hunter2-never-printed } }
  crash:
    image: ${NGINX}
    entrypoint: ["sh", "-c", "echo no database; exit 3"]
    environment: { PASSWORD: hunter2-never-printed }
  later:
    image: ${NGINX}
    depends_on: { crash: { condition: service_completed_successfully } }
"#;

struct Checked<'a> {
    project: &'a Project,
    /// All that was printed.
    printed: String,
}

impl Checked<'_> {
    fn run(&mut self, args: &[&str]) -> String {
        let finished = self.project.try_run(args);
        assert!(!finished.stdout.contains(SECRET), "{args:?}: {finished:#?}");
        assert!(!finished.stderr.contains(SECRET), "{args:?}: {finished:#?}");
        self.printed.push_str(&finished.stdout);
        self.printed.push_str(&finished.stderr);
        finished.stdout
    }

    /// Holds what a command prints against a schema; so many documents at least.
    fn lines(&mut self, schema: &str, args: &[&str], least: usize) -> Vec<Value> {
        let text = self.run(&[args, &["--format", "json"]].concat());
        let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        self.check(schema, args, &found, least);
        found
    }

    /// The same for a command that prints one array.
    fn array(&mut self, schema: &str, args: &[&str], least: usize) -> Vec<Value> {
        let text = self.run(&[args, &["--format", "json"]].concat());
        let found: Vec<Value> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"));
        self.check(schema, args, &found, least);
        found
    }

    fn check(&self, schema: &str, args: &[&str], found: &[Value], least: usize) {
        assert!(found.len() >= least, "{args:?} printed {found:#?}");
        let validator = Validator::of(schema);
        found.iter().for_each(|document| validator.check(document));
    }

    /// What the control socket answers.
    fn socket(&mut self, request: &str) -> Value {
        let mut stream = UnixStream::connect(self.project.socket()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(!answer.contains(SECRET), "{answer}");
        self.printed.push_str(&answer);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

#[test]
fn every_command_prints_what_its_schema_says_and_no_secret() {
    let project = Project::new(SHOP);
    let mut checked = Checked { project: &project, printed: String::new() };
    checked.lines("preview", &["up", "--dry-run"], 1);
    checked.lines("event", &["up", "-d"], 5);
    wait::until("one ends, and the others serve", || {
        let status = project.status();
        let is_up =
            |name: &str| status.replicas.iter().filter(|r| r.service == name && r.state.is_up()).count();
        let ended = status.replicas.iter().any(|r| r.service == "crash" && r.exits >= 3);
        wait::check(is_up("web") == 2 && ended, &status)
    });
    let status = checked.lines("status", &["status"], 1);
    assert_eq!(status[0]["supervised"], true);
    let replicas = checked.lines("replica", &["ps"], 4);
    let state = |name: &str| replicas.iter().find(|r| r["replica"] == name).unwrap()["state"].clone();
    assert_eq!(state("web-1"), "running");
    assert_eq!(state("crash-1"), "restarting");
    assert_eq!(state("later-1"), "waiting");
    checked.lines("weight", &["weight", "web-2=50"], 1);
    checked.lines("weight", &["drain", "web.1"], 1);
    checked.lines("signal", &["kill", "-s", "SIGHUP", &format!("{}-web-2", project.name)], 1);
    // The one that keeps ending is told of at once: there may be no event before that.
    checked.lines("event", &["scale", "web=3"], 0);
    checked.lines("event", &["restart", "web-3"], 0);
    checked.lines("event", &["rollout", "web", "--image", &tagged(&project)], 1);
    checked.lines("rollout-status", &["rollout", "status", "web"], 1);
    let revisions = checked.array("revision", &["rollout", "history", "web"], 2);
    assert_eq!(revisions[0]["environment"]["PASSWORD"], Value::Null);
    let events = checked.lines("event", &["events", "--no-follow"], 20);
    for kind in ["applied", "started", "done", "exited", "rotation", "rollout"] {
        assert!(events.iter().any(|event| event["event"] == kind), "no event {kind}");
    }
    checked.lines("log-record", &["logs", "crash"], 1);
    checked.array("check", &["doctor"], 5);
    checked.lines("version", &["version"], 1);
    checked.array("project", &["ls"], 1);
    let config = checked.lines("config", &["config"], 1);
    assert_eq!(config[0]["services"]["web"]["scale"], 2);
    let reply = checked.socket(
        "POST /v3/request HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8\r\nConnection: close\r\n\r\n\"status\"",
    );
    checked.check("reply", &["status"], &[reply], 1);
    one_spelling(&checked.printed, &project.name);

    // What was asked for is told.
    let told = project.run(&["rollout", "history", "web", "--show-env", "--format", "json"]);
    assert!(told.contains(SECRET), "{told}");
    assert!(project.run(&["config", "--format", "json", "--show-env"]).contains(SECRET));
    fails(&project);
    project.run(&["down", "-v"]);
    project.docker.run(&["rmi", &tagged(&project)]);
}

/// The image of `web` by another name.
fn tagged(project: &Project) -> String {
    let other = format!("localhost/{}-other:1", project.name);
    project.docker.run(&["tag", &project.image("NGINX"), &other]);
    other
}

/// A replica has one name, and so has its container.
fn one_spelling(printed: &str, project: &str) {
    for service in ["web", "crash", "later"] {
        for slot in 1..=3 {
            for other in
                [format!("{service}.{slot}"), format!("{service}_{slot}"), format!("{service}/{slot}")]
            {
                assert!(
                    !printed.contains(&other),
                    "`{other}` is printed; {service}-{slot} of {project} is its name"
                );
            }
        }
    }
}

/// An error is a document, too.
fn fails(project: &Project) {
    for (args, code) in
        [(["drain", "nobody-1"], 2), (["drain", "web"], 2), (["restart", "web-77"], 2), (["ps", "nobody"], 2)]
    {
        let failed = project.try_run(&[&args[..], &["--format", "json"]].concat());
        assert_eq!(failed.code, Some(code), "{failed:#?}");
        let last = failed.stderr.lines().last().unwrap();
        let error: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {failed:#?}"));
        Validator::of("error").check(&error);
        assert_eq!(error["exit_code"], code);
    }
    for command in [&["exec", "web", "--", "true"][..], &["curl", "web-1"]] {
        let refused = project.try_run(&[&["--format", "json"], command].concat());
        assert_eq!(refused.code, Some(2), "{refused:#?}");
    }
}

#[test]
fn templates_print_what_docker_people_expect() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let names: Vec<_> = project.run(&["ps", "--format", "{{.Name}}"]).lines().map(str::to_owned).collect();
    assert_eq!(names, [1, 2].map(|slot| format!("{}-web-{slot}", project.name)));
    let table = project.run(&["ps", "--format", "table {{.Replica}}\\t{{.State}}"]);
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["REPLICA", "STATE"], ["web-1", "running"], ["web-2", "running"]]);
    let quiet = project.run(&["ps", "--quiet"]);
    let ids = project.run(&["ps", "--format", "{{truncate .ID 12}}"]);
    assert_eq!(quiet, ids);
    let wrong = project.try_run(&["ps", "--format", "{{.Nam}}"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("there is no field `.Nam`"), "{wrong:#?}");
}
