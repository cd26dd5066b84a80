//! Servers that are spoken to by HTTP.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
    net::SocketAddr,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{lines::open, writer::Client};

/// Asks on a connection of its own. HTTP/1.0: the answer ends with the connection, and is in one piece.
fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = open(address)?;
    let length = body.len();
    let request = format!("{method} {path} HTTP/1.0\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.get_mut().write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(|| io::Error::other(head))?, body.to_owned()))
}

/// The answer, if its status is this one.
fn succeed(address: SocketAddr, method: &str, path: &str, body: &str, status: u16) -> io::Result<String> {
    match ask(address, method, path, body)? {
        (found, answer) if found == status => Ok(answer),
        (found, answer) => Err(io::Error::other(format!("{found}: {answer}"))),
    }
}

/// The application of the image `sqlite`.
struct Sqlite(SocketAddr);

pub fn sqlite(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    Ok(Box::new(Sqlite(address)))
}

impl Client for Sqlite {
    fn write(&mut self, number: u32) -> io::Result<()> {
        succeed(self.0, "POST", "/", &number.to_string(), 201).map(drop)
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        Ok(succeed(self.0, "GET", "/", "", 200)?.lines().map(|line| line.parse().unwrap()).collect())
    }
}

struct Etcd(SocketAddr);

pub fn etcd(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    Ok(Box::new(Etcd(address)))
}

impl Client for Etcd {
    fn write(&mut self, number: u32) -> io::Result<()> {
        let body = json!({ "key": STANDARD.encode(format!("key{number}")), "value": "" });
        succeed(self.0, "POST", "/v3/kv/put", &body.to_string(), 200).map(drop)
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        let body = json!({ "key": STANDARD.encode("key"), "range_end": STANDARD.encode("kez") });
        let answer: Value =
            serde_json::from_str(&succeed(self.0, "POST", "/v3/kv/range", &body.to_string(), 200)?)?;
        let number = |pair: &Value| {
            let key = STANDARD.decode(pair["key"].as_str().unwrap()).unwrap();
            std::str::from_utf8(&key[3..]).unwrap().parse::<u32>().unwrap()
        };
        Ok(answer["kvs"].as_array().unwrap().iter().map(number).collect())
    }
}

struct Influx(SocketAddr);

pub fn influx(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    succeed(address, "POST", "/query?q=CREATE+DATABASE+kept", "", 200)?;
    Ok(Box::new(Influx(address)))
}

impl Client for Influx {
    fn write(&mut self, number: u32) -> io::Result<()> {
        // A point of time, which is the number too: two at the same time would be one.
        let point = format!("kept n={number}i {number}");
        succeed(self.0, "POST", "/write?db=kept&consistency=all", &point, 204).map(drop)
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        let text = succeed(self.0, "GET", "/query?db=kept&q=SELECT+n+FROM+kept", "", 200)?;
        let answer: Value = serde_json::from_str(&text)?;
        let rows = answer["results"][0]["series"][0]["values"].as_array().unwrap();
        Ok(rows.iter().map(|row| u32::try_from(row[1].as_u64().unwrap()).unwrap()).collect())
    }
}

/// A folder that a web server writes to.
struct Files(SocketAddr);

pub fn files(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    Ok(Box::new(Files(address)))
}

impl Client for Files {
    fn write(&mut self, number: u32) -> io::Result<()> {
        succeed(self.0, "PUT", &format!("/{number}"), &number.to_string(), 201).map(drop)
    }

    fn read(&mut self, last: u32) -> io::Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        for number in 1..=last {
            let (status, body) = ask(self.0, "GET", &format!("/{number}"), "")?;
            if status == 200 && body == number.to_string() {
                found.insert(number);
            }
        }
        Ok(found)
    }
}
