//! What the engine runs in a container to find out whether it works, and whether that can be run at all.

use std::time::Duration;

/// The engine's own, where a check has none.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);

/// The exit codes of a shell whose command cannot be executed, or is not there.
const NOT_EXECUTABLE: i64 = 126;
const NOT_FOUND: i64 = 127;

/// The health check of a container, of its image or its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Between two checks.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
}

impl HealthCheck {
    /// From the words of `HEALTHCHECK` (`CMD` or `CMD-SHELL` first), the image's shell, and times of which zero is the engine's
    /// own. None if it is turned off.
    #[must_use]
    pub fn of(test: &[String], shell: &[String], interval: Duration, timeout: Duration) -> Option<Self> {
        let (kind, rest) = test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => rest.to_vec(),
            // As the engine has it (`daemon/health.go`): the shell of the image, else `/bin/sh -c`.
            "CMD-SHELL" if shell.is_empty() => [&["/bin/sh".to_owned(), "-c".to_owned()], rest].concat(),
            "CMD-SHELL" => [shell, rest].concat(),
            _ => return None,
        };
        let or = |time: Duration, default| if time.is_zero() { default } else { time };
        let (interval, timeout) = (or(interval, INTERVAL), or(timeout, TIMEOUT));
        (!command.is_empty()).then_some(Self { command, interval, timeout })
    }
}

/// Why a check that failed says nothing of its container, if so: its program is not in the image. It is what the check or the
/// engine wrote of that.
#[must_use]
pub fn cannot_run(code: i64, output: &str) -> Option<String> {
    let lines: Vec<_> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.last().copied().unwrap_or("its program cannot be executed");
    let is_of_engine = lines.iter().any(|line| tells_of_missing_program(line));
    // `curl … || exit 1` ends with 1. Whoever writes more than that has run something else as well.
    let is_of_shell = !lines.is_empty() && lines.iter().all(|line| is_not_found(line));
    let cannot = code == NOT_EXECUTABLE || code == NOT_FOUND || is_of_engine || (code != 0 && is_of_shell);
    cannot.then(|| last.chars().filter(|c| !c.is_control()).take(200).collect())
}

/// What container runtimes say of a program that is not there.
fn tells_of_missing_program(line: &str) -> bool {
    line.contains("exec failed")
        && ["executable file not found", "no such file or directory", "permission denied"]
            .iter()
            .any(|words| line.contains(words))
}

/// What shells say of a command that is not there: `/bin/sh: 1: curl: not found`, `bash: line 1: curl: command not found`.
fn is_not_found(line: &str) -> bool {
    let parts = line.split_once(": ").zip(line.rsplit_once(": "));
    parts.is_some_and(|((program, _), (_, last))| {
        program.ends_with("sh") && matches!(last, "not found" | "command not found")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_whose_program_is_missing_is_told_from_one_that_fails() {
        let oci = "OCI runtime exec failed: exec failed: unable to start container process: exec: \"curl\": executable file not \
                   found in $PATH: unknown";
        for (code, output, wanted) in [
            (127, "/bin/sh: 1: curl: not found\n", Some("/bin/sh: 1: curl: not found")),
            (126, "", Some("its program cannot be executed")),
            (1, "/bin/sh: 1: curl: not found\n", Some("/bin/sh: 1: curl: not found")),
            (1, "/bin/sh: curl: not found", Some("/bin/sh: curl: not found")),
            (1, "bash: line 1: curl: command not found\n\n", Some("bash: line 1: curl: command not found")),
            (-1, oci, Some(oci)),
            (0, "/bin/sh: 1: curl: not found", None),
            (1, "", None),
            (7, "curl: (7) Failed to connect to localhost port 80: Connection refused", None),
            (22, "curl: (22) The requested URL returned error: 404 Not Found", None),
            (1, "wget: server returned error: HTTP/1.1 404 not found", None),
            (1, "/bin/sh: 1: curl: not found\nwget: can't connect to remote host: Connection refused", None),
            (1, "/bin/sh: 1: cannot open /tmp/ready: No such file", None),
            (1, "database: not found", None),
        ] {
            let found = cannot_run(code, output);
            assert_eq!(
                found.as_deref(),
                wanted.map(|text| text.get(..200).unwrap_or(text)),
                "{code} {output}"
            );
        }
    }

    #[test]
    fn the_command_of_a_check_is_that_which_the_engine_runs() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let zero = Duration::ZERO;
        let command = |test: &[&str], shell: &[&str]| {
            HealthCheck::of(&words(test), &words(shell), zero, zero).map(|check| check.command)
        };
        assert_eq!(command(&["CMD", "curl", "-f"], &[]), Some(words(&["curl", "-f"])));
        assert_eq!(command(&["CMD-SHELL", "a b"], &[]), Some(words(&["/bin/sh", "-c", "a b"])));
        assert_eq!(
            command(&["CMD-SHELL", "a"], &["/bin/bash", "-ec"]),
            Some(words(&["/bin/bash", "-ec", "a"]))
        );
        for off in [&["NONE"][..], &["CMD"], &[]] {
            assert_eq!(command(off, &[]), None, "{off:?}");
        }
        let check = HealthCheck::of(&words(&["CMD", "a"]), &[], zero, Duration::from_secs(1)).unwrap();
        assert_eq!((check.interval, check.timeout), (INTERVAL, Duration::from_secs(1)));
    }
}
