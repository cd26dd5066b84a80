//! What the kernel itself does where nobody shares anything: the same servers and the same questions in a network of
//! their own, and what differs from that.

use std::{collections::BTreeMap, sync::OnceLock};

use sameport::kernel::sockets::Transport;
use serde_json::{Value, json};

use super::{
    agent::Agent,
    network::{Plain, V4, V6},
};

/// Where a server may be bound.
#[derive(Clone, Copy, Debug)]
pub struct Bind {
    pub address: &'static str,
    pub only_v6: bool,
}

pub const BINDS: [Bind; 8] = [
    Bind { address: "0.0.0.0", only_v6: false },
    Bind { address: "::", only_v6: false },
    Bind { address: "::", only_v6: true },
    Bind { address: "127.0.0.1", only_v6: false },
    Bind { address: "127.0.0.53", only_v6: false },
    Bind { address: "::1", only_v6: true },
    Bind { address: V4, only_v6: false },
    Bind { address: V6, only_v6: true },
];

const LOCAL: [&str; 4] = ["127.0.0.1", "::1", V4, V6];
const ALL: [&str; 11] = [
    "127.0.0.1",
    "::1",
    "127.0.0.53",
    "::ffff:127.0.0.1",
    V4,
    V6,
    "::ffff:10.77.3.2",
    "localhost",
    "0.0.0.0",
    "::",
    "::ffff:0.0.0.0",
];

/// The port of the server that is bound as `BINDS[number]`.
pub fn port(number: usize) -> u16 {
    7001 + u16::try_from(number).unwrap()
}

/// All ports with a server of each transport.
pub fn ports() -> impl Iterator<Item = (Transport, u16)> {
    (0..BINDS.len()).flat_map(|number| [(Transport::Tcp, port(number)), (Transport::Udp, port(number))])
}

/// Who asks how for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Of which server.
    pub number: usize,
    pub how: &'static str,
    pub to: &'static str,
    /// Where the client is bound, if it is.
    pub from: Option<&'static str>,
}

impl Question {
    fn json(&self) -> Value {
        let source = self.from.map(|from| json!([from, 0]));
        json!({"how": self.how, "to": self.to, "port": port(self.number), "source": source})
    }

    /// Whether it is to an address that every container has for itself.
    pub fn is_to_loopback(&self) -> bool {
        !matches!(self.to, V4 | V6 | "::ffff:10.77.3.2")
    }
}

/// The questions for each server, in the same order.
pub fn questions() -> Vec<Question> {
    (0..BINDS.len()).flat_map(questions_for).collect()
}

fn questions_for(number: usize) -> impl Iterator<Item = Question> {
    let usual = ["tcp", "udp", "udp sendto"];
    let rare = ["io_uring", "io_uring polled", "fast open", "mptcp", "udp reconnected"];
    let plain = usual.into_iter().flat_map(|how| ALL.map(|to| (how, to, None)));
    let other = rare.into_iter().flat_map(|how| LOCAL.map(|to| (how, to, None)));
    let pairs = [
        ("127.0.0.1", "127.0.0.9"),
        ("127.0.0.1", V4),
        (V4, "127.0.0.1"),
        (V4, V4),
        (V6, V6),
        ("::1", "::1"),
    ];
    let bound = usual.into_iter().flat_map(move |how| pairs.map(|(to, from)| (how, to, Some(from))));
    plain.chain(other).chain(bound).map(move |(how, to, from)| Question { number, how, to, from })
}

/// What an agent says of an outcome: who answered, by which of its listeners, how it looked, how often.
pub type Outcome = (Option<String>, String, String, u64);

/// What came of a question: who answered, if anybody, and how it looked. How often.
pub type Seen = BTreeMap<(Option<String>, String), u64>;

/// Opens all servers in an agent.
pub fn serve(agent: &mut Agent) {
    serve_turned(agent, 0);
}

