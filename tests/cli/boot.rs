//! `enable` and `disable`, with a systemd of the test's own: its folders in a mount namespace, and a `systemctl` that writes
//! down how it was called. That needs root, or the right to be it in a user namespace.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use assert_cmd::cargo::cargo_bin;

use crate::support::Home;

const SHOP: &str = "services:\n  web:\n    image: localhost/web:${TAG}\n    ports: [\"8080:80\"]\n";
/// Stands in for systemd's own: notes each call, and keeps the links of `enable`.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "systemctl $*" >>"$CALLS"
if [ "$1" = --user ]; then shift; units=$HOME/.config/systemd/user target=default.target
else units=/etc/systemd/system target=multi-user.target; fi
for unit; do :; done
case $1 in
"$FAILS") echo "Failed to $1 unit: no luck" >&2; exit 1 ;;
enable) mkdir -p "$units/$target.wants" && ln -sf "$units/$unit" "$units/$target.wants/$unit" ;;
disable) rm -f "$units/$target.wants/$unit" ;;
esac
"#;
/// Puts the test's folders in the place of systemd's.
const INSIDE: &str = r#"
mkdir -p /etc/systemd/system /run/systemd
mount --bind "$FOLDER/units" /etc/systemd/system && mount --bind "$FOLDER/booted" /run/systemd || exit 99
exec "$@"
"#;

/// The names of all files below a folder.
fn all(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(all(&entry.path())),
            false => found.push(entry.file_name().into_string().unwrap()),
        }
    }
    found.sort();
    found
}

/// A host with a systemd.
struct Host {
    home: Home,
}

impl Host {
    fn new() -> Self {
        let host = Self { home: Home::with(SHOP) };
        for folder in ["units", "booted/system", "bin"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        let systemctl = host.path("bin/systemctl");
        fs::write(&systemctl, SYSTEMCTL).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// `sameport`, as root of this host.
    fn command(&self, line: &str) -> Command {
        let mut command = self.inside();
        command.arg(cargo_bin("sameport")).args(line.split_whitespace());
        command
    }

    /// A command on this host, whose words are to be added.
    fn inside(&self) -> Command {
        let mut command = self.home.program(Path::new("/usr/bin/unshare"));
        let is_root = nix::unistd::geteuid().is_root();
        command
            .arg(if is_root { "-m" } else { "-rm" })
            .args(["sh", "-c", INSIDE, "sh"])
            .env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.path("bin").display()))
            .env("FOLDER", self.home.path())
            .env("CALLS", self.path("calls"))
            .env("FAILS", "nothing")
            .env_remove("XDG_RUNTIME_DIR")
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("DOCKER_HOST", "unix:///run/docker.sock");
        command
    }

    fn told(&self, line: &str, output: &Output) -> String {
        assert_ne!(output.status.code(), Some(99), "mounting takes root: {}", self.home.tell(line, output));
        self.home.tell(line, output)
    }

    /// Runs `sameport` with `TAG` set.
    fn run(&self, line: &str) -> (Option<i32>, String) {
        let output = self.command(line).env("TAG", "1.4").output().unwrap();
        (output.status.code(), self.told(line, &output))
    }

    fn unit(&self) -> String {
        fs::read_to_string(self.path("units/sameport-shop.service")).unwrap_or_default()
    }

    fn variables(&self) -> PathBuf {
        self.path("state/sameport/shop.env")
    }

    /// How `systemctl` was called since the last time.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        calls.lines().map(str::to_owned).collect()
    }

    fn is_enabled(&self) -> bool {
        self.path("units/multi-user.target.wants/sameport-shop.service").symlink_metadata().is_ok()
    }
}

#[test]
fn enable_writes_a_unit_that_means_the_same_from_anywhere() {
    let host = Host::new();
    let (code, told) = host.run("-f compose.yaml --profile debug enable");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("project `shop` starts at boot (sameport-shop.service)"), "{told}");
    assert!(told.contains("stored for the next start in [home]/state/sameport/shop.env: TAG"), "{told}");
    assert!(told.contains("it does not run now; `systemctl start sameport-shop.service`"), "{told}");
    assert!(!told.contains("1.4") && !told.contains("linger"), "values may be secret: {told}");
    assert_eq!(host.calls(), ["systemctl daemon-reload", "systemctl enable sameport-shop.service"]);
    assert!(host.is_enabled());
    let shop = host.home.shop().display().to_string();
    let unit = host.unit();
    for line in [
        format!(
            "\"--project-name\" \"shop\" \"--file\" \"{shop}/compose.yaml\" \"--project-directory\" \"{shop}\" \
             \"--profile\" \"debug\" supervise --resume"
        ),
        format!("EnvironmentFile={}", host.variables().display()),
        "Environment=\"DOCKER_HOST=unix:///run/docker.sock\"".to_owned(),
        format!("Environment=\"XDG_STATE_HOME={}\"", host.path("state").display()),
        "Type=notify".to_owned(),
    ] {
        assert!(unit.contains(&line), "{line} in {unit}");
    }
    assert!(!unit.contains("1.4"), "the unit is readable for all: {unit}");
    let kept = fs::metadata(host.variables()).unwrap();
    assert_eq!(kept.permissions().mode() & 0o7777, 0o600);
    assert!(fs::read_to_string(host.variables()).unwrap().ends_with("TAG=\"1.4\"\n"));

    // Once more changes nothing.
    let (code, told) = host.run("-f compose.yaml --profile debug enable");
    assert_eq!((code, host.unit()), (Some(0), unit), "{told}");
    assert_eq!(host.calls(), ["systemctl enable sameport-shop.service"]);
}

