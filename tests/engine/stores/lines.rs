//! Servers that are spoken to in lines of text.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::writer::Client;

/// A connection on which nothing is waited for in vain for long.
pub fn open(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// One number and what is around it.
fn number(text: &str) -> Option<u32> {
    text.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}

struct Lines(BufReader<TcpStream>);

impl Lines {
    fn open(address: SocketAddr) -> io::Result<Self> {
        open(address).map(Self)
    }

    fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.get_mut().write_all(text.as_bytes())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    /// The next line, if it begins so.
    fn expect(&mut self, begin: &str) -> io::Result<String> {
        let line = self.line()?;
        if line.starts_with(begin) { Ok(line) } else { Err(io::Error::other(line)) }
    }

    fn bytes(&mut self, length: usize) -> io::Result<String> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

struct Redis(Lines);

pub fn redis(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    Ok(Box::new(Redis(Lines::open(address)?)))
}

impl Client for Redis {
    fn write(&mut self, number: u32) -> io::Result<()> {
        self.0.send(&format!("SET key{number} {number}\r\n"))?;
        self.0.expect("+OK").map(drop)
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        self.0.send("KEYS key*\r\n")?;
        let keys = number(&self.0.expect("*")?).unwrap();
        let mut key = || {
            self.0.expect("$")?;
            self.0.expect("key")
        };
        (0..keys).map(|_| Ok(number(&key()?).unwrap())).collect()
    }
}

struct Memcached(Lines);

pub fn memcached(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    Ok(Box::new(Memcached(Lines::open(address)?)))
}

impl Client for Memcached {
    fn write(&mut self, number: u32) -> io::Result<()> {
        self.0.send(&format!("set {number} 0 0 1\r\nx\r\n"))?;
        self.0.expect("STORED").map(drop)
    }

    fn read(&mut self, last: u32) -> io::Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        for number in 1..=last {
            self.0.send(&format!("get {number}\r\n"))?;
            if self.0.line()? != "END" {
                found.insert(number);
                self.0.expect("x")?;
                self.0.expect("END")?;
            }
        }
        Ok(found)
    }
}

struct Beanstalkd(Lines);

pub fn beanstalkd(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    Ok(Box::new(Beanstalkd(Lines::open(address)?)))
}

impl Client for Beanstalkd {
    fn write(&mut self, number: u32) -> io::Result<()> {
        let body = number.to_string();
        self.0.send(&format!("put 0 0 600 {}\r\n{body}\r\n", body.len()))?;
        self.0.expect("INSERTED").map(drop)
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        loop {
            self.0.send("reserve-with-timeout 0\r\n")?;
            match self.0.line()?.as_str() {
                "TIMED_OUT" => return Ok(found),
                line if line.starts_with("RESERVED") => found.insert(number(&self.0.line()?).unwrap()),
                line => return Err(io::Error::other(line)),
            };
        }
    }
}

/// Its console, which answers in YAML.
struct Tarantool(Lines);

pub fn tarantool(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    let mut lines = Lines::open(address)?;
    lines.expect("Tarantool")?;
    lines.line()?;
    Ok(Box::new(Tarantool(lines)))
}

impl Tarantool {
    fn run(&mut self, line: &str) -> io::Result<Vec<String>> {
        self.0.send(&format!("{line}\n"))?;
        self.0.expect("---")?;
        let mut answer = Vec::new();
        loop {
            match self.0.line()? {
                end if end == "..." => return Ok(answer),
                line => answer.push(line),
            }
        }
    }
}

impl Client for Tarantool {
    fn write(&mut self, number: u32) -> io::Result<()> {
        let answer = self.run(&format!("box.space.kept:insert{{{number}}}"))?;
        if answer == [format!("- [{number}]")] { Ok(()) } else { Err(io::Error::other(answer.join(" "))) }
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        let rows = self.run("box.space.kept:select({}, { limit = 1000000 })")?;
        Ok(rows.iter().filter_map(|row| number(row)).collect())
    }
}

/// A stream of JetStream. What it answers comes to the subject `in`, what it has kept to `out`.
struct Nats(Lines);

pub fn nats(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    let mut nats = Nats(Lines::open(address)?);
    nats.0.expect("INFO")?;
    // Without the last two, nobody answers while JetStream is not there yet.
    nats.0.send(
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB in 1\r\nSUB out 2\r\n",
    )?;
    nats.ask("$JS.API.STREAM.CREATE.kept", r#"{"name":"kept","subjects":["kept"],"storage":"file"}"#)?;
    Ok(Box::new(nats))
}

impl Nats {
    fn message(&mut self) -> io::Result<String> {
        loop {
            let line = self.0.line()?;
            match line.split(' ').next().unwrap() {
                "PING" => self.0.send("PONG\r\n")?,
                "MSG" => {
                    let length: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
                    let text = self.0.bytes(length)?;
                    self.0.line()?;
                    return Ok(text);
                }
                _ => return Err(io::Error::other(line)),
            }
        }
    }

    fn ask(&mut self, subject: &str, body: &str) -> io::Result<String> {
        self.0.send(&format!("PUB {subject} in {}\r\n{body}\r\n", body.len()))?;
        match self.message()? {
            answer if answer.contains("\"error\":") => Err(io::Error::other(answer)),
            answer => Ok(answer),
        }
    }
}

impl Client for Nats {
    fn write(&mut self, number: u32) -> io::Result<()> {
        let answer = self.ask("kept", &number.to_string())?;
        if answer.contains("\"seq\":") { Ok(()) } else { Err(io::Error::other(answer)) }
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        // It marks the end.
        self.write(0)?;
        let config = r#"{"deliver_subject":"out","ack_policy":"none","deliver_policy":"all"}"#;
        let body = format!(r#"{{"stream_name":"kept","config":{config}}}"#);
        self.0.send(&format!("PUB $JS.API.CONSUMER.CREATE.kept in {}\r\n{body}\r\n", body.len()))?;
        let mut found = BTreeSet::new();
        loop {
            match self.message()? {
                end if end == "0" => return Ok(found),
                error if error.contains("\"error\":") => return Err(io::Error::other(error)),
                // The answer to the request is no number.
                message => found.extend(message.parse::<u32>().ok()),
            }
        }
    }
}

/// RabbitMQ with its plugin for STOMP, and the durable queue `kept`.
struct Stomp(Lines);

pub fn stomp(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    let mut stomp = Stomp(Lines::open(address)?);
    stomp.send("CONNECT", &["accept-version:1.2", "host:/", "login:guest", "passcode:guest"], "")?;
    match stomp.frame()? {
        (command, _, _) if command == "CONNECTED" => Ok(Box::new(stomp)),
        (command, _, body) => Err(io::Error::other(format!("{command}: {body}"))),
    }
}

impl Stomp {
    fn send(&mut self, command: &str, headers: &[&str], body: &str) -> io::Result<()> {
        let headers: String = headers.iter().map(|header| format!("{header}\n")).collect();
        self.0.send(&format!("{command}\n{headers}\n{body}\0"))
    }

    /// The next frame: what it is, its headers, and its body.
    fn frame(&mut self) -> io::Result<(String, Vec<String>, String)> {
        let mut bytes = Vec::new();
        if self.0.0.read_until(0, &mut bytes)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_start_matches('\n').trim_end_matches('\0');
        let (head, body) = text.split_once("\n\n").ok_or_else(|| io::Error::other(text.to_owned()))?;
        let mut lines = head.lines().map(str::to_owned);
        Ok((lines.next().unwrap_or_default(), lines.collect(), body.to_owned()))
    }
}

impl Client for Stomp {
    fn write(&mut self, number: u32) -> io::Result<()> {
        let (receipt, body) = (format!("receipt:{number}"), number.to_string());
        self.send("SEND", &["destination:/queue/kept", "persistent:true", &receipt], &body)?;
        match self.frame()? {
            (command, headers, _)
                if command == "RECEIPT" && headers.contains(&format!("receipt-id:{number}")) =>
            {
                Ok(())
            }
            (command, _, body) => Err(io::Error::other(format!("{command}: {body}"))),
        }
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        // It marks the end of the queue.
        self.write(0)?;
        self.send("SUBSCRIBE", &["id:0", "destination:/queue/kept", "ack:auto"], "")?;
        let mut found = BTreeSet::new();
        loop {
            match self.frame()? {
                (command, _, body) if command == "MESSAGE" && body == "0" => return Ok(found),
                (command, _, body) if command == "MESSAGE" => found.extend(body.parse::<u32>().ok()),
                (command, _, body) => return Err(io::Error::other(format!("{command}: {body}"))),
            }
        }
    }
}
