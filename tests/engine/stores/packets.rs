//! Servers that are spoken to in packets.

use std::{
    collections::BTreeSet,
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::{lines::open, writer::Client};

type Stream = BufReader<TcpStream>;

fn bytes(stream: &mut Stream, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn refused(bytes: &[u8]) -> io::Error {
    io::Error::other(String::from_utf8_lossy(bytes).into_owned())
}

fn number(bytes: &[u8]) -> u32 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

struct Postgres(Stream);

pub fn postgres(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    let mut postgres = Postgres(open(address)?);
    let startup = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    postgres.send(&[], startup)?;
    postgres.answer()?;
    postgres.query("CREATE TABLE IF NOT EXISTS kept (n int)")?;
    Ok(Box::new(postgres))
}

impl Postgres {
    fn send(&mut self, kind: &[u8], body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        self.0.get_mut().write_all(&[kind, &length, body].concat())
    }

    /// The rows up to the message that it is ready for the next question.
    fn answer(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut rows = Vec::new();
        loop {
            let head = bytes(&mut self.0, 5)?;
            let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
            let body = bytes(&mut self.0, length - 4)?;
            match head[0] {
                b'E' => return Err(refused(&body)),
                b'Z' => return Ok(rows),
                // How many columns, how long the first one is, and that.
                b'D' => rows.push(body[6..].to_vec()),
                _ => {}
            }
        }
    }

    fn query(&mut self, sql: &str) -> io::Result<Vec<Vec<u8>>> {
        self.send(b"Q", format!("{sql}\0").as_bytes())?;
        self.answer()
    }
}

impl Client for Postgres {
    fn write(&mut self, number: u32) -> io::Result<()> {
        self.query(&format!("INSERT INTO kept VALUES ({number})")).map(drop)
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        Ok(self.query("SELECT n FROM kept")?.iter().map(|row| number(row)).collect())
    }
}

struct MariaDb(Stream);

pub fn mariadb(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    let mut mariadb = MariaDb(open(address)?);
    mariadb.packet()?;
    // Long passwords, protocol 4.1, its way of passwords; UTF-8; root without a password.
    let capabilities = 0x8201_u32.to_le_bytes();
    let hello = [&capabilities[..], &[0, 0, 0, 1, 33], &[0; 23], b"root\0\0"].concat();
    mariadb.send(1, &hello)?;
    mariadb.packet()?;
    mariadb.query("CREATE DATABASE IF NOT EXISTS kept")?;
    mariadb.query("CREATE TABLE IF NOT EXISTS kept.kept (n INT PRIMARY KEY) ENGINE=InnoDB")?;
    Ok(Box::new(mariadb))
}

impl MariaDb {
    fn send(&mut self, sequence: u8, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        self.0.get_mut().write_all(&[&length[..3], &[sequence], body].concat())
    }

    fn packet(&mut self) -> io::Result<Vec<u8>> {
        let head = bytes(&mut self.0, 4)?;
        let body = bytes(&mut self.0, u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize)?;
        if body.first() == Some(&0xff) { Err(refused(&body)) } else { Ok(body) }
    }

    /// The packets up to one of an end.
    fn packets(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut packets = Vec::new();
        loop {
            match self.packet()? {
                end if end.first() == Some(&0xfe) => return Ok(packets),
                packet => packets.push(packet),
            }
        }
    }

    fn query(&mut self, sql: &str) -> io::Result<Vec<Vec<u8>>> {
        self.send(0, &[b"\x03", sql.as_bytes()].concat())?;
        if self.packet()?.first() == Some(&0) {
            return Ok(Vec::new());
        }
        let _columns = self.packets()?;
        self.packets()
    }
}

impl Client for MariaDb {
    fn write(&mut self, number: u32) -> io::Result<()> {
        self.query(&format!("INSERT INTO kept.kept VALUES ({number})")).map(drop)
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        // The first byte of a row is the length of its only column.
        Ok(self.query("SELECT n FROM kept.kept")?.iter().map(|row| number(&row[1..])).collect())
    }
}

/// MQTT: each record is the retained message of a topic of its own.
struct Mqtt(Stream);

pub fn mqtt(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    let mut mqtt = Mqtt(open(address)?);
    mqtt.send(0x10, b"\0\x04MQTT\x04\x02\0\0\0\0")?;
    mqtt.expect(0x20, &[0, 0])?;
    Ok(Box::new(mqtt))
}

impl Mqtt {
    fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        // One byte is enough for the length of what is sent here.
        self.0.get_mut().write_all(&[&[kind, u8::try_from(body.len()).unwrap()], body].concat())
    }

    fn packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let head = bytes(&mut self.0, 2)?;
        Ok((head[0], bytes(&mut self.0, head[1].into())?))
    }

    fn expect(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let packet = self.packet()?;
        if (packet.0, &*packet.1) == (kind, body) { Ok(()) } else { Err(refused(&packet.1)) }
    }
}