#[test]
fn disable_takes_back_all_that_enable_wrote() {
    let host = Host::new();
    host.run("enable");
    host.calls();
    let (code, told) = host.run("-p shop disable");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("project `shop` does not start at boot any more"), "{told}");
    assert_eq!(host.calls(), ["systemctl disable --now sameport-shop.service", "systemctl daemon-reload"]);
    assert_eq!(all(&host.path("units")), [] as [&str; 0]);
    assert!(!host.variables().exists());
    let (code, told) = host.run("-p shop disable");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("project `shop` is not enabled"), "{told}");
}

#[test]
fn variables_that_a_file_sets_are_not_kept_unless_the_shell_has_another_value() {
    let host = Host::new();
    host.home.write(".env", "TAG=1.4\n");
    host.run("enable");
    assert!(!host.variables().exists() && !host.unit().contains("EnvironmentFile"), "{}", host.unit());
    host.home.write(".env", "TAG=1.3\n");
    host.run("enable");
    assert!(host.variables().exists() && host.unit().contains("EnvironmentFile"), "{}", host.unit());
}

#[test]
fn variables_without_interpolation_and_in_env_files_are_kept_too() {
    let host = Host::new();
    host.home.write(
        "compose.yaml",
        "services:\n  web:\n    image: localhost/web\n    environment: [KEY, UNSET]\n    env_file: [web.env]\n    \
         volumes: [\"~/data:/data\"]\n",
    );
    host.home.write("web.env", "URL=https://${DOMAIN}/\n");
    let secret = "a \"b\" $c `d` \\ 50% 'e'\nf";
    let output = host
        .command("enable")
        .envs([("KEY", secret), ("DOMAIN", "shop.example"), ("OTHER", "x")])
        .output()
        .unwrap();
    let told = host.told("enable", &output);
    assert!(told.contains("shop.env: DOMAIN, HOME, KEY\n"), "{told}");
    let kept = fs::read_to_string(host.variables()).unwrap();
    assert_eq!(sameport::systemd::parse(&kept).unwrap()["KEY"], secret);
    // A shell reads the file as systemd does.
    let shell = Command::new("sh")
        .args(["-c", ". \"$1\" && printf %s \"$KEY\"", "sh"])
        .arg(host.variables())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), secret);
}

#[test]
fn what_systemd_cannot_read_is_refused_by_name_and_nothing_is_written() {
    let host = Host::new();
    let output = host.command("enable").env("TAG", "1.4\u{7}").output().unwrap();
    let told = host.told("enable", &output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("variable `TAG` has the control character \\u{7}"), "{told}");
    let output = host.command("-f - enable").output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    let folder = host.path("a\u{1b}b");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("compose.yaml"), SHOP).unwrap();
    let output = host.command("-p shop enable").current_dir(&folder).env("TAG", "1").output().unwrap();
    let told = host.told("enable", &output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("control character \\u{1b}"), "{told}");
    assert_eq!(all(&host.path("units")), [] as [&str; 0]);
    assert_eq!(host.calls(), [] as [&str; 0]);
}

#[test]
fn a_variable_that_the_running_version_was_given_must_not_be_missing() {
    let host = Host::new();
    let state = host.path("state/sameport");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("shop.json"), r#"{"version":1,"scale":{},"stopped":[],"variables":["TAG","GONE"]}"#)
        .unwrap();
    let output = host.command("enable").output().unwrap();
    let told = host.told("enable", &output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("not set here, but had a value when the file was last applied: `TAG`\n"), "{told}");
    assert!(told.contains("sudo --preserve-env=TAG sameport enable"), "{told}");
    assert_eq!(all(&host.path("units")), [] as [&str; 0]);
    // The file does not use the other one any more.
    assert_eq!(host.run("enable").0, Some(0));
}

