//! A program that does with sockets what a test tells it: see `agent.py`.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};

use super::network::{Group, process};

const PROGRAM: &str = include_str!("agent.py");

/// The agent's end of the conversation. Its process ends with it.
pub struct Agent {
    pub name: String,
    pid: u32,
    /// None: somebody else waits for its end.
    child: Option<Child>,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    group: Option<Group>,
}

impl Agent {
    /// Starts one in a network, and in a control group if one is said.
    pub fn start(name: &str, network: u32, group: Option<&Path>) -> Self {
        let mut child = spawn(name, network, group);
        let mut agent = Self::of(name, &mut child);
        agent.child = Some(child);
        agent
    }

    /// Starts one that somebody else ends.
    pub fn first(name: &str, network: u32, group: &Path) -> (Self, Child) {
        let mut child = spawn(name, network, Some(group));
        (Self::of(name, &mut child), child)
    }

    fn of(name: &str, child: &mut Child) -> Self {
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut agent = Self { name: name.to_owned(), pid: child.id(), child: None, to, from, group: None };
        let told = agent.hear();
        assert_eq!(told, Ok(json!(agent.pid)), "python3 is needed");
        agent
    }

    pub fn move_to(&mut self, group: Group) {
        fs::write(group.0.join("cgroup.procs"), self.pid.to_string()).unwrap();
        self.group = Some(group);
    }

    /// Has something done; what came of it, or the name of the error.
    pub fn try_to(&mut self, function: &str, arguments: Value) -> Result<Value, String> {
        self.tell(function, arguments);
        self.hear()
    }

    /// Has something done that works.
    pub fn call(&mut self, function: &str, arguments: Value) -> Value {
        let shown = arguments.to_string();
        self.try_to(function, arguments)
            .unwrap_or_else(|error| panic!("{}: {function} {shown}: {error}", self.name))
    }

    /// Has something begun, whose result is heard later.
    pub fn tell(&mut self, function: &str, arguments: Value) {
        writeln!(self.to, "{}", json!([function, arguments])).unwrap();
    }

    pub fn hear(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{} is gone ({error}): {line:?}", self.name));
        assert!(told.get("bug").is_none(), "{}: {}", self.name, told["bug"].as_str().unwrap_or_default());
        match told.get("error") {
            Some(error) => Err(error.as_str().unwrap_or_default().to_owned()),
            None => Ok(told["ok"].clone()),
        }
    }

    /// Ends it by force, and waits until the kernel has closed all that it had open.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
        self.group = None;
    }
}

fn spawn(name: &str, network: u32, group: Option<&Path>) -> Child {
    let mut command = Command::new(python());
    command.args(["-I", "-S", "-c", PROGRAM]).env("REPLICA", name);
    process(network, group, &command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The interpreter itself: what is in the path may be a script that looks for it, for a quarter of a second each time.
pub fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let told =
            Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
        String::from_utf8(told.stdout).unwrap().trim().to_owned()
    })
}
