//! FTP servers that hand out ports of a published range.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::RangeInclusive,
    process::Command,
    thread,
    time::Duration,
};

use super::{super::support::ports, container, up};

/// How a user's download went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Download {
    /// It was the user's own file.
    Own,
    /// It was something else.
    Foreign(String),
    /// The server found all ports of its range taken, and so chose one that is not published.
    NoPortLeft,
    /// Anything else.
    Failed(String),
}

/// A user of an FTP server.
struct User {
    name: String,
    server: SocketAddr,
    passive: RangeInclusive<u16>,
}

impl User {
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Downloads the user's file; returns which replica that was, and how it went.
    fn download(&self) -> (String, Download) {
        let mut replica = String::new();
        let how = match self.try_download(&mut replica) {
            Ok(Some(file)) if file == self.name => Download::Own,
            Ok(Some(file)) => Download::Foreign(file),
            Ok(None) => Download::NoPortLeft,
            Err(error) => Download::Failed(format!("replica {replica}: {error}")),
        };
        (replica, how)
    }

    fn try_download(&self, replica: &mut String) -> Result<Option<String>, String> {
        let mut control = BufReader::new(self.connect(self.server.port())?);
        let mut say = |line: &str, code: &str| {
            if !line.is_empty() {
                control
                    .get_mut()
                    .write_all(format!("{line}\r\n").as_bytes())
                    .map_err(|e| format!("{line}: {e}"))?;
            }
            let mut answer = String::new();
            control.read_line(&mut answer).map_err(|error| format!("{line}: {error}"))?;
            let text = answer.strip_prefix(code).ok_or_else(|| format!("{line}: answered `{answer}`"))?;
            Ok::<_, String>(text.trim().to_owned())
        };
        *replica = say("", "220 replica ")?;
        say(&format!("USER {}", self.name), "331")?;
        say(&format!("PASS {}", self.name), "230")?;
        let port = say("EPSV", "229")?;
        let port = port.split('|').nth(3).and_then(|port| port.parse().ok()).ok_or(port)?;
        if !self.passive.contains(&port) {
            return Ok(None);
        }
        let mut data = self.connect(port)?;
        say("RETR name", "1")?;
        let mut file = String::new();
        data.read_to_string(&mut file).map_err(|error| format!("port {port}: {error}"))?;
        say("", "226")?;
        Ok(Some(file))
    }

    fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let address = (self.server.ip(), port).into();
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, Self::PATIENCE)?;
            stream.set_read_timeout(Some(Self::PATIENCE))?;
            Ok(stream)
        };
        connect().map_err(|error: std::io::Error| format!("port {port}: {error}"))
    }
}

/// So many ports one after the other that nobody uses.
fn free_ports(count: u16) -> RangeInclusive<u16> {
    let ranges = (0..1000).map(|_| ports::free()).map(|first| first..=first + count - 1);
    let is_free =
        |range: &RangeInclusive<u16>| range.clone().all(|p| TcpListener::bind(("0.0.0.0", p)).is_ok());
    ranges.into_iter().find(is_free).expect("free ports")
}

/// Users of FTP servers with fewer ports for data than there are users; all download again and again.
fn users_get_their_own_files(replicas: u32) {
    const USERS: usize = 8;
    const TIMES: usize = 15;
    let passive = free_ports(4);
    let (first, last) = (passive.start(), passive.end());
    let project = up(&format!(
        r#"
services:
  ftp:
    image: ${{FTP}}
    environment: {{ REPLICA: "{{{{.Slot}}}}", PASSIVE: "{first}-{last}" }}
    ports: ["${{PORT}}:2121", "{first}-{last}:{first}-{last}"]
    deploy: {{ replicas: {replicas} }}
"#
    ));
    let shown = format!("{}->2121/tcp, {first}-{last}->{first}-{last}/tcp (exclusive)", project.port);
    let table = project.run(&["ps"]);
    assert!(table.contains(&shown), "{table}");
    let users: Vec<_> = (0..USERS)
        .map(|number| {
            let user =
                User { name: format!("u{number}"), server: project.outside(), passive: passive.clone() };
            thread::spawn(move || (0..TIMES).map(|_| user.download()).collect::<Vec<_>>())
        })
        .collect();
    let downloads: Vec<_> = users.into_iter().flat_map(|user| user.join().unwrap()).collect();
    let (mut seen, mut own) = (BTreeMap::<_, usize>::new(), BTreeSet::new());
    for (replica, how) in downloads {
        if how == Download::Own {
            own.insert(replica);
        }
        *seen.entry(how).or_default() += 1;
    }
    eprintln!("downloads from {replicas}: {seen:?}");
    let expected = |how: &Download| matches!(how, Download::Own | Download::NoPortLeft);
    if !seen.keys().all(expected) {
        for slot in 1..=replicas {
            // What it had to say is on its standard error, which is this program's then.
            let _ = Command::new("docker").args(["logs", &container(&project, "ftp", slot)]).status();
        }
    }
    assert!(seen.keys().all(expected), "{seen:#?}");
    assert!(seen[&Download::Own] >= USERS * TIMES / 2, "{seen:#?}");
    let slots: BTreeSet<_> = (1..=replicas).map(|slot| slot.to_string()).collect();
    assert_eq!(own, slots, "{seen:#?}");
}

#[test]
fn users_of_the_only_ftp_server_get_their_own_files() {
    users_get_their_own_files(1);
}

#[test]
fn users_of_three_ftp_servers_on_one_range_of_ports_get_their_own_files() {
    users_get_their_own_files(3);
}