impl Client for Mqtt {
    fn write(&mut self, number: u32) -> io::Result<()> {
        let (id, topic) = (u16::try_from(number).unwrap().to_be_bytes(), number.to_string());
        let length = [0, u8::try_from(topic.len()).unwrap()];
        // To be kept, and at least once: it is confirmed.
        self.send(0x33, &[&length, topic.as_bytes(), &id, b"kept"].concat())?;
        self.expect(0x40, &id)
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        self.send(0x82, b"\0\x01\0\x01#\0")?;
        // Its answer comes after all of them.
        self.send(0xc0, &[])?;
        let mut found = BTreeSet::new();
        loop {
            match self.packet()? {
                (0x31, body) => found.insert(number(&body[2..2 + usize::from(body[1])])),
                (0xd0, _) => return Ok(found),
                _ => continue,
            };
        }
    }
}

/// LDAP: each record is an entry below `dc=kept`.
struct Ldap(Stream);

pub fn ldap(address: SocketAddr) -> io::Result<Box<dyn Client>> {
    let mut ldap = Ldap(open(address)?);
    let login = [tlv(2, &[3]), tlv(4, b"cn=root,dc=kept"), tlv(0x80, b"secret")].concat();
    ldap.ask(0x60, &login, &[0])?;
    let root: [(_, &[_]); 3] =
        [("objectClass", &["dcObject", "organization"]), ("dc", &["kept"]), ("o", &["kept"])];
    // Who connects again finds it there.
    ldap.add("dc=kept", &root, &[0, ALREADY_EXISTS])?;
    Ok(Box::new(ldap))
}

const ALREADY_EXISTS: u8 = 68;

/// A value with its type and length before it.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
    [&head, value].concat()
}

impl Ldap {
    fn send(&mut self, operation: u8, body: &[u8]) -> io::Result<()> {
        let message = [tlv(2, &[1]), tlv(operation, body)].concat();
        self.0.get_mut().write_all(&tlv(0x30, &message))
    }

    /// What follows the number of a message: its kind and what it says.
    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut length = usize::from(bytes(&mut self.0, 2)?[1]);
        if length >= 0x80 {
            let long = bytes(&mut self.0, length - 0x80)?;
            length = long.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        }
        let body = bytes(&mut self.0, length)?;
        // A byte each for kind and length, and the number itself.
        Ok((body[3], body[4..].to_vec()))
    }

    fn ask(&mut self, operation: u8, body: &[u8], fine: &[u8]) -> io::Result<()> {
        self.send(operation, body)?;
        let (_, answer) = self.message()?;
        // Its length, and the code as a number of one byte.
        if fine.contains(&answer[3]) { Ok(()) } else { Err(refused(&answer)) }
    }

    fn add(&mut self, name: &str, attributes: &[(&str, &[&str])], fine: &[u8]) -> io::Result<()> {
        let attribute = |(key, values): &(&str, &[&str])| {
            let values: Vec<_> = values.iter().flat_map(|value| tlv(4, value.as_bytes())).collect();
            tlv(0x30, &[tlv(4, key.as_bytes()), tlv(0x31, &values)].concat())
        };
        let attributes: Vec<_> = attributes.iter().flat_map(attribute).collect();
        self.ask(0x68, &[tlv(4, name.as_bytes()), tlv(0x30, &attributes)].concat(), fine)
    }
}

impl Client for Ldap {
    fn write(&mut self, number: u32) -> io::Result<()> {
        let cn = number.to_string();
        self.add(&format!("cn={cn},dc=kept"), &[("objectClass", &["device"]), ("cn", &[&cn])], &[0])
    }

    fn read(&mut self, _: u32) -> io::Result<BTreeSet<u32>> {
        // One level below; no limits; whatever has a class, without its attributes.
        let what = [
            tlv(4, b"dc=kept"),
            tlv(10, &[1]),
            tlv(10, &[0]),
            tlv(2, &[0]),
            tlv(2, &[0]),
            tlv(1, &[0]),
            tlv(0x87, b"objectClass"),
            tlv(0x30, &tlv(4, b"1.1")),
        ];
        self.send(0x63, &what.concat())?;
        let mut found = BTreeSet::new();
        loop {
            match self.message()? {
                (0x64, entry) => {
                    let text = String::from_utf8_lossy(&entry).into_owned();
                    let name = text.split_once("cn=").unwrap().1.split(',').next().unwrap();
                    found.insert(number(name.as_bytes()));
                }
                (_, end) if end[3] == 0 => return Ok(found),
                (_, error) => return Err(refused(&error)),
            }
        }
    }
}
