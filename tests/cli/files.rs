//! Which project a command is about.

use crate::support::Home;

fn services(image: &str) -> String {
    format!("services:\n  web:\n    image: {image}\n")
}

fn images(home: &Home, line: &str) -> String {
    let output = home.sameport(line).output().unwrap();
    assert!(output.status.success(), "{}", home.tell(line, &output));
    String::from_utf8(output.stdout).unwrap().trim().replace('\n', " ")
}

#[test]
fn files_stand_before_the_command_and_later_ones_win() {
    let home = Home::with(&services("localhost/one"));
    home.write("two.yaml", &services("localhost/two"));
    assert_eq!(images(&home, "config --images"), "localhost/one");
    assert_eq!(images(&home, "-f two.yaml config --images"), "localhost/two");
    assert_eq!(images(&home, "-f two.yaml -f compose.yaml config --images"), "localhost/one");
}

#[test]
fn the_other_project_arguments_may_stand_behind_the_command() {
    let home = Home::with(&services("localhost/one:${TAG}"));
    home.write("release.env", "TAG=7\n");
    assert_eq!(images(&home, "config --images --env-file release.env"), "localhost/one:7");
    let output = home.sameport("config -p other").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("name: other\n"));
}

#[test]
fn a_project_directory_is_where_the_file_is_looked_for() {
    let home = Home::with(&services("localhost/one"));
    let output = home.sameport("--project-directory shop config --images").current_dir(home.path()).output();
    assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), "localhost/one\n");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let home = Home::with("services: {web: {image: localhost/web}}\n");
    let pipe = home.shop().join("pipe.yaml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (line, what) in [
        ("-f pipe.yaml config", "it is a pipe"),
        ("-f /dev/zero config", "it is a device"),
        ("-f /dev/null config", "it is a device"),
        ("--env-file pipe.yaml config", "it is a pipe"),
        ("--env-file /dev/zero config", "it is a device"),
    ] {
        let told = home.transcript(line);
        assert!(told.contains(what) && told.contains("exit code 2"), "{line}: {told}");
    }
    // Usual ways to say that there are no variables.
    let told = home.transcript("--env-file /dev/null config --services");
    assert!(told.contains("exit code 0"), "{told}");
}

#[test]
fn a_nul_character_is_refused_where_the_file_has_it() {
    let home = Home::with("services: {web: {image: \"a\\0b\"}}\n");
    let told = home.transcript("config");
    assert!(told.contains("a NUL character") && told.contains("exit code 2"), "{told}");
    home.write("variables.env", "A=b\0c\n");
    let told = home.transcript("--env-file variables.env config");
    assert!(told.contains("byte 3 is NUL") && told.contains("exit code 2"), "{told}");
}