/// The same, and each is bound as the one that is so many places further.
pub fn serve_turned(agent: &mut Agent, by: usize) {
    for number in 0..BINDS.len() {
        let bind = BINDS[(number + by) % BINDS.len()];
        for function in ["listen", "udp"] {
            agent.call(
                function,
                json!({"address": bind.address, "port": port(number), "v6only": u8::from(bind.only_v6),
                       "label": format!("{function} {number}")}),
            );
        }
    }
}

/// Closes all of them.
pub fn close(agent: &mut Agent) {
    for number in 0..BINDS.len() {
        for function in ["listen", "udp"] {
            agent.call("close", json!({"label": format!("{function} {number}")}));
        }
    }
}

/// Has many ask at the same time, each question so often.
pub fn ask(agents: &mut [Agent], questions: &[Question], times: u32) -> Vec<Vec<Seen>> {
    let list: Vec<_> = questions.iter().map(Question::json).collect();
    for agent in &mut *agents {
        agent.tell("ask", json!({"questions": list, "times": times}));
    }
    agents.iter_mut().map(|agent| seen(&agent.hear().unwrap())).collect()
}

fn seen(told: &Value) -> Vec<Seen> {
    let told: Vec<Vec<Outcome>> = serde_json::from_value(told.clone()).unwrap();
    let mut all = Vec::new();
    for outcomes in told {
        let mut seen = Seen::new();
        for (who, _, text, count) in outcomes {
            *seen.entry((who, text)).or_default() += count;
        }
        all.push(seen);
    }
    all
}

/// What comes of [`questions`] in a network of one's own: where somebody answers, and how that looks.
pub fn alone() -> &'static [(bool, String)] {
    static ALONE: OnceLock<Vec<(bool, String)>> = OnceLock::new();
    ALONE.get_or_init(|| {
        let plain = Plain::new();
        let mut server = Agent::start("self", plain.pid(), None);
        serve(&mut server);
        let client = Agent::start("client", plain.pid(), None);
        verdict(&ask(&mut [client], &questions(), 2)[0])
    })
}

/// The same with nobody who listens.
pub fn nobody() -> &'static [(bool, String)] {
    static NOBODY: OnceLock<Vec<(bool, String)>> = OnceLock::new();
    NOBODY.get_or_init(|| {
        let plain = Plain::new();
        let client = Agent::start("client", plain.pid(), None);
        verdict(&ask(&mut [client], &questions(), 1)[0])
    })
}

fn verdict(seen: &[Seen]) -> Vec<(bool, String)> {
    let one = |(question, seen): (&Question, &Seen)| {
        assert_eq!(seen.len(), 1, "the kernel does not always do the same at {question:?}: {seen:?}");
        let (who, text) = seen.keys().next().unwrap();
        (who.is_some(), text.clone())
    };
    questions().iter().zip(seen).map(one).collect()
}

/// Where what an asker saw is not what it would have seen alone.
pub fn differences(
    asker: &str,
    questions: &[Question],
    alone: &[(bool, String)],
    seen: &[Seen],
) -> Vec<String> {
    let mut differences = Vec::new();
    for ((question, (answered, text)), seen) in questions.iter().zip(alone).zip(seen) {
        let expected = (answered.then(|| asker.to_owned()), text.clone());
        if !seen.keys().eq([&expected]) {
            differences.push(format!(
                "{asker}: {question:?}: alone {}; here {}",
                show(&expected),
                shown(seen)
            ));
        }
    }
    differences
}

fn show((who, text): &(Option<String>, String)) -> String {
    who.as_ref().map_or_else(|| text.clone(), |who| format!("{who} {text}"))
}

pub fn shown(seen: &Seen) -> String {
    let each: Vec<_> =
        seen.iter().map(|(outcome, count)| format!("{count} times {}", show(outcome))).collect();
    each.join(", ")
}

/// Fails with all differences there are.
#[track_caller]
pub fn none(of: usize, differences: &[String]) {
    assert!(differences.is_empty(), "{} of {of} differ:\n{}", differences.len(), differences.join("\n"));
}
