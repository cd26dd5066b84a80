//! Files that would eat time or memory end in an error, soon and small.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::support::Folder;

/// What a load may take. Without optimisation it takes about ten times as long.
const LONGEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
/// Most memory that a load may have of its own, in KiB. More of it is refused: the peak that the kernel counts for a child
/// begins with that of the process which forked it, here a test program of any size.
const MOST_MEMORY: u64 = 200 << 10;

fn bomb() -> String {
    let mut text = "x-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for n in 1..12 {
        let alias = format!("*a{}", n - 1);
        text.push_str(&format!("x-{n}: &a{n} [{}]\n", [alias.as_str(); 9].join(", ")));
    }
    text + "services: {web: {image: a}}\n"
}

fn merge_bomb() -> String {
    let mut text = "x-0: &a0 {k: v}\n".to_owned();
    for n in 1..40 {
        text.push_str(&format!("x-{n}: &a{n} {{<<: [*a{m}, *a{m}], k{n}: [*a{m}, *a{m}]}}\n", m = n - 1));
    }
    text
}

/// As many services as the limit of values lets through.
fn services(keys: impl Fn(usize) -> String) -> String {
    let lines: String = (0..MANY).map(|n| format!("  s{n}: {{image: a, {}}}\n", keys(n))).collect();
    format!("services:\n{lines}")
}

const MANY: usize = 12_000;

/// Names of files, their text, and a word of the message.
fn files() -> Vec<(&'static str, String, &'static str)> {
    let long = "y".repeat(1 << 20);
    vec![
        ("ten megabytes", services(|_| "user: b".into()).repeat(30), "larger than 2 MiB"),
        ("one long text", format!("x: {}", "a".repeat(10 << 20)), "larger than 2 MiB"),
        ("deep lists", format!("x: {}", "[".repeat(1 << 20)), "nested deeper"),
        ("deep mappings", format!("x: {}", "{a: ".repeat(400_000)), "nested deeper"),
        ("deep lines", (0..1400).map(|n| format!("{}a:\n", " ".repeat(n))).collect(), "nested deeper"),
        ("deep dashes", format!("x:\n{}", "- ".repeat(900_000)), "nested deeper"),
        ("a bomb of aliases", bomb(), "says too much"),
        ("a bomb of merges", merge_bomb(), "says too much"),
        (
            "a long text many times",
            format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(10_000)),
            "says too much",
        ),
        ("an alias in itself", "services: &a {web: *a}\n".into(), "inside the value"),
        ("many values", format!("x: [{}]\n", "1,".repeat(900_000)), "says too much"),
        ("many anchors", (0..90_000).map(|n| format!("k{n}: &a{n} v\n")).collect(), "says too much"),
        ("many keys", (0..49_000).map(|n| format!("k{n}: v\n")).collect(), "no `services`"),
        ("a key many times", "k: v\n".repeat(49_000), "is here twice"),
        (
            "many unset variables",
            format!("x: \"{}\"\n", (0..190_000).map(|n| format!("$A{n} ")).collect::<String>()),
            "no `services`",
        ),
        (
            "deep defaults",
            format!("x: \"{}{}\"\n", "${A:-".repeat(300_000), "}".repeat(300_000)),
            "nested too deep",
        ),
        ("unclosed variables", format!("x: {}\n", "${A".repeat(600_000)), "without its `}`"),
        ("many mistakes", services(|n| format!("restart: alway{n}")), "not shown"),
        (
            "many unknown volumes",
            format!("{}volumes:\n", services(|n| format!("volumes: [\"v{n}:/a\"]"))),
            "not shown",
        ),
        ("many unknown services", services(|n| format!("depends_on: [z{n}]")), "not shown"),
        ("a long circle", services(|n| format!("depends_on: [s{}]", (n + 1) % MANY)), "wait for each other"),
        ("ports without end", services(|_| "ports: [\"1-65535:1-65535\"]".into()), "more than 16384 ports"),
        ("exposed ports without end", services(|_| "expose: [\"1-65535\"]".into()), "more than 16384 ports"),
        (
            "ports that contradict each other",
            format!(
                "services: {{web: {{image: a, x-sameport: {{ports: {{1-65535: shared{}}}}}}}}}",
                (1..20_000).map(|n| format!(", {n}-{}: exclusive", n + 20_000)).collect::<String>()
            ),
            "not shown",
        ),
        ("many env files", services(|_| "env_file: big.env".into()), "larger than 4 MiB"),
        ("a long key", format!("? {}\n: v\n", "k".repeat(1 << 20)), "no `services`"),
        ("quotes without end", "\"".repeat(1 << 20), "YAML"),
        ("nothing but nulls", "\0".repeat(1 << 20), "NUL"),
    ]
}

#[test]
fn hostile_files_end_soon_and_small() {
    let folder = Folder::new(&[(
        "big.env",
        &(0..20_000).map(|n| format!("VARIABLE_{n}=value\n")).collect::<String>(),
    )]);
    for (case, text, expected) in files() {
        fs::write(folder.home().join("compose.yaml"), text).unwrap();
        let start = Instant::now();
        let output = Command::new("sh")
            .args(["-c", r#"ulimit -d "$1" && exec "$0" config --quiet"#])
            .arg(env!("CARGO_BIN_EXE_sameport"))
            .arg(MOST_MEMORY.to_string())
            .current_dir(folder.home())
            .output()
            .unwrap();
        let took = start.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{case}: {said:.2000}");
        assert!(said.contains(expected), "{case} says: {said:.2000}");
        assert!(said.len() < 100_000, "{case} says {} bytes", said.len());
        assert!(took < LONGEST, "{case} took {took:?}");
        println!("{case}: {took:?}");
    }
}

#[test]
fn a_file_just_below_the_limits_loads() {
    let text = format!(
        "services:\n{}",
        (0..9_000).map(|n| format!("  s{n}: {{image: a, depends_on: [s{}]}}\n", n + 1)).collect::<String>()
    );
    let folder = Folder::new(&[("compose.yaml", &format!("{text}  s9000: {{image: a}}\n"))]);
    let start = Instant::now();
    let loaded = folder.load().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded.project.services.len(), 9_001);
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
}