#[test]
fn a_path_cannot_become_a_line_of_the_unit() {
    let host = Host::new();
    let folder = host.path("x\nExecStartPre=evil\n[Service] %h \"$HOME\"");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("compose.yaml"), SHOP).unwrap();
    let output = host.command("-p shop enable").current_dir(&folder).env("TAG", "1").output().unwrap();
    let told = host.told("enable", &output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let unit = host.unit();
    assert!(!unit.lines().any(|line| line.starts_with("ExecStartPre")), "{unit}");
    assert_eq!(unit.lines().filter(|line| *line == "[Service]").count(), 1, "{unit}");
    assert!(unit.contains(r#"x\nExecStartPre=evil\n[Service] %%h \"$$HOME\"/compose.yaml""#), "{unit}");
}

#[test]
fn units_of_others_are_neither_written_nor_removed() {
    let host = Host::new();
    let path = host.path("units/sameport-shop.service");
    for make in [
        |path: &Path| fs::write(path, "[Service]\nExecStart=/bin/true\n").unwrap(),
        |path: &Path| symlink("/dev/null", path).unwrap(),
    ] {
        make(&path);
        for line in ["enable", "disable"] {
            let (code, told) = host.run(line);
            assert_eq!(code, Some(1), "{told}");
            assert!(told.contains("was not written by `sameport enable`"), "{told}");
        }
        assert!(path.symlink_metadata().is_ok());
        assert_eq!(host.calls(), [] as [&str; 0]);
        assert!(!host.variables().exists());
        fs::remove_file(&path).unwrap();
    }
    let wants = host.path("units/multi-user.target.wants");
    fs::create_dir(&wants).unwrap();
    symlink("/etc/systemd/system/sameport@.service", wants.join("sameport@shop.service")).unwrap();
    let (code, told) = host.run("enable");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("sameport@shop.service starts project `shop` at boot already"), "{told}");
}

#[test]
fn what_systemd_does_not_take_is_taken_back() {
    let host = Host::new();
    let output = host.command("enable").envs([("TAG", "1"), ("FAILS", "enable")]).output().unwrap();
    let told = host.told("enable", &output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("`systemctl enable sameport-shop.service` failed") && told.contains("no luck"),
        "{told}"
    );
    assert_eq!(all(&host.path("units")), [] as [&str; 0]);
    assert!(!host.variables().exists());
}

#[test]
fn without_systemd_it_is_said_what_to_start_instead() {
    let host = Host::new();
    fs::remove_dir(host.path("booted/system")).unwrap();
    let (code, told) = host.run("enable");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("error: this host does not run systemd"), "{told}");
    assert!(
        told.contains("run `sameport --project-name shop --file [home]/shop/compose.yaml --project-directory [home]/shop supervise --resume`, with TAG in its environment, at boot"),
        "{told}"
    );
    assert_eq!(all(&host.path("units")), [] as [&str; 0]);
}

#[test]
fn a_dry_run_prints_the_unit_and_does_nothing() {
    let host = Host::new();
    let (code, told) = host.run("enable --dry-run");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("would write /etc/systemd/system/sameport-shop.service"), "{told}");
    assert!(told.contains("\nExecStart=") && !told.contains("1.4"), "{told}");
    assert!(!host.path("units/sameport-shop.service").exists() && !host.variables().exists());
}

/// As a user of this host, whom only root can become.
fn as_user(host: &Host, line: &str) -> Option<String> {
    const USER: u32 = 4242;
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let program = host.path("bin/sameport");
    if !program.exists() {
        // The user may not see where it was built.
        fs::copy(cargo_bin("sameport"), &program).unwrap();
    }
    for folder in ["", "shop", "run", "state"] {
        let folder = host.path(folder);
        let _ = fs::create_dir(&folder);
        chown(&folder, Some(USER), Some(USER)).unwrap();
    }
    let user = USER.to_string();
    let output = host
        .inside()
        .args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"])
        .arg(&program)
        .args(line.split_whitespace())
        .env("TAG", "1.4")
        .output()
        .unwrap();
    Some(host.told(line, &output))
}

#[test]
fn a_user_has_units_of_their_own_and_learns_of_lingering() {
    let host = Host::new();
    let Some(told) = as_user(&host, "enable") else { return };
    assert!(told.contains("no systemd runs for the user 4242"), "{told}");
    assert!(told.contains("loginctl enable-linger 4242"), "{told}");
    fs::create_dir_all(host.path("run/systemd")).unwrap();
    let told = as_user(&host, "enable").unwrap();
    assert!(told.contains("project `shop` starts at boot"), "{told}");
    assert!(
        told.contains("for a start at boot, and no end at logout: `sudo loginctl enable-linger 4242`"),
        "{told}"
    );
    assert_eq!(
        host.calls(),
        ["systemctl --user daemon-reload", "systemctl --user enable sameport-shop.service"]
    );
    let unit = fs::read_to_string(host.path(".config/systemd/user/sameport-shop.service")).unwrap();
    assert!(unit.contains("WantedBy=default.target") && !unit.contains("CapabilityBoundingSet"), "{unit}");
    let told = as_user(&host, "disable").unwrap();
    assert!(told.contains("exit code 0"), "{told}");
    assert!(!host.path(".config/systemd/user/sameport-shop.service").exists());
}
