//! The source ports of a pod's network, which all replicas in it share.
//!
//! To one address and port a network can have as many connections as it has source ports, and a port that was one cannot be
//! bound while its last connection is in TIME_WAIT. So the ports that replicas listen on are taken out of them
//! (`ip_local_reserved_ports`), and only then is their range made larger (`ip_local_port_range`): a replica has no fewer than
//! in a container of its own where there are two. See
//! [ip-sysctl](https://docs.kernel.org/networking/ip-sysctl.html).

use std::{collections::BTreeSet, fs};

use super::{KernelError, Netns};

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The range of a new network.
const USUAL: [&str; 2] = ["32768", "60999"];
/// Below are the ports of most servers. One that begins to listen on a port which nobody has declared might find it used as a
/// source port.
const LARGER: &str = "16384 65535";

/// Takes ports out of those that the kernel uses as source ports in a network, and gives it more of others, unless somebody
/// has chosen which.
///
/// # Errors
/// When we may not (`CAP_NET_ADMIN`).
pub fn reserve(netns: &Netns, ports: &BTreeSet<u16>) -> Result<(), KernelError> {
    netns.within(|| {
        // Files below /proc/sys/net are those of the network of the thread that opens them.
        let read = |path: &str| fs::read_to_string(path).map_err(KernelError::io(format!("read {path}")));
        let write =
            |path: &str, text: &str| fs::write(path, text).map_err(KernelError::io(format!("write {path}")));
        let mut reserved = parse(&read(RESERVED)?);
        let before = reserved.len();
        reserved.extend(ports);
        if reserved.len() > before {
            write(RESERVED, &list(&reserved))?;
        }
        if read(RANGE)?.split_whitespace().eq(USUAL) {
            write(RANGE, LARGER)?;
        }
        Ok(())
    })
}

/// Reads such as `8080,30000-30009`.
fn parse(text: &str) -> BTreeSet<u16> {
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Writes it, with ranges: the kernel reads no more than a page.
fn list(ports: &BTreeSet<u16>) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *port => *last = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    let range = |(first, last): (u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(range).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written_as_the_kernel_does() {
        for text in ["", "8080", "22,80,8080", "80-82,30000-30009,65535", "65534-65535"] {
            assert_eq!(list(&parse(text)), text);
        }
        assert_eq!(list(&parse("81,80,82-82\n")), "80-82");
        assert_eq!(list(&parse("x,,-,9-3,70000,5")), "5");
    }
}
