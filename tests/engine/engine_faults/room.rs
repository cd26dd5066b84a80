//! The engine's disk is full.

use super::{
    super::support::{
        daemon::Daemon,
        project::{Project, web},
    },
    Trial, Way,
};

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn the_disk_of_the_engine_is_full() {
    let daemon = Daemon::on_small_disk("400m");
    let project = Project::on(daemon.docker(), &web(3));
    project.run(&["up", "-d", "--wait"]);
    let mut trial = Trial::begin(&project, Way::through(&daemon, &project));
    daemon.disk().fill();
    // Its container is there, and takes no more room.
    trial.kill_replica();
    trial.replaces();
    // One more does.
    let scale = project.try_run(&["scale", "web=4"]);
    assert_eq!(scale.code, Some(1), "{scale:#?}");
    assert!(scale.stderr.contains("no space left on device"), "{scale:#?}");
    assert!(scale.stderr.contains("free space"), "{scale:#?}");
    trial.tells("failed");
    trial.others_live();
    daemon.disk().free();
    // What was asked for comes by itself.
    trial.way.serves(4);
    project.run(&["scale", "web=3"]);
    trial.ends_well();
}
