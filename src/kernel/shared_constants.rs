//! Constants that the programs for the kernel and this program both have are the same in both.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{raw, replica_addr};
use crate::spec::{Balance, Project};

/// `#define`s and enumerators of the C headers, as far as their values are plain numbers.
fn of_programs() -> BTreeMap<&'static str, u64> {
    let headers = [include_str!("bpf/sameport.h"), include_str!("bpf/pod.h"), include_str!("bpf/options.h")];
    let mut found = BTreeMap::new();
    for line in headers.iter().flat_map(|header| header.lines()) {
        let line = line.split("/*").next().unwrap_or_default().trim();
        if let Some((name, value)) = line.strip_prefix("#define ").and_then(|rest| rest.split_once(' ')) {
            found.extend(value_of(value).map(|value| (name, value)));
        }
        // `enum policy { A = 0, B = 1 };` on one line, or an enumerator on a line of its own.
        let items = line.rsplit_once('{').map_or(line, |(_, items)| items);
        for item in items.trim_end_matches(['}', ';', ' ']).split(',') {
            if let Some((name, value)) = item.split_once(" = ") {
                found.extend(value_of(value).map(|value| (name.trim(), value)));
            }
        }
    }
    found
}

/// Numbers, and numbers that are put together by `|` and `<<`.
fn value_of(text: &str) -> Option<u64> {
    let text = text.trim().replace(['(', ')'], "");
    let mut all = 0;
    for part in text.split('|') {
        let mut shifted = part.split("<<").map(|number| {
            let number = number.trim().trim_end_matches('u');
            match number.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => number.parse().ok(),
            }
        });
        let first = shifted.next()??;
        all |= match shifted.next() {
            Some(bits) => first << bits?,
            None => first,
        };
    }
    Some(all)
}

#[test]
fn constants_are_those_of_the_programs() {
    let theirs = of_programs();
    let prefix = replica_addr::v6(Ipv4Addr::UNSPECIFIED).segments();
    let word = |at: usize| u64::from(prefix[at]) << 16 | u64::from(prefix[at + 1]);
    let (first, last) = Project::OWN_ADDRESSES;
    let ours = [
        ("ENDPOINTS", raw::ENDPOINTS.into()),
        ("ENDPOINTS_OF_LARGE", raw::ENDPOINTS_OF_LARGE.into()),
        ("GROUPS", raw::GROUPS as u64),
        ("LISTENERS_OF_ENDPOINT", raw::LISTENERS_OF_ENDPOINT as u64),
        ("WRR_TABLE", raw::WRR_TABLE as u64),
        ("POD_SOCKETS", raw::LISTENERS.into()),
        ("SLOTS", raw::SLOTS.into()),
        ("SERVICES", raw::SERVICES.into()),
        ("ONLY6", raw::ONLY_V6.into()),
        ("CLOSED4", raw::CLOSED_V4.into()),
        ("CLOSED6", raw::CLOSED_V6.into()),
        ("DECLARED", raw::DECLARED.into()),
        ("SILENT", raw::SILENT.into()),
        ("EVENT_BOUND", raw::NOTICE_BOUND.into()),
        ("EVENT_LISTENS", raw::NOTICE_LISTENS.into()),
        ("EVENT_CLOSED", raw::NOTICE_CLOSED.into()),
        ("EVENT_OTHER_USER", raw::NOTICE_OTHER_USER.into()),
        ("EVENT_EXCLUSIVE", raw::NOTICE_EXCLUSIVE.into()),
        ("EVENT_CHOOSES", raw::NOTICE_CHOOSES.into()),
        ("LEAST_CONNECTIONS", Balance::LeastConnections.number().into()),
        ("HASH", Balance::Hash.number().into()),
        ("RANDOM", Balance::Random.number().into()),
        ("REPLICA_FIRST", first.to_bits().into()),
        ("REPLICA_LAST", last.to_bits().into()),
        ("REPLICA_PREFIX0", word(0)),
        ("REPLICA_PREFIX1", word(2)),
    ];
    for (name, value) in ours {
        assert_eq!(theirs.get(name), Some(&value), "{name} of the C headers");
    }
    let events = theirs.keys().filter(|name| name.starts_with("EVENT_")).count();
    assert_eq!(
        events,
        ours.iter().filter(|(name, _)| name.starts_with("EVENT_")).count(),
        "an event is unknown here"
    );
}
