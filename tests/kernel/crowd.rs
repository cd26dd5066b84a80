//! Many networks and servers at once: see `crowd.py`.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use super::agent::python;

/// The process that they are all begun by, and end with.
pub struct Crowd {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Crowd {
    pub fn new() -> Self {
        let mut command = Command::new(python());
        command.args(["-I", "-S", "-c", include_str!("crowd.py")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from }
    }

    fn begin(&mut self, what: &Value) -> u32 {
        writeln!(self.to, "{what}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let pid = told["pid"].as_u64().unwrap_or_else(|| panic!("{what}: {told}"));
        u32::try_from(pid).unwrap()
    }

    /// A process in a network of its own.
    pub fn network(&mut self) -> u32 {
        self.begin(&json!(["network"]))
    }

    /// One that listens on port 8080 and answers everybody with its name.
    pub fn serve(&mut self, network: u32, group: &Path, name: &str) -> u32 {
        self.begin(&json!(["serve", network, group, name]))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
