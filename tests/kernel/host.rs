//! What all projects of a host share.

use sameport::kernel::steering::{KernelSteering, Steering as _};

use super::{
    pod::Pod,
    server::{PORT, answers, http},
};

/// The kernel takes 64 programs of a kind at one control group.
const PROJECTS: u32 = 70;

#[test]
fn more_projects_than_the_kernel_takes_programs_share_their_ports() {
    let name = |number: u32| format!("sph{}-{number}", std::process::id()).parse().unwrap();
    let projects: Vec<_> =
        (0..PROJECTS).map(|number| KernelSteering::start(&name(number)).unwrap()).collect();
    let mut pod = Pod::new();
    for slot in 1..=2 {
        pod.start(slot, &mut http());
    }
    pod.listening(2, PORT);
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), ["1", "2"]);
    // The others go; who is left is none the worse.
    for project in projects {
        project.remove().unwrap();
    }
    assert_eq!(answers(&pod, 20).keys().collect::<Vec<_>>(), ["1", "2"]);
    pod.start(3, &mut http());
    pod.listening(3, PORT);
    assert_eq!(answers(&pod, 30).keys().collect::<Vec<_>>(), ["1", "2", "3"]);
}
