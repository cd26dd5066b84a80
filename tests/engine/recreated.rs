//! A program that updates containers, as Watchtower or Portainer do, makes a replica anew of another image.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::support::{
    images,
    project::Project,
    wait::{self, check, slowly},
};

#[test]
fn a_replica_that_another_program_makes_anew_is_told_and_put_right_once() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    let name = format!("{}-web-2", project.name);
    let sandbox = project.docker.inspect(&format!("{}-web-sandbox", project.name))["Id"].clone();
    let made = project.docker.inspect(&name);
    let image = made["Config"]["Image"].clone();
    let labels = made["Config"]["Labels"].as_object().unwrap().iter();
    let labels: Vec<_> = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
    let network = format!("container:{}", sandbox.as_str().unwrap());
    let other = images::build("go");
    let mut run = vec!["run", "-d", "--name", &name, "--network", &network, "-e", "REPLICA=2"];
    labels.iter().for_each(|label| run.extend(["--label", label]));
    run.push(&other);
    // It is faster than the supervisor.
    let supervisor = project.supervisor().unwrap();
    kill(supervisor, Signal::SIGSTOP).unwrap();
    project.docker.run(&["rm", "-f", &name]);
    let theirs = project.docker.run(&run);
    kill(supervisor, Signal::SIGCONT).unwrap();

    let ours = wait::until("it is put right", || {
        let found = project.docker.find(&name);
        let is_right =
            |found: &serde_json::Value| found["Config"]["Image"] == image && found["Id"] != theirs.as_str();
        match found.filter(is_right) {
            Some(found) => Ok(found["Id"].clone()),
            None => Err(format!("{:#?}", project.try_run(&["ps"]))),
        }
    });
    project.serves(2);
    let events = project.run(&["events", "--no-follow"]);
    assert!(events.contains("another program has made its container anew"), "{events}");
    // It is done once.
    std::thread::sleep(slowly(Duration::from_secs(3)));
    assert_eq!(project.docker.inspect(&name)["Id"], ours);
    wait::until("all is as wanted", || {
        let status = project.status();
        check(status.converged && status.foreign_resources.is_empty(), status)
    });
    // And Watchtower is told to leave it alone.
    let label = &project.docker.inspect(&name)["Config"]["Labels"]["com.centurylinklabs.watchtower.enable"];
    assert_eq!(label, "false");
}
