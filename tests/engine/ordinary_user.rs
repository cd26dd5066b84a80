//! Who may use the engine and has no other right: a user in the group of its socket, without BPF. Images share their ports by
//! themselves then, or a second replica of them cannot start.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid, chown};
use sameport::api::schema::Status;

use super::support::project::{Finished, Project};

/// The number of a user whom this host does not know.
const USER: u32 = 64_321;

/// A project of such a user.
struct Ordinary {
    project: Project,
    program: PathBuf,
}

impl Ordinary {
    fn new(compose: &str) -> Self {
        let project = Project::new(compose);
        let (folder, program) = (project.path(""), project.path("sameport-copy"));
        // Whoever builds may do so where nobody else may read.
        let built = Path::new(env!("CARGO_BIN_EXE_sameport"));
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(drop)).unwrap();
        chown(&folder, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).unwrap();
        Self { project, program }
    }

    fn run(&self, args: &[&str]) -> Finished {
        let group = fs::metadata("/var/run/docker.sock").unwrap().gid();
        assert_ne!(group, 0, "the engine's socket is one group's");
        let (user, groups) = (format!("--reuid={USER}"), format!("--groups={group}"));
        let settings = [
            user.as_str(),
            &format!("--regid={USER}"),
            &groups,
            "--bounding-set=-all",
            "--inh-caps=-all",
            "env",
            &format!("HOME={}", self.project.path("").display()),
        ];
        self.project.try_run_by_setpriv(&settings, Some(&self.program), args)
    }

    /// That it is no success, and what is said.
    fn fails(&self, args: &[&str], words: &[&str]) {
        let told = self.run(args);
        assert_eq!(told.code, Some(1), "{args:?}: {told:#?}");
        for words in words {
            assert!(told.stderr.contains(words), "{args:?}: {words:?} in {told:#?}");
        }
    }
}

fn file(image: &str, command: &str, replicas: u32) -> String {
    format!(
        r#"
services:
  web:
    image: ${{{image}}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
    stop_signal: SIGKILL
    deploy: {{ replicas: {replicas} }}
{command}"#
    )
}

#[test]
fn an_image_that_shares_its_port_is_up_once_all_replicas_listen() {
    let user = Ordinary::new(&file("NGINX", "", 3));
    let up = user.run(&["up", "-d", "--wait"]);
    assert_eq!(up.code, Some(0), "{up:#?}");
    let line = up.stderr.lines().find(|line| line.contains("the kernel does not share ports"));
    assert!(
        line.is_some_and(|line| line.contains("sharing: application") && line.contains("doctor")),
        "{up:#?}"
    );
    user.project.serves(3);
    let told = user.run(&["status", "--format", "json"]);
    let status: Status = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("{told:#?}"));
    assert!(status.converged && status.pods[0].sharing_error.is_some(), "{status:#?}");
    let supervisor = user.project.supervisor().unwrap();
    assert_eq!(fs::metadata(format!("/proc/{supervisor}")).unwrap().uid(), USER);
    let down = user.run(&["down"]);
    assert_eq!(down.code, Some(0), "{down:#?}");
    assert_eq!(user.project.leftovers(), Vec::<String>::new());
}

#[test]
fn an_image_that_does_not_share_its_port_is_no_success_and_the_cure_is_told() {
    let user = Ordinary::new(&file("GO", "", 2));
    for args in [&["up", "-d", "--wait"][..], &["up", "--wait"]] {
        user.fails(args, &["cannot bind port 8080: the image", "help: ", "SO_REUSEPORT"]);
        // One of them serves; nobody else ever had the port.
        user.project.serves_some();
    }
    assert_eq!(user.run(&["down"]).code, Some(0));
    // One alone needs nothing of it.
    user.project.write(&file("GO", "", 1));
    let up = user.run(&["up", "-d", "--wait"]);
    assert_eq!(up.code, Some(0), "{up:#?}");
    user.project.serves(1);
}

/// It never ends, and never listens.
#[test]
fn a_server_that_waits_for_its_port_is_no_success_and_the_time_limit_says_what_was_waited_for() {
    let retrying = r#"    command:
      - python3
      - -c
      - |
        import socket, time
        while True:
            s = socket.socket()
            try:
                s.bind(("", 8080))
                break
            except OSError:
                time.sleep(0.2)
        s.listen()
        while True:
            s.accept()[0].close()
"#;
    let user = Ordinary::new(&file("PYTHON", retrying, 3));
    for args in
        [&["up", "-d", "--wait", "--wait-timeout", "6s"][..], &["up", "--wait", "--wait-timeout", "6s"]]
    {
        user.fails(
            args,
            &["error: not done within 6s; waited for:\n    1 of 3 replicas of web listen on port 8080\n"],
        );
    }
}
