//! The engine's disk is full.

use super::{
    super::support::{
        daemon::Daemon,
        project::{Project, web},
    },
    FeatureProbe, Way,
};

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn the_disk_of_the_engine_is_full() {
    let daemon = Daemon::on_small_disk("400m");
    let project = Project::on(daemon.docker(), &web(3));
    project.run(&["up", "-d", "--wait"]);
    let mut feature_probe = FeatureProbe::begin(&project, Way::through(&daemon, &project));
    daemon.disk().fill();
    // Its container is there, and takes no more room.
    feature_probe.kill_replica();
    feature_probe.replaces();
    // One more does.
    let scale = project.try_run(&["scale", "web=4"]);
    assert_eq!(scale.code, Some(1), "{scale:#?}");
    assert!(scale.stderr.contains("no space left on device"), "{scale:#?}");
    assert!(scale.stderr.contains("free disk space"), "{scale:#?}");
    feature_probe.tells("failed");
    feature_probe.others_live();
    daemon.disk().free();
    // What was asked for comes by itself.
    feature_probe.way.serves(4);
    project.run(&["scale", "web=3"]);
    feature_probe.ends_well();
}
